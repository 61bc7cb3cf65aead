"""Dense things that cement cannot have leaked to: no leak of this procedure, and never passed over in silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from sacroleak.core.structures import Compartment
from sacroleak.models.features import MeasuredPart, PartFeatures, ScanView
from sacroleak.models.limits import RuleLimits

PAIRED_SHARE = 0.5
"""From this share of its voxels on, a thing has a counterpart across the midline."""

_WHERE = {
    Compartment.VENTRAL_CANAL: "in its canal", Compartment.DORSAL_CANAL: "in its canal",
    Compartment.FORAMINA_LEFT: "in a foramen on the left", Compartment.FORAMINA_RIGHT: "in a foramen on the right",
    Compartment.PRESACRAL: "in front of it", Compartment.DORSAL_SOFT_TISSUE: "behind it",
    Compartment.SACROILIAC_JOINT: "in a sacroiliac joint", Compartment.ILIUM: "in the ilium",
    Compartment.L5_S1_DISC: "in the L5/S1 disc", Compartment.L5: "in L5",
}


def without_source(
    view: ScanView, measured: Sequence[MeasuredPart], rules: RuleLimits,
) -> tuple[ScanView, list[MeasuredPart]]:
    """The parts that may be leaks, and the view with all others named in its notes and counted as foreign.

    Cement leaks out of cement: a sacrum in full view without any in its bone leaks nothing. A part stays where cement
    lies in the bone beside it, however little, and where a part of the sacrum, and of its cement, may be out of view.
    Beside a sacrum with cement a part goes if it lies apart from that and has a counterpart across the midline, as
    ureters with contrast and calcified arteries have; or if it is small, doubtful and as dense as the same place on the
    other side, as dense bone is; or, in full view, if it is far both from the bone and from all other cement: what
    leaked has a way that begins at the bone. Only along a needle's track that way may not be seen. A scan of which a
    part goes is for review, unless that part has its like in the bone of the other side.
    """
    cement, limits = view.cement, rules.leaks
    source = (cement.bone_mm <= -limits.beneath_mm) & ~cement.foreign
    whole = view.measures.coverage >= limits.source_coverage
    held = cement.volume_ml(source) >= limits.source_ml
    if not held and not whole:
        return view, list(measured)
    beside = cKDTree(cement.points[source]) if source.any() else None
    stay: list[MeasuredPart] = []
    foreign, notes, doubtful = cement.foreign.copy(), [], False
    for one in measured:
        why: str | None
        if held:
            why = _reason_apart(one.features, rules, whole=whole)
        else:
            gap = np.inf if beside is None else float(beside.query(cement.points[one.part.rows])[0].min())
            why = None if gap <= limits.source_gap_mm else _NO_SOURCE
        if why is None:
            stay.append(one)
        else:
            foreign[one.part.rows] = True
            doubtful |= why != _TWIN
            notes.append(_note(one.features, why))
    if not notes:
        return view, stay
    named = replace(cement, foreign=foreign, notes=(*cement.notes, *notes))
    reasons = (_APART_REASON if held else _REASON,) if doubtful else ()
    return replace(view, cement=named, review_reasons=(*view.review_reasons, *reasons)), stay


_REASON = "Dense material beside the sacrum is not called a leak, because no cement was found in the bone; look at it."
_APART_REASON = "Dense material apart from the cement of the sacrum is not called a leak; look at it."
_NO_SOURCE, _PAIR = "without cement in the bone it is no leak", "apart from the cement and paired it is no leak"
_TWIN = "the same place on the other side is as dense, so it is taken for bone"
_LONE = "far from the bone and from all other cement it is no leak"


def _reason_apart(part: PartFeatures, rules: RuleLimits, *, whole: bool) -> str | None:
    """Why a part beside a sacrum with cement, seen `whole` or in part, cannot have leaked from it; None if it can."""
    if _paired(part) and part.apart_mm > rules.leaks.source_gap_mm:
        return _PAIR
    if (part.place.twin_share >= PAIRED_SHARE and part.volume_ml <= rules.leaks.twin_ml
            and part.certainty.mean <= rules.leaks.twin_certainty):
        return _TWIN
    shape = part.shape
    # Thick slices lose a track where it crosses the ilium's cortex.
    column = rules.tracks.is_column(straightness=shape.straightness, thickness_mm=shape.thickness_mm,
                                    length_mm=shape.length_mm)
    if whole and not column and min(part.apart_mm, shape.distance_to_cortex_mm) > rules.leaks.lone_mm:
        return _LONE
    return None


def _paired(part: PartFeatures) -> bool:
    """Whether something as dense lies across the midline."""
    return part.place.mirrored_share >= PAIRED_SHARE


def _note(part: PartFeatures, why: str) -> str:
    """What lies there, how much, how far from the bone, and why it is no leak."""
    main = max(part.compartments, key=lambda c: part.compartments[c])
    pair = ", with a similar thing across the midline" if _paired(part) else ""
    away = part.shape.distance_to_cortex_mm
    return (f"{part.volume_ml:.2f} mL of dense material lies {away:.0f} mm from the sacrum, "
            f"{_WHERE.get(main, 'beside it')} (LPS {part.centroid_text} mm){pair}: {why}.")
