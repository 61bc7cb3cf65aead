"""What a leak's place is measured against, found once a scan: canal, foramina, anterior cortex, skin."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
from scipy.spatial import cKDTree

from sacroleak.core.geometry import Points
from sacroleak.core.structures import Structure
from sacroleak.core.volume import Volume
from sacroleak.models.compartments import Compartments
from sacroleak.models.distance import FAR_MM, indices_of
from sacroleak.models.foramina import Foramen, find_foramina
from sacroleak.models.rays import Rays

AIR_HU, PADDING_HU = -400, -1500
"""Between lung-dense foam and air; below the second lies what a scanner writes outside its field of view."""
BODY_STEP_MM = 4.0
"""The skin is a large smooth surface: it is looked for on every voxel about this far apart."""
OUTSIDE_ML = 40.0
"""Air that reaches the border of the region and is larger lies outside the body; gas in the rectum is mostly less."""
CORTEX_STEP = 3
"""Every third voxel of the bone's shell: about 2 mm apart."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Landmarks:
    """Trees of LPS mm points; None for what the scan does not show."""

    canal: cKDTree | None
    anterior: cKDTree | None
    skin: cKDTree | None
    foramina: tuple[Foramen, ...]

    def nearest_foramen(self, points_lps: Points) -> tuple[Foramen | None, float]:
        """The foramen nearest to any of (n, 3) LPS mm and its distance in mm; (None, FAR_MM) if none was found."""
        found = [(foramen.distance_mm(points_lps), n) for n, foramen in enumerate(self.foramina)]
        return (self.foramina[min(found)[1]], min(found)[0]) if found else (None, FAR_MM)


def find_landmarks(spaces: Compartments, ct: Volume) -> Landmarks:
    """Landmarks of one scan; `ct`: HU of the region around the sacrum, on any grid."""
    canal = indices_of(spaces.bone.labels[::2, ::2, ::2] == Structure.SACRAL_CANAL) * 2
    return Landmarks(canal=_tree(spaces.bone.geometry.to_lps(canal)), anterior=_tree(anterior_cortex(spaces)),
                     skin=_tree(_skin(ct)), foramina=find_foramina(spaces.bone, spaces.frame, spaces.limits))


def anterior_cortex(spaces: Compartments) -> Points:
    """Points of the sacrum's surface with no bone of it in front of them; (n, 3) LPS mm."""
    shell = np.asarray(spaces.surface.data)[::CORTEX_STEP]
    back = spaces.frame.local(shell).back
    covered = Rays(bone=spaces.bone, points=shell - 2.0 * back).hits(-back, spaces.limits.shadow_mm)
    return np.asarray(shell[~covered])


def least_mm(tree: cKDTree | None, points_lps: Points) -> float:
    """Least distance from any of (n, 3) LPS mm to the tree's points; FAR_MM without a tree."""
    return FAR_MM if tree is None else float(tree.query(points_lps)[0].min())


def _tree(points: Points) -> cKDTree | None:
    return cKDTree(points) if len(points) else None


def _skin(ct: Volume) -> Points:
    """Voxels of the body that touch the air around it, about BODY_STEP_MM apart; (n, 3) LPS mm."""
    step = np.maximum(np.rint(BODY_STEP_MM / ct.geometry.spacing_mm), 1).astype(int)
    hu = ct.hu[:: step[0], :: step[1], :: step[2]]
    air = np.ascontiguousarray((hu < AIR_HU) & (hu > PADDING_HU))
    if not air.any():
        return np.zeros((0, 3))
    parts = cc3d.connected_components(air, connectivity=6)
    border = np.unique(np.concatenate([np.take(parts, end, axis=axis).ravel() for axis in range(3) for end in (0, -1)]))
    counts = np.bincount(parts.ravel())
    least = OUTSIDE_ML / (ct.geometry.voxel_ml * float(np.prod(step)))
    outside = np.isin(parts, [n for n in border if n > 0 and counts[n] >= least])
    beside = np.zeros_like(outside)
    for axis in range(3):
        low, high = [slice(None)] * 3, [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        beside[tuple(low)] |= outside[tuple(high)]
        beside[tuple(high)] |= outside[tuple(low)]
    return ct.geometry.to_lps(indices_of(beside & (hu >= AIR_HU)) * step)
