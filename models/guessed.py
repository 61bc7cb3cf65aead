"""Bone that was only guessed behind hidden cement, where it cannot be: bulges, and what the other side has not.

Behind a mark the networks draw the contour from what lies around, and around the cement as often as not. A leak that
lies on the bone then is a bulge of it, and one in a foramen closes it; and a facet full of cement is cut off. Bone is
added only where the other side has it.
"""

from __future__ import annotations

import cc3d
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from sacroleak.core.geometry import Box, Geometry, box_where
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap
from sacroleak.models.distance import Indices, Mask, indices_of, near_mm, signed_near
from sacroleak.models.mirror import SEEN_HU, sacral_mirror
from sacroleak.models.resample import Field

Labels = npt.NDArray[np.generic]

GUESSED_MM = 2.0
"""So far around what is hidden the contour follows it; half of the scan's largest voxel side, or a millimetre, more."""
SURROUNDINGS_MM, SOLID_SHARE = 3.0, 0.4
"""Bone of whose surroundings (Gaussian, standard deviation) less than this share is bone or canal stands out: a flat
surface has a half, a ball of 12 mm radius less everywhere. Both, and the next, chosen on 140 simulated scans of
training anatomies and 48 with cement put into one real CT."""
SURROUNDINGS_CUT = 2.0
"""So many standard deviations away nothing counts any more."""
ABSENT_MM = 1.0
"""What lies so far outside the bones of the other side is none. The halves of real pelves differ by about this much."""
PRESENT_MM = 2.0
"""What lies so deep in the sacrum of the other side is bone, and up to its surface what hangs together with that:
cement that fills a facet, or lies at the cortex."""
SURELY_BONE = 3.0
"""And it is made bone only if the network that sees the cement multiplies the odds of bone by at least this. Chosen on
46 simulated scans of training patients."""
MOST_TURNS = 40
"""A turn takes about half a millimetre off a bulge."""


def without_guesses(anatomy: LabelMap, hidden: Mask, hu: Field, *, voxel_mm: float,
                    odds: Field | None = None) -> LabelMap:
    """The same labels, Structure 0-5 on the working grid, less the bone near `hidden` that cannot be.

    `hidden`, `hu`: the marked cement and the scan on that grid; `voxel_mm`: the largest voxel side of the scan's own;
    `odds`: what `odds_of_bone` says there.
    """
    reach = GUESSED_MM + max(1.0, voxel_mm / 2)
    box = box_where(hidden, np.ceil((reach + 2 * SURROUNDINGS_MM) / anatomy.geometry.spacing_mm))
    if box is None:
        return anatomy
    spacing = tuple(float(s) for s in anatomy.geometry.spacing_mm)
    guessed = near_mm(hidden, anatomy.geometry, reach) <= reach
    labels = anatomy.labels.astype(np.uint8)
    labels[box][_bulges(labels[box], guessed[box], spacing)] = Structure.BACKGROUND
    left = LabelMap(labels=labels, geometry=anatomy.geometry)
    absent, present = _told_by_mirror(left, guessed, hu)
    labels[tuple(absent.T)] = Structure.BACKGROUND
    if odds is not None:
        present = present[odds[tuple(present.T)] >= SURELY_BONE]
    labels[tuple(present.T)] = Structure.SACRUM
    return left


def _bulges(labels: Labels, guessed: Mask, spacing: tuple[float, ...]) -> Mask:
    """Guessed bone that stands out of what lies around it; taken off from outside until the surface is flat enough."""
    sigma = tuple(SURROUNDINGS_MM / s for s in spacing)
    share = gaussian_filter((labels != Structure.BACKGROUND).astype(np.float32), sigma, mode="nearest",
                            truncate=SURROUNDINGS_CUT)
    # What a voxel adds along each axis to the share of those around it: few go in a turn, and only theirs is taken off.
    spread = [gaussian_filter1d(np.eye(side, dtype=np.float32), s, axis=0, mode="nearest", truncate=SURROUNDINGS_CUT)
              for side, s in zip(labels.shape, sigma, strict=True)]
    reach = [int(SURROUNDINGS_CUT * s + 0.5) for s in sigma]
    left, gone = indices_of(_bone(labels) & guessed), np.zeros(labels.shape, dtype=bool)
    for _ in range(MOST_TURNS):
        going = share[tuple(left.T)] < SOLID_SHARE
        if not going.any():
            break
        gone[tuple(left[going].T)] = True
        for voxel in left[going]:
            around = tuple(slice(max(at - far, 0), at + far + 1) for at, far in zip(voxel, reach, strict=True))
            i, j, k = (of[span, at] for of, span, at in zip(spread, around, voxel, strict=True))
            share[around] -= i[:, None, None] * j[:, None] * k
        left = left[~going]
    return gone


def _told_by_mirror(anatomy: LabelMap, guessed: Mask, hu: Field) -> tuple[Indices, Indices]:
    """Index, (n, 3), of guessed bone at whose mirror image, if that is seen and not guessed too, there is none; and of
    what was guessed to be none where the image lies in the sacrum, some of it deep.
    """
    labels, grid = anatomy.labels, anatomy.geometry
    index = indices_of(guessed & (labels != Structure.SACRAL_CANAL))
    seen = ~guessed & (hu > SEEN_HU)
    mirror = sacral_mirror(anatomy, lambda at: seen[tuple(at.T)]) if len(index) else None
    if mirror is None:
        return index[:0], index[:0]
    images = mirror.image(grid.to_lps(index))
    place, inside = grid.nearest(images)
    at = tuple(np.clip(place, 0, np.array(grid.shape) - 1).T)
    told = inside & ~guessed[at] & (hu[at] > SEEN_HU)
    if not told.any():
        return index[:0], index[:0]
    index, images = index[told], images[told]
    bone = labels[tuple(index.T)] != Structure.BACKGROUND
    # Distances count as far as that, and are read from the centres around a place.
    box = _box_of(place[told], grid, margin=np.ceil(PRESENT_MM / grid.spacing_mm) + 4)
    part = grid.crop([s.start for s in box], [s.stop for s in box])
    absent = signed_near(_bone(labels[box]), part, ABSENT_MM).at(images[bone]) > ABSENT_MM
    depth = signed_near(labels[box] == Structure.SACRUM, part, PRESENT_MM).at(images[~bone])
    within = depth < 0
    lost = index[~bone][within]
    return index[bone][absent], lost[_with_core(lost, depth[within] < -PRESENT_MM)]


def _with_core(index: Indices, core: Mask) -> Mask:
    """Which of (n, 3) places lie in a connected piece of them (6 neighbours) that holds any of the `core`; (n,)."""
    if not core.any():
        return core
    first = index.min(axis=0)
    places = tuple((index - first).T)
    mask = np.zeros(index.max(axis=0) - first + 1, dtype=bool)
    mask[places] = True
    pieces = cc3d.connected_components(mask, connectivity=6)[places]
    return np.isin(pieces, np.unique(pieces[core]))


def _bone(labels: Labels) -> Mask:
    return np.asarray((labels != Structure.BACKGROUND) & (labels != Structure.SACRAL_CANAL))


def _box_of(index: Indices, grid: Geometry, *, margin: npt.NDArray[np.float64]) -> Box:
    """The smallest box of the grid that holds (n, 3) places, `margin` voxels wider and cut to the grid."""
    low, high = np.maximum(index.min(axis=0) - margin, 0), np.minimum(index.max(axis=0) + margin + 1, grid.shape)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return i, j, k
