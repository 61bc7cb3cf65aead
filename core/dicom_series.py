"""Which series of a study is scored, by rules that are printed and never by hidden preference."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sacroleak.core.dicom_geometry import normal_of, stack
from sacroleak.core.dicom_header import SliceHeader
from sacroleak.core.errors import InputError
from sacroleak.core.geometry import Geometry

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
STRUCTURED_REPORT = "1.2.840.10008.5.1.4.1.1.88"
"""SOP classes, and roots of families of them, from DICOM PS3.4 B.5."""

SCOUT_WORDS = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW", "SCANOGRAM"})
REFORMAT_WORDS = frozenset({"MPR", "REFORMATTED", "PROJECTION IMAGE", "MIP", "MINIP", "VRT", "CURVED MPR", "3D"})
MATERIAL_WORDS = frozenset({"MATERIAL_MODIFIED", "MATERIAL_REMOVED", "MATERIAL_FRACTIONAL", "EFFECTIVE_ATOMIC_NUM",
                            "ELECTRON_DENSITY", "VIRTUAL_NON_CONTRAST", "VNC", "IODINE", "WATER"})
"""Values of Image Type (DICOM PS3.3 C.8.2.1.1.1 and C.8.15.3.9, and what vendors write there)."""

ELSEWHERE = ("HEAD", "BRAIN", "SKULL", "FACE", "SINUS", "NECK", "CSPINE", "CHEST", "LUNG", "HEART", "TSPINE",
             "SHOULDER", "ELBOW", "HAND", "WRIST", "KNEE", "ANKLE", "FOOT")  # fmt: skip
"""Body Part Examined that does not show the pelvis. It is often wrong, so it ranks last and refuses nothing."""

THIN_MM = 3.0
"""Slices up to this far apart count as thin; leaks are 1-4 mm thick."""

NEARLY_MOST = 0.8
"""Series with this share of the most slices cover alike; the last acquired of them shows the result of treatment."""

MIN_AXIAL_COSINE = 0.7
"""The stack runs within 45 degrees of the body's long axis."""

RULES = (
    "a CT image series: no localizer, dose report, secondary capture, reformat or material map",
    "original and primary, axial within 45 degrees, in Hounsfield units",
    "one even stack of at least 10 slices at most 5 mm apart, nothing missing and nothing twice",
    "a body part that may show the pelvis, and no contrast agent, come first",
    "thin slices (at most 3 mm apart) come first",
    "of the series with at least 80 % of the most slices, the one acquired last",
    "then the most slices, then the lowest series number",
)
"""The choice in words, for the command line and the documentation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesChoice:
    """What was decided about one series: `series` is a digest of its UID; exactly one of a study is accepted."""

    series: str
    accepted: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A series that passed every rule that refuses: its slices in order, and their grid."""

    series: str
    slices: tuple[SliceHeader, ...]
    geometry: Geometry

    @property
    def spacing_mm(self) -> float:
        """Distance between neighbouring slices."""
        return float(self.geometry.spacing_mm[2])


def digest(*uids: str) -> str:
    """12 hex digits that stand for UIDs in what people see."""
    return hashlib.sha256("\n".join(sorted(uids)).encode()).hexdigest()[:12]


def choose(study: Sequence[Sequence[SliceHeader]]) -> tuple[Candidate | None, tuple[SeriesChoice, ...]]:
    """The series of a study to score (None if all are refused), and one SeriesChoice for each series."""
    candidates: list[Candidate] = []
    choices: list[SeriesChoice] = []
    for slices in study:
        name = digest(slices[0].series_uid)
        try:
            refuse_unfit(slices)
            ordered, geometry = stack(slices)
        except InputError as error:
            choices.append(SeriesChoice(series=name, accepted=False, reason=str(error)))
        else:
            candidates.append(Candidate(series=name, slices=ordered, geometry=geometry))
    best = _best(candidates)
    choices += [SeriesChoice(series=c.series, accepted=c is best, reason=_reason(c, c is best)) for c in candidates]
    return best, tuple(choices)


def refuse_unfit(slices: Sequence[SliceHeader]) -> None:
    """Raise InputError with the first rule that any slice of the series breaks."""
    for breaks, sentence in _REFUSALS:
        if any(breaks(slice_) for slice_ in slices):
            raise InputError(sentence)


def _original(slice_: SliceHeader) -> bool:
    return slice_.image_type[:2] in ((), ("ORIGINAL",), ("ORIGINAL", "PRIMARY"))


def _axial(slice_: SliceHeader) -> bool:
    normal = normal_of(slice_)
    return normal is None or abs(float(normal[2])) >= MIN_AXIAL_COSINE  # no normal: refused by the geometry


def _grey_16(slice_: SliceHeader) -> bool:
    pixels = slice_.pixels
    return (pixels.bits_allocated == 16 and 1 <= pixels.bits_stored <= 16
            and pixels.high_bit == pixels.bits_stored - 1 and min(pixels.rows, pixels.columns) > 0)


_REFUSALS: tuple[tuple[Callable[[SliceHeader], bool], str], ...] = (
    (lambda s: s.sop_class.startswith(STRUCTURED_REPORT) or s.modality == "SR", "is a report, such as a dose report"),
    (lambda s: s.sop_class.startswith(SECONDARY_CAPTURE), "is a secondary capture, not a CT image"),
    (lambda s: s.modality != "CT", "is not CT"),
    (lambda s: s.sop_class in ENHANCED_CT or s.pixels.frames > 1,
     "is an enhanced multi-frame CT, which is not supported; export it as single-frame CT images"),
    (lambda s: s.sop_class != CT_IMAGE, "is not made of CT images"),
    (lambda s: bool(SCOUT_WORDS & set(s.image_type)), "is a localizer (scout)"),
    (lambda s: bool(REFORMAT_WORDS & set(s.image_type)), "is a reformat of another series"),
    (lambda s: bool(MATERIAL_WORDS & set(s.image_type)), "is a material map of a multi-energy scan"),
    (lambda s: not _original(s), "is derived from another series, not original and primary"),
    (lambda s: s.pixels.samples != 1 or s.pixels.photometric not in ("MONOCHROME2", ""), "is not a grey-value image"),
    (lambda s: s.pixel_offset is None, "has a slice without pixels; the file may be cut short"),
    (lambda s: not _grey_16(s), "does not store its pixels in 16 bits"),
    (lambda s: s.slope is None or s.intercept is None or s.slope == 0,
     "has no rescale slope and intercept, so its values are not Hounsfield units"),
    (lambda s: s.rescale_type not in ("", "HU", "HU_MOD", "US"), "is not in Hounsfield units"),
    (lambda s: s.multi_energy and s.rescale_type not in ("HU", "HU_MOD"), "is multi-energy, not in Hounsfield units"),
    (lambda s: not _axial(s), "is not axial"),
)  # fmt: skip
"""(what breaks the rule, the sentence), in the order in which a reader would ask."""


def _best(candidates: Sequence[Candidate]) -> Candidate | None:
    if not candidates:
        return None
    first = min(_class(c) for c in candidates)
    rivals = [c for c in candidates if _class(c) == first]
    most = max(len(c.slices) for c in rivals)
    rivals = [c for c in rivals if len(c.slices) >= NEARLY_MOST * most]
    last = max(_acquired(c) for c in rivals)
    rivals = [c for c in rivals if _acquired(c) == last]
    return min(rivals, key=lambda c: (-len(c.slices), c.slices[0].series_number, c.series))


def _class(candidate: Candidate) -> tuple[bool, bool, bool]:
    """What comes first sorts lowest: (shows another body part, contrast agent given, thick slices)."""
    first = candidate.slices[0]
    return any(part in first.body_part for part in ELSEWHERE), first.contrast, candidate.spacing_mm > THIN_MM * 1.001


def _acquired(candidate: Candidate) -> str:
    return max(slice_.acquired for slice_ in candidate.slices)


def _reason(candidate: Candidate, chosen: bool) -> str:
    what = f"{len(candidate.slices)} axial slices, {candidate.spacing_mm:.2f} mm apart"
    return f"chosen: {what}" if chosen else f"could be used, but another series comes first: {what}"
