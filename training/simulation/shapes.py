"""Solid shapes as signed distances on a scene's grid, computed only where they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Box, Points, box_where
from sacroleak.training.simulation.noise import Field
from sacroleak.training.simulation.readout import Stretched
from sacroleak.training.simulation.scene import FAR_MM, Scene

MARGIN_MM = 5.0
"""How far around a shape its distance is written; beyond, FAR_MM."""


def empty(scene: Scene) -> Field:
    """Nothing anywhere: FAR_MM on the scene's grid."""
    return np.full(scene.geometry.shape, FAR_MM, dtype=np.float32)


def add_tube(out: Field, scene: Scene, points: Points, radius_mm: npt.ArrayLike) -> None:
    """Write into `out` a tube along (n, 3) LPS mm with one radius, or one at each point."""
    radii = np.broadcast_to(np.asarray(radius_mm, dtype=np.float64), (len(points),))
    if len(points) == 1:
        add_ball(out, scene, points[0], float(radii[0]))
    for a, b, ra, rb in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
        _add_segment(out, scene, (a, b), (float(ra), float(rb)))


def add_ball(out: Field, scene: Scene, centre: Points, radius_mm: float) -> None:
    """Write a ball at (3,) LPS mm."""
    _add_segment(out, scene, (centre, centre), (radius_mm, radius_mm))


def _add_segment(out: Field, scene: Scene, ends: tuple[Points, Points], radii: tuple[float, float]) -> None:
    a, b = ends
    reach = max(radii) + MARGIN_MM
    box, axes = _box(scene, np.minimum(a, b) - reach, np.maximum(a, b) + reach)
    if any(s.stop <= s.start for s in box):
        return
    x, y, z = (axis[s].astype(np.float32) for axis, s in zip(axes, box, strict=True))
    along = (b - a).astype(np.float32)
    length2 = float(along @ along)
    dx, dy, dz = x[:, None, None] - a[0], y[None, :, None] - a[1], z[None, None, :] - a[2]
    t: npt.NDArray[np.float32] | float = 0.0
    if length2 > 1e-6:
        t = np.clip((dx * along[0] + dy * along[1] + dz * along[2]) / length2, 0, 1)
    square = (dx - t * along[0]) ** 2 + (dy - t * along[1]) ** 2 + (dz - t * along[2]) ** 2
    distance = np.sqrt(square) - (radii[0] + t * (radii[1] - radii[0]))
    np.minimum(out[box], distance.astype(np.float32), out=out[box])


def _box(scene: Scene, low: Points, high: Points) -> tuple[tuple[slice, slice, slice], tuple[Points, Points, Points]]:
    axes = scene.axes
    i, j, k = (slice(int(np.searchsorted(axis, a)), int(np.searchsorted(axis, b, side="right")))
               for axis, a, b in zip(axes, low, high, strict=True))
    return (i, j, k), axes


def roughen(field: Field, noise: Field, amplitude_mm: float) -> None:
    """Push a shape's surface in and out by noise, in place, where the shape is near."""
    near = field < MARGIN_MM
    field[near] += np.float32(amplitude_mm) * noise[near]


def gradient_at(field: Field, scene: Scene, point: Points) -> Points:
    """Unit direction in which `field` grows at (3,) LPS mm; zeros where it is flat."""
    index = np.clip(np.rint(scene.geometry.to_index(point)).astype(int), 1, np.array(field.shape) - 2)
    i, j, k = (int(n) for n in index)
    step = scene.geometry.spacing_mm
    slope = np.array([
        (field[i + 1, j, k] - field[i - 1, j, k]) / step[0],
        (field[i, j + 1, k] - field[i, j - 1, k]) / step[1],
        (field[i, j, k + 1] - field[i, j, k - 1]) / step[2],
    ], dtype=np.float64)
    size = float(np.linalg.norm(slope))
    return slope / size if size > 1e-6 else np.zeros(3)


def near(scene: Scene, name: str, reach_mm: float) -> tuple[Box, Field] | None:
    """Where a structure is nearer than `reach_mm` (at most about FAR_MM): a box, and its distance there, read-only."""
    home = _extent(scene, name)
    field = _cut(scene.distance, name, home)
    inner = box_where(field < reach_mm)
    return None if inner is None else (_within(home, inner), field[inner])


def distance_in(scene: Scene, name: str, box: Box) -> Field:
    """Distance to one structure within a box of the scene; to be read only."""
    return _cut(scene.distance, name, box)


def around(scene: Scene, name: str) -> Scene:
    """The part of a scene in which the distance to a structure is known; all of it where that is nowhere."""
    box = _extent(scene, name)
    if any(s.stop <= s.start for s in box):
        return scene
    cropped = scene.geometry.crop(np.array([s.start for s in box]), np.array([s.stop for s in box]))
    return replace(scene, geometry=cropped, distance=_Part(scene.distance, box), background=None)


def window(scene: Scene, points_lps: Points, margin_mm: float) -> tuple[Box, Scene]:
    """The part of a scene around (n, 3) LPS mm: its place in the scene's arrays, and the part itself (views).

    It holds at least two voxels along each axis, whatever the points.
    """
    low, high = points_lps.min(axis=0) - margin_mm, points_lps.max(axis=0) + margin_mm
    shape = np.array(scene.geometry.shape)
    start = np.clip(np.floor(scene.geometry.to_index(low)).astype(int), 0, np.maximum(shape - 2, 0))
    stop = np.clip(np.ceil(scene.geometry.to_index(high)).astype(int) + 1, np.minimum(start + 2, shape), shape)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    part = _Part(scene.distance, (i, j, k))
    return (i, j, k), replace(scene, geometry=scene.geometry.crop(start, stop), distance=part, background=None)


class _Part(Mapping[str, Field]):
    """Fields cut to a box when they are asked for: a scene may make its fields only then, too."""

    def __init__(self, fields: Mapping[str, Field], box: Box) -> None:
        self._fields, self._box = fields, box

    def __getitem__(self, name: str) -> Field:
        return _cut(self._fields, name, self._box)

    def part(self, name: str, box: Box) -> Field:
        """A field within a box of this part."""
        return _cut(self._fields, name, _within(self._box, box))

    def __contains__(self, name: object) -> bool:
        """Whether there is such a field; makes none."""
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


def _cut(fields: Mapping[str, Field], name: str, box: Box) -> Field:
    return fields.part(name, box) if isinstance(fields, (Stretched, _Part)) else fields[name][box]


def _extent(scene: Scene, name: str) -> Box:
    if isinstance(scene.distance, Stretched):
        return scene.distance.extent(name)
    i, j, k = scene.geometry.shape
    return slice(0, i), slice(0, j), slice(0, k)


def _within(outer: Box, inner: Box) -> Box:
    i, j, k = (slice(a.start + b.start, a.start + b.stop) for a, b in zip(outer, inner, strict=True))
    return i, j, k


def whole(scene: Scene, part: Field, box: Box) -> Field:
    """A window's field on the whole scene's grid, FAR_MM elsewhere."""
    field = empty(scene)
    field[box] = part
    return field
