"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option("--out", help="Folder to write to; made if it is not there.", metavar="DIR")]
BundleFolder = Annotated[Path | None, typer.Option("--bundle", help="Folder of a released model, instead of the one "
                                                                    "that came with the software.", metavar="PATH")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads for the networks; all cores if not "
                                                                      "given.", metavar="N")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Same seed, same scans.", metavar="S")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error of the software arose.")]
