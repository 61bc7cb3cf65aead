"""Little analytic pelvis in label form, and cement of simple shapes in it, each test case in one line.

Shapes are placed in the phantom's own frame, mm: x to the patient's left, y backwards, z up, with the origin in the
middle of the sacral canal. A `Pose` turns the patient in the scanner; shapes follow. The sacrum is curved, hollow in
front; its canal, four pairs of foramina, both hips with a joint gap, L5 and the gap of the disc are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.segmentation import Segmentation

Shape = Callable[[Points], npt.NDArray[np.float64]]
"""Signed distance of (n, 3) points of the phantom's own frame, negative inside; (n,) mm."""

FORAMEN_LEVELS = ((28.0, 22.0, 6.0), (6.0, 19.0, 5.5), (-15.0, 16.0, 4.5), (-32.0, 13.0, 3.5))
"""Height, distance from the midline and radius of S1 to S4, mm."""


@dataclass(frozen=True)
class Pose:
    """How the patient lies: turns about left (nod), back (lean) and up (twist) in degrees, then a shift in mm."""

    nod: float = 20.0
    lean: float = 0.0
    twist: float = 0.0
    shift: tuple[float, float, float] = (10.0, -30.0, 200.0)

    def matrix(self) -> Points:
        """Rotation (3, 3) from the phantom's frame to LPS."""
        result = np.eye(3)
        for axis, degrees in ((0, self.nod), (1, self.lean), (2, self.twist)):
            a, b = [k for k in range(3) if k != axis]
            turn = np.eye(3)
            c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
            turn[a, a], turn[a, b], turn[b, a], turn[b, b] = c, -s, s, c
            result = turn @ result
        return result

    def to_lps(self, own: npt.ArrayLike) -> Points:
        return np.asarray(own, dtype=np.float64) @ self.matrix().T + self.shift

    def to_own(self, lps: Points) -> Points:
        return (lps - self.shift) @ self.matrix()


def canal_y(z: npt.NDArray[np.float64] | float) -> npt.NDArray[np.float64]:
    """Front-to-back place of the canal's middle at height z."""
    return np.asarray(-(np.asarray(z, dtype=np.float64) ** 2) / 140.0)


def front_y(z: float, x: float = 0.0) -> float:
    """Place of the anterior cortex at height z, x from the midline."""
    return float(canal_y(z) - _front(np.array(z), np.array(x)))


def back_y(z: float, x: float = 0.0) -> float:
    """Place of the dorsal surface at height z, x from the midline."""
    return float(canal_y(z) + _back(np.array(x)))


def half_width(z: npt.NDArray[np.float64] | float) -> npt.NDArray[np.float64]:
    """Distance of the sacrum's lateral border from the midline at height z."""
    return np.asarray(np.interp(z, (-50.0, 0.0, 45.0), (15.0, 40.0, 52.0)))


def _front(z: npt.NDArray[np.float64], x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.interp(z, (-50.0, 50.0), (12.0, 34.0)) - 0.15 * np.abs(x)


def _back(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 14.0 - 0.1 * np.abs(x)


@lru_cache(maxsize=24)
def anatomy(pose: Pose = Pose(), grow_mm: float = 0.0, spacing_mm: float = 1.0) -> LabelMap:
    """Label map of the phantom, 1 mm along +L +P +S; `grow_mm` moves the sacrum's contour outwards (or inwards)."""
    corners = pose.to_lps([(x, y, z) for x in (-76, 76) for y in (-60, 38) for z in (-58, 84)])
    low, high = corners.min(axis=0), corners.max(axis=0)
    sides = np.ceil((high - low) / spacing_mm).astype(int) + 1
    grid = Geometry.axis_aligned(origin_lps_mm=low, spacing_mm=spacing_mm,
                                 shape=(int(sides[0]), int(sides[1]), int(sides[2])))
    labels = np.zeros(grid.shape, dtype=np.uint8)
    for i in range(grid.shape[0]):
        j, k = np.meshgrid(np.arange(grid.shape[1]), np.arange(grid.shape[2]), indexing="ij")
        index = np.stack([np.full(j.size, i), j.ravel(), k.ravel()], axis=1)
        own = pose.to_own(grid.to_lps(index))
        near = np.flatnonzero((np.abs(own[:, 0]) < 74) & (own[:, 2] > -56) & (own[:, 2] < 84) & (own[:, 1] < 22))
        plane = np.zeros(len(own), dtype=np.uint8)
        plane[near] = _labels(own[near], grow_mm)
        labels[i] = plane.reshape(j.shape)
    labels.setflags(write=False)
    return LabelMap(labels=labels, geometry=grid)


def _labels(own: Points, grow: float) -> npt.NDArray[np.uint8]:
    x, y, z = own.T
    a, v = np.abs(x), y - canal_y(z)
    labels = np.zeros(len(own), dtype=np.uint8)
    hip_from, hip_to = half_width(z) + 3.0, half_width(z) + 20.0
    hip = (a > hip_from) & (a < hip_to) & (v > -30) & (v < 16) & (z > -40) & (z < 70)
    labels[hip & (x > 0)], labels[hip & (x < 0)] = Structure.HIP_LEFT, Structure.HIP_RIGHT
    canal = (x / np.interp(z, (-50, 50), (6, 13))) ** 2 + (v / np.interp(z, (-50, 50), (4, 7))) ** 2 < 1
    canal &= (z > -46) & (z < 50)
    labels[canal] = Structure.SACRAL_CANAL
    labels[(a < 25) & (v > -36) & (v < -8) & (z > 61) & (z < 84)] = Structure.L5
    sacrum = (a < half_width(z) + grow) & (v > -_front(z, x) - grow) & (v < _back(x) + grow)
    sacrum &= (z > -52 - grow) & (z < 50 + grow) & ~((a > 27) & (z > 44 + grow)) & ~hip & ~canal
    solid = np.flatnonzero(sacrum)
    labels[solid[~_holes(a[solid], v[solid], z[solid], grow)]] = Structure.SACRUM
    return labels


def _holes(
    a: npt.NDArray[np.float64], v: npt.NDArray[np.float64], z: npt.NDArray[np.float64], grow: float,
) -> npt.NDArray[np.bool_]:
    """Foramina from front to back, and the tunnels that join them to the canal."""
    hole = np.zeros(len(a), dtype=np.bool_)
    for level, place, radius in FORAMEN_LEVELS:
        hole |= np.hypot(a - place, z - level) < radius - grow
        hole |= (np.hypot(z - level, v) < min(radius, 4.0) - grow) & (a < place)
    return hole


def ball(centre: Sequence[float], radius: float) -> Shape:
    """A sphere."""
    return lambda own: np.linalg.norm(own - np.asarray(centre), axis=1) - radius


def ellipsoid(centre: Sequence[float], radii: Sequence[float]) -> Shape:
    """An ellipsoid along the phantom's axes (distance only roughly, zero at the surface)."""
    return lambda own: (np.linalg.norm((own - np.asarray(centre)) / np.asarray(radii), axis=1) - 1) * min(radii)


def tube(points: Sequence[npt.ArrayLike], diameter: float) -> Shape:
    """A tube along a broken line."""
    line = np.array([np.asarray(point, dtype=np.float64) for point in points])

    def distance(own: Points) -> npt.NDArray[np.float64]:
        best = np.full(len(own), np.inf)
        for start, end in pairwise(line):
            along = end - start
            t = np.clip((own - start) @ along / max(float(along @ along), 1e-9), 0, 1)
            best = np.minimum(best, np.linalg.norm(own - start - t[:, None] * along, axis=1))
        return best - diameter / 2

    return distance


def track(start: Sequence[float], towards: Sequence[float], length: float, diameter: float = 2.6) -> Shape:
    """A straight needle track from `start` along `towards`."""
    first, way = np.asarray(start, dtype=np.float64), np.asarray(towards, dtype=np.float64)
    return tube([first, first + way / np.linalg.norm(way) * length], diameter)


def pelvic_vein(
    side: int = 1, *, length: float = 30.0, diameter: float = 2.6, gap: float = 2.5, bend: float = 4.0,
) -> Shape:
    """A winding vein on the pelvic surface from the S1 foramen of one side (1 left, -1 right) downwards."""
    z = np.linspace(28.0, 28.0 - length, max(int(length / 2), 2))
    x = side * (22.0 + bend * np.sin((28.0 - z) / 5.0))
    points = [(float(a), front_y(float(c), float(a)) - gap, float(c)) for a, c in zip(x, z, strict=True)]
    return tube([(side * 22.0, front_y(28.0, 22.0) + 8.0, 28.0), *points], diameter)


ALA_LEFT = (36.0, -14.0, 22.0)
"""Middle of the left ala, at least 12 mm inside the bone."""


def alar_cement(side: int = 1, radius: float = 9.0) -> Shape:
    """Cement inside the ala, about 3 mL, away from every surface."""
    return ball((side * ALA_LEFT[0], ALA_LEFT[1], ALA_LEFT[2]), radius)


def cement_at(
    *shapes: Shape, pose: Pose = Pose(), spacing: Sequence[float] = (0.8, 0.8, 1.0), turn: Points | None = None,
    flip: tuple[int, ...] = (), grow_mm: float = 0.0, coverage: float = 1.0, margin_mm: float = 10.0,
    on: LabelMap | None = None,
) -> Segmentation:
    """One scan of the phantom with cement of these shapes.

    `spacing`: of the scan, mm. `turn`: rotation (3, 3) of the scan's axes in LPS. `flip`: array axes stored the other
    way round. `grow_mm`: error of the bone's contour. `on`: another anatomy than the phantom's own.
    """
    grid = _scan_grid(shapes, pose, np.asarray(spacing, dtype=np.float64), np.eye(3) if turn is None else turn,
                      margin_mm)
    mask = _fill(shapes, pose, grid)
    for axis in flip:
        mask, grid = np.flip(mask, axis), _flipped(grid, axis)
    mask = np.ascontiguousarray(mask)
    hu = np.where(mask, 2200, 60).astype(np.int16)
    return Segmentation(
        anatomy=anatomy(pose, grow_mm) if on is None else on, cement=LabelMap(labels=mask, geometry=grid),
        ct=Volume(hu=hu, geometry=grid), start=(0, 0, 0), metal_ml=0.0, sacrum_coverage=coverage,
    )


def mirrored(segmentation: Segmentation) -> Segmentation:
    """The same patient seen in a mirror: left and right exchanged, hips renamed, cement with them."""
    swap = np.arange(8, dtype=np.uint8)
    swap[[Structure.HIP_LEFT, Structure.HIP_RIGHT]] = Structure.HIP_RIGHT, Structure.HIP_LEFT
    old = segmentation.anatomy.geometry
    affine = old.affine.copy()
    affine[0, 3] = -(old.affine[0, 3] + (old.shape[0] - 1) * old.affine[0, 0])
    labels = np.ascontiguousarray(swap[segmentation.anatomy.labels][::-1])
    reflected = np.diag([-1.0, 1.0, 1.0, 1.0]) @ segmentation.cement.geometry.affine
    grid = Geometry(affine=reflected, shape=segmentation.cement.geometry.shape)
    return replace(
        segmentation, anatomy=LabelMap(labels=labels, geometry=Geometry(affine=affine, shape=old.shape)),
        cement=LabelMap(labels=segmentation.cement.labels, geometry=grid),
        ct=Volume(hu=segmentation.ct.hu, geometry=grid),
    )


def _scan_grid(shapes: Sequence[Shape], pose: Pose, spacing: Points, turn: Points, margin: float) -> Geometry:
    """Axes of the scan around everything the shapes fill."""
    x, y, z = np.meshgrid(*(np.arange(low, high, 4.0) for low, high in ((-110, 110), (-110, 110), (-110, 130))),
                          indexing="ij")
    own = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)
    filled = np.zeros(len(own), dtype=np.bool_)
    for shape in shapes:
        filled |= shape(own) < 4.0
    placed = pose.to_lps(own[filled] if filled.any() else np.zeros((1, 3))) @ turn
    # The phase of the grid is fixed in the patient, so that a longer shape does not move the voxels of a shorter one.
    low = np.floor((placed.min(axis=0) - margin) / spacing) * spacing
    sides = np.ceil((placed.max(axis=0) + margin - low) / spacing).astype(int) + 1
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = turn @ low
    return Geometry(affine=affine, shape=(int(sides[0]), int(sides[1]), int(sides[2])))


def _fill(shapes: Sequence[Shape], pose: Pose, grid: Geometry) -> npt.NDArray[np.bool_]:
    """Voxels filled to at least 40 per cent, as a threshold on dense cement would show them."""
    index = np.argwhere(np.ones(grid.shape, dtype=np.bool_))
    diagonal = float(np.linalg.norm(grid.spacing_mm)) / 2
    own = pose.to_own(grid.to_lps(index))
    near = np.zeros(len(own), dtype=np.bool_)
    for shape in shapes:
        near |= shape(own) < diagonal
    share = np.zeros(np.count_nonzero(near))
    samples = [np.arange(n) / n - 0.5 + 0.5 / n for n in np.ceil(grid.spacing_mm / 0.5).astype(int)]
    offsets = np.stack([axis.ravel() for axis in np.meshgrid(*samples, indexing="ij")], axis=1)
    for offset in offsets:
        points = pose.to_own(grid.to_lps(index[near] + offset))
        inside = np.zeros(len(points), dtype=np.bool_)
        for shape in shapes:
            inside |= shape(points) <= 0
        share += inside
    mask = np.zeros(grid.shape, dtype=np.bool_)
    mask[tuple(index[near][share >= 0.4 * len(offsets)].T)] = True
    return mask


def _flipped(grid: Geometry, axis: int) -> Geometry:
    affine = grid.affine.copy()
    affine[:3, 3] = grid.affine[:3, 3] + grid.affine[:3, axis] * (grid.shape[axis] - 1)
    affine[:3, axis] *= -1
    return Geometry(affine=affine, shape=grid.shape)
