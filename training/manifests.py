"""The CSV manifests that say which scans and anatomies there are, and on which side of the split each stands."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from sacroleak.core.errors import ManifestError


def manifest_rows(path: Path) -> Iterator[dict[str, str]]:
    """Each row by its column names, in the order of the file. Raises ManifestError if there is no such file."""
    if not path.is_file():
        raise ManifestError(f"{path.name}: no such manifest")
    with path.open(newline="", encoding="utf-8") as stream:
        yield from csv.DictReader(stream)


def splits_of(manifest: Path) -> dict[str, str]:
    """Anatomy -> split, in the order of the file. Raises ManifestError if there is no such file."""
    return {row["anatomy"]: row["split"] for row in manifest_rows(manifest)}
