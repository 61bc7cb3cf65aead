"""Figures and their intervals: known values, and laws that hold for any scans."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sacroleak.training.intervals import Bootstrap, Figure, mean_of, median_of, resampled, wilson

BOOTSTRAP = Bootstrap(resamples=300, seed=5)


@pytest.mark.parametrize(("hits", "n", "low", "high"), [
    (12, 35, 0.208, 0.508), (5, 35, 0.063, 0.294), (2, 35, 0.016, 0.186), (0, 10, 0.0, 0.278), (10, 10, 0.722, 1.0),
])
def test_wilson_agrees_with_published_intervals(hits: int, n: int, low: float, high: float) -> None:
    figure = wilson(hits, n)
    assert figure.value == pytest.approx(hits / n)
    assert figure.low == pytest.approx(low, abs=6e-4)
    assert figure.high == pytest.approx(high, abs=6e-4)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_share_and_stays_between_nothing_and_all(case: tuple[int, int]) -> None:
    figure = wilson(*case)
    assert figure.value is not None
    assert figure.low is not None
    assert figure.high is not None
    assert 0.0 <= figure.low <= figure.value <= figure.high <= 1.0


def test_a_share_of_nothing_has_no_value() -> None:
    assert wilson(0, 0) == Figure(value=None, n=0)


def test_scans_without_a_value_are_not_counted() -> None:
    figure = mean_of([0.5, None, 0.7], BOOTSTRAP)
    assert figure.value == pytest.approx(0.6)
    assert figure.n == 2


def test_the_interval_holds_the_mean_and_narrows_with_more_scans() -> None:
    few, many = (mean_of([0.2, 0.4, 0.6, 0.8] * times, BOOTSTRAP) for times in (2, 50))
    widths = []
    for figure in (few, many):
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low < 0.5 < figure.high
        widths.append(figure.high - figure.low)
    assert widths[1] < widths[0] / 3


def test_the_median_ignores_one_wild_scan() -> None:
    assert median_of([1.0, 2.0, 3.0, 1000.0, 2.0], BOOTSTRAP).value == 2.0


def test_one_scan_has_a_value_and_no_interval() -> None:
    assert mean_of([0.9], BOOTSTRAP) == Figure(value=0.9, n=1)
    assert resampled([0.9], lambda drawn: drawn[0], BOOTSTRAP) == Figure(value=0.9, n=1)


def test_equal_seeds_give_equal_intervals() -> None:
    values = [0.1, 0.5, 0.55, 0.9]
    assert mean_of(values, BOOTSTRAP) == mean_of(values, BOOTSTRAP)
    assert mean_of(values, BOOTSTRAP) != mean_of(values, Bootstrap(resamples=300, seed=6))


def test_any_measure_is_drawn_again_and_draws_without_a_value_are_left_out() -> None:
    def share_of_known(drawn: object) -> float | None:
        known = [x for x in drawn if x is not None]  # type: ignore[attr-defined]
        return sum(known) / len(known) if known else None

    figure = resampled([1.0, None, 0.0, None, 1.0], share_of_known, BOOTSTRAP)
    assert figure.value == pytest.approx(2 / 3)
    assert figure.n == 5
    assert figure.low is not None
    assert figure.low < 2 / 3


def test_metrics_files_hold_five_digits_and_say_what_is_unknown() -> None:
    assert Figure(value=1 / 3, n=3).as_json() == {"value": 0.33333, "n": 3, "low": None, "high": None}
