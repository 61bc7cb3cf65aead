"""What is known of a scan's needles from elsewhere: evidence beside the scan, never needed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import isfinite

FARTHEST_MM = 1e6
"""A coordinate beyond this is no place of a patient; scanners put the origin some metres away at most."""

Entry = tuple[float, float, float]


class Approach(StrEnum):
    """The way the needles took; Tian et al. (J Pain Res 2020) name these three."""

    POSTERIOR = "posterior"
    TRANSILIAC = "transiliac"
    ANTERIOR_OBLIQUE = "anterior_oblique"


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedleNote:
    """What a manifest says of the needles of one scan; at least one of both.

    `approach`: of all needles, None where it is unknown. `entries_lps_mm`: where needles entered skin or bone, in the
    patient's LPS frame of that scan, mm; there may be fewer than needles. Raises ValueError for an empty note and for
    coordinates that are no numbers or no place.
    """

    approach: Approach | None = None
    entries_lps_mm: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        if self.approach is None and not self.entries_lps_mm:
            raise ValueError("neither an approach nor an entry")
        if not all(isfinite(x) and abs(x) <= FARTHEST_MM for entry in self.entries_lps_mm for x in entry):
            raise ValueError("an entry that is no place in the patient")
