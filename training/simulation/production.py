"""A whole cohort on disk: one folder a patient, written whole, by worker processes; a run that was ended goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sacroleak.core.dicom_write import SeriesStyle, write_series
from sacroleak.core.nifti_write import write_labels, write_volume
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.core.whole import remove_leftovers, whole_folder, write_whole
from sacroleak.training.processes import as_they_end
from sacroleak.training.simulation.case import Case
from sacroleak.training.simulation.cases import CaseRequest, make_case
from sacroleak.training.simulation.cohort import Cohort, SimulateConfig, draw_plan
from sacroleak.training.simulation.scanner import Scanner, draw_scanner
from sacroleak.training.simulation.sources import anatomy_of, digest_of
from sacroleak.training.simulation.truth import Origin, Truth, truth_of

STREAM = 35_041
"""Joined to seed and number, so that no stream of random numbers here is one that training or measuring draws from."""
THICKNESS_MM = (1.0, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 5.0)
"""What slices of a pelvic CT are set to; thin ones after an intervention more often."""
TILTED = 0.03
"""Share of scans with a tilted gantry, which few scanners still do; an assumption."""
WHOLE_SACRUM_MM = 220.0
HEIGHT_MM = 240.0
"""From L4 to below the symphysis: wider fields of view are not higher."""
TRUTH = "truth.json"
WORKER_GB = 3.0
"""Memory set aside for each worker; docs/simulation.md says what one takes."""


class Run(BaseModel):
    """What is asked for. `anatomies`: prepared files, none for procedural; `spacing_mm`: pixel and slice distance of
    every scan, None for what each patient's scanner gives; `fov_mm`: width of the field of view, mm.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    cohort: str
    seed: int = Field(ge=0)
    anatomies: tuple[Path, ...] = ()
    spacing_mm: float | None = Field(default=None, ge=0.4, le=6)
    fov_mm: float = Field(default=300, ge=120, le=500)
    format: Literal["nifti", "dicom"] = "nifti"
    config: SimulateConfig

    @property
    def drawn_from(self) -> Cohort:
        """The cohort itself. Raises ConfigError if there is none of that name."""
        return self.config.cohort(self.cohort)

    def case_id(self, number: int) -> str:
        """Name of one patient's folder."""
        return f"{self.cohort}-{self.seed}-{number:04d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """One patient on disk; `kept` from an earlier run."""

    number: int
    truth: Truth
    kept: bool


def produce(run: Run, count: int, out: Path, *, workers: int = 1) -> Iterator[Finished]:
    """Patients 0 to `count` - 1 below `out`, in the order in which they are done.

    Patient n depends on the run and n alone, whatever the number of workers. A folder that holds the same digest is
    kept. With several workers a break ends those at work after their own patient.
    """
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    todo = []
    for number in range(count):
        kept = kept_truth(run, number, out)
        if kept is None:
            todo.append(number)
        else:
            yield Finished(number=number, truth=kept, kept=True)
    yield from as_they_end(partial(_one, run, out=out), todo, workers=workers)


def possible_workers() -> int:
    """As many as this process may use cores, and as memory has room for."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(len(os.sched_getaffinity(0)), int(memory_gb // WORKER_GB)))


def kept_truth(run: Run, number: int, out: Path) -> Truth | None:
    """The truth of a finished patient that was made from the very same things."""
    path = out / run.case_id(number) / TRUTH
    if not path.is_file():
        return None
    try:
        truth = Truth.model_validate_json(path.read_bytes())
    except ValidationError:
        return None
    return truth if truth.origin.digest == digest(run, number) else None


def digest(run: Run, number: int) -> str:
    """sha256 over all that decides a patient: code, cohort, seed, number, bones, grid, format."""
    content = [version("sacroleak"), _code(), run.cohort, run.drawn_from.model_dump(mode="json"),
               {site.value: names for site, names in run.config.mechanisms.items()}, run.seed, number,
               digest_of(run.anatomies, number), run.spacing_mm, run.fov_mm, run.format]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make(run: Run, number: int) -> tuple[Case, Truth]:
    """One patient in memory."""
    rng = np.random.default_rng((run.seed, STREAM, number))
    cohort = run.drawn_from
    plan = draw_plan(rng, cohort, run.config.mechanisms)
    anatomy = anatomy_of(run.anatomies, number, rng)
    request = CaseRequest(size_mm=(run.fov_mm, run.fov_mm, min(run.fov_mm, HEIGHT_MM)), pixel_mm=run.spacing_mm,
                          thickness_mm=run.spacing_mm or float(rng.choice(THICKNESS_MM)), scanner=_scanner(rng, run))
    case = make_case(rng, anatomy, plan, request)
    origin = Origin(software=version("sacroleak"), digest=digest(run, number), cohort=run.cohort,
                    for_rates=cohort.for_rates, seed=run.seed, number=number, anatomy=anatomy.name,
                    anatomy_source=anatomy.source, background="rendered" if anatomy.background is None else "real")
    return case, truth_of(run.case_id(number), origin, plan, case, case.drawn)


def write_case(folder: Path, case: Case, truth: Truth, *, form: Literal["nifti", "dicom"]) -> None:
    """All files of one patient into an empty `folder`."""
    write_scan(folder, case.ct, form=form, name=truth.case_id)
    write_maps(folder, {"anatomy": case.anatomy, "cement": case.cement, "leaks": case.leaks, "metal": case.metal})
    write_whole(folder / TRUTH, (truth.model_dump_json(indent=1) + "\n").encode())


def write_scan(folder: Path, ct: Volume, *, form: Literal["nifti", "dicom"], name: str) -> None:
    """`ct.nii.gz`, or the series in `dicom/`; UIDs follow from `name` and content."""
    if form == "nifti":
        write_volume(folder / "ct.nii.gz", ct)
    else:
        write_series(ct, folder / "dicom", SeriesStyle(series=name))


def write_maps(folder: Path, maps: dict[str, LabelMap]) -> None:
    """`<name>.nii.gz` for each label map."""
    for name, labels in maps.items():
        write_labels(folder / f"{name}.nii.gz", labels, start=(0, 0, 0), grid=labels.geometry)


def _scanner(rng: np.random.Generator, run: Run) -> Scanner:
    """A realistic one. Its round field of view may cut off corners, but not the sacrum; a few gantries tilt."""
    scanner = draw_scanner(rng, wild=False)
    tilt = float(rng.uniform(-15, 15)) if rng.random() < TILTED else 0.0
    narrow = scanner.fov_mm is not None and scanner.fov_mm < min(WHOLE_SACRUM_MM, run.fov_mm)
    return replace(scanner, fov_mm=None if narrow else scanner.fov_mm, tilt_deg=tilt)


def _one(run: Run, number: int, out: Path) -> Finished:
    case, truth = make(run, number)
    with whole_folder(out / truth.case_id) as folder:
        write_case(folder, case, truth, form=run.format)
    return Finished(number=number, truth=truth, kept=False)


@cache
def _code() -> str:
    """sha256 over the simulation's own files: any change of them makes kept patients stale."""
    state = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        state.update(path.name.encode() + path.read_bytes())
    return state.hexdigest()
