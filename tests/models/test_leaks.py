"""What is a leak and what is noise, and how a leak is divided."""

from __future__ import annotations

import numpy as np
import pytest

from sacroleak.core.structures import Compartment
from sacroleak.models.compartments import Compartments, compartments
from sacroleak.models.leaks import Cement, LeakPart, Rows, divide, find_leaks, place_cement
from sacroleak.models.limits import shipped_limits
from sacroleak.models.segmentation import Segmentation
from tests.phantoms import (
    Pose,
    Shape,
    alar_cement,
    back_y,
    ball,
    canal_y,
    cement_at,
    ellipsoid,
    front_y,
    half_width,
    tube,
)

LIMITS = shipped_limits()
VOXEL_ML = 0.8 * 0.8 * 1.0 / 1000.0


def placed(scan: Segmentation) -> tuple[Cement, Compartments]:
    grid = scan.cement.geometry
    mask = np.asarray(scan.cement.labels, dtype=np.bool_)
    spaces = compartments(scan.anatomy, LIMITS.compartments, around_lps=grid.to_lps(np.argwhere(mask)))
    return place_cement(mask, grid, spaces, LIMITS.leaks), spaces


def leaks_of(scan: Segmentation) -> tuple[list[Rows], Cement, Compartments]:
    cement, spaces = placed(scan)
    return find_leaks(cement, LIMITS.leaks), cement, spaces


def parts_of(scan: Segmentation, *, whole: bool = False) -> list[LeakPart]:
    found, cement, spaces = leaks_of(scan)
    return [p for leak in found for p in divide(leak, cement, spaces, LIMITS.leaks, whole=lambda *_: whole)]


def main_compartment(part: LeakPart) -> Compartment:
    values, counts = np.unique(part.codes, return_counts=True)
    return Compartment(int(values[np.argmax(counts)]))


def test_cement_inside_the_bone_is_no_leak() -> None:
    assert leaks_of(cement_at(alar_cement()))[0] == []


@pytest.mark.parametrize("beyond", [0.5, 1.0])
def test_a_rim_of_contour_noise_is_no_leak(beyond: float) -> None:
    touching = ball((32.0, front_y(15, 32) + 8.0 - beyond, 15.0), 8.0)
    assert leaks_of(cement_at(touching))[0] == []


@pytest.mark.parametrize(("shapes", "space", "as_elsewhere"), [
    ((alar_cement(-1), ellipsoid((float(half_width(10)), float(canal_y(10)) - 8, 10.0), (1.0, 4, 4))),
     Compartment.SACROILIAC_JOINT, LIMITS.leaks.surface_depth_mm),
    ((ball((0.0, float(canal_y(20)) - 13.0, 20.0), 8.0),), Compartment.VENTRAL_CANAL, LIMITS.leaks.depth_mm)])
def test_a_narrow_space_holds_a_leak_no_deeper_than_noise(
    shapes: tuple[Shape, ...], space: Compartment, as_elsewhere: float,
) -> None:
    found, cement, spaces = leaks_of(cement_at(*shapes))
    assert len(found) == 1
    assert cement.excess_mm[found[0]].max() < 0
    assert (spaces.at(cement.points[found[0]]) == space).all()
    assert find_leaks(cement, LIMITS.leaks.model_copy(update={"narrow_depth_mm": as_elsewhere})) == []


def test_two_leaks_of_one_cement_body_stay_two() -> None:
    # Joined only by the cement inside and the rim along the cortex.
    body = ball((32.0, front_y(15, 32) + 8.0, 15.0), 8.6)
    ahead = ball((26.0, front_y(15, 26) - 3.0, 11.0), 3.0), ball((38.0, front_y(15, 38) - 3.0, 20.0), 3.0)
    assert len(leaks_of(cement_at(body, *ahead))[0]) == 2


def test_a_thin_vein_on_the_cortex_is_seen_though_it_is_no_deeper_than_noise() -> None:
    line = [(32.0, front_y(z, 32.0) - 0.9, z) for z in np.arange(25.0, 0.0, -2.0)]
    found, cement, _ = leaks_of(cement_at(alar_cement(-1), tube(line, 2.0)))
    assert len(found) == 1
    assert cement.bone_mm[found[0]].max() < 2.2


def test_the_leak_keeps_its_foot_on_the_bone() -> None:
    found, cement, _ = leaks_of(cement_at(ball((30.0, front_y(15, 30) - 4.0, 15.0), 5.0)))
    assert cement.bone_mm[found[0]].min() < 0.6


def test_fragments_of_a_tube_in_thick_slices_are_one_leak() -> None:
    line = [(30.0, front_y(z, 30.0) - 4.0, z) for z in np.arange(26.0, -8.0, -2.0)]
    found, cement, _ = leaks_of(cement_at(tube(line, 2.0), spacing=(0.8, 0.8, 5.0)))
    assert len(found) == 1
    assert np.ptp(cement.points[found[0]][:, 2]) >= 20


def test_front_and_canal_are_divided_at_their_border() -> None:
    # A leak through the foramen: from the canal onto the pelvic surface.
    y = float(canal_y(28.0))
    through = tube([(6.0, y - 3.0, 28.0), (16.0, y - 2.0, 28.0), (22.0, y - 8.0, 28.0),
                    (22.0, front_y(28, 22) - 6.0, 28.0), (24.0, front_y(15, 24) - 6.0, 15.0)], 4.0)
    parts = parts_of(cement_at(through))
    shares = [(np.mean(p.codes == Compartment.VENTRAL_CANAL), np.mean(p.codes == Compartment.PRESACRAL)) for p in parts]
    assert any(canal > 0.9 and front == 0 for canal, front in shares)
    assert any(canal < 0.1 and front > 0.3 for canal, front in shares)


def test_every_voxel_of_a_leak_is_in_exactly_one_part() -> None:
    scan = cement_at(ellipsoid((5.0, float(canal_y(15)), 15.0), (7, 6, 12)), ball((30, front_y(20, 30) - 5, 20), 6))
    found, cement, spaces = leaks_of(scan)
    for leak in found:
        parts = divide(leak, cement, spaces, LIMITS.leaks, whole=lambda *_: False)
        assert np.array_equal(np.sort(np.concatenate([p.rows for p in parts])), leak)


def test_small_parts_join_their_neighbour() -> None:
    parts = parts_of(cement_at(ball((2.0, float(canal_y(15)) - 2.6, 15.0), 3.2)))
    assert len(parts) == 1
    assert main_compartment(parts[0]) is Compartment.VENTRAL_CANAL


@pytest.mark.parametrize(("low", "top", "spaces"), [
    (20.0, 58.0, [Compartment.PRESACRAL]),  # its end in the disc has a third of what lies below
    (28.0, 58.0, [Compartment.PRESACRAL, Compartment.L5_S1_DISC]),
    (38.0, 62.0, [Compartment.L5_S1_DISC, Compartment.PRESACRAL]),
])
def test_a_leak_whose_end_reaches_into_the_disc_is_one(low: float, top: float, spaces: list[Compartment]) -> None:
    line = [(4.0, float(front_y(z, 4.0)) - 3.0, z) for z in np.arange(low, 47.0, 2.0)]
    parts = parts_of(cement_at(tube([*line, (4.0, float(front_y(46.0, 4.0)) + 2.0, top)], 6.0)))
    assert [main_compartment(part) for part in sorted(parts, key=lambda part: -len(part.rows))] == spaces
    assert sum((part.codes == Compartment.L5_S1_DISC).sum() for part in parts) > LIMITS.leaks.part_ml / VOXEL_ML


@pytest.mark.parametrize(("above", "spaces"), [
    (8.0, [Compartment.PRESACRAL]),
    (40.0, [Compartment.ELSEWHERE, Compartment.PRESACRAL]),
])
def test_a_leak_whose_end_reaches_where_nothing_has_a_name_is_one(above: float, spaces: list[Compartment]) -> None:
    front = float(front_y(15, 20.0))
    end = front - LIMITS.compartments.presacral_reach_mm - above
    parts = parts_of(cement_at(tube([(20.0, front, 15.0), (20.0, end, 15.0)], 6.0)))
    assert [main_compartment(part) for part in sorted(parts, key=lambda part: -len(part.rows))] == spaces
    assert sum((part.codes == Compartment.ELSEWHERE).sum() for part in parts) > LIMITS.leaks.part_ml / VOXEL_ML


def test_a_full_canal_is_divided_into_front_and_back() -> None:
    parts = parts_of(cement_at(ellipsoid((0.0, float(canal_y(15)), 15.0), (7, 5, 12))))
    assert {main_compartment(p) for p in parts} == {Compartment.VENTRAL_CANAL, Compartment.DORSAL_CANAL}


def test_what_leaks_into_the_front_half_of_the_canal_and_reaches_a_little_behind_its_middle_is_not_divided() -> None:
    (part,) = parts_of(cement_at(ellipsoid((0.0, float(canal_y(15)), 15.0), (3, 3, 4))))
    behind = (part.codes == Compartment.DORSAL_CANAL).mean()
    assert LIMITS.leaks.canal_minor_share < behind < 1 - LIMITS.leaks.canal_front_share


def test_one_course_is_kept_whole_across_borders() -> None:
    from_bone = (36.0, back_y(22, 36) - 4.0, 22.0)
    line = tube([from_bone, (60.0, back_y(22, 36) + 45.0, 30.0)], 3.0)
    assert len(parts_of(cement_at(alar_cement(), line), whole=True)) == 1
    assert len(parts_of(cement_at(alar_cement(), line), whole=False)) > 1


@pytest.mark.parametrize(("place", "name"), [((5.0, float(canal_y(72)) - 20.0, 72.0), "L5"),
                                             ((60.0, float(canal_y(10)) - 8.0, 10.0), "ilium")])
def test_cement_of_another_treatment_is_named_and_left_alone(place: tuple[float, ...], name: str) -> None:
    found, cement, _ = leaks_of(cement_at(alar_cement(-1), ball(place, 5.5)))
    assert found == []
    assert cement.foreign.any()
    assert len(cement.notes) == 1
    assert name in cement.notes[0]


def test_a_leak_in_the_disc_ends_where_a_filled_l5_begins() -> None:
    middle = float(canal_y(66)) - 20.0
    source, disc = ball((5.0, middle, 48.0), 7.0), tube([(5.0, middle, 48.0), (5.0, middle, 66.0)], 6.0)
    alone, _, _ = leaks_of(cement_at(source, disc))
    found, cement, _ = leaks_of(cement_at(source, disc, ball((5.0, middle, 75.0), 8.0)))
    assert len(found) == len(alone) == 1
    assert cement.volume_ml(found[0]) == pytest.approx(cement.volume_ml(alone[0]), rel=0.35)
    assert cement.volume_ml(cement.foreign) > LIMITS.leaks.foreign_l5_ml
    assert "L5" in cement.notes[0]


def test_cement_far_away_is_named_and_not_judged() -> None:
    found, cement, _ = leaks_of(cement_at(alar_cement(), ball((0.0, front_y(10) - 60.0, 10.0), 4.0)))
    assert found == []
    assert "not judged" in cement.notes[0]


def test_flipping_the_array_with_its_affine_finds_the_same_leaks() -> None:
    shapes = alar_cement(), ball((30, front_y(20, 30) - 5, 20), 5)
    plain, turned = cement_at(*shapes), cement_at(*shapes, flip=(0, 2))
    volumes = [[c.volume_ml(leak) for leak in leaks] for leaks, c, _ in (leaks_of(plain), leaks_of(turned))]
    assert volumes[0] == pytest.approx(volumes[1])
    assert len(volumes[0]) == 1


def test_other_poses_measure_the_same_distances() -> None:
    shapes = (ball((30, front_y(20, 30) - 5, 20), 5),)
    depths = [placed(cement_at(*shapes, pose=pose))[0].bone_mm.max() for pose in (Pose(), Pose(lean=-9.0, twist=14.0))]
    assert depths[0] == pytest.approx(depths[1], abs=0.7)
