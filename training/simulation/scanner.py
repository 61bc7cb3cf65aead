"""What a scanner does to the truth: blur, noise, streaks, saturation, a cut field of view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from sacroleak.core.geometry import Points, Shape
from sacroleak.training.simulation.noise import smooth_noise
from sacroleak.training.simulation.scene import Field, Scene

FWHM = 2.3548
"""Full width at half maximum of a Gaussian, in standard deviations."""
SATURATED_HU = 3071.0
"""Highest value of a 12-bit scanner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """One acquisition. Blur as FWHM in mm (in plane; across), noise in HU at 1 mm, streaks in HU beside metal."""

    blur_mm: float
    slice_mm: float
    noise_hu: float
    noise_cells_mm: float
    streak_hu: float
    saturates: bool
    edge_enhance: float


QUIET = Scanner(blur_mm=0.8, slice_mm=1.0, noise_hu=12.0, noise_cells_mm=1.5, streak_hu=60.0, saturates=True,
                edge_enhance=0.0)
"""A good diagnostic scan."""


def draw_scanner(rng: np.random.Generator, *, wild: bool) -> Scanner:
    """Soft to bone kernels, 0.6 to 5 mm slices, low to high dose."""
    u = rng.uniform
    thick = u(0.6, 2.0) if rng.random() < 0.55 else u(2.0, 5.5)
    return Scanner(
        blur_mm=u(0.4, 3.0 if wild else 1.8), slice_mm=thick, noise_hu=float(np.exp(u(np.log(4), np.log(90)))),
        noise_cells_mm=u(1.0, 4.0), streak_hu=u(0, 500) if rng.random() < 0.7 else 0.0,
        saturates=bool(rng.random() < 0.6), edge_enhance=u(0, 1.2) if rng.random() < 0.35 else 0.0)


def acquire(rng: np.random.Generator, hu: Field, scene: Scene, scanner: Scanner, dense: Points | None) -> Field:
    """The scan of a true HU field; `dense` holds (n, 3) LPS mm of metal and cement voxels, source of streaks."""
    spacing = scene.geometry.spacing_mm
    if scanner.streak_hu > 0 and dense is not None and len(dense) > 20:
        hu = hu + _streaks(rng, scene, dense, scanner.streak_hu)
    # A voxel already averages over its own width, so only the rest of the blur is added.
    plane = np.sqrt(np.maximum(scanner.blur_mm ** 2 - (0.5 * spacing[:2]) ** 2, 0)) / FWHM / spacing[:2]
    across = np.sqrt(max(scanner.slice_mm ** 2 - (0.7 * spacing[2]) ** 2, 0)) / FWHM / spacing[2]
    out: Field = gaussian_filter(hu, (plane[0], plane[1], across), truncate=2.5)
    if scanner.edge_enhance > 0:
        out += np.float32(scanner.edge_enhance) * (out - gaussian_filter(out, 1.5 / spacing, truncate=2))
    out += _noise(rng, scene, scanner)
    if scanner.saturates:
        np.minimum(out, SATURATED_HU, out=out)
    return np.clip(out, -1024, 20000)


def _noise(rng: np.random.Generator, scene: Scene, scanner: Scanner) -> Field:
    """Noise falls with the root of the averaged volume and has a grain of its own."""
    spacing = scene.geometry.spacing_mm
    averaged = float(np.prod(np.maximum(spacing, 1.0))) * max(scanner.slice_mm / float(spacing[2]), 1.0)
    level = scanner.noise_hu / np.sqrt(averaged)
    grain = smooth_noise(rng, scene.geometry.shape, scanner.noise_cells_mm / float(spacing.min()))
    white = rng.standard_normal(scene.geometry.shape, dtype=np.float32)
    return np.float32(level) * (0.7 * grain + 0.7 * white)


def _streaks(rng: np.random.Generator, scene: Scene, dense: Points, strength_hu: float) -> Field:
    """Rays from the dense parts within their slices, fading with distance; dark bands between the densest pair."""
    x, y, z = scene.axes
    out = np.zeros(scene.geometry.shape, dtype=np.float32)
    picks = dense[rng.integers(0, len(dense), size=3)]
    for centre in picks:
        dx, dy = (x - centre[0])[:, None].astype(np.float32), (y - centre[1])[None, :].astype(np.float32)
        angle = np.arctan2(dy, dx)
        reach = np.exp(-np.hypot(dx, dy) / np.float32(rng.uniform(15, 60)))
        rays = np.zeros_like(angle)
        for _ in range(5):
            rays += np.cos(2 * int(rng.integers(1, 18)) * angle + rng.uniform(0, 6.3)) * rng.uniform(0.2, 1)
        extent = np.exp(-0.5 * ((z - centre[2]) / max(float(dense[:, 2].std()) * 1.5, 2.0)) ** 2)
        out += (rays * reach)[:, :, None] * extent.astype(np.float32)[None, None, :]
    scale = max(float(np.abs(out).max()), 1e-3)
    return out * np.float32(strength_hu / scale)


def draw_field_of_view(rng: np.random.Generator, shape: Shape) -> tuple[slice, slice, slice]:
    """What a small or misplaced field of view still sees: three in ten times an axis loses up to 38 %."""
    seen = []
    for sides in shape:
        lost = int(rng.uniform(0.03, 0.38) * sides) if rng.random() < 0.3 else 0
        seen.append(slice(lost, None) if rng.random() < 0.5 else slice(0, sides - lost))
    return seen[0], seen[1], seen[2]
