"""Dense things that are no leak of this procedure, or hardly cement at all: never passed over in silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from sacroleak.core.structures import Compartment
from sacroleak.models.features import MeasuredPart, PartFeatures, ScanView
from sacroleak.models.limits import LeakLimits, RuleLimits

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

    What is large is seen well: a large part that the networks doubt all the same is the end of a screw, or very dense
    bone, that hangs together with cement.

    Cement leaks out of cement: a sacrum in full view without any in its bone leaks nothing. A part stays where cement
    lies in the bone beside it, however little, and where a part of the sacrum, and of its cement, may be out of view.
    Beside a sacrum with cement a part goes if it lies apart from that and has a counterpart across the midline, as
    ureters with contrast and calcified arteries have, or if it is far both from the bone and from all other cement:
    what leaked has a way that begins at the bone. Only along a needle's track that way may not be seen.
    """
    cement, limits = view.cement, rules.leaks
    source = (cement.bone_mm <= -limits.beneath_mm) & ~cement.foreign
    held = cement.volume_ml(source) >= limits.source_ml
    beside = cKDTree(cement.points[source]) if source.any() else None

    def why_none(one: MeasuredPart) -> tuple[str, str] | None:
        doubt = _doubted(one.features, limits)
        if doubt is not None:
            return doubt, _DOUBTED_REASON
        if view.measures.coverage < limits.source_coverage:
            return None
        if held:
            why = _reason_apart(one.features, rules)
            return None if why is None else (why, _APART_REASON)
        gap = np.inf if beside is None else float(beside.query(cement.points[one.part.rows])[0].min())
        return None if gap <= limits.source_gap_mm else (_NO_SOURCE, _REASON)

    stay: list[MeasuredPart] = []
    foreign, notes, reasons = cement.foreign.copy(), [], set()
    for one in measured:
        none = why_none(one)
        if none is None:
            stay.append(one)
        else:
            foreign[one.part.rows] = True
            notes.append(_note(one.features, none[0]))
            reasons.add(none[1])
    if not notes:
        return view, stay
    named = replace(cement, foreign=foreign, notes=(*cement.notes, *notes))
    return replace(view, cement=named, review_reasons=(*view.review_reasons, *sorted(reasons))), stay


_REASON = "Dense material beside the sacrum is not called a leak, because no cement was found in the bone; look at it."
_APART_REASON = "Dense material apart from the cement of the sacrum is not called a leak; look at it."
_DOUBTED_REASON = "Dense material that the networks hardly take for cement is not called a leak; look at it."
_NO_SOURCE, _PAIR = "without cement in the bone it is no leak", "apart from the cement and paired it is no leak"
_LONE = "far from the bone and from all other cement it is no leak"


def _doubted(part: PartFeatures, limits: LeakLimits) -> str | None:
    """Why a part is hardly cement; None if it may be."""
    if part.volume_ml < limits.doubted_ml or part.certainty.mean >= limits.least_certainty:
        return None
    return f"taken for cement by the networks with {part.certainty.mean:.0%} only it is no leak"


def _reason_apart(part: PartFeatures, rules: RuleLimits) -> str | None:
    """Why a part beside a sacrum with cement cannot have leaked from it; None if it can."""
    if _paired(part) and part.apart_mm > rules.leaks.source_gap_mm:
        return _PAIR
    shape = part.shape
    # Thick slices lose a track where it crosses the ilium's cortex.
    column = rules.tracks.is_column(straightness=shape.straightness, thickness_mm=shape.thickness_mm,
                                    length_mm=shape.length_mm)
    if not column and min(part.apart_mm, shape.distance_to_cortex_mm) > rules.leaks.lone_mm:
        return _LONE
    return None


def _paired(part: PartFeatures) -> bool:
    """Whether something as dense lies across the midline."""
    return part.place.mirrored_share >= PAIRED_SHARE


def _note(part: PartFeatures, why: str) -> str:
    """What lies there, how much, how far from the bone, and why it is no leak."""
    main = max(part.compartments, key=lambda c: part.compartments[c])
    pair = ", with a similar thing across the midline" if _paired(part) else ""
    place = ", ".join(f"{x:.0f}" for x in part.centroid_lps_mm)
    away = part.shape.distance_to_cortex_mm
    return (f"{part.volume_ml:.2f} mL of dense material lies {away:.0f} mm from the sacrum, "
            f"{_WHERE.get(main, 'beside it')} (LPS {place} mm){pair}: {why}.")
