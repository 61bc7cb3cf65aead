"""What the edge network is asked about a voxel."""

from __future__ import annotations

import numpy as np
import pytest

from sacroleak.core.geometry import Geometry
from sacroleak.core.volume import Volume
from sacroleak.models.edge import AROUND_MM, EDGE_FEATURES, FARTHEST_MM, Seen, surroundings

GRID = Geometry.axis_aligned(origin_lps_mm=np.zeros(3), spacing_mm=1.0, shape=(20, 18, 16))
PLACES = np.array([(10, 9, 8), (12, 9, 8), (14, 9, 8), (19, 17, 15)])


def dot() -> np.ndarray:
    """One voxel of certain cement."""
    certainty = np.zeros(GRID.shape, dtype=np.uint8)
    certainty[10, 9, 8] = 100
    return certainty


def test_surroundings_are_means_and_the_most_of_what_lies_near() -> None:
    hu = np.full(GRID.shape, 500, dtype=np.int16)
    around = surroundings(Volume(hu=hu, geometry=GRID), dot(), PLACES)
    volume = (2 * round(AROUND_MM / 2) + 1) ** 3
    assert around[:2, 0] == pytest.approx([1 / volume] * 2)
    assert around[2, 0] == pytest.approx(0.0, abs=1e-6)
    assert around[:3, 1] == pytest.approx([500.0] * 3)
    assert around[:, 2].tolist() == [1.0, 1.0, 1.0, 0.0]


def test_nothing_is_seen_where_no_network_thought_of_cement() -> None:
    hu = np.full(GRID.shape, 2000, dtype=np.int16)
    assert not surroundings(Volume(hu=hu, geometry=GRID), np.zeros(GRID.shape, dtype=np.uint8), PLACES).any()


def test_features_are_named_bounded_and_do_not_depend_on_the_cement_s_density_alone() -> None:
    def features(factor: float) -> np.ndarray:
        seen = Seen(where=np.arange(2), cement=np.array([0.0, 1.0], np.float32), metal=np.zeros(2, np.float32),
                    fine_agrees=np.array([True, False]), hu=np.array([800.0, 1600.0], np.float32) * np.float32(factor),
                    around=np.array([(0.5, 400 * factor, 0.9), (0.5, 400 * factor, 0.01)], np.float32), thickest_mm=3.0)
        assert seen.candidates.tolist() == [0]
        return seen.features(np.arange(2), np.array([-9.0, 1.0]), 1600.0 * factor)

    thin, thick = features(1.0), features(1.5)
    assert thin.shape == (2, len(EDGE_FEATURES))
    names = dict(zip(EDGE_FEATURES, thin.T, strict=True))
    assert names["inside_mm"].tolist() == [FARTHEST_MM, 0.0]
    assert names["outside_mm"].tolist() == [0.0, 1.0]
    assert names["in_bone"].tolist() == [1.0, 0.0]
    assert names["share_of_level"].tolist() == [0.5, 1.0]
    assert np.isfinite(thin).all()
    changed = [name for name, a, b in zip(EDGE_FEATURES, thin.T, thick.T, strict=True) if not np.allclose(a, b)]
    assert changed == ["kilo_hu"]
