"""Spaces around the sacrum, asked at points whose place is known from the phantom's formulas."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
import pytest

from sacroleak.core.errors import ModelError
from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.structures import Compartment, Structure
from sacroleak.core.volume import LabelMap
from sacroleak.models.canal import sacral_frame
from sacroleak.models.compartments import Compartments, compartments
from sacroleak.models.distance import (
    DistanceField,
    Mask,
    closed,
    indices_of,
    near_field,
    outside_distance,
    signed_distance,
)
from sacroleak.models.limits import shipped_limits
from tests.phantoms import ALA_LEFT, Pose, anatomy, back_y, canal_y, front_y, half_width

Distance = Callable[[Mask, Geometry], DistanceField]
LIMITS = shipped_limits().compartments
UPRIGHT, TURNED = Pose(), Pose(nod=5.0, lean=-9.0, twist=14.0, shift=(-40.0, 5.0, -60.0))


def at_canal(z: float, x: float = 0.0, dorsal: float = 0.0) -> tuple[float, float, float]:
    """A point z mm high, x left, `dorsal` mm behind the canal's middle."""
    return x, float(canal_y(z)) + dorsal, z


PLACES: list[tuple[tuple[float, float, float], Compartment]] = [
    (ALA_LEFT, Compartment.INTRAOSSEOUS_SACRUM),
    (at_canal(15, dorsal=-3), Compartment.VENTRAL_CANAL),
    (at_canal(15, dorsal=3), Compartment.DORSAL_CANAL),
    (at_canal(-25, dorsal=-2.5), Compartment.VENTRAL_CANAL),
    (at_canal(-25, dorsal=2.5), Compartment.DORSAL_CANAL),
    (at_canal(28, x=22, dorsal=-12), Compartment.FORAMINA_LEFT),
    (at_canal(28, x=-22, dorsal=-12), Compartment.FORAMINA_RIGHT),
    (at_canal(6, x=19, dorsal=-10), Compartment.FORAMINA_LEFT),
    (at_canal(-15, x=-16, dorsal=-6), Compartment.FORAMINA_RIGHT),
    ((0.0, front_y(10) - 6, 10.0), Compartment.PRESACRAL),
    ((30.0, front_y(15, 30) - 4, 15.0), Compartment.PRESACRAL),
    ((-8.0, front_y(-30) - 8, -30.0), Compartment.PRESACRAL),
    ((0.0, back_y(10) + 6, 10.0), Compartment.DORSAL_SOFT_TISSUE),
    ((25.0, back_y(-5, 25) + 5, -5.0), Compartment.DORSAL_SOFT_TISSUE),
    ((float(half_width(10)) + 1.5, float(canal_y(10)) - 10, 10.0), Compartment.SACROILIAC_JOINT),
    ((-float(half_width(20)) - 1.5, float(canal_y(20)) - 5, 20.0), Compartment.SACROILIAC_JOINT),
    ((float(half_width(10)) + 12, float(canal_y(10)) - 10, 10.0), Compartment.ILIUM),
    (at_canal(55.5, x=5, dorsal=-20), Compartment.L5_S1_DISC),
    (at_canal(72, x=5, dorsal=-20), Compartment.L5),
    ((0.0, front_y(10) - 32, 10.0), Compartment.ELSEWHERE),
]


@lru_cache(maxsize=4)
def spaces_of(pose: Pose, grow_mm: float = 0.0) -> Compartments:
    return compartments(anatomy(pose, grow_mm), LIMITS, around_lps=pose.to_lps([p for p, _ in PLACES]))


@pytest.mark.parametrize("pose", [UPRIGHT, TURNED], ids=["upright", "turned"])
@pytest.mark.parametrize(("place", "wanted"), PLACES)
def test_known_places_lie_in_their_compartment(pose: Pose, place: tuple[float, ...], wanted: Compartment) -> None:
    code = spaces_of(pose).at(pose.to_lps([place]))[0]
    assert Compartment(int(code)) is wanted


@pytest.mark.parametrize("grow_mm", [-1.0, 1.0])
def test_one_millimetre_of_contour_error_moves_no_clear_place(grow_mm: float) -> None:
    # A joint of 3 mm and a disc's edge are within reach of that error; the other places are not.
    clear = [(p, c) for p, c in PLACES if c is not Compartment.SACROILIAC_JOINT]
    codes = spaces_of(UPRIGHT, grow_mm).at(UPRIGHT.to_lps([p for p, _ in clear]))
    assert [Compartment(int(c)) for c in codes] == [c for _, c in clear]


@pytest.mark.parametrize("pose", [UPRIGHT, TURNED], ids=["upright", "turned"])
def test_the_frame_follows_the_patient(pose: Pose) -> None:
    frame = sacral_frame(anatomy(pose))
    assert frame.notes == ()
    tilt = np.degrees(np.arccos(min(1.0, float(frame.left @ pose.matrix()[:, 0]))))
    assert tilt < 2.0
    levels = np.array([at_canal(z) for z in (-35.0, -15.0, 5.0, 25.0, 40.0)])
    local = frame.local(pose.to_lps(levels))
    assert np.abs(local.left_mm).max() < 1.0
    assert np.abs(local.dorsal_mm).max() < 1.5
    assert (np.diff(local.along_mm) > 15).all()


def test_bone_distance_is_right_between_voxels() -> None:
    spaces = spaces_of(UPRIGHT)
    depths = np.array([-6.0, -3.0, -1.0, 1.0, 3.0, 8.0, 15.0, 23.0])
    # Straight in front of the ala at one height, where the cortex is nearly a plane.
    points = UPRIGHT.to_lps([(32.0, front_y(0.0, 32.0) - d, 0.0) for d in depths])
    measured = spaces.bone_distance_mm(points)
    assert np.abs(measured - depths)[1:5].max() < 0.5
    assert (np.diff(measured) > 0).all()
    far = spaces.bone_distance_mm(UPRIGHT.to_lps([(32.0, front_y(0.0, 32.0) - 120.0, 0.0)]))
    assert 80 < far[0] < 125


def test_holes_a_network_left_in_bone_count_as_bone() -> None:
    whole = anatomy(UPRIGHT)
    labels = whole.labels.copy()
    centre = np.rint(whole.geometry.to_index(UPRIGHT.to_lps([ALA_LEFT]))[0]).astype(int)
    block = tuple(slice(int(c) - 3, int(c) + 4) for c in centre)
    labels[block] = Structure.BACKGROUND
    holed = LabelMap(labels=labels, geometry=whole.geometry)
    place = UPRIGHT.to_lps([ALA_LEFT])
    assert compartments(holed, LIMITS, around_lps=place).at(place)[0] == Compartment.INTRAOSSEOUS_SACRUM


def _without(*structures: Structure) -> LabelMap:
    whole = anatomy(UPRIGHT)
    return LabelMap(labels=np.where(np.isin(whole.labels, structures), np.uint8(0), whole.labels),
                    geometry=whole.geometry)


def test_one_hip_out_of_view_is_said_and_survived() -> None:
    cut = _without(Structure.HIP_RIGHT)
    frame = sacral_frame(cut)
    assert any("hips" in note for note in frame.notes)
    assert float(frame.left @ UPRIGHT.matrix()[:, 0]) > 0.99


def test_no_canal_is_said_and_survived() -> None:
    frame = sacral_frame(_without(Structure.SACRAL_CANAL))
    assert any("canal" in note for note in frame.notes)
    front, behind = UPRIGHT.to_lps([(0.0, front_y(10) - 6, 10.0), (0.0, back_y(10) + 6, 10.0)])
    spaces = compartments(_without(Structure.SACRAL_CANAL), LIMITS, around_lps=np.array([front, behind]))
    assert spaces.at(np.array([front, behind])).tolist() == [Compartment.PRESACRAL, Compartment.DORSAL_SOFT_TISSUE]


def test_a_disc_is_known_without_l5_in_view() -> None:
    place = UPRIGHT.to_lps([at_canal(54.0, x=5, dorsal=-20)])
    assert compartments(_without(Structure.L5), LIMITS, around_lps=place).at(place)[0] == Compartment.L5_S1_DISC


def test_without_sacrum_there_is_nothing_to_measure_against() -> None:
    with pytest.raises(ModelError, match="no sacrum"):
        sacral_frame(_without(Structure.SACRUM))


def test_no_points_give_no_codes() -> None:
    empty: Points = np.zeros((0, 3))
    assert spaces_of(UPRIGHT).at(empty).shape == (0,)


@pytest.mark.parametrize("pose", [UPRIGHT, TURNED], ids=["upright", "turned"])
def test_a_place_has_its_compartment_whatever_else_is_asked(pose: Pose) -> None:
    spaces, points = spaces_of(pose), pose.to_lps([p for p, _ in PLACES])
    alone = [int(spaces.at(point[None])[0]) for point in points]
    assert spaces.at(points).tolist() == alone


def test_far_beyond_what_is_seen_lies_elsewhere() -> None:
    far = UPRIGHT.to_lps([(0.0, -400.0, 0.0), (0.0, 0.0, 900.0), (-500.0, 30.0, 10.0)])
    assert spaces_of(UPRIGHT).at(far).tolist() == [Compartment.ELSEWHERE] * 3


@pytest.mark.parametrize("distance", [signed_distance, outside_distance])
def test_near_a_thing_its_distance_is_the_same_and_beyond_it_is_known_to_be_more(distance: Distance) -> None:
    rng = np.random.default_rng(4)
    grid = Geometry.axis_aligned(origin_lps_mm=(3, -2, 9), spacing_mm=(0.8, 1.0, 2.5), shape=(50, 44, 20))
    mask = np.zeros(grid.shape, dtype=np.bool_)
    mask[18:30, 20:44, 8:12] = rng.random((12, 24, 4)) > 0.3
    reach_mm = 4.0
    whole, near = distance(mask, grid), near_field(distance, mask, grid, reach_mm)
    points = grid.to_lps(rng.uniform(-2, 52, (4000, 3)) * (1.0, 0.9, 0.4))
    wanted, got = whole.at(points), near.at(points)
    close = wanted <= reach_mm
    assert 200 < close.sum() < 3800
    assert (got[close] == wanted[close]).all()
    assert (got[~close] > reach_mm).all()
    nothing = near_field(distance, np.zeros_like(mask), grid, reach_mm)
    assert (nothing.values == distance(np.zeros_like(mask), grid).values).all()


def test_a_mask_is_closed_the_same_however_much_room_is_around_it() -> None:
    rng = np.random.default_rng(5)
    mask = np.pad(rng.random((14, 10, 8)) > 0.8, 6)
    grid = Geometry.axis_aligned(origin_lps_mm=(0, 0, 0), spacing_mm=(1.0, 1.2, 1.0), shape=mask.shape)
    roomy = np.pad(mask, 5)
    wide = Geometry.axis_aligned(origin_lps_mm=(0, 0, 0), spacing_mm=(1.0, 1.2, 1.0), shape=roomy.shape)
    assert (closed(roomy, wide, 2.5) == np.pad(closed(mask, grid, 2.5), 5)).all()
    assert closed(mask, grid, 2.5).sum() > mask.sum()
    assert not closed(np.zeros_like(mask), grid, 2.5).any()


@pytest.mark.parametrize("order", ["C", "F"])
def test_indices_of_a_mask_are_those_of_argwhere(order: Literal["C", "F"]) -> None:
    mask = np.asarray(np.random.default_rng(6).random((7, 5, 9)) > 0.7, order=order)
    assert (indices_of(mask) == np.argwhere(mask)).all()
    assert indices_of(mask[::2, ::-1]).tolist() == np.argwhere(mask[::2, ::-1]).tolist()
    assert indices_of(np.zeros((2, 3, 4), dtype=np.bool_)).shape == (0, 3)


def test_signed_distance_of_a_block_and_closing_of_a_slit() -> None:
    grid = Geometry.axis_aligned(origin_lps_mm=(0, 0, 0), spacing_mm=1.0, shape=(40, 40, 40))
    block = np.zeros(grid.shape, dtype=np.bool_)
    block[10:30, 10:30, 10:30] = True
    field = signed_distance(block, grid)
    # The block's faces lie at 9.5 and 29.5.
    places = np.array([(5.0, 20.0, 20.0), (9.5, 20.0, 20.0), (12.0, 20.0, 20.0), (33.0, 20.0, 20.0)])
    assert field.at(places) == pytest.approx([4.5, 0.0, -2.5, 3.5], abs=1e-5)
    assert field.direction_at(places[:1])[0] == pytest.approx([-1, 0, 0], abs=1e-3)
    slit = block.copy()
    slit[18:22] = False
    assert closed(slit, grid, 4.0)[20, 20, 20]
    assert not closed(slit, grid, 1.5)[20, 20, 20]
