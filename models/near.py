"""A third, closer look at 1 mm, only where something is as bright as cement: thin leaks and the bone beside cement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product

import cc3d
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
SPECK = 10
"""Voxels of 1 mm; fewer are cortex as often as not, and what lies beside larger suspects is looked at all the same."""
AROUND_MM, FOLLOWED_MM = 26.0, 8.0
"""How far from anything suspect the closer look goes, and how far beyond its tiles where it sees cement at their faces:
a leak hangs together with the cement it comes from, and is followed to its end."""
FOLLOWED_PROBABILITY = 0.3
OVERLAP = 16
"""Voxels that neighbouring tiles share, so that each judges its own middle."""
LARGEST, STEP = 112, 16
"""A tile may be larger than the patch the network has learned on, in steps of so many voxels, up to this side: one of
96 costs 0.6 of two of 80."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """How what is seen is followed: `wanted` says, of what was seen so far of one `channel`, what is wanted besides."""

    channel: int
    wanted: Callable[[Near], Mask]


def look_near(hu: Field, wanted: Mask, looker: NearNetwork, channels: slice, *, erased: Mask | None = None,
              follow: Follow | None = None) -> Near | None:
    """Run the network on tiles that cover `wanted`, with `erased` hidden, all on the working grid, and keep `channels`.

    `follow` is asked what is wanted besides until all that is seen too. None where nothing is wanted. The grid must be
    at least as large as a patch.
    """
    box = box_where(wanted)
    if box is None:
        return None
    lattice = _Lattice.cheapest(wanted, box, looker.patch)
    seen = _Seen(hu=hu, erased=erased, network=looker.network, patch=lattice.patch, channels=channels)
    tiles = lattice.tiles_for(wanted)
    while tiles:
        seen.add(tiles)
        tiles = [] if follow is None else [t for t in lattice.tiles_for(follow.wanted(seen.near(follow.channel)))
                                           if t not in seen.tiles]
    return seen.near()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lattice:
    """Where tiles of the shape `patch` may lie: along each axis where they start, each with the span of the grid that
    is its core. Every voxel of the working grid is in the core of one tile.
    """

    patch: Start
    axes: tuple[Cores, Cores, Cores]

    @classmethod
    def cheapest(cls, wanted: Mask, box: Box, patch: Start) -> _Lattice:
        """The fewest voxels in tiles for what is `wanted` in a box, of this or a larger shape."""
        sides = [_sides(s.stop - s.start, n, side) for s, n, side in zip(box, patch, wanted.shape, strict=True)]
        lattices = [cls.around(box, (i, j, k), wanted.shape) for i, j, k in product(*sides)]
        return min(lattices, key=lambda lattice: len(lattice.tiles_for(wanted)) * int(np.prod(lattice.patch)))

    @classmethod
    def around(cls, box: Box, patch: Start, shape: Start) -> _Lattice:
        """The fewest tiles for a box of a grid of `shape`, centred on it, and their likes to all sides."""
        i, j, k = (_cores(s, n, side) for s, n, side in zip(box, patch, shape, strict=True))
        return cls(patch=patch, axes=(i, j, k))

    def tiles_for(self, wanted: Mask) -> list[Start]:
        """Corners of the tiles whose core holds anything wanted."""
        return [(i, j, k) for (i, a), (j, b), (k, c) in product(*self.axes) if wanted[a, b, c].any()]


class _Seen:
    """Sums of the answers to tiles, each weighted by its ramp, on the box of the tiles so far."""

    def __init__(self, *, hu: Field, erased: Mask | None, network: Network, patch: Start, channels: slice) -> None:
        self._hu, self._erased, self._network, self._channels = hu, erased, network, channels
        self._patch, self._ramp = patch, _ramp(patch)
        self._start: Start = (0, 0, 0)
        self._total = np.zeros((0, 0, 0), dtype=np.float32)
        self._summed = np.zeros((channels.stop - channels.start, 0, 0, 0), dtype=np.float32)
        self.tiles: list[Start] = []

    def add(self, tiles: list[Start]) -> None:
        """Look at more tiles."""
        self._make_room(tiles)
        shown = (self._shown(self._box(tile)) for tile in tiles)
        for tile, answer in zip(tiles, each(self._network, shown), strict=True):
            i, j, k = self._box(tile, self._start)
            self._total[i, j, k] += self._ramp
            for summed, values in zip(self._summed, answer[self._channels], strict=True):
                summed[i, j, k] += self._ramp * values
        self.tiles += tiles

    def near(self, channel: int | None = None) -> Near:
        """The mean answer; of all channels or of one."""
        first = self._channels.start if channel is None else channel
        own = slice(None) if channel is None else slice(first - self._channels.start, first - self._channels.start + 1)
        mean = np.asarray(self._summed[own] / np.maximum(self._total, np.float32(1e-6)), dtype=np.float32)
        return Near(probabilities=mean, weight=np.minimum(self._total / np.float32(0.5), 1.0), start=self._start,
                    tiles=len(self.tiles), first=first)

    def _make_room(self, tiles: list[Start]) -> None:
        """Enlarge the sums to the box of all tiles, seen or to be seen."""
        every = np.array(self.tiles + tiles)
        low, sides = every.min(axis=0), np.ptp(every, axis=0) + self._patch
        total, summed = np.zeros(sides, np.float32), np.zeros((len(self._summed), *sides), np.float32)
        if self.tiles:
            i, j, k = (slice(a - o, a - o + n) for a, o, n in zip(self._start, low, self._total.shape, strict=True))
            total[i, j, k], summed[:, i, j, k] = self._total, self._summed
        self._start, self._total, self._summed = (int(low[0]), int(low[1]), int(low[2])), total, summed

    def _shown(self, box: Box) -> Field:
        seen = to_channels(self._hu[box])
        if self._erased is not None:
            erase(seen, self._erased[box])
        return seen

    def _box(self, tile: Start, origin: Sequence[int] = (0, 0, 0)) -> Box:
        i, j, k = (slice(a - o, a - o + n) for a, n, o in zip(tile, self._patch, origin, strict=True))
        return i, j, k


def around(mask: Mask, spacing_mm: float, within_mm: float) -> Mask:
    """What lies within about so many mm of any voxel of a mask on the working grid."""
    cells = _any_in_cells(mask)
    if not cells.any():
        return np.zeros(mask.shape, dtype=bool)
    away = edt.edt(~cells, anisotropy=(COARSE * spacing_mm,) * 3, parallel=1)
    return repeated(away <= within_mm, COARSE, mask.shape)


def repeated(mask: Mask, factor: int, shape: tuple[int, ...]) -> Mask:
    """Each voxel so many times along every axis, cut to a shape."""
    i, j, k = shape
    return np.asarray(mask.repeat(factor, 0).repeat(factor, 1).repeat(factor, 2)[:i, :j, :k])


def without_specks(suspect: Mask) -> Mask:
    """Without pieces of fewer than SPECK voxels, unless there are no others."""
    pieces = cc3d.connected_components(suspect, connectivity=26)
    large = np.bincount(pieces.ravel()) >= SPECK
    large[0] = False
    return np.asarray(large[pieces]) if large.any() else suspect


def holding(found: Mask, suspect: Mask) -> Mask:
    """The pieces of what was found (26 neighbours) that hold anything suspect: the network takes dense bone for cement
    here and there, and what is seen of it would be followed through the pelvis.
    """
    pieces = cc3d.connected_components(found, connectivity=26)
    held = np.bincount(pieces[suspect & found], minlength=int(pieces.max()) + 1) > 0
    held[0] = False
    return np.asarray(held[pieces])


def stretched(probability: Field, grid: Geometry, box: Box, working_mm: float) -> Field:
    """A channel of the fine pass on a box of the working grid, which begins at the same corner."""
    factor = float(grid.spacing_mm[0]) / working_mm
    return sample_separable(probability, tuple(np.arange(s.start, s.stop) / factor for s in box))


def _sides(length: int, patch: int, side: int) -> list[int]:
    """Sides of tiles that are worth a try along an axis: for each number of tiles that cover `length` the smallest."""
    sides: dict[int, int] = {}
    for tried in (patch, *range(patch + STEP, min(LARGEST, side) + 1, STEP)):
        sides.setdefault(_count(length, tried), tried)
    return list(sides.values())


def _count(length: int, patch: int) -> int:
    """The fewest tiles that cover so much with the overlap."""
    return 1 if length <= patch else -(-(length - OVERLAP) // (patch - OVERLAP))


def _cores(span: slice, patch: int, side: int) -> Cores:
    """Of the fewest tiles that cover `span` with the overlap, centred on it, and of those that cover the rest of
    [0, side): where each begins, and its core, half of the overlap within its faces but for the ends of `span`.
    """
    step, half = patch - OVERLAP, OVERLAP // 2
    count = _count(span.stop - span.start, patch)
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
