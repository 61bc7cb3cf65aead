"""Length, thickness and course of voxel parts against shapes whose measures are known."""

from __future__ import annotations

import numpy as np
import pytest

from sacroleak.core.geometry import Geometry, Points
from sacroleak.models.course import Course, measure_course
from tests.phantoms import Pose, Shape, ball, cement_at, ellipsoid, tube

FLAT = Pose(nod=0.0, shift=(0.0, 0.0, 0.0))
BEND = [(0.0, 0.0, 0.0), (8.0, 2.0, -6.0), (6.0, -3.0, -14.0), (14.0, -2.0, -22.0), (12.0, 3.0, -32.0)]
THIN, THICK, THICKER = (0.7, 0.7, 0.8), (0.7, 0.7, 3.0), (0.8, 0.8, 5.0)


def course_of(shape: Shape, spacing: tuple[float, float, float], turn: Points | None = None) -> Course:
    cement = cement_at(shape, pose=FLAT, spacing=spacing, turn=turn).cement
    return measure_course(np.argwhere(cement.labels), cement.geometry)


def turned(degrees: float) -> Points:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.asarray(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]))


@pytest.mark.parametrize("diameter", [2.0, 3.0, 4.0])
@pytest.mark.parametrize("towards", [(1, 0, 0), (0, 0, 1), (1, 1, 1), (0.2, 1, -0.4)])
def test_a_straight_tube_has_its_length_and_thickness(diameter: float, towards: tuple[float, float, float]) -> None:
    way = np.asarray(towards, dtype=np.float64)
    course = course_of(tube([(0, 0, 0), way / np.linalg.norm(way) * 30], diameter), THIN)
    assert course.length_mm == pytest.approx(30 + diameter, abs=2.5)
    assert course.thickness_mm == pytest.approx(diameter, rel=0.2)
    assert course.straightness > 0.96


@pytest.mark.parametrize("spacing", [THIN, THICK, THICKER])
def test_a_thin_tube_stays_thin_and_long_in_thick_slices(spacing: tuple[float, float, float]) -> None:
    course = course_of(tube(BEND, 2.6), spacing)
    true_length = float(np.linalg.norm(np.diff(np.array(BEND), axis=0), axis=1).sum())
    assert course.length_mm == pytest.approx(true_length, rel=0.25)
    assert course.thickness_mm < 4.0
    assert course.straightness < 0.95


def test_a_tube_lying_in_a_thick_slice_is_measured_by_its_other_width() -> None:
    course = course_of(tube([(0, 0, 0), (30, 4, 0)], 2.6), THICKER)
    # Without the correction it would be 2 * sqrt(2.6 * 5 / pi) = 4.1 mm and no longer look like a vein or a track.
    assert 1.2 < course.thickness_mm < 3.5


def test_turning_the_grid_changes_nothing_that_matters() -> None:
    straight, oblique = course_of(tube(BEND, 3.0), (1.0, 1.0, 1.0)), course_of(tube(BEND, 3.0), (1.0, 1.0, 1.0),
                                                                              turned(33.0))
    assert oblique.length_mm == pytest.approx(straight.length_mm, rel=0.08)
    assert oblique.thickness_mm == pytest.approx(straight.thickness_mm, rel=0.15)


def test_a_ball_and_a_plate_are_not_tubes() -> None:
    round_, flat = course_of(ball((0, 0, 0), 6.0), THIN), course_of(ellipsoid((0, 0, 0), (12, 12, 2.5)), THIN)
    assert round_.length_mm / round_.thickness_mm < 2.0
    assert flat.thickness_mm > 4.5


def test_branches_do_not_thicken_the_stem() -> None:
    stem = tube([(0, 0, 0), (0, 0, 40)], 2.4)
    twigs = tube([(0, 0, 15), (12, 0, 20)], 2.4), tube([(0, 0, 25), (-10, 3, 30)], 2.4)
    cement = cement_at(stem, *twigs, pose=FLAT, spacing=THIN).cement
    course = measure_course(np.argwhere(cement.labels), cement.geometry)
    assert course.thickness_mm == pytest.approx(2.4, rel=0.25)
    assert course.length_mm == pytest.approx(42, rel=0.1)


def test_a_longer_tube_measures_longer_and_no_thicker() -> None:
    before: Course | None = None
    for length in (10, 16, 24, 34, 46):
        course = course_of(tube([(0, 0, 0), (0, 0, length)], 2.6), THIN)
        if before is not None:
            assert course.length_mm > before.length_mm
            assert course.thickness_mm <= before.thickness_mm * 1.05
        before = course


def test_one_voxel_and_fragments_can_be_measured() -> None:
    grid = Geometry.axis_aligned(origin_lps_mm=(0, 0, 0), spacing_mm=(0.5, 0.5, 5.0), shape=(9, 9, 9))
    single = measure_course(np.array([[4, 4, 4]]), grid)
    assert np.isfinite([single.length_mm, single.thickness_mm]).all()
    assert single.straightness == 1.0
    fragments = measure_course(np.array([[0, 0, 0], [0, 1, 0], [6, 6, 1], [7, 6, 1], [8, 8, 3]]), grid)
    assert fragments.length_mm > 14.0
