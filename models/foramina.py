"""The sacral foramina in front, each with its level and side, found from the anatomy alone."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.structures import Side, Structure
from sacroleak.core.volume import LabelMap
from sacroleak.models.canal import SacralFrame
from sacroleak.models.distance import closed, indices_of
from sacroleak.models.limits import CompartmentLimits
from sacroleak.models.rays import Rays, enclosed

GRID_MM = 2.0
"""Foramina are 6 to 15 mm wide: half the working resolution shows them, at an eighth of the work."""
LATERAL_MM = (6.0, 36.0)
"""Nearer to the midline lies the canal, farther out the recesses of the joint."""
SMALLEST_ML = 0.08
"""Smaller enclosed corners are no foramina: S4's tunnel, 5 mm wide and 6 mm long, has 0.12 mL."""
SAME_LEVEL_MM = 10.0
"""Left and right foramina of a level, and pieces of one, lie this near along the canal; levels are 15 to 25 apart."""
SKIPPED_MM = 36.0
"""Neighbouring levels are nearer than this to each other, and every second one is farther."""
LEVELS = 4
TOP_MARGIN_MM = 6.0
"""A sacrum that comes this near to the end of the field of view may go on beyond it, and its levels are not counted."""

NAMES = ("", "first", "second", "third", "fourth")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Foramen:
    """One anterior foramen: `level` 1 (S1) to 4, or 0 if the sacrum's top is not seen; its `points` (n, 3), LPS mm."""

    level: int
    side: Side
    points: Points
    tree: cKDTree

    @property
    def name(self) -> str:
        """As a reader calls it: "first left foramen", or "left foramen" if the level is not known."""
        return " ".join(word for word in (NAMES[self.level], str(self.side), "foramen") if word)

    def distance_mm(self, points_lps: Points) -> float:
        """Least distance from any of (n, 3) LPS mm to it."""
        return float(self.tree.query(points_lps)[0].min())


def find_foramina(bone: LabelMap, frame: SacralFrame, limits: CompartmentLimits) -> tuple[Foramen, ...]:
    """Foramina of the sacrum in `bone` (Structure 0-5), from above downwards, left before right.

    A foramen is room in front of the canal's middle, inside the closed hull of sacrum and canal, with bone or canal on
    its medial, lateral, upper and lower side.
    """
    points, labels = _pieces(bone, frame, limits)
    pieces = [points[labels == n] for n in range(1, int(labels.max(initial=0)) + 1)]
    least = SMALLEST_ML * 1000.0 / float(np.prod(_coarse(bone).geometry.spacing_mm))
    large = [piece for piece in pieces if len(piece) >= least]
    if not large:
        return ()
    local = [frame.local(piece) for piece in large]
    heights = np.array([float(place.along_mm.mean()) for place in local])
    left = np.array([float(place.left_mm.mean()) > 0 for place in local])
    level = _levels(heights) if _top_seen(bone) else np.zeros(len(large), dtype=np.int64)
    group = _groups(heights)
    found = []
    for number in range(int(group.max()) + 1):
        for side, wanted in ((Side.LEFT, True), (Side.RIGHT, False)):
            own = np.flatnonzero((group == number) & (left == wanted))
            if len(own) and level[own[0]] <= LEVELS:
                together = np.concatenate([large[n] for n in own])
                found.append(Foramen(level=int(level[own[0]]), side=side, points=together, tree=cKDTree(together)))
    return tuple(found)


def _coarse(bone: LabelMap) -> LabelMap:
    """The sacrum's box at about GRID_MM, as wide as the closing of its hull needs."""
    step = np.maximum(np.rint(GRID_MM / bone.geometry.spacing_mm), 1).astype(int)
    affine = bone.geometry.affine.copy()
    affine[:3, :3] = affine[:3, :3] * step
    labels = np.ascontiguousarray(bone.labels[:: step[0], :: step[1], :: step[2]], dtype=np.uint8)
    return LabelMap(labels=labels, geometry=Geometry(affine=affine, shape=labels.shape))


def _pieces(
    bone: LabelMap, frame: SacralFrame, limits: CompartmentLimits,
) -> tuple[Points, npt.NDArray[np.int64]]:
    """Points of everything that is enclosed like a foramen, (n, 3) LPS mm, and which piece each belongs to, from 1."""
    coarse = _coarse(bone)
    solid = np.isin(coarse.labels, (Structure.SACRUM, Structure.SACRAL_CANAL))
    room = closed(np.asarray(solid), coarse.geometry, limits.foramen_closing_mm)
    index = indices_of(room & (coarse.labels == Structure.BACKGROUND))
    points = coarse.geometry.to_lps(index)
    local = frame.local(points)
    aside = np.abs(local.left_mm)
    some = (aside >= LATERAL_MM[0]) & (aside <= LATERAL_MM[1]) & (local.dorsal_mm < 0)
    index, points = index[some], points[some]
    walled = enclosed(Rays(bone=bone, points=points), local.only(some), frame, limits.foramen_ray_mm)
    index, points = index[walled], points[walled]
    mask = np.zeros(coarse.labels.shape, dtype=np.uint8)
    mask[tuple(index.T)] = 1
    numbers = cc3d.connected_components(mask, connectivity=26)
    return points, np.asarray(numbers[tuple(index.T)], dtype=np.int64)


def _groups(heights: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Number of the level each piece belongs to, 0 at the top, without gaps."""
    order = np.argsort(-heights, kind="stable")
    group = np.zeros(len(heights), dtype=np.int64)
    first = heights[order[0]]
    number = 0
    for n in order:
        if first - heights[n] > SAME_LEVEL_MM:
            number, first = number + 1, heights[n]
        group[n] = number
    return group


def _levels(heights: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Level of each piece, from 1; a gap of more than SKIPPED_MM leaves a level out."""
    group = _groups(heights)
    middles = np.array([heights[group == n].mean() for n in range(int(group.max()) + 1)])
    steps = np.where(-np.diff(middles) > SKIPPED_MM, 2, 1)
    return np.asarray(1 + np.concatenate([[0], np.cumsum(steps)])[group], dtype=np.int64)


def _top_seen(bone: LabelMap) -> bool:
    """Whether the sacrum ends below the upper end of what is seen, as it does beneath a disc."""
    top = int(np.flatnonzero((bone.labels == Structure.SACRUM).any(axis=(0, 1)))[-1])
    return bool((bone.labels.shape[2] - 1 - top) * float(bone.geometry.spacing_mm[2]) >= TOP_MARGIN_MM)
