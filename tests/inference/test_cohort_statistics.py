"""Statistics of a cohort against values known from elsewhere: closed forms, enumeration, published figures."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from sacroleak.inference.cohort_statistics import compare_groups, compare_times, holm, moments, share


@pytest.mark.parametrize(("hits", "n", "low", "high"), [(12, 35, 20.8, 50.8), (5, 35, 6.3, 29.4), (2, 35, 1.6, 18.6),
                                                        (0, 10, 0.0, 27.8), (10, 10, 72.2, 100.0)])
def test_wilson(hits: int, n: int, low: float, high: float) -> None:
    found = share(hits, n)
    assert found.low is not None
    assert found.high is not None
    assert (round(100 * found.low, 1), round(100 * found.high, 1)) == (low, high)


def test_of_nothing_there_is_no_share_and_of_one_value_no_spread() -> None:
    assert share(0, 0).value is None
    assert moments([]).mean is None
    one = moments([4.0])
    assert (one.mean, one.sd, one.low, one.high, one.median) == (4.0, None, None, None, 4.0)
    assert moments([2.0, 4.0], independent=False).low is None


def test_large_groups_are_compared_by_chi_squared() -> None:
    found = compare_groups([10, 20, 15], [40, 40, 40], np.random.default_rng(1))
    assert found.test == "chi-squared"
    assert found.p == pytest.approx(np.exp(-(50 / 15 + 50 / 25) / 2))  # two degrees of freedom have a closed form
    assert "15.0" in found.why


def test_two_small_groups_are_compared_by_the_exact_test() -> None:
    found = compare_groups([3, 1], [4, 4], np.random.default_rng(1))
    assert found.test == "Fisher's exact test"
    assert found.p == pytest.approx(34 / 70)  # Fisher's tea


def test_three_small_groups_come_close_to_enumeration() -> None:
    hits, sizes = np.array([7, 1, 2]), np.array([9, 8, 8])
    margins = stats.random_table([hits.sum(), (sizes - hits).sum()], sizes)
    tables = [np.array([counts, sizes - counts]) for counts in map(np.array, product(*(range(s + 1) for s in sizes)))
              if counts.sum() == hits.sum()]
    masses = np.array([margins.pmf(table) for table in tables])
    observed = margins.pmf(np.array([hits, sizes - hits]))
    exact = masses[masses <= observed * (1 + 1e-9)].sum()
    found = compare_groups(hits.tolist(), sizes.tolist(), np.random.default_rng(1))
    assert "19,999 tables" in found.test
    assert found.p == pytest.approx(exact, abs=0.005)
    assert found == compare_groups(hits.tolist(), sizes.tolist(), np.random.default_rng(1))


@pytest.mark.parametrize(("hits", "sizes"), [([3], [5]), ([], []), ([5, 4], [5, 4]), ([0, 0, 0], [5, 4, 3])])
def test_what_cannot_differ_is_not_tested(hits: list[int], sizes: list[int]) -> None:
    found = compare_groups(hits, sizes, np.random.default_rng(1))
    assert (found.test, found.p) == ("none", None)
    assert found.why


def test_holm_is_as_worked_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_normal_changes_take_the_t_test_and_its_interval() -> None:
    before = np.full(20, 7.0)
    normal = stats.norm.ppf((np.arange(20) + 0.5) / 20)
    chosen, changes = compare_times(before, np.array([before - 4 + normal, before + normal]))
    assert chosen.test == "paired t-test"
    assert [change.what for change in changes] == ["mean change", "mean change"]
    half = stats.t.ppf(0.975, 19) * normal.std(ddof=1) / np.sqrt(20)
    assert (changes[0].value, changes[0].low, changes[0].high) == pytest.approx((-4, -4 - half, -4 + half))
    assert changes[1].p == pytest.approx(1.0)
    assert changes[0].p is not None
    assert changes[0].p_corrected == pytest.approx(2 * changes[0].p)


def test_skewed_changes_at_one_time_take_wilcoxon_at_all() -> None:
    before = np.full(20, 7.0)
    normal = stats.norm.ppf((np.arange(20) + 0.5) / 20)
    chosen, changes = compare_times(before, np.array([before + normal, before - np.exp(2 * normal)]))
    assert chosen.test.startswith("Wilcoxon")
    assert "Shapiro-Wilk" in chosen.why
    assert changes[1].p == pytest.approx(2 / 2**20)  # all twenty changes point the same way
    assert changes[1].what == "median change"


def test_missing_scores_leave_the_pair_out_and_too_few_pairs_are_not_tested() -> None:
    nan = np.nan
    before = np.array([7.0, 8, 6, 7, 8, 9, 7, nan])
    later = np.array([[3.0, 4, 1, 2, 5, 7, nan, 2], [3, 4, 1, nan, nan, nan, 2, 1], [nan] * 8])
    chosen, changes = compare_times(before, later)
    assert chosen.test.startswith("Wilcoxon")
    assert "only 6" in chosen.why
    assert [change.n for change in changes] == [6, 4, 0]
    assert changes[0].p == pytest.approx(2 / 2**6)
    assert changes[0].p_corrected == changes[0].p
    assert [change.p for change in changes[1:]] == [None, None]
    assert "fewer than 6" in changes[1].why_none


def test_nobody_changed() -> None:
    before = np.arange(12.0)
    chosen, (change,) = compare_times(before, before[None])
    assert chosen.test.startswith("Wilcoxon")
    assert (change.p, change.value) == (1.0, 0.0)
