"""The classifier's growth: it learns, keeps its laws, is judged by patients it did not see, and stands lists."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier

from sacroleak.core.errors import InputError
from sacroleak.core.structures import Site
from sacroleak.models.classifier import INPUTS, LABELS, LeakClassifier
from sacroleak.training.fit_classifier import (
    CONFIDENT,
    FitConfig,
    cross_calibrated,
    fit,
    fit_sigmoids,
    folds_of,
    grow,
    shares_of,
    thresholds_of,
)
from sacroleak.training.measures import calibration_error
from sacroleak.training.part_table import PartTable
from sacroleak.training.weak_labels import MISSED, given_list
from tests.training.leak_parts import SMALL, made_up

VENOUS = LABELS.index(Site.SACRAL_VENOUS_PLEXUS)


@pytest.fixture(scope="module")
def table() -> PartTable:
    return made_up(0, 60)


@pytest.fixture(scope="module")
def fresh() -> PartTable:
    """Other patients."""
    return made_up(9, 100)


@pytest.fixture(scope="module")
def classifier(table: PartTable) -> LeakClassifier:
    return LeakClassifier(fit(table, SMALL, {"bundle": "made up"}))


def right(classifier: LeakClassifier, table: PartTable) -> float:
    return float((classifier.with_rules(table.matrix).argmax(axis=1) == table.truth.argmax(axis=1)).mean())


def test_trees_say_what_scikit_learn_says(table: PartTable) -> None:
    forest = SMALL.forests[0]
    trees = grow(table.matrix, table.truth, forest, SMALL.model_copy(update={"never_falls": {}}))
    model = ExtraTreesClassifier(n_estimators=forest.trees, min_samples_leaf=forest.leaf, max_features=forest.share,
                                 monotonic_cst=[0] * len(INPUTS), random_state=SMALL.seed + VENOUS)
    truth = table.truth[:, VENOUS]
    weight = np.concatenate([truth, 1 - truth])
    rows = np.concatenate([table.matrix, table.matrix])[weight > 0]
    model.fit(rows, np.repeat([1, 0], len(truth))[weight > 0], sample_weight=weight[weight > 0])
    np.testing.assert_allclose(shares_of(trees, table.matrix)[:, VENOUS], model.predict_proba(table.matrix)[:, 1],
                               atol=1e-5)


def test_it_knows_other_patients_better_than_the_rules_do(classifier: LeakClassifier, fresh: PartTable) -> None:
    by_rules = float((fresh.matrix[:, -len(Site):].argmax(axis=1) == fresh.truth.argmax(axis=1)).mean())
    assert right(classifier, fresh) > max(0.7, by_rules)


def test_probabilities_are_about_as_often_true_as_they_say(classifier: LeakClassifier, fresh: PartTable) -> None:
    said = classifier.with_rules(fresh.matrix).ravel()
    error = calibration_error((fresh.truth.ravel() > 0).tolist(), said.tolist())
    assert error is not None
    assert error < 0.06


def test_the_same_parts_give_the_same_file(table: PartTable, classifier: LeakClassifier) -> None:
    assert fit(table, SMALL, {"bundle": "made up"}) == classifier.content


def test_lengthening_a_tube_never_makes_it_less_venous(classifier: LeakClassifier, fresh: PartTable) -> None:
    grown = fresh.matrix.copy()
    grown[:, INPUTS.index("length_mm")] += np.linspace(0.0, 3.0, len(grown))
    grown[:, INPUTS.index("rule_sacral_venous_plexus")] += 0.1
    for ask in (classifier.with_rules, classifier.probabilities):
        before, after = ask(fresh.matrix)[:, VENOUS], ask(grown)[:, VENOUS]
        assert (after >= before - 1e-12).all()
        assert (after > before).any(), "or the law would hold for nothing"


def test_no_patient_is_in_two_folds(table: PartTable) -> None:
    patients = table.patients
    fold = folds_of(patients.tolist(), SMALL)
    assert set(fold.tolist()) == {0, 1, 2}
    assert all(len(set(fold[patients == p].tolist())) == 1 for p in set(patients.tolist()))
    with pytest.raises(InputError, match="2 patients with leak parts, wanted at least 3"):
        folds_of(["a", "b", "a"], SMALL)


def test_no_part_has_a_say_in_its_own_calibration() -> None:
    rng = np.random.default_rng(0)
    shares, truth, fold = rng.random((60, 6)), (rng.random((60, 6)) < 0.4).astype(float), np.arange(60) % 3
    before = cross_calibrated(shares, truth, fold)
    truth[fold == 1] = 1 - truth[fold == 1]
    after = cross_calibrated(shares, truth, fold)
    np.testing.assert_array_equal(before[fold == 1], after[fold == 1])
    assert (before[fold == 0] != after[fold == 0]).any()


def test_a_label_nobody_has_is_called_improbable_and_not_impossible(table: PartTable) -> None:
    truth = table.truth.copy()
    truth[:, VENOUS] = 0.0
    sigmoid = fit_sigmoids(truth, truth)[LABELS[VENOUS]]
    assert sigmoid.slope == 0.0
    assert 0.0 < 1 / (1 + np.exp(-sigmoid.shift)) < 0.05


def test_no_more_than_the_given_share_of_leaks_is_called_none() -> None:
    rng = np.random.default_rng(1)
    said, truth = rng.random((900, 6)), np.zeros((900, 6))
    truth[:, 5] = rng.random(900) < 0.3
    said[:, 5] = 0.6 * said[:, 5] + 0.3 * truth[:, 5]
    found = thresholds_of(said, truth, np.arange(900), SMALL)
    assert found.dropped < 0.9
    lost = (said[:, 5] >= found.dropped) & (truth[:, 5] == 0)
    assert lost.sum() <= SMALL.most_lost * (truth[:, 5] == 0).sum()
    assert CONFIDENT[0] <= found.confident <= CONFIDENT[1]


def test_too_few_leaks_to_show_that_hardly_any_is_lost_are_all_kept() -> None:
    said, truth = np.full((20, 6), 0.1), np.zeros((20, 6))
    said[10:, 5], truth[10:, 5] = 0.99, 1.0
    assert thresholds_of(said, truth, np.arange(20), SMALL).dropped == 1.0


def test_an_unknown_input_or_label_is_refused() -> None:
    with pytest.raises(ValueError, match="something"):
        FitConfig(**(SMALL.model_dump() | {"never_falls": {"other": ("something",)}}))


def test_a_list_rules_out_what_it_does_not_name_and_finds_a_part_for_what_it_names() -> None:
    said = np.array([[0.3, 0.6, 0.0, 0.0, 0.0, 0.1], [0.1, 0.2, 0.0, 0.0, 0.0, 0.7]])
    known = given_list(said, (Site.SACRAL_VENOUS_PLEXUS,))
    assert (known[:, 1:5] == 0).all()
    assert known[0, 0] == pytest.approx(0.3 / (1 - (1 - MISSED) * 0.7 * 0.9))
    assert known[0, 0] > known[1, 0] > said[1, 0]
    np.testing.assert_allclose(known[:, 5], 1 - known[:, 0])
    assert (given_list(said, ())[:, 5] == 1).all()


def test_half_the_masks_can_be_lists_at_little_loss(fresh: PartTable, classifier: LeakClassifier,
                                                    table: PartTable) -> None:
    half = table.with_lists_only(range(0, 60, 2))
    assert np.isnan(half.truth).any()
    assert not np.isnan(table.truth).any()
    assert right(LeakClassifier(fit(half, SMALL, {})), fresh) > right(classifier, fresh) - 0.06


def test_lists_alone_still_teach_something(fresh: PartTable, table: PartTable) -> None:
    only = LeakClassifier(fit(table.with_lists_only(range(60)), SMALL, {}))
    by_rules = float((fresh.matrix[:, -len(Site):].argmax(axis=1) == fresh.truth.argmax(axis=1)).mean())
    assert right(only, fresh) > by_rules
