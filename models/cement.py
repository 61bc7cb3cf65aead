"""Where exactly cement ends: the network says where to look, the scan's own voxels say where it stops."""

from __future__ import annotations

import cc3d
import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.resample import Field

Mask = npt.NDArray[np.bool_]

CEMENT = 6
"""Channel of the fine network."""
METAL = 7
FAINTEST_HU = 350.0
"""Below this nothing is called cement: soft tissue with contrast, and noise, end about here."""
SEED_PROBABILITY = 0.5
GROW_PROBABILITY = 0.12
"""Inside bone cement may grow only where the network thinks it possible, or cortex would be swallowed."""
SEED_HU = 600.0
MARROW_HU = 250.0
"""What surrounds cement inside bone; half way from here to the cement's own level is its edge."""
SOFT_TISSUE_HU = 50.0
SMALLEST_VOXELS = 4
"""Fewer voxels are noise."""


def delineate(ct: Volume, anatomy: LabelMap, probabilities: Field, grid: Geometry) -> tuple[Mask, Mask]:
    """(cement, metal), bool on the grid of `ct`.

    `probabilities`: (8, i, j, k) of the fine network on `grid`. An edge lies half way between the cement's own level
    and what surrounds it, so that volumes are right at any thickness; thin leaks are followed through soft tissue by
    connection, which a 2 mm network cannot see.
    """
    hu = ct.hu
    candidates = np.flatnonzero(hu.reshape(-1) > FAINTEST_HU)
    values = hu.reshape(-1)[candidates].astype(np.float32)
    points = ct.geometry.to_lps(np.stack(np.unravel_index(candidates, hu.shape), axis=-1))
    cement_p, metal_p = (_sample(probabilities[c], grid, points) for c in (CEMENT, METAL))
    bone = _bone_at(anatomy, points)
    seeds = (cement_p > SEED_PROBABILITY) & (values > SEED_HU) & (cement_p > metal_p)
    metal = _paint(hu.shape, candidates, (metal_p > 0.5) & (metal_p > cement_p) & (values > 1500))
    if not seeds.any():
        return np.zeros(hu.shape, dtype=bool), metal
    level = float(np.median(values[seeds]))
    edge_bone, edge_soft = (level + MARROW_HU) / 2, max((level + SOFT_TISSUE_HU) / 2 * 0.8, FAINTEST_HU)
    within = bone & (cement_p > GROW_PROBABILITY) & (values > edge_bone)
    without = ~bone & (values > edge_soft) & (metal_p < 0.5)
    grown = _paint(hu.shape, candidates, (within | without | seeds) & (metal_p <= np.maximum(cement_p, 0.3)))
    return _keep_seeded(grown, _paint(hu.shape, candidates, seeds)), metal


def _keep_seeded(grown: Mask, seeds: Mask) -> Mask:
    """Connected parts (26 neighbours) that hold a seed and are larger than noise."""
    parts = cc3d.connected_components(grown, connectivity=26)
    count = int(parts.max()) + 1
    seeded = np.bincount(parts[seeds], minlength=count) > 0
    keep = seeded & (np.bincount(parts.ravel(), minlength=count) >= SMALLEST_VOXELS)
    keep[0] = False
    result: Mask = keep[parts]
    return result


def _sample(field: Field, grid: Geometry, points: npt.NDArray[np.float64]) -> Field:
    index = grid.to_index(points).T
    values: Field = map_coordinates(field, index, order=1, mode="nearest", output=np.float32)
    return values


def _bone_at(anatomy: LabelMap, points: npt.NDArray[np.float64]) -> Mask:
    """Whether each point lies in a bone of the anatomy (the canal is none)."""
    index = np.rint(anatomy.geometry.to_index(points)).astype(np.int64)
    index = np.clip(index, 0, np.array(anatomy.geometry.shape) - 1)
    label = anatomy.labels[index[:, 0], index[:, 1], index[:, 2]]
    bone: Mask = (label != Structure.BACKGROUND) & (label != Structure.SACRAL_CANAL)
    return bone


def _paint(shape: tuple[int, ...], where: npt.NDArray[np.int64], chosen: Mask) -> Mask:
    out = np.zeros(int(np.prod(shape)), dtype=bool)
    out[where[chosen]] = True
    return out.reshape(shape)
