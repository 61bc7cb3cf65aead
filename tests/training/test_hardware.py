"""Dense things that are not cement: there, dense, in one piece of truth about being metal."""

from __future__ import annotations

import numpy as np
import pytest

from sacroleak.training.simulation.hardware import CALCIUM_KINDS, COURSES, METAL_KINDS, draw_object
from sacroleak.training.simulation.scene import FAR_MM, Scene

SEEDS = range(6)


def test_every_kind_has_a_course_and_is_either_metal_or_calcium() -> None:
    assert set(COURSES) == set(METAL_KINDS) | set(CALCIUM_KINDS)
    assert not set(METAL_KINDS) & set(CALCIUM_KINDS)


@pytest.mark.parametrize("kind", COURSES)
def test_an_object_is_drawn_again_by_the_same_seed(scene: Scene, kind: str) -> None:
    found = 0
    for seed in SEEDS:
        item = draw_object(np.random.default_rng(seed), scene, kind)
        if item is None:
            continue
        found += 1
        assert item.kind == kind
        assert item.metal == (kind in METAL_KINDS)
        assert (item.distance < 0).any()
        assert 2200 <= item.hu <= 12000 if item.metal else 120 <= item.hu <= 1300
        again = draw_object(np.random.default_rng(seed), scene, kind)
        assert again is not None
        assert item.distance.tobytes() == again.distance.tobytes()
    # Calcium and vessels are thinner than these 3 mm voxels, so that not every one is seen.
    assert found >= (5 if kind in METAL_KINDS else 1)


def test_screws_and_needles_have_their_tip_in_the_sacrum(scene: Scene) -> None:
    for kind in ("iliosacral_screw", "needle"):
        items = [draw_object(np.random.default_rng(seed), scene, kind) for seed in SEEDS]
        hits = [bool(((item.distance < 1) & (scene.distance["sacrum"] < 0)).any()) for item in items if item]
        assert hits
        assert all(hits)


@pytest.mark.parametrize("kind", ["iliosacral_screw", "needle"])
def test_where_there_is_no_bone_there_is_no_screw(scene: Scene, kind: str) -> None:
    far = Scene(geometry=scene.geometry, distance={key: np.full(scene.geometry.shape, FAR_MM, dtype=np.float32)
                                                   for key in scene.distance})
    assert draw_object(np.random.default_rng(0), far, kind) is None
