"""A third, closer look at 1 mm, only where something is as bright as cement: thin leaks and the bone beside cement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import edt
import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Box, Geometry, box_where
from sacroleak.core.structures import Structure
from sacroleak.models.intensity import erase, to_channels
from sacroleak.models.resample import Field, sample_points, sample_separable
from sacroleak.models.runtime import Network, each

Mask = npt.NDArray[np.bool_]
Start = tuple[int, int, int]

BRIGHT_HU = 300.0
"""What is darker on a 1 mm grid is not judged: it is neither cement nor, blurred by a thick slice, a thin leak."""
DENSE_HU = 1600.0
"""What is brighter may be cement even where the fine network thought of none; facets of S1 reach 1,500 HU."""
SUSPECT_PROBABILITY = 0.2
AROUND_MM = 26.0
"""How far from anything suspect the closer look goes: a leak hangs together with the cement it comes from."""
OVERLAP = 16
"""Voxels that neighbouring tiles share, so that each judges its own middle."""
NEAR_SHARE = 0.5
"""Weight of the close look's bones against those of the fine pass; chosen on simulated scans of training anatomies."""
HIPS = (Structure.HIP_LEFT, Structure.HIP_RIGHT)
FOREIGN_SIDE = 0.02
"""Where the fine pass gives one hip less than this the bone is the other hip's."""
COARSE = 4
"""Working voxels along each side of the cells in which distances from suspects are measured."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NearNetwork:
    """The network of the third look, and the tile it is fed with."""

    network: Network
    patch: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Near:
    """Probabilities (n, i, j, k) of the network's channels from `first` on, on a box of the working grid that starts at
    `start`; `weight` (i, j, k): 1 in the middle of what was looked at, 0 where nothing was.
    """

    probabilities: Field
    weight: Field
    start: Start
    tiles: int
    first: int = 0

    @property
    def box(self) -> Box:
        """Its place in the working grid."""
        i, j, k = (slice(a, a + n) for a, n in zip(self.start, self.weight.shape, strict=True))
        return i, j, k

    def channel(self, number: int) -> Field:
        """The network's channel of that number."""
        return np.asarray(self.probabilities[number - self.first])

    def only(self, where: Mask) -> Near:
        """The same with its weight kept only where `where`, (i, j, k) on its box, is true."""
        return replace(self, weight=self.weight * where.astype(np.float32))

    def mix(self, structure: int, fine: Field, box: Box) -> None:
        """Move `fine`, a channel of the fine pass on `box` of the working grid, towards this one, in place.

        A close view cannot tell left from right, so of the hips it says only how much bone there is in all.
        """
        spans = [(max(b.start, own.start), min(b.stop, own.stop)) for b, own in zip(box, self.box, strict=True)]
        if any(low >= high for low, high in spans):
            return
        mine = tuple(slice(low - a, high - a) for (low, high), a in zip(spans, self.start, strict=True))
        theirs = tuple(slice(low - b.start, high - b.start) for (low, high), b in zip(spans, box, strict=True))
        probability = self.channel(structure)[mine]
        if structure in HIPS:
            probability = np.minimum(self.channel(HIPS[0])[mine] + self.channel(HIPS[1])[mine],
                                     np.where(fine[theirs] > FOREIGN_SIDE, 1.0, 0.0).astype(np.float32))
        fine[theirs] += np.float32(NEAR_SHARE) * self.weight[mine] * (probability - fine[theirs])

    def at(self, channel: int, index: npt.NDArray[np.float64]) -> tuple[Field, Field]:
        """(probability, weight) at (n, 3) fractional indices of the working grid; both 0 beyond the box. (n,) each."""
        place = np.rint(index - np.array(self.start)).astype(np.int64)
        inside = ((place >= 0) & (place < self.weight.shape)).all(axis=1)
        i, j, k = place[inside].T
        probability, weight = (np.zeros(len(index), dtype=np.float32) for _ in range(2))
        weight[inside] = self.weight[i, j, k]
        probability[inside] = sample_points(self.channel(channel), index[inside] - np.array(self.start))
        return probability, weight


def look_near(hu: Field, wanted: Mask, looker: NearNetwork, channels: slice, *,
              erased: Mask | None = None) -> Near | None:
    """Run the network on tiles that cover `wanted`, with `erased` hidden, all on the working grid, and keep `channels`.

    None where nothing is wanted. The grid must be at least as large as a patch.
    """
    patch = looker.patch
    tiles = list(_tiles(wanted, patch))
    if not tiles:
        return None
    start = np.min(tiles, axis=0)
    stop = np.max(tiles, axis=0) + patch
    ramp = _ramp(patch)
    total = np.zeros(tuple(stop - start), dtype=np.float32)
    summed: Field | None = None

    def shown(tile: Start) -> Field:
        source = tuple(slice(a, a + n) for a, n in zip(tile, patch, strict=True))
        seen = to_channels(hu[source])
        if erased is not None:
            erase(seen, erased[source])
        return seen

    for tile, whole in zip(tiles, each(looker.network, map(shown, tiles)), strict=True):
        target = tuple(slice(a - b, a - b + n) for a, b, n in zip(tile, start, patch, strict=True))
        answer = whole[channels]
        if summed is None:
            summed = np.zeros((len(answer), *total.shape), dtype=np.float32)
        summed[(slice(None), *target)] += ramp * answer
        total[target] += ramp
    if summed is None:
        return None
    summed /= np.maximum(total, 1e-6)
    return Near(probabilities=summed, weight=np.minimum(total / np.float32(0.5), 1.0), tiles=len(tiles),
                start=(int(start[0]), int(start[1]), int(start[2])), first=channels.start)


def worth_looking(hu: Field, suspect: Mask, spacing_mm: float) -> Mask:
    """Bright voxels within AROUND_MM of a suspect one; both on the working grid."""
    cells = _any_in_cells(suspect)
    if not cells.any():
        return np.zeros(hu.shape, dtype=bool)
    away = edt.edt(~cells, anisotropy=(COARSE * spacing_mm,) * 3, parallel=1)
    grown = (away <= AROUND_MM).repeat(COARSE, 0).repeat(COARSE, 1).repeat(COARSE, 2)
    wanted: Mask = grown[: hu.shape[0], : hu.shape[1], : hu.shape[2]] & (hu > BRIGHT_HU)
    return wanted


def stretched(probability: Field, grid: Geometry, box: Box, working_mm: float) -> Field:
    """A channel of the fine pass on a box of the working grid, which begins at the same corner."""
    factor = float(grid.spacing_mm[0]) / working_mm
    return sample_separable(probability, tuple(np.arange(s.start, s.stop) / factor for s in box))


def _tiles(wanted: Mask, patch: Start) -> Iterator[Start]:
    """Corners of tiles on a regular lattice over the wanted voxels' box; tiles that would add nothing are left out."""
    box = box_where(wanted)
    if box is None:
        return
    starts = [_starts(s.start, s.stop, n, side) for s, n, side in zip(box, patch, wanted.shape, strict=True)]
    left = wanted.copy()
    half = OVERLAP // 2
    for i in starts[0]:
        for j in starts[1]:
            for k in starts[2]:
                core = tuple(slice(a + half if a > s[0] else a, a + n - half if a < s[-1] else a + n)
                             for a, n, s in zip((i, j, k), patch, starts, strict=True))
                if left[core].any():
                    left[core] = False
                    yield i, j, k


def _starts(low: int, high: int, patch: int, side: int) -> list[int]:
    """Starts of the fewest tiles that cover [low, high) with the overlap, centred on it and within [0, side)."""
    count = 1 if high - low <= patch else -(-(high - low - OVERLAP) // (patch - OVERLAP))
    length = patch + (count - 1) * (patch - OVERLAP)
    first = (low + high - length) // 2
    wanted = (first + n * (patch - OVERLAP) for n in range(count))
    return sorted({min(max(start, 0), side - patch) for start in wanted})


def _ramp(patch: Start) -> Field:
    """Weight of a tile's voxels: 1 in its middle, falling to a little at its faces."""
    sides = [np.minimum((np.minimum(np.arange(n), np.arange(n)[::-1]) + 1) / (OVERLAP // 2), 1.0) for n in patch]
    ramp: Field = (sides[0][:, None, None] * sides[1][None, :, None] * sides[2][None, None, :]).astype(np.float32)
    return ramp


def _any_in_cells(mask: Mask) -> Mask:
    sides = [-(-n // COARSE) * COARSE for n in mask.shape]
    padded = np.zeros(sides, dtype=bool)
    padded[: mask.shape[0], : mask.shape[1], : mask.shape[2]] = mask
    i, j, k = (n // COARSE for n in sides)
    return np.asarray(padded.reshape(i, COARSE, j, COARSE, k, COARSE).any(axis=(1, 3, 5)))
