"""Weak cement outside the bone, which the networks hardly take for any: the other side has nothing there.

Cement that is no denser than cortex is told from it by what is far off, as a needle's track is: bone, vessels and their
calcium come in pairs, and a leak does not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.distance import Mask, marked, signed_distance, signed_near
from sacroleak.models.mirror import SEEN_HU, nearest_hu, sacral_mirror

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


def faint_in(points: Points, cement: npt.NDArray[np.float32], body: npt.NDArray[np.int64], *, level: float,
             anatomy: LabelMap, ct: Volume) -> Mask:
    """Which of (n, 3) LPS mm, voxels of `ct`, are weak cement; (n,). Each has its probability of `cement` (n,), and the
    number of the connected `body` (n,), more than FAINT_MM outside the bones, that it lies in, 0 for none.

    `level`: of the cement in the bone, HU. Where the sacrum has no mirror, or most of a body's image is not seen, it is
    left.
    """
    chosen, grid = np.zeros(len(points), dtype=bool), ct.geometry
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
        away, hu = from_sacrum.at(points[rows]), nearest_hu(ct, points[rows])
        if (away.min() <= NEAREST_MM and np.median(away) <= MEDIAN_MM and hu.max() < DENSER * level
                and _thickness_mm(points[rows], grid) >= THICKNESS_MM):
            near.append(rows)
    bones = anatomy.geometry
    mirror = sacral_mirror(anatomy, lambda at: nearest_hu(ct, bones.to_lps(at)) > SEEN_HU) if near else None
    if mirror is not None:
        for rows in near:
            chosen[rows] = _dark(mirror.image(points[rows]), ct)
    return chosen


def _thickness_mm(points: Points, grid: Geometry) -> float:
    """Of the voxels of `grid` at (n, 3) LPS mm: twice the depth of the innermost one."""
    index, _ = grid.nearest(points)
    part = grid.crop(index.min(axis=0) - 1, index.max(axis=0) + 2)
    return float(-2 * signed_distance(marked(points, part), part).values.min())


def _dark(images: Points, ct: Volume) -> bool:
    """Whether nothing dense lies at (n, 3) LPS mm, and most of that is seen."""
    hu = nearest_hu(ct, images)
    seen = hu > SEEN_HU
    return bool(seen.mean() > 0.5 and np.median(hu[seen]) <= DARK_HU)
