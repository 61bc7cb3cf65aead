"""Answers for whole scans from what is said of their leak parts, and how good they are: by rules, classifier, both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sacroleak.core.structures import Site
from sacroleak.models.classifier import (
    LeakClassifier,
    Matrix,
    Verdict,
    case_probabilities,
    rule_scores,
)
from sacroleak.training.intervals import Bootstrap, Figure, resampled, wilson
from sacroleak.training.measures import calibration_error, f1, kappa
from sacroleak.training.part_table import CaseFacts, PartTable

FOUR = tuple(site for site in Site if site is not Site.OTHER)
METHODS = ("rules", "classifier", "both")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseAnswer:
    """What one method says of one scan. `sites` is None where the scan cannot be judged."""

    facts: CaseFacts
    sites: tuple[Site, ...] | None
    probabilities: Mapping[Site, float]
    leak_probability: float
    review: bool

    @property
    def leak(self) -> bool:
        """Whether a leak is seen."""
        return bool(self.sites)

    @property
    def right(self) -> bool:
        """Whether the sites are exactly the true ones."""
        return self.sites == self.facts.sites

    @property
    def sure(self) -> float:
        """How far the answer is from a toss-up: the least sure of the sites decides."""
        return min(abs(p - 0.5) for p in self.probabilities.values())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """Classifiers grown without a share of the patients each, and what they say of those.

    `table`: parts of the predicted masks, cases in the order of the folds; `probabilities`: (n, 6) of both together;
    `answers`: (method, masks) -> one answer a scan.
    """

    table: PartTable
    probabilities: Matrix
    answers: Mapping[tuple[str, str], list[CaseAnswer]]


def answers(table: PartTable, classifier: LeakClassifier, method: str) -> list[CaseAnswer]:
    """One answer a scan; `method` is one of METHODS. The rules alone take every part for a leak."""
    verdicts = _verdicts(table.matrix, classifier, method)
    found = []
    for number, facts in enumerate(table.cases):
        own = [verdicts[row] for row in np.flatnonzero(table.case_of == number)]
        sites, leak = case_probabilities(own)
        named = tuple(sorted({v.site for v in own if v.is_leak}))
        found.append(CaseAnswer(facts=facts, sites=named if facts.assessed else None, probabilities=sites,
                                leak_probability=leak, review=not facts.assessed or any(v.reasons for v in own)))
    return found


def _verdicts(matrix: Matrix, classifier: LeakClassifier, method: str) -> list[Verdict]:
    if method == "both":
        return classifier.judge(matrix)
    rules = method == "rules"
    dropped = classifier.content.thresholds.dropped
    said = np.pad(rule_scores(matrix), ((0, 0), (0, 1))) if rules else classifier.probabilities(matrix)
    return [_plain(row, dropped) for row in said]


def _plain(row: np.ndarray, dropped: float) -> Verdict:
    sites = list(Site)
    return Verdict(site=sites[int(np.argmax(row[:-1]))], leak_probability=1.0 - float(row[-1]),
                   probabilities={site: float(p) for site, p in zip(sites, row, strict=False)},
                   is_leak=bool(row[-1] < dropped), reasons=())


def case_figures(given: Sequence[CaseAnswer], bootstrap: Bootstrap) -> dict[str, Figure]:
    """The measures of `metrics/leakage.json` that answers alone can give; a scan not judged is answered wrongly."""
    def score(site: Site, drawn: Sequence[CaseAnswer]) -> float | None:
        return f1([site in a.facts.sites for a in drawn], [site in (a.sites or ()) for a in drawn])

    def macro(drawn: Sequence[CaseAnswer]) -> float | None:
        known = [value for site in FOUR if (value := score(site, drawn)) is not None]
        return sum(known) / len(known) if known else None

    def agreement(drawn: Sequence[CaseAnswer]) -> float | None:
        return kappa(_pairs(drawn, lambda a, s: s in a.facts.sites), _pairs(drawn, lambda a, s: s in (a.sites or ())))

    def calibration(drawn: Sequence[CaseAnswer]) -> float | None:
        judged = [a for a in drawn if a.sites is not None]
        return calibration_error(_pairs(judged, lambda a, s: s in a.facts.sites),
                                 [a.probabilities[s] for a in judged for s in FOUR])

    leaking, others = [a for a in given if a.facts.sites], [a for a in given if not a.facts.sites]
    rest = [a for a in given if not a.review]
    return {
        "leak_sensitivity": wilson(sum(a.leak for a in leaking), len(leaking)),
        "leak_specificity": wilson(sum(a.sites == () for a in others), len(others)),
        "site_macro_f1": resampled(given, macro, bootstrap),
        "puncture_path_f1": resampled(given, lambda drawn: score(Site.PUNCTURE_PATH, drawn), bootstrap),
        "site_kappa": resampled(given, agreement, bootstrap),
        "exact_sites": wilson(sum(a.right for a in given), len(given)),
        "site_calibration_error": resampled(given, calibration, bootstrap),
        "review_share": wilson(sum(a.review for a in given), len(given)),
        "accuracy_without_review": wilson(sum(a.right for a in rest), len(rest)),
    }


def _pairs(drawn: Sequence[CaseAnswer], holds: Callable[[CaseAnswer, Site], bool]) -> list[bool]:
    return [holds(answer, site) for answer in drawn for site in FOUR]
