"""Hip bones from thick plates and rods, and femora, left and right. Control points lie on the left, LPS mm, origin at
the S1 endplate's centre; they were read off the mean shape of the 30 patients of Han et al. (10.1088/1361-6560/ab1456).
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline

from sacroleak.core.geometry import Geometry
from sacroleak.training.simulation import sdf
from sacroleak.training.simulation.pelvis_parameters import HipParameters, PelvisParameters
from sacroleak.training.simulation.sdf import Field, Vector

Row = tuple[tuple[float, float, float, float], ...]

BLADE: tuple[Row, ...] = (
    ((66, 34, 31, 5.0), (80, 26, 35, 5.0), (91, 18, 37, 5.0), (104, 8, 34, 5.0), (116, -4, 30, 5.0)),
    ((57, 45, 21, 8.0), (68, 34, 21, 7.5), (93, 14, 21, 3.8), (112, -4, 21, 4.0), (127, -18, 21, 5.0)),
    ((52, 56, 6, 6.5), (62, 34, 6, 7.5), (85, 9, 6, 4.5), (111, -16, 6, 4.0), (130, -34, 6, 6.5)),
    ((48, 61, -9, 6.5), (58, 38, -9, 10.0), (71, 16, -9, 7.5), (100, -13, -9, 4.0), (124, -47, -9, 6.5)),
    ((47, 58, -24, 6.5), (59, 33, -24, 10.5), (74, 12, -24, 9.0), (100, -14, -24, 6.5), (116, -60, -24, 5.5)),
    ((53, 47, -39, 5.5), (63, 20, -39, 10.5), (78, -3, -39, 9.0), (97, -24, -39, 7.5), (111, -58, -39, 4.5)),
    ((67, 18, -54, 6.0), (76, 4, -54, 10.0), (85, -13, -54, 11.0), (94, -30, -54, 9.0), (101, -48, -54, 6.5)),
    ((74, 8, -69, 7.5), (78, -4, -69, 12.0), (82, -15, -69, 14.0), (90, -30, -69, 11.0), (97, -46, -69, 6.5)),
)
"""Iliac blade: rows from above, each from the back (PSIS) to the front (ASIS); x, y, z and half the thickness, mm."""

COLUMN: tuple[tuple[tuple[float, float, float, float], tuple[float, float, float, float]], ...] = (
    ((76, -4, -69, 12.0), (67, 5, -99, 11.0)), ((67, 5, -99, 11.0), (66, 9, -124, 13.5)),
    ((66, 10, -124, 13.5), (61, 5, -148, 14.5)), ((72, 4, -99, 6.0), (88, 3, -97, 5.0)),
    ((57, 22, -99, 3.0), (68, 8, -99, 8.0)), ((61, -16, -108, 4.5), (60, -40, -104, 5.5)),
    ((80, -43, -78, 9.0), (58, -46, -99, 9.0)), ((58, -46, -99, 9.5), (40, -54, -112, 8.0)),
    ((40, -54, -112, 8.0), (14, -62, -116, 9.5)), ((14, -62, -116, 9.5), (13, -50, -137, 8.5)),
    ((13, -50, -137, 8.5), (29, -34, -152, 6.5)), ((29, -34, -152, 6.5), (54, -4, -159, 9.0)),
)
"""Ischium, superior and inferior pubic rami: rods with both ends' x, y, z and radius, mm."""

SOCKET_MM = (90.0, -23.0, -94.0)
"""Centre of the femoral head."""

MEAN_HALF_WIDTH_MM = 57.0
"""Half width of the mean sacrum beside which the control points lie; wider sacra move them outward in proportion."""


def build_hips(p: PelvisParameters, sacrum: Field, geometry: Geometry) -> dict[str, Field]:
    """Fields `hip_left`, `hip_right`, `femur_left`, `femur_right`; hips keep the joint's width from solid `sacrum`."""
    fields: dict[str, Field] = {}
    for name, side, joint in (("left", 1.0, p.hips.joint_left_mm), ("right", -1.0, p.hips.joint_right_mm)):
        half_width = p.sacrum.half_width_left_mm if side > 0 else p.sacrum.half_width_right_mm
        hip = _hip(p, side, half_width / MEAN_HALF_WIDTH_MM, geometry)
        hip = sdf.smooth_max(hip, np.float32(joint) - sacrum, 2.0)
        fields[f"hip_{name}"] = hip
        fields[f"femur_{name}"] = _femur(p, side, half_width / MEAN_HALF_WIDTH_MM, geometry)
    return fields


def place(p: PelvisParameters, side: float, stretch: float, points: Vector) -> Vector:
    """Control points (n, 3) moved to one side of one pelvis: scaled, flared, mirrored, tilted; (n, 3) LPS mm."""
    hips: HipParameters = p.hips
    x, y, z = points.T
    # Near the joint the sacrum's width decides; toward crest and pubis the pelvis' own.
    outward = np.clip((x - MEAN_HALF_WIDTH_MM) / 40.0, 0.0, 1.0)
    near = np.clip((np.abs(x) - 15.0) / 30.0, 0.0, 1.0)
    x = x * (1.0 + (stretch - 1.0) * near) * (1.0 + (hips.wide - 1.0) * outward)
    x = x + hips.flare_mm * outward * np.clip((z + 60.0) / 80.0, 0.0, 1.0)
    y = np.where(y < 10.0, 10.0 + (y - 10.0) * hips.deep, y)
    z = z * hips.tall
    a = np.deg2rad(p.tilt_deg)
    moved = np.stack([side * x, np.cos(a) * y - np.sin(a) * z, np.sin(a) * y + np.cos(a) * z], axis=-1)
    return np.asarray(moved + (np.array(hips.left_shift_mm) if side > 0 else 0.0), dtype=np.float64)


def _hip(p: PelvisParameters, side: float, stretch: float, geometry: Geometry) -> Field:
    field = sdf.empty(geometry)
    for corners, radii in _blade(p, side, stretch):
        sdf.join(field, geometry, sdf.plate(corners, radii))
    for a, b in COLUMN:
        ends = place(p, side, stretch, np.array([a[:3], b[:3]]))
        rod = sdf.cone(ends[0], ends[1], a[3] * p.hips.thickness, b[3] * p.hips.thickness)
        sdf.join(field, geometry, rod, blend_mm=5.0)
    socket = place(p, side, stretch, np.array([SOCKET_MM]))[0]
    sdf.join(field, geometry, _cup(socket, side, p.hips.head_mm + 11.0), blend_mm=5.0)
    sdf.cut(field, geometry, sdf.cone(socket, socket + [side * 40.0, -14.0, -22.0], p.hips.head_mm + 3.0), blend_mm=2.0)
    block = sdf.block_of(geometry, np.array([-60.0, -140.0, -220.0]), np.array([60.0, 60.0, 60.0]))
    x = sdf.coordinates(geometry, block)[0]
    field[block] = np.maximum(field[block], np.float32(0.5 * p.hips.symphysis_mm) - np.float32(side) * x)
    return field


def _blade(p: PelvisParameters, side: float, stretch: float) -> list[tuple[Vector, Vector]]:
    """The iliac blade as thick triangles: corners (3, 3) and half thicknesses (3,)."""
    knots = _refine(_refine(np.array(BLADE, dtype=np.float64), 0), 1)
    placed = place(p, side, stretch, knots[..., :3].reshape(-1, 3)).reshape(knots.shape[0], knots.shape[1], 3)
    radii = knots[..., 3] * p.hips.thickness
    triangles: list[tuple[Vector, Vector]] = []
    for i in range(knots.shape[0] - 1):
        for j in range(knots.shape[1] - 1):
            rings = (((i, j), (i + 1, j), (i, j + 1)), ((i + 1, j + 1), (i + 1, j), (i, j + 1)))
            triangles.extend((np.array([placed[at] for at in ring]), np.array([radii[at] for at in ring]))
                             for ring in rings)
    return triangles


def _refine(knots: Vector, axis: int) -> Vector:
    """Twice as many knots along one axis of the control net, on cubic curves through the given ones."""
    given = np.arange(knots.shape[axis])
    return np.asarray(CubicSpline(given, knots, axis=axis)(np.arange(0.0, given[-1] + 0.25, 0.5)))


def _cup(socket: Vector, side: float, radius: float) -> sdf.Solid:
    """The bone round the femoral head, open outward, downward and forward."""
    mouth = np.array([side * 0.76, -0.3, -0.57])
    mouth /= np.linalg.norm(mouth)

    def distance(x: Field, y: Field, z: Field) -> Field:
        px, py, pz = (c - np.float32(o) for c, o in zip((x, y, z), socket, strict=True))
        ball = np.sqrt(px * px + py * py + pz * pz) - np.float32(radius)
        rim = px * np.float32(mouth[0]) + py * np.float32(mouth[1]) + pz * np.float32(mouth[2]) - np.float32(3.0)
        return sdf.smooth_max(ball, rim, 3.0)

    return sdf.Solid(low=socket - radius, high=socket + radius, distance=distance)


def _femur(p: PelvisParameters, side: float, stretch: float, geometry: Geometry) -> Field:
    """Head, neck, trochanters and the upper shaft."""
    field = sdf.empty(geometry)
    head = place(p, side, stretch, np.array([SOCKET_MM]))[0]
    turn, spread = np.deg2rad(p.hips.femur_turn_deg), np.deg2rad(p.hips.femur_spread_deg)
    out = np.array([side * np.cos(turn), np.sin(turn), 0.0])
    down = np.array([side * np.sin(spread), 0.0, -np.cos(spread)])
    trochanter = head + 44.0 * out + 22.0 * down
    shaft = trochanter + 140.0 * down
    for a, b, ra, rb in (
        (head, head, p.hips.head_mm, p.hips.head_mm), (head + 12.0 * out + 7.0 * down, trochanter, 15.0, 14.0),
        (trochanter, trochanter + 12.0 * out - 16.0 * down, 15.0, 11.0),
        (trochanter, trochanter + 35.0 * down, 19.0, 14.0), (trochanter + 30.0 * down, shaft, 14.5, 13.0),
    ):
        sdf.join(field, geometry, sdf.cone(a, b, ra, rb), blend_mm=6.0)
    return field
