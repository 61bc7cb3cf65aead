"""The closer look: where it is spent, that tiles join without a seam, and that it leaves alone what it did not see."""

from __future__ import annotations

import numpy as np
import pytest

from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Structure
from sacroleak.models.near import (
    BRIGHT_HU,
    NEAR_SHARE,
    Follow,
    Near,
    NearNetwork,
    around,
    holding,
    look_near,
    stretched,
    without_specks,
)
from sacroleak.models.resample import Field

PATCH = (32, 32, 32)
SHAPE = (90, 70, 64)


class Echo:
    """Gives every channel the first channel of its input; counts how often it is asked."""

    calls = 0

    def __call__(self, channels: Field) -> Field:
        self.calls += 1
        return np.repeat(channels[:1], 8, axis=0)


def looked(hu: Field, wanted: np.ndarray) -> tuple[Near, int]:
    network = Echo()
    near = look_near(hu, wanted, NearNetwork(network=network, patch=PATCH), slice(3, 5))
    assert near is not None
    return near, network.calls


@pytest.mark.parametrize("seed", range(6))
def test_every_wanted_voxel_is_seen_and_tiles_join_without_a_seam(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hu = rng.uniform(-250, 650, size=SHAPE).astype(np.float32)
    wanted = np.zeros(SHAPE, dtype=bool)
    wanted[tuple(rng.integers(0, SHAPE, size=(20, 3)).T)] = True
    near, _ = looked(hu, wanted)
    (channels,), weight = near.at((3,), np.argwhere(wanted).astype(float))
    assert (weight > 0).all()
    assert channels == pytest.approx((hu[wanted] - 200) / 450, abs=1e-4)


def test_a_small_region_takes_one_tile() -> None:
    wanted = np.zeros(SHAPE, dtype=bool)
    wanted[40:60, 30:50, 20:40] = True
    near, calls = looked(np.zeros(SHAPE, dtype=np.float32), wanted)
    assert calls == near.tiles == 1


def test_a_region_a_little_larger_than_a_tile_takes_one_larger_tile() -> None:
    rng = np.random.default_rng(3)
    hu = rng.uniform(-250, 650, size=SHAPE).astype(np.float32)
    wanted = np.zeros(SHAPE, dtype=bool)
    wanted[30:66, 20:56, 10:40] = True
    near, calls = looked(hu, wanted)
    assert calls == 1
    assert near.weight.shape == (48, 48, 32)
    assert (near.at((3,), np.argwhere(wanted).astype(float))[1] > 0).all()


def test_no_tile_is_larger_than_the_grid_or_the_limit() -> None:
    wanted = np.ones(SHAPE, dtype=bool)
    near, calls = looked(np.zeros(SHAPE, dtype=np.float32), wanted)
    assert near.weight.shape == SHAPE
    assert calls > 1


def test_tiles_with_nothing_to_judge_are_left_out() -> None:
    wanted = np.zeros(SHAPE, dtype=bool)
    wanted[5, 5, 5] = wanted[85, 65, 60] = True
    near, calls = looked(np.zeros(SHAPE, dtype=np.float32), wanted)
    assert calls == 2
    assert near.at((4,), np.array([[45.0, 35.0, 32.0]]))[1] == 0


def test_nothing_wanted_is_nothing_done() -> None:
    looker = NearNetwork(network=Echo(), patch=PATCH)
    assert look_near(np.zeros(SHAPE, dtype=np.float32), np.zeros(SHAPE, dtype=bool), looker, slice(0, 8)) is None


def test_around_reaches_about_so_far() -> None:
    suspect = np.zeros(SHAPE, dtype=bool)
    suspect[10, 20, 30] = True
    away = np.linalg.norm(np.argwhere(around(suspect, 1.0, 20.0)) - (10, 20, 30), axis=1)
    assert 14 < away.max() < 26
    assert not around(np.zeros(SHAPE, dtype=bool), 1.0, 20.0).any()


def test_what_is_seen_at_the_end_of_a_tile_is_followed_to_its_own_end() -> None:
    """A bar of which only one end is a suspect; the network gives what it is shown."""
    hu = np.full(SHAPE, -250.0, dtype=np.float32)
    hu[4:86, 30:34, 30:34] = 650.0
    start = np.zeros(SHAPE, dtype=bool)
    start[4:8, 30:34, 30:34] = True
    network = Echo()
    turns = []

    def follow(near: Near) -> np.ndarray:
        turns.append(near.tiles)
        found = np.zeros(SHAPE, dtype=bool)
        found[near.box] = near.channel(3) > 0.3
        return (hu > BRIGHT_HU) & around(found, 1.0, 8.0)

    near = look_near(hu, start, NearNetwork(network=network, patch=PATCH), slice(3, 5),
                     follow=Follow(channel=3, wanted=follow))
    assert near is not None
    bar = np.argwhere(hu > BRIGHT_HU).astype(float)
    assert (near.at((3,), bar)[1] > 0).all()
    assert len(turns) > 1
    assert near.tiles == network.calls < 27  # all tiles of the grid


def near_of(values: dict[int, float], shape: tuple[int, int, int] = (8, 8, 8)) -> Near:
    probabilities = np.zeros((8, *shape), dtype=np.float32)
    for channel, value in values.items():
        probabilities[channel] = value
    return Near(probabilities=probabilities, weight=np.ones(shape, dtype=np.float32), start=(4, 4, 4), tiles=1)


def test_bones_move_towards_the_close_look_only_where_it_looked() -> None:
    fine = np.full((20, 20, 20), 0.2, dtype=np.float32)
    near_of({Structure.SACRUM: 1.0}).mix(Structure.SACRUM, fine, (slice(0, 20),) * 3)
    assert fine[5, 5, 5] == pytest.approx(0.2 + NEAR_SHARE * 0.8)
    fine[4:12, 4:12, 4:12] = 0.2
    assert (fine == np.float32(0.2)).all()


def test_a_box_of_the_working_grid_is_met_at_its_own_place() -> None:
    fine = np.zeros((6, 6, 6), dtype=np.float32)
    near_of({Structure.SACRUM: 1.0}).mix(Structure.SACRUM, fine, (slice(10, 16), slice(0, 6), slice(4, 10)))
    assert np.argwhere(fine > 0).min(axis=0).tolist() == [0, 4, 0]
    assert np.argwhere(fine > 0).max(axis=0).tolist() == [1, 5, 5]
    apart = np.zeros((3, 3, 3), dtype=np.float32)
    near_of({Structure.SACRUM: 1.0}).mix(Structure.SACRUM, apart, (slice(30, 33),) * 3)
    assert not apart.any()


def test_a_close_look_never_exchanges_left_and_right() -> None:
    """It took a left hip for a right one; the fine pass knows the side."""
    near = near_of({Structure.HIP_RIGHT: 0.9})
    left, right = np.full((20, 20, 20), 0.6, dtype=np.float32), np.zeros((20, 20, 20), dtype=np.float32)
    near.mix(Structure.HIP_LEFT, left, (slice(0, 20),) * 3)
    near.mix(Structure.HIP_RIGHT, right, (slice(0, 20),) * 3)
    assert left[6, 6, 6] > 0.6
    assert not right.any()


def test_the_fine_pass_is_stretched_to_the_working_grid() -> None:
    grid = Geometry.axis_aligned(origin_lps_mm=np.zeros(3), spacing_mm=2.0, shape=(10, 10, 10))
    along = np.broadcast_to(np.arange(10, dtype=np.float32)[:, None, None], (10, 10, 10)).copy()
    box = stretched(along, grid, (slice(4, 9), slice(0, 2), slice(0, 2)), 1.0)
    assert box[:, 0, 0] == pytest.approx([2.0, 2.5, 3.0, 3.5, 4.0])


def test_specks_are_left_out_unless_there_is_nothing_else() -> None:
    suspect = np.zeros((20, 20, 20), dtype=bool)
    suspect[2, 2, 2:5] = True
    assert np.array_equal(without_specks(suspect), suspect)
    body = np.zeros_like(suspect)
    body[10:13, 10:13, 10:13] = True
    assert np.array_equal(without_specks(suspect | body), body)
    assert not without_specks(np.zeros_like(suspect)).any()


def test_what_is_found_is_followed_only_from_something_suspect_on() -> None:
    found = np.zeros((20, 20, 20), dtype=bool)
    found[3, 3, 2:12], found[15, 15, 2:12] = True, True
    suspect = np.zeros_like(found)
    suspect[3, 3, 0:4], suspect[8, 8, 8] = True, True
    followed = holding(found, suspect)
    assert followed[3, 3, 2:12].all()
    assert followed.sum() == 10
    assert not holding(found, np.zeros_like(found)).any()
