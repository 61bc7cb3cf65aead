"""A list of scans in a CSV file: columns `case_id` and `path`, one scan a row; other columns are left alone."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from sacroleak.core.errors import ManifestError

CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Case ids become folder names: no separators, no leading dot, at most 64 characters."""

COLUMNS = ("case_id", "path")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One scan: the user's own `case_id`, and where its files are (relative to the manifest's folder, or absolute)."""

    row: int
    case_id: str
    path: Path


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
    return ManifestRow(row=number, case_id=case_id, path=folder / place)


def _require_unique(rows: tuple[ManifestRow, ...]) -> None:
    """Compared without case: the ids become folders, and some file systems do not tell them apart."""
    seen: dict[str, int] = {}
    for row in rows:
        first = seen.setdefault(row.case_id.lower(), row.row)
        if first != row.row:
            raise ManifestError(f"manifest, row {row.row}: case_id is the same as in row {first}")
