"""The scan for measuring time is the same patient on a finer grid."""

from __future__ import annotations

import numpy as np
import pytest

from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.volume import Volume
from sacroleak.training.full_size_scan import full_size

SHAPE = (24, 40, 18)


@pytest.fixture
def block() -> Volume:
    """12 x 10 x 6 voxels of air with a block of bone, on a grid that runs backwards along one axis."""
    hu = np.full((12, 10, 6), -1000, dtype=np.int16)
    hu[6:10, 2:6, 1:4] = 800
    affine = np.diag([-3.0, 3.0, 5.0, 1.0])
    affine[:3, 3] = (40.0, -20.0, -300.0)
    return Volume(hu=hu, geometry=Geometry(affine=affine, shape=(12, 10, 6)))


def centroid_lps_mm(scan: Volume) -> Points:
    """Centre of everything denser than air; (3,) LPS mm."""
    weights = np.clip(scan.hu + 900.0, 0, None)  # air and its noise weigh nothing
    return np.average(scan.geometry.to_lps(np.argwhere(weights > 0)), axis=0, weights=weights[weights > 0])


def test_the_corners_stay(block: Volume) -> None:
    large = full_size(block, rng=np.random.default_rng(1), shape=SHAPE)
    assert large.hu.shape == SHAPE
    assert np.allclose(large.geometry.corners_lps_mm(), block.geometry.corners_lps_mm())


def test_bone_stays_at_its_place(block: Volume) -> None:
    large = full_size(block, rng=np.random.default_rng(1), shape=SHAPE)
    assert np.abs(centroid_lps_mm(large) - centroid_lps_mm(block)).max() < 0.3, "a tenth of the coarse voxel"


def test_air_gets_noise_and_the_same_seed_the_same_scan(block: Volume) -> None:
    first, again = (full_size(block, rng=np.random.default_rng(7), shape=SHAPE) for _ in range(2))
    assert np.array_equal(first.hu, again.hu)
    assert 8 < first.hu[:4, -4:, -4:].std() < 16
