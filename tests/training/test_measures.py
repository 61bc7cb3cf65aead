"""Overlap, surfaces and matching on masks whose answers can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sacroleak.core.structures import Site, Structure
from sacroleak.training.measures import (
    calibration_error,
    contour_errors,
    dice,
    f1,
    kappa,
    match_leaks,
    sides_exchanged,
    surface_scores,
    volume_error_pct,
)

VEIN, TRACK = Site.SACRAL_VENOUS_PLEXUS, Site.PUNCTURE_PATH


def box(first: int, last: int) -> np.ndarray:
    mask = np.zeros((30, 12, 12), dtype=bool)
    mask[first:last, 3:9, 3:9] = True
    return mask


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (2, 0.8), (5, 0.5), (10, 0.0)])
def test_dice_of_two_boxes_is_what_they_share(shift: int, expected: float) -> None:
    assert dice(box(5, 15), box(5 + shift, 15 + shift)) == pytest.approx(expected)


def test_dice_of_nothing_is_unknown_and_of_a_miss_zero() -> None:
    assert dice(box(0, 0), box(0, 0)) is None
    assert dice(box(0, 0), box(5, 9)) == 0.0


def scores(found: np.ndarray, truth: np.ndarray, *, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
           tolerance_mm: float = 1.0) -> tuple[float | None, float | None]:
    got = surface_scores(found, truth, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm)
    return got.dice, got.hd95_mm


def test_surface_dice_forgives_up_to_the_tolerance_in_mm() -> None:
    one_voxel = (box(5, 15), box(6, 16))
    assert scores(*one_voxel)[0] == 1.0
    moved = scores(*one_voxel, spacing_mm=(3.0, 1.0, 1.0))[0]
    assert moved is not None
    assert 0.5 < moved < 1.0
    assert scores(box(5, 15), box(5, 15), spacing_mm=(3.0, 1.0, 1.0), tolerance_mm=0.1)[0] == 1.0


def test_of_a_miss_surface_dice_is_zero_and_no_distance_known() -> None:
    assert scores(box(0, 0), box(5, 9)) == (0.0, None)
    assert scores(box(0, 0), box(0, 0)) == (None, None)


def test_hausdorff_distance_is_in_mm_and_forgives_a_twentieth() -> None:
    assert scores(box(5, 15), box(5, 15))[1] == 0.0
    assert scores(box(5, 15), box(5, 18), spacing_mm=(2.0, 1.0, 1.0))[1] == pytest.approx(6.0)
    speck = box(5, 15)
    speck[29, 0, 0] = True
    assert scores(speck, box(5, 15))[1] == 0.0


def test_where_the_scan_cuts_a_bone_is_no_surface() -> None:
    """The far end of a bone that runs out of the scan would be right by itself, and raise the share."""
    bone, thin = np.zeros((30, 12, 12), dtype=bool), np.zeros((30, 12, 12), dtype=bool)
    bone[:, :, 6:] = True
    thin[:, :, 8:] = True
    assert scores(thin, bone) == (0.0, 2.0)
    assert scores(np.ones_like(bone), np.ones_like(bone)) == (None, None)


def test_contour_errors_count_only_beside_the_cement() -> None:
    """The far end is wrong by 4 mm, the end beside the cement by 2 mm."""
    cement = np.zeros((30, 12, 12), dtype=bool)
    cement[3:5, 3:9, 3:9] = True
    errors = contour_errors(box(7, 19), box(5, 15), beside=cement, within_mm=1.5, spacing_mm=(1, 1, 1))
    assert errors.max() == 2.0
    assert np.count_nonzero(errors == 2.0) >= 16
    assert len(contour_errors(box(7, 19), box(5, 15), beside=box(0, 0), within_mm=1.5, spacing_mm=(1, 1, 1))) == 0
    assert len(contour_errors(box(0, 0), box(5, 15), beside=cement, within_mm=1.5, spacing_mm=(1, 1, 1))) == 0


def test_volume_error_counts_both_ways_and_needs_a_truth() -> None:
    assert volume_error_pct(5.5, 5.0) == pytest.approx(10.0)
    assert volume_error_pct(4.5, 5.0) == pytest.approx(10.0)
    assert volume_error_pct(1.0, 0.0) is None


@pytest.mark.parametrize(("found", "expected"), [
    ((Structure.HIP_LEFT, Structure.HIP_RIGHT), False), ((Structure.HIP_RIGHT, Structure.HIP_LEFT), True),
    ((Structure.BACKGROUND, Structure.BACKGROUND), False), ((Structure.HIP_RIGHT, Structure.HIP_RIGHT), False),
])
def test_sides_are_exchanged_if_the_hips_bear_each_others_names(found: tuple[int, int], expected: bool) -> None:
    truth = np.array([Structure.HIP_LEFT, Structure.HIP_RIGHT]).reshape(2, 1, 1)
    assert sides_exchanged(np.array(found).reshape(2, 1, 1), truth) is expected


def test_without_hips_nothing_is_said_of_sides() -> None:
    assert sides_exchanged(np.zeros((2, 2, 2)), np.zeros((2, 2, 2))) is None


def leaks(**spans: tuple[int, int, int]) -> np.ndarray:
    """A row of voxels; each span is (number, first, last)."""
    row = np.zeros((100, 1, 1), dtype=np.uint16)
    for number, first, last in spans.values():
        row[first:last] = number
    return row


def test_a_leak_is_found_by_the_part_that_covers_most_of_it() -> None:
    truth = leaks(a=(1, 10, 30))
    found = leaks(a=(1, 10, 14), b=(2, 14, 28))
    result = match_leaks(found, {1: TRACK, 2: VEIN}, truth, share=0.1)
    assert [(m.number, m.site) for m in result.matches] == [(1, VEIN)]
    assert result.matches[0].covered == pytest.approx(0.9)
    assert result.false_sites == ()


def test_too_small_an_overlap_finds_nothing() -> None:
    result = match_leaks(leaks(a=(1, 28, 31)), {1: VEIN}, leaks(a=(1, 10, 30)), share=0.11)
    assert result.matches[0].site is None


def test_found_leaks_beside_all_true_ones_are_false() -> None:
    result = match_leaks(leaks(a=(1, 10, 30), b=(2, 60, 70)), {1: VEIN, 2: TRACK}, leaks(a=(1, 10, 30)), share=0.1)
    assert result.false_sites == (TRACK,)


def test_without_true_leaks_every_found_one_is_false() -> None:
    result = match_leaks(leaks(a=(1, 1, 5)), {1: VEIN}, leaks(), share=0.1)
    assert result.matches == ()
    assert result.false_sites == (VEIN,)


@given(st.integers(0, 70))
def test_a_leak_that_moves_away_is_covered_less_and_less(shift: int) -> None:
    truth = leaks(a=(1, 5, 25))
    near, far = (match_leaks(leaks(a=(1, 5 + s, 25 + s)), {1: VEIN}, truth, share=0.1) for s in (shift, shift + 1))
    assert far.matches[0].covered <= near.matches[0].covered


def test_f1_and_kappa_of_a_known_table() -> None:
    truth = [True] * 20 + [False] * 20
    found = [True] * 15 + [False] * 5 + [True] * 5 + [False] * 15
    assert f1(truth, found) == pytest.approx(0.75)
    assert kappa(truth, found) == pytest.approx(0.5)


def test_f1_and_kappa_without_any_case_are_unknown() -> None:
    assert f1([False], [False]) is None
    assert kappa([False, False], [False, False]) is None
    assert kappa([], []) is None


def test_calibration_error_is_the_distance_of_stated_from_seen() -> None:
    assert calibration_error([True, True, False, False], [0.95, 0.95, 0.05, 0.05]) == pytest.approx(0.05)
    assert calibration_error([False, False], [0.9, 1.0]) == pytest.approx(0.95)
    assert calibration_error([], []) is None
