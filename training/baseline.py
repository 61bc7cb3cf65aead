"""What anyone could write in an afternoon: a threshold, connected components, and a look at where they lie.

It is given the true bone, which a real program would have to find first, so it is a hard one to beat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cc3d
import edt
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from scipy.ndimage import binary_fill_holes, gaussian_filter

from sacroleak.core.geometry import box_where
from sacroleak.core.structures import Site, Structure
from sacroleak.core.volume import LabelMap, Volume

Mask = npt.NDArray[np.bool_]

SMOOTH_MM = 0.7
"""Takes the noise of thin slices off bone before its threshold."""


class BaselineConfig(BaseModel):
    """Cement is what exceeds `threshold_hu` in a component that comes within `reach_mm` of the sacrum; a component
    outside of it of at least `leak_ml` is a leak. The sacrum is what exceeds `bone_hu` in the largest component of the
    true sacrum's box, grown by `reach_mm`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    threshold_hu: float
    reach_mm: float
    leak_ml: float
    bone_hu: float = 150.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BaselineResult:
    """Cement, leak numbers on the same grid, and each leak's site."""

    cement: Mask
    leaks: npt.NDArray[np.uint16]
    sites: Mapping[int, Site]


def baseline(ct: Volume, anatomy: LabelMap, config: BaselineConfig) -> BaselineResult:
    """Cement and leaks of one scan, given its true anatomy on the scan's own grid (axes +L +P +S)."""
    spacing = tuple(float(s) for s in ct.geometry.spacing_mm)
    sacrum = anatomy.labels == Structure.SACRUM
    near = edt.edt(~sacrum, anisotropy=spacing, black_border=False) <= config.reach_mm
    dense = cc3d.connected_components(ct.hu > config.threshold_hu, connectivity=26)
    kept = np.unique(dense[near & (dense > 0)])
    cement: Mask = np.isin(dense, kept) & (dense > 0)
    outside = cc3d.connected_components(cement & ~sacrum, connectivity=26)
    sizes = np.bincount(outside.ravel()) * ct.geometry.voxel_ml
    leaks = np.zeros(cement.shape, dtype=np.uint16)
    sites: dict[int, Site] = {}
    front = _front(sacrum)
    for label in np.flatnonzero(sizes >= config.leak_ml):
        if label > 0:
            part = outside == label
            number = len(sites) + 1
            leaks[part] = number
            sites[number] = _site(part, anatomy.labels, front)
    return BaselineResult(cement=cement, leaks=leaks, sites=sites)


def baseline_bones(ct: Volume, anatomy: LabelMap, config: BaselineConfig) -> npt.NDArray[np.uint8]:
    """Sacrum and canal by a threshold, on the scan's own grid (axes along L, P and S), given the true sacrum's box.

    What bone surrounds in an axial slice is filled; the largest filled part is the canal.
    """
    labels = np.zeros(ct.hu.shape, dtype=np.uint8)
    spacing = ct.geometry.spacing_mm
    box = box_where(anatomy.labels == Structure.SACRUM, np.ceil(config.reach_mm / spacing).astype(int))
    if box is None:
        return labels
    smooth = gaussian_filter(ct.hu[box].astype(np.float32), SMOOTH_MM / spacing)
    bone = _largest(smooth > config.bone_hu)
    filled = np.stack([binary_fill_holes(bone[:, :, k]) for k in range(bone.shape[2])], axis=2)
    part = labels[box]
    part[filled] = Structure.SACRUM
    part[_largest(filled & ~bone)] = Structure.SACRAL_CANAL
    return labels


def _largest(mask: Mask) -> Mask:
    parts = cc3d.connected_components(mask, connectivity=6)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    found: Mask = mask & (parts == sizes.argmax())
    return found


def _site(part: Mask, anatomy: npt.NDArray[np.generic], front: npt.NDArray[np.int64]) -> Site:
    """In the canal: epidural; in front of the sacrum: anterior sacral; behind or beside it: puncture path."""
    if (anatomy[part] == Structure.SACRAL_CANAL).mean() > 0.5:
        return Site.ANTERIOR_EPIDURAL_SPACE
    i, j, k = np.nonzero(part)
    in_front = j < front[i, k]
    return Site.ANTERIOR_SACRAL_SPACE if in_front.mean() > 0.5 else Site.PUNCTURE_PATH


def _front(sacrum: Mask) -> npt.NDArray[np.int64]:
    """Index of the foremost sacrum voxel in each column along P; -1 where there is none."""
    first: npt.NDArray[np.int64] = sacrum.argmax(axis=1).astype(np.int64)
    first[~sacrum.any(axis=1)] = -1
    return first
