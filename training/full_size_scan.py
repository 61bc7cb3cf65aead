"""One scan as large as a clinical one, for measuring time and memory: a smaller scan laid on a grid of 512x512x300."""

from __future__ import annotations

import numpy as np

from sacroleak.core.geometry import Geometry, Shape
from sacroleak.core.volume import Volume
from sacroleak.models.resample import resize_linear

NOISE_HU = 12.0
"""Noise of a pelvic CT in soft tissue. Interpolated voxels have none, and a file without noise packs and reads faster
than any real one."""


def full_size(scan: Volume, *, rng: np.random.Generator, shape: Shape) -> Volume:
    """The same patient on a grid of `shape` with the same corners; HU interpolated linearly, noise added."""
    stretched = resize_linear(scan.hu.astype(np.float32), shape)
    stretched += rng.standard_normal(shape, dtype=np.float32) * np.float32(NOISE_HU)
    return Volume(hu=np.rint(stretched).astype(np.int16), geometry=_stretched(scan.geometry, shape))


def _stretched(geometry: Geometry, shape: Shape) -> Geometry:
    """The grid of `shape` whose corner voxels have their centres where those of `geometry` have theirs."""
    affine = geometry.affine.copy()
    affine[:3, :3] *= (np.array(geometry.shape) - 1) / (np.array(shape) - 1)
    return Geometry(affine=affine, shape=shape)
