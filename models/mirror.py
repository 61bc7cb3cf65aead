"""The other side of the pelvis: a mirror that brings the sacrum's own surface onto itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from sacroleak.core.geometry import Points, box_where
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.canal import SacralFrame, sacral_frame
from sacroleak.models.distance import Indices, Mask, indices_of, shell

SEEN_HU = -300.0
"""Darker than any tissue: beyond the scan, air, or gas."""
AIR_HU = -1024.0
FIT_POINTS, FIT_SHARE, FIT_TURNS = 4000, 0.7, 25
"""Points of the surface that the mirror is fitted to, the share of them that fits best and alone counts, and turns."""
FEWEST_POINTS = 300
WORST_FIT_MM = 2.5
"""If the halves differ by more than this in the median, the one says nothing of the other."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mirror:
    """A reflection with a small motion: `turn` (3, 3) and then `shift` (3,), LPS mm."""

    turn: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]

    @classmethod
    def across(cls, frame: SacralFrame) -> Mirror:
        """At the plane in the middle of the sacrum."""
        middle = frame.centreline[len(frame.centreline) // 2]
        return cls(turn=np.eye(3) - 2 * np.outer(frame.left, frame.left), shift=2 * (middle @ frame.left) * frame.left)

    def image(self, points: Points) -> Points:
        """Of (n, 3) LPS mm."""
        return np.asarray(points @ self.turn.T + self.shift)

    def moved(self, images: Points, onto: Points) -> Mirror:
        """Followed by the rigid motion that brings (n, 3) `images` nearest to (n, 3) `onto` (Kabsch 1976)."""
        start, end = images.mean(axis=0), onto.mean(axis=0)
        left, _, right = np.linalg.svd((images - start).T @ (onto - end))
        turn = right.T @ np.diag([1.0, 1.0, np.sign(np.linalg.det(right.T @ left.T))]) @ left.T
        return Mirror(turn=turn @ self.turn, shift=turn @ (self.shift - start) + end)


def fitted_mirror(points: Points, frame: SacralFrame) -> Mirror | None:
    """The mirror that brings (n, 3) `points` of the sacrum's surface, LPS mm, onto themselves; None if they are too
    few, or it does not fit.
    """
    points = points[:: max(1, len(points) // FIT_POINTS)]
    if len(points) < FEWEST_POINTS:
        return None
    tree, mirror = cKDTree(points), Mirror.across(frame)
    for _ in range(FIT_TURNS):
        images = mirror.image(points)
        apart, nearest = tree.query(images)
        fits = apart <= max(float(np.quantile(apart, FIT_SHARE)), 1.0)
        last, mirror = mirror, mirror.moved(images[fits], points[nearest[fits]])
        if np.abs(mirror.image(points) - last.image(points)).max() < 0.05:
            break
    return mirror if float(np.median(tree.query(mirror.image(points))[0])) <= WORST_FIT_MM else None


def sacral_mirror(anatomy: LabelMap, seen: Callable[[Indices], Mask]) -> Mirror | None:
    """The mirror that brings what is `seen` of the sacrum's outermost voxels, asked by (n, 3) index into the anatomy,
    onto itself; None without a sacrum, if too little of it is seen, or if it does not fit.
    """
    sacrum = anatomy.labels == Structure.SACRUM
    box = box_where(sacrum, 1)
    if box is None:
        return None
    index = indices_of(shell(sacrum[box])) + [side.start for side in box]
    return fitted_mirror(anatomy.geometry.to_lps(index[seen(index)]), sacral_frame(anatomy))


def nearest_hu(ct: Volume, points: Points) -> npt.NDArray[np.float32]:
    """HU of the voxel nearest to each of (n, 3) LPS mm, AIR_HU beyond the scan; (n,)."""
    at, inside = ct.geometry.nearest(points)
    hu = np.full(len(points), AIR_HU, dtype=np.float32)
    hu[inside] = ct.hu[tuple(at[inside].T)]
    return hu
