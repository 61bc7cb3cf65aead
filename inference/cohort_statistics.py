"""The statistics of a cohort table: shares, moments, groups compared, courses over time. All by scipy.stats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

LEVEL = 0.05
SMALLEST_EXPECTED = 5.0
"""Cochran (Biometrics 1954;10:417): below this expected count the chi-squared distribution is a poor guide."""

DRAWS = 19_999
"""Tables drawn for Fisher's test beyond 2 x 2; a P of 0.05 is then known to about 0.003."""

FEWEST_PAIRS = 6
"""With fewer, Wilcoxon's signed-rank test cannot reach P < 0.05, whatever the differences are (2 / 2^5 = 0.06)."""

FEWEST_FOR_NORMAL = 10
"""With fewer differences the Shapiro-Wilk test would hardly ever notice that they are not normal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """`hits` of `n` with Wilson's 95 % interval; of nothing, no value."""

    hits: int
    n: int
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """How values lie. `low` and `high` bound the mean's 95 % interval by Student's t; None where there is none."""

    n: int
    mean: float | None = None
    sd: float | None = None
    smallest: float | None = None
    largest: float | None = None
    median: float | None = None
    quartiles: tuple[float, float] | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A test, why this one, and its P; `p` is None where no test is possible, and `why` then says so."""

    test: str
    why: str
    p: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """From before to one later time over `n` patients with both: P as it is and corrected for the other times.

    `value` is the mean change with Student's t interval where the t-test was used, else the median change with the
    interval of its order statistics; `what` says which.
    """

    n: int
    what: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    why_none: str = ""


def share(hits: int, n: int) -> Share:
    """`hits` of `n` with Wilson's interval."""
    if n == 0:
        return Share(hits=hits, n=n)
    interval = stats.binomtest(hits, n).proportion_ci(confidence_level=0.95, method="wilson")
    return Share(hits=hits, n=n, value=hits / n, low=float(interval.low), high=float(interval.high))


def moments(values: Sequence[float], *, independent: bool = True) -> Moments:
    """Moments, range and quartiles. An interval of the mean is given only for values that are `independent`."""
    known = np.asarray(values, dtype=np.float64)
    if known.size == 0:
        return Moments(n=0)
    lower, middle, upper = (float(q) for q in np.percentile(known, (25, 50, 75)))
    low, high = _mean_interval(known) if independent else (None, None)
    return Moments(n=known.size, mean=float(known.mean()), sd=float(known.std(ddof=1)) if known.size > 1 else None,
                   smallest=float(known.min()), largest=float(known.max()), median=middle, quartiles=(lower, upper),
                   low=low, high=high)


def compare_groups(hits: Sequence[int], sizes: Sequence[int], rng: np.random.Generator) -> Comparison:
    """Whether the share of hits differs between groups: chi-squared where it may be used, else Fisher's exact test."""
    table = np.array([hits, np.subtract(sizes, hits)], dtype=np.int64)
    if table.shape[1] < 2:
        return Comparison(test="none", why="fewer than two groups to compare")
    if not table.sum(axis=1).all():
        return Comparison(test="none", why="all patients have the same answer, so nothing can differ")
    smallest = float(stats.contingency.expected_freq(table).min())
    if smallest >= SMALLEST_EXPECTED:
        corrected = ", with Yates' correction" if table.shape == (2, 2) else ""
        return Comparison(test=f"chi-squared{corrected}", p=float(stats.chi2_contingency(table).pvalue),
                          why=f"the smallest expected count is {smallest:.1f}, and none is below {SMALLEST_EXPECTED:g}")
    why = f"the smallest expected count is {smallest:.1f}, below {SMALLEST_EXPECTED:g}"
    if table.shape == (2, 2):
        return Comparison(test="Fisher's exact test", p=float(stats.fisher_exact(table).pvalue), why=why)
    drawn = stats.fisher_exact(table, method=stats.MonteCarloMethod(n_resamples=DRAWS, rng=rng))
    return Comparison(test=f"Fisher's exact test, by {DRAWS:,} tables drawn with the same margins from a fixed seed",
                      p=float(drawn.pvalue), why=why)


def compare_times(before: Floats, later: Floats) -> tuple[Comparison, tuple[Change, ...]]:
    """Each later time against before, over the patients with both; the test chosen for all, and each change.

    `before` is (patients,), `later` is (times, patients); NaN where a score is not known. One test serves all
    times, so that they can be read side by side. P values are corrected for their number by Holm's method.
    """
    differences = [_known(np.round(row - before, 9)) for row in later]  # rounding keeps equal differences equal
    tested = [d for d in differences if d.size >= FEWEST_PAIRS]
    chosen = _choose(tested)
    changes = [_change(d, by_mean=chosen.test.startswith("paired")) for d in differences]
    corrected = iter(holm([change.p for change in changes if change.p is not None]))
    return chosen, tuple(
        Change(n=c.n, what=c.what, value=c.value, low=c.low, high=c.high, p=c.p, why_none=c.why_none,
               p_corrected=next(corrected) if c.p is not None else None) for c in changes)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (Scand J Statist 1979;6:65), which scipy does not have, in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)) if p.size else p
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(raised, 1.0)
    return [float(value) for value in corrected]


def _choose(differences: Sequence[Floats]) -> Comparison:
    if not differences:
        return Comparison(test="none", why=f"no time has {FEWEST_PAIRS} patients with both scores")
    fewest = min(d.size for d in differences)
    wilcoxon = "Wilcoxon's signed-rank test"
    if fewest < FEWEST_FOR_NORMAL:
        return Comparison(test=wilcoxon, why=f"a time has only {fewest} patients with both scores, too few "
                                             f"(below {FEWEST_FOR_NORMAL}) to see whether the changes are normal")
    if any(np.ptp(d) == 0 for d in differences):
        return Comparison(test=wilcoxon, why="at one time all patients changed by the same amount, which is not normal")
    lowest = min(float(stats.shapiro(d).pvalue) for d in differences)
    if lowest < LEVEL:
        return Comparison(test=wilcoxon, why=f"the changes are not normal at every time (smallest Shapiro-Wilk P = "
                                             f"{lowest:.3g}, below {LEVEL:g})")
    return Comparison(test="paired t-test", why="nothing speaks against normal changes (smallest Shapiro-Wilk P = "
                                                f"{lowest:.3g}, not below {LEVEL:g})")


def _change(d: Floats, *, by_mean: bool) -> Change:
    if d.size < FEWEST_PAIRS:
        return Change(n=d.size, what="median change", value=float(np.median(d)) if d.size else None,
                      why_none=f"fewer than {FEWEST_PAIRS} patients with both scores: no test")
    if by_mean:
        low, high = _mean_interval(d)
        return Change(n=d.size, what="mean change", value=float(d.mean()), low=low, high=high,
                      p=float(stats.ttest_1samp(d, 0.0).pvalue))
    interval = stats.quantile_test(d, q=0.0, p=0.5).confidence_interval(confidence_level=0.95)
    p = float(stats.wilcoxon(d).pvalue) if np.any(d) else 1.0  # nobody changed: nothing to rank
    return Change(n=d.size, what="median change", value=float(np.median(d)), low=_finite(interval.low),
                  high=_finite(interval.high), p=p)


def _mean_interval(values: Floats) -> tuple[float | None, float | None]:
    if values.size < 2 or np.ptp(values) == 0:  # equal values say nothing about how far others would lie
        return None, None
    interval = stats.ttest_1samp(values, 0.0).confidence_interval(confidence_level=0.95)
    return float(interval.low), float(interval.high)


def _known(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
