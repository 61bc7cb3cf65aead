"""L5, L4, the L5/S1 disc and the coccyx from closed forms, each in a frame of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sacroleak.core.geometry import Geometry
from sacroleak.training.simulation import sdf
from sacroleak.training.simulation.pelvis_parameters import PelvisParameters, SpineParameters
from sacroleak.training.simulation.procedural_sacrum import Axis
from sacroleak.training.simulation.sdf import Field, Solid, Vector

Place = tuple[float, float, float]
Rod = tuple[Place, Place, tuple[float, float]]
"""Start and stop in a frame's mm, and the radius at both."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """A vertebra's own frame: `origin` (3,) LPS mm at the middle of its lower endplate; rows of `axes` (3, 3) are
    its left, back and up."""

    origin: Vector
    axes: Vector

    def place(self, left: float, back: float, up: float) -> Vector:
        """LPS mm of a place in this frame; (3,)."""
        return np.asarray(self.origin + np.array([left, back, up]) @ self.axes, dtype=np.float64)

    def above(self, up_mm: float, extend_deg: float, turn_deg: float = 0.0) -> Frame:
        """The frame `up_mm` higher, leaning back by `extend_deg` and turned about its own up by `turn_deg`."""
        a, b = np.deg2rad(extend_deg), np.deg2rad(turn_deg)
        lean = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        turn = np.array([[np.cos(b), np.sin(b), 0], [-np.sin(b), np.cos(b), 0], [0, 0, 1]])
        return Frame(origin=self.place(0.0, 0.0, up_mm), axes=turn @ lean @ self.axes)


def build_spine(p: PelvisParameters, geometry: Geometry) -> dict[str, Field]:
    """Fields `l5`, `l4` and `disc` on `geometry`, above an S1 endplate whose centre is the origin."""
    spine = p.spine
    angle = np.deg2rad(p.sacrum.slope_deg + p.tilt_deg)
    axes = np.array([[1, 0, 0], [0, np.cos(angle), np.sin(angle)], [0, -np.sin(angle), np.cos(angle)]])
    endplate = Frame(origin=np.zeros(3), axes=axes)
    lower = endplate.above(spine.disc_mm, spine.disc_angle_deg, spine.turn_deg)
    upper = lower.above(spine.body_height_mm, spine.body_wedge_deg).above(spine.upper_disc_mm, spine.upper_angle_deg)
    fields = {"l5": _vertebra(spine, lower, geometry), "l4": _vertebra(spine, upper, geometry)}
    fields["disc"] = sdf.empty(geometry)
    sdf.join(fields["disc"], geometry, _disc(p, endplate, lower))
    return fields


def build_coccyx(p: PelvisParameters, axis: Axis, geometry: Geometry) -> Field:
    """Three shrinking segments that carry the sacrum's bend on below a gap."""
    field = sdf.empty(geometry)
    end = int(np.searchsorted(axis.s, p.sacrum.length_mm))
    at, down = axis.points[end] + axis.down[end] * 5.0, axis.down[end]
    turn = np.deg2rad(p.coccyx_turn_deg) / 3.0
    for share, radius in ((0.4, 5.5), (0.33, 4.5), (0.27, 3.5)):
        down = np.array([0.0, np.cos(turn) * down[1] + np.sin(turn) * down[2],
                         -np.sin(turn) * down[1] + np.cos(turn) * down[2]])
        stop = at + down * share * p.coccyx_mm
        across = np.array([radius, 0.0, 0.0])
        for side in (-0.6, 0.6):
            rod = sdf.cone(at + side * across, stop + 0.6 * side * across, 0.7 * radius)
            sdf.join(field, geometry, rod, blend_mm=3.0)
        at = stop
    return field


def _body(frame: Frame, half: tuple[float, float], height_mm: float, wedge_deg: float) -> Solid:
    """A vertebral body: elliptic, waisted, its back lower than its front by `wedge_deg`; flat in the back."""
    slope = np.tan(np.deg2rad(wedge_deg))
    middle = frame.place(0.0, 0.0, height_mm / 2.0)
    reach = float(np.hypot(max(half), height_mm))

    def distance(x: Field, y: Field, z: Field) -> Field:
        u, v, w = sdf.local(x, y, z, frame.origin, frame.axes)
        share = np.clip(w / np.float32(height_mm), 0.0, 1.0)
        waist = 1.0 - np.float32(0.4) * share * (1.0 - share)
        round_ = sdf.ellipse(u, v, half[0] * waist, half[1] * waist)
        flat = sdf.smooth_max(round_, v - half[1] * np.float32(0.82) * waist, 4.0)
        upper = (w - np.float32(height_mm) + np.float32(slope) * v) * np.float32(1.0 / np.hypot(1.0, slope))
        return sdf.smooth_max(flat, np.maximum(upper, -w), 3.0)

    return Solid(low=middle - reach, high=middle + reach, distance=distance)


def _disc(p: PelvisParameters, lower: Frame, upper: Frame) -> Solid:
    """The wedge between the S1 endplate and L5's lower endplate, a little wider than either."""
    half = np.array([p.sacrum.body_half_width_mm, p.sacrum.body_half_depth_mm]) * 0.97 * p.spine.disc_bulge
    reach = float(half.max()) + p.spine.disc_mm

    def distance(x: Field, y: Field, z: Field) -> Field:
        u, v, w = sdf.local(x, y, z, lower.origin, lower.axes)
        under_l5 = sdf.local(x, y, z, upper.origin, upper.axes)[2]
        rim = sdf.smooth_max(sdf.ellipse(u, v, half[0], half[1]), v - np.float32(0.85 * half[1]), 4.0)
        return sdf.smooth_max(rim, np.maximum(-w, under_l5), 2.0)

    return Solid(low=lower.origin - reach, high=lower.origin + reach, distance=distance)


def _vertebra(p: SpineParameters, frame: Frame, geometry: Geometry) -> Field:
    """Body, pedicles, arch, transverse, spinous and articular processes, with the vertebral canal cut out."""
    field = sdf.empty(geometry)
    height, back = p.body_height_mm, 0.82 * p.body_half_depth_mm
    sdf.join(field, geometry, _body(frame, (p.body_half_width_mm, p.body_half_depth_mm), height, p.body_wedge_deg))
    for rod in (*_side_processes(p, 1.0, back), *_side_processes(p, -1.0, back), *_spinous_process(p, back)):
        solid = sdf.cone(frame.place(*rod[0]), frame.place(*rod[1]), *rod[2])
        sdf.join(field, geometry, solid, blend_mm=3.0)
    for left, behind, radius in ((0.0, 9.0, 8.0), (-6.5, 6.5, 5.0), (6.5, 6.5, 5.0)):
        low, high = (frame.place(left, back + behind, up) for up in (-8.0, height + 10.0))
        sdf.cut(field, geometry, sdf.cone(low, high, radius), blend_mm=1.5)
    return field


def _side_processes(p: SpineParameters, side: float, back: float) -> tuple[Rod, ...]:
    """Pedicle, transverse process, articular processes and lamina of one side."""
    h = p.body_height_mm
    pillar = (side * 19.0, back + 12.0, 0.6 * h)
    return (
        ((side * 16.0, back - 5.0, 0.66 * h), pillar, (8.0, 7.5)),
        ((side * 16.0, back - 5.0, 0.5 * h), pillar, (7.0, 7.0)),
        (pillar, (side * p.transverse_mm, back + 7.0, 0.72 * h), (8.0, 4.5)),
        (pillar, (side * 20.0, back + 13.0, h + 8.0), (7.5, 6.0)),
        (pillar, (side * 14.5, back + 20.0, -6.0), (7.0, 6.0)),
        (pillar, (0.0, back + 22.0, 0.42 * h), (5.5, 5.0)),
        ((side * 15.0, back + 19.0, 0.1 * h), (0.0, back + 22.0, 0.22 * h), (5.5, 5.0)),
    )


def _spinous_process(p: SpineParameters, back: float) -> tuple[Rod, ...]:
    """The blade in the midline: two rods, one above the other."""
    h = p.body_height_mm
    return tuple(((0.0, back + 20.0, 0.38 * h + rise), (0.0, back + 20.0 + p.spinous_mm, 0.2 * h + rise), (3.8, 4.5))
                 for rise in (-5.0, 4.0))
