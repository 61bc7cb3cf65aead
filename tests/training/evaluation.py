"""Records of made-up scans, for tests of what is made from them."""

from __future__ import annotations

from collections.abc import Sequence

from sacroleak.core.structures import Site
from sacroleak.training.scored_case import AnatomyRecord, CaseRecord, Circumstance, LeakRecord, Result


def leak(site: Site, found_as: Site | None, *, volume_ml: float = 0.4, mechanism: str = "vein") -> LeakRecord:
    """One true leak of `site` that was called `found_as`."""
    return LeakRecord(mechanism=mechanism, site=site, volume_ml=volume_ml, covered=0.0 if found_as is None else 0.9,
                      found_as=found_as)


def result(leaks: Sequence[LeakRecord] = (), *, false: Sequence[Site] = (), cement_ml: float = 5.0) -> Result:
    """What a method said of a scan with these leaks."""
    said = {found.found_as for found in leaks if found.found_as} | set(false)
    return Result(cement_dice=0.9, cement_dice_leaks=0.8 if leaks else None, cement_ml=cement_ml,
                  leak_present=bool(said), sites=tuple(sorted(said)), leaks=tuple(leaks), false_leaks=tuple(false))


def record(model: Result | None, *, truth: Sequence[Site] = (), source: str = "procedural", slice_mm: float = 1.0,
           metal: bool = False, review: bool = False, baseline: Result | None = None) -> CaseRecord:
    """One scan with the true sites `truth`; the baseline misses every leak unless given, and its bones are worse."""
    missed = [leak(site, None) for site in truth]
    bones = {"sacrum": 0.9, "canal": 0.8, "hips": 0.95, "hip_left": 0.95, "hip_right": 0.95, "l5": None}
    anatomy = AnatomyRecord(dice=bones, surface_dice={"sacrum": 0.7}, hd95_mm={"sacrum": 3.0},
                            contour_near_cement_p95_mm=2.0, sides_exchanged=False)
    worse = AnatomyRecord(dice={"sacrum": 0.6, "canal": 0.5}, surface_dice={"sacrum": 0.4}, hd95_mm={"sacrum": 9.0},
                          contour_near_cement_p95_mm=5.0, sides_exchanged=None)
    return CaseRecord(
        case_id="case", case_digest="0" * 64, source=source, true_cement_ml=5.0,
        given=Circumstance(slice_mm=slice_mm, metal=metal),
        true_sites=tuple(sorted(set(truth))), model=model, baseline=baseline or result(missed),
        baseline_anatomy=worse, anatomy=None if model is None else anatomy,
        reasons=("no sacrum",) if model is None else (),
        site_scores={} if model is None else {s: float(s in model.sites) for s in Site},
        needs_review=None if model is None else review)
