"""What a training of the leak classifier leaves in MLflow: settings, measures, figures, diagrams, worst errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from sacroleak.core.errors import NotAssessableError
from sacroleak.models.classifier import INPUTS, LABELS, ClassifierFile, LeakClassifier, Matrix
from sacroleak.training.case_answers import FOUR, METHODS, CaseAnswer, Judged
from sacroleak.training.leak_cases import load_leak_case
from sacroleak.training.part_table import PartTable
from sacroleak.training.pictures import draw_case
from sacroleak.training.seen_cases import load_segmentation
from sacroleak.training.tracking import Tracker

WORST = 10
"""Errors that get a picture."""
SHOWN = 25
"""Inputs in the picture of their importance."""
REPEATS = 5
"""Shuffles of each input."""
BINS = 10
SHORT = {label: label.replace("_", " ") for label in LABELS}


def note_classifier(run: Tracker, config: BaseModel, *, content: ClassifierFile, judged: Judged,
                    places: tuple[Path, Path, Path]) -> None:
    """Everything of one training; `places`: folders of the tables, of the classifier and of the metrics."""
    tables, out, metrics = places
    run.settings(config)
    run.tags({"bundle": str(content.trained.get("bundle", "")), "data_digest": str(content.trained.get("tables", ""))})
    run.parameters({"trained": content.trained, "rule_weight": content.rule_weight,
                    "thresholds": content.thresholds.model_dump()})
    run.text("\n".join(INPUTS) + "\n", "features.txt")
    run.figures(json.loads((metrics / "classifier.json").read_text(encoding="utf-8")))
    run.file(out / "classifier.json", "classifier")
    important = importance(LeakClassifier(content), judged.table, np.random.default_rng(0))
    run.text(json.dumps(important, indent=1) + "\n", "permutation_importance.json")
    run.picture(importance_chart(important), "permutation_importance.png")
    run.picture(reliability_chart(judged.answers["both", "predicted"]), "reliability.png")
    run.picture(confusion_chart(judged.table, judged.probabilities), "confusion.png")
    run.picture(risk_chart({m: judged.answers[m, "predicted"] for m in METHODS}), "risk_coverage.png")
    note_worst(run, judged, tables, str(content.trained.get("segmentation", "")))


def note_worst(run: Tracker, judged: Judged, tables: Path, segmentation: str) -> None:
    """Pictures of the parts whose true labels were found least probable."""
    for place, row in enumerate(worst_rows(judged.table, judged.probabilities)[:WORST], start=1):
        name = judged.table.cases[int(judged.table.case_of[row])].name
        path = tables / "scans" / f"{name}.npz"
        if not path.is_file():
            continue
        case = load_leak_case(path).case
        try:
            seen = load_segmentation(tables / "seen" / segmentation / f"{name}.npz", case.ct)
        except (NotAssessableError, OSError):
            seen = None
        true = ", ".join(SHORT[label] for n, label in enumerate(LABELS) if judged.table.truth[row, n] > 0)
        said = int(np.argmax(judged.probabilities[row]))
        title = (f"{name}, part {judged.table.number[row]}: is {true}, called {SHORT[LABELS[said]]} "
                 f"({judged.probabilities[row, said]:.2f}); truth green, result red")
        run.picture(draw_case(case, seen, title), f"worst/{place:02d}-{name}-part-{judged.table.number[row]}.png")


def worst_rows(table: PartTable, probabilities: Matrix) -> list[int]:
    """Rows of known parts, the worst first: those whose least probable true label was the least probable."""
    known = np.flatnonzero(~np.isnan(table.truth).any(axis=1))
    least = np.where(table.truth[known] > 0, probabilities[known], 1.0).min(axis=1)
    return [int(row) for row in known[np.argsort(least, kind="stable")]]


def importance(classifier: LeakClassifier, table: PartTable, rng: np.random.Generator) -> dict[str, float]:
    """How much the Brier score of the released trees grows when an input's values are dealt out at random, largest
    first. Measured on the parts the trees grew on: it says what the trees go by, not how well.
    """
    known = ~np.isnan(table.truth).any(axis=1)
    matrix, truth = table.matrix[known], table.truth[known]
    if len(matrix) == 0:
        return {}
    base = float(((classifier.with_rules(matrix) - truth) ** 2).mean())
    found = {}
    for n, name in enumerate(INPUTS):
        worse = []
        for _ in range(REPEATS):
            dealt = matrix.copy()
            dealt[:, n] = rng.permutation(dealt[:, n])
            worse.append(float(((classifier.with_rules(dealt) - truth) ** 2).mean()) - base)
        found[name] = round(float(np.mean(worse)), 6)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def importance_chart(important: dict[str, float]) -> bytes:
    """PNG of the inputs the classifier goes by most."""
    figure = _figure(7.0, 6.0)
    axes = figure.subplots()
    names = list(important)[:SHOWN][::-1]
    axes.barh(names, [important[name] for name in names], color="0.4")
    axes.set(xlabel="growth of the Brier score when dealt out at random", title="What the classifier goes by")
    axes.tick_params(labelsize=7)
    return _png(figure)


def reliability_chart(given: Sequence[CaseAnswer]) -> bytes:
    """PNG: how often a site is there, against how probable it was called; one point a bin, its n beside it."""
    figure = _figure(5.0, 5.0)
    axes = figure.subplots()
    judged = [a for a in given if a.sites is not None]
    said = np.array([a.probabilities[site] for a in judged for site in FOUR])
    true = np.array([site in a.facts.sites for a in judged for site in FOUR], dtype=np.float64)
    bins = np.minimum((said * BINS).astype(int), BINS - 1)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for b in np.unique(bins):
        own = bins == b
        axes.plot(said[own].mean(), true[own].mean(), "o", color="black", markersize=4)
        axes.annotate(f"{own.sum()}", (said[own].mean(), true[own].mean()), fontsize=7, xytext=(4, -8),
                      textcoords="offset points")
    axes.set(xlabel="probability", ylabel="share of scans with the site", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02),
             title=f"Four sites of {len(judged)} scans")
    return _png(figure)


def confusion_chart(table: PartTable, probabilities: Matrix) -> bytes:
    """PNG: known parts by what they are (their most probable true label) and what they are called."""
    known = ~np.isnan(table.truth).any(axis=1)
    truth, said = table.truth[known], probabilities[known]
    rows, columns = np.where(truth > 0, said, -1.0).argmax(axis=1), said.argmax(axis=1)
    counts = np.zeros((len(LABELS), len(LABELS)), dtype=np.int64)
    np.add.at(counts, (rows, columns), 1)
    figure = _figure(6.5, 5.5)
    axes = figure.subplots()
    axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Greys", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(counts):
        axes.text(j, i, str(count), ha="center", va="center", fontsize=8,
                  color="white" if count > counts[i].sum() / 2 else "black")
    names = [SHORT[label] for label in LABELS]
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlabel="called", ylabel="is", title=f"{int(counts.sum())} leak parts of held-out patients")
    return _png(figure)


def risk_chart(given: dict[str, list[CaseAnswer]]) -> bytes:
    """PNG: share of wrong answers among the scans a method is surest of, against how many these are."""
    figure = _figure(6.0, 4.5)
    axes = figure.subplots()
    for method, answers in given.items():
        wrong = np.array([not a.right for a in sorted(answers, key=lambda a: -a.sure)], dtype=np.float64)
        covered = np.arange(1, len(wrong) + 1)
        axes.plot(covered / max(len(wrong), 1), np.cumsum(wrong) / covered, label=method, linewidth=1.2)
    axes.set(xlabel="share of scans answered", ylabel="share of them with wrong sites", xlim=(0, 1), ylim=(0, None),
             title="Wrong answers, the surest scans first")
    axes.legend(fontsize=8)
    return _png(figure)


def _figure(wide: float, high: float) -> Any:
    from matplotlib.figure import Figure  # a second, for stages that draw

    return Figure(figsize=(wide, high), dpi=100, layout="tight")


def _png(figure: Any) -> bytes:
    content = BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
