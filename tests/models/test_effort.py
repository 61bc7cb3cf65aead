"""A network that is asked once, or about the mirror image too."""

from __future__ import annotations

import numpy as np
import pytest

from sacroleak.core.structures import Structure
from sacroleak.models.effort import BothWays, Effort, with_effort
from sacroleak.models.resample import Field

ASKED = {(Effort.FAST, True): 1, (Effort.FAST, False): 1, (Effort.STANDARD, True): 2, (Effort.STANDARD, False): 1,
         (Effort.CAREFUL, True): 2, (Effort.CAREFUL, False): 2}


class LeftIsLeft:
    """Says the left hip wherever the first channel is bright in the left half, else the right one."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, channels: Field) -> Field:
        self.asked += 1
        out = np.zeros((8, *channels.shape[1:]), dtype=np.float32)
        half = channels.shape[1] // 2
        out[Structure.HIP_RIGHT, :half] = channels[0, :half]
        out[Structure.HIP_LEFT, half:] = channels[0, half:]
        return out


@pytest.mark.parametrize(("effort", "sided"), list(ASKED))
def test_effort_says_how_often_a_network_is_asked(effort: Effort, *, sided: bool) -> None:
    network = LeftIsLeft()
    with_effort(network, effort, sided=sided)(np.ones((2, 4, 2, 2), dtype=np.float32))
    assert network.asked == ASKED[effort, sided]


def test_a_mirrored_patient_keeps_left_and_right() -> None:
    channels = np.random.default_rng(1).random((2, 6, 4, 4)).astype(np.float32)
    assert np.allclose(BothWays(network=LeftIsLeft(), sided=True)(channels), LeftIsLeft()(channels))


def test_without_sides_no_channel_changes_its_place() -> None:
    def slope(channels: Field) -> Field:
        out = np.zeros((8, *channels.shape[1:]), dtype=np.float32)
        out[Structure.HIP_LEFT] = channels[0] * np.arange(channels.shape[1], dtype=np.float32)[:, None, None]
        return out

    answer = BothWays(network=slope, sided=False)(np.ones((2, 5, 3, 3), dtype=np.float32))
    assert np.allclose(answer[Structure.HIP_LEFT], 2.0)
    assert not answer[Structure.HIP_RIGHT].any()
