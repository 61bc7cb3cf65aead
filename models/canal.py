"""The sacrum's own axes: left-right from the hips, and a curve down the middle of the canal.

Nothing here uses image axes beyond telling a direction from its opposite (left is +L, up is +S), so a patient who
lies turned or tilted is measured the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from sacroleak.core.errors import ModelError
from sacroleak.core.geometry import Points
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap
from sacroleak.models.distance import indices_of

Vector = npt.NDArray[np.float64]

HIP_REACH_MM = 90.0
"""Hip bone this near the sacrum's centre gives the left-right axis; what a scan cuts off beyond does not tilt it."""
HIP_BALANCE = 0.6
"""The smaller hip must show this share of the larger one, else a cut-off field of view would tilt the axis."""
MIN_CANAL_LENGTH_MM = 25.0
"""A shorter piece of canal is nearly as wide as long, and its long axis cannot be told."""
EXTENSION_MM = 60.0
"""The centreline goes on straight beyond the seen canal, so that every point near the sacrum has a level."""
LEVEL_MM = 4.0
STEP_MM = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LocalPoints:
    """Points in the sacrum's own frame; each array has one row per point.

    `left_mm`: distance left of the midline plane; `dorsal_mm`: behind the canal's middle; `along_mm`: up along the
    canal from its lower seen end; `up`, `back`: (n, 3) unit vectors of the level, LPS.
    """

    left_mm: npt.NDArray[np.float64]
    dorsal_mm: npt.NDArray[np.float64]
    along_mm: npt.NDArray[np.float64]
    up: Points
    back: Points

    def only(self, rows: npt.NDArray[np.bool_]) -> LocalPoints:
        """Those of the points, in their order."""
        return LocalPoints(left_mm=self.left_mm[rows], dorsal_mm=self.dorsal_mm[rows], along_mm=self.along_mm[rows],
                           up=self.up[rows], back=self.back[rows])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SacralFrame:
    """Axes that follow the sacrum.

    `left`: (3,) unit vector to the patient's left. `centreline`: (m, 3) LPS mm, from below upwards, STEP_MM apart, in
    the midline plane. `top_mm`: how far up the centreline the seen canal ends, in the unit of `along_mm`.
    """

    left: Vector
    centreline: Points
    top_mm: float
    canal_seen: bool = True
    notes: tuple[str, ...] = ()
    _tree: cKDTree = field(init=False, repr=False)
    _up: Points = field(init=False, repr=False)
    _back: Points = field(init=False, repr=False)

    def __post_init__(self) -> None:
        up = _tangents(self.centreline)
        object.__setattr__(self, "_tree", cKDTree(self.centreline))
        object.__setattr__(self, "_up", up)
        object.__setattr__(self, "_back", np.cross(up, self.left))

    def left_mm(self, points_lps: Points) -> npt.NDArray[np.float64]:
        """Distance of (n, 3) LPS mm points left of the midline plane; (n,)."""
        middle = self.centreline[len(self.centreline) // 2]
        return np.asarray((points_lps - middle) @ self.left)

    def local(self, points_lps: Points) -> LocalPoints:
        """Coordinates of (n, 3) LPS mm points in this frame."""
        left_mm = self.left_mm(points_lps)
        flat = points_lps - left_mm[:, None] * self.left
        _, nearest = self._tree.query(flat)
        back = self._back[nearest]
        dorsal_mm = np.einsum("ij,ij->i", flat - self.centreline[nearest], back)
        return LocalPoints(left_mm=left_mm, dorsal_mm=dorsal_mm, along_mm=nearest * STEP_MM - EXTENSION_MM,
                           up=self._up[nearest], back=back)


def sacral_frame(anatomy: LabelMap) -> SacralFrame:
    """Frame of the sacrum in `anatomy` (Structure 0-5, axes along +L +P +S).

    Raises ModelError if there is no sacrum at all. Without enough canal or hips it falls back on the sacrum's own
    shape and says so in `notes`.
    """
    sacrum = _points_of(anatomy, Structure.SACRUM)
    if len(sacrum) == 0:
        raise ModelError("anatomy: no sacrum, so nothing to measure a leak against")
    canal = _points_of(anatomy, Structure.SACRAL_CANAL)
    left, notes = _left(anatomy, sacrum)
    guide, found = _guide(canal, sacrum, left)
    if not found:
        notes = (*notes, "The sacral canal is hardly seen; the sacrum's own long axis stands in for it.")
    line, top_mm = _centreline(guide, left, straight=not found)
    return SacralFrame(left=left, centreline=line, top_mm=top_mm, canal_seen=found, notes=notes)


def _points_of(anatomy: LabelMap, label: Structure, *, stride: int = 2) -> Points:
    """LPS mm of every other voxel along each axis; half the resolution is plenty for axes and centroids."""
    index = indices_of(anatomy.labels[::stride, ::stride, ::stride] == label) * stride
    return anatomy.geometry.to_lps(index)


def _left(anatomy: LabelMap, sacrum: Points) -> tuple[Vector, tuple[str, ...]]:
    centre = sacrum.mean(axis=0)
    hips = []
    for label in (Structure.HIP_LEFT, Structure.HIP_RIGHT):
        points = _points_of(anatomy, label, stride=3)
        hips.append(points[np.linalg.norm(points - centre, axis=1) < HIP_REACH_MM])
    few, many = sorted(len(hip) for hip in hips)
    if few > 0 and few >= HIP_BALANCE * many:
        axis = hips[0].mean(axis=0) - hips[1].mean(axis=0)
        return axis / np.linalg.norm(axis), ()
    _, axes = np.linalg.eigh(np.cov((sacrum - centre).T))
    axis = axes[:, int(np.argmax(np.abs(axes[0])))]
    return axis * np.sign(axis[0]), ("The hips are seen unequally; left and right follow the sacrum's own shape.",)


def _guide(canal: Points, sacrum: Points, left: Vector) -> tuple[Points, bool]:
    """The points whose middle is the centreline: the canal, or the sacrum where too little canal is seen."""
    if len(canal) < 20:
        return sacrum, False
    along = (canal - canal.mean(axis=0)) @ _long_axis(canal, left)
    return (canal, True) if np.ptp(along) >= MIN_CANAL_LENGTH_MM else (sacrum, False)


def _long_axis(points: Points, left: Vector) -> Vector:
    """Direction in the midline plane along which the points reach farthest, pointing up; (3,)."""
    centred = points - points.mean(axis=0)
    flat = centred - np.outer(centred @ left, left)
    _, axes = np.linalg.eigh(flat.T @ flat)
    axis = axes[:, -1]
    return axis if axis[2] > 0 else -axis


def _centreline(guide: Points, left: Vector, *, straight: bool) -> tuple[Points, float]:
    """Smooth curve through the middle of `guide` level by level, in the midline plane, lengthened at both ends."""
    origin = guide.mean(axis=0)
    origin = origin + (np.median((guide - origin) @ left)) * left
    up = _long_axis(guide, left)
    back = np.cross(up, left)
    s, p = (guide - origin) @ up, (guide - origin) @ back
    low, high = np.percentile(s, [1.0, 99.0])
    degree = 1 if straight else 3 if high - low > 60.0 else 2
    level = np.round(s / LEVEL_MM).astype(np.int64)
    levels, inverse, counts = np.unique(level, return_inverse=True, return_counts=True)
    middle = np.bincount(inverse, weights=p) / counts
    # Each level weighs by the root of its size: a sliver at either end says little about the middle.
    curve = np.polynomial.Polynomial.fit(levels * LEVEL_MM, middle, degree, w=np.sqrt(counts))
    t = np.linspace(low, high, max(int((high - low) / STEP_MM), 2))
    return _lengthened(origin + np.outer(t, up) + np.outer(curve(t), back))


def _lengthened(line: Points) -> tuple[Points, float]:
    """The line at even steps of STEP_MM, gone on straight by EXTENSION_MM at both ends; and its own length."""
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    length = float(arc[-1])
    even = np.arange(0.0, length, STEP_MM)
    inner = np.stack([np.interp(even, arc, line[:, axis]) for axis in range(3)], axis=1)
    # The direction at an end is taken over 10 mm, so that the curve's last wiggle does not steer 60 mm of line.
    span = max(1, min(len(inner) - 1, int(10.0 / STEP_MM)))
    down = _unit(inner[0] - inner[span])
    up = _unit(inner[-1] - inner[-1 - span])
    steps = np.arange(STEP_MM, EXTENSION_MM + STEP_MM / 2, STEP_MM)[:, None]
    return np.concatenate([(inner[0] + steps * down)[::-1], inner, inner[-1] + steps * up]), length


def _tangents(line: Points) -> Points:
    gradient = np.gradient(line, axis=0)
    return np.asarray(gradient / np.linalg.norm(gradient, axis=1, keepdims=True))


def _unit(vector: Vector) -> Vector:
    return vector / np.linalg.norm(vector)
