"""Simulated scans from which the leak classifier learns: each made once, and kept on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Site
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.core.whole import sha256_of, whole_file
from sacroleak.training.manifests import anatomies_of
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.case import Case, LeakTruth
from sacroleak.training.simulation.cases import CaseRequest, make_case
from sacroleak.training.simulation.cohort import draw_training_plan
from sacroleak.training.simulation.near_miss import NEAR_MISSES
from sacroleak.training.simulation.plan import Plan
from sacroleak.training.simulation.procedural import procedural_pelvis
from sacroleak.training.simulation.scanner import Scanner, draw_scanner
from sacroleak.training.simulation.tissue import draw_style

STREAM = 51_413
"""Joined to the seed, so that no stream of random numbers here is one of the benchmark, of training or of the demo."""
WHOLE_SACRUM_MM = 170.0
"""A round field of view at least so wide shows the sacrum whole."""
LABELS = ("anatomy", "cement", "leaks", "metal")

Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
Share = Annotated[float, Field(ge=0, le=1)]


class LeakCasesConfig(BaseModel):
    """A group of scans: `count` of them, `new_procedural` of them of pelvises that no network has seen, the others of
    anatomies of `split`; `far` is the share far from what patients show. Lengths in mm.

    No network has learned from anatomies of split validation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    count: int = Field(ge=1)
    seed: int
    split: Literal["train", "validation"] = "train"
    new_procedural: Share
    far: Share
    near_miss_without_leak: Share
    fov_mm: Range
    pixel_mm: Range
    slices_mm: Annotated[tuple[float, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LeakCase:
    """One scan with its truth. `patient`: whose bones, which must not be on both sides of a comparison."""

    name: str
    patient: str
    far: bool
    case: Case

    @property
    def sites(self) -> tuple[Site, ...]:
        """What a radiologist's list of sites would say, sorted."""
        return tuple(sorted({truth.site for truth in self.case.truth}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """All that decides scan `number`; `bones`: the anatomies to choose from, each with its sha256."""

    config: LeakCasesConfig
    number: int
    bones: tuple[tuple[Path, str], ...]

    @property
    def name(self) -> str:
        """Of the scan and, with `.npz`, of its file."""
        return f"leak-case-{self.number:04d}"

    @property
    def origin(self) -> str:
        """As it is kept with the scan: a scan made from other things is made anew. The count decides nothing."""
        return json.dumps([self.config.model_dump(mode="json", exclude={"count"}, exclude_defaults=True), self.number,
                           sorted(f"{path.name} {digest}" for path, digest in self.bones)])


def orders(groups: Sequence[LeakCasesConfig], *, anatomies: Path, manifest: Path) -> list[Order]:
    """One order a scan, numbered through all groups: one added at the end leaves the scans of the others as they are.

    Raises ManifestError or ConfigError if there are no bones of a split that a group draws from.
    """
    bones = {split: tuple((path, sha256_of(path)) for path in anatomies_of(split, anatomies, manifest))
             for split in {config.split for config in groups}}
    configs = [config for config in groups for _ in range(config.count)]
    return [Order(config=config, number=number, bones=bones[config.split]) for number, config in enumerate(configs)]


def kept_case(order: Order, folder: Path) -> LeakCase:
    """The scan of `<folder>/<name>.npz`, made first if it is not there or was made from other things.

    A change of the simulation's code is not noticed: remove the folder to have all made anew.
    """
    path = folder / f"{order.name}.npz"
    if _origin_of(path) != order.origin:
        save_leak_case(path, make(order), origin=order.origin)
    return load_leak_case(path)


def make(order: Order) -> LeakCase:
    """Render one scan: the same order gives the same scan."""
    config = order.config
    rng = np.random.default_rng((config.seed, STREAM, order.number))
    far = bool(rng.random() < config.far)
    if rng.random() < config.new_procedural:
        anatomy, patient = procedural_pelvis(rng), f"new-{order.number:04d}"
    else:
        path = order.bones[int(rng.integers(len(order.bones)))][0]
        anatomy, patient = Anatomy.load(path), path.stem
    plan = _plan(rng, config)
    wide = float(rng.uniform(*config.fov_mm))
    # Rounded, because slices are made of whole parts of a fine grid.
    request = CaseRequest(
        size_mm=(wide, 0.85 * wide, 0.9 * wide), pixel_mm=round(float(rng.uniform(*config.pixel_mm)), 2),
        thickness_mm=float(rng.choice(config.slices_mm)), scanner=_scanner(rng, far=far),
        style=draw_style(rng, wild=far, patient=plan.patient))
    return LeakCase(name=order.name, patient=patient, far=far, case=make_case(rng, anatomy, plan, request))


def _plan(rng: np.random.Generator, config: LeakCasesConfig) -> Plan:
    """A patient of the cohort `training`; treated ones that do not leak get one more near-miss at times."""
    plan = draw_training_plan(rng)
    if plan.injections and not plan.leaks and rng.random() < config.near_miss_without_leak:
        others = [name for name in NEAR_MISSES if name not in plan.near_misses]
        if others:
            plan = replace(plan, near_misses=(*plan.near_misses, str(rng.choice(others))))
    return plan


def _scanner(rng: np.random.Generator, *, far: bool) -> Scanner:
    """Any scanner whose round field of view does not cut off the sacrum."""
    scanner = draw_scanner(rng, wild=far)
    narrow = scanner.fov_mm is not None and scanner.fov_mm < WHOLE_SACRUM_MM
    return replace(scanner, fov_mm=None) if narrow else scanner


def save_leak_case(path: Path, item: LeakCase, *, origin: str = "") -> None:
    """Write scan, labels and truth to one .npz, whole or not at all."""
    case = item.case
    truth = [{"number": t.number, "site": t.site.value, "mechanism": t.mechanism, "volume_ml": t.volume_ml}
             for t in case.truth]
    about = {"name": item.name, "patient": item.patient, "far": item.far, "truth": truth}
    labels = {name: getattr(case, name).labels.astype(np.uint8) for name in LABELS}
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, hu=case.ct.hu, affine=case.ct.geometry.affine,
                            about=np.array(json.dumps(about)), origin=np.array(origin), **labels)


def load_leak_case(path: Path) -> LeakCase:
    """Read what `save_leak_case` wrote."""
    with np.load(path, allow_pickle=False) as data:
        geometry = Geometry(affine=data["affine"], shape=data["hu"].shape)
        ct = Volume(hu=data["hu"], geometry=geometry)
        labels = {name: data[name] for name in LABELS}
        about = json.loads(str(data["about"]))
    maps = {name: LabelMap(labels=values.astype(bool) if name in {"cement", "metal"} else values, geometry=geometry)
            for name, values in labels.items()}
    truth = tuple(LeakTruth(number=t["number"], site=Site(t["site"]), mechanism=t["mechanism"],
                            volume_ml=t["volume_ml"]) for t in about["truth"])
    case = Case(ct=ct, truth=truth, anatomy=maps["anatomy"], cement=maps["cement"], leaks=maps["leaks"],
                metal=maps["metal"])
    return LeakCase(name=about["name"], patient=about["patient"], far=about["far"], case=case)


def _origin_of(path: Path) -> str | None:
    """What a finished scan was made from."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as data:
        return str(data["origin"])
