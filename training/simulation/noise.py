"""Random smooth fields: texture, deformation and clutter all come from here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from sacroleak.core.geometry import Shape
from sacroleak.models.resample import resize_linear

Field = npt.NDArray[np.float32]


def smooth_noise(rng: np.random.Generator, shape: Shape, cells: float) -> Field:
    """Unit-variance noise [i, j, k] whose features are about `cells` voxels wide."""
    coarse_shape = tuple(max(2, int(np.ceil(n / max(cells, 1.0))) + 1) for n in shape)
    coarse = rng.standard_normal(coarse_shape, dtype=np.float32)
    field = resize_linear(coarse, shape)
    field /= np.float32(max(float(field.std()), 1e-3))
    return field


def streaks(rng: np.random.Generator, points: Field, *, along: npt.NDArray[np.float64], length_mm: float,
            width_mm: float) -> Field:
    """Unit-variance noise at (i, j, k, 3) mm, drawn out along the unit vector `along`: features about `length_mm` long
    and `width_mm` wide.
    """
    helper = np.eye(3)[int(np.argmin(np.abs(along)))]
    second = np.cross(along, helper) / np.linalg.norm(np.cross(along, helper))
    axes = np.stack([along, second, np.cross(along, second)]) / np.array([[length_mm], [width_mm], [width_mm]])
    places = points @ axes.T.astype(np.float32)
    low = places.reshape(-1, 3).min(axis=0)
    sides = np.ceil(np.ptp(places.reshape(-1, 3), axis=0)).astype(int) + 2
    coarse = rng.standard_normal(tuple(int(n) for n in sides), dtype=np.float32)
    values = map_coordinates(coarse, np.moveaxis(places - low, -1, 0), order=1, mode="nearest")
    field: Field = values / np.float32(max(float(values.std()), 1e-3))
    return field
