"""One benchmark scan through the released model and through the baseline: what came out, as one line of measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import edt
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sacroleak.core.errors import NotAssessableError
from sacroleak.core.geometry import Box, Geometry
from sacroleak.core.structures import Site, Structure
from sacroleak.core.volume import Volume
from sacroleak.models.attribution import Attribution, attribute
from sacroleak.models.classifier import LeakClassifier
from sacroleak.models.label_grids import labels_on, on_whole
from sacroleak.models.limits import RuleLimits
from sacroleak.models.segmentation import Segmentation
from sacroleak.training.baseline import BaselineConfig, baseline, baseline_bones
from sacroleak.training.benchmark import BenchmarkCase
from sacroleak.training.measures import (
    Matching,
    contour_errors,
    dice,
    match_leaks,
    sides_exchanged,
    surface_scores,
    volume_error_pct,
)
from sacroleak.training.side_by_side import Answers, answers_of
from sacroleak.training.simulation.case import Case
from sacroleak.training.simulation.scanner import SATURATED_HU
from sacroleak.training.simulation.truth import cement_elsewhere

FORMAT = 4
"""Raised when what a record holds changes, so that older ones are measured again."""

SATURATED_SHARE = 0.05
"""A scan counts as saturated if so much of its cement lies at the scanner's highest value."""

IGNORED_MM = 3.0
"""Partial volume around cement of another treatment reaches about one thick slice."""

CENTRAL = {"sacrum": Structure.SACRUM, "canal": Structure.SACRAL_CANAL}
HIPS = {"hip_left": Structure.HIP_LEFT, "hip_right": Structure.HIP_RIGHT}

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.generic]
Scores = dict[str, float | None]


class MeasureConfig(BaseModel):
    """How result and truth are compared; see `configs/evaluate.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    match_share: float
    surface_tolerance_mm: float
    contour_within_mm: float = 5.0
    baseline: BaselineConfig


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LeakRecord(_Record):
    """One true leak and what was made of it."""

    mechanism: str
    site: Site
    volume_ml: float
    covered: float
    found_as: Site | None


class Result(_Record):
    """What one method says of a scan. Dice without a true and a found voxel is None."""

    cement_dice: float | None
    cement_dice_leaks: float | None
    cement_ml: float
    leak_present: bool
    sites: tuple[Site, ...]
    leaks: tuple[LeakRecord, ...]
    false_leaks: tuple[Site, ...]


class AnatomyRecord(_Record):
    """Bones of one scan by name; None where a structure is not shown. `contour_near_cement_p95_mm`: how far the true
    surface of the sacrum beside cement lies from the found one, 95th percentile, None without cement there.
    `sides_exchanged`: left hip called right or the like.
    """

    dice: Scores
    surface_dice: Scores
    hd95_mm: Scores
    contour_near_cement_p95_mm: float | None
    sides_exchanged: bool | None


class Circumstance(_Record):
    """What makes a scan hard, as its row and its truth say. `smallest_leak_ml` is None without a leak."""

    slice_mm: float
    fov_mm: float = 230.0
    kernel: str = "standard"
    metal: bool = False
    sclerotic: bool = False
    saturated: bool = False
    prone: bool = True
    near_miss: bool = False
    smallest_leak_ml: float | None = None


class CaseRecord(_Record):
    """All measures of one scan. `model` and what belongs to it is None if the scan was called not assessable;
    `anatomy` is the model's, `baseline_anatomy` what a threshold makes of the sacrum and the canal; `answers`: what
    rules, classifier and both say, in predicted and in true masks.
    """

    format: int = FORMAT
    case_id: str
    case_digest: str
    source: str
    given: Circumstance
    true_cement_ml: float
    true_sites: tuple[Site, ...]
    model: Result | None
    baseline: Result
    baseline_anatomy: AnatomyRecord | None = None
    anatomy: AnatomyRecord | None = None
    reasons: tuple[str, ...] = ()
    sacrum_coverage: float | None = None
    site_scores: dict[Site, float] = {}
    needs_review: bool | None = None
    answers: Answers = {}

    @property
    def leak_present(self) -> bool:
        """Whether the truth holds a leak."""
        return bool(self.true_sites)

    def volume_error_pct(self, result: Result) -> float | None:
        """Absolute error of the cement volume in per cent; None without cement."""
        return volume_error_pct(result.cement_ml, self.true_cement_ml)


class Segmenter(Protocol):
    """Both network passes over one scan."""

    def segment(self, ct: Volume) -> Segmentation:
        """Bone as before cement, and cement. Raises NotAssessableError."""
        ...


def measure(item: BenchmarkCase, segmenter: Segmenter, limits: RuleLimits, config: MeasureConfig, *,
            classifier: LeakClassifier | None = None) -> CaseRecord:
    """Score one scan and compare with its truth. Never raises for a scan that the model refuses to judge."""
    case = item.case
    unjudged = CaseRecord(
        case_id=item.row.case_id, case_digest=item.digest, source=item.row.source, given=circumstance(item),
        true_sites=tuple(sorted({t.site for t in case.truth})),
        true_cement_ml=float(np.count_nonzero(own_cement(case)[0])) * case.ct.geometry.voxel_ml,
        model=None, baseline=_baseline(case, config),
        baseline_anatomy=bones_of(baseline_bones(case.ct, case.anatomy, config.baseline), case, config))
    try:
        segmentation = segmenter.segment(case.ct)
    except NotAssessableError as error:
        return unjudged.model_copy(update={"reasons": error.reasons,
                                           "answers": answers_of(case, None, limits, classifier)})
    found = attribute(segmentation, limits, classifier)
    return unjudged.model_copy(update={
        "anatomy": _anatomy(segmentation, case, config), "model": _model(segmentation, found, case, config),
        "sacrum_coverage": segmentation.sacrum_coverage,
        "site_scores": {site: summary.probability for site, summary in found.sites.items()},
        "needs_review": any(leak.needs_review for leak in found.leaks),
        "answers": answers_of(case, segmentation, limits, classifier)})


def circumstance(item: BenchmarkCase) -> Circumstance:
    """Of one scan; metal and saturation are what the scan shows, not what was asked for."""
    row, case = item.row, item.case
    at_limit = case.ct.hu[case.cement.labels.astype(bool)] >= SATURATED_HU
    return Circumstance(
        slice_mm=row.slice_mm, fov_mm=row.fov_mm, kernel=row.kernel, metal=bool(case.metal.labels.any()),
        sclerotic=row.lesion == "sclerotic", saturated=bool(at_limit.size and at_limit.mean() >= SATURATED_SHARE),
        prone=row.prone, near_miss=bool(row.near_misses), smallest_leak_ml=min((t.volume_ml for t in case.truth),
                                                                               default=None))


def _anatomy(segmentation: Segmentation, case: Case, config: MeasureConfig) -> AnatomyRecord:
    grid = case.ct.geometry
    return bones_of(labels_on(segmentation.anatomy, grid).labels, case, config,
                    region=region_of(segmentation.anatomy.geometry, grid))


def bones_of(found: Labels, case: Case, config: MeasureConfig, *, region: Box | None = None) -> AnatomyRecord:
    """Bones on the scan's own grid, `found` against the truth: the sacrum and its canal whole, hips and L5 within
    `region`, what the fine network looks at; without it they are left out.
    """
    truth, spacing = case.anatomy.labels, case.ct.geometry.spacing_mm.tolist()
    pairs = {name: (found == s, truth == s) for name, s in CENTRAL.items()}
    if region is not None:
        seen_found, seen_truth = found[region], truth[region]
        pairs |= {name: (seen_found == s, seen_truth == s) for name, s in (*HIPS.items(), ("l5", Structure.L5))
                  if (seen_truth == s).any()}
    overlap: Scores = {name: dice(*pair) for name, pair in pairs.items()}
    skins = {name: surface_scores(*pair, spacing_mm=spacing, tolerance_mm=config.surface_tolerance_mm)
             for name, pair in pairs.items() if name != "l5"}
    surface: Scores = {name: skin.dice for name, skin in skins.items()}
    apart: Scores = {name: skin.hd95_mm for name, skin in skins.items()}
    for scores in (overlap, surface, apart):
        scores["hips"] = _mean([scores.get(name) for name in HIPS])
    beside = contour_errors(*pairs["sacrum"], beside=own_cement(case)[0], within_mm=config.contour_within_mm,
                            spacing_mm=spacing)
    return AnatomyRecord(
        dice=overlap, surface_dice=surface, hd95_mm=apart,
        contour_near_cement_p95_mm=float(np.percentile(beside, 95)) if beside.size else None,
        sides_exchanged=None if region is None else sides_exchanged(seen_found, seen_truth))


def region_of(inner: Geometry, grid: Geometry) -> tuple[slice, slice, slice]:
    """Voxels of `grid` whose centres lie within the bounds of `inner` (both aligned)."""
    corners = grid.to_index(inner.corners_lps_mm())
    low = np.clip(np.ceil(corners.min(axis=0)).astype(int), 0, grid.shape)
    high = np.clip(np.floor(corners.max(axis=0)).astype(int) + 1, 0, grid.shape)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return i, j, k


def _model(segmentation: Segmentation, found: Attribution, case: Case, config: MeasureConfig) -> Result:
    grid = case.ct.geometry
    cement = on_whole(segmentation.cement, segmentation.start, grid) > 0
    numbers = on_whole(found.leak_numbers, segmentation.start, grid)
    sites = {leak.number: leak.site for leak in found.leaks}
    return _result(case, cement, numbers, sites, config)


def _baseline(case: Case, config: MeasureConfig) -> Result:
    found = baseline(case.ct, case.anatomy, config.baseline)
    return _result(case, found.cement, found.leaks, found.sites, config)


def _result(case: Case, cement: Mask, numbers: npt.NDArray[np.uint16], sites: Mapping[int, Site],
            config: MeasureConfig) -> Result:
    truth, ignored = own_cement(case)
    cement = cement & ~ignored
    leaked = case.leaks.labels > 0
    matching = match_leaks(numbers, sites, case.leaks.labels, share=config.match_share)
    # Only beside true leaks: what the method calls cement inside the bone is no part of a leak's overlap.
    beyond = cement & (case.anatomy.labels != Structure.SACRUM) & _near(leaked, case.ct.geometry)
    return Result(
        cement_dice=dice(cement, truth) if truth.any() else None,
        cement_dice_leaks=dice(beyond, leaked) if leaked.any() else None,
        cement_ml=float(np.count_nonzero(cement)) * case.ct.geometry.voxel_ml, leak_present=bool(sites),
        sites=tuple(sorted(set(sites.values()))), leaks=_leaks(case, matching), false_leaks=matching.false_sites)


def own_cement(case: Case) -> tuple[Mask, Mask]:
    """(cement of the sacrum and leaked from it; the surroundings of cement from other treatments, which count for
    nothing). Both bool on the scan's grid.
    """
    other = cement_elsewhere(case)
    own: Mask = case.cement.labels.astype(bool) & ~other
    if not other.any():
        return own, other
    spacing = tuple(float(s) for s in case.ct.geometry.spacing_mm)
    around = edt.edt(~other, anisotropy=spacing, black_border=False) <= IGNORED_MM
    return own, around & ~own


def _leaks(case: Case, matching: Matching) -> tuple[LeakRecord, ...]:
    found = {m.number: m for m in matching.matches}
    return tuple(LeakRecord(mechanism=t.mechanism, site=t.site, volume_ml=t.volume_ml,
                            covered=found[t.number].covered, found_as=found[t.number].site) for t in case.truth)


def _near(leaked: Mask, geometry: Geometry, reach_mm: float = 6.0) -> Mask:
    """A box of `reach_mm` around all true leaks: beyond it, found cement is a false leak and counted as one."""
    near = np.zeros(leaked.shape, dtype=bool)
    if leaked.any():
        index = np.argwhere(leaked)
        margin = np.ceil(reach_mm / geometry.spacing_mm).astype(int)
        low = np.maximum(index.min(axis=0) - margin, 0)
        high = index.max(axis=0) + margin + 1
        near[low[0]:high[0], low[1]:high[1], low[2]:high[2]] = True
    return near


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
