"""Weak cement outside the bone, which the networks hardly take for any: the other side has nothing there.

Cement that is no denser than cortex is told from it by what is far off, as a needle's track is: bone, vessels and their
calcium come in pairs, and a leak does not.
"""

from __future__ import annotations

import edt
import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion

from sacroleak.core.geometry import Geometry, Points, box_where
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.canal import sacral_frame
from sacroleak.models.distance import Mask, indices_of, signed_near
from sacroleak.models.mirror import SEEN_HU, Mirror, fitted_mirror

WEAK_HU = 1000.0
"""Cement of a higher level is left to the networks. They miss 28 of 74 leaks of 0.05 mL and more in the 79 of the
classifier's 1,218 simulated scans with a level up to this, and 82 of 905 in the others. All below was chosen on those
79: of the bodies that are taken 24 are leaks and 5 are not, and 15 of those 28 leaks are found."""
FAINT_MM = 1.0
"""So far outside every bone; nearer lies what the contour's error leaves of cortex."""
LEAST_ML = 0.03
LIKELY = 0.04
"""Mean probability of cement, by the networks."""
NEAREST_MM, MEDIAN_MM = 2.5, 8.0
"""How far the body may lie from the sacrum at its nearest place, and in the median."""
THICKNESS_MM = 1.4
"""Thinner is the rim that blur makes; a vein is 1.5 mm wide."""
DENSER = 2.0
"""What has a voxel of so many times the level is another thing."""
DARK_HU = 150.0
"""Median at the mirror image, at most: soft tissue, with contrast at that, but no bone and no calcium."""


def faint_in(where: npt.NDArray[np.int64], cement: npt.NDArray[np.float32], body: npt.NDArray[np.int64], *,
             level: float, anatomy: LabelMap, ct: Volume) -> Mask:
    """Which places are weak cement, (n,): flat indices `where` into `ct`, (n,), each with its probability of `cement`
    and the number of the connected `body`, more than FAINT_MM outside the bones, that it lies in, 0 for none.

    `level`: of the cement in the bone, HU. Where the sacrum has no mirror, or most of a body's image is not seen, it is
    left.
    """
    chosen, grid = np.zeros(len(where), dtype=bool), ct.geometry
    count = np.bincount(body)
    likely = np.bincount(body, weights=cement) >= LIKELY * count
    likely &= count * grid.voxel_ml >= LEAST_ML
    likely[0] = False
    if not likely.any():
        return chosen
    from_sacrum = signed_near(anatomy.labels == Structure.SACRUM, anatomy.geometry, MEDIAN_MM)
    near = []
    for number in np.flatnonzero(likely):
        rows = np.flatnonzero(body == number)
        index = np.stack(np.unravel_index(where[rows], ct.hu.shape), axis=-1)
        away = from_sacrum.at(grid.to_lps(index))
        if (away.min() <= NEAREST_MM and np.median(away) <= MEDIAN_MM and _thickness_mm(index, grid) >= THICKNESS_MM
                and ct.hu[tuple(index.T)].max() < DENSER * level):
            near.append((rows, grid.to_lps(index)))
    mirror = _mirror(anatomy, ct) if near else None
    if mirror is not None:
        for rows, points in near:
            chosen[rows] = _dark(mirror.image(points), ct)
    return chosen


def _thickness_mm(index: npt.NDArray[np.int64], grid: Geometry) -> float:
    """Of voxels (n, 3): twice the way from the innermost one to what lies outside, less a voxel."""
    first = index.min(axis=0) - 1
    mask = np.zeros(index.max(axis=0) - first + 2, dtype=np.uint8)
    mask[tuple((index - first).T)] = 1
    within = edt.edt(mask, anisotropy=tuple(float(s) for s in grid.spacing_mm))
    return float(2 * within.max() - grid.spacing_mm.min())


def _mirror(anatomy: LabelMap, ct: Volume) -> Mirror | None:
    """The mirror that brings the sacrum's seen surface onto itself; None if too little is seen, or it does not fit."""
    sacrum = anatomy.labels == Structure.SACRUM
    box = box_where(sacrum, np.ones(3))
    if box is None:
        return None
    shell = indices_of(sacrum[box] & ~binary_erosion(sacrum[box])) + [side.start for side in box]
    points = anatomy.geometry.to_lps(shell)
    return fitted_mirror(points[_hu_at(points, ct) > SEEN_HU], sacral_frame(anatomy))


def _dark(images: Points, ct: Volume) -> bool:
    """Whether nothing dense lies at (n, 3) LPS mm, and most of that is seen."""
    hu = _hu_at(images, ct)
    seen = hu > SEEN_HU
    return bool(seen.mean() > 0.5 and np.median(hu[seen]) <= DARK_HU)


def _hu_at(points: Points, ct: Volume) -> npt.NDArray[np.float32]:
    """HU of the voxel nearest to each of (n, 3) LPS mm, -1024 beyond the scan; (n,)."""
    at, inside = ct.geometry.nearest(points)
    hu = np.full(len(points), -1024, dtype=np.float32)
    hu[inside] = ct.hu[tuple(at[inside].T)]
    return hu
