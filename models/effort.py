"""How much time the networks may take for one scan."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sacroleak.core.structures import Structure
from sacroleak.models.resample import Field
from sacroleak.models.runtime import CPU, Network, Precision, each, quickest


class Effort(StrEnum):
    """`fast`: each network looks once at what it is shown. `standard`: the fine one looks at the mirror image as well.
    `careful`: the near one too, and all calculate in float32; the others in what the processor does quickest.

    What each costs and brings is in docs/results.md.
    """

    FAST = "fast"
    STANDARD = "standard"
    CAREFUL = "careful"


@dataclass(frozen=True, slots=True, kw_only=True)
class BothWays:
    """A network whose answer is the mean of those to a patient and to his mirror image.

    `sided`: it tells left from right, so that the hips of the mirror image are put back.
    """

    network: Network
    sided: bool

    def __call__(self, channels: Field) -> Field:
        """Run the network twice; the first axis of (2, i, j, k) runs from right to left."""
        order = list(range(8))
        if self.sided:
            order[Structure.HIP_LEFT], order[Structure.HIP_RIGHT] = Structure.HIP_RIGHT, Structure.HIP_LEFT
        straight, mirrored = each(self.network, (channels, channels[:, ::-1]))
        probabilities: Field = (straight + mirrored[order, ::-1]) / np.float32(2)
        return probabilities


def mean_of(network: Network, one: Field, other: Field) -> Field:
    """The mean of the answers to two ways to show one scan, (2, i, j, k) each, looked at once each at any effort."""
    once = network.network if isinstance(network, BothWays) else network
    first, second = each(once, (one, other))
    answer: Field = (first + second) / np.float32(2)
    return answer


def precision_of(effort: Effort, device: str = CPU) -> Precision:
    """What networks calculate in here: at `careful` the same on every processor, else bfloat16 on a graphics card."""
    if effort is Effort.CAREFUL:
        return "f32"
    return quickest() if device == CPU else "bf16"


def with_effort(network: Network, effort: Effort, *, sided: bool) -> Network:
    """The fine (`sided`) or the near network as often as `effort` wants it."""
    twice = effort is Effort.CAREFUL or (sided and effort is Effort.STANDARD)
    return BothWays(network=network, sided=sided) if twice else network
