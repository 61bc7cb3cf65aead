"""From label maps to leaks with sites: the whole way, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

import numpy as np

from sacroleak.core.assessment import CementVolumes, Leak, SiteSummary
from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Side, Site
from sacroleak.core.volume import LabelMap
from sacroleak.models.distance import Mask
from sacroleak.models.features import MeasuredPart, ScanView
from sacroleak.models.leaks import Cement, Rows
from sacroleak.models.limits import RuleLimits
from sacroleak.models.parts import measure_scan
from sacroleak.models.rules import findings, site_scores
from sacroleak.models.segmentation import Segmentation


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attribution:
    """Everything the rules say of one scan.

    `leak_numbers`: on the grid of the cement, 0 or the number of the leak a voxel belongs to. `leak_probability` and
    the sites' probabilities are rule scores, not calibrated. `notes`: what was seen and not called a leak, and why.
    `review_reasons`: why a person should look at the scan, beside the reasons of its leaks.
    """

    cement: CementVolumes
    leaks: tuple[Leak, ...]
    leak_numbers: LabelMap
    sites: Mapping[Site, SiteSummary]
    leak_present: bool
    leak_probability: float
    notes: tuple[str, ...]
    review_reasons: tuple[str, ...] = ()


def attribute(segmentation: Segmentation, limits: RuleLimits) -> Attribution:
    """Leaks of one scan, each with site, measures, findings and reasons to look again.

    An anatomy without sacrum gives no leaks and a note. Takes well under a second for a region of 200 mm.
    """
    found = measure_scan(segmentation, limits)
    if found is None:
        return _nothing(segmentation.cement)
    view, measured = found
    leaks = tuple(_leak(n, m, segmentation, view.cement, limits) for n, m in enumerate(measured, start=1))
    return _summary(leaks, measured, view, limits)


def _leak(
    number: int, measured: MeasuredPart, segmentation: Segmentation, cement: Cement, limits: RuleLimits,
) -> Leak:
    features = measured.features
    scores = site_scores(features, limits)
    reasons = _review_reasons(measured, scores, segmentation, cement, limits)
    return Leak(
        number=number, site=max(scores, key=lambda site: scores[site]), volume_ml=features.volume_ml,
        centroid_lps_mm=features.centroid_lps_mm, side=side_of(features.left_mm, limits),
        compartments=features.compartments, shape=features.shape, probabilities=scores,
        findings=findings(features, limits), needs_review=bool(reasons), review_reasons=reasons,
    )


def side_of(left_mm: float, limits: RuleLimits) -> Side:
    """Side of the patient's body, from the distance left of the midline plane in mm."""
    if abs(left_mm) <= limits.midline_mm:
        return Side.MIDLINE
    return Side.LEFT if left_mm > 0 else Side.RIGHT


def _review_reasons(
    measured: MeasuredPart, scores: Mapping[Site, float], segmentation: Segmentation, cement: Cement,
    limits: RuleLimits,
) -> tuple[str, ...]:
    """Why a person should look at this part; empty if nothing speaks for it."""
    features, review = measured.features, limits.review
    (first, p), (second, q) = sorted(scores.items(), key=lambda item: -item[1])[:2]
    reasons = []
    if p - q < review.close_call:
        reasons.append(f"The rules do not decide between {first} ({p:.2f}) and {second} ({q:.2f}).")
    if features.excess_mm < review.near_noise_mm:
        reasons.append(f"It reaches only {features.shape.depth_outside_mm:.1f} mm outside the bone, near the noise of "
                       "the bone's contour.")
    if features.volume_ml < review.small_ml:
        reasons.append(f"It is very small ({features.volume_ml:.3f} mL).")
    if features.apart_mm > review.apart_mm:
        reasons.append(f"It lies {features.apart_mm:.0f} mm from other cement of the sacrum and may be something else "
                       "of that density.")
    if features.scan.intraosseous_ml < limits.leaks.source_ml:
        reasons.append(f"Hardly any cement lies in the bone that is seen ({features.scan.intraosseous_ml:.2f} mL): it "
                       "may be something else of that density.")
    if segmentation.sacrum_coverage < review.coverage:
        reasons.append(f"Only {segmentation.sacrum_coverage:.0%} of the sacrum is seen.")
    if _at_edge(measured.part.rows, cement, segmentation.anatomy.geometry, review.edge_mm):
        reasons.append("It reaches the border of the examined region.")
    return tuple(reasons)


def _at_edge(rows: Rows, cement: Cement, anatomy: Geometry, edge_mm: float) -> bool:
    """Whether any row lies at the border of the cement's grid or within `edge_mm` of the anatomy's."""
    index, last = cement.index[rows], np.array(cement.geometry.shape) - 1
    # A grid of one or two voxels a side has no inside; it says nothing about an edge.
    border = ((index == 0) | (index == last)) & (last > 1)
    inner = anatomy.to_index(cement.points[rows])
    margin = edge_mm / anatomy.spacing_mm
    return bool(border.any() or ((inner < margin) | (inner > np.array(anatomy.shape) - 1 - margin)).any())


def _summary(
    leaks: tuple[Leak, ...], measured: list[MeasuredPart], view: ScanView, limits: RuleLimits,
) -> Attribution:
    cement = view.cement
    numbers = np.zeros(cement.geometry.shape, dtype=np.uint16)
    leaked = np.zeros(len(cement.index), dtype=np.bool_)
    for leak, m in zip(leaks, measured, strict=True):
        numbers[tuple(cement.index[m.part.rows].T)] = leak.number
        leaked[m.part.rows] = True
    rim = (cement.bone_mm > 0) & ~cement.foreign & ~leaked
    own_ml, leaked_ml = cement.volume_ml(~cement.foreign), cement.volume_ml(leaked)
    volumes = CementVolumes(total_ml=own_ml, intraosseous_ml=own_ml - leaked_ml, leaked_ml=leaked_ml,
                            elsewhere_ml=cement.volume_ml(cement.foreign))
    sure = [leak_score(m.features.excess_mm, limits, found=True) for m in measured]
    # Without a leak the rim that comes nearest to one speaks.
    best_rim = float(cement.excess_mm[rim].max()) if rim.any() else -limits.leaks.depth_mm
    return Attribution(
        cement=volumes, leaks=leaks, leak_numbers=LabelMap(labels=numbers, geometry=cement.geometry),
        sites=_sites(leaks, sure), leak_present=bool(leaks),
        leak_probability=max(sure) if sure else leak_score(best_rim, limits, found=False),
        notes=(*view.spaces.frame.notes, *cement.notes, *_rim_note(cement, rim, limits)),
        review_reasons=view.review_reasons,
    )


def leak_score(excess_mm: float, limits: RuleLimits, *, found: bool) -> float:
    """Rule score of "this is a leak" from the depth beyond contour noise; at least 0.5 if `found`, else at most."""
    score = 1.0 / (1.0 + exp(-2.0 * max(min(excess_mm / limits.review.near_noise_mm, 10.0), -10.0)))
    return max(score, 0.5) if found else min(score, 0.5)


def _rim_note(cement: Cement, rim: Mask, limits: RuleLimits) -> tuple[str, ...]:
    """Cement outside the contour that is not called a leak: how much, how far, and why."""
    notes = []
    specks = rim & (cement.bone_mm >= limits.leaks.tiny_depth_mm)
    if (rim & ~specks).any():
        notes.append(f"{cement.volume_ml(rim & ~specks):.2f} mL of cement lies up to "
                     f"{cement.bone_mm[rim & ~specks].max():.1f} mm outside the bone's contour, within its noise, and "
                     "is counted as inside.")
    if specks.any():
        notes.append(f"{cement.volume_ml(specks):.4f} mL in specks farther outside is too little to be called a leak.")
    return tuple(notes)


def _sites(leaks: tuple[Leak, ...], sure: list[float]) -> dict[Site, SiteSummary]:
    sites = {}
    for site in Site:
        absent = 1.0
        for leak, score in zip(leaks, sure, strict=True):
            absent *= 1.0 - score * leak.probabilities[site]
        own = [leak.volume_ml for leak in leaks if leak.site is site]
        sites[site] = SiteSummary(present=bool(own), probability=1.0 - absent, volume_ml=float(sum(own)))
    return sites


def _nothing(cement: LabelMap) -> Attribution:
    """No leak: there is no cement, or no sacrum to measure it against."""
    grid, total_ml = cement.geometry, cement.volume_ml(1)
    return Attribution(
        cement=CementVolumes(total_ml=0.0, intraosseous_ml=0.0, leaked_ml=0.0, elsewhere_ml=total_ml), leaks=(),
        leak_numbers=LabelMap(labels=np.zeros(grid.shape, dtype=np.uint16), geometry=grid), sites=_sites((), []),
        leak_present=False, leak_probability=0.0,
        notes=("No sacrum was found: the cement cannot be judged.",) if total_ml > 0 else (),
    )
