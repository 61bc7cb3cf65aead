"""Cement that a network misses because of metal: a prosthesis in its view outshines all else."""

from __future__ import annotations

import cc3d
import numpy as np
import numpy.typing as npt

from sacroleak.core.volume import Volume
from sacroleak.models.cement import (
    AGREED_PROBABILITY,
    CEMENT,
    FAINTEST_HU,
    METAL,
    SEED_HU,
    SOFT_HU,
    Region,
    surely_cement,
)
from sacroleak.models.distance import grown, indices_of
from sacroleak.models.resample import Field, sample_points
from sacroleak.models.rods import Rods

Mask = npt.NDArray[np.bool_]

METAL_PROBABILITY, METAL_HU = 0.5, 1200.0
FEWEST_VOXELS = 8
"""Of 2 mm: less metal than 0.06 mL blinds nobody."""
TOGETHER_VOXELS = 50
"""Of 2 mm, 0.4 mL: cement is injected by the millilitre and lies together, while dense cortex, once the metal is gone,
is a little brighter everywhere. The largest piece was of 67 to 470 voxels in five simulated scans whose cement is seen
only without the metal, of 6 to 27 in the real CT, which has no cement, and in two simulated scans made of it."""
RIM_VOXELS = 1
"""Blur makes what lies beside metal bright."""
FAR_MORE = 2.0
"""The look without metal is believed if it sees so many times the cement of the one with it. Of 30 simulated scans with
metal, of validation and training anatomies, four with cement of 900 and one of 1,300 HU had 7 to 78 times, the others
at most 1.5: cement of 1,600 HU and more is seen as well with metal in view."""


def screws_in(rods: Rods, ct: Volume, region: Region) -> Mask:
    """Those of the `rods`, rimmed, bool on the grid of `ct`, that the fine pass does not take for cement."""
    if not rods.rimmed.any():
        return rods.rimmed
    index = indices_of(ct.hu > FAINTEST_HU)
    cement = sample_points(region.probabilities[CEMENT], region.geometry.to_index(ct.geometry.to_lps(index)))
    where = np.ravel_multi_index(tuple(index.T), rods.rimmed.shape)
    return rods.rimmed & ~surely_cement(rods, ct, region, where, cement)


def metal_in(region: Region, hu: Field, screws: Mask) -> Mask:
    """All that is metal to the fine pass, with its rim, and the screws; bool on the region's grid, like `hu`."""
    metal = region.probabilities[METAL]
    seen = (metal > METAL_PROBABILITY) & (metal > region.probabilities[CEMENT]) & (hu > METAL_HU)
    return screws | grown(seen, RIM_VOXELS) if np.count_nonzero(seen) >= FEWEST_VOXELS else screws


def without_metal(hu: Field, hidden: Mask) -> Field:
    """HU with what is `hidden` made soft tissue."""
    return np.where(hidden, np.float32(SOFT_HU), hu)


def past_metal(region: Region, again: Field, hu: Field, hidden: Mask) -> Region | None:
    """The fine pass without metal in its view, if it sees far more cement so; else None.

    `again` (8, i, j, k) is what it sees once what is `hidden` is soft tissue; `hu`, `hidden`: on the region's grid.
    Instance norm measures all by what is brightest, so that beside a hip prosthesis even cement of 1,300 HU is nothing
    to the network. What was hidden stays what it was, and metal that was not hidden becomes no cement.
    """
    first = region.probabilities
    no_metal = np.where(hu > METAL_HU, 1 - first[METAL], np.float32(1.0))
    mixed = again.copy()
    mixed[CEMENT] = np.where(hidden, first[CEMENT], again[CEMENT] * no_metal)
    mixed[METAL] = np.where(hidden, first[METAL], np.maximum(first[METAL], again[METAL]))
    free = ~hidden & (hu > SEED_HU)
    before, after = (free & (seen[CEMENT] > AGREED_PROBABILITY) for seen in (first, mixed))
    if np.count_nonzero(after) < FAR_MORE * np.count_nonzero(before) or _largest_piece(after) < TOGETHER_VOXELS:
        return None
    return Region(probabilities=mixed, geometry=region.geometry)


def _largest_piece(mask: Mask) -> int:
    """Voxels of the largest component, 26 neighbours."""
    sizes = np.bincount(cc3d.connected_components(mask, connectivity=26).ravel())[1:]
    return int(sizes.max(initial=0))
