"""What rules alone, classifier alone and both say of a benchmark scan, in predicted and in true masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from sacroleak.core.structures import Site
from sacroleak.models.classifier import LeakClassifier
from sacroleak.models.limits import RuleLimits
from sacroleak.models.segmentation import Segmentation
from sacroleak.training.case_answers import METHODS, CaseAnswer, answers, case_figures
from sacroleak.training.intervals import Bootstrap, Figure
from sacroleak.training.part_table import CaseFacts, joined, rows_of
from sacroleak.training.seen_cases import true_segmentation
from sacroleak.training.simulation.case import Case

PREDICTED, TRUE = "predicted", "true"


class AnswerRecord(BaseModel):
    """What one method says of one scan; `sites` is None where the scan cannot be judged."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sites: tuple[Site, ...] | None
    probabilities: dict[Site, float]
    leak_probability: float
    review: bool


Answers = dict[str, dict[str, AnswerRecord]]
"""Method -> masks -> answer."""


def answers_of(case: Case, segmentation: Segmentation | None, limits: RuleLimits,
               classifier: LeakClassifier | None) -> Answers:
    """Every method's answer; `segmentation` is None for a scan that was called not assessable. Nothing to compare
    without a classifier: what is released are the rules alone.
    """
    if classifier is None:
        return {}
    found: Answers = {method: {PREDICTED: _UNJUDGED} for method in METHODS}
    for masks, seen in ((PREDICTED, segmentation), (TRUE, true_segmentation(case))):
        if seen is None:
            continue
        table = joined([(CaseFacts(name="", patient="", sites=()), *rows_of(seen, limits))])
        for method in METHODS:
            said = answers(table, classifier, method)[0]
            found[method][masks] = AnswerRecord(sites=said.sites, probabilities=dict(said.probabilities),
                                                leak_probability=said.leak_probability, review=said.review)
    return found


_UNJUDGED = AnswerRecord(sites=None, probabilities=dict.fromkeys(Site, 0.0), leak_probability=0.0, review=True)


def side_by_side(given: Iterable[tuple[tuple[Site, ...], Mapping[str, Mapping[str, AnswerRecord]]]],
                 bootstrap: Bootstrap) -> dict[str, Figure]:
    """`<method>_<measure>[masks=...]` of scans, each with its true sites and its answers."""
    columns: dict[tuple[str, str], list[CaseAnswer]] = {}
    for sites, by_method in given:
        for method, by_masks in by_method.items():
            for masks, said in by_masks.items():
                facts = CaseFacts(name="", patient="", sites=sites, assessed=said.sites is not None)
                columns.setdefault((method, masks), []).append(CaseAnswer(
                    facts=facts, sites=said.sites, probabilities=said.probabilities,
                    leak_probability=said.leak_probability, review=said.review))
    return {f"{method}_{name}[masks={masks}]": figure for (method, masks), column in columns.items()
            for name, figure in case_figures(column, bootstrap).items()}
