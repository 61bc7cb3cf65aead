"""From label maps to leaks with sites: the whole way, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp

import numpy as np

from sacroleak.core.assessment import CementVolumes, Leak, SiteSummary
from sacroleak.core.geometry import Geometry
from sacroleak.core.needle import NeedleNote
from sacroleak.core.structures import Side, Site
from sacroleak.core.volume import LabelMap
from sacroleak.models.classifier import LeakClassifier, Verdict, case_probabilities, input_row
from sacroleak.models.distance import Mask
from sacroleak.models.feature_vector import feature_vector
from sacroleak.models.features import MeasuredPart, PartFeatures, ScanView
from sacroleak.models.leaks import Cement, Rows
from sacroleak.models.limits import RuleLimits
from sacroleak.models.parts import measure_scan
from sacroleak.models.rules import findings, site_scores, unheard
from sacroleak.models.segmentation import Segmentation

INSIDE_MM, DOUBTED, HARDLY_MM = 0.5, 0.5, 1.0
"""What is said against a part that the classifier drops: how deep in the bone its mirror image lies, below which mean
probability of cement, and how little beyond what contour noise explains. They decide nothing."""
WEAKEST_HU = 800
"""Of 18 scans of another maker with cement of less (90th percentile of its voxels) 13 had hardly any of it found, of 30
with cement of up to 1,100 HU 4."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attribution:
    """Everything the rules, and the classifier if there is one, say of one scan.

    `leak_numbers`: on the grid of the cement, 0 or the number of the leak a voxel belongs to. `calibrated`: whether
    `leak_probability` and the sites' probabilities are a classifier's; else they are scores of the rules. `notes`: what
    was seen and not called a leak, and why. `review_reasons`: why a person should look at the scan, beside the reasons
    of its leaks.
    """

    cement: CementVolumes
    leaks: tuple[Leak, ...]
    leak_numbers: LabelMap
    sites: Mapping[Site, SiteSummary]
    leak_present: bool
    leak_probability: float
    notes: tuple[str, ...]
    review_reasons: tuple[str, ...] = ()
    calibrated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """A measured part with the rules' scores and the common verdict; None without a classifier."""

    measured: MeasuredPart
    scores: Mapping[Site, float]
    verdict: Verdict | None

    @property
    def is_leak(self) -> bool:
        """Without a classifier every part the rules propose is one."""
        return self.verdict is None or self.verdict.is_leak


def attribute(
    segmentation: Segmentation, limits: RuleLimits, classifier: LeakClassifier | None = None, *,
    needles: NeedleNote | None = None,
) -> Attribution:
    """Leaks of one scan, each with site, measures, findings and reasons to look again.

    With a classifier the probabilities are calibrated, sites are those of rules and classifier together, and a part
    that is surely no leak becomes a note. An anatomy without sacrum gives no leaks and a note. `needles`, what is
    known of them from elsewhere, moves the odds of puncture paths; where it decides, the leak is for review. Takes
    well under a second for a region of 200 mm.
    """
    found = measure_scan(segmentation, limits, needles=needles)
    if found is None:
        return _nothing(segmentation.cement)
    view, measured = found
    parts = _judged(measured, limits, classifier)
    kept = [part for part in parts if part.is_leak]
    leaks = tuple(_leak(n, part, segmentation, view.cement, limits) for n, part in enumerate(kept, start=1))
    return _summary(leaks, parts, view, limits)


def _judged(measured: Sequence[MeasuredPart], limits: RuleLimits, classifier: LeakClassifier | None) -> list[_Part]:
    """Every part with what rules and classifier say of it, in the same order."""
    scores = [site_scores(m.features, limits) for m in measured]
    verdicts: Sequence[Verdict | None] = [None] * len(measured)
    if classifier is not None and measured:
        rows = [input_row(feature_vector(m.features), s) for m, s in zip(measured, scores, strict=True)]
        verdicts = classifier.judge(np.stack(rows))
    return [_Part(measured=m, scores=s, verdict=v) for m, s, v in zip(measured, scores, verdicts, strict=True)]


def _leak(number: int, part: _Part, segmentation: Segmentation, cement: Cement, limits: RuleLimits) -> Leak:
    features, verdict = part.measured.features, part.verdict
    reasons = _scan_reasons(part, segmentation, cement, limits)
    if verdict is None:
        site, probabilities = max(part.scores, key=lambda site: part.scores[site]), part.scores
        reasons = (*_rule_reasons(part, limits), *reasons)
    else:
        site, probabilities = verdict.site, verdict.probabilities
        small = features.volume_ml < limits.leaks.volume_ml
        reasons = (*verdict.reasons, *((_very_small(features.volume_ml),) if small else ()), *reasons)
    return Leak(
        number=number, site=site, volume_ml=features.volume_ml,
        centroid_lps_mm=features.centroid_lps_mm, side=side_of(features.left_mm, limits),
        compartments=features.compartments, shape=features.shape, probabilities=probabilities,
        findings=findings(features, limits), needs_review=bool(reasons), review_reasons=reasons,
    )


def side_of(left_mm: float, limits: RuleLimits) -> Side:
    """Side of the patient's body, from the distance left of the midline plane in mm."""
    if abs(left_mm) <= limits.midline_mm:
        return Side.MIDLINE
    return Side.LEFT if left_mm > 0 else Side.RIGHT


def _rule_reasons(part: _Part, limits: RuleLimits) -> tuple[str, ...]:
    """Why the rules alone are not sure. A classifier weighs the same measures, and says itself how sure it is."""
    features, review = part.measured.features, limits.review
    (first, p), (second, q) = sorted(part.scores.items(), key=lambda item: -item[1])[:2]
    reasons = []
    if p - q < review.close_call:
        reasons.append(f"The rules do not decide between {first} ({p:.2f}) and {second} ({q:.2f}).")
    if features.excess_mm < review.near_noise_mm:
        reasons.append(f"It reaches only {features.shape.depth_outside_mm:.1f} mm outside the bone, near the noise of "
                       "the bone's contour.")
    if features.volume_ml < review.small_ml:
        reasons.append(_very_small(features.volume_ml))
    if features.apart_mm > review.apart_mm:
        reasons.append(f"It lies {features.apart_mm:.0f} mm from other cement of the sacrum and may be something else "
                       "of that density.")
    return tuple(reasons)


def _very_small(volume_ml: float) -> str:
    return f"It is very small ({volume_ml:.3f} mL)."


def _scan_reasons(
    part: _Part, segmentation: Segmentation, cement: Cement, limits: RuleLimits,
) -> tuple[str, ...]:
    """Why a person should look whoever judges: too little is seen to be sure."""
    features, reasons = part.measured.features, _needle_reasons(part, limits)
    rows = part.measured.part.rows
    if features.scan.intraosseous_ml < limits.leaks.source_ml:
        reasons.append(f"Hardly any cement lies in the bone that is seen ({features.scan.intraosseous_ml:.2f} mL): it "
                       "may be something else of that density.")
    if len(rows) <= limits.review.few_voxels:
        reasons.append(f"It has only {len(rows)} of the scan's voxels: a contour one voxel off makes as much.")
    if features.certainty.mean < limits.review.certainty:
        reasons.append(f"The networks hardly take it for cement (mean certainty {features.certainty.mean:.2f}): its "
                       "density, its shape and where it lies or points spoke for it.")
    if segmentation.sacrum_coverage < limits.review.coverage:
        reasons.append(f"Only {segmentation.sacrum_coverage:.0%} of the sacrum is seen.")
    if _at_edge(rows, cement, segmentation.anatomy.geometry, limits.review.edge_mm):
        reasons.append("It reaches the border of the examined region.")
    return tuple(reasons)


def _needle_reasons(part: _Part, limits: RuleLimits) -> list[str]:
    """What the rules would say of the part without what the manifest says of the needles, if that is another site."""
    alone = unheard(part.measured.features)
    if alone.place == part.measured.features.place:
        return []
    scores = site_scores(alone, limits)
    without = max(scores, key=lambda site: scores[site])
    if max(part.scores, key=lambda site: part.scores[site]) is without:
        return []
    return [f"Without what the manifest says of the needles the rules would call it {without}."]


def _at_edge(rows: Rows, cement: Cement, anatomy: Geometry, edge_mm: float) -> bool:
    """Whether any row lies at the border of the cement's grid or within `edge_mm` of the anatomy's."""
    index, last = cement.index[rows], np.array(cement.geometry.shape) - 1
    # A grid of one or two voxels a side has no inside; it says nothing about an edge.
    border = ((index == 0) | (index == last)) & (last > 1)
    inner = anatomy.to_index(cement.points[rows])
    margin = edge_mm / anatomy.spacing_mm
    return bool(border.any() or ((inner < margin) | (inner > np.array(anatomy.shape) - 1 - margin)).any())


def _summary(leaks: tuple[Leak, ...], parts: list[_Part], view: ScanView, limits: RuleLimits) -> Attribution:
    cement, kept = view.cement, [part for part in parts if part.is_leak]
    numbers = np.zeros(cement.geometry.shape, dtype=np.uint16)
    leaked, named = np.zeros(len(cement.index), dtype=np.bool_), np.zeros(len(cement.index), dtype=np.bool_)
    for leak, part in zip(leaks, kept, strict=True):
        numbers[tuple(cement.index[part.measured.part.rows].T)] = leak.number
        leaked[part.measured.part.rows] = True
    for part in parts:
        named[part.measured.part.rows] = True
    rim = (cement.bone_mm > 0) & ~cement.foreign & ~named
    own_ml, leaked_ml = cement.volume_ml(~cement.foreign), cement.volume_ml(leaked)
    volumes = CementVolumes(total_ml=own_ml, intraosseous_ml=own_ml - leaked_ml, leaked_ml=leaked_ml,
                            elsewhere_ml=cement.volume_ml(cement.foreign))
    # Without a leak the rim that comes nearest to one speaks.
    best_rim = float(cement.excess_mm[rim].max()) if rim.any() else -limits.leaks.depth_mm
    sites, probability = _probabilities(parts, limits)
    return Attribution(
        cement=volumes, leaks=leaks, leak_numbers=LabelMap(labels=numbers, geometry=cement.geometry),
        sites=_sites(leaks, sites), leak_present=bool(leaks),
        leak_probability=probability if parts else leak_score(best_rim, limits, found=False),
        notes=(*view.spaces.frame.notes, *(view.needles.notes if view.needles else ()), *cement.notes,
               *_no_leak_notes(parts), *_rim_note(cement, rim, limits)),
        review_reasons=view.review_reasons, calibrated=any(part.verdict is not None for part in parts),
    )


def _probabilities(parts: Sequence[_Part], limits: RuleLimits) -> tuple[dict[Site, float], float]:
    """Of the whole scan: each site's probability and that of any leak; of the rules alone they are scores."""
    verdicts = [part.verdict for part in parts if part.verdict is not None]
    if verdicts:
        return case_probabilities(verdicts)
    sure = [leak_score(part.measured.features.excess_mm, limits, found=True) for part in parts]
    absent = {site: float(np.prod([1.0 - score * part.scores[site] for part, score in zip(parts, sure, strict=True)]))
              for site in Site}
    return {site: 1.0 - none for site, none in absent.items()}, max(sure, default=0.0)


def _no_leak_notes(parts: Sequence[_Part]) -> tuple[str, ...]:
    """Parts outside the bone that the classifier takes for no leak: never lost, but named."""
    return tuple(
        f"{p.measured.features.volume_ml:.2f} mL outside the bone's contour, up to "
        f"{p.measured.features.shape.depth_outside_mm:.1f} mm from it (LPS {p.measured.features.centroid_text} mm), is "
        f"called no leak (probability of a leak {p.verdict.leak_probability:.2f}; by the rules alone "
        f"{max(p.scores, key=lambda site: p.scores[site])}).{_against(p.measured.features)}"
        for p in parts if p.verdict is not None and not p.verdict.is_leak)


def _against(part: PartFeatures) -> str:
    """Which measures speak against a leak, as a sentence; empty if none of these does."""
    other_mm = part.around.other_mm
    said = [words for holds, words in (
        (other_mm < -INSIDE_MM, f"the same place on the other side lies {-other_mm:.1f} mm inside the bone"),
        (part.certainty.mean < DOUBTED, "the networks doubt that it is cement"),
        (part.excess_mm < HARDLY_MM, "it reaches hardly beyond the noise of the contour"),
    ) if holds]
    return f" Against it: {'; '.join(said)}." if said else ""


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


def _sites(leaks: Sequence[Leak], probabilities: Mapping[Site, float]) -> dict[Site, SiteSummary]:
    sites = {}
    for site in Site:
        own = [leak.volume_ml for leak in leaks if leak.site is site]
        sites[site] = SiteSummary(present=bool(own), probability=probabilities[site], volume_ml=float(sum(own)))
    return sites


def _nothing(cement: LabelMap) -> Attribution:
    """No leak: there is no cement, or no sacrum to measure it against."""
    grid, total_ml = cement.geometry, cement.volume_ml(1)
    return Attribution(
        cement=CementVolumes(total_ml=0.0, intraosseous_ml=0.0, leaked_ml=0.0, elsewhere_ml=total_ml), leaks=(),
        leak_numbers=LabelMap(labels=np.zeros(grid.shape, dtype=np.uint16), geometry=grid),
        sites=_sites((), dict.fromkeys(Site, 0.0)),
        leak_present=False, leak_probability=0.0,
        notes=("No sacrum was found: the cement cannot be judged." if total_ml > 0 else
               f"No cement was found. Cement of less than about {WEAKEST_HU} HU looks like dense bone, and is missed "
               "more often than not.",),
    )
