"""The stage: a file that loads, figures by patients held out, and what is tracked of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sacroleak.core.errors import InputError
from sacroleak.core.structures import Site
from sacroleak.models.classifier import LeakClassifier
from sacroleak.training import train_classifier
from sacroleak.training.case_answers import METHODS, CaseAnswer, case_figures
from sacroleak.training.classifier_run import note_classifier, worst_rows
from sacroleak.training.extract_features import ABOUT, PREDICTED, TRUE
from sacroleak.training.fit_classifier import fit
from sacroleak.training.intervals import Bootstrap
from sacroleak.training.part_table import CaseFacts, PartTable, joined, save_table
from sacroleak.training.tracking import Tracker
from sacroleak.training.train_classifier import ClassifierConfig, judge_held_out
from tests.training.leak_parts import SMALL, made_up

FEW = SMALL.forests[0].model_copy(update={"trees": 6})
CONFIG = ClassifierConfig(fit=SMALL.model_copy(update={"folds": 2, "forests": (FEW,)}), outer_folds=2, required=True,
                          resamples=20)
VENOUS = Site.SACRAL_VENOUS_PLEXUS


class Noted(Tracker):
    """Remembers names."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def picture(self, png: bytes, name: str) -> None:
        """Of a PNG."""
        assert png.startswith(b"\x89PNG")
        self.names.append(name)


def tables(folder: Path, table: PartTable) -> Path:
    """As `extract_features` leaves them."""
    for name in (PREDICTED, TRUE):
        save_table(folder / name, table)
    (folder / ABOUT).write_text(json.dumps({"bundle": "made up 1", "segmentation": "0"}))
    return folder


def test_it_writes_a_classifier_and_its_figures_and_tracks_them(tmp_path: Path) -> None:
    table = made_up(3, 50, noise=0.15, rules_right=0.3)
    made = train_classifier.main(CONFIG, tables=tables(tmp_path, table), out=tmp_path / "out",
                                 metrics=tmp_path / "metrics")
    assert made is not None
    loaded = LeakClassifier.load(tmp_path / "out/classifier.json")
    assert loaded.content.trained["cases"] == 50
    assert loaded.content.trained["bundle"] == "made up 1"
    figures = json.loads((tmp_path / "metrics/classifier.json").read_text())
    for method in METHODS:
        for masks in ("predicted", "true"):
            assert figures[f"{method}_exact_sites[masks={masks}]"]["n"] == 50
    both, rules = (figures[f"{method}_exact_sites[masks=predicted]"]["value"] for method in ("both", "rules"))
    assert both > rules
    run = Noted()
    note_classifier(run, CONFIG, content=made[0], judged=made[1],
                    places=(tmp_path, tmp_path / "out", tmp_path / "metrics"))
    assert {"reliability.png", "confusion.png", "risk_coverage.png", "permutation_importance.png"} <= set(run.names)


def test_too_few_patients_are_an_error_only_where_a_classifier_is_required(tmp_path: Path) -> None:
    folder = tables(tmp_path, made_up(3, 2))
    with pytest.raises(InputError, match="1 patients"):
        train_classifier.main(CONFIG, tables=folder, out=tmp_path / "out", metrics=tmp_path)
    assert train_classifier.main(CONFIG.model_copy(update={"required": False}), tables=folder, out=tmp_path / "out",
                                 metrics=tmp_path) is None
    assert not (tmp_path / "out/classifier.json").exists()


def test_scans_in_which_nothing_was_found_teach_nothing(tmp_path: Path) -> None:
    none = joined([])
    table = joined([(case.model_copy(update={"assessed": False}), none.matrix, none.truth)
                    for case in made_up(3, 8).cases])
    assert train_classifier.main(CONFIG.model_copy(update={"required": False}), tables=tables(tmp_path, table),
                                 out=tmp_path / "out", metrics=tmp_path) is None


def test_no_scan_is_judged_by_a_classifier_that_saw_its_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []

    def watched(table: PartTable, *rest: Any) -> Any:
        seen.append({case.patient for case in table.cases})
        return fit(table, *rest)

    monkeypatch.setattr(train_classifier, "fit", watched)
    table = made_up(4, 12)
    judged = judge_held_out(CONFIG, table, table)
    everyone = {case.patient for case in table.cases}
    assert sorted(case.name for case in judged.table.cases) == sorted(case.name for case in table.cases)
    held = [everyone - learned for learned in seen]
    assert held[0] | held[1] == everyone
    assert not held[0] & held[1]


def answer(true: Sequence[Site], said: Sequence[Site] | None, *, review: bool = False) -> CaseAnswer:
    facts = CaseFacts(name="c", patient="p", sites=tuple(true))
    probabilities = {site: float(site in (said or ())) for site in Site}
    return CaseAnswer(facts=facts, sites=None if said is None else tuple(said), probabilities=probabilities,
                      leak_probability=float(bool(said)), review=review)


def test_figures_of_scans_count_what_they_say() -> None:
    given = [answer([VENOUS], [VENOUS]), answer([VENOUS], [], review=True), answer([], []),
             answer([], None, review=True)]
    figures = case_figures(given, Bootstrap(resamples=10, seed=0))
    assert figures["leak_sensitivity"].value == 0.5
    assert figures["leak_specificity"].value == 0.5, "a scan that is not judged is no negative"
    assert figures["exact_sites"].value == 0.5
    assert figures["review_share"].value == 0.5
    assert (figures["accuracy_without_review"].value, figures["accuracy_without_review"].n) == (1.0, 2)
    assert figures["site_macro_f1"].value == pytest.approx(2 / 3)


def test_the_worst_part_is_the_one_whose_truth_was_least_probable() -> None:
    table = made_up(5, 6)
    said = np.where(table.truth > 0, 0.8, 0.1)
    said[3] = np.where(table.truth[3] > 0, 0.05, 0.9)
    assert worst_rows(table, said)[0] == 3
    hidden = table.with_lists_only([int(table.case_of[3])])
    assert 3 not in worst_rows(hidden, said)
