"""What a procedural pelvis is drawn from: sizes in mm, angles in degrees, LPS, origin at the S1 endplate's centre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class SacrumParameters:
    """The sacrum, its canal and foramina.

    Centres of the ranges: width 100-115 and length 100-115 mm, S1 endplate about 50 x 32 mm, canal about 31 x 15 mm at
    its mouth, four foramina a side (Gray's Anatomy; Esses et al., Spine 1991; Xu et al., Spine 1995); sacral slope
    41 +- 8 degrees (Vialle et al., J Bone Joint Surg Am 2005); course of the axis and of the lateral margin measured
    on the 30 patients of Han et al. (10.1088/1361-6560/ab1456). The spread is wider than theirs on purpose.
    """

    length_mm: float
    half_width_left_mm: float
    half_width_right_mm: float
    slope_deg: float
    wedge_deg: float
    kyphosis_deg: float
    bend_at: float
    lean_mm: float
    body_half_width_mm: float
    body_half_depth_mm: float
    hollow: float
    mass_depth: float
    top_left_mm: float
    top_right_mm: float
    canal_half_width_mm: float
    canal_half_depth_mm: float
    lamina_mm: float
    crest_mm: float
    hiatus: float
    facet_mm: float
    foramina_left_mm: tuple[float, float, float, float]
    foramina_right_mm: tuple[float, float, float, float]
    dorsal_foramina_mm: tuple[float, float, float, float]
    foramen_shift_mm: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpineParameters:
    """L5, L4 and the discs (Panjabi et al., Spine 1992, for the vertebrae; Vialle et al. 2005 for the angles)."""

    disc_mm: float
    disc_angle_deg: float
    disc_bulge: float
    upper_disc_mm: float
    upper_angle_deg: float
    body_height_mm: float
    body_half_width_mm: float
    body_half_depth_mm: float
    body_wedge_deg: float
    transverse_mm: float
    spinous_mm: float
    turn_deg: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HipParameters:
    """Both hip bones and femora: factors on the mean shape of Han et al.'s 30 patients, thickness and joint widths."""

    wide: float
    deep: float
    tall: float
    flare_mm: float
    thickness: float
    left_shift_mm: tuple[float, float, float]
    joint_left_mm: float
    joint_right_mm: float
    symphysis_mm: float
    head_mm: float
    femur_turn_deg: float
    femur_spread_deg: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PelvisParameters:
    """One whole pelvis; `tilt_deg` turns all of it about the left-right axis."""

    tilt_deg: float
    sacrum: SacrumParameters
    spine: SpineParameters
    hips: HipParameters
    coccyx_mm: float
    coccyx_turn_deg: float


def draw_pelvis(rng: np.random.Generator) -> PelvisParameters:
    """Draw one pelvis. The same generator state gives the same pelvis."""
    sacrum = draw_sacrum(rng)
    return PelvisParameters(
        tilt_deg=float(rng.normal(0.0, 6.0)), sacrum=sacrum, spine=draw_spine(rng, sacrum), hips=draw_hips(rng),
        coccyx_mm=float(rng.uniform(22.0, 38.0)), coccyx_turn_deg=float(rng.uniform(0.0, 50.0)),
    )


def draw_sacrum(rng: np.random.Generator) -> SacrumParameters:
    """Draw one sacrum; left and right differ by a few mm."""
    half_width = float(rng.uniform(51.0, 64.0))
    size = half_width / 56.0
    uneven = float(np.clip(rng.normal(0.0, 1.5), -4.0, 4.0))
    return SacrumParameters(
        length_mm=_around(rng, 113.0 * size**0.5, 7.0), half_width_left_mm=half_width + uneven,
        half_width_right_mm=half_width - uneven, slope_deg=_around(rng, 42.0, 7.0), wedge_deg=rng.uniform(10.0, 18.0),
        kyphosis_deg=rng.uniform(40.0, 80.0), bend_at=rng.uniform(0.66, 0.8), lean_mm=_around(rng, 0.0, 2.0),
        body_half_width_mm=_around(rng, 25.0 * size, 1.5), body_half_depth_mm=_around(rng, 15.8 * size, 1.0),
        hollow=rng.uniform(0.6, 1.3), mass_depth=rng.uniform(0.85, 1.15), top_left_mm=_around(rng, 0.0, 2.0),
        top_right_mm=_around(rng, 0.0, 2.0), canal_half_width_mm=_around(rng, 14.5, 1.3),
        canal_half_depth_mm=_around(rng, 7.6, 0.8), lamina_mm=rng.uniform(4.0, 6.5), crest_mm=rng.uniform(5.0, 13.0),
        hiatus=rng.uniform(0.72, 0.86), facet_mm=_around(rng, 7.0, 0.6),
        foramina_left_mm=_four(rng, (6.3, 5.5, 4.5, 3.7), 0.5), foramina_right_mm=_four(rng, (6.3, 5.5, 4.5, 3.7), 0.5),
        dorsal_foramina_mm=_four(rng, (3.2, 3.2, 2.9, 2.6), 0.3), foramen_shift_mm=_four(rng, (0, 0, 0, 0), 0.7),
    )


def draw_spine(rng: np.random.Generator, sacrum: SacrumParameters) -> SpineParameters:
    """Draw L5, L4 and the discs to go with a sacrum."""
    disc_mm = float(rng.uniform(6.0, 13.0))
    # The wedge stays open behind: at least 3 mm are left at the disc's back edge.
    widest_deg = float(np.rad2deg(np.arctan((disc_mm - 3.0) / sacrum.body_half_depth_mm)))
    return SpineParameters(
        disc_mm=disc_mm, disc_angle_deg=min(rng.uniform(6.0, 18.0), widest_deg), disc_bulge=rng.uniform(1.0, 1.08),
        upper_disc_mm=rng.uniform(8.0, 14.0), upper_angle_deg=rng.uniform(4.0, 12.0),
        body_height_mm=_around(rng, 27.0, 1.5), body_half_width_mm=sacrum.body_half_width_mm * rng.uniform(0.95, 1.05),
        body_half_depth_mm=sacrum.body_half_depth_mm * rng.uniform(1.0, 1.12), body_wedge_deg=rng.uniform(4.0, 12.0),
        transverse_mm=_around(rng, 45.0, 3.5), spinous_mm=rng.uniform(20.0, 30.0), turn_deg=_around(rng, 0.0, 2.0),
    )


def draw_hips(rng: np.random.Generator) -> HipParameters:
    """Draw both hip bones and femora."""
    return HipParameters(
        wide=rng.uniform(0.94, 1.06), deep=rng.uniform(0.92, 1.08), tall=rng.uniform(0.92, 1.06),
        flare_mm=_around(rng, 0.0, 5.0), thickness=rng.uniform(0.92, 1.25),
        left_shift_mm=tuple(rng.normal(0.0, 1.0, 3).tolist()), joint_left_mm=rng.uniform(2.0, 4.0),
        joint_right_mm=rng.uniform(2.0, 4.0), symphysis_mm=rng.uniform(3.0, 6.0), head_mm=rng.uniform(21.0, 25.5),
        femur_turn_deg=rng.uniform(-15.0, 30.0), femur_spread_deg=rng.uniform(-4.0, 14.0),
    )


def _around(rng: np.random.Generator, mean: float, deviation: float) -> float:
    """A normal draw, kept within two deviations so that no bone becomes impossible."""
    return mean + deviation * float(np.clip(rng.standard_normal(), -2.0, 2.0))


def _four(rng: np.random.Generator, means: tuple[float, ...], deviation: float) -> tuple[float, float, float, float]:
    a, b, c, d = (_around(rng, mean, deviation) for mean in means)
    return a, b, c, d
