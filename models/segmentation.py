"""What the networks hand to the rules: bone as it was before cement, and cement on the scan's own grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sacroleak.core.errors import GeometryError
from sacroleak.core.volume import LabelMap, Volume

PerCent = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segmentation:
    """One scan after both passes.

    `anatomy`: Structure 0-5 as if no cement were there, on the working grid (1 mm, axes along +L +P +S).
    `cement`: bool, every cement voxel near the sacrum, on a crop of the scan's own grid (any orientation).
    `ct`: HU on exactly the grid of `cement`. `start`: index of the crop's first voxel in the whole scan.
    `sacrum_coverage`: share of the sacrum's length that the scan shows, 0 to 1. `certainty`: per cent, how far the
    networks take each voxel of that grid for cement; None if the segmenter does not tell.
    """

    anatomy: LabelMap
    cement: LabelMap
    ct: Volume
    start: tuple[int, int, int]
    metal_ml: float
    sacrum_coverage: float
    certainty: PerCent | None = None

    def __post_init__(self) -> None:
        self.ct.geometry.require_same_grid(self.cement.geometry, "cement and CT")
        if self.certainty is not None and self.certainty.shape != self.cement.labels.shape:
            raise GeometryError(f"certainty: array is {self.certainty.shape}, cement {self.cement.labels.shape}")
        if (self.anatomy.geometry.affine[:3, :3] <= -1e-6).any():
            raise GeometryError("anatomy: the working grid must run along +L, +P, +S")
