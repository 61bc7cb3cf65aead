"""What a radiologist's list of sites says about each leak part of a scan, where nobody has drawn any masks.

A list says which sites a scan's leaks are of, not which part is which. So labels are guessed in turns, as expectation
and maximisation: forests say how probable each site is for each part; the list rules out the sites it does not name,
and makes those it names as probable as one part at least must be; from these guesses new forests are grown.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sacroleak.core.structures import Site
from sacroleak.models.classifier import Matrix, rule_scores
from sacroleak.training.part_table import PartTable

MISSED = 0.1
"""Chance that a leak on the list shows in no part at all, because it was not segmented."""
FAINTEST = 1e-3
"""A site on the list is never ruled out for a part."""

Judge = Callable[[Matrix], Matrix]


def given_list(probabilities: Matrix, sites: tuple[Site, ...]) -> Matrix:
    """Probabilities (n, 6) of one scan's parts once its list is known.

    By noisy-or: a site is on the list if any part is of it, or with chance MISSED if none is.
    """
    known = np.zeros_like(probabilities)
    for n, site in enumerate(Site):
        if site in sites:
            single = np.clip(probabilities[:, n], FAINTEST, 1.0)
            known[:, n] = single / (1.0 - (1.0 - MISSED) * np.prod(1.0 - single))
    known[:, -1] = np.prod(1.0 - known[:, :-1], axis=1)
    return np.clip(known, 0.0, 1.0)


def with_guesses(table: PartTable, judge: Judge, *, rounds: int) -> Matrix:
    """The table's truth (n, 6) with guesses between 0 and 1 where only a list is known.

    `judge` takes a truth and gives what forests grown on it say of each part, each part left to forests that did not
    see its patient. The rules make the first guess.
    """
    unknown = np.asarray(np.isnan(table.truth).any(axis=1))
    if not unknown.any():
        return table.truth
    rules = rule_scores(table.matrix)
    guess = _by_lists(table, np.concatenate([rules, np.zeros((len(rules), 1))], axis=1), unknown)
    for _ in range(rounds):
        guess = _by_lists(table, judge(guess), unknown)
    return guess


def _by_lists(table: PartTable, probabilities: Matrix, unknown: npt.NDArray[np.bool_]) -> Matrix:
    truth = table.truth.copy()
    for case in np.unique(table.case_of[unknown]):
        own = np.flatnonzero((table.case_of == case) & unknown)
        truth[own] = given_list(probabilities[own], table.cases[int(case)].sites)
    return truth
