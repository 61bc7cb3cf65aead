"""Growing the leak classifier: forests, their judgement by patients they did not see, calibration, limits, file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sklearn.covariance import LedoitWolf
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from sacroleak.core.errors import InputError
from sacroleak.models.classifier import (
    INPUTS,
    LABELS,
    WIDER,
    ClassifierFile,
    Forest,
    Matrix,
    Sigmoid,
    Spread,
    Thresholds,
    Trees,
    calibrated,
    compressed,
    log_odds,
    mixed,
    rule_scores,
)
from sacroleak.training.part_table import PartTable
from sacroleak.training.weak_labels import with_guesses

SEED_LIMIT = 2**31 - 1
RULE_OF_THREE = 3.0
"""Upper end of the 95 % interval of a share of which none was seen, times n (Hanley and Lippman-Hand, JAMA 1983)."""
LIKELY = 0.5
CONFIDENT = (0.3, 0.9)
"""A site below the first is never sure enough, one above the second always."""
ORDINARY = 0.995
"""Share of training parts within the limit beyond which a combination of measures is called unusual."""

Weights = npt.NDArray[np.float64]
Folds = npt.NDArray[np.int64]


class ForestConfig(BaseModel):
    """One way of growing the trees. `leaf`: least parts in a leaf. `share`: of the inputs tried at each branch."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["extra_trees", "random_forest"]
    trees: int = Field(ge=1)
    leaf: int = Field(ge=1)
    share: float = Field(gt=0, le=1)


class FitConfig(BaseModel):
    """How the classifier is grown. The first of equally good `forests` and `rule_weights` is taken. `never_falls`:
    label -> inputs with which its probability may only rise. `rounds`: how often labels are guessed anew for scans with
    a list of sites only. `most_lost`: share of leak parts that may be called no leak. `doubted`: a part is for review
    from this probability of being none. `least_sure`: share of scans with parts that go to review for being least sure.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    forests: Annotated[tuple[ForestConfig, ...], Field(min_length=1)]
    rule_weights: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1)]
    folds: int = Field(ge=2)
    seed: int
    never_falls: dict[str, tuple[str, ...]]
    rounds: int = Field(ge=1)
    most_lost: float = Field(ge=0, le=0.5)
    doubted: float = Field(gt=0, le=0.5)
    least_sure: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _known(self) -> FitConfig:
        inputs = {name for names in self.never_falls.values() for name in names}
        unknown = (set(self.never_falls) - set(LABELS)) | (inputs - set(INPUTS))
        if unknown:
            raise ValueError(f"never_falls: unknown {', '.join(sorted(unknown))}")
        return self


def folds_of(patients: Sequence[str], config: FitConfig) -> Folds:
    """Fold of each part; all parts of a patient are in one. Raises InputError with fewer patients than folds."""
    if len(set(patients)) < config.folds:
        raise InputError(f"{len(set(patients))} patients with leak parts, wanted at least {config.folds}")
    fold = np.zeros(len(patients), dtype=np.int64)
    splitter = GroupKFold(n_splits=config.folds, shuffle=True, random_state=config.seed)
    for number, (_, held) in enumerate(splitter.split(np.zeros(len(patients)), groups=list(patients))):
        fold[held] = number
    return fold


def grow(matrix: Matrix, truth: Matrix, forest: ForestConfig, config: FitConfig) -> dict[str, Trees]:
    """One forest a label. `truth` (n, 6) may lie between 0 and 1: how sure it is that the label belongs to the part."""
    return {label: _trees(matrix, truth[:, n], forest, (config.never_falls.get(label, ()), config.seed + n))
            for n, label in enumerate(LABELS)}


def _trees(matrix: Matrix, truth: Weights, forest: ForestConfig, how: tuple[tuple[str, ...], int]) -> Trees:
    rising, seed = how
    sure_of = np.concatenate([truth, 1.0 - truth])
    used = sure_of > 0
    answers = np.repeat([1, 0], len(truth))[used]
    if len(set(answers.tolist())) < 2:
        return Trees(roots=[0], feature=[-1], threshold=[0.0], left=[-1], right=[-1], value=[float(truth.mean())])
    kind = ExtraTreesClassifier if forest.kind == "extra_trees" else RandomForestClassifier
    model = kind(n_estimators=forest.trees, min_samples_leaf=forest.leaf, max_features=forest.share,
                 monotonic_cst=[int(name in rising) for name in INPUTS], random_state=seed % SEED_LIMIT, n_jobs=1)
    # A part of which one is half sure counts half as one that has the label, and half as one that has it not.
    model.fit(np.concatenate([matrix, matrix])[used], answers, sample_weight=sure_of[used])
    return _as_lists(model)


def _as_lists(model: Any) -> Trees:
    """A scikit-learn forest as numbers; its nodes are in depth-first order, so branches lead on."""
    columns: dict[str, list[Any]] = {name: [] for name in ("roots", "feature", "threshold", "left", "right", "value")}
    positive = list(model.classes_).index(1)
    for estimator in model.estimators_:
        tree, start = estimator.tree_, len(columns["feature"])
        leaf = tree.children_left < 0
        shares = tree.value[:, 0, :] / tree.value[:, 0, :].sum(axis=1, keepdims=True)
        columns["roots"].append(start)
        columns["feature"] += np.where(leaf, -1, tree.feature).tolist()
        columns["threshold"] += np.where(leaf, 0.0, tree.threshold).tolist()
        columns["left"] += np.where(leaf, -1, tree.children_left + start).tolist()
        columns["right"] += np.where(leaf, -1, tree.children_right + start).tolist()
        columns["value"] += np.round(np.clip(shares[:, positive], 0.0, 1.0), 5).tolist()
    return Trees(**columns)


def shares_of(trees: Mapping[str, Trees], matrix: Matrix) -> Matrix:
    """What forests say of each part, not calibrated; (n, 6)."""
    return np.stack([Forest(trees[label]).shares(matrix) for label in LABELS], axis=1)


def out_of_fold(matrix: Matrix, truth: Matrix, fold: Folds, forest: ForestConfig, config: FitConfig) -> Matrix:
    """What forests say of each part that grew without its patient; (n, 6), not calibrated."""
    shares = np.zeros_like(truth)
    for number in np.unique(fold):
        held = fold == number
        shares[held] = shares_of(grow(matrix[~held], truth[~held], forest, config), matrix[held])
    return shares


def fit_sigmoids(shares: Matrix, truth: Matrix) -> dict[str, Sigmoid]:
    """Calibration of each label. With few parts, or where the trees say nothing, close to the label's own share."""
    return {label: _sigmoid(shares[:, n], truth[:, n]) for n, label in enumerate(LABELS)}


def _sigmoid(share: Weights, truth: Weights) -> Sigmoid:
    sure_of = np.concatenate([truth, 1.0 - truth])
    answers = np.repeat([1, 0], len(truth))
    if truth.sum() < 1.0 or (1.0 - truth).sum() < 1.0:
        # One part more on each side, as Platt has it, so that nothing is called impossible.
        odds = (truth.sum() + 1.0) / ((1.0 - truth).sum() + 1.0)
        return Sigmoid(slope=0.0, shift=float(np.log(odds)))
    column = np.tile(log_odds(share[:, None]), (2, 1))
    model = LogisticRegression(C=1.0).fit(column, answers, sample_weight=sure_of)
    slope = float(model.coef_[0, 0])
    if slope < 0:
        odds = (truth.sum() + 1.0) / ((1.0 - truth).sum() + 1.0)
        return Sigmoid(slope=0.0, shift=float(np.log(odds)))
    return Sigmoid(slope=slope, shift=float(model.intercept_[0]))


def cross_calibrated(shares: Matrix, truth: Matrix, fold: Folds) -> Matrix:
    """Each fold calibrated by the others, so that no part has had a say in its own calibration; (n, 6)."""
    found = np.zeros_like(shares)
    for number in np.unique(fold):
        held = fold == number
        found[held] = calibrated(shares[held], fit_sigmoids(shares[~held], truth[~held]))
    return found


def brier(probabilities: Matrix, truth: Matrix) -> float:
    """Mean squared distance of probability and truth over parts and labels."""
    return float(((probabilities - truth) ** 2).mean())


def choose_forest(matrix: Matrix, truth: Matrix, fold: Folds,
                  config: FitConfig) -> tuple[ForestConfig, Matrix, list[float]]:
    """The forest with the least Brier score on held-out patients, what it says out of fold, and every one's score."""
    said = [out_of_fold(matrix, truth, fold, forest, config) for forest in config.forests]
    scores = [brier(cross_calibrated(shares, truth, fold), truth) for shares in said]
    best = int(np.argmin(scores))
    return config.forests[best], said[best], scores


def choose_weight(shares: Matrix, matrix: Matrix, truth: Matrix, fold: Folds,
                  config: FitConfig) -> tuple[float, list[float]]:
    """The weight of the rules with the least Brier score on held-out patients, and every one's score."""
    rules = rule_scores(matrix)
    scores = [brier(cross_calibrated(mixed(shares, rules, weight), truth, fold), truth)
              for weight in config.rule_weights]
    return config.rule_weights[int(np.argmin(scores))], scores


def spread_of(matrix: Matrix) -> Spread:
    """Middle and covariance of ordinary parts (Ledoit and Wolf's, which stands few parts)."""
    values = compressed(matrix)
    centre, scale = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-6)
    apart = (values - centre) / scale
    precision = LedoitWolf().fit(apart).precision_
    distance = np.sqrt(np.einsum("ij,jk,ik->i", apart, precision, apart))
    return Spread(centre=centre.tolist(), scale=scale.tolist(), precision=np.round(precision, 6).tolist(),
                  limit=max(float(np.quantile(distance, ORDINARY)) * (1 + WIDER), 1e-6))


def ranges_of(matrix: Matrix) -> tuple[list[float], list[float]]:
    """Lowest and highest ordinary value of each input: what training parts showed, and a little beyond."""
    low, high = matrix.min(axis=0), matrix.max(axis=0)
    # An input that never varied is not ordinary only where it differs by more than rounding.
    margin = np.maximum(WIDER * (high - low), 1e-6)
    return (low - margin).tolist(), (high + margin).tolist()


def thresholds_of(probabilities: Matrix, truth: Matrix, case_of: Folds, config: FitConfig) -> Thresholds:
    """Limits from what was said of parts of held-out patients.

    `dropped` is so high that no more than `most_lost` of the true leaks' parts are called none, and at least one half.
    Where there are too few of them to show that, nothing is: of n parts of which none was lost, up to RULE_OF_THREE / n
    may be in truth. `confident`: `least_sure` of the scans hold a part below it.
    """
    none, best = probabilities[:, -1], probabilities[:, :-1].max(axis=1)
    leaks = np.sort(none[truth[:, -1] < LIKELY])
    dropped = 1.0
    if leaks.size * config.most_lost >= RULE_OF_THREE:
        kept = int(np.ceil((1.0 - config.most_lost) * leaks.size))
        dropped = max(LIKELY, float(leaks[kept - 1]) + 1e-3)
    sure = np.where(none >= dropped, 1.0, best)
    least = [float(sure[case_of == case].min()) for case in np.unique(case_of)]
    confident = float(np.clip(np.quantile(least, config.least_sure), *CONFIDENT)) if least else CONFIDENT[0]
    return Thresholds(dropped=min(dropped, 1.0), doubted=config.doubted, confident=confident)


def fit(table: PartTable, config: FitConfig, about: Mapping[str, str | int | float]) -> ClassifierFile:
    """The classifier that a table's parts teach. `about`: what the file shall say of where they come from.

    Forest, rule weight, calibration and limits are chosen by patients held out within the table. Raises InputError if
    there are too few of them.
    """
    matrix, patients = table.matrix, table.patients.tolist()
    fold = folds_of(patients, config)
    first = config.forests[0]
    truth = with_guesses(table, lambda soft: out_of_fold(matrix, soft, fold, first, config), rounds=config.rounds)
    forest, shares, scores = choose_forest(matrix, truth, fold, config)
    weight, by_weight = choose_weight(shares, matrix, truth, fold, config)
    together = mixed(shares, rule_scores(matrix), weight)
    thresholds = thresholds_of(cross_calibrated(together, truth, fold), truth, table.case_of, config)
    low, high = ranges_of(matrix)
    trained = dict(about) | {"parts": len(matrix), "cases": len(table.cases), "patients": len(set(patients)),
                             "kind": forest.kind, "leaf": forest.leaf, "share": forest.share,
                             "brier": round(min(scores), 5), "brier_with_rules": round(min(by_weight), 5)}
    return ClassifierFile(
        inputs=list(INPUTS), trees=grow(matrix, truth, forest, config), rule_weight=weight,
        calibration=fit_sigmoids(together, truth), alone=fit_sigmoids(shares, truth), low=low, high=high,
        spread=spread_of(matrix), thresholds=thresholds, trained=trained)
