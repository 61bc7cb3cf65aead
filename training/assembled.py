"""A loaded release whose networks are watched, or which leaves a part out."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace

from sacroleak.core.volume import LabelMap
from sacroleak.models.cement import Region
from sacroleak.models.effort import BothWays
from sacroleak.models.near import Near
from sacroleak.models.networks import Dense, TwoPassSegmenter, first_bones
from sacroleak.models.resample import Field
from sacroleak.models.runtime import Network

Watch = Callable[[str, Network], Network]
"""Puts something around the network of a name."""


class OneLook(TwoPassSegmenter):
    """A release without its second look at the bones, with cement and metal hidden."""

    def __init__(self, segmenter: TwoPassSegmenter) -> None:
        vars(self).update(vars(segmenter))

    def _behind(self, dense: Dense, region: Region, seen: Field, hu: Field, near: Near | None) -> LabelMap:  # noqa: ARG002 - as inherited
        return first_bones(region, near)


def watched(segmenter: TwoPassSegmenter, watch: Watch) -> TwoPassSegmenter:
    """The same release with `watch` put around each network, inside what asks it twice. All else stays as loaded."""
    other = copy(segmenter)
    other._coarse, other._fine = _around("coarse", other._coarse, watch), _around("fine", other._fine, watch)
    if other._near is not None:
        other._near = replace(other._near, network=_around("near", other._near.network, watch))
    if other._under is not None:
        other._under = replace(other._under, network=_around("under", other._under.network, watch))
    return other


def without_near(segmenter: TwoPassSegmenter) -> TwoPassSegmenter:
    """The same release without its close networks."""
    other = copy(segmenter)
    other._near, other._under = None, None
    return other


def without_under(segmenter: TwoPassSegmenter) -> TwoPassSegmenter:
    """The same release without its network for what lies under cement."""
    other = copy(segmenter)
    other._under = None
    return other


def _around(name: str, network: Network, watch: Watch) -> Network:
    if isinstance(network, BothWays):
        return replace(network, network=watch(name, network.network))
    return watch(name, network)
