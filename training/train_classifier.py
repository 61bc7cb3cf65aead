"""Stage: the leak classifier grows on what the networks see, and is judged on patients it did not see."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import track
from sklearn.model_selection import GroupKFold

from sacroleak.core.config import load_config
from sacroleak.core.errors import InputError
from sacroleak.core.whole import sha256_of, write_whole
from sacroleak.models.bundle import CLASSIFIER
from sacroleak.models.classifier import LABELS, ClassifierFile, LeakClassifier, Matrix
from sacroleak.training.case_answers import METHODS, CaseAnswer, Judged, answers, case_figures
from sacroleak.training.classifier_run import note_classifier
from sacroleak.training.extract_features import ABOUT, PREDICTED, TRUE
from sacroleak.training.fit_classifier import FitConfig, fit
from sacroleak.training.intervals import Bootstrap, Figure, wilson
from sacroleak.training.metrics_files import write_metrics
from sacroleak.training.part_table import PartTable, load_table
from sacroleak.training.tracking import tracked

log = logging.getLogger(__name__)

MASKS = {"predicted": PREDICTED, "true": TRUE}
EXPERIMENT = "leak-classifier"


class ClassifierConfig(BaseModel):
    """`configs/train_classifier.yaml`. `outer_folds`: patients held out in turn, to judge all that `fit` chooses.
    `required`: fail where too few patients have leak parts; else the release goes by the rules alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    fit: FitConfig
    outer_folds: int = Field(ge=2)
    required: bool
    resamples: int = Field(ge=10)


def main(config: ClassifierConfig, *, tables: Path, out: Path,
         metrics: Path) -> tuple[ClassifierFile, Judged] | None:
    """Write `<out>/classifier.json` and `<metrics>/classifier.json`; returns what is tracked besides.

    Raises InputError if there are no tables, or too few patients with parts in them; where none is required, no
    classifier is written then, and None returned.
    """
    seen, true = (load_table(tables / name) for name in (PREDICTED, TRUE))
    seen_by = json.loads((tables / ABOUT).read_text(encoding="utf-8"))
    out.mkdir(parents=True, exist_ok=True)
    (out / CLASSIFIER).unlink(missing_ok=True)
    try:
        judged = judge_held_out(config, seen, true)
        content = fit(seen, config.fit, seen_by | {"tables": _digest(tables)})
    except InputError as error:
        if config.required:
            raise
        log.warning("no classifier: %s", error)
        write_metrics(metrics / CLASSIFIER, {})
        return None
    write_whole(out / CLASSIFIER, content.model_dump_json().encode() + b"\n")
    LeakClassifier.load(out / CLASSIFIER)
    write_metrics(metrics / CLASSIFIER, figures(judged, config))
    return content, judged


def judge_held_out(config: ClassifierConfig, seen: PartTable, true: PartTable) -> Judged:
    """Every scan judged by a classifier that saw none of its patient's parts, in predicted and in true masks."""
    tables: list[PartTable] = []
    said: list[Matrix] = []
    given: dict[tuple[str, str], list[CaseAnswer]] = {(method, masks): [] for masks in MASKS for method in METHODS}
    for inner, held in track(_splits(seen, config), description="held-out patients"):
        classifier = LeakClassifier(fit(seen.of_cases(inner), config.fit, {}))
        out = {"predicted": seen.of_cases(held), "true": _same_cases(true, [seen.cases[n].name for n in held])}
        for (method, masks), so_far in given.items():
            so_far += answers(out[masks], classifier, method)
        tables.append(out["predicted"])
        said.append(classifier.with_rules(out["predicted"].matrix))
    return Judged(table=_stacked(tables), probabilities=np.concatenate(said), answers=given)


def figures(judged: Judged, config: ClassifierConfig) -> dict[str, Figure]:
    """Everything of `metrics/classifier.json`: `<method>_<measure>[masks=...]`, and how many parts of each label."""
    bootstrap = Bootstrap(resamples=config.resamples, seed=config.fit.seed)
    found = {}
    for (method, masks), given in judged.answers.items():
        for name, figure in case_figures(given, bootstrap).items():
            found[f"{method}_{name}[masks={masks}]"] = figure
    known = judged.table.truth[~np.isnan(judged.table.truth).any(axis=1)]
    for n, label in enumerate(LABELS):
        found[f"parts[{label}]"] = wilson(int(known[:, n].sum()), len(known))
    return found


def _splits(table: PartTable, config: ClassifierConfig) -> list[tuple[list[int], list[int]]]:
    """(scans to learn from, scans held out) of each fold; no patient is on both sides."""
    patients = [case.patient for case in table.cases]
    if len(set(patients)) < config.outer_folds:
        raise InputError(f"{len(set(patients))} patients, wanted at least {config.outer_folds}")
    splitter = GroupKFold(n_splits=config.outer_folds, shuffle=True, random_state=config.fit.seed)
    return [(inner.tolist(), held.tolist()) for inner, held in
            splitter.split(np.zeros(len(patients)), groups=patients)]


def _same_cases(table: PartTable, names: list[str]) -> PartTable:
    """Those scans of these names that the table has: none of which only a list is known."""
    place = {case.name: n for n, case in enumerate(table.cases)}
    return table.of_cases([place[name] for name in names if name in place])


def _stacked(tables: list[PartTable]) -> PartTable:
    before = np.cumsum([0, *(len(t.cases) for t in tables)])
    return PartTable(cases=tuple(case for t in tables for case in t.cases),
                     matrix=np.concatenate([t.matrix for t in tables]), truth=np.concatenate([t.truth for t in tables]),
                     case_of=np.concatenate([t.case_of + n for t, n in zip(tables, before, strict=False)]),
                     number=np.concatenate([t.number for t in tables]))


def _digest(tables: Path) -> str:
    return hashlib.sha256("".join(sha256_of(tables / name) for name in MASKS.values()).encode()).hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/train_classifier.yaml"))
    parser.add_argument("--tables", type=Path, default=Path("artifacts/leak_cases"), help="of extract_features")
    parser.add_argument("--out", type=Path, default=Path("artifacts/classifier"))
    parser.add_argument("--metrics", type=Path, default=Path("metrics"))
    given = parser.parse_args()
    settings = load_config(given.config, ClassifierConfig)
    with tracked("train_classifier", "leak classifier", experiment=EXPERIMENT) as run:
        made = main(settings, tables=given.tables, out=given.out, metrics=given.metrics)
        if made is not None:
            note_classifier(run, settings, content=made[0], judged=made[1],
                            places=(given.tables, given.out, given.metrics))
