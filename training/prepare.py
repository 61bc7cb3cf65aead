"""Stage: turn every source of anatomy into distance fields, one file each, ready to be drawn from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from rich.progress import track

from sacroleak.core.config import load_config
from sacroleak.core.errors import InputError
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.procedural import procedural_pelvis
from sacroleak.training.surfaces import Donor, Mesh, Pelvis, build_anatomy, mean_sacrum

PELVIS_SOURCE = "Han et al., Atlas of Pelvis Segmentation and Trajectory Planning, CC BY 4.0"


class PrepareConfig(BaseModel):
    """What to prepare. `pelvis_surfaces` and `spine_surfaces` are paths below the folder given on the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    procedural: int
    seed: int
    pelvis_surfaces: str
    spine_surfaces: str


def main(config: PrepareConfig, *, out: Path, surfaces: Path | None = None) -> list[Path]:
    """Write `<out>/<anatomy>.npz` for each anatomy that is not there yet; returns all of their paths.

    Without `surfaces` only procedural pelvises are made. Raises InputError if a surface file is missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    jobs = list(_procedural(config)) + (list(_pelvises(config, surfaces)) if surfaces else [])
    written = []
    for name, make in track(jobs, description="anatomies"):
        path = out / f"{name}.npz"
        if not path.exists():
            make().save(path)
        written.append(path)
    return written


class _Procedural:
    def __init__(self, name: str, seed: tuple[int, int]) -> None:
        self._name, self._seed = name, seed

    def __call__(self) -> Anatomy:
        return replace(procedural_pelvis(np.random.default_rng(self._seed)), name=self._name)


class _Patient:
    def __init__(self, pelvis: Pelvis, mean: npt.NDArray[np.float64], donor: Donor, seed: tuple[int, int]) -> None:
        self._pelvis, self._mean, self._donor, self._seed = pelvis, mean, donor, seed

    def __call__(self) -> Anatomy:
        return build_anatomy(self._pelvis, self._mean, self._donor, np.random.default_rng(self._seed))


def _procedural(config: PrepareConfig) -> Iterator[tuple[str, _Procedural]]:
    for number in range(config.procedural):
        name = f"procedural-{number:03d}"
        yield name, _Procedural(name, (config.seed, number))


def _pelvises(config: PrepareConfig, surfaces: Path) -> Iterator[tuple[str, _Patient]]:
    pelvises, spine = _load(surfaces / config.pelvis_surfaces), _load(surfaces / config.spine_surfaces)
    donor = Donor(**{key: _mesh(spine[f"{name}_vertices"], spine[f"{name}_faces"])
                     for key, name in (("sacrum", "sacrum"), ("l5", "L5"), ("l4", "L4"))})
    mean = mean_sacrum(pelvises["sacrum_vertices"].astype(np.float64))
    for row, subject in enumerate(pelvises["subject"].tolist()):
        bones = {bone: _mesh(pelvises[f"{bone}_vertices"][row], pelvises[f"{bone}_faces"])
                 for bone in ("sacrum", "hip_left", "hip_right")}
        pelvis = Pelvis(name=f"jhu-{subject:02d}", source=PELVIS_SOURCE, **bones)
        yield pelvis.name, _Patient(pelvis, mean, donor, (config.seed, 1000 + subject))


def _mesh(vertices: npt.NDArray[np.generic], faces: npt.NDArray[np.generic]) -> Mesh:
    return Mesh(vertices=vertices.astype(np.float64), faces=faces.astype(np.int64))


def _load(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    if not path.is_file():
        raise InputError(f"{path.name}: no such file of surfaces; see docs/training.md for where they come from")
    with np.load(path, allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/prepare.yaml"))
    parser.add_argument("--surfaces", type=Path, help="folder of the surface files; without it, procedural only")
    parser.add_argument("--out", type=Path, default=Path("artifacts/anatomies"))
    given = parser.parse_args()
    main(load_config(given.config, PrepareConfig), out=given.out, surfaces=given.surfaces)
