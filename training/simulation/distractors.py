"""Bright things that are neither cement nor metal: calcified vessels, phleboliths, contrast, dense bowel content."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sacroleak.core.geometry import Points
from sacroleak.training.simulation.body import Body
from sacroleak.training.simulation.hardware import METAL, DenseObject, Piece, corners, draw_metal, inside_lps_mm, solid
from sacroleak.training.simulation.scene import Scene
from sacroleak.training.simulation.shapes import window

CLEAR_MM = 3.0
"""Vessels and bowel keep so far from bone: what touches the sacrum and is as bright as cement could not be told from
a leak by anybody."""
BLADDER_MM = np.array([0.0, -62.0, -62.0])
"""Middle of the bladder from the sacrum's; about what BodyParts3D and one CT show."""
Course = Callable[[np.random.Generator, Scene, Body], tuple[list[Piece], float]]


def draw_object(rng: np.random.Generator, scene: Scene, kind: str, body: Body) -> DenseObject | None:
    """One object of METAL or CALCIUM by name; None where the scene has no room for it."""
    if kind in METAL:
        return draw_metal(rng, scene, kind, body)
    pieces, hu = CALCIUM[kind](rng, scene, body)
    found = solid(scene, pieces)
    if found is None:
        return None
    box, distance = found
    part = window(scene, np.concatenate([p.points for p in pieces]), _reach(pieces))[1]
    if kind in LAYERED:
        _settle(rng, part, distance, pieces, body)
    for bone in ("sacrum", "hip_left", "hip_right", "l5"):
        if bone in part.distance:
            np.maximum(distance, np.float32(CLEAR_MM) - part.distance[bone], out=distance)
    if not (distance < 0).any():
        return None
    drawn = {"kind": kind, "hu": hu, "inside_lps_mm": inside_lps_mm(scene, box, distance)}
    return DenseObject(kind=kind, box=box, distance=distance, hu=hu, metal=False, drawn=drawn)


def _reach(pieces: list[Piece]) -> float:
    from_axis = max(float(np.max(p.radius_mm)) for p in pieces)
    return from_axis + 5.0


def _settle(rng: np.random.Generator, part: Scene, distance: np.ndarray, pieces: list[Piece], body: Body) -> None:
    """Contrast is heavier than what it is mixed into: only the lower part holds it."""
    points = np.concatenate([p.points for p in pieces])
    radius = max(float(np.max(p.radius_mm)) for p in pieces)
    level = float(points[:, 1].mean()) + body.down * radius * rng.uniform(-0.9, 0.5)
    height = body.down * (level - part.axes[1]).astype(np.float32)
    np.maximum(distance, height[None, :, None], out=distance)


def artery(rng: np.random.Generator, side: float) -> Points:
    """Common iliac, then external or internal iliac course on one side; (n, 3) LPS mm from the sacrum's middle."""
    start = np.array([[side * 6.0, -48.0, 85.0], [side * 24.0, -46.0, 45.0]])
    if rng.random() < 0.5:
        rest = np.array([[side * 42.0, -55.0, 15.0], [side * 62.0, -75.0, -20.0], [side * 72.0, -95.0, -60.0]])
    else:
        rest = np.array([[side * 36.0, -32.0, 20.0], [side * 44.0, -22.0, -10.0], [side * 52.0, -22.0, -40.0]])
    course = np.vstack([start, rest]) + rng.normal(0, 4, size=(5, 3))
    t = np.linspace(0, 4, 33)
    wave = rng.uniform(0, 5) * np.sin(t * rng.uniform(1, 4) + rng.uniform(0, 6))
    fine = np.stack([np.interp(t, np.arange(5), course[:, a]) for a in range(3)], axis=1)
    fine[:, 0] += wave
    return fine


def _calcified_artery(rng: np.random.Generator, _scene: Scene, _body: Body) -> tuple[list[Piece], float]:
    """Short plaques in the wall of the iliac arteries: hollow, half a ring at most places."""
    pieces = []
    for side in (-1.0, 1.0):
        course, radius = artery(rng, side), rng.uniform(3.5, 6.0)
        for _ in range(int(rng.integers(1, 6))):
            first = int(rng.integers(0, 30))
            bit = course[first:first + int(rng.integers(2, 4))]
            facing = None if rng.random() < 0.25 else rng.normal(size=3)
            pieces.append(Piece(points=bit, radius_mm=radius, wall_mm=rng.uniform(0.8, 2.0), facing=facing))
    return pieces, float(rng.uniform(300, 1300))


def _phlebolith(rng: np.random.Generator, _scene: Scene, _body: Body) -> tuple[list[Piece], float]:
    """Round calcified clots in the veins of the lower pelvis, some with a lucent middle."""
    pieces = []
    for _ in range(int(rng.integers(1, 6))):
        place = np.array([rng.choice([-1, 1]) * rng.uniform(25, 75), rng.uniform(-65, 10), rng.uniform(-100, -20)])
        radius = rng.uniform(1.2, 3.5)
        pieces.append(Piece(points=place[None], radius_mm=radius, wall_mm=0.5 * radius if rng.random() < 0.3 else 0.0))
    return pieces, float(rng.uniform(250, 1300))


def _vessel_contrast(rng: np.random.Generator, _scene: Scene, _body: Body) -> tuple[list[Piece], float]:
    """Enhanced iliac arteries, or veins, on both sides."""
    radius = rng.uniform(3.5, 7)
    return [Piece(points=artery(rng, side), radius_mm=radius) for side in (-1.0, 1.0) for _ in range(2)], \
        float(rng.uniform(120, 450))


def loop(rng: np.random.Generator, scene: Scene, *, presacral: bool = False) -> Points:
    """A wandering course of bowel in front of the bones, or down in front of the sacrum; (n, 3)."""
    if presacral:
        start, way = np.array([rng.normal(0, 10), rng.uniform(-48, -30), rng.uniform(20, 50)]), (0, 4, -9)
    else:
        low, high = corners(scene)
        front = max(float(low[1]), -160.0)
        start, way = rng.uniform((low[0], front, low[2]), (high[0], max(front, -40.0), high[2])), (0, 0, 0)
    course: Points = start + np.cumsum(rng.normal(way, (8, 3 if presacral else 8, 6),
                                                  size=(int(rng.integers(4, 9)), 3)), axis=0)
    return course


def _oral_contrast(rng: np.random.Generator, scene: Scene, _body: Body) -> tuple[list[Piece], float]:
    """Contrast that has sunk in loops of bowel."""
    return [Piece(points=loop(rng, scene), radius_mm=rng.uniform(7, 18)) for _ in range(int(rng.integers(1, 5)))], \
        float(rng.uniform(150, 1300))


def _dense_bowel(rng: np.random.Generator, scene: Scene, _body: Body) -> tuple[list[Piece], float]:
    """Dense content of the rectosigmoid, against the presacral fat; far wider than a vein, less dense than cement."""
    return [Piece(points=loop(rng, scene, presacral=True), radius_mm=rng.uniform(8, 17))], float(rng.uniform(130, 650))


def _bladder_contrast(rng: np.random.Generator, _scene: Scene, _body: Body) -> tuple[list[Piece], float]:
    """Excreted contrast at the bladder's lower wall."""
    place = BLADDER_MM + rng.normal(0, 6, size=3)
    return [Piece(points=np.array([place, place + (rng.normal(0, 6), 0, rng.uniform(0, 15))]),
                  radius_mm=rng.uniform(18, 42))], float(rng.uniform(150, 1800))


CALCIUM: dict[str, Course] = {
    "calcified_artery": _calcified_artery, "phlebolith": _phlebolith, "vessel_contrast": _vessel_contrast,
    "oral_contrast": _oral_contrast, "dense_bowel": _dense_bowel, "bladder_contrast": _bladder_contrast,
}
CALCIUM_KINDS = tuple(CALCIUM)
LAYERED = ("oral_contrast", "bladder_contrast")
