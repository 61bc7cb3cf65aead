"""What the software says about one scan, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sacroleak.core.structures import Compartment, Side, Site

Status = Literal["assessed", "not_assessable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule that fired: the measured `value` in `unit`, the `limit` it passed, one sentence for a reader."""

    rule: str
    value: float
    unit: str
    limit: float
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakShape:
    """Shape and course of one leak part, in mm.

    `length_mm`: longest geodesic path along the part; `thickness_mm`: median diameter along it; `elongation`: length
    over thickness; `straightness`: end-to-end distance over length (1 = straight); `depth_outside_mm`: farthest point
    from the bone's own surface; `canal_depth_mm`: how deep inside the canal; `distance_to_cortex_mm`: nearest point
    to the sacrum.
    """

    length_mm: float
    thickness_mm: float
    elongation: float
    straightness: float
    depth_outside_mm: float
    canal_depth_mm: float
    distance_to_cortex_mm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """One part of cement outside the bone's own surface. `compartments` gives the fraction of its volume in each."""

    number: int
    site: Site
    volume_ml: float
    centroid_lps_mm: tuple[float, float, float]
    side: Side
    compartments: Mapping[Compartment, float]
    shape: LeakShape
    probabilities: Mapping[Site, float]
    findings: tuple[Finding, ...]
    needs_review: bool
    review_reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Whether the scan can carry an answer. `sacrum_coverage` is the seen share of the sacrum's length, 0 to 1."""

    usable: bool
    spacing_mm: tuple[float, float, float]
    sacrum_coverage: float
    metal_ml: float
    saturated: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What made this result. Digests are sha256 in hex; `created` is passed in, never read from a clock here.
    `calibrated`: probabilities are a classifier's; else they are scores of the rules. `needles_digest`: of what was
    known of the needles, empty where that was nothing.
    """

    version: str
    bundle: str
    bundle_digest: str
    config_digest: str
    input_digest: str
    created: datetime
    calibrated: bool = False
    needles_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CementVolumes:
    """Volumes in mL. `total` is cement of the sacrum: inside its bone and leaked; `elsewhere` is other treatments'."""

    total_ml: float
    intraosseous_ml: float
    leaked_ml: float
    elsewhere_ml: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSummary:
    """One site over the whole scan."""

    present: bool
    probability: float
    volume_ml: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """The answer for one scan. `reasons`: why there is none; of an assessed scan, why to look at the whole of it."""

    case_id: str
    status: Status
    reasons: tuple[str, ...]
    cement: CementVolumes
    leak_present: bool
    leak_probability: float
    sites: Mapping[Site, SiteSummary]
    leaks: tuple[Leak, ...]
    quality: Quality
    provenance: Provenance
