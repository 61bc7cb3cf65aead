"""A release put together from networks that are watched, or with a part left out."""

from __future__ import annotations

from collections.abc import Mapping

from sacroleak.core.volume import LabelMap
from sacroleak.models.bundle import Bundle
from sacroleak.models.cement import Region
from sacroleak.models.effort import Effort, with_effort
from sacroleak.models.networks import NearNetwork, TwoPassSegmenter, working_anatomy
from sacroleak.models.resample import Field
from sacroleak.models.runtime import Network


class OneLook(TwoPassSegmenter):
    """The release without its second look at the bones, with cement hidden."""

    def _without_cement(self, cement: LabelMap, region: Region, seen: Field, hu: Field) -> LabelMap:  # noqa: ARG002 - as inherited
        return working_anatomy(region)


def assembled(bundle: Bundle, networks: Mapping[str, Network], *, effort: Effort = Effort.STANDARD,
              kind: type[TwoPassSegmenter] = TwoPassSegmenter) -> TwoPassSegmenter:
    """What `load_segmenter` makes of a release, from these networks of it; `near` may be left out."""
    entries = bundle.index.networks
    near = None
    if "near" in networks:
        near = NearNetwork(network=with_effort(networks["near"], effort, sided=False), patch=entries["near"].tile)
    return kind(coarse=networks["coarse"], fine=with_effort(networks["fine"], effort, sided=True), near=near,
                coarse_mm=entries["coarse"].spacing_mm[0], fine_mm=entries["fine"].spacing_mm[0],
                patch=entries["fine"].tile)
