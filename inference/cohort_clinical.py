"""The clinical table of a cohort: a CSV file with one row for each scan, in which the clinic says what it knows."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sacroleak.core.errors import InputError
from sacroleak.core.manifest import CASE_ID

TABLE = "clinical table"
MISSING = frozenset({"", "na", "n/a"})
CATEGORY = re.compile(r"[^\W_][\w /()+-]{0,39}")
SEXES = {"f": "female", "female": "female", "m": "male", "male": "male", "other": "other"}

SCORE_LIMITS: Mapping[str, tuple[float, float]] = {"vas": (0.0, 10.0), "odi": (0.0, 100.0), "kps": (0.0, 100.0)}
"""Pain on a scale of 0 to 10, Oswestry disability index in percent, Karnofsky performance status."""

SCORE_COLUMN = re.compile(r"(vas|odi|kps)_(?:0|([1-9][0-9]{0,3})(d|w|mo|y))")
SCORE_LIKE = tuple(f"{measure}_" for measure in SCORE_LIMITS)
DAYS = {"d": 1.0, "w": 7.0, "mo": 365.25 / 12, "y": 365.25}
UNIT_WORDS = {"d": "day", "w": "week", "mo": "month", "y": "year"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTime:
    """When a score was taken, `days` after the procedure; `key` is `0` (before it) or a number and a unit as `3d`."""

    key: str
    days: float
    label: str


BEFORE = ScoreTime(key="0", days=0.0, label="before")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClinicalRow:
    """What the table says of one scan; None where it says nothing.

    `patient` is the user's own code, only compared and never written anywhere. `lesions` and `needles` are those of
    the procedure after which the scan was taken. `scores` holds, by measure and time key, the scores that are known.
    """

    row: int
    case_id: str
    patient: str | None = None
    approach: str | None = None
    age: float | None = None
    sex: str | None = None
    primary_tumour: str | None = None
    lesions: int | None = None
    needles: int | None = None
    scores: Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClinicalTable:
    """All rows; for each measure its times in order, the time before the procedure first; columns left alone."""

    rows: tuple[ClinicalRow, ...]
    times: Mapping[str, tuple[ScoreTime, ...]]
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """One cell with its place in the file, for messages. They never repeat what the cell holds."""

    row: int
    column: str
    text: str

    def fault(self, wanted: str) -> InputError:
        where = f"{TABLE}, row {self.row}, column {self.column}"
        return InputError(f"{where}: wanted {wanted}, or nothing if it is not known")


def read_clinical(path: Path) -> ClinicalTable:
    """Read and check the whole table. Raises InputError naming row and column; row 1 is the header.

    Columns that are not known are left alone and listed, but one that begins like a score and is none is refused.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = list(enumerate(csv.reader(stream, strict=True), start=1))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise InputError(f"{TABLE}: cannot be read as a CSV file in UTF-8") from None
    header = _header(lines[0][1] if lines else [])
    rows = tuple(_row(_cells(number, header, values)) for number, values in lines[1:]
                 if any(value.strip() for value in values))
    if not rows:
        raise InputError(f"{TABLE}: has no rows below the header")
    _require_unique(rows)
    measures = {measure: _times(measure, header) for measure in SCORE_LIMITS}
    return ClinicalTable(rows=rows, times={measure: times for measure, times in measures.items() if times},
                         ignored=tuple(name for name in header if name not in READERS and not _is_score(name)))


def _header(names: Sequence[str]) -> list[str]:
    header = [name.strip() for name in names]
    if "case_id" not in header:
        raise InputError(f"{TABLE}: column case_id missing; wanted a header line of names separated by commas")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(f"{TABLE}: column {twice[0] or 'without a name'} is there twice")
    for name in header:
        if name.startswith(SCORE_LIKE) and not _is_score(name):
            raise InputError(f"{TABLE}: column {name}: wanted {name[:3]}_0 for before the procedure, or a number and "
                             f"d, w, mo or y for after it, as in {name[:3]}_3d or {name[:3]}_12mo")
    return header


def _cells(row: int, header: Sequence[str], values: Sequence[str]) -> dict[str, _Cell]:
    if len(values) > len(header):
        raise InputError(f"{TABLE}, row {row}: has {len(values)} cells, the header {len(header)}; write numbers with a "
                         "point, and text that holds a comma in quotes")
    texts = [*values, *[""] * (len(header) - len(values))]
    return {name: _Cell(row=row, column=name, text=text.strip()) for name, text in zip(header, texts, strict=True)}


def _row(cells: Mapping[str, _Cell]) -> ClinicalRow:
    known = {name: cell for name, cell in cells.items() if name == "case_id" or cell.text.lower() not in MISSING}
    case_id = cells["case_id"]
    if not CASE_ID.fullmatch(case_id.text):
        raise InputError(f"{TABLE}, row {case_id.row}, column case_id: wanted the scan's name in results.csv")
    values: dict[str, Any] = {name: read(known[name]) for name, read in READERS.items() if name in known}
    scores = {(name.split("_")[0], name.split("_")[1]): _score(cell) for name, cell in known.items() if _is_score(name)}
    return ClinicalRow(row=case_id.row, scores=scores, **values)


def _require_unique(rows: Sequence[ClinicalRow]) -> None:
    seen: dict[str, int] = {}
    for row in rows:
        first = seen.setdefault(row.case_id.lower(), row.row)
        if first != row.row:
            raise InputError(f"{TABLE}, row {row.row}, column case_id: the same as in row {first}")


def _is_score(name: str) -> bool:
    return SCORE_COLUMN.fullmatch(name) is not None


def _times(measure: str, header: Sequence[str]) -> tuple[ScoreTime, ...]:
    found = [match for name in header if (match := SCORE_COLUMN.fullmatch(name)) and match[1] == measure]
    return tuple(sorted((_time(match) for match in found), key=lambda time: (time.days, time.key)))


def _time(match: re.Match[str]) -> ScoreTime:
    if match[2] is None:
        return BEFORE
    count, unit = int(match[2]), match[3]
    words = f"day {count}" if unit == "d" else f"{count} {UNIT_WORDS[unit]}{'s' if count > 1 else ''}"
    return ScoreTime(key=f"{count}{unit}", days=count * DAYS[unit], label=words)


def _number(cell: _Cell, low: float, high: float) -> float:
    wanted = f"a number from {low:g} to {high:g} with a point"
    try:
        value = float(cell.text)
    except ValueError:
        raise cell.fault(wanted) from None
    if not (math.isfinite(value) and low <= value <= high):
        raise cell.fault(wanted)
    return value


def _count(cell: _Cell) -> int:
    value = _number(cell, 1, 40)
    if value != int(value):
        raise cell.fault("a whole number from 1 to 40")
    return int(value)


def _score(cell: _Cell) -> float:
    return _number(cell, *SCORE_LIMITS[cell.column.split("_")[0]])


def _category(cell: _Cell) -> str:
    """Spelling variants become one: lower case, one space between words, no hyphens or underscores."""
    if not CATEGORY.fullmatch(cell.text):
        raise cell.fault("a short word of letters and digits")
    return " ".join(cell.text.lower().replace("_", " ").replace("-", " ").split())


def _sex(cell: _Cell) -> str:
    if cell.text.lower() not in SEXES:
        raise cell.fault("f, m or other")
    return SEXES[cell.text.lower()]


READERS: Mapping[str, Callable[[_Cell], Any]] = {
    "case_id": lambda cell: cell.text, "patient": lambda cell: cell.text, "approach": _category,
    "age": lambda cell: _number(cell, 0, 120), "sex": _sex, "primary_tumour": _category, "lesions": _count,
    "needles": _count,
}
"""The columns that are known beside the scores, and how a cell of each is read."""
