"""Beam hardening and photon starvation: what dense material does to the rays through it, filtered back into the slices.

Only rays through dense material differ from the ideal linear scan, so only their difference is projected back:
where nothing is dense nothing is computed, and the rest of the picture stays untouched.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]

DENSE_HU = 1600.0
"""A slice is projected when a reduced voxel exceeds this: above cortical bone, where hardening becomes visible."""
BONE_HU = 700.0
"""In such slices everything above this counts, so that thick bone adds to the shadow."""
PIXEL_MM = 2.0
"""In-plane grid of the projections: streaks are wide and the picture keeps its own sharpness."""
PHOTON_SHARE = np.array([0.30, 0.40, 0.20, 0.10])
"""Photons at 40, 60, 80 and 100 keV: a mean of 62 keV, as a filtered 120 kVp tube gives (an approximation)."""
WATER_PER_MM = np.array([0.02683, 0.02059, 0.01837, 0.01707])
"""Attenuation of water at these energies, 1/mm (NIST XCOM, mass attenuation at 1 g/cm3)."""
HEAVY = np.array([3.629, 1.205, 0.5952, 0.3717])
"""Fall of attenuation with energy in iron, cm2/g (NIST XCOM). Titanium (2.214, 0.766, 0.405, 0.272) and barium
(24.6, 8.51, 3.96, 2.20) fall by the same factors within 12 %, so that one curve serves metal and cement."""
BLOCK = 24
"""Slices projected back at once: their rows stay in the processor's cache."""
FINER = 3
"""Filtered projections are read at this many places per bin, nearest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rays:
    """How rays are taken. `strength`: 1 is physics, 0 turns hardening off; `photons` that reach the detector through
    air, per ray, sets starvation (inf: none); `body_mm`: full width and depth of the patient; `angles` over 180 deg.
    """

    strength: float = 1.0
    photons: float = 4e5
    body_mm: tuple[float, float] = (360.0, 230.0)
    angles: int = 120


def hardening(rng: np.random.Generator, hu: Field, spacing_mm: Array, rays: Rays, *,
              over: Field | None = None) -> tuple[Field, slice] | None:
    """What dense material adds to `hu` [i, j, k] (unsaturated): HU difference on [i, j, slices], and those slices.

    Axes i and j lie in the slice, with `spacing_mm` (3,). `over`: a scan that shows its own shadows already, on which
    `hu` was painted; only what hardening adds beyond them counts. None where nothing dense was added or both effects
    are off.
    """
    if rays.strength <= 0 and not np.isfinite(rays.photons):
        return None
    shadowed = hu.max(axis=(0, 1)) > DENSE_HU
    if over is not None:
        shadowed &= ((hu > BONE_HU) & (hu > over)).any(axis=(0, 1))
    used = np.flatnonzero(shadowed)
    if used.size == 0:
        return None
    slices = slice(int(used[0]), int(used[-1]) + 1)
    factors = tuple(max(1, round(PIXEL_MM / float(s))) for s in spacing_mm[:2])
    small = _reduced(hu[:, :, slices], factors)
    pixel = (float(spacing_mm[0]) * factors[0], float(spacing_mm[1]) * factors[1])
    idle = ~shadowed[slices] | (small.max(axis=(0, 1)) < DENSE_HU)
    dense = _attenuation(small, idle, rays)
    if not dense.any():
        return None
    lines = _Lines.of(small.shape[:2], pixel, rays.angles)
    before = None if over is None else lines.forward(_attenuation(_reduced(over[:, :, slices], factors), idle, rays))
    error = _projection_error(rng, (before, lines.forward(dense)), lines, rays)
    change = lines.back(error) * np.float32(1000 / _water_at_body(rays.body_mm)[1])
    return _enlarged(change, hu.shape[:2], factors), slices


def _attenuation(small: Field, idle: npt.NDArray[np.bool_], rays: Rays) -> Field:
    """Attenuation of what is dense, 1/mm; none in `idle` slices."""
    dense: Field = np.where(small > BONE_HU, small, 0) * np.float32(_water_at_body(rays.body_mm)[1] / 1000)
    dense[:, :, idle] = 0
    return dense


def _reduced(hu: Field, factors: tuple[int, ...]) -> Field:
    """Block means in the plane; a rest at the far edges is averaged over what there is."""
    for axis, factor in enumerate(factors):
        if factor > 1:
            starts = np.arange(0, hu.shape[axis], factor)
            counts = np.diff(np.append(starts, hu.shape[axis]))
            total: Field = np.add.reduceat(hu, starts, axis=axis, dtype=np.float32)
            total /= counts.reshape([-1 if a == axis else 1 for a in range(3)])
            hu = total
    return hu


def _enlarged(change: Field, shape: tuple[int, int], factors: tuple[int, ...]) -> Field:
    """Linear between block centres, back onto the fine grid."""
    for axis, factor in enumerate(factors):
        if factor > 1:
            place = np.clip((np.arange(shape[axis]) + 0.5) / factor - 0.5, 0, change.shape[axis] - 1)
            low = np.minimum(place.astype(int), max(change.shape[axis] - 2, 0))
            weight = (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
            below = np.take(change, low, axis=axis)
            above = np.take(change, np.minimum(low + 1, change.shape[axis] - 1), axis=axis)
            change = below + weight * (above - below)
    return change


def _water_at_body(body_mm: tuple[float, float]) -> tuple[Array, float]:
    """Photon shares behind a typical path through the body, and water's mean attenuation there, 1/mm."""
    path = 0.75 * float(np.mean(body_mm))
    left = PHOTON_SHARE * np.exp(-WATER_PER_MM * path)
    left = left / left.sum()
    return left, float(left @ WATER_PER_MM)


def _projection_error(rng: np.random.Generator, line_integrals: tuple[Field | None, Field], lines: _Lines,
                      rays: Rays) -> Field:
    """Measured minus linear line integral for each ray (angles, bins, slices; no unit).

    `line_integrals` through what is dense: before anything was added (None: nothing was there), and now. A ray along
    which nothing was added has no error: the scan shows what hardening did to it.
    """
    before, dense = line_integrals
    touched = dense > 1e-4 if before is None else np.abs(dense - before) > 1e-4
    angle, offset, _ = np.nonzero(touched)
    d = dense[touched].astype(np.float64)
    known = np.zeros(len(d)) if before is None else before[touched].astype(np.float64)
    water_mm = chord_mm(lines.angles[angle], lines.offsets_mm[offset], rays.body_mm)
    now, then = (_shortfall(line, water_mm, rays) for line in (d, known))
    error = now[0] - then[0]
    if np.isfinite(rays.photons):
        spread = np.sqrt(np.clip(now[1] - then[1], 0, 0.25))
        error += spread * rng.standard_normal(len(d))
    out = np.zeros(dense.shape, dtype=np.float32)
    out[touched] = error
    return out


def _shortfall(d: Array, water_mm: Array, rays: Rays) -> tuple[Array, Array]:
    """Measured minus linear line integral of rays through water and `d` of dense material, and its variance."""
    left, water = _water_at_body(rays.body_mm)
    through = _transmitted(water_mm, d, HEAVY / (left @ HEAVY))
    error = np.zeros(len(d))
    if rays.strength > 0:
        # The scanner's own correction makes water linear; what is left is read off as the wrong amount of water.
        grid = np.arange(0.0, 4000.0, 4.0)
        known = -np.log(np.exp(-grid[:, None] * WATER_PER_MM) @ PHOTON_SHARE)
        seen_mm = np.interp(-np.log(through), known, grid)
        error += rays.strength * ((seen_mm - water_mm) * water - d)
    if not np.isfinite(rays.photons):
        return error, np.zeros(len(d))
    error += np.minimum(0.0, np.log(rays.photons / 4.0) + np.log(through))  # clipped where nothing arrives
    return error, 1 / np.maximum(rays.photons * through, 4.0)


def _transmitted(water_mm: Array, d: Array, heavy: Array) -> Array:
    """Share of photons left behind water and a heavy path whose mean line integral is `d`."""
    total = np.zeros(len(d))
    for share, water, ratio in zip(PHOTON_SHARE, WATER_PER_MM, heavy, strict=True):
        total += share * np.exp(-water * water_mm - ratio * d)
    return np.maximum(total, 1e-30)


def chord_mm(angles: Array, offsets_mm: Array, body_mm: tuple[float, float]) -> Array:
    """Length of a ray inside an ellipse of the body's width and depth."""
    a, b = body_mm[0] / 2, body_mm[1] / 2
    square = (a * np.cos(angles)) ** 2 + (b * np.sin(angles)) ** 2
    chord: Array = 2 * a * b * np.sqrt(np.maximum(square - offsets_mm ** 2, 0)) / square
    return chord


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Lines:
    """Parallel rays: `angles` of their normal in radians, `offsets_mm` of the bins; `places` of pixels among bins."""

    angles: Array
    offsets_mm: Array
    places: Field
    pixel_mm: tuple[float, float]
    shape: tuple[int, int]

    @staticmethod
    @lru_cache(maxsize=4)
    def of(shape: tuple[int, int], pixel_mm: tuple[float, float], count: int) -> _Lines:
        """Rays that cover a grid of `shape`, with bins as wide as its finer pixel."""
        bin_mm = min(pixel_mm)
        x = ((np.arange(shape[0]) - (shape[0] - 1) / 2) * pixel_mm[0])[:, None]
        y = ((np.arange(shape[1]) - (shape[1] - 1) / 2) * pixel_mm[1])[None, :]
        half = int(np.ceil(np.hypot(x.max(initial=1.0), y.max(initial=1.0)) / bin_mm)) + 2
        angles = (np.arange(count) + 0.5) * np.pi / count
        places = np.empty((count, shape[0] * shape[1]), dtype=np.float32)
        for n, angle in enumerate(angles):
            places[n] = ((x * np.cos(angle) + y * np.sin(angle)) / bin_mm + half).ravel()
        return _Lines(angles=angles, offsets_mm=np.arange(-half, half + 1, dtype=np.float64) * bin_mm, places=places,
                      pixel_mm=pixel_mm, shape=shape)

    def forward(self, dense: Field) -> Field:
        """Line integrals of `dense` [i, j, slice] in its unit times mm: (angles, bins, slices)."""
        slices, bins = dense.shape[2], len(self.offsets_mm)
        flat = dense.reshape(-1, slices)
        pixel, number = np.nonzero(flat)
        area = self.pixel_mm[0] * self.pixel_mm[1] / float(self.offsets_mm[1] - self.offsets_mm[0])
        value = flat[pixel, number] * np.float32(area)
        out = np.empty((len(self.angles), bins, slices), dtype=np.float32)
        for n, places in enumerate(self.places):
            place = places[pixel]
            low = place.astype(np.int64)
            upper = value * (place - low)
            index = low * slices + number
            total = np.bincount(index, value - upper, bins * slices)
            total[slices:] += np.bincount(index, upper, bins * slices)[:-slices]
            out[n] = total.reshape(bins, slices)
        return out

    def back(self, error: Field) -> Field:
        """Filtered back-projection of (angles, bins, slices) to [i, j, slice], in the unit per mm."""
        ramp = _ramp(error.shape[1], float(self.offsets_mm[1] - self.offsets_mm[0]))
        out = np.zeros((self.shape[0] * self.shape[1], error.shape[2]), dtype=np.float32)
        for start in range(0, error.shape[2], BLOCK):
            total = np.zeros((out.shape[0], min(BLOCK, error.shape[2] - start)), dtype=np.float32)
            for measured, places in zip(error, self.places, strict=True):
                filtered = ramp @ np.ascontiguousarray(measured[:, start:start + BLOCK])
                total += filtered.take((places * FINER).astype(np.int32), axis=0)
            out[:, start:start + BLOCK] = total
        return (out * np.float32(np.pi / len(self.angles))).reshape(*self.shape, -1)


@lru_cache(maxsize=4)
def _ramp(bins: int, step_mm: float) -> Field:
    """Ramp filter with a Hann window and linear stretching, as one matrix, (FINER * bins, bins)."""
    distance = np.arange(-bins, bins + 1, dtype=np.float64)
    odd = np.abs(distance) % 2 == 1
    kernel = np.zeros(len(distance))
    kernel[odd] = -1 / (np.pi * distance[odd]) ** 2
    kernel[bins] = 0.25
    # The Hann window in the frequency domain is a (1/4, 1/2, 1/4) average of neighbouring bins.
    kernel = np.convolve(kernel, (0.25, 0.5, 0.25), mode="same") / step_mm
    between = np.arange(FINER * bins)[:, None] / FINER - np.arange(bins)[None, :]
    matrix: Field = np.interp(between, distance, kernel).astype(np.float32)
    return matrix
