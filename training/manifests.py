"""The CSV manifests that say which scans and anatomies there are, and on which side of the split each stands."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from sacroleak.core.errors import ConfigError, ManifestError


def manifest_rows(path: Path) -> Iterator[dict[str, str]]:
    """Each row by its column names, in the order of the file. Raises ManifestError if there is no such file."""
    if not path.is_file():
        raise ManifestError(f"{path.name}: no such manifest")
    with path.open(newline="", encoding="utf-8") as stream:
        yield from csv.DictReader(stream)


def splits_of(manifest: Path) -> dict[str, str]:
    """Anatomy -> split, in the order of the file. Raises ManifestError if there is no such file."""
    return {row["anatomy"]: row["split"] for row in manifest_rows(manifest)}


def anatomies_of(split: str, folder: Path, manifest: Path) -> list[Path]:
    """Files of `folder` whose row in the manifest says `split`, in the order of the manifest.

    Raises ManifestError if there is no manifest, ConfigError for a file without a row, or if no such file is there.
    """
    splits = splits_of(manifest)
    files = {path.stem: path for path in sorted(folder.glob("*.npz"))}
    unknown = [name for name in files if name not in splits]
    if unknown:
        raise ConfigError(f"{manifest.name}: no row for {', '.join(unknown[:3])}; every anatomy needs a split")
    names = [name for name, own in splits.items() if own == split]
    chosen = [files[name] for name in names if name in files]
    if not chosen:
        raise ConfigError(f"{folder.name}: none of the {len(names)} anatomies of split {split} is there; run the "
                          "prepare stage first, or leave out what draws from that split")
    return chosen
