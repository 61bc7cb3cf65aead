"""Stage: the scans on which the released model is measured; made once from their manifest, kept, and never changed."""

from __future__ import annotations

import argparse
import hashlib
import json
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator
from rich.progress import track

from sacroleak.core.config import load_config
from sacroleak.core.errors import InputError, ManifestError
from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Site
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.core.whole import remove_leftovers, sha256_of, whole_file
from sacroleak.training.manifests import manifest_rows, splits_of
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.case import Case, LeakTruth
from sacroleak.training.simulation.cases import CaseRequest
from sacroleak.training.simulation.cases import make_case as simulate
from sacroleak.training.simulation.cohort import draw_plan, shipped_cohorts
from sacroleak.training.simulation.leak import MECHANISMS, OF_SITE
from sacroleak.training.simulation.plan import LeakPlan, LesionKind, Plan
from sacroleak.training.simulation.procedural import procedural_pelvis
from sacroleak.training.simulation.scanner import QUIET, Scanner
from sacroleak.training.simulation.tissue import draw_style

STREAM = 20_580
"""Joined to a case's seed, so that no stream of random numbers here is one that training or the demo draws from."""
PROCEDURAL, REAL = "procedural", "real"
DEPTH, HEIGHT = 0.8, 0.85
"""Of a scan as wide as the row's `fov_mm`: a pelvis is less deep than wide."""
KERNELS = {"soft": (1.4, 0.0), "standard": (1.0, 0.2), "bone": (0.6, 1.0)}
"""Blur (FWHM, mm) and edge enhancement of each kernel."""

_CEMENT_BIT, _METAL_BIT, _LEAK_SHIFT = 8, 16, 5
"""Labels share one byte: anatomy in bits 0-2, then cement, metal, and the leak's number (up to 7)."""


class BenchmarkRow(BaseModel):
    """One scan of the benchmark, as its line of the manifest says it; lists are separated by spaces. `leaks`: ways out,
    each with `@` and its volume in mL if that is asked for. What a row does not say is drawn from its seed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    case_id: str
    source: Literal["procedural", "surface", "real"]
    anatomy: str
    seed: int
    sites: tuple[Site, ...]
    slice_mm: float
    increment_mm: float
    pixel_mm: float
    fov_mm: float
    kernel: Literal["soft", "standard", "bone"]
    saturates: bool
    cement_hu: float
    prone: bool
    cement_ml: tuple[float, ...]
    lesion: Literal["", "lytic", "sclerotic", "mixed"]
    leaks: tuple[str, ...]
    near_misses: tuple[str, ...]
    metal: tuple[str, ...]
    calcium: tuple[str, ...]
    other_cement: tuple[str, ...]

    @field_validator("sites", "cement_ml", "leaks", "near_misses", "metal", "calcium", "other_cement", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return tuple(value.split()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _agrees(self) -> BenchmarkRow:
        """Raises ValueError for an unknown way out, or for sites that are not those of the ways out."""
        unknown = [leak.mechanism for leak in self.leak_plans if leak.mechanism not in MECHANISMS]
        if unknown:
            raise ValueError(f"unknown mechanism {unknown[0]}, wanted one of {', '.join(MECHANISMS)}")
        wanted = {site for site, names in OF_SITE.items() for leak in self.leak_plans if leak.mechanism in names}
        if set(self.sites) != wanted or len(self.sites) != len(wanted):
            raise ValueError(f"sites {' '.join(self.sites)} are not those of leaks {' '.join(self.leaks)}")
        return self

    @property
    def leak_plans(self) -> tuple[LeakPlan, ...]:
        """The leaks asked for."""
        parts = [text.partition("@") for text in self.leaks]
        return tuple(LeakPlan(mechanism=name, volume_ml=float(ml) if ml else None) for name, _, ml in parts)


class BenchmarkConfig(BaseModel):
    """Which scans: a manifest beside this repository's other manifests; `limit` takes the first so many of each source
    (0: all). `anatomy_manifest` says which patients may be used. Rows of a real CT are left out where it is not there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    manifest: Path
    anatomy_manifest: Path
    sources: tuple[str, ...] = ("procedural", "surface", "real")
    limit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BenchmarkCase:
    """One scan with its row, its truth, and the sha256 of both."""

    row: BenchmarkRow
    case: Case
    digest: str


def read_benchmark(config: BenchmarkConfig) -> list[BenchmarkRow]:
    """The chosen rows. Raises ManifestError for a bad row, or one whose patient is not held out of training."""
    rows = [_row(number, values) for number, values in enumerate(manifest_rows(config.manifest), start=2)]
    splits = splits_of(config.anatomy_manifest)
    ids = [row.case_id for row in rows]
    if len(set(ids)) != len(ids) or len({row.seed for row in rows}) != len(rows):
        raise ManifestError(f"{config.manifest.name}: case_id and seed must differ from row to row")
    for row in rows:
        if row.source != PROCEDURAL and splits.get(row.anatomy) != "test":
            raise ManifestError(f"{config.manifest.name}: {row.case_id} uses {row.anatomy}, which is not of split test")
    chosen = []
    for source in config.sources:
        own = [row for row in rows if row.source == source]
        chosen += own[: config.limit] if config.limit else own
    return chosen


def make_case(row: BenchmarkRow, anatomies: Path) -> Case:
    """Render one row. Raises InputError if `<anatomies>/<anatomy>.npz` is not there, unless the row is procedural."""
    rng = np.random.default_rng((row.seed, STREAM))
    if row.source == PROCEDURAL:
        anatomy = procedural_pelvis(rng)
    else:
        path = anatomies / f"{row.anatomy}.npz"
        if not path.is_file():
            raise InputError(f"{path}: no such anatomy; run the prepare stage with the surfaces first")
        anatomy = Anatomy.load(path)
    plan = plan_of_row(rng, row)
    request = CaseRequest(
        size_mm=(row.fov_mm, DEPTH * row.fov_mm, HEIGHT * row.fov_mm), pixel_mm=row.pixel_mm,
        thickness_mm=row.slice_mm, increment_mm=row.increment_mm, scanner=scanner_of_row(rng, row),
        style=replace(draw_style(rng, wild=False, patient=plan.patient), cement_hu=row.cement_hu))
    return simulate(rng, anatomy, plan, request)


def plan_of_row(rng: np.random.Generator, row: BenchmarkRow) -> Plan:
    """A patient of the reference cohort, changed to what the row says."""
    config = shipped_cohorts()
    cohort = config.cohort("reference").model_copy(update={"bilateral": float(len(row.cement_ml) > 1)})
    plan = draw_plan(rng, cohort, config.mechanisms)
    kind = LesionKind(row.lesion) if row.lesion else None
    injections = tuple(replace(injection, volume_ml=ml, lesion=kind, eroded=injection.eroded and kind is not None)
                       for injection, ml in zip(plan.injections, row.cement_ml, strict=False))
    return replace(plan, injections=injections, leaks=row.leak_plans, near_misses=row.near_misses, hardware=row.metal,
                   calcium=row.calcium, other_cement=row.other_cement)


def scanner_of_row(rng: np.random.Generator, row: BenchmarkRow) -> Scanner:
    """A diagnostic scanner with the row's kernel, scale and position; dose by the seed."""
    blur, sharp = KERNELS[row.kernel]
    return replace(QUIET, blur_mm=blur * float(rng.uniform(0.9, 1.1)), edge_enhance=sharp, saturates=row.saturates,
                   prone=row.prone,
                   noise_hu=float(rng.uniform(8, 22 if row.kernel == "bone" else 35)))


def save_case(path: Path, row: BenchmarkRow, case: Case, *, anatomy_sha256: str = "") -> None:
    """Write scan, labels and truth to one .npz, whole or not at all."""
    packed = case.anatomy.labels.astype(np.uint8)
    packed |= case.cement.labels.astype(np.uint8) * np.uint8(_CEMENT_BIT)
    packed |= case.metal.labels.astype(np.uint8) * np.uint8(_METAL_BIT)
    packed |= case.leaks.labels.astype(np.uint8) << _LEAK_SHIFT
    truth = [{"number": t.number, "site": t.site.value, "mechanism": t.mechanism, "volume_ml": t.volume_ml}
             for t in case.truth]
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        # Labels are mostly zeros and pack to a hundredth; HU are mostly noise and would not.
        labels = np.frombuffer(zlib.compress(packed.tobytes(), 1), dtype=np.uint8)
        np.savez(file, allow_pickle=False, hu=case.ct.hu, labels=labels, affine=case.ct.geometry.affine,
                 row=np.array(row.model_dump_json()), truth=np.array(json.dumps(truth)),
                 anatomy_sha256=np.array(anatomy_sha256))


def load_case(path: Path) -> BenchmarkCase:
    """Read what `save_case` wrote."""
    with np.load(path, allow_pickle=False) as data:
        hu, affine = data["hu"], data["affine"]
        flat: npt.NDArray[np.uint8] = np.frombuffer(zlib.decompress(data["labels"].tobytes()), dtype=np.uint8)
        packed = flat.reshape(hu.shape)
        row, truth = str(data["row"]), str(data["truth"])
    geometry = Geometry(affine=affine, shape=hu.shape)
    state = hashlib.sha256(f"{row}{truth}".encode())
    for part in (hu, packed, affine):
        state.update(np.ascontiguousarray(part).data)
    case = Case(ct=Volume(hu=hu, geometry=geometry),
                anatomy=LabelMap(labels=packed & np.uint8(7), geometry=geometry),
                cement=LabelMap(labels=_bit(packed, _CEMENT_BIT), geometry=geometry),
                leaks=LabelMap(labels=packed >> np.uint8(_LEAK_SHIFT), geometry=geometry),
                metal=LabelMap(labels=_bit(packed, _METAL_BIT), geometry=geometry),
                truth=tuple(LeakTruth(number=t["number"], site=Site(t["site"]), mechanism=t["mechanism"],
                                      volume_ml=t["volume_ml"]) for t in json.loads(truth)))
    return BenchmarkCase(row=BenchmarkRow.model_validate_json(row), case=case, digest=state.hexdigest())


def main(config: BenchmarkConfig, *, anatomies: Path, out: Path) -> list[Path]:
    """Make `<out>/<case_id>.npz` for each row that is not there yet from the same row and the same bones; the paths in
    the manifest's order. A change of the simulation's code is not noticed: remove the folder to have all made anew.
    """
    rows = [row for row in read_benchmark(config)
            if row.source != REAL or (anatomies / f"{row.anatomy}.npz").is_file()]
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    for row in track(rows, description="benchmark scans"):
        path = out / f"{row.case_id}.npz"
        bones = anatomies / f"{row.anatomy}.npz"
        digest = sha256_of(bones) if row.source != PROCEDURAL and bones.is_file() else ""
        if _made_from(path) != (row, digest):
            save_case(path, row, make_case(row, anatomies), anatomy_sha256=digest)
    return [out / f"{row.case_id}.npz" for row in rows]


def _made_from(path: Path) -> tuple[BenchmarkRow, str] | None:
    """Row and sha256 of the anatomy's file that a finished scan was made from."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as data:
        digest = str(data["anatomy_sha256"]) if "anatomy_sha256" in data.files else ""
        return BenchmarkRow.model_validate_json(str(data["row"])), digest


def _bit(packed: npt.NDArray[np.uint8], bit: int) -> npt.NDArray[np.bool_]:
    return (packed & np.uint8(bit)) > 0


def _row(number: int, values: dict[str, str]) -> BenchmarkRow:
    try:
        return BenchmarkRow.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ManifestError(f"benchmark, row {number}: {first['loc']}: {first['msg']}") from error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/benchmark.yaml"))
    parser.add_argument("--anatomies", type=Path, default=Path("artifacts/anatomies"))
    parser.add_argument("--out", type=Path, default=Path("artifacts/benchmark"))
    given = parser.parse_args()
    main(load_config(given.config, BenchmarkConfig), anatomies=given.anatomies, out=given.out)
