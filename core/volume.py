"""Values on a grid: Hounsfield units, or labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sacroleak.core.errors import GeometryError
from sacroleak.core.geometry import Geometry


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Volume:
    """A CT: `hu` is int16 or float32, [i, j, k], in Hounsfield units, on `geometry`."""

    hu: npt.NDArray[np.int16] | npt.NDArray[np.float32]
    geometry: Geometry

    def __post_init__(self) -> None:
        _require_shape(self.hu, self.geometry, "volume")

    def crop(self, start: npt.ArrayLike, stop: npt.ArrayLike) -> Volume:
        """The part [start, stop) of the scan, without copying."""
        return Volume(hu=self.hu[_slices(start, stop)], geometry=self.geometry.crop(start, stop))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelMap:
    """Labels: `labels` is an unsigned integer (or bool) array [i, j, k] on `geometry`."""

    labels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.bool_]
    geometry: Geometry

    def __post_init__(self) -> None:
        _require_shape(self.labels, self.geometry, "label map")

    def crop(self, start: npt.ArrayLike, stop: npt.ArrayLike) -> LabelMap:
        """The part [start, stop) of the map, without copying."""
        return LabelMap(labels=self.labels[_slices(start, stop)], geometry=self.geometry.crop(start, stop))

    def volume_ml(self, label: int) -> float:
        """Volume of one label in mL."""
        return float(np.count_nonzero(self.labels == label)) * self.geometry.voxel_ml


def _require_shape(values: npt.NDArray[np.generic], geometry: Geometry, what: str) -> None:
    if values.shape != geometry.shape:
        raise GeometryError(f"{what}: array is {values.shape}, its grid {geometry.shape}")


def _slices(start: npt.ArrayLike, stop: npt.ArrayLike) -> tuple[slice, slice, slice]:
    (a, b, c), (d, e, f) = np.asarray(start).tolist(), np.asarray(stop).tolist()
    return slice(a, d), slice(b, e), slice(c, f)
