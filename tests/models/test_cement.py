"""Where cement ends: known shapes of known volume on hand-made scans."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter

from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.cement import CEMENT, METAL, Region, bright_in, delineate
from sacroleak.models.near import Near
from sacroleak.models.rods import rods_in
from tests.models.bodies import Inside, ball, cover, nothing, places, rod

CEMENT_HU, MARROW_HU, SOFT_HU, METAL_HU = 1900.0, 220.0, 45.0, 3071.0
FRONT_MM = 16.0
"""Bone fills a cube of twice this side about the origin; in front of y = -FRONT_MM lies soft tissue."""
Mask = npt.NDArray[np.bool_]

FINE, THICK = (0.7, 0.7, 1.0), (1.0, 1.0, 3.0)


def bone(points: Points) -> Mask:
    return np.asarray((np.abs(points) < FRONT_MM).all(axis=-1))


def grid(spacing: tuple[float, float, float]) -> Geometry:
    sides = np.ceil(np.array([36.0, 64.0, 36.0]) / spacing).astype(int)
    # Off the symmetric place, so that no edge falls on a voxel's border by design.
    origin = -(sides - 1) / 2 * spacing + (0.13, -0.21, 0.17) + (0, -14, 0)
    return Geometry.axis_aligned(origin_lps_mm=origin, spacing_mm=spacing,
                                 shape=(int(sides[0]), int(sides[1]), int(sides[2])))


def judged(ct: Volume, anatomy: LabelMap, region: Region, near: Near | None = None) -> tuple[Mask, Mask]:
    return delineate(ct, anatomy, bright_in(ct, region, near, rods_in(ct.hu, ct.geometry), anatomy.geometry))


def delineated(spacing: tuple[float, float, float], cement: Inside, *, metal: Inside = nothing,
               seen: Inside | None = None, marrow_hu: float = MARROW_HU, blur_mm: float = 0.0,
               ) -> tuple[Mask, Mask, Geometry]:
    """Scan, blurred by a Gaussian of this sigma, anatomy on 1 mm, and what a good 2 mm network says: `seen` cement (all
    of it unless given) and metal.
    """
    geometry = grid(spacing)
    hu = np.where(bone(places(geometry)), marrow_hu, SOFT_HU).astype(np.float32)
    for shape, value in ((cement, CEMENT_HU), (metal, METAL_HU)):
        hu += cover(geometry, shape) * (value - hu)
    hu = gaussian_filter(hu, blur_mm / np.array(spacing))
    coarse = grid((2.0, 2.0, 2.0))
    probabilities = np.zeros((8, *coarse.shape), dtype=np.float32)
    probabilities[CEMENT] = np.clip(1.3 * cover(coarse, seen or cement), 0, 0.97) * ~metal(places(coarse))
    probabilities[METAL] = 0.95 * metal(places(coarse))
    working = grid((1.0, 1.0, 1.0))
    labels = bone(places(working)).astype(np.uint8) * np.uint8(Structure.SACRUM)
    region = Region(probabilities=probabilities, geometry=coarse)
    found, rods = judged(Volume(hu=hu, geometry=geometry), LabelMap(labels=labels, geometry=working), region)
    return found, rods, geometry


def ball_ml(radius_mm: float) -> float:
    return float(4 / 3 * np.pi * radius_mm ** 3 / 1000)


@pytest.mark.parametrize(("spacing", "radius_mm", "error"), [
    (FINE, 6.0, 0.05), (FINE, 10.0, 0.05), (THICK, 10.0, 0.05),
    (THICK, 6.0, 0.10),  # four slices: most voxels are partly filled, so cement's own level is read too low
])
def test_a_ball_in_bone_has_its_volume_at_any_thickness(spacing: tuple[float, float, float], radius_mm: float,
                                                        error: float) -> None:
    found, metal, geometry = delineated(spacing, ball(radius_mm))
    assert found.sum() * geometry.voxel_ml == pytest.approx(ball_ml(radius_mm), rel=error)
    centre = geometry.to_lps(np.argwhere(found)).mean(axis=0)
    assert np.abs(centre).max() < 0.3
    assert not metal.any()


@pytest.mark.parametrize("marrow_hu", [30.0, 500.0, 750.0])
def test_a_ball_keeps_its_volume_in_lytic_and_in_sclerotic_bone(marrow_hu: float) -> None:
    found, _, geometry = delineated(FINE, ball(8.0), marrow_hu=marrow_hu)
    assert found.sum() * geometry.voxel_ml == pytest.approx(ball_ml(8.0), rel=0.04)


def test_a_thin_tube_out_of_the_bone_is_followed_where_the_network_sees_nothing() -> None:
    """2 mm wide, 14 mm long beyond the cortex: the network saw the ball alone."""
    body, tube = ball(6.5, (0, -9.0, 0)), rod((0, -9.0, 0), (3.0, -30.0, 4.0), 1.0)
    found, _, geometry = delineated(FINE, lambda p: body(p) | tube(p), seen=body)
    leaked = found & ~bone(places(geometry))
    points = geometry.to_lps(np.argwhere(leaked))
    assert points[:, 1].min() < -29, "to its tip"
    ideal = cover(geometry, tube)[~bone(places(geometry)) & ~body(places(geometry))].sum() * geometry.voxel_ml
    tube_ml = (leaked & ~body(places(geometry))).sum() * geometry.voxel_ml
    assert tube_ml == pytest.approx(ideal, rel=0.35)


def test_a_lump_outside_the_bone_is_no_larger_for_its_blur() -> None:
    """The network sees it three millimetres too wide."""
    body, lump = ball(6.5, (0, -9.0, 0)), ball(5.0, (0, -27.0, 0))
    found, _, geometry = delineated(FINE, lambda p: body(p) | lump(p), blur_mm=1.0,
                                    seen=lambda p: body(p) | ball(8.0, (0, -27.0, 0))(p))
    outside = places(geometry)[..., 1] < -FRONT_MM - 2
    whole = cover(geometry, lump)[outside].sum() * geometry.voxel_ml
    assert 0.85 * whole < found[outside].sum() * geometry.voxel_ml < 1.02 * whole


def test_a_metal_rod_is_not_cement() -> None:
    screw = rod((-30.0, 0, 0), (14.0, 0, 0), 3.0)
    found, metal, _ = delineated(FINE, nothing, metal=screw)
    assert not found.any()
    assert metal.any()


def test_a_metal_rod_through_cement_is_left_out_of_it() -> None:
    screw = rod((-30.0, 0, 0), (25.0, 0, 0), 2.5)
    found, metal, geometry = delineated(FINE, ball(9.0), metal=screw)
    assert not (found & metal).any()
    core = rod((-30.0, 0, 0), (25.0, 0, 0), 1.5)(places(geometry))
    assert not (found & core).any()
    free = (cover(geometry, ball(9.0)) * (1 - cover(geometry, screw))).sum() * geometry.voxel_ml
    assert found.sum() * geometry.voxel_ml == pytest.approx(free, rel=0.1), "up to the screw: the network is certain"


@pytest.mark.parametrize("spacing", [FINE, THICK])
def test_what_blur_makes_bright_beside_a_screw_is_no_cement_whatever_the_network_says(
        spacing: tuple[float, float, float]) -> None:
    screw, beside = rod((-30.0, 0, 0), (14.0, 0, 0), 3.0), rod((-30.0, 0, 0), (14.0, 0, 0), 5.0)
    found, metal, _ = delineated(spacing, nothing, metal=screw, seen=beside, blur_mm=1.0)
    assert metal.any()
    assert not found.any()


@pytest.mark.parametrize("seen_mm", [2.0, 3.0])
def test_cement_of_which_the_networks_see_only_a_core_is_followed_through_the_marrow(seen_mm: float) -> None:
    whole = ball(8.0)
    found, _, geometry = delineated(FINE, whole, seen=ball(seen_mm))
    assert found.sum() * geometry.voxel_ml == pytest.approx(ball_ml(8.0), rel=0.05)
    nearer_the_surface = ball(8.0, (0, 3.0, 0))
    found, _, geometry = delineated(FINE, nearer_the_surface, seen=ball(seen_mm, (0, 3.0, 0)))
    assert 0.5 * ball_ml(8.0) < found.sum() * geometry.voxel_ml <= 1.05 * ball_ml(8.0)


def test_cement_as_straight_and_dense_as_a_screw_is_cement_where_the_networks_are_sure() -> None:
    """As thick as an iliosacral screw, saturated, and longer than cement usually is."""
    screw = rod((-30.0, 0, 0), (14.0, 0, 0), 3.0)
    geometry = grid(FINE)
    hu = np.full(geometry.shape, SOFT_HU, dtype=np.float32) + cover(geometry, screw) * (METAL_HU - SOFT_HU)
    ct, working = Volume(hu=hu, geometry=geometry), grid((1.0, 1.0, 1.0))
    anatomy = LabelMap(labels=bone(places(working)).astype(np.uint8) * np.uint8(Structure.SACRUM), geometry=working)
    coarse = grid((2.0, 2.0, 2.0))
    # (probability, how far from its end the run lies in the bone, whether it is metal)
    for probability, within_mm, is_metal in ((0.95, 50.0, False), (0.4, 50.0, True), (0.95, 36.0, True)):
        probabilities = np.zeros((8, *coarse.shape), dtype=np.float32)
        probabilities[CEMENT] = np.clip(1.5 * cover(coarse, screw), 0, probability)
        probabilities[Structure.SACRUM] = places(coarse)[..., 0] < -35.0 + within_mm
        probabilities[Structure.BACKGROUND] = 1 - probabilities[Structure.SACRUM]
        found, metal = judged(ct, anatomy, Region(probabilities=probabilities, geometry=coarse))
        assert bool(metal.any()) == is_metal
        assert found.any() != is_metal


def test_without_seeds_there_is_no_cement() -> None:
    found, metal, _ = delineated(FINE, ball(8.0), seen=nothing)
    assert not found.any()
    assert not metal.any()


def test_two_thick_voxels_are_cement_beside_other_cement_and_noise_without_any() -> None:
    drop = ball(2.8, (1.5, -25.0, 0.0))
    alone, _, _ = delineated((3.0, 3.0, 3.0), drop)
    assert alone.sum() == 0
    beside, _, geometry = delineated((3.0, 3.0, 3.0), lambda points: drop(points) | ball(9.0)(points))
    assert (beside & (places(geometry)[..., 1] < -20)).sum() == 2


def test_what_the_network_takes_for_cement_but_is_no_denser_than_bone_is_none() -> None:
    geometry = grid(THICK)
    coarse = grid((2.0, 2.0, 2.0))
    probabilities = np.zeros((8, *coarse.shape), dtype=np.float32)
    probabilities[CEMENT] = 0.9
    ct = Volume(hu=np.full(geometry.shape, 400, dtype=np.int16), geometry=geometry)
    anatomy = LabelMap(labels=np.ones(grid((1.0, 1.0, 1.0)).shape, dtype=np.uint8), geometry=grid((1.0, 1.0, 1.0)))
    assert not judged(ct, anatomy, Region(probabilities=probabilities, geometry=coarse))[0].any()


def test_contrast_in_the_bowel_does_not_decide_how_dense_the_cement_in_the_bone_is() -> None:
    """Both looks take both for cement; the bowel holds more of it, twice as dense."""
    geometry, coarse, working = grid(FINE), grid((2.0, 2.0, 2.0)), grid((1.0, 1.0, 1.0))
    weak, bowel = ball(7.0), ball(9.0, (0, -34.0, 0))
    hu = np.where(bone(places(geometry)), MARROW_HU, SOFT_HU).astype(np.float32)
    for shape, value in ((weak, 1050.0), (bowel, 2400.0)):
        hu += cover(geometry, shape) * (value - hu)
    probabilities = np.zeros((8, *coarse.shape), dtype=np.float32)
    probabilities[CEMENT] = np.clip(1.3 * (cover(coarse, weak) + cover(coarse, bowel)), 0, 0.97)
    labels = bone(places(working)).astype(np.uint8) * np.uint8(Structure.SACRUM)
    found, _ = judged(Volume(hu=hu, geometry=geometry), LabelMap(labels=labels, geometry=working),
                      Region(probabilities=probabilities, geometry=coarse))
    inside = found & bone(places(geometry))
    assert inside.sum() * geometry.voxel_ml == pytest.approx(ball_ml(7.0), rel=0.15)


def test_dense_things_apart_from_cement_are_no_cement() -> None:
    """A calcified vessel of the same density, in front of the bone and unseen by the network."""
    vessel = rod((-10.0, -32.0, 0), (10.0, -32.0, 5.0), 2.0)
    body = ball(8.0)
    found, _, geometry = delineated(FINE, lambda p: body(p) | vessel(p), seen=body)
    assert not (found & vessel(places(geometry))).any()
    assert found.any()


def test_a_flipped_scan_has_the_same_cement() -> None:
    geometry = grid(THICK)
    coarse = grid((2.0, 2.0, 2.0))
    working = grid((1.0, 1.0, 1.0))
    shape = ball(8.0, (3.0, -12.0, 4.0))
    hu = np.where(bone(places(geometry)), MARROW_HU, SOFT_HU).astype(np.float32)
    hu += cover(geometry, shape) * (CEMENT_HU - hu)
    probabilities = np.zeros((8, *coarse.shape), dtype=np.float32)
    probabilities[CEMENT] = cover(coarse, shape)
    anatomy = LabelMap(labels=bone(places(working)).astype(np.uint8), geometry=working)
    region = Region(probabilities=probabilities, geometry=coarse)
    plain, _ = judged(Volume(hu=hu, geometry=geometry), anatomy, region)
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.to_lps(np.array(geometry.shape) - 1)
    affine[:3, :3] *= -1
    back = Geometry(affine=affine, shape=geometry.shape)
    turned, _ = judged(Volume(hu=hu[::-1, ::-1, ::-1].copy(), geometry=back), anatomy, region)
    assert np.array_equal(turned[::-1, ::-1, ::-1], plain)
    assert plain.any()


def closely(hu_of: dict[str, float], *, claimed: Inside, suspected: float = 0.5) -> tuple[Mask, Geometry]:
    """A body of cement that both looks see, a vein and a thick cortex of given HU, a close look that is sure of what is
    `claimed`, and a fine pass to which the vein is as probable as `suspected`.
    """
    body, vein, cortex = (NEAR_SHAPES[name] for name in ("body", "vein", "cortex"))
    geometry, coarse, working = grid(FINE), grid((2.0, 2.0, 2.0)), grid((1.0, 1.0, 1.0))
    hu = np.where(bone(places(geometry)), MARROW_HU, SOFT_HU).astype(np.float32)
    for shape, value in ((body, CEMENT_HU), (vein, hu_of["vein"]), (cortex, hu_of["cortex"])):
        hu += cover(geometry, shape) * (value - hu)
    probabilities = np.zeros((8, *coarse.shape), dtype=np.float32)
    probabilities[CEMENT] = np.maximum(np.clip(1.3 * cover(coarse, body), 0, 0.97),
                                       np.clip(suspected * (cover(coarse, vein) > 0), 0, 1))
    near = np.zeros((8, *working.shape), dtype=np.float32)
    near[CEMENT] = 0.99 * np.maximum(cover(working, body) > 0.5, claimed(places(working)))
    look = Near(probabilities=near, weight=np.ones(working.shape, dtype=np.float32), start=(0, 0, 0), tiles=1)
    labels = bone(places(working)).astype(np.uint8) * np.uint8(Structure.SACRUM)
    found, _ = judged(Volume(hu=hu, geometry=geometry), LabelMap(labels=labels, geometry=working),
                      Region(probabilities=probabilities, geometry=coarse), look)
    return found, geometry


NEAR_SHAPES = {"body": ball(6.5, (0.0, -9.0, 0.0)), "vein": rod((-9.0, -27.0, -8.0), (9.0, -27.0, 8.0), 1.0),
               "cortex": rod((-12.0, 6.0, -10.0), (12.0, 6.0, 10.0), 1.5)}


def test_a_vein_apart_that_the_close_look_sees_is_cement_and_dense_bone_it_claims_is_not() -> None:
    vein, cortex = NEAR_SHAPES["vein"], NEAR_SHAPES["cortex"]
    found, geometry = closely({"vein": 1100.0, "cortex": 1000.0}, claimed=lambda p: vein(p) | cortex(p))
    assert (found & vein(places(geometry))).sum() > 0.6 * vein(places(geometry)).sum()
    assert not (found & cortex(places(geometry))).any()


def test_a_vein_that_the_fine_pass_rules_out_is_none() -> None:
    vein = NEAR_SHAPES["vein"]
    found, geometry = closely({"vein": 1100.0, "cortex": 1000.0}, claimed=vein, suspected=0.0)
    assert not (found & vein(places(geometry))).any()
    assert found.any()


def test_what_the_close_look_denies_is_no_cement_however_dense() -> None:
    vein = NEAR_SHAPES["vein"]
    found, geometry = closely({"vein": CEMENT_HU, "cortex": 1000.0}, claimed=nothing)
    assert not (found & vein(places(geometry))).any()
    assert found.any()
