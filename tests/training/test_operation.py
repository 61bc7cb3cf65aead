"""A whole operation: every step leaves what the plan asked for, where it may be."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sacroleak.core.structures import Side
from sacroleak.training.simulation.leak import MECHANISMS, SITE_OF
from sacroleak.training.simulation.near_miss import NEAR_MISSES
from sacroleak.training.simulation.operation import Operation, operate
from sacroleak.training.simulation.plan import Approach, Injection, LeakPlan, LesionKind, Plan
from sacroleak.training.simulation.scene import FAR_MM, Scene


def injection(side: Side = Side.LEFT, approach: Approach = Approach.TRANSILIAC, *, needles: int = 1,
              volume_ml: float = 4.0, lesion: LesionKind | None = LesionKind.LYTIC, eroded: bool = True) -> Injection:
    return Injection(side=side, approach=approach, needles=needles, volume_ml=volume_ml, lesion=lesion, eroded=eroded)


BILATERAL = Plan(injections=(injection(), injection(Side.RIGHT, Approach.POSTERIOR_LONG_AXIS, needles=3)),
                 leaks=tuple(LeakPlan(mechanism=name) for name in MECHANISMS), other_cement=("l5",))


@cache
def done(scene: Scene, seed: int) -> Operation:
    return operate(np.random.default_rng(seed), scene, BILATERAL)


@pytest.mark.parametrize("seed", range(4))
def test_leaks_do_not_overlap_one_another(scene: Scene, seed: int) -> None:
    leaks = done(scene, seed).leaks
    assert len(leaks) >= 8
    assert np.sum([leak.distance < 0 for leak in leaks], axis=0).max() == 1


@pytest.mark.parametrize("seed", range(4))
def test_where_leaks_meet_the_earlier_site_keeps_the_place(scene: Scene, seed: int) -> None:
    """A vein is what it is without the presacral leak beside it; that one gives way."""
    vein, defect = LeakPlan(mechanism="lateral_sacral_vein"), LeakPlan(mechanism="cortical_defect", volume_ml=2.5)
    alone, both = (operate(np.random.default_rng(seed), scene, Plan(injections=(injection(),), leaks=leaks)).leaks
                   for leaks in ((vein,), (vein, defect)))
    assert [leak.mechanism for leak in both] == ["lateral_sacral_vein", "cortical_defect"]
    assert both[0].distance.tobytes() == alone[0].distance.tobytes()
    assert all(leak.site is SITE_OF[leak.mechanism] for leak in both)


@pytest.mark.parametrize("seed", range(4))
def test_no_cement_in_the_bone_lies_outside_it(scene: Scene, seed: int) -> None:
    for body in done(scene, seed).bodies:
        assert body.volume_ml > 0
        assert (scene.distance["sacrum"][body.distance < 0] < 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_each_injection_stays_on_its_side(scene: Scene, seed: int) -> None:
    bodies = done(scene, seed).bodies
    x = [scene.axes[0][np.nonzero(body.distance < 0)[0]].mean() for body in bodies]
    assert len(x) == 2
    assert x[0] > 8
    assert x[1] < -8


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), approach=st.sampled_from(Approach), lesion=st.sampled_from([None, *LesionKind]),
       volume_ml=st.floats(2.0, 8.0), needles=st.integers(1, 4))
def test_the_drawn_volume_is_met(scene: Scene, seed: int, approach: Approach, lesion: LesionKind | None,
                                 volume_ml: float, needles: int) -> None:
    asked = injection(approach=approach, needles=needles, volume_ml=volume_ml, lesion=lesion)
    operation = operate(np.random.default_rng(seed), scene, Plan(injections=(asked,)))
    assert 1 <= len(operation.tracks) <= needles
    (body,) = operation.bodies
    assert body.volume_ml == pytest.approx(volume_ml, rel=0.03)
    assert np.count_nonzero(body.distance < 0) * scene.geometry.voxel_ml == pytest.approx(body.volume_ml)


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_a_near_miss_reaches_the_surface_and_no_farther(scene: Scene, name: str) -> None:
    reached = 0
    for seed in range(6):
        plan = Plan(injections=(injection(),), near_misses=(name,))
        operation = operate(np.random.default_rng(seed), scene, plan)
        (body,) = operation.bodies
        depth = scene.distance["sacrum"][body.distance < 0]
        assert depth.max() < 0
        assert body.volume_ml == pytest.approx(4.0, rel=0.03)
        assert operation.leaks == ()
        reached += body.drawn.get("near_miss") == name and depth.max() > -1.5
    assert reached >= 3


def test_holes_lie_where_needles_pass_bone(scene: Scene) -> None:
    operation = done(scene, 0)
    holes = operation.holes(scene) < 0
    assert holes.any()
    bone = np.minimum.reduce([scene.distance[name] for name in ("sacrum", "hip_left", "hip_right")])
    assert bone[holes].max() <= 1.0
    points = scene.geometry.to_lps(np.argwhere(holes))
    gaps = []
    for track in operation.tracks:
        along = np.clip((points - track.tip_lps_mm) @ track.direction, 0, None)
        gaps.append(np.linalg.norm(points - track.tip_lps_mm - along[:, None] * track.direction, axis=1))
    assert np.min(gaps, axis=0).max() < 1.21
    assert (scene.distance["hip_left"][holes] < 0).any(), "the first needle went through the ilium"


def test_cement_of_another_treatment_lies_in_its_bone(scene: Scene) -> None:
    (field,) = done(scene, 0).elsewhere
    assert (scene.distance["l5"][field < 0] < 0).all()
    assert (field < 0).any()


def test_without_bone_nothing_is_done(scene: Scene) -> None:
    far = Scene(geometry=scene.geometry, distance={key: np.full(scene.geometry.shape, FAR_MM, dtype=np.float32)
                                                   for key in scene.distance})
    operation = operate(np.random.default_rng(0), far, BILATERAL)
    assert (operation.lesions, operation.tracks, operation.bodies, operation.leaks) == ((), (), (), ())
    assert (operation.cement(far) > 0).all()
    assert (operation.holes(far) > 0).all()


def test_the_same_seed_gives_the_same_bytes(scene: Scene) -> None:
    a, b = (operate(np.random.default_rng(5), scene, BILATERAL) for _ in range(2))
    assert a.cement(scene).tobytes() == b.cement(scene).tobytes()
    assert [leak.drawn for leak in a.leaks] == [leak.drawn for leak in b.leaks]
    assert [track.drawn for track in a.tracks] == [track.drawn for track in b.tracks]
