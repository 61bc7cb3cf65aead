"""Samples: number n is always the same, and shows what it says."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from sacroleak.models.architecture import NetworkSpec
from sacroleak.models.intensity import CHANNELS
from sacroleak.training.sampling import (
    Sample,
    SyntheticPatches,
    draw_erased,
    random_case,
    random_scene,
)
from sacroleak.training.simulation.anatomy import Anatomy

SPEC = NetworkSpec(name="fine", spacing_mm=6.0, patch=(32, 24, 24), filters=(2, 4))


def test_sample_n_depends_on_the_seed_and_n_alone(anatomies: Path) -> None:
    files = sorted(anatomies.glob("*.npz"))
    first = list(islice(SyntheticPatches(files, SPEC, seed=4, start=0), 3))
    later = list(islice(SyntheticPatches(files, SPEC, seed=4, start=2), 1))
    other = list(islice(SyntheticPatches(files, SPEC, seed=5, start=0), 1))
    for a, b in zip(first[2], later[0], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first[0][0], other[0][0])
    assert not torch.equal(first[0][0], first[1][0])


def test_a_sample_holds_channels_anatomy_and_dense_labels(anatomies: Path) -> None:
    files = sorted(anatomies.glob("*.npz"))
    channels, anatomy, dense = next(iter(SyntheticPatches(files, SPEC, seed=4, start=0)))
    assert channels.shape == (CHANNELS, *SPEC.patch)
    assert channels.dtype == torch.bfloat16
    assert channels.abs().max() <= 1
    assert anatomy.shape == SPEC.patch
    assert set(anatomy.unique().tolist()) <= set(range(6))
    assert dense.shape == (2, *SPEC.patch)
    assert not (dense[0] & dense[1]).any()


def test_a_training_case_lies_on_the_networks_grid_and_shows_the_sacrum(pelvis: Anatomy) -> None:
    shown = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        case = random_case(rng, random_scene(rng, pelvis, SPEC))
        assert case.ct.geometry.shape == SPEC.patch
        assert case.ct.geometry.spacing_mm == pytest.approx(6.0)
        shown += bool((case.anatomy.labels == 1).any())
    assert shown >= 3


def test_each_case_is_shown_as_it_is_and_with_its_cement_hidden(anatomies: Path) -> None:
    files = sorted(anatomies.glob("*.npz"))
    hidden = 0
    for (plain, anatomy, dense), (erased, same, still) in batched(islice(SyntheticPatches(files, SPEC, seed=4, start=0),
                                                                           12)):
        assert torch.equal(anatomy, same)
        assert torch.equal(dense, still), "the truth stays what it is"
        marked = (erased[0] == -1) & (erased[1] == 1)
        assert torch.equal(plain[:, ~marked], erased[:, ~marked])
        cement = dense[0] > 0
        hidden += bool(cement.any()) and float(marked[cement].float().mean()) > 0.95
    assert hidden >= 2


def test_the_network_for_what_lies_under_cement_is_shown_each_case_once_and_cement_in_most(anatomies: Path) -> None:
    """The same seed shows the other networks each case twice."""
    files = sorted(anatomies.glob("*.npz"))
    spec = NetworkSpec(name="under", spacing_mm=4.0, patch=(32, 32, 32), filters=(2, 4))
    samples = list(islice(SyntheticPatches(files, spec, seed=4, start=0), 8))
    assert not any(((channels[0] == -1) & (channels[1] == 1)).any() for channels, _, _ in samples)
    assert not any(torch.equal(a[2], b[2]) for a, b in pairwise(samples) if a[2][0].any())
    assert sum(bool(dense[0].any()) for _, _, dense in samples) >= 5
    assert not any((anatomy == 4).any() for _, anatomy, _ in samples), "both hips are one"


def batched(samples: Iterator[Sample]) -> list[tuple[Sample, Sample]]:
    every = list(samples)
    return list(zip(every[::2], every[1::2], strict=True))


def test_what_is_erased_covers_most_of_the_cement_and_at_times_something_else(pelvis: Anatomy) -> None:
    rng = np.random.default_rng(3)
    covered, stray = [], 0
    scene = random_scene(rng, pelvis, SPEC)
    for _ in range(12):
        case = random_case(rng, scene)
        erased, cement = draw_erased(rng, case), case.cement.labels.astype(bool)
        if cement.any():
            covered.append(float(erased[cement].mean()))
        stray += bool(erased.any() and not cement.any())
    assert len(covered) >= 4
    assert np.mean(covered) > 0.7
    assert stray + sum(share < 1 for share in covered) > 0


def test_what_is_hidden_lies_in_and_out_of_bone(pelvis: Anatomy) -> None:
    rng = np.random.default_rng(3)
    scene = random_scene(rng, pelvis, SPEC)
    outside = []
    for _ in range(12):
        case = random_case(rng, scene)
        erased = draw_erased(rng, case)
        if erased.any():
            outside.append(float((case.anatomy.labels[erased] == 0).mean()))
    assert len(outside) >= 8
    assert 0.1 < np.mean(outside) < 0.9
    assert min(outside) < 0.3, "at times hardly any"
