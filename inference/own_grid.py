"""Label maps from the working grid back to the scan's own grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Geometry, box_where
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap
from sacroleak.models.label_grids import Index, PlacedLabels, as_index, to_grid
from sacroleak.models.segmentation import Segmentation


def structures_on(grid: Geometry, segmentation: Segmentation) -> PlacedLabels:
    """Structure 0-6 on the smallest box of `grid` that holds them: anatomy as by `to_grid`, cement over it.

    The cement is already on `grid` and is copied, not resampled.
    """
    anatomy = to_grid(grid, segmentation.anatomy)
    cement = segmentation.cement.labels.astype(bool, copy=False)
    box = _bounds(cement)
    if box is None:
        return anatomy
    first = np.minimum(anatomy.start, np.add(segmentation.start, box[0]))
    last = np.maximum(np.add(anatomy.start, anatomy.part.geometry.shape), np.add(segmentation.start, box[1]))
    labels = np.zeros(tuple((last - first).tolist()), dtype=np.uint8)
    labels[_region(np.subtract(anatomy.start, first), anatomy.part.geometry.shape)] = anatomy.part.labels
    inside = cement[_region(box[0], np.subtract(box[1], box[0]))]
    corner = np.add(segmentation.start, box[0]) - first
    labels[_region(corner, inside.shape)][inside] = Structure.CEMENT
    return PlacedLabels(part=LabelMap(labels=labels, geometry=grid.crop(first, last)), start=as_index(first))


def _bounds(mask: npt.NDArray[np.bool_]) -> tuple[Index, Index] | None:
    """First index and one past the last index of what is True; None if nothing is."""
    box = box_where(mask)
    return None if box is None else (as_index([s.start for s in box]), as_index([s.stop for s in box]))


def _region(start: npt.ArrayLike, sides: npt.ArrayLike) -> tuple[slice, slice, slice]:
    first, length = np.asarray(start, dtype=int).tolist(), np.asarray(sides, dtype=int).tolist()
    a, b, c = (slice(s, s + n) for s, n in zip(first, length, strict=True))
    return a, b, c
