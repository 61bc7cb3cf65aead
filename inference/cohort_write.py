"""The files of a cohort table: cohort.html with everything inside it, cohort.csv, and one PNG for each picture."""

from __future__ import annotations

import csv
import io
from base64 import b64encode
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from jinja2 import DictLoader, Environment, StrictUndefined

from sacroleak.core.report import RULE_SCORE, STATEMENT
from sacroleak.core.whole import write_whole
from sacroleak.inference.cohort_figures import FILES, draw_cohort
from sacroleak.inference.cohort_table import CohortFigure, CohortTable

PAGE, TABLE = "cohort.html", "cohort.csv"
COLUMNS = ("name", "value", "n", "low", "high", "method")
TEMPLATES = ("base.html", "cohort.html")


def write_cohort(table: CohortTable, out: Path) -> None:
    """Write page, table and pictures into `out`, each whole; pictures of an earlier table that this has not go away."""
    pictures = draw_cohort(table)
    for name in FILES:
        if name not in pictures:
            (out / name).unlink(missing_ok=True)
    for name, picture in pictures.items():
        write_whole(out / name, picture)
    write_whole(out / TABLE, cohort_csv(table))
    write_whole(out / PAGE, cohort_page(table, pictures).encode())


def cohort_csv(table: CohortTable) -> bytes:
    """One row for each figure, UTF-8; shares from 0 to 1; what is not known is empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_row(figure) for figure in table.figures)
    return text.getvalue().encode()


def cohort_page(table: CohortTable, pictures: Mapping[str, bytes]) -> str:
    """The page, which needs no other file: pictures are inside it."""
    folder = files("sacroleak.inference") / "templates"
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in TEMPLATES}
    environment = Environment(loader=DictLoader(texts), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)
    return environment.get_template("cohort.html").render(
        title="Cement leakage in this cohort", statement=STATEMENT, rule_score=RULE_SCORE, table=table,
        named=table.cohort.notices,
        pictures={name: b64encode(picture).decode("ascii") for name, picture in pictures.items()})


def _row(figure: CohortFigure) -> list[str]:
    numbers = (_number(figure.value), str(figure.n), _number(figure.low), _number(figure.high))
    return [figure.name, *numbers, figure.method]


def _number(value: float | int | None) -> str:
    return "" if value is None else f"{value:.6g}"
