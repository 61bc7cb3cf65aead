"""The first pass finds the sacrum wherever it lies and however the scan is stored."""

from __future__ import annotations

import numpy as np
import pytest

from sacroleak.core.errors import NotAssessableError
from sacroleak.core.geometry import Geometry
from sacroleak.core.volume import Volume
from sacroleak.models.locate import TILE, covering_grid, locate_sacrum
from tests.models.coded_scan import CodedNetwork, Scan

STORED = [((0, 1, 2), (1, 1, 1)), ((0, 1, 2), (-1, 1, 1)), ((0, 1, 2), (1, -1, -1)), ((2, 0, 1), (1, 1, -1)),
          ((1, 2, 0), (-1, -1, -1))]


@pytest.mark.parametrize(("order", "signs"), STORED)
def test_the_sacrum_is_found_in_any_orientation(order: tuple[int, int, int], signs: tuple[int, int, int]) -> None:
    scan = Scan(centre=(20.0, -10.0, 35.0), order=order, signs=signs, spacing_mm=(4.0, 4.0, 5.0))
    assert np.abs(locate_sacrum(scan.volume(), CodedNetwork(), 5.0) - scan.centre).max() < 5.0


@pytest.mark.parametrize("height_mm", [-220.0, 0.0, 240.0])
def test_the_sacrum_is_found_at_either_end_of_a_long_scan(height_mm: float) -> None:
    """Longer than one tile, so that tiles must be put together."""
    scan = Scan(centre=(0.0, 0.0, height_mm), size_mm=(250.0, 150.0, 620.0), spacing_mm=(5.0, 5.0, 5.0))
    network = CodedNetwork()
    assert np.abs(locate_sacrum(scan.volume(), network, 5.0) - scan.centre).max() < 5.1
    assert network.asked > 1


def test_the_larger_of_two_finds_is_the_sacrum() -> None:
    scan = Scan(centre=(0.0, 0.0, 40.0), size_mm=(230.0, 140.0, 320.0), spacing_mm=(4.0, 4.0, 4.0)).volume()
    hu = scan.hu.copy()
    hu[20:30, 10:20, 2:8] = 1000
    got = locate_sacrum(Volume(hu=hu, geometry=scan.geometry), CodedNetwork(), 5.0)
    assert np.abs(got - (0, 0, 40)).max() < 5.0


def test_a_scan_without_a_sacrum_is_not_assessable() -> None:
    geometry = Scan(spacing_mm=(5.0, 5.0, 5.0)).geometry()
    water = Volume(hu=np.zeros(geometry.shape, dtype=np.int16), geometry=geometry)
    with pytest.raises(NotAssessableError, match="no sacrum was found") as caught:
        locate_sacrum(water, CodedNetwork(), 5.0)
    assert len(caught.value.reasons) == 1


def test_tiles_of_air_are_not_looked_at() -> None:
    geometry = Scan(spacing_mm=(5.0, 5.0, 5.0)).geometry()
    network = CodedNetwork()
    with pytest.raises(NotAssessableError):
        locate_sacrum(Volume(hu=np.full(geometry.shape, -1000, dtype=np.int16), geometry=geometry), network, 5.0)
    assert network.asked == 0


@pytest.mark.parametrize("size_mm", [(100.0, 100.0, 60.0), (500.0, 480.0, 900.0)])
def test_the_covering_grid_holds_the_scan_and_a_tile(size_mm: tuple[float, float, float]) -> None:
    scan = Scan(size_mm=size_mm, spacing_mm=(5.0, 5.0, 5.0), order=(2, 1, 0), signs=(-1, 1, 1)).geometry()
    grid = covering_grid(scan, 5.0)
    assert min(grid.shape) >= TILE
    index = grid.to_index(scan.corners_lps_mm())
    assert index.min() >= -1e-6
    assert (index <= np.array(grid.shape) - 1 + 1e-6).all()
    assert grid.centre_lps_mm == pytest.approx(scan.centre_lps_mm)
    assert isinstance(grid, Geometry)
