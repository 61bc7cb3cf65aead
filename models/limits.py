"""Every threshold of the rules, read from `configs/rules.yaml`, where each stands with its unit and reason."""

from __future__ import annotations

from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict, PositiveFloat, ValidationError

from sacroleak.core.errors import ConfigError


class _Limits(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CompartmentLimits(_Limits):
    """Where one space ends and the next begins."""

    presacral_reach_mm: PositiveFloat
    shadow_mm: PositiveFloat
    brim_facing: PositiveFloat
    foramen_closing_mm: PositiveFloat
    foramen_ray_mm: PositiveFloat
    joint_gap_mm: PositiveFloat
    joint_side_mm: PositiveFloat
    disc_height_mm: PositiveFloat
    disc_half_width_mm: PositiveFloat
    disc_opposed: PositiveFloat
    canal_gap_mm: PositiveFloat
    canal_above_mm: PositiveFloat
    canal_radius_mm: PositiveFloat


class LeakLimits(_Limits):
    """When cement outside the bone is a leak, and how one leak is divided."""

    depth_mm: PositiveFloat
    thick_voxel_share: PositiveFloat
    volume_ml: PositiveFloat
    tiny_depth_mm: PositiveFloat
    tiny_ml: PositiveFloat
    foot_mm: PositiveFloat
    surface_depth_mm: PositiveFloat
    narrow_depth_mm: PositiveFloat
    beneath_mm: PositiveFloat
    surface_ml: PositiveFloat
    part_ml: PositiveFloat
    lesser_share: PositiveFloat
    vein_gap_mm: PositiveFloat
    canal_minor_share: PositiveFloat
    canal_front_share: PositiveFloat
    canal_back_ml: PositiveFloat
    reach_mm: PositiveFloat
    foreign_bone_share: PositiveFloat
    foreign_sacrum_share: PositiveFloat
    foreign_l5_ml: PositiveFloat
    source_ml: PositiveFloat
    source_gap_mm: PositiveFloat
    source_coverage: PositiveFloat
    lone_mm: PositiveFloat
    twin_ml: PositiveFloat
    twin_certainty: PositiveFloat


class SiteLimits(_Limits):
    """What tells the five sites apart."""

    canal_depth_mm: PositiveFloat
    track_straightness: PositiveFloat
    track_elongation: PositiveFloat
    track_thinnest_mm: PositiveFloat
    track_thickest_mm: PositiveFloat
    track_outward: PositiveFloat
    track_outward_behind: PositiveFloat
    track_aim_mm: PositiveFloat
    track_found_score: PositiveFloat
    track_found_mm: PositiveFloat
    track_found_deg: PositiveFloat
    track_found_elongation: PositiveFloat
    tube_elongation: PositiveFloat
    tube_thickness_mm: PositiveFloat
    tube_pelvic_share: PositiveFloat
    front_share: PositiveFloat
    space_share: PositiveFloat


class TrackLimits(_Limits):
    """What makes a straight way through the scan a needle's."""

    column_straightness: PositiveFloat
    column_thickness_mm: PositiveFloat
    column_length_mm: PositiveFloat
    column_aim_mm: PositiveFloat
    column_outward: PositiveFloat
    hole_contrast_hu: PositiveFloat
    hole_length_mm: PositiveFloat
    hole_reach_mm: PositiveFloat

    def is_column(self, *, straightness: float, thickness_mm: float, length_mm: float) -> bool:
        """Whether a part is as straight, thin and long as cement that a needle left behind."""
        return (straightness >= self.column_straightness and thickness_mm <= self.column_thickness_mm
                and length_mm >= self.column_length_mm)


class NeedleLimits(_Limits):
    """How far the manifest's word on the needles moves the odds that a way is a needle's."""

    approach_odds: PositiveFloat
    against_odds: PositiveFloat
    posterior_from_deg: PositiveFloat
    posterior_to_deg: PositiveFloat
    anterior_from_deg: PositiveFloat
    anterior_to_deg: PositiveFloat
    bearing_blur_deg: PositiveFloat
    entry_reach_mm: PositiveFloat
    entry_odds: PositiveFloat
    entry_near_mm: PositiveFloat
    entry_near_deg: PositiveFloat
    entry_base_mm: PositiveFloat
    entry_lump_mm: PositiveFloat
    entry_cement_mm: PositiveFloat
    entry_trust: PositiveFloat


class ReviewLimits(_Limits):
    """When a person has to look."""

    close_call: PositiveFloat
    near_noise_mm: PositiveFloat
    small_ml: PositiveFloat
    few_voxels: PositiveFloat
    apart_mm: PositiveFloat
    coverage: PositiveFloat
    edge_mm: PositiveFloat
    certainty: PositiveFloat


class RuleLimits(_Limits):
    """All limits of the way from labels to leaks. Unknown keys fail; none has a default in code."""

    midline_mm: PositiveFloat
    compartments: CompartmentLimits
    leaks: LeakLimits
    tracks: TrackLimits
    needles: NeedleLimits
    sites: SiteLimits
    review: ReviewLimits


def limits_from_yaml(text: str) -> RuleLimits:
    """Limits from the text of a rules file. Raises ConfigError naming every key that is missing, unknown or wrong."""
    try:
        return RuleLimits.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"rules: not valid YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"rules: {faults}") from error


def shipped_limits() -> RuleLimits:
    """The limits that come with this version, `configs/rules.yaml`."""
    return limits_from_yaml(files("sacroleak.configs").joinpath("rules.yaml").read_text(encoding="utf-8"))
