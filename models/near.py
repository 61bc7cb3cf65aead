"""A third, closer look at 1 mm, only where something is as bright as cement: thin leaks and the bone beside cement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product

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
Cores = list[tuple[int, slice]]

BRIGHT_HU = 300.0
"""What is darker on a 1 mm grid is not judged: it is neither cement nor, blurred by a thick slice, a thin leak."""
DENSE_HU = 1600.0
"""What is brighter may be cement even where the fine network thought of none; facets of S1 reach 1,500 HU."""
SUSPECT_PROBABILITY = 0.2
AROUND_MM, FOLLOWED_MM = 26.0, 8.0
"""How far from anything suspect the closer look goes, and how far beyond its tiles where it sees cement at their faces:
a leak hangs together with the cement it comes from, and is followed to its end."""
FOLLOWED_PROBABILITY = 0.3
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
    `start`; `weight` (i, j, k): 1 in the middle of what was looked at, 0 where nothing was. It is not asked of the
    structure `silent_on`.
    """

    probabilities: Field
    weight: Field
    start: Start
    tiles: int
    first: int = 0
    silent_on: int | None = None

    @property
    def box(self) -> Box:
        """Its place in the working grid."""
        i, j, k = (slice(a, a + n) for a, n in zip(self.start, self.weight.shape, strict=True))
        return i, j, k

    def channel(self, number: int) -> Field:
        """The network's channel of that number."""
        return np.asarray(self.probabilities[number - self.first])

    def only(self, where: Mask, *, silent_on: int | None = None) -> Near:
        """The same with its weight kept only where `where`, (i, j, k) on its box, is true."""
        return replace(self, weight=self.weight * where.astype(np.float32), silent_on=silent_on)

    def mix(self, structure: int, fine: Field, box: Box) -> None:
        """Move `fine`, a channel of the fine pass on `box` of the working grid, towards this one, in place.

        A close view cannot tell left from right, so of the hips it says only how much bone there is in all.
        """
        if structure == self.silent_on:
            return
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

    def at(self, channels: Sequence[int], index: npt.NDArray[np.float64]) -> tuple[Field, Field]:
        """(probabilities (channels, n), weight (n,)) at (n, 3) fractional indices of the working grid; both 0 beyond
        the box.
        """
        place = np.rint(index - np.array(self.start)).astype(np.int64)
        inside = ((place >= 0) & (place < self.weight.shape)).all(axis=1)
        here = index[inside] - np.array(self.start)
        probabilities, weight = np.zeros((len(channels), len(index)), np.float32), np.zeros(len(index), np.float32)
        weight[inside] = self.weight[tuple(place[inside].T)]
        for row, channel in zip(probabilities, channels, strict=True):
            row[inside] = sample_points(self.channel(channel), here)
        return probabilities, weight


def look_near(hu: Field, wanted: Mask, looker: NearNetwork, channels: slice, *, erased: Mask | None = None,
              follow: Callable[[Near], Mask] | None = None) -> Near | None:
    """Run the network on tiles that cover `wanted`, with `erased` hidden, all on the working grid, and keep `channels`.

    `follow` says of what was seen so far what is wanted besides; it is asked until all that is seen too. None where
    nothing is wanted. The grid must be at least as large as a patch.
    """
    box = box_where(wanted)
    if box is None:
        return None
    lattice = _Lattice.around(box, looker.patch, hu.shape)
    seen = _Seen(hu=hu, erased=erased, looker=looker, channels=channels)
    tiles = lattice.tiles_for(wanted)
    while tiles:
        seen.add(tiles)
        tiles = [] if follow is None else [t for t in lattice.tiles_for(follow(seen.near())) if t not in seen.tiles]
    return seen.near()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lattice:
    """Where tiles may lie: along each axis their `starts`, each with the span of the grid that is its core. Every voxel
    of the working grid is in the core of one tile.
    """

    axes: tuple[Cores, Cores, Cores]

    @classmethod
    def around(cls, box: Box, patch: Start, shape: Start) -> _Lattice:
        """The fewest tiles for a box of a grid of `shape`, centred on it, and their likes to all sides."""
        i, j, k = (_cores(s, n, side) for s, n, side in zip(box, patch, shape, strict=True))
        return cls(axes=(i, j, k))

    def tiles_for(self, wanted: Mask) -> list[Start]:
        """Corners of the tiles whose core holds anything wanted."""
        return [(i, j, k) for (i, a), (j, b), (k, c) in product(*self.axes) if wanted[a, b, c].any()]


class _Seen:
    """Sums of the answers to tiles, each weighted by its ramp, on the working grid."""

    def __init__(self, *, hu: Field, erased: Mask | None, looker: NearNetwork, channels: slice) -> None:
        self._hu, self._erased, self._looker, self._channels = hu, erased, looker, channels
        self._ramp = _ramp(looker.patch)
        self._total = np.zeros(hu.shape, dtype=np.float32)
        self._summed = np.zeros((channels.stop - channels.start, *hu.shape), dtype=np.float32)
        self.tiles: list[Start] = []

    def add(self, tiles: list[Start]) -> None:
        """Look at more tiles."""
        boxes = [self._box(tile) for tile in tiles]
        for box, answer in zip(boxes, each(self._looker.network, map(self._shown, boxes)), strict=True):
            self._summed[(slice(None), *box)] += self._ramp * answer[self._channels]
            self._total[box] += self._ramp
        self.tiles += tiles

    def near(self) -> Near:
        """The mean answer, on the box of all tiles."""
        start = np.min(self.tiles, axis=0)
        i, j, k = (slice(int(a), int(b)) for a, b in zip(start, np.max(self.tiles, axis=0) + self._looker.patch,
                                                         strict=True))
        total = self._total[i, j, k]
        mean = self._summed[:, i, j, k] / np.maximum(total, np.float32(1e-6))
        return Near(probabilities=np.asarray(mean, dtype=np.float32), weight=np.minimum(total / np.float32(0.5), 1.0),
                    tiles=len(self.tiles), start=(i.start, j.start, k.start), first=self._channels.start)

    def _shown(self, box: Box) -> Field:
        seen = to_channels(self._hu[box])
        if self._erased is not None:
            erase(seen, self._erased[box])
        return seen

    def _box(self, tile: Start) -> Box:
        i, j, k = (slice(a, a + n) for a, n in zip(tile, self._looker.patch, strict=True))
        return i, j, k


def around(mask: Mask, spacing_mm: float, within_mm: float) -> Mask:
    """What lies within about so many mm of any voxel of a mask on the working grid."""
    cells = _any_in_cells(mask)
    if not cells.any():
        return np.zeros(mask.shape, dtype=bool)
    away = edt.edt(~cells, anisotropy=(COARSE * spacing_mm,) * 3, parallel=1)
    grown: Mask = (away <= within_mm).repeat(COARSE, 0).repeat(COARSE, 1).repeat(COARSE, 2)
    return grown[: mask.shape[0], : mask.shape[1], : mask.shape[2]]


def stretched(probability: Field, grid: Geometry, box: Box, working_mm: float) -> Field:
    """A channel of the fine pass on a box of the working grid, which begins at the same corner."""
    factor = float(grid.spacing_mm[0]) / working_mm
    return sample_separable(probability, tuple(np.arange(s.start, s.stop) / factor for s in box))


def _cores(span: slice, patch: int, side: int) -> Cores:
    """Of the fewest tiles that cover `span` with the overlap, centred on it, and of those that cover the rest of
    [0, side): where each begins, and its core, half of the overlap within its faces but for the ends of `span`.
    """
    step, half = patch - OVERLAP, OVERLAP // 2
    count = 1 if span.stop - span.start <= patch else -(-(span.stop - span.start - OVERLAP) // step)
    first = (span.start + span.stop - (patch + (count - 1) * step)) // 2

    def within(starts: Iterable[int]) -> list[int]:
        return sorted({min(max(start, 0), side - patch) for start in starts})

    own = within(first + n * step for n in range(count))
    below, above = within(range(own[0] - step, -step, -step)), within(range(own[-1] + step, side - patch + step, step))
    borders = [start + half for start in (*below[1:], *own, *above)]
    borders = borders if below else borders[1:]
    if below:
        borders[len(below) - 1] = min(borders[len(below) - 1], span.start)
    if above:
        borders[-len(above)] = max(borders[-len(above)], span.stop)
    ends = [0, *accumulate(borders, max), side]
    return [(start, slice(a, b)) for start, a, b in zip((*below, *own, *above), ends, ends[1:], strict=False)]


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
    # Along the last axis last, when little is left: it takes ten times as long for as many voxels.
    rows = padded.reshape(i, COARSE, *sides[1:]).any(axis=1).reshape(i, j, COARSE, sides[2]).any(axis=2)
    return np.asarray(rows.reshape(i, j, k, COARSE).any(axis=3))
