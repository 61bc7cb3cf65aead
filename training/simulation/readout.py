"""Reading an anatomy, or the CT it comes from, at the places a warp names, and only where there is something."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from sacroleak.core.geometry import Box, Geometry, box_where
from sacroleak.core.volume import Volume
from sacroleak.models.resample import OUTSIDE_HU, sample_separable, to_aligned_grid
from sacroleak.training.simulation.anatomy import STEP_MM, DistanceField

Field = npt.NDArray[np.float32]

PLACING_MM = 2.0
"""Spacing at which anatomies are read out; their own fields are no finer."""
FAR_STEPS = 127
KEPT_BYTES = 240 << 20
"""Whole fields kept at hand: all of them on a patch, two on a scan of 300 slices of 300 mm at 1 mm."""
NOWHERE: Box = (slice(0, 0), slice(0, 0), slice(0, 0))
THINNED = 2
"""Every second voxel along each axis tells where a field lies."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placed:
    """One field in mm within `box` of the placing grid; `far_mm` everywhere else."""

    box: Box
    values: Field
    far_mm: np.float32


class Stretched(Mapping[str, Field]):
    """Fields by name on a grid as fine as the placing grid or finer, each made when it is asked for, read-only.

    Each is kept where it is not just far, which is a small part of a scan; of whole fields those asked for last, up to
    KEPT_BYTES, so ask for a part of one where that will do.
    """

    def __init__(self, placed: Mapping[str, Placed], placing: Geometry, wanted: Geometry) -> None:
        self._placed, self._placing, self._wanted = dict(placed), placing, wanted
        self._tight: dict[str, Placed] = {}
        self._kept: OrderedDict[str, Field] = OrderedDict()

    def __iter__(self) -> Iterator[str]:
        """Names."""
        return iter(self._placed)

    def __len__(self) -> int:
        """Number of fields."""
        return len(self._placed)

    def __contains__(self, name: object) -> bool:
        """Whether there is such a field; makes none."""
        return name in self._placed

    def __getitem__(self, name: str) -> Field:
        """Signed distance in mm, float32 of the grid's shape."""
        if name not in self._kept:
            field = self.part(name, (slice(0, self._wanted.shape[0]), slice(0, self._wanted.shape[1]),
                                     slice(0, self._wanted.shape[2])))
            while self._kept and (len(self._kept) + 1) * field.nbytes > KEPT_BYTES:
                self._kept.popitem(last=False)
            self._kept[name] = field
        self._kept.move_to_end(name)
        return self._kept[name]

    def extent(self, name: str) -> Box:
        """Where a field is not just far; empty slices where it is so everywhere."""
        return self._tightened(name).box

    def part(self, name: str, box: Box) -> Field:
        """A field within `box`, whose slices have a start and a stop, float32, read-only."""
        tight = self._tightened(name)
        out = np.full(tuple(s.stop - s.start for s in box), tight.far_mm, dtype=np.float32)
        spans = [(max(b.start, t.start), min(b.stop, t.stop)) for b, t in zip(box, tight.box, strict=True)]
        if all(low < high for low, high in spans):
            to = tuple(slice(low - b.start, high - b.start) for (low, high), b in zip(spans, box, strict=True))
            of = tuple(slice(low - t.start, high - t.start) for (low, high), t in zip(spans, tight.box, strict=True))
            out[to] = tight.values[of]
        out.setflags(write=False)
        return out

    def at(self, name: str, index: npt.NDArray[np.integer]) -> Field:
        """A field at (..., 3) whole indices of the grid; (...)."""
        tight = self._tightened(name)
        own = index - np.array([s.start for s in tight.box])
        inside = ((own >= 0) & (own < tight.values.shape)).all(axis=-1)
        out: Field = np.full(inside.shape, tight.far_mm, dtype=np.float32)
        out[inside] = tight.values[tuple(own[inside].T)]
        return out

    def _tightened(self, name: str) -> Placed:
        if name not in self._tight:
            self._tight[name] = self._stretched(self._placed[name])
        return self._tight[name]

    def _stretched(self, placed: Placed) -> Placed:
        if placed.values.size == 0 or self._placing is self._wanted:
            return placed
        index = axis_indices(self._placing, self._wanted)
        first = [np.flatnonzero((i >= s.start) & (i <= s.stop - 1)) for i, s in zip(index, placed.box, strict=True)]
        if not all(f.size for f in first):
            return Placed(box=NOWHERE, values=np.empty((0, 0, 0), np.float32), far_mm=placed.far_mm)
        i, j, k = (slice(int(f[0]), int(f[-1]) + 1) for f in first)
        at = tuple(n[b] - s.start for n, b, s in zip(index, (i, j, k), placed.box, strict=True))
        return Placed(box=(i, j, k), values=sample_separable(placed.values, at), far_mm=placed.far_mm)


def no_finer(geometry: Geometry) -> Geometry:
    """The grid itself, or one of PLACING_MM that covers it where it is finer."""
    if geometry.spacing_mm.min() > PLACING_MM - 0.1:
        return geometry
    extent = geometry.spacing_mm * (np.array(geometry.shape) - 1)
    sides = np.ceil(extent / PLACING_MM).astype(int) + 1
    return Geometry.axis_aligned(origin_lps_mm=geometry.affine[:3, 3], spacing_mm=PLACING_MM,
                                 shape=(int(sides[0]), int(sides[1]), int(sides[2])))


def axis_indices(grid: Geometry, at: Geometry) -> tuple[npt.NDArray[np.float64], ...]:
    """Fractional indices into `grid` of the voxels of `at`, axis by axis; both run along +L +P +S."""
    return tuple((at.affine[a, 3] + at.affine[a, a] * np.arange(at.shape[a]) - grid.affine[a, 3]) / grid.affine[a, a]
                 for a in range(3))


def indices_in(grid: Geometry, points: Field) -> Field:
    """(3, ...) LPS mm as fractional indices of a grid along +L +P +S; (3, ...)."""
    shift = (3, *(1,) * (points.ndim - 1))
    index: Field = points - grid.affine[:3, 3].astype(np.float32).reshape(shift)
    index /= np.diag(grid.affine)[:3].astype(np.float32).reshape(shift)
    return index


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Places:
    """Where to read: `index` (3, i, j, k) fractional, every THINNED-th of them, and how far those lie apart, (3,)."""

    index: Field
    thin: Field
    apart: tuple[float, float, float]

    @classmethod
    def of(cls, index: Field) -> Places:
        """From (3, i, j, k) fractional indices."""
        thin = np.ascontiguousarray(index[:, ::THINNED, ::THINNED, ::THINNED])
        # A voxel left out lies no farther from its neighbour than two neighbours lie apart, summed over the axes.
        x, y, z = (sum(float(np.abs(np.diff(thin[a], axis=b)).max(initial=0.0)) for b in range(3)) for a in range(3))
        return cls(index=index, thin=thin, apart=(x, y, z))


def read_field(values: DistanceField, places: Places, stretch: float) -> Placed:
    """Trilinear int8 field in mm; far beyond its edges."""
    scale = np.float32(STEP_MM / stretch)
    far = np.float32(FAR_STEPS) * scale
    source = box_where(values < FAR_STEPS, 1)
    box = None if source is None else _box_of(source, places)
    if source is None or box is None:
        return Placed(box=NOWHERE, values=np.empty((0, 0, 0), np.float32), far_mm=far)
    first = np.array([s.start for s in source], dtype=np.float32).reshape(3, 1, 1, 1)
    read = np.empty(tuple(s.stop - s.start for s in box), dtype=np.float32)
    map_coordinates(values[source], places.index[(slice(None), *box)] - first, output=read, order=1,
                    mode="constant", cval=FAR_STEPS)
    read *= scale
    return Placed(box=box, values=read, far_mm=far)


def _box_of(source: Box, places: Places) -> Box | None:
    """A box of voxels around all whose index lies in `source`; tells by some of them, so a little generous."""
    inside = np.ones(places.thin.shape[1:], dtype=bool)
    for values, span, apart in zip(places.thin, source, places.apart, strict=True):
        inside &= (values > span.start - apart) & (values < span.stop - 1 + apart)
    box = box_where(inside, 1)
    if box is None:
        return None
    spans = [slice(s.start * THINNED, min(s.stop * THINNED, n))
             for s, n in zip(box, places.index.shape[1:], strict=True)]
    return spans[0], spans[1], spans[2]


def read_background(ct: Volume, points: Field, placing: Geometry, wanted: Geometry) -> Field:
    """HU on `wanted`, linear between the CT's voxels, OUTSIDE_HU beyond them. `points`: (3, i, j, k) on `placing`.

    A CT finer than the grid is averaged to its spacing first, as thicker slices would.
    """
    source = _as_coarse(ct, wanted.spacing_mm)
    at = axis_indices(placing, wanted)
    out = np.empty(wanted.shape, dtype=np.float32)
    slab = max(1, (1 << 21) // (wanted.shape[1] * wanted.shape[2]))
    for start in range(0, wanted.shape[0], slab):
        rows = (at[0][start:start + slab], at[1], at[2])
        where = (points[:, start:start + slab] if placing is wanted
                 else np.stack([sample_separable(axis, rows) for axis in points]))
        map_coordinates(source.hu, indices_in(source.geometry, where), output=out[start:start + slab], order=1,
                        mode="constant", cval=OUTSIDE_HU)
    return out


def _as_coarse(ct: Volume, spacing_mm: npt.NDArray[np.float64]) -> Volume:
    """The CT itself, or its averages where the wanted voxels are half as large again as its own."""
    own = ct.geometry.spacing_mm
    step = np.where(spacing_mm > 1.5 * own, spacing_mm, own)
    if (step == own).all():
        return ct
    sides = np.maximum(np.floor(own * (np.array(ct.geometry.shape) - 1) / step).astype(int) + 1, 2)
    grid = Geometry.axis_aligned(origin_lps_mm=ct.geometry.affine[:3, 3], spacing_mm=step,
                                 shape=(int(sides[0]), int(sides[1]), int(sides[2])))
    return Volume(hu=to_aligned_grid(ct, grid), geometry=grid)
