"""A sacrum from closed forms: fused bodies and lateral masses round a bent axis, with canal and foramina cut out.

Along the axis, `s` counts mm downward from the S1 endplate, `v` mm backward from the axis (square to it, in the
midplane), `u` mm to the left of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Geometry, Points
from sacroleak.training.simulation import sdf
from sacroleak.training.simulation.pelvis_parameters import SacrumParameters
from sacroleak.training.simulation.sdf import Field, Vector

FORAMEN_AT = (0.27, 0.47, 0.65, 0.81)
"""Levels of the S1-S4 foramina as shares of the sacrum's length (between the bodies, heights 30:25:20:18:16 mm)."""

FORAMEN_U_MM = (22.0, 19.5, 17.5, 15.5)
"""Distance of the anterior foramina's centres from the midline at S1-S4 (Esses et al., Spine 1991: 30 mm between
the inner borders at S1, less below)."""

REACH_MM = 20.0
"""How far beyond both ends the axis is carried on, straight."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Axis:
    """The bent axis in the midplane: `s` (n,) mm from the endplate, `points` (n, 3), unit `down` and `back` (n, 3)."""

    s: Vector
    points: Points
    down: Points
    back: Points

    def place(self, s: npt.ArrayLike, u: npt.ArrayLike, v: npt.ArrayLike) -> Points:
        """LPS mm of axis coordinates; (..., 3)."""
        s, u, v = (np.asarray(c) for c in np.broadcast_arrays(s, u, v))
        at = [np.stack([np.interp(s, self.s, part[:, i]) for i in range(3)], axis=-1)
              for part in (self.points, self.back)]
        return np.asarray(at[0] + v[..., None] * at[1] + u[..., None] * np.array([1.0, 0.0, 0.0]))

    def unbend(self, x: Field, y: Field, z: Field) -> tuple[Field, Field, Field]:
        """Axis coordinates (s, u, v) of a block's voxels from its open coordinate arrays."""
        plane = np.stack(np.broadcast_arrays(y[0], z[0]), axis=-1).reshape(-1, 2).astype(np.float64)
        nearest = ((plane[:, None] - self.points[None, :, 1:]) ** 2).sum(-1).argmin(axis=1)
        offset = plane - self.points[nearest, 1:]
        s = self.s[nearest] + (offset * self.down[nearest, 1:]).sum(-1)
        v = (offset * self.back[nearest, 1:]).sum(-1)
        middle = np.interp(s, self.s, self.points[:, 0])
        shape = (1, y.shape[1], z.shape[2])
        s3, v3, m3 = (part.reshape(shape).astype(np.float32) for part in (s, v, middle))
        return s3, x - m3, v3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sacrum:
    """A built sacrum: bone and canal fields, the solid before holes were cut, and landmarks in LPS mm."""

    bone: Field
    canal: Field
    solid: Field
    axis: Axis
    landmarks: dict[str, Points]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """Cross-section by `s`: every entry is an (n,) array over `s`, mm."""

    s: Vector
    body_width: Vector
    body_depth: Vector
    canal_centre: Vector
    canal_width: Vector
    canal_depth: Vector
    mass_front: Vector
    mass_edge: Vector
    mass_back: Vector
    side: Vector
    lamina: Vector

    def at(self, name: str, s: Field) -> Field:
        """One entry at places `s`, same shape, float32."""
        values: Vector = getattr(self, name)
        return np.interp(s, self.s, values).astype(np.float32)


def bent_axis(p: SacrumParameters, tilt_deg: float) -> Axis:
    """The axis: leaves the endplate `wedge_deg` steeper than its normal and bends forward by `kyphosis_deg` in all."""
    s = np.arange(-REACH_MM, p.length_mm + REACH_MM + 0.5, 0.5)
    share = np.clip(s / p.length_mm, 0.0, 1.0)
    bend = np.clip((share - p.bend_at + 0.3) / 0.6, 0.0, 1.0)
    turn = 0.1 * share + 0.9 * bend * bend * (3.0 - 2.0 * bend)
    angle = np.deg2rad(p.slope_deg + tilt_deg + p.wedge_deg - p.kyphosis_deg * turn)
    zero = np.zeros_like(s)
    down = np.stack([zero, np.sin(angle), -np.cos(angle)], axis=-1)
    back = np.stack([zero, np.cos(angle), np.sin(angle)], axis=-1)
    points = np.cumsum(down, axis=0) * 0.5
    points -= points[np.searchsorted(s, 0.0)]
    points[:, 0] = p.lean_mm * share**2
    return Axis(s=s, points=points, down=down, back=back)


KNOTS: dict[str, tuple[tuple[float, float], ...]] = {
    "body_depth": ((0, 1), (0.17, 0.8), (0.35, 0.66), (0.55, 0.5), (0.67, 0.43), (1, 0.27)),
    "body_width": ((0, 1), (0.12, 0.82), (0.27, 0.66), (0.5, 0.58), (0.7, 0.52), (1, 0.36)),
    "canal_depth": ((0, 1), (0.2, 0.85), (0.5, 0.5), (0.7, 0.34), (1, 0.26)),
    "canal_width": ((0, 1), (0.2, 0.88), (0.5, 0.62), (0.7, 0.42), (1, 0.3)),
    "mass_front": ((0, 2), (0.1, -2), (0.25, -5), (0.5, -3), (1, -2)),
    "mass_edge": ((0, 10), (0.1, 0), (0.18, -12), (0.3, -21), (0.4, -22), (0.5, -16), (0.62, -8), (1, -3)),
    "mass_back": ((0, 19), (0.15, 20), (0.3, 18), (0.4, 18), (0.52, 16), (0.67, 11), (0.85, 8), (1, 5)),
    "side": ((0, 1), (0.18, 1), (0.32, 0.95), (0.46, 0.86), (0.6, 0.77), (0.72, 0.68), (0.84, 0.54), (0.93, 0.4),
             (1, 0.21)),
    "lamina": ((0, 1), (0.5, 0.85), (1, 0.6)),
}
"""The cross-section down the axis: (share of the length, value), values are factors on the drawn size, or mm from
the axis for the lateral mass's front (`mass_front` inside, `mass_edge` at the joint) and back. Measured on Han et
al.'s patients for S1-S3 and carried on to S5 by the taper of the Visible Human's sacrum."""


def profile(p: SacrumParameters) -> Profile:
    """The cross-section along the axis of one drawn sacrum."""
    s = np.linspace(-REACH_MM, p.length_mm + REACH_MM, 300)
    share = s / p.length_mm
    runs = {name: np.interp(share, [k[0] for k in knots], [k[1] for k in knots]) for name, knots in KNOTS.items()}
    # A slight swelling at each end of a body marks where the sacral discs have fused.
    ripple = 1.0 + 0.05 * np.cos(2.0 * np.pi * 5.0 * np.clip(share, 0.0, 1.0) ** 0.9)
    body_depth, depth = p.body_half_depth_mm * runs["body_depth"], p.canal_half_depth_mm * runs["canal_depth"]
    return Profile(
        s=s, body_width=p.body_half_width_mm * runs["body_width"] * ripple, body_depth=body_depth * ripple,
        canal_centre=body_depth + depth + 0.5, canal_depth=depth,
        canal_width=p.canal_half_width_mm * runs["canal_width"], mass_front=runs["mass_front"],
        mass_edge=runs["mass_edge"], mass_back=p.mass_depth * runs["mass_back"], side=runs["side"],
        lamina=p.lamina_mm * runs["lamina"],
    )


def build_sacrum(p: SacrumParameters, tilt_deg: float, geometry: Geometry) -> Sacrum:
    """Sacrum and canal on `geometry`; the S1 endplate's centre is the origin."""
    axis, shape = bent_axis(p, tilt_deg), profile(p)
    bone, canal, solid = (sdf.empty(geometry) for _ in range(3))
    reach = max(p.half_width_left_mm, p.half_width_right_mm) + 6.0
    corners = axis.place([-6.0, -6.0, p.length_mm, p.length_mm, 40.0, 40.0], [reach, -reach, 0, 0, 0, 0],
                         [-22.0, 40.0, -12.0, 20.0, -25.0, 45.0])
    block = sdf.block_of(geometry, corners.min(axis=0), corners.max(axis=0), sdf.MARGIN_MM + 8.0)
    x, y, z = sdf.coordinates(geometry, block)
    s, u, v = axis.unbend(x, y, z)
    top = _endplate(p, tilt_deg, y, z)
    solid[block] = _bodies_and_masses(p, shape, (s, u, v), top, _ala_top(p, tilt_deg, x, y, z))
    bone[block] = sdf.smooth_min(solid[block], _arch(p, shape, s, u, v), 5.0)
    _processes(p, axis, shape, bone, geometry)
    bone[block] = sdf.to_unit_slope(bone[block], float(geometry.spacing_mm[0]))
    openings = _foramina(p, axis, shape, bone, geometry)
    canal[block] = sdf.to_unit_slope(_canal(p, shape, (s, u, v), top), float(geometry.spacing_mm[0]))
    bone[block] = np.maximum(bone[block], -canal[block])
    landmarks = _landmarks(p, axis, shape, tilt_deg, openings)
    return Sacrum(bone=bone, canal=canal, solid=solid, axis=axis, landmarks=landmarks)


def _endplate(p: SacrumParameters, tilt_deg: float, y: Field, z: Field) -> Field:
    """Height above the S1 endplate's plane."""
    angle = np.deg2rad(p.slope_deg + tilt_deg)
    return np.asarray(-np.float32(np.sin(angle)) * y + np.float32(np.cos(angle)) * z, dtype=np.float32)


def _ala_top(p: SacrumParameters, tilt_deg: float, x: Field, y: Field, z: Field) -> Field:
    """Height above the alae's upper faces, which fall away less steeply than the endplate; left and right differ."""
    angle = np.deg2rad(p.slope_deg + tilt_deg - 38.0)
    offset = np.where(x > 0, p.top_left_mm, p.top_right_mm).astype(np.float32)
    saddle = 2.0 * np.cos(np.clip(np.abs(x) / 50.0, 0.0, 1.0) * 2.0 * np.pi).astype(np.float32)
    return np.asarray(-np.float32(np.sin(angle)) * y + np.float32(np.cos(angle)) * z - 12.0 - offset - saddle,
                      dtype=np.float32)


def _bodies_and_masses(
    p: SacrumParameters, shape: Profile, suv: tuple[Field, Field, Field], top: Field, ala_top: Field
) -> Field:
    s, u, v = suv
    bottom = s - np.float32(p.length_mm)
    body = sdf.ellipse(u, v, shape.at("body_width", s), shape.at("body_depth", s))
    body = sdf.smooth_max(sdf.smooth_max(body, top, 3.0), bottom, 4.0)
    half = np.where(u > 0, p.half_width_left_mm, p.half_width_right_mm).astype(np.float32)
    side = np.abs(u) - half * shape.at("side", s) + 0.12 * (v + 5.0)
    inner, edge = shape.at("mass_front", s), shape.at("mass_edge", s)
    lateral = np.clip((np.abs(u) / (half * shape.at("side", s)) - 0.35) / 0.65, 0.0, 1.2).astype(np.float32)
    front = inner + np.float32(p.hollow) * (edge - inner) * lateral * (0.4 + 0.6 * lateral) - v
    # The lateral masses thin toward the joint's back edge, where the interosseous ligaments attach.
    back = v - shape.at("mass_back", s) + 8.0 * lateral * lateral
    mass = sdf.smooth_max(sdf.smooth_max(side, front, 6.0), back, 6.0)
    mass = sdf.smooth_max(sdf.smooth_max(mass, np.maximum(ala_top, top - 3.0), 5.0), bottom, 6.0)
    return sdf.smooth_min(body, mass, 8.0)


def _canal(p: SacrumParameters, shape: Profile, suv: tuple[Field, Field, Field], top: Field) -> Field:
    """The canal, a triangle with round corners, wide in front, from the endplate's level to the open hiatus."""
    s, u, v = suv
    depth = v - shape.at("canal_centre", s)
    half = shape.at("canal_depth", s)
    narrowing = np.clip(1.0 - 0.3 * depth / half, 0.6, 1.3)
    tube = sdf.ellipse(u / narrowing, depth, shape.at("canal_width", s), half)
    end = s - np.float32(p.length_mm * min(p.hiatus + 0.08, 0.94))
    return sdf.smooth_max(np.maximum(tube, top), end, 2.0)


def _arch(p: SacrumParameters, shape: Profile, s: Field, u: Field, v: Field) -> Field:
    """Laminae: a shell round the canal from below the L5/S1 gap to the hiatus, and the filling beside it."""
    depth = v - shape.at("canal_centre", s)
    lamina, half = shape.at("lamina", s), shape.at("canal_depth", s)
    shell = sdf.ellipse(u, depth, shape.at("canal_width", s) + 1.3 * lamina, half + lamina)
    upper = np.asarray(np.float32(0.1 * p.length_mm) - s - 0.35 * np.abs(u), dtype=np.float32)
    lower = np.asarray(s - np.float32(p.hiatus * p.length_mm) - 0.5 * np.abs(u), dtype=np.float32)
    return sdf.smooth_max(sdf.smooth_max(shell, upper, 3.0), lower, 3.0)


def _processes(p: SacrumParameters, axis: Axis, shape: Profile, bone: Field, geometry: Geometry) -> None:
    """Superior articular processes, median crest, and the lateral tubercles, onto the bone in place."""
    dorsal = shape.canal_centre + shape.canal_depth + shape.lamina
    for side in (-1.0, 1.0):
        low = 0.1 * p.length_mm
        root = axis.place(low, side * 22.0, np.interp(low, shape.s, shape.canal_centre) + 2.0)
        tip = axis.place(2.0, side * 22.5, np.interp(0.0, shape.s, shape.canal_centre) + 8.0)
        sdf.join(bone, geometry, sdf.cone(root, tip, p.facet_mm + 1.0, p.facet_mm - 1.0), blend_mm=4.0)
        for share in (0.3, 0.45, 0.6):
            at = axis.place(share * p.length_mm, side * np.interp(share, [0.3, 0.6], [31.0, 23.0]),
                            np.interp(share * p.length_mm, shape.s, shape.mass_back) - 4.0)
            along = 5.0 * axis.down[np.searchsorted(axis.s, share * p.length_mm)]
            sdf.join(bone, geometry, sdf.cone(at - along, at + along, 5.5), blend_mm=8.0)
    for share, height in ((0.2, 1.0), (0.38, 1.0), (0.54, 0.8), (0.66, 0.5)):
        where = share * p.length_mm
        base, below = (float(np.interp(w, shape.s, dorsal)) for w in (where, where + 0.16 * p.length_mm))
        foot, tip, ridge = axis.place([where - 3.0, where + 3.0, where + 0.16 * p.length_mm], 0.0,
                                      [base - 2.0, base + height * p.crest_mm - 4.0, below])
        sdf.join(bone, geometry, sdf.cone(foot, tip, 5.0, 3.5), blend_mm=6.0)
        sdf.join(bone, geometry, sdf.cone(tip, ridge, 3.5, 3.0), blend_mm=6.0)


def _foramina(p: SacrumParameters, axis: Axis, shape: Profile, bone: Field, geometry: Geometry) -> dict[str, Points]:
    """Cut the foramina; returns where they open on the pelvic surface, S1 to S4 from above, by side."""
    openings: dict[str, Points] = {}
    for name, side, radii in (("left", 1.0, p.foramina_left_mm), ("right", -1.0, p.foramina_right_mm)):
        mouths = []
        for level in range(4):
            where = FORAMEN_AT[level] * p.length_mm + p.foramen_shift_mm[level] * side
            way = _foramen_way(axis, shape, where, side * FORAMEN_U_MM[level], radii[level])
            for solid in _foramen_solids(way, radii[level], p.dorsal_foramina_mm[level]):
                sdf.cut(bone, geometry, solid, blend_mm=1.5)
            mouths.append(way[2])
        openings[name] = np.array(mouths)
    return openings


def _foramen_way(axis: Axis, shape: Profile, where: float, u: float, radius: float) -> Points:
    """A foramen's course, (5, 3) LPS mm: canal, bend, pelvic mouth, groove beyond it, dorsal mouth."""
    centre, width = (float(np.interp(where, shape.s, part)) for part in (shape.canal_centre, shape.canal_width))
    back = float(np.interp(where, shape.s, shape.mass_back + shape.lamina))
    front = float(np.interp(where, shape.s, shape.mass_front))
    side = np.sign(u)
    return axis.place(
        [where - 3.0, where, where + 2.0, where + 4.0, where + 1.0],
        [side * width * 0.6, side * max(abs(u) - 4.0, width), u, u + side * 12.0, 0.85 * u],
        [centre, centre - 1.0, front - 0.5 * radius, front - 1.3 * radius, max(back, centre) + 12.0],
    )


def _foramen_solids(way: Points, radius: float, dorsal_mm: float) -> tuple[sdf.Solid, ...]:
    """The channel from the canal to the pelvic surface, its groove to the side, and the narrow way out behind."""
    canal, bend, mouth, groove, behind = way
    beyond = mouth + (mouth - bend)
    inner = max(0.75 * radius, 2.6)
    return (sdf.cone(canal, bend, inner), sdf.cone(bend, mouth, inner, radius), sdf.cone(mouth, beyond, radius),
            sdf.cone(mouth, groove, radius, 0.5 * radius), sdf.cone(bend, behind, dorsal_mm))


def _landmarks(
    p: SacrumParameters, axis: Axis, shape: Profile, tilt_deg: float, openings: dict[str, Points]
) -> dict[str, Points]:
    at = np.arange(0.0, p.hiatus * p.length_mm, 4.0)
    angle = np.deg2rad(p.slope_deg + tilt_deg)
    level = 0.25 * p.length_mm
    depth = 0.45 * float(np.interp(level, shape.s, shape.mass_back))
    share = 0.72 * float(np.interp(level, shape.s, shape.side))
    return {
        "canal_centreline": axis.place(at, 0.0, np.interp(at, shape.s, shape.canal_centre)),
        "anterior_foramina_left": openings["left"], "anterior_foramina_right": openings["right"],
        "ala_left": axis.place([level], [share * p.half_width_left_mm], [depth]),
        "ala_right": axis.place([level], [-share * p.half_width_right_mm], [depth]),
        "s1_endplate_centre": np.zeros((1, 3)),
        "s1_endplate_normal": np.array([[0.0, -np.sin(angle), np.cos(angle)]]),
    }
