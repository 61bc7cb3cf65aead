"""Metal in a network's view: when it is taken out, what stays what it was, and which rods are screws."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Structure
from sacroleak.core.volume import Volume
from sacroleak.models.cement import CEMENT, METAL, Region
from sacroleak.models.metal import metal_in, past_metal, screws_in, without_metal
from sacroleak.models.rods import Rods
from tests.models.bodies import ball, cover, rod

Mask = npt.NDArray[np.bool_]
GRID = Geometry.axis_aligned(origin_lps_mm=(-39.0, -29.0, -29.0), spacing_mm=2.0, shape=(40, 30, 30))
SCAN = Geometry.axis_aligned(origin_lps_mm=(-39.5, -29.5, -29.5), spacing_mm=1.0, shape=(80, 60, 60))
NONE, SACRUM, CANAL, HIP = Structure.BACKGROUND, Structure.SACRUM, Structure.SACRAL_CANAL, Structure.HIP_LEFT
BODY, SCREW = ball(9.0, (18.0, 0.0, 0.0)), rod((-36.0, -10.0, 0.0), (-2.0, -10.0, 0.0), 3.0)


def answer(**channels: tuple[Mask, float]) -> npt.NDArray[np.float32]:
    """(8, i, j, k) of the fine pass, 0 but in the named channels' masks."""
    out = np.zeros((8, *GRID.shape), dtype=np.float32)
    for name, (mask, probability) in channels.items():
        out[{"cement": CEMENT, "metal": METAL}[name]][mask] = probability
    return out


def region(probabilities: npt.NDArray[np.float32]) -> Region:
    return Region(probabilities=probabilities, geometry=GRID)


cement, screw = cover(GRID, BODY) > 0.5, cover(GRID, SCREW) > 0.5
hu = np.where(screw, 3071.0, np.where(cement, 900.0, 50.0)).astype(np.float32)


def test_cement_that_is_seen_only_without_metal_is_believed_and_metal_stays_metal() -> None:
    first = region(answer(cement=(cement, 0.05), metal=(screw, 0.9)))
    found = past_metal(first, answer(cement=(cement | screw, 0.8)), hu, screw)
    assert found is not None
    assert found.probabilities[CEMENT][cement].min() == pytest.approx(0.8)
    assert found.probabilities[CEMENT][screw].max() == 0
    assert found.probabilities[METAL][screw].min() == pytest.approx(0.9)


def test_what_was_metal_and_was_not_hidden_becomes_no_cement() -> None:
    half = screw & (np.arange(GRID.shape[0]) < 10)[:, None, None]
    first = region(answer(cement=(cement, 0.05), metal=(screw, 0.9)))
    found = past_metal(first, answer(cement=(cement | screw, 0.8)), hu, half)
    assert found is not None
    assert found.probabilities[CEMENT][screw & ~half].max() < 0.1


@pytest.mark.parametrize(("seen", "again"), [(0.8, 0.9), (0.05, 0.3)])
def test_the_first_look_stays_where_the_second_one_sees_hardly_more(seen: float, again: float) -> None:
    first = region(answer(cement=(cement, seen), metal=(screw, 0.9)))
    assert past_metal(first, answer(cement=(cement, again)), hu, screw) is None


def test_soft_tissue_that_is_called_cement_without_metal_does_not_count() -> None:
    first = region(answer(metal=(screw, 0.9)))
    assert past_metal(first, answer(cement=(hu < 600, 0.9)), hu, screw) is None


def test_dense_bone_here_and_there_is_no_cement_hidden_by_metal() -> None:
    scattered = np.zeros(GRID.shape, dtype=bool)
    scattered[::4, ::4, ::4] = True
    scattered &= ~screw
    bright = np.where(scattered, 900.0, hu).astype(np.float32)
    assert past_metal(region(answer(metal=(screw, 0.9))), answer(cement=(scattered, 0.9)), bright, screw) is None


def test_metal_is_what_the_network_says_with_its_rim_and_the_screws() -> None:
    nothing, one = np.zeros(GRID.shape, dtype=bool), np.zeros(GRID.shape, dtype=bool)
    one[5, 5, 5] = True
    found = metal_in(region(answer(metal=(screw, 0.9))), hu, one)
    assert found[screw].all()
    assert found[5, 5, 5]
    assert np.count_nonzero(found) > 1.5 * np.count_nonzero(screw)
    assert not found[cement].any()
    few = region(answer(metal=(one, 0.9)))
    assert not metal_in(few, np.full(GRID.shape, 3071, dtype=np.float32), nothing).any()
    both = region(answer(metal=(screw, 0.7), cement=(screw, 0.8)))
    assert not metal_in(both, hu, nothing).any()


def test_hidden_metal_is_soft_tissue() -> None:
    shown = without_metal(hu, screw)
    assert shown[screw].max() < 100
    assert np.array_equal(shown[~screw], hu[~screw])


@pytest.mark.parametrize(("level", "rod_hu", "probability", "bones", "is_screw"), [
    (900, 3071, 0.8, (SACRUM, SACRUM), True),   # far denser than the patient's cement, so the networks err
    (2400, 3071, 0.8, (SACRUM, SACRUM), False),  # a straight run of it
    (2400, 3071, 0.4, (SACRUM, SACRUM), True),   # no network is sure
    (2400, 3071, 0.8, (SACRUM, CANAL), False),
    (2400, 3071, 0.8, (HIP, SACRUM), True),      # no cement crosses the joint like that
    (2400, 3071, 0.8, (NONE, SACRUM), True),     # nor leaves the bone
    (4500, 6000, 0.8, (SACRUM, SACRUM), True),   # denser than any cement
])
def test_a_rod_of_cement_lies_in_one_bone_and_is_no_denser_than_the_rest(
        level: int, rod_hu: int, probability: float, bones: tuple[Structure, Structure], is_screw: bool) -> None:
    rods, body = cover(SCAN, SCREW) > 0.5, cover(SCAN, BODY) > 0.5
    ct = Volume(hu=np.where(rods, rod_hu, np.where(body, level, 50)).astype(np.int16), geometry=SCAN)
    probabilities = answer(cement=(cement, 0.9))
    for half, bone in zip((slice(0, 10), slice(10, None)), bones, strict=True):  # from the middle of the run on another
        probabilities[bone][half] = 0.9
    probabilities[CEMENT][cover(GRID, rod((-36.0, -10.0, 0.0), (-2.0, -10.0, 0.0), 6.0)) > 0] = probability
    screws = screws_in(Rods(core=rods, rimmed=rods), ct, region(probabilities))
    assert screws[rods].all() if is_screw else not screws.any()


def test_no_rods_are_no_screws() -> None:
    ct = Volume(hu=np.full(SCAN.shape, 50, dtype=np.int16), geometry=SCAN)
    nothing = np.zeros(SCAN.shape, dtype=bool)
    assert not screws_in(Rods(core=nothing, rimmed=nothing), ct, region(answer())).any()


def test_a_speck_denser_than_the_rest_is_cement_wherever_it_lies() -> None:
    """Grains of opacifier in a leak."""
    leak = cover(SCAN, ball(6.0, (-20.0, -10.0, 0.0))) > 0.5
    core, rim = (cover(SCAN, ball(radius, (-20.0, -10.0, 0.0))) > 0.5 for radius in (1.5, 3.5))
    ct = Volume(hu=np.where(core, 5100, np.where(leak, 2800, 50)).astype(np.int16), geometry=SCAN)
    probabilities = answer(cement=(cover(GRID, ball(7.0, (-20.0, -10.0, 0.0))) > 0.2, 0.8))
    assert not screws_in(Rods(core=core, rimmed=rim), ct, region(probabilities)).any()
