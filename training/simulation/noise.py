"""Random smooth fields: texture, deformation and clutter all come from here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Shape
from sacroleak.models.resample import resize_linear

Field = npt.NDArray[np.float32]


def smooth_noise(rng: np.random.Generator, shape: Shape, cells: float) -> Field:
    """Unit-variance noise [i, j, k] whose features are about `cells` voxels wide."""
    coarse_shape = tuple(max(2, int(np.ceil(n / max(cells, 1.0))) + 1) for n in shape)
    coarse = rng.standard_normal(coarse_shape, dtype=np.float32)
    field = resize_linear(coarse, shape)
    return field / np.float32(max(float(field.std()), 1e-3))
