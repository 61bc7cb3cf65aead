"""Everything that is true about one simulated scan, as `truth.json` keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from sacroleak.core.structures import Site, Structure
from sacroleak.training.simulation.case import Case
from sacroleak.training.simulation.plan import LeakPlan, Plan

FORMAT: Literal[1] = 1
"""Raised when what the file holds changes its meaning."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrueLeak(_Part):
    """One leak: its number in `leaks.nii.gz`, its site by mechanism, its volume outside the bone, mL."""

    number: Annotated[int, Field(ge=1)]
    site: Site
    mechanism: str
    volume_ml: float


class TrueVolumes(_Part):
    """Cement in mL, counted on the scan's grid. `sacral` is what lies in the sacrum and what leaked from it;
    `elsewhere` is cement of other treatments.
    """

    sacral: float
    intraosseous: float
    leaked: float
    elsewhere: float


class Origin(_Part):
    """What a scan was made from: `digest` over code, cohort, seed, number, anatomy and grid decides every voxel."""

    software: str
    digest: str
    cohort: str
    for_rates: bool
    seed: int
    number: int
    anatomy: str
    anatomy_source: str
    background: Literal["rendered", "real"]


class Truth(_Part):
    """One scan. `missing`: leaks that were asked for and for which the anatomy had no room in any attempt, or that lie
    outside the field of view; they are not in the scan. `drawn`: every parameter drawn after the plan.
    """

    format: Literal[1] = FORMAT
    synthetic: Literal[True] = True
    case_id: str
    origin: Origin
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    plan: Plan
    leaks: tuple[TrueLeak, ...]
    missing: tuple[LeakPlan, ...]
    cement_ml: TrueVolumes
    drawn: dict[str, JsonValue]

    @property
    def sites(self) -> tuple[Site, ...]:
        """Sites with a leak, each once."""
        return tuple(sorted({leak.site for leak in self.leaks}))


def truth_of(case_id: str, origin: Origin, plan: Plan, case: Case, drawn: Mapping[str, object]) -> Truth:
    """The truth of a finished scan, volumes counted on its grid."""
    x, y, z = (round(float(s), 6) for s in case.ct.geometry.spacing_mm)
    return Truth(case_id=case_id, origin=origin, spacing_mm=(x, y, z), shape=case.ct.geometry.shape, plan=plan,
                 leaks=tuple(TrueLeak(number=t.number, site=t.site, mechanism=t.mechanism,
                                      volume_ml=round(t.volume_ml, 6)) for t in case.truth),
                 missing=missing_leaks(plan.leaks, [t.mechanism for t in case.truth]), cement_ml=volumes_of(case),
                 drawn={name: plain(value) for name, value in drawn.items()})


def missing_leaks(asked: Sequence[LeakPlan], found: Sequence[str]) -> tuple[LeakPlan, ...]:
    """Those of `asked` whose mechanism is not among `found`, each found one counting once."""
    left = list(found)
    missing = []
    for leak in asked:
        if leak.mechanism in left:
            left.remove(leak.mechanism)
        else:
            missing.append(leak)
    return tuple(missing)


def volumes_of(case: Case) -> TrueVolumes:
    """Cement by where it lies, mL."""
    ml = case.ct.geometry.voxel_ml
    cement, leaked = case.cement.labels.astype(bool), case.leaks.labels > 0
    other = cement_elsewhere(case)
    counts = {"sacral": cement & ~other, "intraosseous": cement & (case.anatomy.labels == Structure.SACRUM),
              "leaked": leaked, "elsewhere": other}
    return TrueVolumes(**{name: round(float(np.count_nonzero(mask)) * ml, 6) for name, mask in counts.items()})


def cement_elsewhere(case: Case) -> npt.NDArray[np.bool_]:
    """Cement of other treatments, bool on the scan's grid: it lies outside the sacrum and did not leak from it."""
    elsewhere: npt.NDArray[np.bool_] = (case.cement.labels.astype(bool) & (case.anatomy.labels != Structure.SACRUM)
                                        & (case.leaks.labels == 0))
    return elsewhere


def plain(value: object) -> Any:
    """Any drawn value as JSON knows it: arrays become lists, words their value, numbers are rounded to 1e-6."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"a drawn value is of type {type(value).__name__}, which JSON cannot hold")
