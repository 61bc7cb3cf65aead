"""Needles come by the way that is named, into the ala, clear of canal and foramina."""

from __future__ import annotations

import numpy as np
import pytest

from sacroleak.core.structures import Side
from sacroleak.training.simulation.lesion import draw_lesion
from sacroleak.training.simulation.needle import (
    CLEARANCE_MM,
    NEEDLE_RADIUS_MM,
    NeedleTrack,
    draw_directions,
    needle_direction,
    place_needles,
    sacral_axes,
)
from sacroleak.training.simulation.plan import Approach, Injection, LesionKind
from sacroleak.training.simulation.scene import FAR_MM, Scene
from sacroleak.training.simulation.spaces import Spaces


def injection(side: Side, approach: Approach, needles: int = 1) -> Injection:
    return Injection(side=side, approach=approach, needles=needles, volume_ml=4.0, lesion=LesionKind.LYTIC)


def placed(scene: Scene, asked: Injection, seed: int) -> tuple[NeedleTrack, ...]:
    rng = np.random.default_rng(seed)
    return place_needles(rng, scene, asked, draw_lesion(rng, scene, asked))


@pytest.mark.parametrize("approach", Approach)
@pytest.mark.parametrize("side", [Side.LEFT, Side.RIGHT])
def test_every_approach_finds_safe_ways(scene: Scene, approach: Approach, side: Side) -> None:
    spaces = Spaces.around(scene)
    assert spaces is not None
    found = 0
    for seed in range(5):
        tracks = placed(scene, injection(side, approach, needles=1 + seed % 4), seed)
        found += len(tracks) > 0
        for track in tracks:
            line = track.line(0.0, float(np.linalg.norm(track.skin_lps_mm - track.tip_lps_mm)))
            assert scene.at("canal", line).min() > NEEDLE_RADIUS_MM + CLEARANCE_MM - scene.geometry.spacing_mm.max()
            assert scene.at("sacrum", line[:1])[0] < -2.0
            assert bool(line[0, 0] > 0) is (side is Side.LEFT)
            gaps = np.linalg.norm(line[:, None] - spaces.openings, axis=2)
            assert gaps.min() > NEEDLE_RADIUS_MM, "mm from a foramen's mouth"
    assert found >= 4


@pytest.mark.parametrize("side", [Side.LEFT, Side.RIGHT])
def test_each_approach_comes_from_where_it_is_named_for(scene: Scene, side: Side) -> None:
    rng, sign = np.random.default_rng(0), 1.0 if side is Side.LEFT else -1.0
    up, back = sacral_axes(scene)
    ways = {a: draw_directions(rng, scene, a, side, count=100) for a in Approach}
    for way in ways.values():
        assert np.linalg.norm(way, axis=1) == pytest.approx(1.0)
    assert (ways[Approach.POSTERIOR_SHORT_AXIS] @ back > 0.7).all()
    assert (ways[Approach.POSTERIOR_LONG_AXIS] @ up < -0.5).all()
    assert (ways[Approach.POSTERIOR_LONG_AXIS] @ back > 0.1).all()
    assert (ways[Approach.TRANSILIAC][:, 0] * sign > 0.6).all()
    assert (ways[Approach.ANTERIOR_OBLIQUE][:, 0] * sign > 0.5).all()
    assert (ways[Approach.ANTERIOR_OBLIQUE][:, 1] < -0.1).all()


def test_a_transiliac_needle_passes_the_ilium(scene: Scene) -> None:
    tracks = [track for seed in range(6) for track in placed(scene, injection(Side.RIGHT, Approach.TRANSILIAC), seed)]
    assert np.mean([scene.at("hip_right", track.line(0.0, 100.0)).min() < 0 for track in tracks]) > 0.8


@pytest.mark.parametrize("seed", range(4))
def test_tips_lie_apart(scene: Scene, seed: int) -> None:
    tips = np.array([t.tip_lps_mm for t in placed(scene, injection(Side.LEFT, Approach.TRANSILIAC, 4), seed)])
    assert len(tips) >= 2
    gaps = np.linalg.norm(tips[:, None] - tips, axis=2)[np.triu_indices(len(tips), 1)]
    assert gaps.min() >= 4.0


def test_a_needle_ends_at_the_skin_beyond_all_bone(scene: Scene) -> None:
    for seed in range(4):
        for track in placed(scene, injection(Side.LEFT, Approach.POSTERIOR_SHORT_AXIS), seed):
            beyond = track.skin_lps_mm + np.linspace(-15, 30, 10)[:, None] * track.direction
            assert scene.at("sacrum", beyond).min() > 0


def test_without_bone_there_is_no_way(scene: Scene) -> None:
    far = Scene(geometry=scene.geometry, distance={key: np.full(scene.geometry.shape, FAR_MM, dtype=np.float32)
                                                   for key in scene.distance})
    asked = injection(Side.LEFT, Approach.TRANSILIAC)
    assert draw_lesion(np.random.default_rng(0), far, asked) is None
    assert place_needles(np.random.default_rng(0), far, asked, None) == ()


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_ways_are_drawn_as_often_as_in_the_cohort(scene: Scene, side: float) -> None:
    rng = np.random.default_rng(0)
    tip = np.array([35.0 * side, 0.0, 20.0])
    ways = np.array([needle_direction(rng, scene, tip) for _ in range(250)])
    oblique = ways[:, 1] < -0.15
    posterior = (ways[:, 1] > 0.5) & (np.abs(ways[:, 0]) < 0.7)
    assert oblique.mean() == pytest.approx(10 / 35, abs=0.1)
    assert posterior.mean() == pytest.approx(18 / 35, abs=0.1)
    assert (ways[oblique, 0] * side > 0).all(), "an oblique needle comes from the tip's own side"
