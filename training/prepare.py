"""Stage: turn every source of anatomy into distance fields, one file each, ready to be drawn from."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import track

from sacroleak.core.config import load_config
from sacroleak.core.errors import InputError
from sacroleak.training.labelled_ct import read_labelled_ct
from sacroleak.training.manifests import splits_of
from sacroleak.training.mesh_files import from_surfaces, read_patient
from sacroleak.training.shape_model import (
    BONES,
    Limits,
    ShapeModel,
    build_model,
    draw_pelvis,
    in_own_frame,
    limits_of,
)
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.procedural import procedural_pelvis
from sacroleak.training.surfaces import Donor, Mesh, Pelvis, build_anatomy, mean_sacrum

PELVIS_SOURCE = "Han et al., Atlas of Pelvis Segmentation and Trajectory Planning, CC BY 4.0"
SHAPE_SOURCE = f"drawn from a shape model of the training patients of {PELVIS_SOURCE}"

CT_FILE = "ct.nii.gz"
MANIFEST = Path("data_manifests/anatomies.csv")

Job = tuple[str, Callable[[], Anatomy]]


class OwnSource(BaseModel):
    """One anatomy of the user's own: a folder of surfaces, or of `ct.nii.gz`, `labels.nii.gz` and perhaps `labels.tsv`.

    `folder` is a path below the one given on the command line; `name` becomes the anatomy's and its file's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    folder: str
    source: str


class PrepareConfig(BaseModel):
    """What to prepare. `pelvis_surfaces` and `spine_surfaces` are paths below the folder given on the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    procedural: int
    shapes: int
    seed: int
    pelvis_surfaces: str
    spine_surfaces: str
    own: tuple[OwnSource, ...]


def main(config: PrepareConfig, *, out: Path, surfaces: Path | None = None, manifest: Path = MANIFEST,
         own: Path | None = None) -> list[Path]:
    """Write `<out>/<anatomy>.npz` for each anatomy that is not there yet; returns all of their paths.

    Procedural pelvises need nothing else. `surfaces`: folder of the published surfaces; shapes are drawn from those
    of its patients whose split is `train` in `manifest`. `own`: folder of the user's own sources that the
    configuration names. Raises InputError if a file or a bone is missing or cannot be right.
    """
    jobs = list(_procedural(config)) + (list(_own(config, own)) if own else [])
    if surfaces:
        jobs += _pelvises(config, surfaces, manifest)
    twice = {name for name, _ in jobs if [n for n, _ in jobs].count(name) > 1}
    if twice:
        raise InputError(f"anatomies: {min(twice)} is the name of two of them")
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, make in track(jobs, description="anatomies"):
        path = out / f"{name}.npz"
        if not path.exists():
            make().save(path)
        written.append(path)
    return written


def _procedural(config: PrepareConfig) -> Iterator[Job]:
    def make(name: str, seed: tuple[int, int]) -> Anatomy:
        return replace(procedural_pelvis(np.random.default_rng(seed)), name=name)

    for number in range(config.procedural):
        name = f"procedural-{number:03d}"
        yield name, partial(make, name, (config.seed, number))


def _own(config: PrepareConfig, below: Path) -> Iterator[Job]:
    for item in config.own:
        folder = below / item.folder
        if not folder.is_dir():
            raise InputError(f"anatomy {item.name}: its folder is not there; it must lie below the one given by --own")
        yield item.name, partial(_read_own, item, folder)


def _read_own(item: OwnSource, folder: Path) -> Anatomy:
    if (folder / CT_FILE).is_file():
        names = folder / "labels.tsv"
        return read_labelled_ct(folder / CT_FILE, folder / "labels.nii.gz", names if names.is_file() else None,
                                name=item.name, source=item.source)
    return from_surfaces(read_patient(folder), name=item.name, source=item.source)


def _pelvises(config: PrepareConfig, surfaces: Path, manifest: Path) -> list[Job]:
    """The patients, then the pelvises drawn from those of them who are for training."""
    arrays, spine = _load(surfaces / config.pelvis_surfaces), _load(surfaces / config.spine_surfaces)
    donor = Donor(**{key: _mesh(spine[f"{name}_vertices"], spine[f"{name}_faces"])
                     for key, name in (("sacrum", "sacrum"), ("l5", "L5"), ("l4", "L4"))})
    mean = mean_sacrum(arrays["sacrum_vertices"].astype(np.float64))
    patients = [_patient(arrays, row) for row in range(len(arrays["subject"]))]

    def make(pelvis: Pelvis, number: int) -> Anatomy:
        return build_anatomy(pelvis, mean, donor, np.random.default_rng((config.seed, number)))

    subjects = [int(n) for n in arrays["subject"].tolist()]
    jobs: list[Job] = [(p.name, partial(make, p, 1000 + n)) for p, n in zip(patients, subjects, strict=True)]
    if config.shapes:
        train = _names_of("train", manifest)
        jobs += _shapes(config, [p for p in patients if p.name in train], donor)
    return jobs


def _shapes(config: PrepareConfig, patients: list[Pelvis], donor: Donor) -> Iterator[Job]:
    """Each drawn by its own number; neither modes nor mean nor limits know a patient outside `patients`."""
    @cache
    def known() -> tuple[ShapeModel, Limits, npt.NDArray[np.float64]]:
        model = build_model(patients)
        limits = limits_of(model, [in_own_frame(p, model) for p in patients])
        return model, limits, mean_sacrum(np.stack([p.sacrum.vertices for p in patients]))

    def make(name: str, number: int) -> Anatomy:
        model, limits, mean = known()
        rng = np.random.default_rng((config.seed, 2000 + number))
        return build_anatomy(draw_pelvis(rng, model, limits, name=name, source=SHAPE_SOURCE), mean, donor, rng)

    for number in range(config.shapes):
        name = f"shape-{number:03d}"
        yield name, partial(make, name, number)


def _patient(arrays: dict[str, npt.NDArray[np.generic]], row: int) -> Pelvis:
    bones = {bone: _mesh(arrays[f"{bone}_vertices"][row], arrays[f"{bone}_faces"]) for bone in BONES}
    return Pelvis(name=f"jhu-{int(arrays['subject'][row]):02d}", source=PELVIS_SOURCE, **bones)


def _names_of(split: str, manifest: Path) -> set[str]:
    if not manifest.is_file():
        raise InputError(f"{manifest.name}: no such manifest; shapes are drawn from its patients of split {split}")
    return {name for name, own in splits_of(manifest).items() if own == split}


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
    parser.add_argument("--manifest", type=Path, default=MANIFEST, help="which patients shapes may be drawn from")
    parser.add_argument("--own", type=Path, help="folder of your own surfaces or labelled CTs, named in the config")
    parser.add_argument("--out", type=Path, default=Path("artifacts/anatomies"))
    given = parser.parse_args()
    main(load_config(given.config, PrepareConfig), out=given.out, surfaces=given.surfaces, manifest=given.manifest,
         own=given.own)
