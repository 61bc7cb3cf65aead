"""Where the bones of a cohort come from: formulas, prepared anatomies, or a real CT with labels."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from sacroleak.core.errors import InputError
from sacroleak.core.whole import sha256_of
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.procedural import procedural_pelvis

KEPT = 4
"""Anatomies a worker keeps in memory, about 10 MB each, a real CT 100 to 300 MB."""


def find_anatomies(place: Path | None) -> tuple[Path, ...]:
    """The files to draw from: none for procedural pelvises, all prepared anatomies of a folder, or one file.

    Raises InputError if there is nothing of the kind.
    """
    if place is None:
        return ()
    files = sorted(place.glob("*.npz")) if place.is_dir() else [place]
    if not files or not all(path.is_file() for path in files):
        raise InputError(f"--anatomies {place}: no prepared anatomy (.npz) there; `make prepare` makes some")
    wrong = next((path for path in files if not is_prepared(path)), None)
    if wrong is not None:
        raise InputError(f"--anatomies {wrong.name}: not a prepared anatomy")
    return tuple(files)


def digest_of(files: tuple[Path, ...], number: int) -> str:
    """sha256 of what patient `number` is made from; of procedural bones the seed says enough."""
    return _file_digest(files[number % len(files)]) if files else "procedural"


def anatomy_of(files: tuple[Path, ...], number: int, rng: np.random.Generator) -> Anatomy:
    """The bones of patient `number`: the files in turn, or new procedural ones."""
    return _load(files[number % len(files)]) if files else procedural_pelvis(rng)


def is_prepared(path: Path) -> bool:
    """Whether a file is an anatomy that `Anatomy.save` wrote, and no other archive."""
    try:
        with np.load(path, allow_pickle=False) as data:
            return "field_sacrum" in data.files
    except (ValueError, OSError, EOFError):
        return False


@lru_cache(maxsize=KEPT)
def _load(path: Path) -> Anatomy:
    return Anatomy.load(path)


@lru_cache(maxsize=1024)
def _file_digest(path: Path) -> str:
    return sha256_of(path)
