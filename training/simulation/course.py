"""Courses of veins over the pelvic surface of the sacrum, and their calibre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Points
from sacroleak.training.simulation.noise import Field
from sacroleak.training.simulation.scene import Scene
from sacroleak.training.simulation.shapes import gradient_at
from sacroleak.training.simulation.spaces import Spaces

STEP_MM = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Gait:
    """How a vein runs: so far, so high in front of the bone; `winding` bends it at each step (radians, about), `pull`
    is the share by which each step turns back to the heading.
    """

    length_mm: float
    lift_mm: float
    winding: float = 0.35
    pull: float = 0.12


def walk(rng: np.random.Generator, spaces: Spaces, start: Points, heading: Points, *, gait: Gait) -> Points:
    """A winding walk in front of the closed sacrum from `start` towards `heading`; (n, 3) LPS mm, STEP_MM apart.

    It ends where it leaves the pelvic surface or the grid.
    """
    scene, surface = spaces.scene, spaces.hull
    wanted = heading / np.linalg.norm(heading)
    way, point, course = wanted.copy(), np.array(start, dtype=np.float64), [np.array(start, dtype=np.float64)]
    bend = np.zeros(3)
    for _ in range(int(gait.length_mm / STEP_MM)):
        outward = gradient_at(surface, scene, point)
        # Bends last for several steps: a vein swings, it does not shiver.
        bend = 0.75 * bend + rng.normal(0, gait.winding, size=3) * 0.66
        along = wanted - outward * (wanted @ outward)
        size = float(np.linalg.norm(along))
        # Where the surface turns across the heading, there is no telling which way to go on.
        way = way + bend * 0.6 + (gait.pull * (along / size - way) if size > 0.3 else 0.0)
        way = way - outward * (way @ outward)
        way = way / max(float(np.linalg.norm(way)), 1e-6)
        point = point + STEP_MM * way
        height = value_at(surface, scene, point)
        point = point + outward * np.clip(gait.lift_mm - height, -STEP_MM, STEP_MM)
        if not within(scene, point) or outward[1] > 0.4 or value_at(spaces.venous, scene, point) > 1.5:
            break
        course.append(point)
    return np.array(course)


def calibre(rng: np.random.Generator, count: int, radius_mm: float) -> npt.NDArray[np.float64]:
    """Radius along a course of `count` points: swelling and narrowing by a third, thinner towards its end; (n,) mm."""
    knots = np.exp(rng.normal(0, 0.22, size=max(2, count // 5 + 2)))
    along = np.interp(np.linspace(0, len(knots) - 1, count), np.arange(len(knots)), knots)
    taper = np.linspace(1.0, rng.uniform(0.55, 1.0), count)
    return np.clip(radius_mm * along * taper, 0.35, 2.2)


def beads(rng: np.random.Generator, count: int) -> list[slice]:
    """Pieces that are left when cement breaks up into beads: at least two points each, gaps of one to four steps."""
    pieces, at = [], 0
    while at < count - 1:
        stop = min(at + int(rng.integers(3, 9)), count)
        if stop - at >= 2:
            pieces.append(slice(at, stop))
        at = stop + int(rng.integers(1, 4))
    return pieces


def value_at(field: Field, scene: Scene, point: Points) -> float:
    """A field at (3,) LPS mm, linear between voxels, clamped at the edges."""
    index = np.clip(scene.geometry.to_index(point), 0, np.array(field.shape) - 1)
    low = np.minimum(index.astype(int), np.maximum(np.array(field.shape) - 2, 0))
    w = index - low
    corner = field[low[0]:low[0] + 2, low[1]:low[1] + 2, low[2]:low[2] + 2]
    for weight in w:
        corner = corner[0] if corner.shape[0] == 1 else corner[0] * (1 - weight) + corner[1] * weight
    return float(corner)


def within(scene: Scene, point: Points) -> bool:
    """Whether a point lies at least two voxels inside the grid."""
    index = scene.geometry.to_index(point)
    return bool(((index >= 2) & (index <= np.array(scene.geometry.shape) - 3)).all())
