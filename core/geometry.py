"""Where voxels lie. One frame for everything: DICOM patient space, LPS, millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from sacroleak.core.errors import GeometryError

Points = npt.NDArray[np.float64]
Affine = npt.NDArray[np.float64]
Shape = tuple[int, int, int]
Box = tuple[slice, slice, slice]

GRID_TOLERANCE_MM = 1e-3
"""Corners of two grids called the same may lie this far apart (float32 headers round to about 1e-4 mm)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Geometry:
    """A voxel grid: `affine` takes an index [i, j, k] to the LPS mm of that voxel's centre.

    Raises GeometryError if the affine is not 4x4, finite and invertible, or a side of `shape` is below 1.
    """

    affine: Affine
    shape: Shape
    frame_of_reference_uid: str | None = None

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError(f"affine: got shape {affine.shape} or values that are not finite, wanted a finite 4x4")
        if not np.allclose(affine[3], (0, 0, 0, 1)):
            raise GeometryError("affine: last row is not 0 0 0 1")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise GeometryError("affine: not invertible, a voxel would have no volume")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise GeometryError(f"shape: got {self.shape}, wanted three sides of at least 1")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @classmethod
    def axis_aligned(cls, *, origin_lps_mm: npt.ArrayLike, spacing_mm: npt.ArrayLike, shape: Shape) -> Geometry:
        """A grid whose i, j, k run along +L, +P, +S; `origin_lps_mm` is the centre of voxel [0, 0, 0]."""
        affine = np.eye(4)
        affine[:3, :3] = np.diag(np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), (3,)))
        affine[:3, 3] = np.asarray(origin_lps_mm, dtype=np.float64)
        return cls(affine=affine, shape=shape)

    @property
    def spacing_mm(self) -> Points:
        """Distance between neighbouring voxel centres along i, j, k; (3,) mm."""
        lengths: Points = np.linalg.norm(self.affine[:3, :3], axis=0)
        return lengths

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in mL (slanted grids included)."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def centre_lps_mm(self) -> Points:
        """LPS mm of the middle of the grid; (3,)."""
        return self.to_lps((np.array(self.shape) - 1) / 2.0)

    def to_lps(self, index: npt.ArrayLike) -> Points:
        """Indices (..., 3), whole or fractional, to LPS mm (..., 3)."""
        return np.asarray(index, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, points_lps: npt.ArrayLike) -> Points:
        """LPS mm (..., 3) to fractional indices (..., 3)."""
        inverse = np.linalg.inv(self.affine[:3, :3])
        return (np.asarray(points_lps, dtype=np.float64) - self.affine[:3, 3]) @ inverse.T

    def nearest(self, points_lps: Points) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Index (n, 3) of the voxel nearest to each of (n, 3) LPS mm, and which of them lie in the grid, (n,)."""
        at = np.rint(self.to_index(points_lps)).astype(np.int64)
        return at, np.asarray(((at >= 0) & (at < self.shape)).all(axis=1))

    def nearest_within(self, points_lps: Points) -> tuple[npt.NDArray[np.int64], ...]:
        """With what to read an array of this grid at (n, 3) LPS mm: the nearest voxel, beyond the grid the nearest one
        at its border; three of (n,).
        """
        at = np.rint(self.to_index(points_lps)).astype(np.int64)
        return tuple(np.clip(at, 0, np.array(self.shape) - 1).T)

    def corners_lps_mm(self) -> Points:
        """LPS mm of the eight corner voxels' centres; (8, 3)."""
        return self.to_lps(np.array(list(product(*((0, n - 1) for n in self.shape)))))

    def crop(self, start: npt.ArrayLike, stop: npt.ArrayLike) -> Geometry:
        """The grid of `array[start:stop]` on each axis; `start` inclusive, `stop` exclusive, both (3,)."""
        first = np.asarray(start, dtype=np.int64)
        sides = np.asarray(stop, dtype=np.int64) - first
        affine = self.affine.copy()
        affine[:3, 3] = self.to_lps(first)
        shape = (int(sides[0]), int(sides[1]), int(sides[2]))
        return Geometry(affine=affine, shape=shape, frame_of_reference_uid=self.frame_of_reference_uid)

    def require_same_grid(self, other: Geometry, what: str) -> None:
        """Raise GeometryError unless both grids have one shape and corners within GRID_TOLERANCE_MM."""
        if self.shape != other.shape:
            raise GeometryError(f"{what}: shapes differ, {self.shape} against {other.shape}")
        apart = float(np.abs(self.corners_lps_mm() - other.corners_lps_mm()).max())
        if apart > GRID_TOLERANCE_MM:
            raise GeometryError(f"{what}: corners are {apart:.2f} mm apart, allowed {GRID_TOLERANCE_MM} mm")


def box_where(mask: npt.NDArray[np.bool_], margin: npt.ArrayLike = 0) -> Box | None:
    """The smallest box with all of `mask`, `margin` voxels wider and cut to the array; None for an empty mask."""
    margins = np.broadcast_to(margin, (3,))
    spans = []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if used.size == 0:
            return None
        spans.append(slice(max(int(used[0]) - int(margins[axis]), 0),
                           min(int(used[-1]) + int(margins[axis]) + 1, mask.shape[axis])))
    return spans[0], spans[1], spans[2]
