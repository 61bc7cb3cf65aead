"""How much bone lies around a part, here and on the other side, and how far off the bone's surface is sure.

Beside cement the contour is drawn from what lies around. Where it is drawn too far in, the cement beyond it fills a
dent that the bone's other half has not, amid much bone; a leak lies on a surface like that of the other side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.structures import Structure
from sacroleak.core.volume import Volume
from sacroleak.models.compartments import Compartments
from sacroleak.models.distance import FAR_MM, Distances, Mask, marked, near_mm
from sacroleak.models.mirror import SEEN_HU, Mirror, fitted_mirror, nearest_hu

NEAR_MM, WIDE_MM = 5.0, 17.0
"""Half sides of the cubes in which bone is counted: as wide as Gaussians of 3 and 10 mm."""
BESIDE_MM = 4.0
"""So near to cement the contour is a guess."""
FARTHEST_MM = 6.0
"""Distances to the bone of the other side are cut here, to both sides of its surface."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoneAround:
    """Means over a part's voxels. `near_share`, `wide_share`: sacrum and canal in cubes of 11 and 35 mm, 0 to 1.
    `more_share`: how much more there is in the smaller cube than around the mirror image. `other_mm`: signed distance
    of the mirror image to the sacrum, negative inside. `seen_mm`: distance to the nearest surface of the sacrum beside
    which there is no cement, FAR_MM without one.

    Where the mirror image is not seen, or lies beside cement too, the other side is taken to be like this one.
    """

    near_share: float
    wide_share: float
    more_share: float
    other_mm: float
    seen_mm: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surroundings:
    """One scan's sacrum, ready to be asked. `sums` [i + 1, j + 1, k + 1]: voxels of sacrum and canal before each corner
    of `grid`; `beside`: what lies beside cement, on `grid`; `seen`: the surface elsewhere; `mirror`: None if there is
    none to be had.
    """

    spaces: Compartments
    ct: Volume
    sums: npt.NDArray[np.int32]
    beside: Mask
    seen: cKDTree | None
    mirror: Mirror | None

    @property
    def grid(self) -> Geometry:
        """Of the anatomy."""
        return self.spaces.bone.geometry

    def of(self, points: Points, bone_mm: Distances) -> BoneAround:
        """What lies around a part: (n, 3) LPS mm, and their signed distances, (n,) mm, to the sacrum."""
        near, other = self._share(points, NEAR_MM), np.clip(bone_mm, -FARTHEST_MM, FARTHEST_MM)
        more = np.zeros(1)
        images = points[:0] if self.mirror is None else self.mirror.image(points)
        told = self._told(images)
        if told.any():
            more = near[told] - self._share(images[told], NEAR_MM)
            other = np.clip(self._depth_mm(images[told]), -FARTHEST_MM, FARTHEST_MM)
        return BoneAround(
            near_share=float(near.mean()), wide_share=float(self._share(points, WIDE_MM).mean()),
            more_share=float(more.mean()), other_mm=float(other.mean()),
            seen_mm=FAR_MM if self.seen is None else float(self.seen.query(points)[0].mean()))

    def _share(self, points: Points, half_mm: float) -> Distances:
        """Share of sacrum and canal in the cube around each of (n, 3) LPS mm; nothing lies beyond the grid; (n,)."""
        half = np.rint(half_mm / self.grid.spacing_mm).astype(np.int64)
        at, _ = self.grid.nearest(points)
        low, high = (np.clip(corner, 0, self.grid.shape) for corner in (at - half, at + half + 1))
        count = np.zeros(len(points))
        for number in range(8):
            upper = np.array([number & 1, number & 2, number & 4], dtype=bool)
            count += (-1.0) ** (3 - np.count_nonzero(upper)) * self.sums[tuple(np.where(upper, high, low).T)]
        return np.asarray(count / np.prod(2 * half + 1))

    def _told(self, points: Points) -> Mask:
        """Which of (n, 3) LPS mm are seen in the scan and do not lie beside cement; (n,)."""
        at, inside = self.grid.nearest(points)
        told = (nearest_hu(self.ct, points) > SEEN_HU) & inside
        told[told] = ~self.beside[tuple(at[told].T)]
        return told

    def _depth_mm(self, points: Points) -> Distances:
        """Signed distance of (n, 3) LPS mm within the grid to the sacrum's outermost voxels; (n,)."""
        away = np.asarray(self.spaces.surface.query(points)[0])
        at, _ = self.grid.nearest(points)
        return np.asarray(np.where(self.spaces.bone.labels[tuple(at.T)] == Structure.SACRUM, -away, away))


def surroundings(spaces: Compartments, cement: Points, ct: Volume) -> Surroundings:
    """Of one scan; `cement`: (n, 3) LPS mm."""
    labels, grid = spaces.bone.labels, spaces.bone.geometry
    solid = (labels == Structure.SACRUM) | (labels == Structure.SACRAL_CANAL)
    sums = np.zeros([n + 1 for n in solid.shape], dtype=np.int32)
    sums[1:, 1:, 1:] = solid
    for axis in range(3):
        np.cumsum(sums, axis=axis, out=sums)
    beside = near_mm(marked(cement, grid), grid, BESIDE_MM) <= BESIDE_MM
    shell = np.asarray(spaces.surface.data)
    shell = shell[(nearest_hu(ct, shell) > SEEN_HU) & ~beside[tuple(grid.nearest(shell)[0].T)]]
    return Surroundings(spaces=spaces, ct=ct, sums=sums, beside=beside, seen=cKDTree(shell) if len(shell) else None,
                        mirror=fitted_mirror(shell, spaces.frame))
