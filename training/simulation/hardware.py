"""Metal in and on the patient: screws, rods, nails, prostheses, needles, leads, clips, markers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sacroleak.core.geometry import Box, Points
from sacroleak.training.simulation.body import Body
from sacroleak.training.simulation.cement import choose_tip
from sacroleak.training.simulation.needle import NEEDLE_RADIUS_MM, needle_direction
from sacroleak.training.simulation.noise import Field
from sacroleak.training.simulation.scene import Scene
from sacroleak.training.simulation.shapes import MARGIN_MM, add_tube, empty, whole, window

TITANIUM_HU = (3000.0, 9500.0)
STEEL_HU = (10000.0, 24000.0)
"""Metal on a scale without saturation. Assumptions: attenuation at 70 keV gives about 9000 HU for titanium and more
than 20000 for steel and cobalt-chromium, and scans show less of both because of beam hardening."""
L5_MM = np.array([0.0, -12.0, 62.0])
"""Middle of the L5 body from the sacrum's, where the grid does not hold it."""
HIP_MM = np.array([88.0, -38.0, -68.0])
"""Middle of the left femoral head from the sacrum's, where the grid does not hold it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """A tube along (n, 3) LPS mm, or a ball. `wall_mm` above 0: hollow; `facing`: only the half that looks that way."""

    points: Points
    radius_mm: float | Points
    wall_mm: float = 0.0
    facing: Points | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DenseObject:
    """A solid: signed distance in mm on `box` of the scene's grid, HU before saturation, whether it is metal."""

    kind: str
    box: Box
    distance: Field
    hu: float
    metal: bool
    drawn: Mapping[str, object] = field(default_factory=dict)

    def on(self, scene: Scene) -> Field:
        """Signed distance on the whole grid."""
        return whole(scene, self.distance, self.box)


Course = Callable[[np.random.Generator, Scene, Body], list[Piece]]


def solid(scene: Scene, pieces: list[Piece]) -> tuple[Box, Field] | None:
    """Box and signed distance of the pieces' union; None where no voxel's centre is near enough to show it."""
    if not pieces:
        return None
    reach = max(float(np.max(p.radius_mm)) for p in pieces) + MARGIN_MM
    box, part = window(scene, np.concatenate([p.points for p in pieces]), reach)
    body = empty(part)
    for piece in pieces:
        if piece.wall_mm <= 0 and piece.facing is None:
            add_tube(body, part, piece.points, piece.radius_mm)
            continue
        shell = empty(part)
        add_tube(shell, part, piece.points, piece.radius_mm)
        if piece.wall_mm > 0:
            np.maximum(shell, -(shell + np.float32(piece.wall_mm)), out=shell)
        if piece.facing is not None:
            way = piece.facing / np.linalg.norm(piece.facing)
            x, y, z = part.axes
            side = ((x * way[0])[:, None, None] + (y * way[1])[None, :, None] + (z * way[2])[None, None, :]
                    - float(piece.points.mean(axis=0) @ way))
            np.maximum(shell, -side.astype(np.float32), out=shell)
        np.minimum(body, shell, out=body)
    return (box, body) if (body < 0).any() else None


def draw_metal(rng: np.random.Generator, scene: Scene, kind: str, body: Body) -> DenseObject | None:
    """One metal object of METAL, placed where such things lie; None where the scene has no room for it."""
    steel = bool(rng.random() < STEEL_SHARE.get(kind, 0.25))
    hu = float(rng.uniform(*(STEEL_HU if steel else TITANIUM_HU)))
    found = solid(scene, METAL[kind](rng, scene, body))
    if found is None:
        return None
    return DenseObject(kind=kind, box=found[0], distance=found[1], hu=hu, metal=True,
                       drawn={"kind": kind, "hu": hu, "steel": steel, "inside_lps_mm": inside_lps_mm(scene, *found)})


def inside_lps_mm(scene: Scene, box: Box, distance: Field) -> list[float]:
    """A place well inside a solid, LPS mm: its deepest voxel."""
    deepest = np.unravel_index(int(distance.argmin()), distance.shape)
    place: list[float] = scene.geometry.to_lps(np.array(deepest) + [s.start for s in box]).tolist()
    return place


def corners(scene: Scene) -> tuple[Points, Points]:
    """Lowest and highest LPS mm of the scene; (3,) each."""
    return (np.array([axis[0] for axis in scene.axes]), np.array([axis[-1] for axis in scene.axes]))


def straight(start: Points, way: Points, length_mm: float) -> Points:
    """Points every 30 mm along a way from `start`; (n, 3)."""
    unit = way / np.linalg.norm(way)
    line: Points = start + np.linspace(0, length_mm, max(2, round(length_mm / 30)))[:, None] * unit
    return line


def middle_of(scene: Scene, name: str, otherwise: Points) -> Points:
    """Middle of a structure's voxels, LPS mm, or `otherwise` where fewer than 200 mm3 are seen; (3,)."""
    if name not in scene.distance:
        return otherwise
    inside = np.argwhere(scene.distance[name] < -2)
    if len(inside) * scene.geometry.voxel_ml < 0.2:
        return otherwise
    return scene.geometry.to_lps(inside.mean(axis=0))


def _iliosacral_screw(rng: np.random.Generator, scene: Scene, _body: Body) -> list[Piece]:
    """From the outer ilium through the joint into S1 or S2, with head and sometimes a washer."""
    tip = choose_tip(rng, scene, anywhere=True)
    if tip is None:
        return []
    side = float(np.sign(tip[0]) or 1.0) * (-1.0 if rng.random() < 0.25 else 1.0)
    way = np.array([side, rng.uniform(-0.3, 0.5), rng.uniform(-0.3, 0.3)])
    unit, length, radius = way / np.linalg.norm(way), rng.uniform(55, 120), rng.uniform(2.8, 4.2)
    head = tip + unit * length
    pieces = [Piece(points=straight(tip, unit, length), radius_mm=radius),
              Piece(points=straight(head, unit, 5), radius_mm=radius * 1.5)]
    if rng.random() < 0.5:
        pieces.append(Piece(points=straight(head - unit, unit, 1.0), radius_mm=radius * 2))
    return pieces


def _needle_left(rng: np.random.Generator, scene: Scene, _body: Body) -> list[Piece]:
    """A 13-gauge needle still in the bone, its hub outside."""
    tip = choose_tip(rng, scene, anywhere=bool(rng.random() < 0.3))
    if tip is None:
        return []
    way, length = needle_direction(rng, scene, tip), rng.uniform(60, 150)
    return [Piece(points=straight(tip, way, length), radius_mm=NEEDLE_RADIUS_MM)]


def _lumbar_screws(rng: np.random.Generator, scene: Scene, _body: Body) -> list[Piece]:
    """Pedicle screws in L5, often S1 too, their heads joined by rods that leave the scan above."""
    centre = middle_of(scene, "l5", L5_MM)
    pieces = []
    radius, length, low = rng.uniform(2.4, 3.8), rng.uniform(38, 52), bool(rng.random() < 0.7)
    for side in (-1.0, 1.0):
        if rng.random() < 0.15:
            continue
        entry = centre + (side * rng.uniform(21, 26), rng.uniform(18, 26), rng.uniform(-3, 6))
        heads = [entry]
        pieces.append(Piece(points=straight(entry, np.array([-side * rng.uniform(0.15, 0.4), -1.0, -0.1]), length),
                            radius_mm=radius))
        if low:
            below = entry + (side * rng.uniform(0, 5), rng.uniform(8, 18), -rng.uniform(28, 38))
            pieces.append(Piece(points=straight(below, np.array([-side * 0.2, -1.0, -0.25]), rng.uniform(35, 50)),
                                radius_mm=radius))
            heads.append(below)
        rod = [head + (0, rng.uniform(4, 7), 0) for head in heads]
        rod = [rod[0] + (0, rng.uniform(-8, 0), rng.uniform(30, 80)), *rod]
        if low:
            rod.append(rod[-1] + (rod[-1] - rod[-2]) * 0.25)
        pieces += [Piece(points=np.array([head, head + (0, 8, 0)]), radius_mm=radius * 1.7) for head in heads]
        pieces.append(Piece(points=np.array(rod), radius_mm=rng.uniform(2.4, 3.1)))
    return pieces


def _hip(rng: np.random.Generator, _scene: Scene) -> tuple[float, Points]:
    """A side and the middle of its femoral head."""
    side = float(rng.choice([-1.0, 1.0]))
    return side, HIP_MM * (side, 1, 1) + rng.normal(0, (6, 6, 8))


def _hip_prosthesis(rng: np.random.Generator, scene: Scene, _body: Body) -> list[Piece]:
    """Cup, head, neck and stem of a total hip replacement; the cup sometimes with a screw into the ilium."""
    side, centre = _hip(rng, scene)
    cup = rng.uniform(24, 29)
    neck = centre + np.array([side * 30.0, 6.0, -28.0])
    stem = neck + np.array([[0.0, 0, 0], [side * 4.0, 4.0, -50.0], [side * 5.0, 8.0, -110.0]])
    pieces = [Piece(points=centre[None], radius_mm=cup, wall_mm=rng.uniform(3, 6),
                    facing=np.array([-side * 0.75, -0.2, 0.65])),
              Piece(points=centre[None], radius_mm=rng.uniform(13, 18)),
              Piece(points=np.array([centre, neck]), radius_mm=rng.uniform(5.5, 7.5)),
              Piece(points=stem, radius_mm=np.array([10.0, 8.0, 5.5]))]
    if rng.random() < 0.5:
        pieces.append(Piece(points=straight(centre + (-side * 16.0, 4.0, cup - 8), np.array([-side * 0.5, 0.4, 1.0]),
                                            rng.uniform(20, 40)), radius_mm=3.0))
    return pieces


def _femoral_nail(rng: np.random.Generator, scene: Scene, _body: Body) -> list[Piece]:
    """A nail down the femur with a screw through the neck into the head."""
    side, centre = _hip(rng, scene)
    top = centre + np.array([side * rng.uniform(38, 48), 8.0, rng.uniform(5, 20)])
    return [Piece(points=np.array([top, top + (side * 6.0, 6.0, -150.0)]), radius_mm=rng.uniform(5, 8),
                  wall_mm=3.0 if rng.random() < 0.5 else 0.0),
            Piece(points=np.array([top + (side * 22.0, 2.0, -55.0), centre + (-side * 4.0, 0.0, 3.0)]),
                  radius_mm=rng.uniform(3.5, 5.5))]


def _plate(rng: np.random.Generator, scene: Scene, _body: Body) -> list[Piece]:
    """A bent plate with screws on the ilium's surface, or where the grid shows none, anywhere."""
    side = str(rng.choice(["left", "right"]))
    near = np.flatnonzero(np.abs(scene.distance[f"hip_{side}"] - 1.0) < 1.5)
    if near.size == 0:
        start = rng.uniform(*corners(scene))
    else:
        start = scene.geometry.to_lps(np.array(np.unravel_index(int(rng.choice(near)), scene.geometry.shape)))
    course = start + np.cumsum(rng.normal(0, 2.5, size=(8, 3)) + rng.normal(0, 5, size=3), axis=0)
    pieces = [Piece(points=course, radius_mm=rng.uniform(1.6, 3.2))]
    inward = rng.normal(size=3)
    return pieces + [Piece(points=straight(at, inward, rng.uniform(12, 40)), radius_mm=rng.uniform(1.5, 2.4))
                     for at in course[1::3]]


def _clutter(rng: np.random.Generator, scene: Scene, _body: Body) -> list[Piece]:
    """A straight piece of metal anywhere."""
    start = rng.uniform(*corners(scene))
    return [Piece(points=straight(start, rng.normal(size=3), rng.uniform(1, 60)), radius_mm=rng.uniform(0.8, 12))]


def _stimulator_lead(rng: np.random.Generator, _scene: Scene, _body: Body) -> list[Piece]:
    """A sacral nerve stimulator's lead: through a foramen of S3, four contacts in front of it, coiling behind."""
    side = float(rng.choice([-1.0, 1.0]))
    front = np.array([side * rng.uniform(18, 28), rng.uniform(-8, 8), rng.uniform(-30, -5)])
    back = front + (side * -4.0, 38.0, 16.0)
    tail = back + np.cumsum(np.abs(rng.normal((8, 1.5, 3), 3, size=(6, 3))) * (side, 1, 1), axis=0)
    contacts = front + np.linspace(0, 0.5, 4)[:, None] * (back - front)
    return [Piece(points=np.vstack([front, back, tail]), radius_mm=0.55),
            *(Piece(points=np.array([c, c + 0.08 * (back - front)]), radius_mm=0.9) for c in contacts)]


def _clips(rng: np.random.Generator, _scene: Scene, _body: Body) -> list[Piece]:
    """Short surgical clips in the pelvis, in a loose row."""
    start = np.array([rng.uniform(-50, 50), rng.uniform(-75, -20), rng.uniform(-50, 45)])
    places = start + np.cumsum(rng.normal(0, 9, size=(int(rng.integers(2, 9)), 3)), axis=0)
    return [Piece(points=straight(p, rng.normal(size=3), rng.uniform(3, 8)), radius_mm=rng.uniform(0.6, 1.0))
            for p in places]


def _skin_marker(rng: np.random.Generator, _scene: Scene, body: Body) -> list[Piece]:
    """Dense wires or beads on the skin of the back, as they mark an entry point."""
    x = rng.uniform(-70, 70)
    y = body.centre_y_mm + body.half_y_mm * (1 - (abs(x - body.centre_x_mm) / body.half_x_mm) ** 2.5) ** 0.4
    y = min(y, body.rest_mm) if not body.prone else y
    start = np.array([x, y + 0.8, rng.uniform(-40, 40)])
    if rng.random() < 0.5:
        return [Piece(points=start[None], radius_mm=rng.uniform(0.8, 1.8))]
    return [Piece(points=straight(start + (12.0 * n, 0, 0), np.array([0, 0, 1.0]), 50), radius_mm=0.8)
            for n in range(int(rng.integers(1, 6)))]


METAL: dict[str, Course] = {
    "iliosacral_screw": _iliosacral_screw, "lumbar_screws": _lumbar_screws, "hip_prosthesis": _hip_prosthesis,
    "femoral_nail": _femoral_nail, "needle_left": _needle_left, "plate": _plate, "clutter": _clutter,
    "stimulator_lead": _stimulator_lead, "clips": _clips, "skin_marker": _skin_marker,
}
STEEL_SHARE = {"hip_prosthesis": 0.6, "needle_left": 1.0, "skin_marker": 0.7, "stimulator_lead": 0.6, "clips": 0.1}
"""How often it is steel, cobalt-chromium or platinum instead of titanium; 0.25 for the rest. Assumed."""
METAL_KINDS = tuple(METAL)
