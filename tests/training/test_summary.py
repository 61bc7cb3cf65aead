"""From records to figures: each figure on scans whose answer can be counted by hand."""

from __future__ import annotations

import pytest

from sacroleak.core.structures import Site
from sacroleak.training.intervals import Bootstrap
from sacroleak.training.scored_case import CaseRecord
from sacroleak.training.summary import BY_STRATUM, STRATA, Figures, leakage_figures, segmenter_figures
from tests.training.evaluation import leak, record, result

VEIN, TRACK, CANAL, FRONT = (site for site in Site if site is not Site.OTHER)
BOOTSTRAP = Bootstrap(resamples=50, seed=1)


def leakage(*records: CaseRecord) -> Figures:
    return leakage_figures(records, BOOTSTRAP)


RIGHT = record(result([leak(VEIN, VEIN)]), truth=[VEIN])
WRONG_SITE = record(result([leak(VEIN, FRONT)]), truth=[VEIN])
MISSED = record(result([leak(TRACK, None, mechanism="needle_track")]), truth=[TRACK])
CLEAN = record(result())
FALSE = record(result(false=[FRONT]))
REFUSED = record(None, truth=[CANAL])
REFUSED_CLEAN = record(None)


def test_leak_or_none_is_counted_scan_by_scan_and_a_refusal_is_wrong_either_way() -> None:
    figures = leakage(RIGHT, WRONG_SITE, MISSED, REFUSED, CLEAN, FALSE, REFUSED_CLEAN)
    assert (figures["leak_sensitivity"].value, figures["leak_sensitivity"].n) == (0.5, 4)
    assert figures["leak_specificity"].value == pytest.approx(1 / 3)
    assert figures["exact_sites"].value == pytest.approx(2 / 7)


def test_the_confusion_of_leaks_holds_misses_and_false_leaks() -> None:
    figures = leakage(RIGHT, WRONG_SITE, MISSED, FALSE, REFUSED)
    assert figures[f"confusion[{VEIN}>{VEIN}]"].value == 0.5
    assert figures[f"confusion[{VEIN}>{FRONT}]"].value == 0.5
    assert figures[f"confusion[{TRACK}>none]"].value == 1.0
    assert figures[f"confusion[none>{FRONT}]"].value == 1.0
    assert (figures[f"confusion[{CANAL}>none]"].value, figures[f"confusion[{CANAL}>none]"].n) == (1.0, 0 + 1)


def test_every_row_of_the_confusion_sums_to_one() -> None:
    figures = leakage(RIGHT, WRONG_SITE, MISSED, FALSE, REFUSED)
    for truth in (VEIN, TRACK, CANAL):
        assert sum(figures[f"confusion[{truth}>{s}]"].value or 0.0 for s in (*Site, "none")) == pytest.approx(1.0)


def test_recall_and_precision_of_a_site_have_their_own_n() -> None:
    figures = leakage(RIGHT, WRONG_SITE, MISSED, FALSE)
    assert (figures[f"{VEIN}_recall"].value, figures[f"{VEIN}_recall"].n) == (0.5, 2)
    assert (figures[f"{VEIN}_precision"].value, figures[f"{VEIN}_precision"].n) == (1.0, 1)
    assert figures[f"{FRONT}_precision"].value == 0.0
    assert figures[f"{CANAL}_recall"].n == 0


def test_perfect_answers_give_perfect_figures() -> None:
    figures = leakage(*[record(result([leak(s, s)]), truth=[s]) for s in (VEIN, TRACK, CANAL, FRONT)], CLEAN)
    for name in ("site_macro_f1", "site_kappa", "exact_sites", "leak_sensitivity", "leak_specificity"):
        assert figures[name].value == 1.0, name
    assert figures["site_calibration_error"].value == 0.0
    assert figures["baseline_leak_sensitivity"].value == 0.0


def test_what_is_sent_to_review_is_left_out_of_the_accuracy_of_the_rest() -> None:
    unsure = record(result([leak(VEIN, FRONT)]), truth=[VEIN], review=True)
    figures = leakage(RIGHT, unsure, REFUSED)
    assert figures["review_share"].value == pytest.approx(2 / 3)
    assert (figures["accuracy_without_review"].value, figures["accuracy_without_review"].n) == (1.0, 1)


def test_leaks_too_small_to_count_are_left_out_of_the_sensitivity() -> None:
    tiny = record(result([leak(VEIN, None, volume_ml=0.04), leak(TRACK, TRACK)]), truth=[VEIN, TRACK])
    figure = segmenter_figures([tiny], BOOTSTRAP)["leak_component_sensitivity"]
    assert (figure.value, figure.n) == (1.0, 1)


def test_each_size_of_leaks_has_its_own_sensitivity_and_a_bound_belongs_to_the_larger() -> None:
    sizes = {0.04: None, 0.05: VEIN, 0.19: None, 0.2: VEIN, 1.0: VEIN, 3.0: VEIN}
    leaks = [leak(VEIN, found, volume_ml=ml) for ml, found in sizes.items()]
    figures = segmenter_figures([record(result(leaks), truth=[VEIN])], BOOTSTRAP)
    got = {name: (figures[f"leak_component_sensitivity[size={name}]"].value,
                  figures[f"leak_component_sensitivity[size={name}]"].n)
           for name in ("under_0.05mL", "0.05_to_0.2mL", "0.2_to_1mL", "over_1mL")}
    assert got == {"under_0.05mL": (0.0, 1), "0.05_to_0.2mL": (0.5, 2), "0.2_to_1mL": (1.0, 1), "over_1mL": (1.0, 2)}


def test_bones_stand_beside_the_baselines() -> None:
    figures = segmenter_figures([RIGHT, CLEAN], BOOTSTRAP)
    wanted = {"sacrum_dice": (0.9, 0.6), "canal_dice": (0.8, 0.5), "sacrum_surface_dice_1mm": (0.7, 0.4),
              "sacrum_hd95_mm": (3.0, 9.0), "sacrum_contour_near_cement_p95_mm": (2.0, 5.0)}
    for name, (own, other) in wanted.items():
        assert (figures[name].value, figures[f"baseline_{name}"].value) == (own, other), name
    assert "baseline_hips_dice" not in figures


def test_volume_error_is_against_the_truth_and_scans_without_cement_have_none() -> None:
    figures = segmenter_figures([record(result(cement_ml=5.5)), record(result(cement_ml=4.0))], BOOTSTRAP)
    assert figures["cement_volume_error_median_pct"].value == pytest.approx(15.0)
    assert figures["cement_volume_bias_ml"].value == pytest.approx(-0.25)
    assert figures["false_cement_ml_without_cement"].n == 0


def test_a_refused_scan_has_no_contour_but_is_counted() -> None:
    figures = segmenter_figures([RIGHT, REFUSED], BOOTSTRAP)
    assert (figures["sacrum_dice"].value, figures["sacrum_dice"].n) == (0.9, 1)
    assert figures["not_assessable"].value == 0.5
    assert figures["left_right_swaps"].n == 1
    assert (figures["leak_component_sensitivity"].value, figures["leak_component_sensitivity"].n) == (0.5, 2)


@pytest.mark.parametrize(("stratum", "n"), [
    ("source=procedural", 1), ("source=surface", 2), ("slices<=1.5mm", 1), ("slices>=2mm", 2), ("metal=no", 2),
    ("metal=yes", 1),
])
def test_strata_hold_the_scans_that_belong_there(stratum: str, n: int) -> None:
    scans = [record(result()), record(result(), source="surface", slice_mm=3.0),
             record(result(), source="surface", slice_mm=2.0, metal=True)]
    assert leakage(*scans)[f"leak_specificity[{stratum}]"].n == n
    assert segmenter_figures(scans, BOOTSTRAP)[f"sacrum_dice[{stratum}]"].n == n


def test_sites_are_strata_and_so_are_scans_without_any() -> None:
    figures = segmenter_figures([RIGHT, MISSED, CLEAN], BOOTSTRAP)
    assert {name: figures[f"sacrum_dice[site={name}]"].n for name in ("none", VEIN, TRACK, CANAL)} == {
        "none": 1, VEIN: 1, TRACK: 1, CANAL: 0}


def test_model_and_baseline_are_judged_on_the_same_strata() -> None:
    figures = leakage(RIGHT, CLEAN)
    whole = segmenter_figures([RIGHT, CLEAN], BOOTSTRAP)
    for stratum in STRATA:
        assert all(f"{prefix}{name}[{stratum}]" in whole for prefix in ("", "baseline_") for name in BY_STRATUM)
        assert f"leak_sensitivity[{stratum}]" in figures
        assert f"baseline_leak_sensitivity[{stratum}]" in figures


def test_scans_of_a_real_ct_are_a_stratum_of_their_own_and_no_part_of_the_whole() -> None:
    scans = [record(result()), record(result(), source="surface"), *(record(result(), source="real") for _ in range(5))]
    segmenter, leakage = segmenter_figures(scans, BOOTSTRAP), leakage_figures(scans, BOOTSTRAP)
    assert segmenter["sacrum_dice"].n == leakage["exact_sites"].n == 2
    assert segmenter["sacrum_dice[slices<=1.5mm]"].n == 2
    for name in ("exact_sites", "site_macro_f1", "site_kappa", "review_share"):
        assert leakage[f"{name}[source=real]"].n == 5
    alone = leakage_figures(scans[2:], BOOTSTRAP)
    assert alone["exact_sites"].n == 5
