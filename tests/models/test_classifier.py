"""The released classifier: a file that cannot harm, probabilities that keep their order, and reasons to look again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sacroleak.core.errors import ModelError
from sacroleak.core.structures import Site
from sacroleak.models.classifier import (
    INPUTS,
    LABELS,
    NOT_A_LEAK,
    ClassifierFile,
    LeakClassifier,
    Sigmoid,
    Spread,
    Thresholds,
    Trees,
    Verdict,
    calibrated,
    case_probabilities,
    input_row,
    mixed,
)
from sacroleak.models.feature_vector import FEATURE_NAMES

VENOUS, TRACK = Site.SACRAL_VENOUS_PLEXUS, Site.PUNCTURE_PATH
N = len(INPUTS)


def stump(name: str, threshold: float, below: float, above: float) -> Trees:
    """One question."""
    return Trees(roots=[0], feature=[INPUTS.index(name), -1, -1], threshold=[threshold, 0.0, 0.0], left=[1, -1, -1],
                 right=[2, -1, -1], value=[0.0, below, above])


def content(**changes: Any) -> ClassifierFile:
    """Long parts are venous, parts of the rim no leak; the rest is not known."""
    trees = {label: stump("flatness", 0.0, 0.1, 0.1) for label in LABELS}
    trees[VENOUS.value] = stump("length_mm", 10.0, 0.05, 0.9)
    trees[NOT_A_LEAK] = stump("rim_share", 0.5, 0.02, 0.97)
    plain = {label: Sigmoid(slope=1.0, shift=0.0) for label in LABELS}
    values: dict[str, Any] = {
        "inputs": list(INPUTS), "trees": trees, "rule_weight": 0.25, "calibration": plain, "alone": plain,
        "low": [-50.0] * N, "high": [50.0] * N, "trained": {"parts": 3},
        "spread": Spread(centre=[0.0] * N, scale=[1.0] * N, precision=np.eye(N).tolist(), limit=6.0),
        "thresholds": Thresholds(dropped=0.9, doubted=0.2, confident=0.5)}
    return ClassifierFile(**(values | changes))


def row(rules: Site = VENOUS, **measures: float) -> np.ndarray:
    """Inputs of one part for which the rules name `rules`."""
    vector = np.zeros(len(FEATURE_NAMES))
    for name, value in measures.items():
        vector[FEATURE_NAMES.index(name)] = value
    return input_row(vector, {site: 0.9 if site is rules else 0.025 for site in Site})


def judged(*parts: np.ndarray, **changes: Any) -> list[Verdict]:
    return LeakClassifier(content(**changes)).judge(np.stack(parts))


def test_a_file_is_read_back_and_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "classifier.json"
    path.write_text(content().model_dump_json())
    parts = np.stack([row(length_mm=30.0), row(length_mm=3.0)])
    read = LeakClassifier.load(path)
    np.testing.assert_array_equal(read.with_rules(parts), LeakClassifier(content()).with_rules(parts))
    np.testing.assert_allclose(read.probabilities(parts)[:, 0], [0.9, 0.05])


def trees_of(data: dict[str, Any]) -> dict[str, Any]:
    trees: dict[str, Any] = data["trees"][NOT_A_LEAK]
    return trees


@pytest.mark.parametrize("harm", [
    lambda d: d.update(extra=1), lambda d: d.pop("low"), lambda d: d["trees"].pop(NOT_A_LEAK),
    lambda d: trees_of(d).update(left=[0, -1, -1]), lambda d: trees_of(d).update(right=[3, -1, -1]),
    lambda d: trees_of(d).update(feature=[N, -1, -1]), lambda d: trees_of(d).update(value=[0.5]),
    lambda d: trees_of(d).update(roots=[-1]), lambda d: d["calibration"][NOT_A_LEAK].update(slope=-1.0),
    lambda d: d.update(rule_weight=1.5), lambda d: d["thresholds"].update(doubted=0.95), lambda d: d["high"].pop(),
    lambda d: d.update(format=2),
])
def test_a_file_that_is_not_sound_is_refused(tmp_path: Path, harm: Callable[[dict[str, Any]], None]) -> None:
    """A branch that leads back would go round for ever."""
    data = json.loads(content().model_dump_json())
    harm(data)
    path = tmp_path / "classifier.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ModelError, match=r"classifier\.json"):
        LeakClassifier.load(path)


@pytest.mark.parametrize("text", ["", "[]", "no JSON", '{"format": NaN}'])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "classifier.json").write_text(text)
    with pytest.raises(ModelError, match=r"classifier\.json"):
        LeakClassifier.load(tmp_path / "classifier.json")
    with pytest.raises(ModelError, match="cannot be read"):
        LeakClassifier.load(tmp_path / "none.json")


def test_a_classifier_of_other_measures_is_refused_by_name() -> None:
    renamed = ["something_else", *INPUTS[1:]]
    with pytest.raises(ModelError, match=r"other measures.*something_else"):
        LeakClassifier(content(inputs=renamed))
    with pytest.raises(ModelError, match="in another order"):
        LeakClassifier(content(inputs=[*INPUTS[1:], INPUTS[0]]))


@given(low=st.floats(0, 1), high=st.floats(0, 1), slope=st.floats(0, 5), shift=st.floats(-5, 5))
def test_calibration_never_turns_the_order_round(low: float, high: float, slope: float, shift: float) -> None:
    sigmoids = {label: Sigmoid(slope=slope, shift=shift) for label in LABELS}
    two = calibrated(np.repeat(np.sort([[low], [high]], axis=0), len(LABELS), axis=1), sigmoids)
    assert (two[1] >= two[0]).all()
    assert ((two > 0) & (two < 1)).all(), "nothing is impossible and nothing certain"


def test_the_rules_count_as_far_as_it_is_a_leak() -> None:
    shares = np.array([[0.2, 0.0, 0.0, 0.0, 0.0, 0.5]])
    rules = np.array([[0.8, 0.2, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(mixed(shares, rules, 0.0), shares)
    np.testing.assert_allclose(mixed(shares, rules, 1.0), [[0.4, 0.1, 0.0, 0.0, 0.0, 0.5]])


def test_what_is_surely_none_is_no_leak_and_what_may_be_none_is_for_review() -> None:
    sure, = judged(row(rim_share=0.9))
    assert not sure.is_leak
    doubt, = judged(row(rim_share=0.9), thresholds=Thresholds(dropped=0.99, doubted=0.2, confident=0.3))
    assert doubt.is_leak
    assert any("may be no leak" in reason and "0.97" in reason for reason in doubt.reasons)


def test_rules_and_classifier_that_disagree_ask_for_review_and_both_are_named() -> None:
    agreed, disagreed = judged(row(length_mm=30.0), row(TRACK, length_mm=30.0))
    assert agreed.site is VENOUS
    assert agreed.reasons == ()
    assert any(TRACK in reason and VENOUS in reason for reason in disagreed.reasons)


def test_a_site_that_is_not_sure_asks_for_review() -> None:
    (part,) = judged(row(length_mm=3.0))
    assert part.is_leak
    assert any("No site is sure" in reason for reason in part.reasons)


def test_measures_beyond_the_training_range_are_named() -> None:
    classifier = LeakClassifier(content())
    found = classifier.unusual(np.stack([row(), row(length_mm=51.0, thick_mm=-51.0)]))
    assert found == [(), ("length_mm", "thick_mm")]
    (part,) = judged(row(length_mm=51.0))
    assert any("length_mm" in reason for reason in part.reasons)


def test_an_unusual_combination_of_usual_measures_is_seen() -> None:
    every = np.full((1, N), 2.0)
    assert LeakClassifier(content()).unusual(every) == [("combination",)]
    assert LeakClassifier(content()).unusual(every * 0.1) == [()]


def test_each_part_is_judged_for_itself() -> None:
    parts = [row(length_mm=30.0), row(rim_share=0.9), row(TRACK)]
    assert judged(*parts) == [judged(part)[0] for part in parts]
    assert LeakClassifier(content()).judge(np.zeros((0, N))) == []


def test_a_scan_is_as_probable_as_one_part_at_least() -> None:
    verdicts = judged(row(length_mm=30.0), row(length_mm=30.0))
    sites, leak = case_probabilities(verdicts)
    single = verdicts[0].probabilities[VENOUS]
    assert sites[VENOUS] == pytest.approx(1 - (1 - single) ** 2)
    assert leak == pytest.approx(1 - (1 - verdicts[0].leak_probability) ** 2)
    assert case_probabilities([]) == (dict.fromkeys(Site, 0.0), 0.0)
