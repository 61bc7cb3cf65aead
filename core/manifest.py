"""A list of scans in a CSV file: columns `case_id` and `path`, one scan a row, and what is known of its needles in
`approach` and `entry_lps_mm`; other columns are left alone."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from sacroleak.core.errors import ManifestError
from sacroleak.core.needle import Approach, Entry, NeedleNote

CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Case ids become folder names: no separators, no leading dot, at most 64 characters."""

COLUMNS = ("case_id", "path")
APPROACH, ENTRY = "approach", "entry_lps_mm"
"""Columns that need not be there, and cells that may be empty."""

_APPROACHES = {approach.replace("_", ""): approach for approach in Approach}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One scan: the user's own `case_id`, where its files are (relative to the manifest's folder, or absolute), and
    what is known of its needles, None where that is nothing.
    """

    row: int
    case_id: str
    path: Path
    needles: NeedleNote | None = None


def read_manifest(path: Path) -> tuple[ManifestRow, ...]:
    """The rows of a manifest, all checked before the first is used. Raises ManifestError with the row number."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ManifestError(f"manifest: column {' and '.join(missing)} missing, wanted {', '.join(COLUMNS)}")
            rows = tuple(_row(number, values, path.parent) for number, values in enumerate(reader, start=2))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise ManifestError("manifest: cannot be read as a CSV file in UTF-8") from None
    if not rows:
        raise ManifestError("manifest: has no rows")
    _require_unique(rows)
    return rows


def _row(number: int, values: dict[str, str | None], folder: Path) -> ManifestRow:
    case_id, place = (values["case_id"] or "").strip(), (values["path"] or "").strip()
    if not CASE_ID.fullmatch(case_id):
        raise ManifestError(f"manifest, row {number}: case_id must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with a "
                            "letter or digit")
    if not place:
        raise ManifestError(f"manifest, row {number}: path is empty")
    return ManifestRow(row=number, case_id=case_id, path=folder / place, needles=_needles(number, values))


def _needles(number: int, values: dict[str, str | None]) -> NeedleNote | None:
    """What a row says of the needles. The messages never repeat a cell, which may hold anything."""
    word, places = ((values.get(name) or "").strip() for name in (APPROACH, ENTRY))
    if not word and not places:
        return None
    approach = _APPROACHES.get(re.sub(r"[\s_-]", "", word).lower())
    if word and approach is None:
        raise ManifestError(f"manifest, row {number}: {APPROACH} must be empty or one of {', '.join(Approach)}")
    try:
        entries = {_entry(place) for place in places.split(";")} if places else set()
        # Sorted, because neither their order nor saying one twice tells anything.
        return NeedleNote(approach=approach, entries_lps_mm=tuple(sorted(entries)))
    except ValueError:
        raise ManifestError(f"manifest, row {number}: {ENTRY} must be empty or places as `x y z`, three numbers in mm "
                            "with a point, several places separated by a semicolon") from None


def _entry(text: str) -> Entry:
    """One place. Raises ValueError if it is not three numbers."""
    words = text.split()
    if len(words) != 3 or not all(_NUMBER.fullmatch(word) for word in words):
        raise ValueError("not three numbers")
    x, y, z = (float(word) for word in words)
    return x, y, z


def _require_unique(rows: tuple[ManifestRow, ...]) -> None:
    """Compared without case: the ids become folders, and some file systems do not tell them apart."""
    seen: dict[str, int] = {}
    for row in rows:
        first = seen.setdefault(row.case_id.lower(), row.row)
        if first != row.row:
            raise ManifestError(f"manifest, row {row.row}: case_id is the same as in row {first}")
