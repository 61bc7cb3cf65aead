"""A table of made-up leak parts whose labels follow from their measures, for tests of the classifier."""

from __future__ import annotations

import numpy as np

from sacroleak.core.structures import Site
from sacroleak.models.classifier import INPUTS, LABELS, NOT_A_LEAK
from sacroleak.training.fit_classifier import FitConfig, ForestConfig
from sacroleak.training.part_table import CaseFacts, PartTable

TELLING = {"sacral_venous_plexus": "length_mm", "puncture_path": "track_score",
           "anterior_epidural_space": "ventral_canal_share", "anterior_sacral_space": "presacral_share",
           "other": "sacroiliac_joint_share", NOT_A_LEAK: "rim_share"}
"""The measure that a part of each label is large in."""
SMALL = FitConfig(
    forests=(ForestConfig(kind="extra_trees", trees=15, leaf=2, share=0.5),), rule_weights=(0.0, 0.5), folds=3, seed=1,
    never_falls={"sacral_venous_plexus": ("length_mm", "rule_sacral_venous_plexus")}, rounds=2, most_lost=0.02,
    doubted=0.3, least_sure=0.1)


def made_up(seed: int, cases: int, *, noise: float = 0.35, rules_right: float = 0.8) -> PartTable:
    """`cases` scans of half as many patients with one to three parts each; rules name the true site that often."""
    rng = np.random.default_rng(seed)
    facts, matrix, truth, case_of, numbers = [], [], [], [], []
    for case in range(cases):
        own = rng.choice(len(LABELS), size=int(rng.integers(1, 4)))
        for number, label in enumerate(own, start=1):
            row = rng.normal(0.0, noise, len(INPUTS))
            row[INPUTS.index(TELLING[LABELS[label]])] += 1.0
            scores = np.full(len(Site), 0.05)
            right = label < len(Site) and rng.random() < rules_right
            scores[label if right else int(rng.integers(len(Site)))] = 0.8
            row[-len(Site):] = scores
            matrix.append(row)
            truth.append(np.eye(len(LABELS))[label])
            case_of.append(case)
            numbers.append(number)
        sites = tuple(sorted({Site(LABELS[label]) for label in own if LABELS[label] != NOT_A_LEAK}))
        facts.append(CaseFacts(name=f"case-{case}", patient=f"patient-{case // 2}", sites=sites))
    return PartTable(cases=tuple(facts), matrix=np.array(matrix), truth=np.array(truth), case_of=np.array(case_of),
                     number=np.array(numbers))
