"""Metastases grow in the ala of their side, within the bone unless they erode it."""

from __future__ import annotations

import numpy as np
import pytest

from sacroleak.core.structures import Side
from sacroleak.training.simulation.lesion import ERODED_MM, SPARED_MM, Lesion, choose_in_ala, draw_lesion, midline_mm
from sacroleak.training.simulation.plan import Approach, Injection, LesionKind
from sacroleak.training.simulation.scene import Scene

SEEDS = range(6)


def lesion_of(scene: Scene, seed: int, *, kind: LesionKind | None = LesionKind.LYTIC, eroded: bool = False,
              side: Side = Side.LEFT) -> Lesion | None:
    asked = Injection(side=side, approach=Approach.TRANSILIAC, needles=1, volume_ml=3.0, lesion=kind, eroded=eroded,
                      lesion_radius_mm=11.0)
    return draw_lesion(np.random.default_rng(seed), scene, asked)


@pytest.mark.parametrize("seed", SEEDS)
def test_bone_is_left_over_a_lesion_that_has_not_eroded_it(scene: Scene, seed: int) -> None:
    lesion = lesion_of(scene, seed)
    assert lesion is not None
    assert not lesion.eroded
    assert scene.distance["sacrum"][lesion.distance < 0].max() < -SPARED_MM


def test_eroding_lesions_reach_the_former_contour_and_hardly_beyond(scene: Scene) -> None:
    eroded = 0
    for seed in SEEDS:
        lesion = lesion_of(scene, seed, eroded=True)
        assert lesion is not None
        depth = scene.distance["sacrum"][lesion.distance < 0].max()
        assert depth < ERODED_MM + 1e-3
        assert lesion.eroded == (depth > -ERODED_MM)
        assert scene.distance["canal"][lesion.distance < 0].min() > 0
        eroded += lesion.eroded
    assert eroded >= 3


@pytest.mark.parametrize("kind", LesionKind)
def test_a_lesion_is_of_the_kind_and_size_asked_for(scene: Scene, kind: LesionKind) -> None:
    lesion = lesion_of(scene, 1, kind=kind)
    assert lesion is not None
    assert lesion.kind is kind
    volume = np.count_nonzero(lesion.distance < 0) * scene.geometry.voxel_ml
    assert volume == pytest.approx(lesion.drawn["volume_ml"])
    assert 0.3 < volume < 25.0, "mL of an 11 mm lesion with its lobes, cut at the bone"


@pytest.mark.parametrize("side", [Side.LEFT, Side.RIGHT])
def test_a_lesion_lies_on_its_side_in_s1_or_s2(scene: Scene, side: Side) -> None:
    sign = 1.0 if side is Side.LEFT else -1.0
    top = scene.axes[2][np.flatnonzero((scene.distance["sacrum"] < 0).any(axis=(0, 1)))[-1]]
    for seed in range(20):
        point = choose_in_ala(np.random.default_rng(seed), scene, side)
        assert point is not None
        assert sign * (point[0] - midline_mm(scene)) > 15
        assert top - point[2] < 60


def test_no_lesion_is_drawn_where_none_is_planned(scene: Scene) -> None:
    assert lesion_of(scene, 0, kind=None) is None
