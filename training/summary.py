"""Records of many scans become figures: name -> value, n, interval; whole, by stratum, and beside the baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf

from sacroleak.core.structures import Site
from sacroleak.training.benchmark import REAL
from sacroleak.training.intervals import Bootstrap, Figure, mean_of, median_of, resampled, wilson
from sacroleak.training.measures import calibration_error, f1, kappa
from sacroleak.training.scored_case import AnatomyRecord, CaseRecord, LeakRecord, Result
from sacroleak.training.side_by_side import side_by_side

FOUR = tuple(site for site in Site if site is not Site.OTHER)
SMALLEST_LEAK_ML = 0.05
"""Smaller true leaks are not counted in `leak_component_sensitivity`; how many there are is given."""

SIZES: dict[str, tuple[float, float]] = {
    "under_0.05mL": (0.0, 0.05), "0.05_to_0.2mL": (0.05, 0.2), "0.2_to_1mL": (0.2, 1.0), "over_1mL": (1.0, inf)}
"""Classes of true leaks by their volume, mL: the lower bound belongs to the class."""

IN_REAL_CT = "source=real"
"""Stratum of the scans with cement put into one real CT."""
STRATA: dict[str, Callable[[CaseRecord], bool]] = {
    "source=procedural": lambda r: r.source == "procedural",
    "source=surface": lambda r: r.source == "surface",
    IN_REAL_CT: lambda r: r.source == REAL,
    "site=none": lambda r: not r.true_sites,
    **{f"site={site}": lambda r, own=site: own in r.true_sites for site in Site},  # type: ignore[misc]
    "slices<=1.5mm": lambda r: r.given.slice_mm <= 1.5,
    "slices>=2mm": lambda r: r.given.slice_mm >= 2.0,
    "slices>=5mm": lambda r: r.given.slice_mm >= 5.0,
    "kernel=soft": lambda r: r.given.kernel == "soft",
    "kernel=standard": lambda r: r.given.kernel == "standard",
    "kernel=bone": lambda r: r.given.kernel == "bone",
    "metal=no": lambda r: not r.given.metal,
    "metal=yes": lambda r: r.given.metal,
    "lesion=sclerotic": lambda r: r.given.sclerotic,
    "lesion=other": lambda r: not r.given.sclerotic,
    "cement=saturated": lambda r: r.given.saturated,
    "cement=not_saturated": lambda r: not r.given.saturated,
    "fov<=140mm": lambda r: r.given.fov_mm <= 140.0,
    "fov=141_to_250mm": lambda r: 140.0 < r.given.fov_mm <= 250.0,
    "fov>=251mm": lambda r: r.given.fov_mm > 250.0,
    "position=prone": lambda r: r.given.prone,
    "position=supine": lambda r: not r.given.prone,
    "near_miss=yes": lambda r: r.given.near_miss,
    "leak<=0.1mL": lambda r: r.given.smallest_leak_ml is not None and r.given.smallest_leak_ml <= 0.1,
}

BY_STRATUM = ("sacrum_dice", "sacrum_surface_dice_1mm", "canal_dice", "sacrum_contour_near_cement_p95_mm",
              "cement_dice", "cement_dice_leaks", "cement_volume_error_median_pct", "leak_component_sensitivity",
              "false_components_per_scan")
"""Figures of `metrics/segmenter.json` that are given for each stratum, of the model and of the baseline."""

OF_REAL_CT = ("site_macro_f1", "puncture_path_f1", "site_kappa", "site_calibration_error", "review_share",
              "accuracy_without_review")
"""Further figures that are given for the scans of the real CT alone."""

Figures = dict[str, Figure]
Judge = Callable[[CaseRecord], Result | None]


def by_model(record: CaseRecord) -> Result | None:
    """What the released model says."""
    return record.model


def by_baseline(record: CaseRecord) -> Result | None:
    """What the threshold says."""
    return record.baseline


def bones_by_model(record: CaseRecord) -> AnatomyRecord | None:
    """The released model's bones."""
    return record.anatomy


def bones_by_baseline(record: CaseRecord) -> AnatomyRecord | None:
    """What a threshold takes for the sacrum and its canal."""
    return record.baseline_anatomy


def segmenter_figures(records: Sequence[CaseRecord], bootstrap: Bootstrap) -> Figures:
    """Everything of `metrics/segmenter.json` that comes from the benchmark."""
    counted = _counted(records)
    figures = segmentation_figures(counted, bootstrap)
    figures["not_assessable"] = wilson(sum(r.model is None for r in counted), len(counted))
    figures["left_right_swaps"] = _swaps(counted)
    for name, part in _strata(records):
        whole = segmentation_figures(part, bootstrap)
        figures |= {f"{prefix}{key}[{name}]": whole[f"{prefix}{key}"] for prefix in ("", "baseline_")
                    for key in BY_STRATUM}
    return figures


def segmentation_figures(records: Sequence[CaseRecord], bootstrap: Bootstrap) -> Figures:
    """Bones, cement and leak components of some scans, each also as `baseline_…`."""
    figures = _bones(records, bones_by_model, bootstrap) | _cement(records, by_model, bootstrap)
    beside = _bones(records, bones_by_baseline, bootstrap) | _cement(records, by_baseline, bootstrap)
    # A threshold knows no hips and no L5.
    return figures | {f"baseline_{name}": value for name, value in beside.items()
                      if not name.startswith(("hip", "l5"))}


def leakage_figures(records: Sequence[CaseRecord], bootstrap: Bootstrap) -> Figures:
    """Everything of `metrics/leakage.json`. A scan called not assessable counts as answered wrongly throughout."""
    counted = _counted(records)
    figures = _leaks(counted, by_model) | _sites(counted, by_model, bootstrap) | _review(counted, bootstrap)
    figures |= _confusion(counted) | _mechanisms(counted)
    figures |= side_by_side(((r.true_sites, r.answers) for r in counted), bootstrap)
    for key, value in (_leaks(counted, by_baseline) | _sites(counted, by_baseline, bootstrap)).items():
        figures[f"baseline_{key}"] = value
    real = [r for r in records if STRATA[IN_REAL_CT](r)]
    if real:
        own = _sites(real, by_model, bootstrap) | _review(real, bootstrap)
        figures |= {f"{name}[{IN_REAL_CT}]": own[name] for name in OF_REAL_CT}
    for name, part in _strata(records):
        for prefix, judge in (("", by_model), ("baseline_", by_baseline)):
            figures |= {f"{prefix}{key}[{name}]": value for key, value in _leaks(part, judge).items()}
            figures[f"{prefix}exact_sites[{name}]"] = _exact(part, judge)
    return figures


def _counted(records: Sequence[CaseRecord]) -> Sequence[CaseRecord]:
    """The scans that figures rest on: those of one real CT are one patient again and again, a stratum of their own,
    unless there are no others.
    """
    return [r for r in records if not STRATA[IN_REAL_CT](r)] or records


def _strata(records: Sequence[CaseRecord]) -> Iterator[tuple[str, list[CaseRecord]]]:
    counted = _counted(records)
    for name, belongs in STRATA.items():
        yield name, [r for r in (records if name == IN_REAL_CT else counted) if belongs(r)]


def _bones(records: Sequence[CaseRecord], judge: Callable[[CaseRecord], AnatomyRecord | None],
           bootstrap: Bootstrap) -> Figures:
    """A scan called not assessable has no contour and is left out here; `not_assessable` counts it."""
    judged = [found for r in records if (found := judge(r)) is not None]

    def mean(values: Callable[[AnatomyRecord], Mapping[str, float | None]], name: str) -> Figure:
        return mean_of([values(found).get(name) for found in judged], bootstrap)

    figures = {f"{name}_dice": mean(lambda a: a.dice, name)
               for name in ("sacrum", "canal", "hips", "hip_left", "hip_right", "l5")}
    for name in ("sacrum", "canal", "hips"):
        figures[f"{name}_surface_dice_1mm"] = mean(lambda a: a.surface_dice, name)
        figures[f"{name}_hd95_mm"] = mean(lambda a: a.hd95_mm, name)
    figures["sacrum_contour_near_cement_p95_mm"] = mean_of([a.contour_near_cement_p95_mm for a in judged], bootstrap)
    return figures


def _cement(records: Sequence[CaseRecord], judge: Judge, bootstrap: Bootstrap) -> Figures:
    judged = [(r, result) for r in records if (result := judge(r)) is not None]
    errors = [r.volume_error_pct(result) for r, result in judged]
    without = [result.cement_ml for r, result in judged if r.true_cement_ml == 0]
    return {
        "cement_dice": mean_of([result.cement_dice for _, result in judged], bootstrap),
        "cement_dice_leaks": mean_of([result.cement_dice_leaks for _, result in judged], bootstrap),
        "cement_volume_error_median_pct": median_of(errors, bootstrap),
        "cement_volume_bias_ml": mean_of([result.cement_ml - r.true_cement_ml for r, result in judged
                                          if r.true_cement_ml > 0], bootstrap),
        "false_cement_ml_without_cement": mean_of(without, bootstrap),
    } | _components(records, judge, bootstrap)


def _components(records: Sequence[CaseRecord], judge: Judge, bootstrap: Bootstrap) -> Figures:
    """Leaks one by one; those of one scan are not quite independent, which Wilson's interval does not know. None is
    found in a scan without an answer.
    """
    leaks = [leak for r in records for leak in _true_leaks(r, judge)]
    false = [float(len(result.false_leaks)) if (result := judge(r)) else None for r in records]
    figures = {"leak_component_sensitivity": _found([leak for leak in leaks if leak.volume_ml >= SMALLEST_LEAK_ML]),
               "false_components_per_scan": mean_of(false, bootstrap)}
    for name, (least, below) in SIZES.items():
        figures[f"leak_component_sensitivity[size={name}]"] = _found(
            [leak for leak in leaks if least <= leak.volume_ml < below])
    return figures


def _found(leaks: Sequence[LeakRecord]) -> Figure:
    return wilson(sum(leak.found_as is not None for leak in leaks), len(leaks))


def _true_leaks(record: CaseRecord, judge: Judge) -> tuple[LeakRecord, ...]:
    result = judge(record)
    if result is not None:
        return result.leaks
    return tuple(leak.model_copy(update={"covered": 0.0, "found_as": None}) for leak in record.baseline.leaks)


def _swaps(records: Sequence[CaseRecord]) -> Figure:
    """A count, not a share: none is allowed."""
    known = [r.anatomy.sides_exchanged for r in records if r.anatomy and r.anatomy.sides_exchanged is not None]
    share = wilson(sum(known), len(known))
    low, high = (None if bound is None else bound * len(known) for bound in (share.low, share.high))
    return Figure(value=float(sum(known)), n=len(known), low=low, high=high)


def _leaks(records: Sequence[CaseRecord], judge: Judge) -> Figures:
    """Leak or none, scan by scan."""
    with_leak = [judge(r) for r in records if r.leak_present]
    without = [judge(r) for r in records if not r.leak_present]
    return {
        "leak_sensitivity": wilson(sum(r is not None and r.leak_present for r in with_leak), len(with_leak)),
        "leak_specificity": wilson(sum(r is not None and not r.leak_present for r in without), len(without)),
    }


def _said(record: CaseRecord, judge: Judge, site: Site) -> bool:
    result = judge(record)
    return result is not None and site in result.sites


def _sites(records: Sequence[CaseRecord], judge: Judge, bootstrap: Bootstrap) -> Figures:
    def score(site: Site, drawn: Sequence[CaseRecord]) -> float | None:
        return f1([site in r.true_sites for r in drawn], [_said(r, judge, site) for r in drawn])

    def macro(drawn: Sequence[CaseRecord]) -> float | None:
        known = [value for site in FOUR if (value := score(site, drawn)) is not None]
        return sum(known) / len(known) if known else None

    def agreement(drawn: Sequence[CaseRecord]) -> float | None:
        return kappa([site in r.true_sites for r in drawn for site in FOUR],
                     [_said(r, judge, site) for r in drawn for site in FOUR])

    figures = {"site_macro_f1": resampled(records, macro, bootstrap),
               "site_kappa": resampled(records, agreement, bootstrap), "exact_sites": _exact(records, judge)}
    for site in Site:
        figures[f"{site}_f1"] = resampled(records, lambda drawn, s=site: score(s, drawn), bootstrap)  # type: ignore[misc]
        true, said = [r for r in records if site in r.true_sites], [r for r in records if _said(r, judge, site)]
        figures[f"{site}_recall"] = wilson(sum(_said(r, judge, site) for r in true), len(true))
        figures[f"{site}_precision"] = wilson(sum(site in r.true_sites for r in said), len(said))
    return figures


def _right(record: CaseRecord, judge: Judge) -> bool:
    result = judge(record)
    return result is not None and result.sites == record.true_sites


def _exact(records: Sequence[CaseRecord], judge: Judge) -> Figure:
    return wilson(sum(_right(r, judge) for r in records), len(records))


def _review(records: Sequence[CaseRecord], bootstrap: Bootstrap) -> Figures:
    """A scan called not assessable goes to a person like one that asks for review."""
    asked = [r for r in records if r.model is None or r.needs_review]
    rest = [r for r in records if r.model is not None and not r.needs_review]

    def calibration(drawn: Sequence[CaseRecord]) -> float | None:
        answered = [r for r in drawn if r.model is not None]
        return calibration_error([site in r.true_sites for r in answered for site in FOUR],
                                 [r.site_scores[site] for r in answered for site in FOUR])

    return {"review_share": wilson(len(asked), len(records)),
            "accuracy_without_review": wilson(sum(_right(r, by_model) for r in rest), len(rest)),
            "site_calibration_error": resampled(records, calibration, bootstrap)}


def _confusion(records: Sequence[CaseRecord]) -> Figures:
    """Per true leak: `confusion[truth>found]`, share of the row; `none` in its place means missed, or a false leak."""
    leaks = [leak for r in records for leak in _true_leaks(r, by_model)]
    false = [site for r in records if r.model for site in r.model.false_leaks]
    figures = {}
    for truth in Site:
        row = [leak.found_as for leak in leaks if leak.site is truth]
        for found in (*Site, None):
            figures[f"confusion[{truth}>{found or 'none'}]"] = wilson(row.count(found), len(row))
    for found in Site:
        figures[f"confusion[none>{found}]"] = wilson(false.count(found), len(false))
    return figures


def _mechanisms(records: Sequence[CaseRecord]) -> Figures:
    """By the way out of the bone: found at all, and found under the right name."""
    leaks = [leak for r in records for leak in _true_leaks(r, by_model)]
    figures = {}
    for name in sorted({leak.mechanism for leak in leaks}):
        own = [leak for leak in leaks if leak.mechanism == name]
        figures[f"found[{name}]"] = wilson(sum(leak.found_as is not None for leak in own), len(own))
        figures[f"site_right[{name}]"] = wilson(sum(leak.found_as is leak.site for leak in own), len(own))
    return figures
