"""Cement where it was meant to go: the volume asked for, inside the bone, around the needle's tip."""

from __future__ import annotations

import numpy as np
import pytest

from sacroleak.training.simulation.cement import Bed, choose_tip, inject
from sacroleak.training.simulation.scene import FAR_MM, Scene

SEEDS = range(4)


def tip_of(scene: Scene, seed: int) -> np.ndarray:
    tip = choose_tip(np.random.default_rng(seed), scene)
    assert tip is not None
    return tip


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("target_ml", [1.5, 4.0, 8.0])
def test_the_planned_volume_is_met_inside_the_bone(scene: Scene, seed: int, target_ml: float) -> None:
    body = inject(np.random.default_rng(seed), scene, tip_of(scene, seed)[None], target_ml)
    assert body.volume_ml == pytest.approx(target_ml, rel=0.03)
    assert scene.distance["sacrum"][body.distance < 0].max() < 0
    assert np.count_nonzero(body.distance < 0) * scene.geometry.voxel_ml == pytest.approx(body.volume_ml)


@pytest.mark.parametrize("seed", SEEDS)
def test_cement_stays_near_its_tip(scene: Scene, seed: int) -> None:
    tip = tip_of(scene, seed)
    body = inject(np.random.default_rng(seed), scene, tip[None], 2.0)
    points = scene.geometry.to_lps(np.argwhere(body.distance < 0))
    assert np.linalg.norm(points - tip, axis=1).min() < 12
    assert np.linalg.norm(points.mean(axis=0) - tip) < 25


def test_more_than_the_bone_can_hold_fills_it_and_no_more(scene: Scene) -> None:
    body = inject(np.random.default_rng(0), scene, tip_of(scene, 0)[None], 5000.0)
    assert 1 < body.volume_ml < np.count_nonzero(scene.distance["sacrum"] < 0) * scene.geometry.voxel_ml
    assert scene.distance["sacrum"][body.distance < 0].max() < 0


def test_another_bone_can_be_the_host(scene: Scene) -> None:
    deep = np.argwhere(scene.distance["hip_left"] < -3)
    tip = scene.geometry.to_lps(deep[len(deep) // 2])
    body = inject(np.random.default_rng(1), scene, tip[None], 2.0, bed=Bed(host="hip_left"))
    assert scene.distance["hip_left"][body.distance < 0].max() < 0
    assert (scene.distance["sacrum"][body.distance < 0] > 0).all()


def test_no_bone_holds_no_cement(scene: Scene) -> None:
    far = Scene(geometry=scene.geometry, distance={name: np.full(scene.geometry.shape, FAR_MM, dtype=np.float32)
                                                   for name in ("sacrum", "canal")})
    rng = np.random.default_rng(0)
    assert choose_tip(rng, far) is None
    body = inject(rng, far, np.zeros((1, 3)), 3.0)
    assert body.volume_ml == 0
    assert (body.distance > 0).all()


@pytest.mark.parametrize("anywhere", [False, True])
def test_the_tip_lies_deep_in_bone_and_beside_the_canal(scene: Scene, anywhere: bool) -> None:
    for seed in range(20):
        tip = choose_tip(np.random.default_rng(seed), scene, anywhere=anywhere)
        assert tip is not None
        assert scene.at("sacrum", tip[None])[0] < -3.4
        if not anywhere:
            assert scene.at("canal", tip[None])[0] > 8.9


def test_both_sides_get_their_share(scene: Scene) -> None:
    left = [tip_of(scene, seed)[0] > 0 for seed in range(40)]
    assert 8 < sum(left) < 32


def test_the_same_seed_gives_the_same_bytes(scene: Scene) -> None:
    bodies = [inject(np.random.default_rng(9), scene, tip_of(scene, 2)[None], 3.0).distance.tobytes() for _ in range(2)]
    assert bodies[0] == bodies[1]
