"""What the released classifier says of leak parts: calibrated probabilities of each site and of "not a leak".

The file is JSON: decision trees as lists of numbers, evaluated here. Reading it runs no code of the file, and scoring
needs neither scikit-learn, which grew the trees, nor its version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sacroleak.core.errors import ModelError
from sacroleak.core.structures import Site
from sacroleak.models.bundle import Bundle
from sacroleak.models.feature_vector import FEATURE_NAMES

NOT_A_LEAK = "not_a_leak"
LABELS: tuple[str, ...] = (*(site.value for site in Site), NOT_A_LEAK)
"""Columns of every probability matrix. A part may be of several sites at once, so a row need not sum to one."""

RULE_INPUTS: tuple[str, ...] = tuple(f"rule_{site.value}" for site in Site)
INPUTS: tuple[str, ...] = (*FEATURE_NAMES, *RULE_INPUTS)
"""Columns of every input matrix: the measures of a part, then the score the rules give each site."""

SMALLEST_SHARE = 0.004
"""Trees that all agree say 0 or 1; so far from both is the most that some hundreds of parts can show."""
WIDER = 0.25
"""A measure is out of range if it lies so much of the training parts' range beyond it."""

Matrix = npt.NDArray[np.float64]
Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Trees(_Strict):
    """A forest for one label. Node n asks whether input `feature[n]` is at most `threshold[n]` and goes to `left[n]`,
    else to `right[n]`, both after n; a leaf has feature -1 and says `value[n]`. The answer is the mean of all trees.
    """

    roots: list[int] = Field(min_length=1)
    feature: list[int]
    threshold: list[float]
    left: list[int]
    right: list[int]
    value: list[Share]

    @model_validator(mode="after")
    def _sound(self) -> Trees:
        n = len(self.feature)
        if any(len(column) != n for column in (self.threshold, self.left, self.right, self.value)):
            raise ValueError("columns of different length")
        inner = [i for i, f in enumerate(self.feature) if f >= 0]
        if any(not i < child < n for i in inner for child in (self.left[i], self.right[i])):
            raise ValueError("a branch that does not lead on")
        if any(not 0 <= root < n for root in self.roots) or any(f < -1 for f in self.feature):
            raise ValueError("a node that is not there")
        return self


class Sigmoid(_Strict):
    """Calibration of a share by its log odds: 1 / (1 + exp(-(slope * logit + shift))); never turns the order round."""

    slope: float = Field(ge=0)
    shift: float


class Spread(_Strict):
    """How training parts are spread: standardised inputs of ordinary parts lie within `limit` of the middle, as the
    inverse covariance `precision` measures it.
    """

    centre: list[float]
    scale: list[Annotated[float, Field(gt=0)]]
    precision: list[list[float]]
    limit: float = Field(gt=0)


class Thresholds(_Strict):
    """`dropped`: called no leak from this probability of "not a leak"; `doubted`: for review from this one;
    `confident`: for review if no site is so probable.
    """

    dropped: Share
    doubted: Share
    confident: Share

    @model_validator(mode="after")
    def _ordered(self) -> Thresholds:
        if self.doubted > self.dropped:
            raise ValueError(f"doubted {self.doubted} must not lie above dropped {self.dropped}")
        return self


class ClassifierFile(_Strict):
    """`classifier.json`. `calibration` holds for trees and rules mixed by `rule_weight`, `alone` for the trees."""

    format: Literal[1] = 1
    inputs: list[str]
    trees: dict[str, Trees]
    rule_weight: Share
    calibration: dict[str, Sigmoid]
    alone: dict[str, Sigmoid]
    low: list[float]
    high: list[float]
    spread: Spread
    thresholds: Thresholds
    trained: dict[str, str | int | float]

    @model_validator(mode="after")
    def _complete(self) -> ClassifierFile:
        for name, given in (("trees", self.trees), ("calibration", self.calibration), ("alone", self.alone)):
            if set(given) != set(LABELS):
                raise ValueError(f"{name}: wanted {', '.join(LABELS)}")
        n = len(self.inputs)
        sides = (self.low, self.high, self.spread.centre, self.spread.scale, self.spread.precision)
        if any(len(side) != n for side in sides) or any(len(row) != n for row in self.spread.precision):
            raise ValueError(f"ranges or spread are not of {n} inputs")
        if any(f >= n for trees in self.trees.values() for f in trees.feature):
            raise ValueError("a tree asks for an input that is not there")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Classifier and rules together on one part. `probabilities` are calibrated; `leak_probability` is that of being a
    leak at all; a part with `is_leak` False is none. `reasons`: why a person should look.
    """

    site: Site
    probabilities: Mapping[Site, float]
    leak_probability: float
    is_leak: bool
    reasons: tuple[str, ...]


class LeakClassifier:
    """A classifier as released. Its answer to one part does not depend on the other parts."""

    def __init__(self, content: ClassifierFile) -> None:
        """Raises ModelError if it was trained on other measures than this version takes."""
        if tuple(content.inputs) != INPUTS:
            other = set(content.inputs) ^ set(INPUTS)
            what = ", ".join(sorted(other)[:5]) or "in another order"
            raise ModelError(f"classifier: was trained on other measures: {what}")
        self.content = content
        self._forests = [Forest(content.trees[label]) for label in LABELS]
        self._low, self._high = np.array(content.low), np.array(content.high)
        self._precision = np.array(content.spread.precision)

    @classmethod
    def load(cls, path: Path) -> LeakClassifier:
        """Read `classifier.json`. Raises ModelError if it is none, or not for this version's measures."""
        try:
            return cls(ClassifierFile.model_validate_json(path.read_bytes()))
        except OSError as error:
            raise ModelError(f"{path.name}: cannot be read ({error.strerror})") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "file"
            raise ModelError(f"{path.name}: {where}: {first['msg']}") from error

    def shares(self, matrix: Matrix) -> Matrix:
        """What the trees say of each row of (n, inputs), not calibrated; (n, 6), columns LABELS."""
        return np.stack([forest.shares(matrix) for forest in self._forests], axis=1)

    def probabilities(self, matrix: Matrix) -> Matrix:
        """The trees alone, calibrated; (n, 6), columns LABELS."""
        return calibrated(self.shares(matrix), self.content.alone)

    def with_rules(self, matrix: Matrix) -> Matrix:
        """Trees and rules together, calibrated; (n, 6), columns LABELS. The rules' scores are columns of `matrix`."""
        return calibrated(mixed(self.shares(matrix), rule_scores(matrix), self.content.rule_weight),
                          self.content.calibration)

    def unusual(self, matrix: Matrix) -> list[tuple[str, ...]]:
        """For each row the names of measures outside what training parts showed; a combination of measures that is
        unusual though each one is not is called "combination".
        """
        out = (matrix < self._low) | (matrix > self._high)
        spread = self.content.spread
        apart = (compressed(matrix) - np.array(spread.centre)) / np.array(spread.scale)
        far = np.einsum("ij,jk,ik->i", apart, self._precision, apart) > spread.limit**2
        names = [tuple(name for name, is_out in zip(INPUTS, row, strict=True) if is_out) for row in out]
        return [found or (("combination",) if is_far else ()) for found, is_far in zip(names, far, strict=True)]

    def judge(self, matrix: Matrix) -> list[Verdict]:
        """The common verdict on each row, with the reasons to have a person look at it."""
        if len(matrix) == 0:
            return []
        return [_verdict(both, alone, rules, strange, self.content.thresholds) for both, alone, rules, strange in
                zip(self.with_rules(matrix), self.probabilities(matrix), rule_scores(matrix), self.unusual(matrix),
                    strict=True)]


def load_classifier(bundle: Bundle) -> LeakClassifier | None:
    """The classifier of a release; None if it goes by the rules alone. Raises ModelError."""
    return None if bundle.classifier_path is None else LeakClassifier.load(bundle.classifier_path)


class Forest:
    """One label's trees as arrays."""

    def __init__(self, trees: Trees) -> None:
        self._roots = np.array(trees.roots, dtype=np.int64)
        self._feature = np.array(trees.feature, dtype=np.int64)
        self._threshold = np.array(trees.threshold, dtype=np.float64)
        self._left, self._right = np.array(trees.left, dtype=np.int64), np.array(trees.right, dtype=np.int64)
        self._value = np.array(trees.value, dtype=np.float64)

    def shares(self, matrix: Matrix) -> npt.NDArray[np.float64]:
        """What the trees say of each row of (n, inputs), 0 to 1; (n,)."""
        # scikit-learn grows its trees on float32 and compares them with float64 thresholds; so do we.
        seen = matrix.astype(np.float32).astype(np.float64)
        node = np.broadcast_to(self._roots, (len(seen), len(self._roots))).copy()
        rows = np.arange(len(seen))[:, None]
        while True:
            feature = self._feature[node]
            inner = feature >= 0
            if not inner.any():
                return np.asarray(self._value[node].mean(axis=1))
            small = seen[rows, np.maximum(feature, 0)] <= self._threshold[node]
            node = np.where(inner, np.where(small, self._left[node], self._right[node]), node)


def input_row(vector: npt.NDArray[np.float64], scores: Mapping[Site, float]) -> npt.NDArray[np.float64]:
    """One row of an input matrix from a part's feature vector and the scores the rules give it."""
    return np.concatenate([vector, [scores[site] for site in Site]])


def rule_scores(matrix: Matrix) -> Matrix:
    """The rules' columns of an input matrix; (n, 5) in the order of Site."""
    return matrix[:, len(INPUTS) - len(RULE_INPUTS):]


def mixed(shares: Matrix, rules: Matrix, rule_weight: float) -> Matrix:
    """Trees (n, 6) and rules (n, 5) as one weighted mean; (n, 6).

    The rules take every part for a leak, so their scores count as far as the trees take it for one, and the trees
    alone say whether it is.
    """
    found = shares.copy()
    leak = 1.0 - shares[:, -1:]
    found[:, :-1] = (1.0 - rule_weight) * shares[:, :-1] + rule_weight * rules * leak
    return found


def calibrated(shares: Matrix, sigmoids: Mapping[str, Sigmoid]) -> Matrix:
    """Each column of (n, 6) shares through its label's calibration."""
    slope = np.array([sigmoids[label].slope for label in LABELS])
    shift = np.array([sigmoids[label].shift for label in LABELS])
    return np.asarray(1.0 / (1.0 + np.exp(-(slope * log_odds(shares) + shift))))


def log_odds(shares: Matrix) -> Matrix:
    """Logarithm of share over rest, of shares kept off 0 and 1."""
    kept = np.clip(shares, SMALLEST_SHARE, 1.0 - SMALLEST_SHARE)
    return np.asarray(np.log(kept / (1.0 - kept)))


def compressed(matrix: Matrix) -> Matrix:
    """Inputs with their long tails drawn in, sign kept, so that their covariance says something."""
    return np.asarray(np.sign(matrix) * np.log1p(np.abs(matrix)))


def case_probabilities(verdicts: Sequence[Verdict]) -> tuple[dict[Site, float], float]:
    """Of a whole scan: each site's probability, and that of any leak; parts are taken as independent."""
    sites = {site: 1.0 - float(np.prod([1.0 - v.probabilities[site] for v in verdicts])) for site in Site}
    return sites, 1.0 - float(np.prod([1.0 - v.leak_probability for v in verdicts]))


def _verdict(both: npt.NDArray[np.float64], alone: npt.NDArray[np.float64], rules: npt.NDArray[np.float64],
             strange: tuple[str, ...], limits: Thresholds) -> Verdict:
    sites = list(Site)
    chosen, by_trees, by_rules = (sites[int(np.argmax(row[: len(sites)]))] for row in (both, alone, rules))
    best, no_leak = float(both[: len(sites)].max()), float(both[-1])
    dropped = no_leak >= limits.dropped
    reasons = []
    if by_trees is not by_rules:
        reasons.append(f"The rules say {by_rules}, the classifier {by_trees}.")
    if limits.doubted <= no_leak and not dropped:
        reasons.append(f"It may be no leak: the probability of that is {no_leak:.2f}.")
    if best < limits.confident and not dropped:
        reasons.append(f"No site is sure: {chosen} is the most probable one with {best:.2f}.")
    also = [site for site, p in zip(sites, both, strict=False) if p >= 0.5 and site is not chosen]
    if also:
        reasons.append(f"It may belong to {' and '.join(also)} too.")
    if strange:
        named = "a combination of measures" if strange == ("combination",) else ", ".join(strange[:3])
        reasons.append(f"Unlike every part the classifier learned from: {named}.")
    return Verdict(site=chosen, probabilities={site: float(p) for site, p in zip(sites, both, strict=False)},
                   leak_probability=1.0 - no_leak, is_leak=not dropped, reasons=tuple(reasons))
