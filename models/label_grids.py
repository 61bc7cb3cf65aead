"""Label maps from one grid to another: each voxel becomes what fills most of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import affine_transform, find_objects, gaussian_filter

from sacroleak.core.geometry import Box, Geometry, box_where
from sacroleak.core.volume import LabelMap

Index = tuple[int, int, int]
Field = npt.NDArray[np.float32]

ALIGNED_TOLERANCE = 1e-6
"""Off-axis part of the index-to-index matrix below which axes count as parallel (1e-6 over 1000 voxels: 0.001)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedLabels:
    """Labels on a box of a larger grid: `part` begins at index `start` of it."""

    part: LabelMap
    start: Index


def labels_on(source: LabelMap, target: Geometry) -> LabelMap:
    """`source` on the whole of `target`, as `to_grid`."""
    placed = to_grid(target, source)
    return LabelMap(labels=on_whole(placed.part, placed.start, target).astype(np.uint8), geometry=target)


def on_whole(part: LabelMap, start: Index, grid: Geometry) -> npt.NDArray[np.uint16]:
    """Labels of a crop laid back on the whole scan's grid."""
    whole = np.zeros(grid.shape, dtype=np.uint16)
    box = tuple(slice(s, s + n) for s, n in zip(start, part.geometry.shape, strict=True))
    whole[box] = part.labels
    return whole


def to_grid(grid: Geometry, source: LabelMap) -> PlacedLabels:
    """`source` on the smallest box of `grid` that holds its labels other than 0; 0 beyond the source.

    A voxel of `grid`, or one as large as the source's if those are larger, gets the label that fills most of it.
    Fast for grids that differ by order, direction and size of their axes only; slow for slanted ones.
    """
    box = box_where(source.labels != 0)
    if box is None:
        empty = LabelMap(labels=np.zeros((1, 1, 1), np.uint8), geometry=grid.crop((0, 0, 0), (1, 1, 1)))
        return PlacedLabels(part=empty, start=(0, 0, 0))
    first, last = box_on(grid, source.geometry, box)
    part = grid.crop(first, last)
    matrix = np.linalg.inv(source.geometry.affine) @ part.affine  # index of part -> index of source
    most = np.zeros(part.shape, dtype=np.float32)
    total = np.zeros(part.shape, dtype=np.float32)
    labels = np.zeros(part.shape, dtype=np.uint8)
    for label, around in enumerate(find_objects(source.labels.astype(np.uint8, copy=False)), start=1):
        if around is None:
            continue
        low, high = box_on(part, source.geometry, around)
        here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        moved = matrix.copy()
        moved[:3, 3] += matrix[:3, :3] @ low
        share = _share(source.labels == label, moved, as_index(np.subtract(high, low)))
        total[here] += share
        np.copyto(labels[here], np.uint8(label), where=share > most[here])
        np.maximum(most[here], share, out=most[here])
    labels[most <= 1.0 - total] = 0
    return PlacedLabels(part=LabelMap(labels=labels, geometry=part), start=as_index(first))


def _share(mask: npt.NDArray[np.bool_], matrix: npt.NDArray[np.float64], shape: Index) -> Field:
    """How much of each voxel `mask` fills; `matrix` takes an index of the result, of `shape`, to one of the mask."""
    order = np.abs(matrix[:3, :3]).argmax(axis=1)
    rest = matrix[:3, :3].copy()
    rest[np.arange(3), order] = 0.0
    if len(set(order.tolist())) < 3 or np.abs(rest).max() > ALIGNED_TOLERANCE:
        # A Gaussian as wide as the slanted voxel, less the cell that linear sampling covers.
        widths = np.linalg.norm(matrix[:3, :3], axis=1)
        sigma = np.sqrt(np.maximum(widths ** 2 - 1.0, 0.0) / 12)
        mean = gaussian_filter(mask.astype(np.float32), sigma, mode="constant")
        return np.asarray(affine_transform(mean, matrix, output_shape=shape, order=1, mode="constant", cval=0.0))
    field: Field = mask.astype(np.float32)
    for axis in range(3):
        places = np.arange(shape[order[axis]]) * matrix[axis, order[axis]] + matrix[axis, 3]
        weights = _overlaps(places, width=max(1.0, abs(float(matrix[axis, order[axis]]))), count=mask.shape[axis])
        field = np.moveaxis(np.tensordot(weights, field, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(np.transpose(field, np.argsort(order)))


def _overlaps(places: npt.NDArray[np.float64], *, width: float, count: int) -> Field:
    """Share of an interval of `width` around each of (n,) places that each of `count` unit cells covers; (n, count)."""
    low, cells = places[:, None] - width / 2, np.arange(count)[None, :] - 0.5
    covered = np.minimum(low + width, cells + 1.0) - np.maximum(low, cells)
    return np.asarray(np.maximum(covered, 0.0) / width, dtype=np.float32)


def box_on(grid: Geometry, other: Geometry, box: Box) -> tuple[Index, Index]:
    """The region of `grid` that covers `box` of `other`, half a voxel of each included, cut to `grid`."""
    low, high = (np.array([getattr(s, end) for s in box]) - 0.5 for end in ("start", "stop"))
    corners = np.array([[(low, high)[bit][axis] for axis, bit in enumerate(bits)] for bits in np.ndindex(2, 2, 2)])
    index = grid.to_index(other.to_lps(corners))
    first = np.clip(np.floor(index.min(axis=0)), 0, np.array(grid.shape) - 1)
    last = np.clip(np.ceil(index.max(axis=0)) + 1, first + 1, grid.shape)
    return as_index(first), as_index(last)


def as_index(values: npt.ArrayLike) -> Index:
    """Three whole numbers, of whatever kind, as an index."""
    i, j, k = (int(v) for v in np.asarray(values))
    return i, j, k
