"""First pass: where in the scan is the sacrum? Any field of view, any position."""

from __future__ import annotations

from itertools import product

import cc3d
import numpy as np

from sacroleak.core.errors import NotAssessableError
from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.structures import Structure
from sacroleak.core.volume import Volume
from sacroleak.models.intensity import to_channels
from sacroleak.models.resample import Field, to_aligned_grid
from sacroleak.models.runtime import Network, each

TILE = 64
"""Voxels a side that the coarse network sees at once; as in its training."""
STEP = 40
"""Voxels from tile to tile, at most."""
UNSEEN = 8
"""A scan that is wider than a tile by no more than this is looked at once, in its middle: 20 mm at either side hold no
sacrum."""
BODY_HU = -500.0
"""Above this is body; tiles without any are skipped."""
SMALLEST_SACRUM_ML = 15.0
"""Less than a tenth of an adult sacrum is not a finding at 5 mm."""


def locate_sacrum(ct: Volume, network: Network, spacing_mm: float) -> Points:
    """Middle of the sacrum's bounding box, LPS mm; (3,). Raises NotAssessableError if there is none."""
    grid = covering_grid(ct.geometry, spacing_mm)
    hu = to_aligned_grid(ct, grid)
    probability = _tiled(hu, network)
    components = cc3d.connected_components(probability > 0.5, connectivity=18)
    sizes = np.bincount(components.ravel())[1:] * grid.voxel_ml
    if sizes.size == 0 or sizes.max() < SMALLEST_SACRUM_ML:
        raise NotAssessableError(("no sacrum was found in the scan",))
    inside = np.argwhere(components == 1 + int(sizes.argmax()))
    return grid.to_lps((inside.min(axis=0) + inside.max(axis=0)) / 2)


def covering_grid(geometry: Geometry, spacing_mm: float) -> Geometry:
    """The grid along +L +P +S that holds the whole scan, at least one tile a side."""
    corners = geometry.corners_lps_mm()
    low, high = corners.min(axis=0), corners.max(axis=0)
    sides = np.maximum(np.ceil((high - low) / spacing_mm).astype(int) + 1, TILE)
    origin = (low + high) / 2 - (sides - 1) / 2 * spacing_mm
    return Geometry.axis_aligned(origin_lps_mm=origin, spacing_mm=spacing_mm,
                                 shape=(int(sides[0]), int(sides[1]), int(sides[2])))


def _tiled(hu: Field, network: Network) -> Field:
    """Highest probability of sacrum that any tile gives a voxel."""
    best = np.zeros(hu.shape, dtype=np.float32)
    tiles = (tuple(slice(c, c + TILE) for c in corner) for corner in product(*(_starts(n) for n in hu.shape)))
    boxes = [box for box in tiles if (hu[box] > BODY_HU).mean() >= 0.02]
    for box, answer in zip(boxes, each(network, (to_channels(hu[box]) for box in boxes)), strict=True):
        np.maximum(best[box], answer[Structure.SACRUM], out=best[box])
    return best


def _starts(side: int) -> list[int]:
    """Where the tiles begin: evenly from end to end, or one in the middle."""
    if side - TILE <= UNSEEN:
        return [(side - TILE) // 2]
    count = 1 + -(-(side - TILE) // STEP)
    return [round(place) for place in np.linspace(0, side - TILE, count).tolist()]
