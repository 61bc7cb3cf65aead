"""One rule, one small function, one sentence; and the soft score of each site that the same measures give.

A rule returns a Finding when every measure it looks at is on its side of the limit, and None otherwise. Each rule
about one of the four sites has a twin that says how far (`evidence`, 0 to 1, 0.5 exactly at the limit), so a score
above one half and a finding mean the same. The scores are not calibrated probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import exp

from sacroleak.core.assessment import Finding
from sacroleak.core.structures import Compartment, Site
from sacroleak.models.features import PartCourse, PartFeatures
from sacroleak.models.limits import RuleLimits
from sacroleak.models.tracks import NOTHING_HEARD, Heard

Rule = Callable[[PartFeatures, RuleLimits], Finding | None]

FORAMINA = (Compartment.FORAMINA_LEFT, Compartment.FORAMINA_RIGHT)
SOFT_TISSUE = (Compartment.DORSAL_SOFT_TISSUE, Compartment.ELSEWHERE)
BEHIND = (Compartment.DORSAL_SOFT_TISSUE, Compartment.ILIUM, Compartment.SACROILIAC_JOINT)
"""Where needles come from. Cement that leaked into the joint spreads along it and gains nothing from the bone."""

SOFTNESS = 0.12
"""A measure this share beyond its limit gives a score of 0.73; about what 1 mm of contour noise does to a ratio."""


def in_canal(part: PartFeatures, limits: RuleLimits) -> Finding | None:
    """Cement inside the ventral half of the sacral canal, beyond what segmentation noise explains."""
    if canal_evidence(part, limits) <= 0.5:
        return None
    depth = part.shape.canal_depth_mm
    return Finding(rule="in_canal", value=depth, unit="mm", limit=limits.sites.canal_depth_mm,
                   sentence=f"Cement reaches {depth:.1f} mm into the front half of the sacral canal.")


def straight_track(part: PartFeatures, limits: RuleLimits) -> Finding | None:
    """Straight, of needle width, leading away from the bone, in line with the cement inside it; or on a way found."""
    if track_evidence(part, limits) <= 0.5:
        return None
    shape, place = part.shape, part.place
    if own_evidence(part, place.own_heard, limits) <= 0.5:
        way = "a straight way from the cement to an entry that the manifest names" if place.track_named else \
            "a needle's way found in the scan"
        return Finding(rule="straight_track", value=place.track_mm, unit="mm", limit=limits.sites.track_found_mm,
                       sentence=f"It lies {place.track_mm:.1f} mm from {way}, "
                                f"{place.track_deg:.0f} degrees from its direction.{place.track_heard.sentence}")
    return Finding(rule="straight_track", value=shape.straightness, unit="ratio", limit=limits.sites.track_straightness,
                   sentence=f"A straight track {shape.length_mm:.0f} mm long and {shape.thickness_mm:.1f} mm wide "
                            f"leads away from the bone, in line with the cement inside it.{place.own_heard.sentence}")


def tubular(part: PartFeatures, limits: RuleLimits) -> Finding | None:
    """Thin and long, on the pelvic surface: cement in a sacral vein."""
    if tube_evidence(part, limits) <= 0.5:
        return None
    shape = part.shape
    start = f" that leaves through {_foramen(part)}" if part.share(*FORAMINA) > 0.05 else ""
    return Finding(rule="tubular", value=shape.elongation, unit="ratio", limit=limits.sites.tube_elongation,
                   sentence=f"A tube {shape.length_mm:.0f} mm long and {shape.thickness_mm:.1f} mm wide{start} runs on "
                            "the pelvic surface of the sacrum.")


def blob_in_front(part: PartFeatures, limits: RuleLimits) -> Finding | None:
    """Compact or flat cement in front of the anterior cortex."""
    if tubular(part, limits) is not None or front_evidence(part, limits) <= 0.5:
        return None
    kind = "flat" if part.flatness > 2.0 else "compact"
    share = part.share(Compartment.PRESACRAL)
    return Finding(rule="blob_in_front", value=share, unit="share", limit=limits.sites.front_share,
                   sentence=f"A {kind} deposit reaches {part.shape.depth_outside_mm:.1f} mm in front of the sacrum's "
                            "anterior cortex.")


def in_dorsal_canal(part: PartFeatures, limits: RuleLimits) -> Finding | None:
    """Mostly in the back half of the canal: epidural, but not the anterior epidural space."""
    return _in_space("in_dorsal_canal", part, limits, "in the back half of the sacral canal",
                     Compartment.DORSAL_CANAL)


def in_foramen(part: PartFeatures, limits: RuleLimits) -> Finding | None:
    """Mostly inside a sacral foramen."""
    return _in_space("in_foramen", part, limits, f"inside {_foramen(part)}", *FORAMINA)


def in_joint(part: PartFeatures, limits: RuleLimits) -> Finding | None:
    """Mostly between sacrum and hip."""
    return _in_space("in_joint", part, limits, "in a sacroiliac joint", Compartment.SACROILIAC_JOINT)


def in_disc(part: PartFeatures, limits: RuleLimits) -> Finding | None:
    """Mostly between L5 and the sacrum."""
    return _in_space("in_disc", part, limits, "in the L5/S1 disc", Compartment.L5_S1_DISC)


def in_soft_tissue(part: PartFeatures, limits: RuleLimits) -> Finding | None:
    """Mostly in soft tissue that is none of the named spaces, and no needle track."""
    if straight_track(part, limits) is not None:
        return None
    where = "behind" if part.share(Compartment.DORSAL_SOFT_TISSUE) >= part.share(Compartment.ELSEWHERE) else "beside"
    return _in_space("in_soft_tissue", part, limits, f"in the soft tissue {where} the sacrum", *SOFT_TISSUE)


def in_other_bone(part: PartFeatures, limits: RuleLimits) -> Finding | None:
    """Mostly in the ilium or L5, continuous with cement of the sacrum, and no needle track."""
    if straight_track(part, limits) is not None:
        return None
    where = "the ilium" if part.share(Compartment.ILIUM) >= part.share(Compartment.L5) else "L5"
    return _in_space("in_other_bone", part, limits, f"in {where}, continuous with the cement of the sacrum",
                     Compartment.ILIUM, Compartment.L5)


RULES: tuple[Rule, ...] = (
    in_canal, straight_track, tubular, blob_in_front, in_dorsal_canal, in_foramen, in_joint, in_disc, in_soft_tissue,
    in_other_bone,
)
"""In the order of precedence: canal, straight track, tube, blob in front of the cortex, then the rest."""


def findings(part: PartFeatures, limits: RuleLimits) -> tuple[Finding, ...]:
    """What every rule says of one part, in the order of precedence."""
    return tuple(found for rule in RULES if (found := rule(part, limits)) is not None)


def site_scores(part: PartFeatures, limits: RuleLimits) -> dict[Site, float]:
    """Score of each site, 0 to 1, summing to 1. A rule score, not a calibrated probability.

    In the order of precedence each site takes its evidence's share of what the sites before it left over.
    """
    scores: dict[Site, float] = {}
    left = 1.0
    for site, evidence in (
        (Site.ANTERIOR_EPIDURAL_SPACE, canal_evidence), (Site.PUNCTURE_PATH, track_evidence),
        (Site.SACRAL_VENOUS_PLEXUS, tube_evidence), (Site.ANTERIOR_SACRAL_SPACE, front_evidence),
    ):
        scores[site] = left * evidence(part, limits)
        left -= scores[site]
    scores[Site.OTHER] = left
    return {site: scores[site] for site in Site}


def canal_evidence(part: PartFeatures, limits: RuleLimits) -> float:
    """How clearly the part lies in the ventral canal, 0 to 1."""
    return min(
        _above(part.shape.canal_depth_mm, limits.sites.canal_depth_mm, softness=0.4),
        _above(part.share(Compartment.VENTRAL_CANAL), limits.leaks.canal_front_share),
    )


def track_evidence(part: PartFeatures, limits: RuleLimits) -> float:
    """How clearly the part is a needle's track, 0 to 1: by its own course, or because it lies on a track found."""
    return max(own_evidence(part, part.place.own_heard, limits), _found_evidence(part, limits))


def unheard(part: PartFeatures) -> PartFeatures:
    """The part as the scan alone shows it, without what is known of the needles from elsewhere."""
    place = part.place
    score = 0.0 if place.track_named else place.track_heard.take_back(place.track_score)
    return replace(part, place=replace(place, own_heard=NOTHING_HEARD, track_heard=NOTHING_HEARD, track_named=False,
                                       track_score=score))


def _found_evidence(part: PartFeatures, limits: RuleLimits) -> float:
    """How clearly the part lies along a needle's way that was found in the rest of the scan."""
    shape, sites, place = part.shape, limits.sites, part.place
    return min(
        _above(place.track_score, sites.track_found_score),
        _below(place.track_mm, sites.track_found_mm, softness=0.25),
        _below(place.track_deg, sites.track_found_deg, softness=0.25),
        # A drop has no direction; two thicknesses long, it begins to have one.
        _above(shape.elongation, sites.track_found_elongation),
        _below(shape.thickness_mm, sites.track_thickest_mm),
        *_not_enclosed(part),
    )


def _not_enclosed(part: PartCourse) -> tuple[float, float]:
    """A canal, a foramen or a disc holds a straight piece of anything."""
    return (_below(part.share(Compartment.VENTRAL_CANAL, Compartment.DORSAL_CANAL, *FORAMINA), 0.5),
            _below(part.share(Compartment.L5_S1_DISC), 0.5))


def own_evidence(part: PartCourse, heard: Heard, limits: RuleLimits) -> float:
    """How clearly the part's own course is a needle's, with what is known of the needles from elsewhere."""
    return heard.weigh(_alone_evidence(part, limits))


def _alone_evidence(part: PartCourse, limits: RuleLimits) -> float:
    """How clearly the part's own course is a needle's. The least convincing measure decides."""
    shape, sites = part.shape, limits.sites
    behind = part.share(*BEHIND) >= 0.5
    return min(
        # Straightness lives between 0.9 and 1: a share of its limit would say nothing.
        _above(shape.straightness, sites.track_straightness, softness=0.015),
        _above(shape.elongation, sites.track_elongation),
        _above(shape.thickness_mm, sites.track_thinnest_mm),
        _below(shape.thickness_mm, sites.track_thickest_mm),
        _above(part.outward, sites.track_outward_behind if behind else sites.track_outward),
        _below(part.aim_mm, sites.track_aim_mm, softness=0.25),
        *_not_enclosed(part),
    )


def tube_evidence(part: PartCourse, limits: RuleLimits) -> float:
    """How clearly the part is a vein on the pelvic surface, 0 to 1. Never falls when a tube gets longer."""
    shape, sites = part.shape, limits.sites
    pelvic = part.share(Compartment.PRESACRAL)
    beyond = part.share(Compartment.PRESACRAL, Compartment.ELSEWHERE)
    return min(
        _above(shape.elongation, sites.tube_elongation),
        _below(shape.thickness_mm, sites.tube_thickness_mm),
        _above(beyond if pelvic > 0.1 else pelvic, sites.tube_pelvic_share),
        _above(part.share(Compartment.PRESACRAL, Compartment.ELSEWHERE, *FORAMINA), 0.5),
    )


def front_evidence(part: PartFeatures, limits: RuleLimits) -> float:
    """How clearly the part lies in front of the anterior cortex, 0 to 1."""
    return _above(part.share(Compartment.PRESACRAL), limits.sites.front_share)


def _foramen(part: PartFeatures) -> str:
    """The foramen nearest to the part by its name, or by its side where none was found."""
    side = "left" if part.share(FORAMINA[0]) >= part.share(FORAMINA[1]) else "right"
    if side in part.place.foramen:
        return f"the {part.place.foramen}" if part.place.foramen != f"{side} foramen" else f"a {side} foramen"
    return f"a {side} foramen"


def _in_space(
    name: str, part: PartFeatures, limits: RuleLimits, where: str, *compartments: Compartment,
) -> Finding | None:
    share, limit = part.share(*compartments), limits.sites.space_share
    if share <= limit:
        return None
    return Finding(rule=name, value=share, unit="share", limit=limit,
                   sentence=f"{part.volume_ml:.2f} mL of cement lies {where}.")


def _above(value: float, limit: float, *, softness: float = SOFTNESS) -> float:
    """Logistic score: 0.5 at the limit, rising; `softness` is the share of the limit that makes one unit."""
    return 1.0 / (1.0 + exp(-max(min((value - limit) / (softness * limit), 40.0), -40.0)))


def _below(value: float, limit: float, *, softness: float = SOFTNESS) -> float:
    return _above(2.0 * limit - value, limit, softness=softness)
