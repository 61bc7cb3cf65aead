"""What lies under cement: where the network is asked, which way it turns the odds, and what they turn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Structure
from sacroleak.models.cement import Region
from sacroleak.models.near import Near
from sacroleak.models.networks import working_bones, working_grid
from sacroleak.models.under import odds_of_bone

SHAPE, CORNER = (10, 10, 10), (3, 0, 0)


def look(**shares: float) -> Near:
    """Everywhere these shares of structures, on a box in the middle of the grid whose first plane is a tile's rim."""
    probabilities = np.zeros((5, 6, 10, 10), dtype=np.float32)
    for name, share in shares.items():
        probabilities[Structure[name] - 1] = share
    weight = np.ones((6, 10, 10), dtype=np.float32)
    weight[0] = 0.1
    return Near(probabilities=probabilities, weight=weight, start=CORNER, tiles=1, first=1)


def odds(hidden: npt.NDArray[np.bool_], **shares: float) -> npt.NDArray[np.float32]:
    found = odds_of_bone(look(**shares), hidden)
    assert found is not None
    return found


def test_only_hidden_places_that_were_looked_at_are_judged() -> None:
    hidden = np.zeros(SHAPE, dtype=bool)
    hidden[:, 4] = True
    changed = odds(hidden, SACRUM=0.99) != 1
    assert changed[4:9, 4].all()
    assert np.count_nonzero(changed) == changed[4:9, 4].size


def test_without_a_look_nothing_is_said() -> None:
    assert odds_of_bone(None, np.ones(SHAPE, dtype=bool)) is None


@pytest.mark.parametrize("bone", ["SACRUM", "HIP_LEFT", "HIP_RIGHT", "L5"])
def test_any_bone_counts_and_the_canal_is_none(bone: str) -> None:
    hidden = np.ones(SHAPE, dtype=bool)
    assert odds(hidden, **{bone: 0.98})[5, 5, 5] > 3
    assert odds(hidden, **{bone: 0.3, "SACRAL_CANAL": 0.7})[5, 5, 5] < 0.3


def test_the_surer_of_bone_the_higher_and_never_without_end() -> None:
    hidden = np.ones(SHAPE, dtype=bool)
    said = [float(odds(hidden, SACRUM=share)[5, 5, 5]) for share in (0.0, 0.2, 0.5, 0.9, 1.0)]
    assert said == sorted(said)
    assert 0 < said[0] < said[-1] < 100


def test_the_odds_move_bone_against_none_and_leave_the_canal_its_share() -> None:
    region = Geometry.axis_aligned(origin_lps_mm=(0.0, 0.0, 0.0), spacing_mm=2.0, shape=(8, 8, 8))
    probabilities = np.zeros((8, *region.shape), dtype=np.float32)
    probabilities[Structure.SACRUM, :4], probabilities[Structure.SACRAL_CANAL, :4] = 0.5, 0.1
    probabilities[Structure.SACRUM, 4:], probabilities[Structure.SACRAL_CANAL, 4:] = 0.5, 0.45
    seen = Region(probabilities=probabilities, geometry=region)
    grid = working_grid(region)
    inner = {}
    for factor in (0.5, 1.0, 2.0):
        labels = working_bones(seen, (), np.full(grid.shape, factor, dtype=np.float32)).labels
        inner[factor] = (int(labels[3, 7, 7]), int(labels[11, 7, 7]))
    assert inner[1.0] == (Structure.SACRUM, Structure.SACRUM)
    assert inner[0.5] == (Structure.BACKGROUND, Structure.SACRAL_CANAL)
    assert inner[2.0] == inner[1.0]
