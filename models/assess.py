"""One scan from Hounsfield units to an answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sacroleak.core.assessment import Assessment, CementVolumes, Provenance, Quality, SiteSummary
from sacroleak.core.errors import NotAssessableError
from sacroleak.core.needle import NeedleNote
from sacroleak.core.structures import Site
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.attribution import Attribution, attribute
from sacroleak.models.classifier import LeakClassifier
from sacroleak.models.limits import RuleLimits
from sacroleak.models.segmentation import Segmentation

SATURATED_HU = 3071
"""Highest value a 12-bit scanner can write; cement and metal clipped there cannot be told apart by density."""

SATURATED_VOXELS = 27
"""Fewer voxels at the ceiling than a 3x3x3 block are noise, not a clipped scale."""


class Segmenter(Protocol):
    """Both network passes over one scan."""

    def segment(self, ct: Volume) -> Segmentation:
        """Bone as before cement, and cement. Raises NotAssessableError if too little of the sacrum is shown."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanRef:
    """Which scan, what is known of its needles, and what is asked to judge it; the digests are sha256 in hex, that of
    the needles empty where nothing is known of them.
    """

    case_id: str
    input_digest: str
    version: str
    bundle: str
    bundle_digest: str
    config_digest: str
    needles: NeedleNote | None = None
    needles_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssessedScan:
    """The answer, with the label maps it rests on; both are None when the scan is not assessable.

    `leak_numbers` carries each leak's number on the grid of `segmentation.cement`. `notes` are sentences on the whole
    scan.
    """

    assessment: Assessment
    segmentation: Segmentation | None
    leak_numbers: LabelMap | None
    notes: tuple[str, ...] = ()


def assess(ct: Volume, segmenter: Segmenter, limits: RuleLimits, ref: ScanRef, *, now: datetime,
           classifier: LeakClassifier | None = None) -> AssessedScan:
    """Segment the scan, divide its cement, and say whether and where it leaked: by rules, and classifier if given."""
    try:
        segmentation = segmenter.segment(ct)
    except NotAssessableError as error:
        return AssessedScan(assessment=_not_assessable(ct, ref, error.reasons, now=now), segmentation=None,
                            leak_numbers=None)
    found = attribute(segmentation, limits, classifier, needles=ref.needles)
    assessment = Assessment(
        case_id=ref.case_id, status="assessed", reasons=found.review_reasons, cement=found.cement,
        leak_present=found.leak_present, leak_probability=found.leak_probability, sites=_every_site(found),
        leaks=tuple(found.leaks),
        quality=_quality(segmentation), provenance=_provenance(ref, now, calibrated=found.calibrated),
    )
    return AssessedScan(assessment=assessment, segmentation=segmentation, leak_numbers=found.leak_numbers,
                        notes=tuple(found.notes))


def _not_assessable(ct: Volume, ref: ScanRef, reasons: tuple[str, ...], *, now: datetime) -> Assessment:
    """The answer that says why there is none."""
    nothing = SiteSummary(present=False, probability=0.0, volume_ml=0.0)
    quality = Quality(usable=False, spacing_mm=_spacing(ct), sacrum_coverage=0.0, metal_ml=0.0, saturated=False,
                      reasons=reasons)
    return Assessment(
        case_id=ref.case_id, status="not_assessable", reasons=reasons,
        cement=CementVolumes(total_ml=0.0, intraosseous_ml=0.0, leaked_ml=0.0), leak_present=False,
        leak_probability=0.0, sites=dict.fromkeys(Site, nothing), leaks=(), quality=quality,
        provenance=_provenance(ref, now),
    )


def _every_site(found: Attribution) -> dict[Site, SiteSummary]:
    """All five sites in their fixed order; one that the rules did not name is absent."""
    nothing = SiteSummary(present=False, probability=0.0, volume_ml=0.0)
    return {site: found.sites.get(site, nothing) for site in Site}


def _quality(segmentation: Segmentation) -> Quality:
    clipped = int((segmentation.ct.hu == SATURATED_HU).sum()) >= SATURATED_VOXELS
    return Quality(usable=True, spacing_mm=_spacing(segmentation.ct), sacrum_coverage=segmentation.sacrum_coverage,
                   metal_ml=segmentation.metal_ml, saturated=clipped)


def _spacing(ct: Volume) -> tuple[float, float, float]:
    a, b, c = ct.geometry.spacing_mm.tolist()
    return a, b, c


def _provenance(ref: ScanRef, now: datetime, *, calibrated: bool = False) -> Provenance:
    return Provenance(calibrated=calibrated, version=ref.version, bundle=ref.bundle, bundle_digest=ref.bundle_digest,
                      config_digest=ref.config_digest, input_digest=ref.input_digest, created=now,
                      needles_digest=ref.needles_digest)
