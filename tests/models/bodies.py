"""Simple solids on a scan's grid, for tests of what is dense."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Geometry, Points
from sacroleak.models.resample import Field

Mask = npt.NDArray[np.bool_]
Inside = Callable[[Points], Mask]


def ball(radius_mm: float, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Inside:
    return lambda points: np.asarray(np.linalg.norm(points - centre, axis=-1) < radius_mm)


def rod(start: tuple[float, float, float], end: tuple[float, float, float], radius_mm: float) -> Inside:
    a, b = np.array(start), np.array(end)

    def inside(points: Points) -> Mask:
        t = np.clip((points - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        return np.asarray(np.linalg.norm(points - a - t[..., None] * (b - a), axis=-1) < radius_mm)

    return inside


def nothing(points: Points) -> Mask:
    return np.zeros(points.shape[:-1], dtype=bool)


def places(geometry: Geometry) -> Points:
    """LPS mm of every voxel's centre, (i, j, k, 3)."""
    return geometry.to_lps(np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1))


def cover(geometry: Geometry, inside: Inside) -> Field:
    """Share of each voxel that a shape fills, by 3 x 3 x 3 points in it."""
    total = np.zeros(geometry.shape, dtype=np.float32)
    offsets = (np.arange(3) - 1) / 3
    centre = places(geometry)
    for shift in np.stack(np.meshgrid(offsets, offsets, offsets), axis=-1).reshape(-1, 3):
        total += inside(centre + shift * geometry.spacing_mm)
    return total / np.float32(27)
