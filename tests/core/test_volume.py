from __future__ import annotations

import numpy as np
import pytest

from sacroleak.core.errors import GeometryError
from sacroleak.core.geometry import Geometry
from sacroleak.core.volume import LabelMap, Volume

GRID = Geometry.axis_aligned(origin_lps_mm=(-5, 0, 5), spacing_mm=(0.5, 1, 2), shape=(4, 5, 6))


def test_values_of_another_shape_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"volume: array is \(4, 5, 5\), its grid \(4, 5, 6\)"):
        Volume(hu=np.zeros((4, 5, 5), np.int16), geometry=GRID)
    with pytest.raises(GeometryError, match="label map"):
        LabelMap(labels=np.zeros((4, 5, 5), np.uint8), geometry=GRID)


def test_a_crop_shares_memory_and_keeps_places() -> None:
    hu = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    part = Volume(hu=hu, geometry=GRID).crop((1, 2, 3), (3, 5, 6))
    assert np.shares_memory(part.hu, hu)
    assert part.hu[0, 0, 0] == hu[1, 2, 3]
    assert np.array_equal(part.geometry.to_lps((0, 0, 0)), GRID.to_lps((1, 2, 3)))


def test_the_volume_of_a_label_is_its_voxels_times_theirs() -> None:
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[:2, 0, 0] = 6
    assert LabelMap(labels=labels, geometry=GRID).volume_ml(6) == pytest.approx(0.002)
