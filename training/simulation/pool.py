"""Cement that spreads from one place into a room until a volume is reached."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import label

from sacroleak.core.geometry import Points
from sacroleak.training.simulation.noise import Field, smooth_noise
from sacroleak.training.simulation.scene import FAR_MM, Scene
from sacroleak.training.simulation.shapes import empty, window


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """How cement spreads: from a centre, `scale` times as far along each of three unit `axes` (3, 3; rows), with a
    border that is uneven by the share `rough`.
    """

    centre_lps_mm: Points
    axes: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    rough: float


def pour(rng: np.random.Generator, scene: Scene, room: Field, pool: Pool, target_ml: float, *,
         along: Field | None = None) -> Field:
    """Fill the part of `room` (negative inside) that holds the pool's centre, nearest places first; mm, on the scene.

    `along` replaces the distance along the second axis by that of a curved surface. Where the room is too small all of
    it is filled.
    """
    reach = 1.5 * float(np.cbrt(target_ml * 1000 * 3 / (4 * np.pi))) * float(pool.scale.max()) + 6.0
    while True:
        box, part = window(scene, pool.centre_lps_mm[None], reach)
        inside = _connected(room[box], part, pool.centre_lps_mm)
        enough = np.count_nonzero(inside) * scene.geometry.voxel_ml >= 1.2 * target_ml
        if enough or part.geometry.shape == scene.geometry.shape or reach > 90:
            break
        reach *= 1.5
    spread = _spread(rng, part, pool, None if along is None else (along[box], _nearest(along, scene, pool)))
    field = empty(scene)
    field[box] = _level(spread, np.where(inside, room[box], np.float32(FAR_MM)), target_ml, scene.geometry.voxel_ml)
    return field


def shifted_to(body: Field, room: Field, target_ml: float, scene: Scene, *, most_mm: tuple[float, float]) -> Field:
    """Swell or shrink a shape so that its part in `room` has the wanted volume, within `most_mm` (least, most)."""
    values = body[(room < 0) & (body < most_mm[1] + 0.5)]
    if values.size == 0:
        return body
    shift = float(np.clip(_level_of(values, target_ml / scene.geometry.voxel_ml), *most_mm))
    moved: Field = body - np.float32(shift)
    return moved


def nearest_of(rng: np.random.Generator, points: Points, cement: Points, *, spread_mm: float) -> int:
    """Index of one of (n, 3) places, drawn: `spread_mm` farther from the (m, 3) cement is e times less likely."""
    some = cement[:: max(1, len(cement) // 60)]
    apart = np.linalg.norm(points[:, None] - some, axis=2).min(axis=1)
    weight = np.exp(-(apart - apart.min()) / spread_mm)
    return int(rng.choice(len(points), p=weight / weight.sum()))


def _connected(room: Field, part: Scene, centre: Points) -> npt.NDArray[np.bool_]:
    """The connected part of a room that holds the voxel nearest to `centre`."""
    parts, count = label(room < 0)
    if count == 0:
        return np.zeros(room.shape, dtype=bool)
    cells = np.argwhere(parts > 0)
    nearest = cells[int(np.argmin(((part.geometry.to_lps(cells) - centre) ** 2).sum(axis=1)))]
    own: npt.NDArray[np.bool_] = parts == parts[tuple(nearest)]
    return own


def _spread(rng: np.random.Generator, part: Scene, pool: Pool, curved: tuple[Field, float] | None) -> Field:
    """How far from the pool's centre each voxel lies, in mm along its widest unit axis."""
    x, y, z = (axis.astype(np.float32) - np.float32(c) for axis, c in zip(part.axes, pool.centre_lps_mm, strict=True))
    square = np.zeros(part.geometry.shape, dtype=np.float32)
    for n, (axis, scale) in enumerate(zip(pool.axes.astype(np.float32), pool.scale, strict=True)):
        away = axis[0] * x[:, None, None] + axis[1] * y[None, :, None] + axis[2] * z[None, None, :]
        if curved is not None and n == 1:
            away = curved[0] - np.float32(curved[1])
        square += (away / np.float32(scale)) ** 2
    spacing = float(part.geometry.spacing_mm.min())
    uneven = 1 + np.float32(pool.rough) * np.clip(smooth_noise(rng, part.geometry.shape, 5.0 / spacing), -2, 2)
    far: Field = np.sqrt(square) * uneven
    return far


def _nearest(field: Field, scene: Scene, pool: Pool) -> float:
    index = np.clip(np.rint(scene.geometry.to_index(pool.centre_lps_mm)).astype(int), 0, np.array(field.shape) - 1)
    return float(field[tuple(index)])


def _level(spread: Field, room: Field, target_ml: float, voxel_ml: float) -> Field:
    values = spread[room < 0]
    if values.size == 0:
        return np.full_like(spread, FAR_MM)
    level = _level_of(values, target_ml / voxel_ml)
    filled: Field = np.maximum(np.clip(spread - np.float32(level), -FAR_MM, FAR_MM), room)
    return filled


def _level_of(values: Field, wanted: float) -> float:
    """The level below which about `wanted` of the values lie, at least one of them."""
    n = int(np.clip(round(wanted), 1, values.size))
    if n == values.size:
        return float(values.max()) + 0.01
    two = np.partition(values, [n - 1, n])
    return float(two[n - 1] + two[n]) / 2


