"""The measures of a part as numbers in a fixed order, for a classifier; a name ends in its unit where it has one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from sacroleak.core.structures import Compartment
from sacroleak.models.features import PartFeatures

FARTHEST_MM = 100.0
"""Distances are cut here: beyond the region that is examined they all mean "far, or not seen"."""

_Measure = Callable[[PartFeatures], float]


def _capped(measure: _Measure) -> _Measure:
    return lambda part: min(measure(part), FARTHEST_MM)


def _log(measure: _Measure) -> _Measure:
    """Decadic logarithm, from 1e-4 on: volumes span four decades."""
    return lambda part: float(np.log10(max(measure(part), 1e-4)))


def _share(*compartments: Compartment) -> _Measure:
    return lambda part: part.share(*compartments)


_MEASURES: Mapping[str, _Measure] = {
    # Size and shape. `log10` of mL; lengths in mm; ratios without unit.
    "volume_log10_ml": _log(lambda p: p.volume_ml),
    "length_mm": lambda p: p.shape.length_mm,
    "thickness_mm": lambda p: p.shape.thickness_mm,
    "elongation": lambda p: p.shape.elongation,
    "straightness": lambda p: p.shape.straightness,
    "flatness": lambda p: p.flatness,
    "thin_mm": lambda p: p.profile.thin_mm,
    "thick_mm": lambda p: p.profile.thick_mm,
    "taper": lambda p: p.profile.taper,
    "winding_deg_per_cm": lambda p: p.profile.winding_deg_per_cm,
    "branch_points": lambda p: float(p.profile.branch_points),
    "ends": lambda p: float(p.profile.ends),
    # Where it lies: shares of its volume, 0 to 1 (left and right together, so that a mirrored patient is the same).
    "ventral_canal_share": _share(Compartment.VENTRAL_CANAL),
    "dorsal_canal_share": _share(Compartment.DORSAL_CANAL),
    "foramina_share": _share(Compartment.FORAMINA_LEFT, Compartment.FORAMINA_RIGHT),
    "presacral_share": _share(Compartment.PRESACRAL),
    "dorsal_soft_tissue_share": _share(Compartment.DORSAL_SOFT_TISSUE),
    "sacroiliac_joint_share": _share(Compartment.SACROILIAC_JOINT),
    "ilium_share": _share(Compartment.ILIUM),
    "disc_share": _share(Compartment.L5_S1_DISC),
    "l5_share": _share(Compartment.L5),
    "elsewhere_share": _share(Compartment.ELSEWHERE),
    "rim_share": lambda p: p.rim_share,
    # Distances, mm, at most FARTHEST_MM.
    "depth_outside_mm": _capped(lambda p: p.shape.depth_outside_mm),
    "excess_mm": _capped(lambda p: p.excess_mm),
    "canal_depth_mm": lambda p: p.shape.canal_depth_mm,
    "cortex_mm": _capped(lambda p: p.shape.distance_to_cortex_mm),
    "apart_mm": _capped(lambda p: p.apart_mm),
    "canal_mm": _capped(lambda p: p.place.canal_mm),
    "foramen_mm": _capped(lambda p: p.place.foramen_mm),
    "anterior_cortex_mm": _capped(lambda p: p.place.anterior_mm),
    "skin_mm": _capped(lambda p: p.place.skin_mm),
    "beside_midline_mm": lambda p: abs(p.left_mm),
    # Bone around it: shares, and mm to that of the other side and to a surface that is sure.
    "bone_near_share": lambda p: p.around.near_share,
    "bone_wide_share": lambda p: p.around.wide_share,
    "bone_more_share": lambda p: p.around.more_share,
    "other_bone_mm": lambda p: p.around.other_mm,
    "seen_bone_mm": _capped(lambda p: p.around.seen_mm),
    # Course and the needle's: ratio, mm, mm, degrees (0 to 90), score (0 to 1).
    "outward": lambda p: p.outward,
    "aim_mm": _capped(lambda p: p.aim_mm),
    "track_mm": _capped(lambda p: p.place.track_mm),
    "track_deg": lambda p: p.place.track_deg,
    "track_score": lambda p: p.place.track_score,
    # Company: mm², a count, a share.
    "contact_mm2": lambda p: p.place.contact_mm2,
    "neighbours": lambda p: float(p.place.neighbours),
    "mirrored_share": lambda p: p.place.mirrored_share,
    # Density: HU, HU, ratio to the cement in the bone. Certainty of the networks: 0 to 1, 1 where it is not told.
    "mean_hu": lambda p: p.density.mean_hu,
    "highest_hu": lambda p: p.density.highest_hu,
    "relative_density": lambda p: p.density.relative,
    "certainty_mean": lambda p: p.certainty.mean,
    "certainty_highest": lambda p: p.certainty.highest,
    "certainty_sure_share": lambda p: p.certainty.sure_share,
    # The scan: `log10` of mL, mm, share of the sacrum's length.
    "intraosseous_log10_ml": _log(lambda p: p.scan.intraosseous_ml),
    "voxel_log10_ml": _log(lambda p: p.scan.voxel_ml),
    "voxel_mm": lambda p: p.scan.voxel_mm,
    "coverage": lambda p: p.scan.coverage,
}

FEATURE_NAMES: tuple[str, ...] = tuple(_MEASURES)
"""Names of the numbers of `feature_vector`, in their order."""


def feature_vector(features: PartFeatures) -> npt.NDArray[np.float64]:
    """The measures of one part in the order of FEATURE_NAMES; (n_features,), all finite.

    Nothing in it tells left from right, so a mirrored patient has the same vector.
    """
    return np.array([measure(features) for measure in _MEASURES.values()], dtype=np.float64)
