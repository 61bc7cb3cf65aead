"""A scan whose HU say what everything is, and a network that reads them: both passes can be tested without training."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sacroleak.core.geometry import Geometry, Points, Shape
from sacroleak.core.structures import Structure
from sacroleak.core.volume import Volume
from sacroleak.models.cement import SOFT_HU
from sacroleak.models.intensity import DENSE_WINDOW_HU
from sacroleak.models.resample import Field

SOFT, HIP, SACRUM, CEMENT, METAL = 40.0, 450.0, 1000.0, 1900.0, 2900.0
BORDERS = [(low + high) / 2 for low, high in pairwise((SOFT, HIP, SACRUM, CEMENT, METAL))]
HALF_MM = np.array([40.0, 22.0, 48.0])
"""Half axes of the sacrum, an ellipsoid; one hip beside it on each side, the left one reaching higher."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Where the sacrum lies, and the box that is scanned about the origin. `metal` lies in the right hip, a `screw` in
    the sacrum; the coded network sees no bone in either.
    """

    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    size_mm: tuple[float, float, float] = (230.0, 140.0, 220.0)
    spacing_mm: tuple[float, float, float] = (2.5, 2.5, 3.0)
    order: tuple[int, int, int] = (0, 1, 2)
    signs: tuple[int, int, int] = (1, 1, 1)
    cement_ml: float = 0.0
    metal: bool = False
    screw: bool = False

    def geometry(self) -> Geometry:
        """Array axis a runs along LPS axis order[a], forwards or backwards."""
        sides = [round(self.size_mm[lps] / self.spacing_mm[lps]) for lps in self.order]
        affine = np.zeros((4, 4))
        affine[3, 3] = 1
        for axis, (lps, sign) in enumerate(zip(self.order, self.signs, strict=True)):
            affine[lps, axis] = sign * self.spacing_mm[lps]
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(sides) - 1) / 2)
        shape: Shape = (sides[0], sides[1], sides[2])
        return Geometry(affine=affine, shape=shape)

    def volume(self) -> Volume:
        """The scan itself, int16."""
        geometry = self.geometry()
        index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)
        points = geometry.to_lps(index) - self.centre
        hu = np.full(geometry.shape, SOFT)
        hu[_ellipsoid(points, (58.0, 0.0, 5.0), (10.0, 20.0, 30.0))] = HIP
        hu[_ellipsoid(points, (-58.0, 0.0, -5.0), (10.0, 20.0, 30.0))] = HIP
        hu[_ellipsoid(points, (0.0, 0.0, 0.0), tuple(HALF_MM))] = SACRUM
        if self.cement_ml:
            radius = float(np.cbrt(self.cement_ml * 1000 * 0.75 / np.pi))
            hu[_ellipsoid(points, (18.0, 0.0, 0.0), (radius,) * 3)] = CEMENT
        if self.metal:
            hu[_ellipsoid(points, (-60.0, 0.0, 20.0), (6.0, 6.0, 20.0))] = METAL
        if self.screw:
            hu[_ellipsoid(points, (-18.0, 0.0, 5.0), (9.0, 6.0, 20.0))] = METAL
        return Volume(hu=hu.astype(np.int16), geometry=geometry)


def _ellipsoid(points: Points, centre: tuple[float, ...], half: tuple[float, ...]) -> np.ndarray:
    inside: np.ndarray = (((points - centre) / half) ** 2).sum(axis=-1) < 1
    return inside


class CodedNetwork:
    """Reads the codes as a trained network would see bone, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, channels: Field) -> Field:
        """(2, i, j, k) channels to (8, i, j, k) probabilities, 0.9 for what it is sure of."""
        self.asked += 1
        low, high = DENSE_WINDOW_HU
        hu = (channels[1] + 1) / 2 * (high - low) + low
        kind = np.digitize(hu, BORDERS)
        # Where cement was made soft tissue, and behind the mark of `erase`, the sacrum goes on.
        kind[(np.abs(hu - SOFT_HU) < 0.5) | ((channels[0] == -1) & (channels[1] == 1))] = 2
        out = np.full((8, *hu.shape), 0.01, dtype=np.float32)
        sacrum, hip = (kind == 2) | (kind == 3), kind == 1
        where = np.argwhere(sacrum)
        middle = where[:, 0].mean() if len(where) else (hu.shape[0] - 1) / 2
        left = (np.arange(hu.shape[0]) > middle)[:, None, None]
        out[Structure.SACRUM][sacrum] = 0.9
        out[Structure.HIP_LEFT][hip & left] = 0.9
        out[Structure.HIP_RIGHT][hip & ~left] = 0.9
        out[Structure.BACKGROUND][~(sacrum | hip)] = 0.9
        out[6][kind == 3] = 0.9
        out[7][kind == 4] = 0.9
        return out
