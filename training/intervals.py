"""Every figure with how many scans it rests on and how far chance may have carried it: 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Z95 = 1.959963984540054
"""Standard normal quantile of 97.5 %."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number; `low` and `high` bound its 95 % interval, None where none can be given."""

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None

    def as_json(self) -> dict[str, float | int | None]:
        """The form in which metrics files hold it; rounded so that a file compares well with its predecessor."""
        return {"value": _short(self.value), "n": self.n, "low": _short(self.low), "high": _short(self.high)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """How often to draw scans again, and from which seed; equal values give equal intervals."""

    resamples: int
    seed: int


def wilson(hits: int, n: int) -> Figure:
    """Share of `hits` among `n` with Wilson's score interval (Wilson 1927). Of nothing, no value."""
    if n == 0:
        return Figure(value=None, n=0)
    share = hits / n
    middle = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2)) / (1 + Z95**2 / n)
    # At 0 and n hits the bound is exact, but rounding may push it past the share.
    return Figure(value=share, n=n, low=max(0.0, min(middle - half, share)), high=min(1.0, max(middle + half, share)))


def mean_of(values: Sequence[float | None], bootstrap: Bootstrap) -> Figure:
    """Mean over scans; scans without a value are left out and not counted."""
    return _over(values, bootstrap, np.mean)


def median_of(values: Sequence[float | None], bootstrap: Bootstrap) -> Figure:
    """Median over scans; scans without a value are left out and not counted."""
    return _over(values, bootstrap, np.median)


def resampled(items: Sequence[Item], measure: Callable[[Sequence[Item]], float | None], bootstrap: Bootstrap) -> Figure:
    """Any measure of a set of scans, with the percentile interval of drawing that many scans again and again.

    Draws for which the measure is None (no positives in them) are left out. One scan alone has no interval.
    """
    value = measure(items) if items else None
    if value is None or len(items) < 2:
        return Figure(value=value, n=len(items))
    rng = np.random.default_rng(bootstrap.seed)
    draws = []
    for _ in range(bootstrap.resamples):
        drawn = measure([items[i] for i in rng.integers(len(items), size=len(items))])
        if drawn is not None:
            draws.append(drawn)
    low, high = np.percentile(draws, (2.5, 97.5)) if draws else (np.nan, np.nan)
    return Figure(value=value, n=len(items), low=_number(low), high=_number(high))


def _over(values: Sequence[float | None], bootstrap: Bootstrap, statistic: Callable[..., object]) -> Figure:
    """The same for plain numbers, all draws at once."""
    known = np.array([v for v in values if v is not None], dtype=np.float64)
    if known.size == 0:
        return Figure(value=None, n=0)
    value = _number(statistic(known))
    if known.size < 2:
        return Figure(value=value, n=1)
    rng = np.random.default_rng(bootstrap.seed)
    picks: npt.NDArray[np.int64] = rng.integers(known.size, size=(bootstrap.resamples, known.size))
    low, high = np.percentile(np.asarray(statistic(known[picks], axis=1)), (2.5, 97.5))
    return Figure(value=value, n=int(known.size), low=_number(low), high=_number(high))


def _number(value: object) -> float | None:
    number = float(np.asarray(value))
    return number if np.isfinite(number) else None


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
