"""Label maps from the working grid back to the scan's own grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sacroleak.core.geometry import Geometry, box_where
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap
from sacroleak.models.segmentation import Segmentation

Index = tuple[int, int, int]
Labels = npt.NDArray[np.uint8]

ALIGNED_TOLERANCE = 1e-6
"""Off-axis part of the index-to-index matrix below which axes count as parallel (1e-6 over 1000 voxels: 0.001)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedLabels:
    """Labels on a box of a larger grid: `part` begins at index `start` of it."""

    part: LabelMap
    start: Index


def structures_on(grid: Geometry, segmentation: Segmentation) -> PlacedLabels:
    """Structure 0-6 on the smallest box of `grid` that holds them: nearest neighbour anatomy, cement over it.

    The cement is already on `grid` and is copied, not resampled.
    """
    anatomy = to_grid(grid, segmentation.anatomy)
    cement = segmentation.cement.labels.astype(bool, copy=False)
    box = _bounds(cement)
    if box is None:
        return anatomy
    first = np.minimum(anatomy.start, np.add(segmentation.start, box[0]))
    last = np.maximum(np.add(anatomy.start, anatomy.part.geometry.shape), np.add(segmentation.start, box[1]))
    labels = np.zeros(tuple((last - first).tolist()), dtype=np.uint8)
    labels[_region(np.subtract(anatomy.start, first), anatomy.part.geometry.shape)] = anatomy.part.labels
    inside = cement[_region(box[0], np.subtract(box[1], box[0]))]
    corner = np.add(segmentation.start, box[0]) - first
    labels[_region(corner, inside.shape)][inside] = Structure.CEMENT
    return PlacedLabels(part=LabelMap(labels=labels, geometry=grid.crop(first, last)), start=_index(first))


def to_grid(grid: Geometry, source: LabelMap) -> PlacedLabels:
    """`source` resampled by nearest neighbour on the box of `grid` where its labels are not 0.

    Fast for grids that differ by order, direction and size of their axes only; any other by an affine lookup.
    """
    box = _bounds(source.labels != 0)
    if box is None:
        empty = LabelMap(labels=np.zeros((1, 1, 1), np.uint8), geometry=grid.crop((0, 0, 0), (1, 1, 1)))
        return PlacedLabels(part=empty, start=(0, 0, 0))
    first, last = _box_on(grid, source.geometry, box)
    matrix = np.linalg.inv(source.geometry.affine) @ grid.crop(first, last).affine  # index of grid -> index of source
    shape = _index(np.subtract(last, first))
    labels = source.labels.astype(np.uint8, copy=False)
    order = np.abs(matrix[:3, :3]).argmax(axis=1)
    aligned = len(set(order.tolist())) == 3
    rest = matrix[:3, :3].copy()
    rest[np.arange(3), order] = 0.0
    if aligned and np.abs(rest).max() < ALIGNED_TOLERANCE:
        moved = _gather(labels, matrix, order, shape)
    else:
        moved = ndimage.affine_transform(labels, matrix, output_shape=shape, order=0, mode="constant", cval=0)
    return PlacedLabels(part=LabelMap(labels=moved, geometry=grid.crop(first, last)), start=_index(first))


def _gather(labels: Labels, matrix: npt.NDArray[np.float64], order: npt.NDArray[np.intp], shape: Index) -> Labels:
    """Nearest neighbour along each axis apart: `matrix` takes an index of the result to one of `labels`."""
    for axis in range(3):
        wanted = np.arange(shape[order[axis]]) * matrix[axis, order[axis]] + matrix[axis, 3]
        nearest = np.rint(wanted).astype(np.intp)
        outside = (nearest < 0) | (nearest >= labels.shape[axis])
        labels = np.take(labels, np.where(outside, 0, nearest), axis=axis)
        if outside.any():
            labels[(slice(None),) * axis + (outside,)] = 0
    return np.ascontiguousarray(np.transpose(labels, np.argsort(order)))


def _box_on(grid: Geometry, other: Geometry, box: tuple[Index, Index]) -> tuple[Index, Index]:
    """The region of `grid` that covers `box` of `other`, half a voxel of each included, cut to `grid`."""
    low, high = np.subtract(box[0], 0.5), np.subtract(box[1], 0.5)
    corners = np.array([[(low, high)[bit][axis] for axis, bit in enumerate(bits)] for bits in np.ndindex(2, 2, 2)])
    index = grid.to_index(other.to_lps(corners))
    first = np.clip(np.floor(index.min(axis=0)), 0, np.array(grid.shape) - 1)
    last = np.clip(np.ceil(index.max(axis=0)) + 1, first + 1, grid.shape)
    return _index(first), _index(last)


def _bounds(mask: npt.NDArray[np.bool_]) -> tuple[Index, Index] | None:
    """First index and one past the last index of what is True; None if nothing is."""
    box = box_where(mask)
    return None if box is None else (_index([s.start for s in box]), _index([s.stop for s in box]))


def _region(start: npt.ArrayLike, sides: npt.ArrayLike) -> tuple[slice, slice, slice]:
    first, length = np.asarray(start, dtype=int).tolist(), np.asarray(sides, dtype=int).tolist()
    a, b, c = (slice(s, s + n) for s, n in zip(first, length, strict=True))
    return a, b, c


def _index(values: npt.ArrayLike) -> Index:
    i, j, k = (int(v) for v in np.asarray(values))
    return i, j, k
