"""Closed-form distance fields on one grid: capsules, ellipsoids, plates, and smooth ways to join and cut them.

All coordinates are LPS mm, all distances mm, negative inside. A solid is only evaluated inside its own bounding box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Geometry

Field = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]
Block = tuple[slice, slice, slice]

FAR_MM = 40.0
"""Distance given to voxels that no solid reaches; beyond the +-12.7 mm that an anatomy keeps."""

MARGIN_MM = 15.0
"""How far around a solid its distance is evaluated: the kept range and the widest blend."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solid:
    """A shape: `low` and `high` (3,) LPS mm bound it; `distance(x, y, z)` takes arrays that broadcast together."""

    low: Vector
    high: Vector
    distance: Callable[[Field, Field, Field], Field]


def smooth_min(a: Field, b: Field, k: float) -> Field:
    """Union whose crease is rounded over about `k` mm (quadratic polynomial); k = 0 is the plain minimum."""
    if k <= 0.0:
        return np.minimum(a, b)
    h = np.maximum(k - np.abs(a - b), np.float32(0.0))
    return np.asarray(np.minimum(a, b) - h * h * np.float32(0.25 / k), dtype=np.float32)


def smooth_max(a: Field, b: Field, k: float) -> Field:
    """Intersection whose edge is rounded over about `k` mm."""
    return -smooth_min(-a, -b, k)


def coordinates(geometry: Geometry, block: Block) -> tuple[Field, Field, Field]:
    """LPS mm of a block's voxels as three arrays (n, 1, 1), (1, m, 1), (1, 1, l); the grid runs along +L +P +S."""
    spacing, origin = geometry.spacing_mm, geometry.affine[:3, 3]
    axes = [(origin[a] + spacing[a] * np.arange(block[a].start, block[a].stop)).astype(np.float32) for a in range(3)]
    return axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]


def block_of(geometry: Geometry, low: Vector, high: Vector, margin_mm: float = MARGIN_MM) -> Block:
    """Voxels of the grid within `margin_mm` of the box [low, high]."""
    first = np.floor(geometry.to_index(low - margin_mm)).astype(int)
    last = np.ceil(geometry.to_index(high + margin_mm)).astype(int) + 1
    a = [int(np.clip(first[i], 0, geometry.shape[i])) for i in range(3)]
    b = [int(np.clip(last[i], a[i], geometry.shape[i])) for i in range(3)]
    return slice(a[0], b[0]), slice(a[1], b[1]), slice(a[2], b[2])


def empty(geometry: Geometry) -> Field:
    """A field with nothing in it."""
    return np.full(geometry.shape, FAR_MM, dtype=np.float32)


def join(field: Field, geometry: Geometry, solid: Solid, *, blend_mm: float = 0.0) -> None:
    """Add a solid to the field, in place."""
    block = block_of(geometry, solid.low, solid.high)
    field[block] = smooth_min(field[block], solid.distance(*coordinates(geometry, block)), blend_mm)


def cut(field: Field, geometry: Geometry, solid: Solid, *, blend_mm: float = 0.0) -> None:
    """Take a solid out of the field, in place."""
    block = block_of(geometry, solid.low, solid.high)
    field[block] = smooth_max(field[block], -solid.distance(*coordinates(geometry, block)), blend_mm)


def cone(a: npt.ArrayLike, b: npt.ArrayLike, radius_a: float, radius_b: float | None = None) -> Solid:
    """A rod from `a` to `b` with round ends whose radius runs from `radius_a` to `radius_b` (a capsule if equal)."""
    start, stop = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    end = radius_a if radius_b is None else radius_b
    axis = stop - start
    scale = 1.0 / max(float(axis @ axis), 1e-9)

    def distance(x: Field, y: Field, z: Field) -> Field:
        px, py, pz = x - np.float32(start[0]), y - np.float32(start[1]), z - np.float32(start[2])
        dx, dy, dz = (np.float32(c) for c in axis)
        t = np.clip((px * dx + py * dy + pz * dz) * np.float32(scale), 0.0, 1.0)
        gap = np.sqrt((px - t * dx) ** 2 + (py - t * dy) ** 2 + (pz - t * dz) ** 2)
        return np.asarray(gap - (radius_a + np.float32(end - radius_a) * t), dtype=np.float32)

    reach = max(radius_a, end)
    return Solid(low=np.minimum(start, stop) - reach, high=np.maximum(start, stop) + reach, distance=distance)


def ellipsoid(centre: npt.ArrayLike, axes: Vector, radii: npt.ArrayLike) -> Solid:
    """An ellipsoid; the rows of `axes` (3, 3) are its unit axes, `radii` (3,) its half lengths along them."""
    middle, half = np.asarray(centre, dtype=np.float64), np.asarray(radii, dtype=np.float64)

    def distance(x: Field, y: Field, z: Field) -> Field:
        u, v, w = local(x, y, z, middle, axes)
        k0 = np.sqrt((u / half[0]) ** 2 + (v / half[1]) ** 2 + (w / half[2]) ** 2)
        k1 = np.sqrt((u / half[0] ** 2) ** 2 + (v / half[1] ** 2) ** 2 + (w / half[2] ** 2) ** 2)
        return np.asarray(k0 * (k0 - 1.0) / np.maximum(k1, 1e-3), dtype=np.float32)

    reach = float(half.max())
    return Solid(low=middle - reach, high=middle + reach, distance=distance)


def local(x: Field, y: Field, z: Field, origin: Vector, axes: Vector) -> tuple[Field, Field, Field]:
    """Coordinates along the three rows of `axes` (3, 3), counted from `origin` (3,)."""
    px, py, pz = x - np.float32(origin[0]), y - np.float32(origin[1]), z - np.float32(origin[2])
    rows = axes.astype(np.float32)
    u, v, w = (row[0] * px + row[1] * py + row[2] * pz for row in rows)
    return u, v, w


def ellipse(u: Field, v: Field, half_u: Field | float, half_v: Field | float) -> Field:
    """Distance, exact to first order, to an ellipse whose half axes may change from voxel to voxel."""
    a, b = np.asarray(half_u, dtype=np.float32), np.asarray(half_v, dtype=np.float32)
    k0 = np.sqrt((u / a) ** 2 + (v / b) ** 2)
    k1 = np.sqrt((u / (a * a)) ** 2 + (v / (b * b)) ** 2)
    # Near the centre k0 / k1 is 0 / 0; the smaller half axis is the distance there.
    centre = -np.minimum(a, b) * (1.0 - k0)
    return np.asarray(np.where(k0 < 0.05, centre, k0 * (k0 - 1.0) / np.maximum(k1, 1e-4)), dtype=np.float32)


def plate(corners: Vector, radii: Vector) -> Solid:
    """A triangle `corners` (3, 3) with a thickness: `radii` (3,) is half of it at each corner, linear between."""
    a, b, c = corners
    ab, ac = b - a, c - a
    d00, d01, d11 = float(ab @ ab), float(ab @ ac), float(ac @ ac)
    scale = 1.0 / max(d00 * d11 - d01 * d01, 1e-9)

    def distance(x: Field, y: Field, z: Field) -> Field:
        px, py, pz = x - np.float32(a[0]), y - np.float32(a[1]), z - np.float32(a[2])
        d20 = px * np.float32(ab[0]) + py * np.float32(ab[1]) + pz * np.float32(ab[2])
        d21 = px * np.float32(ac[0]) + py * np.float32(ac[1]) + pz * np.float32(ac[2])
        s, t = (d11 * d20 - d01 * d21) * scale, (d00 * d21 - d01 * d20) * scale
        s, t = _onto_triangle(s, t, d20, d21, (d00, d01, d11))
        gap = np.sqrt(sum((p - s * np.float32(ab[i]) - t * np.float32(ac[i])) ** 2 for i, p in enumerate((px, py, pz))))
        return np.asarray(gap - (radii[0] + s * (radii[1] - radii[0]) + t * (radii[2] - radii[0])), dtype=np.float32)

    reach = float(radii.max())
    return Solid(low=corners.min(axis=0) - reach, high=corners.max(axis=0) + reach, distance=distance)


def _onto_triangle(s: Field, t: Field, d20: Field, d21: Field, gram: tuple[float, float, float]) -> tuple[Field, Field]:
    """Barycentric (s, t) of each point's foot on the plane, moved to the nearest point of the triangle."""
    d00, d01, d11 = gram
    along_ab, along_ac = np.clip(d20 / d00, 0.0, 1.0), np.clip(d21 / d11, 0.0, 1.0)
    length = d00 - 2 * d01 + d11
    along_bc = np.clip((d21 - d20 + d00 - d01) / length, 0.0, 1.0)
    beyond_bc, beyond_ab, beyond_ac = s + t > 1.0, t < 0.0, s < 0.0
    # A foot beyond two edges belongs to the edge whose clipped point is nearer; squared distances decide.
    best_s, best_t = s, t
    outside = beyond_bc | beyond_ab | beyond_ac
    best = np.full(s.shape, np.inf, dtype=np.float32)
    for es, et in ((along_ab, 0.0 * along_ab), (0.0 * along_ac, along_ac), (1.0 - along_bc, along_bc)):
        gap = d00 * es * es + 2 * d01 * es * et + d11 * et * et - 2 * (es * d20 + et * d21)
        nearer = outside & (gap < best)
        best = np.where(nearer, gap, best).astype(np.float32)
        best_s, best_t = np.where(nearer, es, best_s), np.where(nearer, et, best_t)
    return np.asarray(best_s, dtype=np.float32), np.asarray(best_t, dtype=np.float32)


def to_unit_slope(field: Field, spacing_mm: float) -> Field:
    """Divide by the slope, so that values near the surface are distances in mm whatever built the field."""
    gradients = np.gradient(field, np.float32(spacing_mm))
    slope = np.sqrt(gradients[0] ** 2 + gradients[1] ** 2 + gradients[2] ** 2)
    return np.asarray(field / np.clip(slope, 0.6, 1.8), dtype=np.float32)
