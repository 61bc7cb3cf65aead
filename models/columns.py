"""Straight columns of needle width that point at the cement: what a needle leaves behind it, and the networks miss.

Each network sees too little to know a needle's track from a calcification: what tells them apart is far off, in the
bone, where the column points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.volume import Volume
from sacroleak.models.canal import SacralFrame
from sacroleak.models.distance import Distances, Mask
from sacroleak.models.rods import SATURATED_HU

Vector = npt.NDArray[np.float64]

WIDEST_MM = 4.2
"""A 13-gauge needle is 2.4 mm wide, what flows back around it up to a third wider; the rest is blur."""
WIDEST_VOXELS = 1.3
"""Or so many of the largest voxel sides."""
SHORTEST_MM, SLENDER = 5.0, 1.8
"""A column is at least so long, and so many times longer than wide; of less the direction is not known."""
MEAN_SHARE, PEAK_SHARE = 0.42, 0.55
"""Of the cement's level, that the column's mean and its densest tenth have at least."""
AIM_DEG, WIDEST_AIM_DEG = 12.0, 25.0
"""Its line may miss the cement by this angle, and by what its own width leaves open, but by no more than the second."""
REACH_MM = 70.0
"""A column lies no farther than this from the cement it points at; simulated tracks of 40 mm begin outside an ilium."""
APART_MM = 3.0
"""What lies nearer to the cement is its rim."""
RING_MM, RING, RING_PERCENTILE, RING_HU = 2.5, 8, 80, 300.0
"""This far outside its wall lies soft tissue or spongy bone, at nearly all of so many places to a step: beside an edge
of bone that stands out of the contour lies the bone."""
BEAD_MM, BEADS_MM, BEAD_SHARE = 1.0, 20.0, 0.7
"""Bodies of which the third lies this near to a column's wall, and no farther than the second beyond its ends, are
pieces of it."""
NEEDLE_MM, RIM_MM = 10.0, 2.0
"""A needle that was left is seen over at least this length; blur makes so much beside it bright."""
BACK, OUT, UP, ACROSS = 0.25, 0.4, 0.65, -0.5
"""A needle comes from behind or from the side, not from far above, where L5 and the iliac crest bar its way, nor from
across the midline: least parts of its outward direction towards the back or the side, most upwards, least sideways.
Posterior, transiliac and anterior-oblique approaches (Tian et al., J Pain Res 2020) all lie within."""
SMALLEST_ML, LARGEST_ML = 0.015, 2.0


def can_come(ends: Points, ways: Points, frame: SacralFrame, *, up: float = UP) -> Mask:
    """Outward ways (n, 3) from (n, 3) LPS mm by which a needle can have come; (n,). `up`: most upwards, 0 to 1."""
    local = frame.local(ends)
    back, above = (np.einsum("ij,ij->i", ways, axes) for axes in (local.back, local.up))
    out = (ways @ frame.left) * np.where(local.left_mm >= 0, 1.0, -1.0)
    return np.asarray(((back >= BACK) | (out >= OUT)) & (above <= up) & (out >= ACROSS))


def across(ways: Points) -> tuple[Points, Points]:
    """Two unit vectors across each of (n, 3) unit ways and each other; (n, 3) each."""
    helper = np.eye(3)[np.argmin(np.abs(ways), axis=1)]
    first = np.cross(ways, helper)
    first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-9)
    return first, np.cross(ways, first)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Origin:
    """The cement that a column can come from: some of its places in the sacrum, `aims` (m, 3) LPS mm, at least one; its
    `level`, HU; the sacrum's own axes.
    """

    aims: Points
    level: float
    frame: SacralFrame


def columns_in(
    points: Points, hu: npt.NDArray[np.float32], body: npt.NDArray[np.int64], *, origin: Origin, ct: Volume,
) -> Mask:
    """Which of (n, 3) LPS mm, each of a connected `body` (n,) (0 for none) and with its `hu` (n,), are columns that
    point at the cement; (n,).
    """
    chosen = np.zeros(len(points), dtype=bool)
    aims, level = origin.aims, origin.level
    tree, widest = cKDTree(aims), widest_mm(ct.geometry)
    found = []
    for rows in _bodies(body, ct.geometry.voxel_ml):
        if hu[rows].mean() < MEAN_SHARE * level or np.percentile(hu[rows], 90) < PEAK_SHARE * level:
            continue
        gap = float(tree.query(points[rows], distance_upper_bound=1.01 * REACH_MM)[0].min())
        column = Column.through(points[rows], hu[rows])
        if (APART_MM <= gap <= REACH_MM and column.slender(widest) and column.points_at(aims)
                and column.can_be_a_needle(aims, origin.frame) and column.stands_alone(ct)):
            chosen[rows] = True
            found.append(column)
    dense = np.flatnonzero(hu > MEAN_SHARE * level) if found else ()
    for column in found:
        own = np.flatnonzero(chosen)
        pieces = _along(column, points, body)
        pieces[own] |= column.holds(points[own], beside_mm=BEAD_MM, beyond_mm=0.0)
        if pieces.any():
            chosen |= pieces
            # Where a track runs through a bone's surface nothing else tells it from cortex.
            chosen[dense] |= column.between(points[dense], points[pieces])
    return chosen


def track_among(points: Points, piece: npt.NDArray[np.int64], aims: Points, geometry: Geometry) -> Mask:
    """Which of (n, 3) LPS mm, voxels of `geometry` in numbered pieces (n,) (0 for none), lie on a column that is one of
    the pieces and points at cement, (m, 3) LPS mm, or in pieces along its line; (n,).
    """
    chosen = np.zeros(len(points), dtype=bool)
    if len(aims) == 0:
        return chosen
    even = np.ones(len(points), dtype=np.float32)
    columns = [Column.through(points[rows], even[rows]) for rows in _bodies(piece, geometry.voxel_ml)]
    for column in columns:
        if column.slender(widest_mm(geometry)) and column.points_at(aims):
            chosen |= _along(column, points, piece)
    return chosen


def _along(column: Column, points: Points, body: npt.NDArray[np.int64]) -> Mask:
    """Which of (n, 3) LPS mm belong to bodies (n,) of which most lies on the column's line; (n,)."""
    counts, rows = np.bincount(body), np.flatnonzero(body)
    held = column.holds(points[rows], beside_mm=BEAD_MM, beyond_mm=BEADS_MM)
    on = np.bincount(body[rows], weights=held, minlength=len(counts)) >= BEAD_SHARE * counts
    on[0] = False
    return np.asarray(on[body])


def widest_mm(geometry: Geometry) -> float:
    """A needle's track looks no wider than this on such voxels."""
    return max(WIDEST_MM, WIDEST_VOXELS * float(geometry.spacing_mm.max()))


def needles_in(
    points: Points, hu: npt.NDArray[np.float32], body: npt.NDArray[np.int64], *, ct: Volume,
) -> Mask:
    """Which of (n, 3) LPS mm lie on or just beside a body that is straight, as thin as a needle, and saturated: thin
    cement is less dense than the thick cement that it comes from. Arguments are those of `columns_in`; (n,).
    """
    chosen = np.zeros(len(points), dtype=bool)
    widest = widest_mm(ct.geometry)
    for rows in _bodies(body, ct.geometry.voxel_ml):
        if np.percentile(hu[rows], 90) < SATURATED_HU:
            continue
        column = Column.through(points[rows], hu[rows])
        if column.slender(widest) and column.length_mm >= NEEDLE_MM:
            chosen |= column.holds(points, beside_mm=RIM_MM, beyond_mm=RIM_MM)
    return chosen


def _bodies(body: npt.NDArray[np.int64], voxel_ml: float) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of each body whose size is that of a column."""
    rows = np.flatnonzero(body)
    order = rows[np.argsort(body[rows], kind="stable")]
    counts = np.bincount(body[rows], minlength=1)
    ends = np.cumsum(counts)
    fair = (counts * voxel_ml >= SMALLEST_ML) & (counts * voxel_ml <= LARGEST_ML)
    for number in np.flatnonzero(fair[1:]) + 1:
        yield order[ends[number] - counts[number]:ends[number]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Column:
    """A straight body: `middle` (3,) LPS mm, `way` a unit vector (3,), LPS; `length_mm`, `width_mm` of it."""

    middle: Vector
    way: Vector
    length_mm: float
    width_mm: float

    @classmethod
    def through(cls, points: Points, weights: npt.NDArray[np.float32]) -> Column:
        """Along the longest axis of (n, 3) LPS mm, each point with its weight; a rod's width is four deviations."""
        share = weights / weights.sum()
        middle = share @ points
        apart = points - middle
        spread, axes = np.linalg.eigh((apart * share[:, None]).T @ apart)
        along = apart @ axes[:, 2]
        return cls(middle=middle, way=axes[:, 2], length_mm=float(np.ptp(along)),
                   width_mm=4.0 * float(np.sqrt(max(spread[1], 0.0))))

    def slender(self, widest_mm: float) -> bool:
        """Whether it is as long and as thin as a needle's track."""
        return (self.length_mm >= max(SHORTEST_MM, SLENDER * self.width_mm)) and self.width_mm <= widest_mm

    def points_at(self, aims: Points) -> bool:
        """Whether its line meets any of (n, 3) LPS mm as nearly as its own shape lets one tell."""
        along, beside = self._from_line(aims)
        open_deg = np.degrees(np.arctan2(self.width_mm / 2, self.length_mm))
        allowed = min(AIM_DEG + float(open_deg), WIDEST_AIM_DEG)
        return bool(np.degrees(np.arctan2(beside, np.abs(along))).min() <= allowed)

    def can_be_a_needle(self, aims: Points, frame: SacralFrame) -> bool:
        """Whether a needle can have come that way to the nearest of (n, 3) LPS mm."""
        out = self.middle - aims[np.argmin(np.linalg.norm(aims - self.middle, axis=1))]
        way = self.way if out @ self.way >= 0 else -self.way
        return bool(can_come(self.middle[None], way[None], frame)[0])

    def stands_alone(self, ct: Volume) -> bool:
        """Whether nothing dense lies round it."""
        first, second = across(self.way[None])
        turns = np.arange(RING) * (2 * np.pi / RING)
        ring = (self.width_mm / 2 + RING_MM) * (np.cos(turns)[:, None] * first + np.sin(turns)[:, None] * second)
        steps = np.arange(-self.length_mm / 2, self.length_mm / 2 + 0.5)[:, None, None] * self.way
        index = ct.geometry.to_index((self.middle + steps + ring).reshape(-1, 3)).T
        round_it = map_coordinates(ct.hu, index, order=1, mode="nearest", output=np.float32)
        return bool(np.percentile(round_it, RING_PERCENTILE) < RING_HU)

    def between(self, points: Points, pieces: Points) -> Mask:
        """Which of (n, 3) LPS mm lie within its walls and between the outermost of its pieces, (m, 3) LPS mm; (n,)."""
        ends, (along, beside) = self._from_line(pieces)[0], self._from_line(points)
        return np.asarray((beside <= self.width_mm / 2) & (along >= ends.min()) & (along <= ends.max()))

    def holds(self, points: Points, *, beside_mm: float, beyond_mm: float) -> Mask:
        """Which of (n, 3) LPS mm lie within it, or no farther than this beside its wall and beyond its ends; (n,)."""
        along, beside = self._from_line(points)
        return np.asarray((beside <= self.width_mm / 2 + beside_mm) & (np.abs(along) <= self.length_mm / 2 + beyond_mm))

    def _from_line(self, points: Points) -> tuple[Distances, Distances]:
        """How far (n, 3) LPS mm lie along its line from its middle, and beside it; (n,) mm each."""
        apart = points - self.middle
        along = apart @ self.way
        return along, np.asarray(np.linalg.norm(apart - along[:, None] * self.way, axis=1))
