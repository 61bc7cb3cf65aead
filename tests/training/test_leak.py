"""Every way out of the bone leads to the space it is named for."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from sacroleak.core.geometry import Points
from sacroleak.core.structures import Side, Site
from sacroleak.training.simulation.cement import Treatment
from sacroleak.training.simulation.leak import MECHANISMS, OF_SITE, LeakBody
from sacroleak.training.simulation.needle import needle_direction
from sacroleak.training.simulation.operation import treat
from sacroleak.training.simulation.plan import Approach, Injection
from sacroleak.training.simulation.scene import FAR_MM, Scene

SEEDS = range(10)
Mask = npt.NDArray[np.bool_]

# Kept by module: a mechanism is asked for by several tests.
FOUND: dict[tuple[str, int], LeakBody | None] = {}


def treated(scene: Scene, seed: int) -> Treatment:
    """An injection of 3 mL by each approach in turn, on each side in turn."""
    approach, side = list(Approach)[seed % 4], (Side.LEFT, Side.RIGHT)[seed // 4 % 2]
    injection = Injection(side=side, approach=approach, needles=1, volume_ml=3.0, lesion=None)
    done = treat(np.random.default_rng(seed), scene, injection)
    assert done is not None, "an ala in full view has a safe way"
    return done


def leak(scene: Scene, name: str, seed: int) -> LeakBody | None:
    if (name, seed) not in FOUND:
        rng = np.random.default_rng(seed)
        FOUND[name, seed] = MECHANISMS[name](rng, scene, treated(scene, seed))
    return FOUND[name, seed]


def outside(scene: Scene, name: str) -> list[Mask]:
    """Where each leak of one kind lies outside the sacrum; kinds that found no way leave nothing."""
    masks = []
    for seed in SEEDS:
        body = leak(scene, name, seed)
        if body is not None:
            mask = (body.distance < 0) & (scene.distance["sacrum"] >= 0)
            if mask.any():
                masks.append(mask)
    return masks


def shares(masks: list[Mask], space: Mask) -> float:
    """Share of all voxels of all leaks that lie in `space`."""
    return float(np.concatenate([space[mask] for mask in masks]).mean())


@cache
def _behind(scene: Scene) -> Mask:
    """Voxels with sacrum or canal somewhere straight behind them, and none straight in front."""
    solid = (scene.distance["sacrum"] < 0) | (scene.distance["canal"] < 0)
    before = np.cumsum(solid, axis=1) > 0
    after = np.cumsum(solid[:, ::-1], axis=1)[:, ::-1] > 0
    mask: Mask = after & ~before
    return mask


@pytest.mark.parametrize("name", MECHANISMS)
def test_most_attempts_find_a_way_out_of_the_bone(scene: Scene, name: str) -> None:
    assert len(outside(scene, name)) >= 8


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_leak_names_the_site_its_mechanism_belongs_to(scene: Scene, name: str) -> None:
    wanted = [site for site, names in OF_SITE.items() if name in names]
    assert len(wanted) == 1, "every mechanism belongs to one site"
    for seed in SEEDS:
        body = leak(scene, name, seed)
        assert body is None or body.site is wanted[0]


def test_every_site_has_a_mechanism() -> None:
    assert set(OF_SITE) == set(Site)
    assert {name for names in OF_SITE.values() for name in names} == set(MECHANISMS)


def test_an_epidural_leak_lies_in_the_front_half_of_the_canal(scene: Scene) -> None:
    for name, ventral in (("epidural", True), ("dorsal_epidural", False)):
        masks = outside(scene, name)
        assert shares(masks, scene.distance["canal"] < 1.5) > 0.9
        front = []
        for mask in masks:
            points = scene.geometry.to_lps(np.argwhere(mask))
            canal = scene.geometry.to_lps(np.argwhere(scene.distance["canal"] < 0))
            middle = [canal[np.abs(canal[:, 2] - z) < 4, 1].mean() for z in points[:, 2]]
            front.append(float((points[:, 1] < middle).mean()))
        share = float(np.mean(front))
        assert share > 0.75 if ventral else share < 0.25


def test_a_presacral_leak_and_a_vein_lie_in_front_of_the_bone(scene: Scene) -> None:
    """The share of a vein is smaller: veins leave the bone's outline towards the sides."""
    assert shares(outside(scene, "cortical_defect"), _behind(scene)) > 0.85
    assert shares(outside(scene, "foraminal_vein"), _behind(scene)) > 0.7


def test_a_vein_is_longer_and_thinner_than_a_presacral_leak(scene: Scene) -> None:
    def length_mm(mask: Mask) -> float:
        points = scene.geometry.to_lps(np.argwhere(mask))
        return float(np.linalg.norm(np.ptp(points, axis=0)))

    vein = [length_mm(m) / np.cbrt(m.sum()) for m in outside(scene, "foraminal_vein")]
    blob = [length_mm(m) / np.cbrt(m.sum()) for m in outside(scene, "cortical_defect")]
    assert np.median(vein) > 1.5 * np.median(blob)


def test_a_needle_track_is_straight_and_spares_the_canal(scene: Scene) -> None:
    for seed in SEEDS:
        body = leak(scene, "needle_track", seed)
        if body is None:
            continue
        assert (scene.distance["canal"][body.distance < 0] > 0).all()
        points = scene.geometry.to_lps(np.argwhere(body.distance < 0))
        if len(points) > 8:
            spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False) / np.sqrt(len(points))
            assert spread[1] < 2.5, "mm across the track"
            assert spread[0] > spread[1]


def test_a_leak_into_the_disc_lies_in_the_disc(scene: Scene) -> None:
    assert shares(outside(scene, "disc"), scene.distance["disc"] < 1.5) > 0.95


def test_a_leak_into_the_joint_lies_between_sacrum_and_hip(scene: Scene) -> None:
    hips = np.minimum(scene.distance["hip_left"], scene.distance["hip_right"])
    assert shares(outside(scene, "sacroiliac_joint"), scene.distance["sacrum"] + hips < 9.0) > 0.95


def test_without_a_disc_none_is_filled(scene: Scene) -> None:
    bare = Scene(geometry=scene.geometry, distance={k: v for k, v in scene.distance.items() if k != "disc"})
    assert MECHANISMS["disc"](np.random.default_rng(0), bare, treated(scene, 0)) is None


@pytest.mark.parametrize("name", [name for name in MECHANISMS if name != "needle_track"])
def test_where_there_is_no_bone_there_is_no_leak(scene: Scene, name: str) -> None:
    far = Scene(geometry=scene.geometry, distance={key: np.full(scene.geometry.shape, FAR_MM, dtype=np.float32)
                                                   for key in scene.distance})
    assert MECHANISMS[name](np.random.default_rng(0), far, treated(scene, 0)) is None


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_same_seed_gives_the_same_bytes(scene: Scene, name: str) -> None:
    a, b = (MECHANISMS[name](np.random.default_rng(2), scene, treated(scene, 2)) for _ in range(2))
    assert (a is None) == (b is None)
    if a is not None and b is not None:
        assert a.distance.tobytes() == b.distance.tobytes()


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_needles_come_from_behind_through_the_ilium_or_obliquely(scene: Scene, side: float) -> None:
    rng = np.random.default_rng(0)
    tip = np.array([35.0 * side, 0.0, 20.0])
    ways: Points = np.array([needle_direction(rng, scene, tip) for _ in range(250)])
    assert np.linalg.norm(ways, axis=1) == pytest.approx(1.0)
    oblique = ways[:, 1] < -0.15
    posterior = (ways[:, 1] > 0.5) & (np.abs(ways[:, 0]) < 0.7)
    assert oblique.mean() == pytest.approx(10 / 35, abs=0.1)
    assert posterior.mean() == pytest.approx(18 / 35, abs=0.1)
    assert (ways[oblique, 0] * side > 0).all(), "an oblique needle comes from the tip's own side"
