"""Bone guessed behind hidden cement: bulges go, holes and bone of the other side are kept, all else stays as it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import distance_transform_edt, gaussian_filter

from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap
from sacroleak.models.distance import Mask
from sacroleak.models.guessed import GUESSED_MM, SOLID_SHARE, SURELY_BONE, SURROUNDINGS_MM, without_guesses
from tests.phantoms import FORAMEN_LEVELS, Pose, Shape, anatomy, ball, canal_y, ellipsoid

POSE = Pose(twist=6.0, lean=4.0)
HEIGHT, ASIDE, RADIUS = FORAMEN_LEVELS[0]
FORAMEN = (ASIDE, float(canal_y(HEIGHT)) - 16.0, HEIGHT)
"""A place in the left first foramen, in the phantom's own frame."""
AIR = -1024.0


def own(labels: LabelMap) -> npt.NDArray[np.float64]:
    """(n, 3) mm of every voxel in the phantom's own frame."""
    return POSE.to_own(labels.geometry.to_lps(np.argwhere(np.ones(labels.geometry.shape, dtype=bool))))


def within(shape: Shape, labels: LabelMap) -> Mask:
    inside: Mask = (shape(own(labels)) <= 0).reshape(labels.geometry.shape)
    return inside


def filled(bones: LabelMap, where: Mask) -> LabelMap:
    """The same with all that is soft there called sacrum."""
    labels = bones.labels.copy()
    labels[where & (labels == Structure.BACKGROUND)] = Structure.SACRUM
    return LabelMap(labels=labels, geometry=bones.geometry)


def seen(bones: LabelMap) -> npt.NDArray[np.float32]:
    return np.full(bones.geometry.shape, 40.0, dtype=np.float32)


def open_share(bones: LabelMap, found: LabelMap, where: Mask) -> float:
    """Of the truly soft voxels there."""
    soft = where & (bones.labels == Structure.BACKGROUND)
    return float((found.labels[soft] == Structure.BACKGROUND).mean())


def slab(thick: int = 20) -> LabelMap:
    """A sacrum with a flat top at index `thick`, on a grid of 60 mm."""
    labels = np.zeros((60, 60, 60), dtype=np.uint8)
    labels[:, :, :thick] = Structure.SACRUM
    return LabelMap(labels=labels, geometry=Geometry.axis_aligned(origin_lps_mm=(0, 0, 0), spacing_mm=1.0,
                                                                  shape=labels.shape))


def ball_at(bones: LabelMap, centre: tuple[float, float, float], radius: float) -> Mask:
    places = np.argwhere(np.ones(bones.geometry.shape, dtype=bool))
    near: Mask = (np.linalg.norm(places - centre, axis=1) <= radius).reshape(bones.geometry.shape)
    return near


@pytest.mark.parametrize("radius", [3.0, 5.0, 7.0])
def test_a_lump_of_hidden_cement_on_bone_is_no_bone(radius: float) -> None:
    bones = slab()
    lump = ball_at(bones, (30, 30, 20 + radius), radius)
    found = without_guesses(filled(bones, lump), lump, seen(bones), voxel_mm=1.0)
    assert open_share(bones, found, lump) > 0.8


@pytest.mark.parametrize("centre", [(30, 30, 24), (30, 1, 24), (30, 58, 22)], ids=["inside", "edge", "far edge"])
def test_bulges_are_taken_off_as_if_all_were_looked_at_in_every_turn(centre: tuple[float, float, float]) -> None:
    bones = slab()
    lump = ball_at(bones, centre, 6.0)
    filled_in = filled(bones, lump)
    solid, turns = filled_in.labels != Structure.BACKGROUND, 0
    may_go = distance_transform_edt(~lump) <= GUESSED_MM + 1.0
    while (going := may_go & solid & (gaussian_filter(solid.astype(np.float32), SURROUNDINGS_MM, mode="nearest",
                                                      truncate=2.0) < SOLID_SHARE)).any():
        solid, turns = solid & ~going, turns + 1
    found = without_guesses(filled_in, lump, seen(bones), voxel_mm=1.0)
    assert turns > 2, "or nothing is shown"
    assert np.array_equal(found.labels != Structure.BACKGROUND, solid)


def test_cement_in_bone_up_to_its_surface_leaves_the_surface() -> None:
    bones = slab()
    hidden = ball_at(bones, (30, 30, 12), 8.0)
    assert np.array_equal(without_guesses(bones, hidden, seen(bones), voxel_mm=1.0).labels, bones.labels)


def test_what_stands_out_far_from_hidden_cement_stays() -> None:
    bones = filled(slab(), ball_at(slab(), (15, 15, 23), 4.0))
    hidden = ball_at(bones, (42, 42, 10), 5.0)
    assert np.array_equal(without_guesses(bones, hidden, seen(bones), voxel_mm=1.0).labels, bones.labels)


def test_nothing_hidden_changes_nothing() -> None:
    bones = anatomy(POSE)
    assert without_guesses(bones, np.zeros(bones.geometry.shape, dtype=bool), seen(bones), voxel_mm=1.0) is bones


@pytest.mark.parametrize("side", [1, -1])
def test_a_foramen_that_is_open_on_the_other_side_is_opened(side: int) -> None:
    bones = anatomy(POSE)
    leak = within(ellipsoid((side * FORAMEN[0], *FORAMEN[1:]), (RADIUS, 9.0, RADIUS)), bones)
    closed = filled(bones, leak)
    assert open_share(bones, closed, leak) == 0
    assert open_share(bones, without_guesses(closed, leak, seen(bones), voxel_mm=1.0), leak) > 0.6


def test_what_is_hidden_on_both_sides_says_nothing_of_each_other() -> None:
    bones = anatomy(POSE)
    leak = within(ellipsoid(FORAMEN, (RADIUS, 9.0, RADIUS)), bones)
    other = within(ball((-FORAMEN[0], *FORAMEN[1:]), RADIUS + 9.0), bones)
    closed = filled(bones, leak)
    assert open_share(bones, without_guesses(closed, leak | other, seen(bones), voxel_mm=1.0), leak) < 0.2


def test_a_side_beyond_the_scan_says_nothing() -> None:
    bones = anatomy(POSE)
    leak = within(ellipsoid(FORAMEN, (RADIUS, 9.0, RADIUS)), bones)
    closed = filled(bones, leak)
    hu = seen(bones)
    hu[(own(bones)[:, 0] < 5).reshape(hu.shape)] = AIR
    assert open_share(bones, without_guesses(closed, leak, hu, voxel_mm=1.0), leak) < 0.2


@pytest.mark.parametrize("place", [(38.0, -10.0, 26.0), FORAMEN, (0.0, -30.0, 30.0), (0.0, 0.0, 10.0)])
def test_where_all_was_drawn_as_bone_some_may_go_and_the_canal_stays(place: tuple[float, float, float]) -> None:
    bones = anatomy(POSE)
    hidden = within(ball(place, 9.0), bones)
    before = filled(bones, hidden)
    after = without_guesses(before, hidden, seen(bones), voxel_mm=3.0)
    changed = before.labels != after.labels
    assert (after.labels[changed] == Structure.BACKGROUND).all()
    assert np.array_equal(before.labels == Structure.SACRAL_CANAL, after.labels == Structure.SACRAL_CANAL)


@pytest.mark.parametrize("radius", [6.0, 9.0])
def test_cement_deep_in_one_ala_takes_no_bone(radius: float) -> None:
    bones = anatomy(POSE)
    hidden = within(ball((38.0, -10.0, 26.0), radius), bones) & (bones.labels == Structure.SACRUM)
    after = without_guesses(bones, hidden, seen(bones), voxel_mm=1.0)
    lost = np.count_nonzero(bones.labels != after.labels) / np.count_nonzero(hidden)
    assert lost < 0.03


ALA = (38.0, -10.0, 26.0)


def hollowed(bones: LabelMap, hidden: Mask) -> LabelMap:
    """The same with the sacrum cut off where it is hidden, as a network does with a facet full of cement."""
    labels = bones.labels.copy()
    labels[hidden & (labels == Structure.SACRUM)] = Structure.BACKGROUND
    return LabelMap(labels=labels, geometry=bones.geometry)


def regained(bones: LabelMap, hidden: Mask, hu: npt.NDArray[np.float32], *, beside: Mask | None = None,
             odds: float | None = None) -> float:
    """Share of the hidden bone, drawn as none, that is bone again; `beside` is hidden too; `odds` of bone there."""
    lost = hidden & (bones.labels == Structure.SACRUM)
    marked = hidden if beside is None else hidden | beside
    said = None if odds is None else np.where(marked, np.float32(odds), np.float32(1.0))
    found = without_guesses(hollowed(bones, hidden), marked, hu, voxel_mm=1.0, odds=said)
    new = (found.labels == Structure.SACRUM) & (bones.labels != Structure.SACRUM)
    assert new.sum() < 0.05 * lost.sum(), "hardly any where there was none: the mirror is right to half a voxel"
    return float((found.labels[lost] == Structure.SACRUM).mean())


@pytest.mark.parametrize("side", [1, -1])
def test_bone_that_the_other_side_has_is_given_back(side: int) -> None:
    bones = anatomy(POSE)
    hidden = within(ball((side * ALA[0], *ALA[1:]), 9.0), bones)
    assert regained(bones, hidden, seen(bones)) > 0.9


def test_bone_is_not_given_back_by_a_side_that_is_hidden_or_beyond_the_scan() -> None:
    bones = anatomy(POSE)
    hidden = within(ball(ALA, 9.0), bones)
    assert regained(bones, hidden, seen(bones), beside=within(ball((-ALA[0], *ALA[1:]), 18.0), bones)) < 0.1
    unseen = seen(bones)
    unseen[(own(bones)[:, 0] < 5).reshape(unseen.shape)] = AIR
    assert regained(bones, hidden, unseen) < 0.1


def test_bone_is_given_back_only_where_the_cement_in_view_looks_like_bone() -> None:
    bones = anatomy(POSE)
    hidden = within(ball(ALA, 9.0), bones)
    assert regained(bones, hidden, seen(bones), odds=SURELY_BONE) > 0.9
    assert regained(bones, hidden, seen(bones), odds=0.9 * SURELY_BONE) == 0


def test_a_leak_on_the_bone_stays_outside_it() -> None:
    """Cement in the ala and a sheet of it, 4 mm thick, on the bone's surface beside it."""
    bones = anatomy(POSE)
    bone = bones.labels != Structure.BACKGROUND
    skin = (distance_transform_edt(~bone) <= 4.0) & ~bone
    hidden = within(ball(ALA, 9.0), bones) | (skin & within(ball(ALA, 26.0), bones))
    found = without_guesses(hollowed(bones, hidden), hidden, seen(bones), voxel_mm=1.0)
    assert (found.labels[skin & hidden] == Structure.BACKGROUND).mean() > 0.85
