"""What happens to one virtual patient: drawn before anything is made, and kept with the truth."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sacroleak.core.structures import Side


class Approach(StrEnum):
    """The way a needle takes. Tian et al. (J Pain Res 2020) name posterior, transiliac and anterior-oblique."""

    POSTERIOR_SHORT_AXIS = "posterior_short_axis"
    POSTERIOR_LONG_AXIS = "posterior_long_axis"
    TRANSILIAC = "transiliac"
    ANTERIOR_OBLIQUE = "anterior_oblique"


class LesionKind(StrEnum):
    """What a metastasis does to bone."""

    LYTIC = "lytic"
    SCLEROTIC = "sclerotic"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """Who it is. `age` in years; `male`; `primary`: the tumour's origin; `density`: bone density, 1 is a healthy
    30-year-old; `subcutaneous_mm`: fat under the skin of the back.
    """

    age: float
    male: bool
    primary: str
    density: float
    subcutaneous_mm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """One treated metastasis: its side and nature, the way to it, how many needles, and the cement put in, mL."""

    side: Side
    approach: Approach
    needles: int
    volume_ml: float
    lesion: LesionKind | None
    eroded: bool = False
    lesion_radius_mm: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakPlan:
    """One leak by its mechanism; `volume_ml` outside the bone, or None for whatever the mechanism draws."""

    mechanism: str
    volume_ml: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One case. `near_misses`: cement that nearly leaks; `hardware`, `calcium`, `clutter`: by name, what else is dense
    or in the way; `other_cement`: bones that hold cement of another treatment; `fracture`: a line through the ala.
    """

    injections: tuple[Injection, ...] = ()
    leaks: tuple[LeakPlan, ...] = ()
    near_misses: tuple[str, ...] = ()
    hardware: tuple[str, ...] = ()
    calcium: tuple[str, ...] = ()
    clutter: tuple[str, ...] = ()
    other_cement: tuple[str, ...] = ()
    fracture: bool = False
    patient: Patient | None = None
