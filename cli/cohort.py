"""`sacroleak cohort`: the table of a scored cohort, with the clinic's own values if they are given."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sacroleak.core.errors import InputError

if TYPE_CHECKING:
    from sacroleak.inference.cohort_members import Notice

Scored = Annotated[Path, typer.Argument(help="The --out folder of sacroleak score; the table is written into it.",
                                        metavar="OUT")]
Clinical = Annotated[Path | None, typer.Option("--clinical", metavar="TABLE.csv",
                                               help="What the clinic knows of each scan: a CSV file with a column "
                                                    "case_id; docs/cohort.md lists the others.")]
SEED = 1
"""Of the tables drawn for Fisher's test, so that the same cohort gives the same P."""


def cohort(out: Scored, *, clinical: Clinical = None) -> None:
    """Count patients, leaks and sites of scored scans, with intervals, tests and pictures: cohort.html, cohort.csv.

    Exit code 0: all done; 1: scans or clinical rows are missing from the table, each is named; 2: the call was wrong.
    """
    if not out.is_dir():
        raise InputError(f"{out}: is not a folder; give the --out folder of sacroleak score")
    import numpy as np

    from sacroleak.inference.cohort_clinical import read_clinical
    from sacroleak.inference.cohort_members import gather
    from sacroleak.inference.cohort_table import build_table
    from sacroleak.inference.cohort_write import PAGE, write_cohort

    members = gather(out, read_clinical(clinical) if clinical is not None else None)
    table = build_table(members, np.random.default_rng(SEED))
    write_cohort(table, out)
    for notice in members.notices:
        print(sentence(notice), file=sys.stderr if notice.absent else sys.stdout)
    print(table.summary)
    print(f"For research only. See {out / PAGE}")
    raise typer.Exit(0 if members.complete else 1)


def sentence(notice: Notice) -> str:
    """A notice in one line."""
    names = f": {', '.join(notice.case_ids)}" if notice.case_ids else "."
    return f"{notice.sentence}{names}"
