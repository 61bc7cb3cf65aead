"""What scans of another maker are made of: balls and rods, how much of each voxel they fill, and a patient's bones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.structures import Structure
from sacroleak.models.resample import Field, sample_points, sample_separable
from sacroleak.training.simulation.anatomy import STEP_MM, Anatomy

BONES = {"sacrum": Structure.SACRUM, "canal": Structure.SACRAL_CANAL, "hip_left": Structure.HIP_LEFT,
         "hip_right": Structure.HIP_RIGHT, "l5": Structure.L5}
REACH_MM = 60.0
"""No ala is so deep in any direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rod:
    """All that lies within `radius_mm` of the line from `start` to `end`, LPS mm; a ball if they are one."""

    start: Points
    end: Points
    radius_mm: float

    def distance(self, points: Points) -> npt.NDArray[np.float64]:
        """Signed distance of (..., 3) LPS mm points, mm, negative inside."""
        way = self.end - self.start
        along = np.clip((points - self.start) @ way / max(float(way @ way), 1e-9), 0.0, 1.0)
        return np.asarray(np.linalg.norm(points - self.start - along[..., None] * way, axis=-1) - self.radius_mm)


def ball(centre: Points, radius_mm: float) -> Rod:
    """A rod without length."""
    return Rod(start=centre, end=centre, radius_mm=radius_mm)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bones:
    """An anatomy's distance fields, mm, sampled where they are asked for."""

    anatomy: Anatomy

    def at(self, name: str, points: Points) -> npt.NDArray[np.float64]:
        """Signed distance at (n, 3) LPS mm points; (n,), negative inside, at most 12.7."""
        index = self.anatomy.geometry.to_index(points)
        return sample_points(self.anatomy.fields[name].astype(np.float32), index).astype(np.float64) * STEP_MM

    def on(self, name: str, grid: Geometry) -> Field:
        """The same at every voxel of a grid whose axes run along +L +P +S."""
        own = self.anatomy.geometry
        axes = tuple((grid.affine[a, 3] + grid.affine[a, a] * np.arange(n) - own.affine[a, 3]) / own.affine[a, a]
                     for a, n in enumerate(grid.shape))
        return sample_separable(self.anatomy.fields[name].astype(np.float32), axes) * np.float32(STEP_MM)

    def ala(self, side: int) -> Points:
        """The deepest bone of the left (1) or the right (-1) ala, LPS mm."""
        ala: Points = self.anatomy.landmarks["ala_left" if side > 0 else "ala_right"][0]
        return ala

    def leaves(self, start: Points, direction: Points) -> Points:
        """Where a ray from inside the sacrum first leaves it, or after REACH_MM."""
        ray = start + np.arange(0.0, REACH_MM, 0.5)[:, None] * direction
        outside = np.flatnonzero(self.at("sacrum", ray) > 0)
        return np.asarray(ray[outside[0] if len(outside) else -1])

    def middle(self) -> Points:
        """Of the box around the sacrum, LPS mm."""
        index = np.argwhere(self.anatomy.fields["sacrum"] < 0)
        return self.anatomy.geometry.to_lps((index.min(axis=0) + index.max(axis=0)) / 2)


def lumps(rng: np.random.Generator, bones: Bones, side: int) -> list[Rod]:
    """Balls around the middle of an ala; the first is the largest."""
    ala = bones.ala(side)
    around = [ball(ala + rng.normal(0.0, 5.0, 3), float(rng.uniform(2.5, 6.0))) for _ in range(int(rng.integers(3, 9)))]
    return [ball(ala, float(rng.uniform(5.0, 8.0))), *around]


def mix(hu: Field, rods: list[Rod], value: float, grid: Geometry) -> None:
    """Blend `value` into `hu` where the rods lie, in place."""
    share = filled(rods, grid)
    hu += share * (np.float32(value) - hu)


def filled(rods: list[Rod], grid: Geometry) -> Field:
    """Share of each voxel that the rods fill together, by the distance of its centre from their surface."""
    share = np.zeros(grid.shape, dtype=np.float32)
    for rod in rods:
        ends = grid.to_index(np.stack([rod.start, rod.end]))
        margin = rod.radius_mm / grid.spacing_mm + 2
        low = np.clip(np.floor(ends.min(axis=0) - margin), 0, grid.shape).astype(int)
        high = np.clip(np.ceil(ends.max(axis=0) + margin) + 1, low, grid.shape).astype(int)
        if (high <= low).any():
            continue
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        steps = (np.arange(a, b) for a, b in zip(low, high, strict=True))
        index = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1)
        np.maximum(share[box], inside(rod.distance(grid.to_lps(index)), grid), out=share[box])
    return share


def inside(distance: npt.NDArray[np.floating], grid: Geometry) -> Field:
    """Share of a voxel within a surface whose signed distance from its centre is given."""
    share: Field = np.clip(0.5 - distance / float(grid.spacing_mm.mean()), 0.0, 1.0).astype(np.float32)
    return share
