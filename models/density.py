"""What the voxels of a part and around it say: density, certainty, contact with cement in the bone, a counterpart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.volume import Volume
from sacroleak.models.compartments import Compartments
from sacroleak.models.distance import Mask, indices_of
from sacroleak.models.leaks import Cement, Rows
from sacroleak.models.segmentation import PerCent

SURE_SHARE = 0.5
"""Above it the networks take a voxel for cement rather than not."""
MIRROR_MM = 6.0
"""A body is symmetric to about this: the midline is known to 2 mm, and paired vessels lie 2 to 4 mm unequal."""
MIRROR_DENSITY = 0.6
"""A counterpart has at least this share of the part's mean density, and MIRROR_LEAST_HU."""
MIRROR_LEAST_HU = 250.0
"""Contrast in ureters and calcified vessels lies above; soft tissue, and bowel without contrast, below."""
TWIN_MM, TWIN_DENSITY, SURELY_CEMENT = 4.0, 0.8, 75.0
"""Bone has its like on the other side, this near to the mirrored place and of at least this share of its density; what
is taken for cement with more than so many per cent is none."""
MIDLINE_MM = 4.0
"""What lies nearer to the midline meets its own mirror image, so its counterpart is not looked for there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Density:
    """HU of a part: mean, highest, and its mean over the median of the cement in the bone (1 if there is none)."""

    mean_hu: float
    highest_hu: float
    relative: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Certainty:
    """How far the networks take the part's voxels for cement, 0 to 1: mean, highest, share of voxels above one half."""

    mean: float
    highest: float
    sure_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterpart:
    """Shares of a part's voxels, 0 to 1, that have something across the midline: `mirrored_share` something similarly
    dense outside all bones, `twin_share` something at least nearly as dense, be it bone.
    """

    mirrored_share: float
    twin_share: float


def density_of(rows: Rows, cement: Cement, ct: Volume) -> Density:
    """Density of some rows of `cement`, whose grid is that of `ct`."""
    own = _values(ct.hu, cement, rows)
    bone = np.flatnonzero((cement.bone_mm <= 0) & ~cement.foreign)
    inside = float(np.median(_values(ct.hu, cement, bone))) if len(bone) else 0.0
    return Density(mean_hu=float(own.mean()), highest_hu=float(own.max()),
                   relative=float(own.mean()) / inside if inside > 0 else 1.0)


def certainty_of(rows: Rows, cement: Cement, told: PerCent | None) -> Certainty:
    """Certainty of some rows; what nobody doubts (nothing told, as with a manual mask) is cement."""
    own = np.ones(len(rows)) if told is None else _values(told, cement, rows) / 100.0
    return Certainty(mean=float(own.mean()), highest=float(own.max()), sure_share=float((own > SURE_SHARE).mean()))


def contact_mm2(rows: Rows, cement: Cement, leak: Rows) -> float:
    """Area of voxel faces between `rows` and cement inside the bone that is no part of `leak`, mm²."""
    inside = (cement.bone_mm <= 0) & ~cement.foreign
    inside[leak] = False
    own, others = cement.index[rows], cement.index[inside]
    low, high = own.min(axis=0) - 1, own.max(axis=0) + 1
    others = others[((others >= low) & (others <= high)).all(axis=1)]
    box = np.zeros(high - low + 1, dtype=np.uint8)
    box[tuple((others - low).T)] = 2
    box[tuple((own - low).T)] = 1
    area = 0.0
    for axis, face in enumerate(_faces_mm2(cement.geometry)):
        near, far = np.delete(box, -1, axis=axis), np.delete(box, 0, axis=axis)
        area += face * float(np.count_nonzero((near ^ far) == 3))
    return area


def counterpart_of(rows: Rows, cement: Cement, spaces: Compartments, ct: Volume, told: PerCent | None) -> Counterpart:
    """What some rows have across the midline. `told`: per cent, how far each voxel of `ct` is taken for cement.

    Contrast in ureters, calcified arteries and screw heads come in pairs; leaks hardly ever do. The dense bone of a
    joint's facet has its like on the other side; cement has only where both sides were treated, and that is no bone.
    """
    points = cement.points[rows]
    left_mm = spaces.frame.left_mm(points)
    aside = np.abs(left_mm) >= MIDLINE_MM
    images = points[aside] - 2.0 * left_mm[aside, None] * spaces.frame.left
    if len(images) == 0:
        return Counterpart(mirrored_share=0.0, twin_share=0.0)
    mean_hu = float(_values(ct.hu, cement, rows).mean())
    dense, hu = _dense_around(images, ct, max(MIRROR_LEAST_HU, MIRROR_DENSITY * mean_hu), MIRROR_MM)
    # Only what lies on the other side: beyond the midline's own uncertainty.
    across = spaces.frame.left_mm(dense) * np.sign(np.median(left_mm[aside])) < -MIDLINE_MM / 2
    dense, hu = dense[across], hu[across]
    twins = dense[hu >= max(MIRROR_LEAST_HU, TWIN_DENSITY * mean_hu)]
    if told is not None:
        twins = twins[told[tuple(np.rint(ct.geometry.to_index(twins)).astype(np.int64).T)] <= SURELY_CEMENT]
    return Counterpart(
        mirrored_share=_count_met(images, dense[_in_soft_tissue(dense, spaces)], MIRROR_MM) / len(rows),
        twin_share=_count_met(images, twins, TWIN_MM) / len(rows),
    )


def _count_met(images: Points, dense: Points, reach_mm: float) -> float:
    """How many of (n, 3) LPS mm have one of (m, 3) this near."""
    if len(dense) == 0:
        return 0.0
    return float(np.isfinite(cKDTree(dense).query(images, distance_upper_bound=reach_mm)[0]).sum())


def _dense_around(
    points: Points, ct: Volume, least_hu: float, reach_mm: float,
) -> tuple[Points, npt.NDArray[np.generic]]:
    """Voxels of at least `least_hu` in the box around (n, 3) LPS mm points: centres (m, 3) LPS mm, and HU (m,)."""
    index = ct.geometry.to_index(points)
    margin = reach_mm / ct.geometry.spacing_mm
    low = np.clip(np.floor(index.min(axis=0) - margin), 0, np.array(ct.geometry.shape)).astype(int)
    high = np.clip(np.ceil(index.max(axis=0) + margin) + 1, low, ct.geometry.shape).astype(int)
    hu = ct.hu[low[0]:high[0], low[1]:high[1], low[2]:high[2]]
    found = indices_of(hu >= least_hu)
    return ct.geometry.to_lps(found + low), hu[tuple(found.T)]


def _in_soft_tissue(points: Points, spaces: Compartments) -> Mask:
    """Which points lie outside sacrum, canal, hips and L5 by a voxel: a cortex is nothing in front of itself."""
    if len(points) == 0:
        return np.zeros(0, dtype=np.bool_)
    grid = spaces.bone.geometry
    at = np.rint(grid.to_index(points)).astype(np.int64)
    inside = ((at >= 1) & (at < np.array(grid.shape) - 1)).all(axis=1)
    at = np.clip(at, 1, np.array(grid.shape) - 2)
    free = np.ones(len(points), dtype=np.bool_)
    for step in np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)]).astype(np.int64):
        free &= spaces.bone.labels[tuple((at + step).T)] == 0
    return np.asarray(free | ~inside)


def _values(image: npt.NDArray[np.generic], cement: Cement, rows: Rows) -> npt.NDArray[np.float64]:
    return np.asarray(image[tuple(cement.index[rows].T)], dtype=np.float64)


def _faces_mm2(grid: Geometry) -> list[float]:
    """Area of a voxel's face across each of its three axes, mm²."""
    a, b, c = grid.affine[:3, :3].T
    return [float(np.linalg.norm(np.cross(u, v))) for u, v in ((b, c), (c, a), (a, b))]
