"""Signed distances to a surface, sampled between voxels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cc3d
import edt
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sacroleak.core.geometry import Box, Geometry, Points, box_where

Distances = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

DIRECTION_STEP_MM = 1.5
"""Directions are read between places this far to both sides."""
FAR_MM = 999.0
"""Stands for "no such structure here"; larger than any distance inside a pelvis."""
MOST_STEPS = 11
"""Voxels as far as which twice the square of a distance fits into a byte."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DistanceField:
    """Distance to one structure's surface in mm, negative inside, float32 [i, j, k] on `geometry`."""

    values: npt.NDArray[np.float32]
    geometry: Geometry

    def at(self, points_lps: Points) -> Distances:
        """Trilinear distance at (n, 3) LPS mm; beyond the grid the value of its nearest border; (n,) mm."""
        index = self.geometry.to_index(points_lps).T
        return np.asarray(ndimage.map_coordinates(self.values, index, order=1, mode="nearest"), dtype=np.float64)

    def direction_at(self, points_lps: Points) -> Points:
        """Unit vectors (n, 3), LPS, in which the distance grows fastest; zeros where it does not change."""
        columns = [self.at(points_lps + shift) - self.at(points_lps - shift) for shift in np.eye(3) * DIRECTION_STEP_MM]
        gradient = np.stack(columns, axis=-1)
        length = np.linalg.norm(gradient, axis=-1, keepdims=True)
        return np.asarray(np.divide(gradient, length, out=np.zeros_like(gradient), where=length > 1e-6))


def signed_distance(mask: Mask, geometry: Geometry, *, smooth_mm: float = 0.0) -> DistanceField:
    """Distance field of a mask whose surface runs half a voxel beyond its outermost voxel centres.

    `smooth_mm` is the standard deviation of a Gaussian that takes the stairs off the surface; a plane stays in place.
    """
    if mask.any():
        # Two labels: from each voxel to the nearest one on the other side of the surface, in one sweep.
        values = np.minimum(_within_mm(mask + np.uint8(1), geometry), np.float32(FAR_MM))
        values -= np.float32(geometry.spacing_mm.min() / 2.0)
        np.negative(values, out=values, where=mask)
    else:
        values = np.full(mask.shape, FAR_MM, dtype=np.float32)
    if smooth_mm > 0:
        sigma = tuple(smooth_mm / s for s in geometry.spacing_mm)
        values = ndimage.gaussian_filter(values, sigma, truncate=2.0, mode="nearest")
    return DistanceField(values=values, geometry=geometry)


def outside_distance(mask: Mask, geometry: Geometry) -> DistanceField:
    """Like signed_distance, but inside only the sign means something."""
    values = _outside_mm(mask, geometry)
    values[mask] = -float(geometry.spacing_mm.min()) / 2.0
    return DistanceField(values=values, geometry=geometry)


def near_field(
    distance: Callable[[Mask, Geometry], DistanceField], mask: Mask, geometry: Geometry, reach_mm: float,
) -> DistanceField:
    """What `distance` makes of the mask, worked out only near it: up to `reach_mm` outside it is the same, beyond it is
    more than that, and no more is known.
    """
    values = np.full(mask.shape, FAR_MM, dtype=np.float32)
    # Two voxels more: a distance begins half a voxel outside the mask, and is read from the next voxel centre too.
    box = box_where(mask, np.ceil(reach_mm / geometry.spacing_mm).astype(np.int64) + 2)
    if box is not None:
        grid = geometry.crop([side.start for side in box], [side.stop for side in box])
        values[box] = distance(mask[box], grid).values
    return DistanceField(values=values, geometry=geometry)


def signed_near(mask: Mask, geometry: Geometry, reach_mm: float) -> DistanceField:
    """What signed_distance makes of the mask: up to `reach_mm` to both sides of the surface it is the same, between
    voxel centres too; farther off it is more than that on its side, and no more is known.
    """
    half = float(geometry.spacing_mm.min()) / 2.0
    # A distance begins half a voxel off the surface, and is read from all voxel centres around a place.
    far_mm = reach_mm + half + float(np.linalg.norm(geometry.spacing_mm))
    values = near_mm(mask, geometry, far_mm) - np.float32(half)
    np.copyto(values, np.float32(half) - near_mm(~mask, geometry, far_mm), where=mask)
    return DistanceField(values=values, geometry=geometry)


def membership(mask: Mask, geometry: Geometry) -> DistanceField:
    """A field that is 0 or less inside and positive outside, and says nothing else; hardly any work."""
    return DistanceField(values=np.where(mask, np.float32(-0.5), np.float32(0.5)), geometry=geometry)


def near_mm(mask: Mask, geometry: Geometry, reach_mm: float) -> npt.NDArray[np.float32]:
    """Distance of each voxel to the nearest centre of the mask's voxels, mm, as far as `reach_mm`; beyond it is more
    than that, and no more is known. Same shape.
    """
    away = np.full(mask.shape, FAR_MM, dtype=np.float32)
    steps = np.ceil(reach_mm / geometry.spacing_mm).astype(np.int64)
    if np.ptp(geometry.spacing_mm) < 1e-6 and steps[0] <= MOST_STEPS:
        box = box_where(mask, steps)
        if box is not None:
            away[box] = _by_steps(mask[box], int(steps[0]), float(geometry.spacing_mm[0]))
        return away
    for box in pieces_around(mask, steps):
        np.minimum(away[box], _within_mm(~mask[box], geometry), out=away[box])
    return away


def _by_steps(mask: Mask, steps: int, side_mm: float) -> npt.NDArray[np.float32]:
    """near_mm on voxels that are cubes, as far as so many voxels, at most MOST_STEPS: the least square of a way along
    one axis after the other, in a fifth of the time of the distances everywhere.
    """
    far = np.uint8(255 - steps**2)  # what is added to it still fits
    squares = np.where(mask, np.uint8(0), far)
    before, longer = np.empty_like(squares), np.empty_like(squares)
    for axis in range(mask.ndim):
        np.copyto(before, squares)
        for step in range(1, steps + 1):
            ahead, behind = _shifted(axis, step)
            np.add(before, np.uint8(step**2), out=longer)
            np.minimum(squares[ahead], longer[behind], out=squares[ahead])
            np.minimum(squares[behind], longer[ahead], out=squares[behind])
    lengths = np.sqrt(np.arange(256, dtype=np.float32)) * np.float32(side_mm)
    lengths[steps**2 + 1:] = FAR_MM
    return np.asarray(lengths[squares])


def _shifted(axis: int, step: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Two parts of any array, one so many voxels ahead of the other along an axis."""
    before = (slice(None),) * axis
    return (*before, slice(step, None)), (*before, slice(None, -step))


def pieces_around(mask: Mask, margin: npt.ArrayLike) -> list[Box]:
    """Boxes of the connected pieces of a mask (26 neighbours), `margin` voxels wider and cut to the array, which may
    overlap; one box of all where that is less to go through.
    """
    whole = box_where(mask, margin)
    if whole is None:
        return []
    pieces = ndimage.find_objects(cc3d.connected_components(mask[whole], connectivity=26))
    margins = np.broadcast_to(margin, (3,)).astype(int).tolist()
    boxes = []
    for piece in pieces:
        i, j, k = (slice(max(at.start + own.start - wider, 0), min(at.start + own.stop + wider, side))
                   for at, own, wider, side in zip(whole, piece, margins, mask.shape, strict=True))
        boxes.append((i, j, k))
    return boxes if sum(mask[box].size for box in boxes) < mask[whole].size else [whole]


def _outside_mm(mask: Mask, geometry: Geometry) -> npt.NDArray[np.float32]:
    if not mask.any():
        return np.full(mask.shape, FAR_MM, dtype=np.float32)
    distance = _within_mm(~mask, geometry)
    return np.asarray(np.minimum(distance, FAR_MM) - float(geometry.spacing_mm.min()) / 2.0, dtype=np.float32)


def _within_mm(labels: Mask | npt.NDArray[np.uint8], geometry: Geometry) -> npt.NDArray[np.float32]:
    """Distance of each voxel to the centre of the nearest one with another label, mm; 0 for label 0."""
    spacing = tuple(float(s) for s in geometry.spacing_mm)
    # As numbers: edt takes half as long again for booleans.
    distance: npt.NDArray[np.float32] = edt.edt(np.ascontiguousarray(labels).view(np.uint8), anisotropy=spacing)
    return distance


def closed(mask: Mask, geometry: Geometry, radius_mm: float) -> Mask:
    """The mask after closing with a ball: gaps narrower than twice `radius_mm` are filled. Same shape.

    Within `radius_mm` of the array's border the result is not to be trusted: pass a wide enough piece.
    """
    filled = mask.copy()
    # So far the mask grows, and one voxel more, from which the grown mask shrinks again.
    box = box_where(mask, np.ceil(radius_mm / geometry.spacing_mm).astype(np.int64) + 1)
    if box is not None:
        grown = _within_mm(~mask[box], geometry) <= radius_mm
        filled[box] |= _within_mm(grown, geometry) > radius_mm
    return filled


def grown(mask: Mask, voxels: int) -> Mask:
    """The mask with all that lies no more than so many voxels from it along each axis."""
    for axis in range(3):
        wider = mask.copy()
        for step in range(1, voxels + 1):
            ahead, behind = _shifted(axis, step)
            wider[ahead] |= mask[behind]
            wider[behind] |= mask[ahead]
        mask = wider
    return mask


def shell(mask: Mask) -> Mask:
    """Voxels of the mask with an empty neighbour along an axis, in a box one voxel wider than it."""
    inner = mask.copy()
    for axis in range(3):
        inner &= np.roll(mask, 1, axis=axis) & np.roll(mask, -1, axis=axis)
    return mask & ~inner


def marked(points: Points, geometry: Geometry) -> Mask:
    """The voxels of a grid in which any of (n, 3) LPS mm lie; what lies beyond it is left out."""
    at, inside = geometry.nearest(points)
    mask = np.zeros(geometry.shape, dtype=np.bool_)
    mask[tuple(at[inside].T)] = True
    return mask


def indices_of(mask: Mask) -> Indices:
    """What np.argwhere says of a mask of three axes, (n, 3), in a tenth of the time."""
    return np.transpose(np.unravel_index(np.flatnonzero(mask), mask.shape))
