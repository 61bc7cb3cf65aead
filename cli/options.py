"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option("--out", help="Folder to write to; made if it is not there.", metavar="DIR")]
BundleFolder = Annotated[Path | None, typer.Option("--bundle", help="Folder of a released model, instead of the one "
                                                                    "that came with the software.", metavar="PATH")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, metavar="N",
                                             help="Threads for the networks of each process; the cores are shared out "
                                                  "if not given.")]
Workers = Annotated[int | None, typer.Option("--workers", min=0, metavar="N",
                                             help="Processes that score at once; one for each core as far as memory "
                                                  "goes if not given, 0 for none besides this one.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Same seed, same scans.", metavar="S")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error of the software arose.")]
