"""Labels from one grid to another: in place, of the right volume, and as counting points inside each voxel says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.transform import Rotation

from sacroleak.core.geometry import Geometry
from sacroleak.core.volume import LabelMap
from sacroleak.models.label_grids import labels_on, to_grid
from tests.models.bodies import places

BALL, BALL_MM, CENTRE = 3, 8.0, (4.0, -3.0, 2.0)
SLAB = 2
BALL_ML = 4 / 3 * np.pi * BALL_MM ** 3 / 1000
TURNS = {
    "as stored": np.eye(3),
    "prone": np.diag([-1.0, -1.0, 1.0]),
    "sagittal slices": np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]),
    "oblique": Rotation.from_euler("xyz", (17, -9, 6), degrees=True).as_matrix(),
}


def source() -> LabelMap:
    """A ball, and a slab beside it that runs to one end, on 1 mm."""
    grid = Geometry.axis_aligned(origin_lps_mm=(-19.5,) * 3, spacing_mm=1.0, shape=(40, 40, 40))
    points = places(grid)
    labels = np.where(points[..., 0] < -9.0, SLAB, 0).astype(np.uint8)
    labels[np.linalg.norm(points - CENTRE, axis=-1) < BALL_MM] = BALL
    return LabelMap(labels=labels, geometry=grid)


def about_the_origin(turn: str, spacing: tuple[float, float, float]) -> Geometry:
    shape = tuple(int(np.ceil(70 / s)) for s in spacing)
    affine = np.eye(4)
    affine[:3, :3] = TURNS[turn] @ np.diag(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2) + (0.31, -0.17, 0.23)
    return Geometry(affine=affine, shape=(shape[0], shape[1], shape[2]))


def counted(given: LabelMap, grid: Geometry) -> npt.NDArray[np.uint8]:
    """What most of 6 x 6 x 6 points in each voxel lie in."""
    offsets = (np.arange(6) - 2.5) / 6
    votes = np.zeros((4, *grid.shape), dtype=int)
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    for shift in np.stack(np.meshgrid(offsets, offsets, offsets), axis=-1).reshape(-1, 3):
        at = np.rint(given.geometry.to_index(grid.to_lps(index + shift))).astype(int)
        inside = np.asarray(((at >= 0) & (at < np.array(given.labels.shape))).all(axis=-1))
        at = np.where(inside[..., None], at, 0)
        found = np.where(inside, given.labels[tuple(np.moveaxis(at, -1, 0))], 0)
        for label in range(4):
            votes[label] += found == label
    most: npt.NDArray[np.uint8] = votes.argmax(axis=0).astype(np.uint8)
    return most


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("spacing", [(0.7, 0.9, 1.0), (1.3, 1.1, 3.0), (2.0, 2.0, 5.0)])
def test_a_ball_keeps_its_place_and_volume_on_any_grid(turn: str, spacing: tuple[float, float, float]) -> None:
    target = about_the_origin(turn, spacing)
    moved = labels_on(source(), target)
    assert moved.geometry is target
    assert set(np.unique(moved.labels)) == {0, SLAB, BALL}
    centre = target.to_lps(np.argwhere(moved.labels == BALL)).mean(axis=0)
    assert np.abs(centre - CENTRE).max() < 0.1 * max(spacing) + 0.05
    assert moved.volume_ml(BALL) == pytest.approx(BALL_ML, rel=0.06 if max(spacing) > 3 else 0.04)


@pytest.mark.parametrize("turn", ["as stored", "prone", "sagittal slices"])
def test_a_larger_voxel_gets_what_fills_most_of_it(turn: str) -> None:
    given, target = source(), about_the_origin(turn, (1.3, 1.7, 3.0))
    moved, wanted = labels_on(given, target).labels, counted(given, target)
    assert (moved != wanted).mean() < 0.002
    assert (moved != wanted)[wanted > 0].mean() < 0.03


def test_nothing_changes_on_the_own_grid_and_the_box_holds_all_labels() -> None:
    given = source()
    np.testing.assert_array_equal(labels_on(given, given.geometry).labels, given.labels)
    only = LabelMap(labels=np.where(given.labels == BALL, given.labels, np.uint8(0)), geometry=given.geometry)
    placed = to_grid(given.geometry, only)
    assert max(placed.part.labels.shape) <= 2 * BALL_MM + 3
    np.testing.assert_allclose(placed.part.geometry.to_lps(np.zeros(3)), given.geometry.to_lps(np.array(placed.start)))


def test_without_labels_there_is_an_empty_box() -> None:
    given = source()
    empty = LabelMap(labels=np.zeros_like(given.labels), geometry=given.geometry)
    assert not labels_on(empty, about_the_origin("prone", (1.0, 1.0, 2.0))).labels.any()
