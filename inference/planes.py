"""Flat cuts through a scan in the patient's frame, whatever way its voxels run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import find_contours

from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.volume import LabelMap

Orientation = Literal["axial", "sagittal", "coronal"]
Image = npt.NDArray[np.float32]

RIGHTWARDS = {"axial": (1.0, 0.0, 0.0), "sagittal": (0.0, 1.0, 0.0), "coronal": (1.0, 0.0, 0.0)}
"""LPS direction of a picture's rows: radiological, so the patient's left is on the right; front is on the left."""

DOWNWARDS = {"axial": (0.0, 1.0, 0.0), "sagittal": (0.0, 0.0, -1.0), "coronal": (0.0, 0.0, -1.0)}
"""LPS direction of a picture's columns: axial seen from the feet with the front above, the others head up."""

EDGES = {"axial": ("R", "L", "A", "P"), "sagittal": ("A", "P", "S", "I"), "coronal": ("R", "L", "S", "I")}
"""Letters at the left, right, upper and lower edge."""

ALIGNED_TOLERANCE = 1e-3
"""A plane's axis may drift by this much of a voxel over its width and still count as parallel to the array."""


SMOOTHED = 4.0
"""Standard deviations as far as which smoothing looks."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plane:
    """A square cut: `pixels` by `pixels`, `side_mm` wide, its middle at `centre_lps_mm`."""

    orientation: Orientation
    centre_lps_mm: tuple[float, float, float]
    side_mm: float
    pixels: int

    @property
    def pixel_mm(self) -> float:
        """Side of one pixel."""
        return self.side_mm / self.pixels

    def to_pixel(self, points_lps: npt.ArrayLike) -> Points:
        """(n, 3) LPS mm to (n, 2) pixels x, y; what lies off the plane is projected onto it."""
        away = np.asarray(points_lps, dtype=np.float64) - self.centre_lps_mm
        axes = np.array([RIGHTWARDS[self.orientation], DOWNWARDS[self.orientation]])
        pixels: Points = away @ axes.T / self.pixel_mm + (self.pixels - 1) / 2.0
        return pixels

    def cut(self, values: npt.NDArray[np.generic], geometry: Geometry, *, outside: float) -> Image:
        """Linear interpolation of `values` [i, j, k] on the plane; (pixels, pixels), row by row from the top."""
        matrix, origin = self._index_map(geometry)
        low, high = self._box(matrix, origin, values.shape)
        part = values[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].astype(np.float32)
        if part.size == 0:
            return np.full((self.pixels, self.pixels), outside, dtype=np.float32)
        sides = np.array(part.shape)
        order = np.abs(matrix).argmax(axis=0)  # the array axis that pixel x, and pixel y, runs along
        rest = matrix.copy()
        rest[order, (0, 1)] = 0.0
        if order[0] != order[1] and np.abs(rest).max() * self.pixels < ALIGNED_TOLERANCE:
            return self._cut_aligned(part, matrix, origin - low, outside)
        y, x = np.mgrid[0:self.pixels, 0:self.pixels].astype(np.float32)
        index = [matrix[a, 0] * x + matrix[a, 1] * y + (origin[a] - low[a]) for a in range(3)]
        cut = ndimage.map_coordinates(part, index, order=1, mode="nearest", output=np.float32)
        for axis in range(3):
            cut[(index[axis] < -0.5) | (index[axis] > sides[axis] - 0.5)] = outside
        result: Image = cut
        return result

    def _cut_aligned(self, part: Image, matrix: Points, origin: Points, outside: float) -> Image:
        """The same when x and y each run along one array axis: one axis after the other, ten times as fast."""
        along_x, along_y = (int(a) for a in np.abs(matrix).argmax(axis=0))
        fixed = 3 - along_x - along_y
        steps = np.arange(self.pixels)
        index = {fixed: np.array([origin[fixed]]), along_x: origin[along_x] + matrix[along_x, 0] * steps,
                 along_y: origin[along_y] + matrix[along_y, 1] * steps}
        for axis in (fixed, along_x, along_y):
            part = _linear(part, index[axis], axis, outside)
        return np.ascontiguousarray(np.transpose(part, (fixed, along_y, along_x))[0])

    def slab(self, label_map: LabelMap) -> LabelMap:
        """The part of `label_map` that decides what is on the plane; one layer of it if the plane lies elsewhere."""
        low, high = self._box(*self._index_map(label_map.geometry), label_map.labels.shape)
        start = np.minimum(low, np.subtract(label_map.labels.shape, 1))
        return label_map.crop(start, np.maximum(high, start + 1))

    def outlines(self, mask: npt.NDArray[np.bool_], geometry: Geometry, *, smooth_mm: float = 0.0) -> list[Points]:
        """Closed or open outlines of `mask` on the plane, each (n, 2) pixels x, y."""
        share = self.cut(mask, geometry, outside=0.0)
        if share.max() < 0.5:
            return []
        sigma = smooth_mm / self.pixel_mm
        rows, columns = _around(share > 0, 1 + math.ceil(2 * SMOOTHED * sigma))
        share = share[rows, columns]
        if smooth_mm > 0:
            share = ndimage.gaussian_filter(share, sigma, truncate=SMOOTHED)
        return [line[:, ::-1] + (columns.start, rows.start) for line in find_contours(share, 0.5)]

    def _index_map(self, geometry: Geometry) -> tuple[Points, Points]:
        """(3, 2) step of the index per pixel x, y; (3,) index at pixel 0, 0."""
        axes = np.array([RIGHTWARDS[self.orientation], DOWNWARDS[self.orientation]]) * self.pixel_mm
        corner = np.asarray(self.centre_lps_mm) - axes.sum(axis=0) * (self.pixels - 1) / 2.0
        return (np.linalg.inv(geometry.affine[:3, :3]) @ axes.T), geometry.to_index(corner)

    def _box(self, matrix: Points, origin: Points, shape: tuple[int, ...]) -> tuple[list[int], list[int]]:
        """The part of the array that the plane meets, so that only it is turned into floats."""
        last = self.pixels - 1
        corners = np.array([origin + matrix @ (x, y) for x in (0, last) for y in (0, last)])
        low = np.clip(np.floor(corners.min(axis=0)) - 1, 0, shape).astype(int)
        high = np.clip(np.ceil(corners.max(axis=0)) + 2, 0, shape).astype(int)
        return low.tolist(), high.tolist()


def _around(mask: npt.NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    """The rows and columns with all of `mask`, `margin` more on each side."""
    spans = (np.flatnonzero(mask.any(axis=1 - axis)) for axis in (0, 1))
    rows, columns = (slice(max(int(used[0]) - margin, 0), int(used[-1]) + margin + 1) for used in spans)
    return rows, columns


def _linear(values: Image, index: Points, axis: int, outside: float) -> Image:
    """`values` at fractional `index` along `axis`; beyond half a voxel from the ends it is `outside`."""
    last = values.shape[axis] - 1
    lower = np.clip(np.floor(index), 0, last).astype(np.intp)
    upper = np.minimum(lower + 1, last)
    shape = [1, 1, 1]
    shape[axis] = -1
    weight = np.clip(index - lower, 0.0, 1.0).astype(np.float32).reshape(shape)
    first = np.take(values, lower, axis=axis)
    result: Image = first + (np.take(values, upper, axis=axis) - first) * weight
    beyond = (index < -0.5) | (index > last + 0.5)
    if beyond.any():
        result[(slice(None),) * axis + (beyond,)] = outside
    return result
