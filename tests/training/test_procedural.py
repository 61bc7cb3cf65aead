"""The procedural pelvis: complete, disjoint, of plausible size, open where it must be open, and repeatable."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import ConvexHull, Delaunay

from sacroleak.core.geometry import Points
from sacroleak.training.simulation.anatomy import FIELD_NAMES, STEP_MM, Anatomy, DistanceField
from sacroleak.training.simulation.pelvis_parameters import draw_pelvis
from sacroleak.training.simulation.procedural import build_pelvis, procedural_pelvis

SEEDS = (0, 1, 2, 3)
SIDES = ("left", "right")


@cache
def pelvis(seed: int) -> Anatomy:
    return procedural_pelvis(np.random.default_rng(seed))


def value_mm(anatomy: Anatomy, name: str, points: Points) -> Points:
    """The field's distance at the voxel nearest to each point, mm."""
    i, j, k = np.rint(anatomy.geometry.to_index(points)).astype(int).T
    return np.asarray(anatomy.fields[name][i, j, k] * STEP_MM)


def volume_ml(anatomy: Anatomy, name: str) -> float:
    return float(np.count_nonzero(anatomy.fields[name] < 0)) * anatomy.geometry.voxel_ml


def centre_mm(anatomy: Anatomy, name: str) -> Points:
    centre: Points = anatomy.geometry.to_lps(np.argwhere(anatomy.fields[name] < 0).mean(axis=0))
    return centre


def touches_border(field: DistanceField) -> bool:
    inside = field < 0
    return any(bool(np.take(inside, end, axis=axis).any()) for axis in range(3) for end in (0, -1))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_field_is_there_and_fits_the_grid(seed: int) -> None:
    fields = pelvis(seed).fields
    assert set(fields) == set(FIELD_NAMES)
    for name in ("sacrum", "canal", "hip_left", "hip_right", "l5", "disc", "coccyx"):
        assert (fields[name] < 0).any()
        assert not touches_border(fields[name]), name


@pytest.mark.parametrize("seed", SEEDS)
def test_no_voxel_lies_in_two_structures(seed: int) -> None:
    inside = sum((field < 0).astype(np.uint8) for field in pelvis(seed).fields.values())
    assert np.max(inside) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_each_bone_is_one_piece(seed: int) -> None:
    for name in ("sacrum", "hip_left", "hip_right", "l5", "disc", "femur_left", "coccyx"):
        regions, _ = ndimage.label(pelvis(seed).fields[name] < 0, structure=np.ones((3, 3, 3)))
        sizes = np.bincount(regions.ravel())[1:]
        assert sizes.max() > 0.99 * sizes.sum(), name


@pytest.mark.parametrize(("name", "low", "high"), [
    ("sacrum", 120, 310), ("canal", 6, 35), ("hip_left", 200, 480), ("hip_right", 200, 480), ("l5", 35, 85),
    ("l4", 35, 85), ("disc", 4, 25), ("coccyx", 0.5, 12),
])
@pytest.mark.parametrize("seed", SEEDS)
def test_volumes_are_those_of_adults(seed: int, name: str, low: float, high: float) -> None:
    assert low < volume_ml(pelvis(seed), name) < high


@pytest.mark.parametrize("seed", SEEDS)
def test_sacrum_has_the_size_of_an_adults(seed: int) -> None:
    anatomy = pelvis(seed)
    extent = np.ptp(np.argwhere(anatomy.fields["sacrum"] < 0), axis=0) * anatomy.geometry.spacing_mm
    assert 94 < extent[0] < 135
    assert 80 < np.hypot(extent[1], extent[2]) < 185


@pytest.mark.parametrize("seed", SEEDS)
def test_left_is_plus_x_posterior_plus_y_up_plus_z(seed: int) -> None:
    anatomy = pelvis(seed)
    for bone in ("hip", "femur"):
        assert centre_mm(anatomy, f"{bone}_left")[0] > 40
        assert centre_mm(anatomy, f"{bone}_right")[0] < -40
    for mark in ("ala", "anterior_foramina"):
        assert (anatomy.landmarks[f"{mark}_left"][:, 0] > 0).all()
        assert (anatomy.landmarks[f"{mark}_right"][:, 0] < 0).all()
    assert centre_mm(anatomy, "l5")[2] > centre_mm(anatomy, "sacrum")[2] > centre_mm(anatomy, "coccyx")[2]
    assert centre_mm(anatomy, "canal")[1] > anatomy.landmarks["s1_endplate_centre"][0, 1]
    assert centre_mm(anatomy, "sacrum")[1] > centre_mm(anatomy, "hip_left")[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_canal_lies_within_the_sacrums_hull_and_on_its_centreline(seed: int) -> None:
    anatomy = pelvis(seed)
    bone = np.argwhere(anatomy.fields["sacrum"] < 0)
    hull = Delaunay(bone[ConvexHull(bone).vertices])
    canal = np.argwhere(anatomy.fields["canal"] < 0)
    assert np.mean(hull.find_simplex(canal) >= 0) > 0.9
    line = anatomy.landmarks["canal_centreline"]
    assert (np.diff(line[:, 2]) < 0).all()
    assert (value_mm(anatomy, "canal", line[1:-1]) < 0).mean() > 0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_canal_is_one_tube_closed_by_bone_at_s2(seed: int) -> None:
    anatomy = pelvis(seed)
    assert ndimage.label(anatomy.fields["canal"] < 0)[1] == 1
    line = anatomy.landmarks["canal_centreline"]
    middle, along = line[len(line) // 3], line[len(line) // 3 + 1] - line[len(line) // 3]
    back = np.array([0.0, -along[2], along[1]]) / np.hypot(along[1], along[2])
    steps = np.arange(0.0, 25.0, 0.5)[:, None]
    for direction in (back, -back):
        assert (value_mm(anatomy, "sacrum", middle + steps * direction) < 0).any()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("seed", SEEDS)
def test_foramina_are_open_from_the_canal_to_the_pelvis(seed: int, side: str) -> None:
    """Each mouth joins the canal through soft tissue within 25 mm, so the way is the foramen and not a detour."""
    anatomy = pelvis(seed)
    mouths = anatomy.landmarks[f"anterior_foramina_{side}"]
    assert mouths.shape == (4, 3)
    assert (np.diff(mouths[:, 2]) < 0).all()
    for mouth in mouths:
        first = np.rint(anatomy.geometry.to_index(mouth - 25.0)).astype(int)
        last = np.rint(anatomy.geometry.to_index(mouth + 25.0)).astype(int)
        box = tuple(slice(max(a, 0), b) for a, b in zip(first, last, strict=True))
        place = np.rint(anatomy.geometry.to_index(mouth)).astype(int) - [part.start for part in box]
        regions, _ = ndimage.label(anatomy.fields["sacrum"][box] >= 0)
        region = regions[tuple(place)]
        assert region > 0
        assert ((anatomy.fields["canal"][box] < 0) & (regions == region)).any()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("seed", SEEDS)
def test_foramina_have_bone_above_and_below(seed: int, side: str) -> None:
    """Between two mouths of one side lies bone: they are holes, not one slit."""
    anatomy = pelvis(seed)
    mouths = anatomy.landmarks[f"anterior_foramina_{side}"]
    for upper, lower in pairwise(mouths):
        down = (lower - upper) * [0.0, 1.0, 1.0]
        back = np.array([0.0, -down[2], down[1]]) / np.linalg.norm(down)
        way = (upper + lower) / 2.0 + np.arange(0.0, 12.0, 0.5)[:, None] * back
        assert (value_mm(anatomy, "sacrum", way) < 0).any()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("seed", SEEDS)
def test_ala_is_deep_inside_bone_and_hip_close_to_the_joint(seed: int, side: str) -> None:
    anatomy = pelvis(seed)
    assert value_mm(anatomy, "sacrum", anatomy.landmarks[f"ala_{side}"])[0] < -4.0
    sacrum, hip = anatomy.fields["sacrum"], anatomy.fields[f"hip_{side}"]
    shared = np.count_nonzero((sacrum < 40) & (hip < 40) & (sacrum > 0) & (hip > 0))
    joint_mm2 = shared * anatomy.geometry.voxel_ml * 1000.0 / 4.0
    assert joint_mm2 > 500.0


@pytest.mark.parametrize("seed", SEEDS)
def test_endplate_faces_up_and_forward_with_the_disc_on_it(seed: int) -> None:
    anatomy = pelvis(seed)
    centre, normal = anatomy.landmarks["s1_endplate_centre"], anatomy.landmarks["s1_endplate_normal"]
    assert np.linalg.norm(normal) == pytest.approx(1.0)
    assert normal[0, 2] > 0
    assert normal[0, 1] < 0
    assert value_mm(anatomy, "sacrum", centre - 8.0 * normal)[0] < 0
    assert value_mm(anatomy, "disc", centre + 4.0 * normal)[0] < 0
    assert value_mm(anatomy, "l5", centre + 22.0 * normal)[0] < 0


def test_same_seed_same_bytes_other_seed_other_pelvis() -> None:
    again = procedural_pelvis(np.random.default_rng(SEEDS[0]))
    assert again.name == pelvis(SEEDS[0]).name
    for name, field in pelvis(SEEDS[0]).fields.items():
        assert field.tobytes() == again.fields[name].tobytes()
    assert pelvis(SEEDS[1]).name != again.name
    assert volume_ml(pelvis(SEEDS[1]), "sacrum") != volume_ml(again, "sacrum")


def test_spacing_changes_the_grid_but_not_the_bone() -> None:
    parameters = draw_pelvis(np.random.default_rng(7))
    fine, coarse = (build_pelvis(parameters, spacing_mm=spacing) for spacing in (2.0, 3.0))
    assert coarse.geometry.spacing_mm == pytest.approx([3.0, 3.0, 3.0])
    for name in ("sacrum", "hip_left", "l5"):
        assert volume_ml(coarse, name) == pytest.approx(volume_ml(fine, name), rel=0.06)


def test_field_values_are_distances_near_the_surface() -> None:
    """The slope of each field across its surface is close to one: 1 mm of way is 1 mm of distance."""
    anatomy = pelvis(2)
    for name in ("sacrum", "canal", "hip_left", "l5"):
        values = anatomy.fields[name].astype(np.float32) * STEP_MM
        slope = np.sqrt(sum(part**2 for part in np.gradient(values, 2.0)))
        assert 0.75 < float(np.median(slope[np.abs(values) < 1.5])) < 1.2
