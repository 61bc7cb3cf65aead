"""Dense things that are not cement: screws, nails, needles left in place, calcified vessels, contrast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sacroleak.training.simulation.cement import NEEDLE_RADIUS_MM, choose_tip
from sacroleak.training.simulation.leak import needle_direction
from sacroleak.training.simulation.scene import Field, Scene
from sacroleak.training.simulation.shapes import add_tube, empty


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DenseObject:
    """A solid with its signed distance in mm, its HU before saturation, and whether it is metal."""

    kind: str
    distance: Field
    hu: float
    metal: bool


METAL_KINDS = ("iliosacral_screw", "pedicle_screws", "femoral_nail", "needle", "plate", "clutter")
CALCIUM_KINDS = ("calcified_artery", "phlebolith", "vessel_contrast")


def draw_object(rng: np.random.Generator, scene: Scene, kind: str) -> DenseObject | None:
    """One object of `kind`, placed where such things lie; None where the scene has no room for it."""
    lines = _course(rng, scene, kind)
    if lines is None:
        return None
    body = empty(scene)
    for points, radius in lines:
        add_tube(body, scene, points, radius)
    if not (body < 0).any():
        return None
    metal = kind in METAL_KINDS
    hu = rng.uniform(2200, 12000) if metal else rng.uniform(250, 1300)
    if kind == "vessel_contrast":
        hu = rng.uniform(120, 450)
    return DenseObject(kind=kind, distance=body, hu=float(hu), metal=metal)


Lines = list[tuple[np.ndarray, float]]


def _course(rng: np.random.Generator, scene: Scene, kind: str) -> Lines | None:
    x, y, z = scene.axes
    low, high = np.array([x[0], y[0], z[0]]), np.array([x[-1], y[-1], z[-1]])
    anywhere = rng.uniform(low, high)
    side = float(rng.choice([-1.0, 1.0]))
    if kind == "iliosacral_screw":
        tip = choose_tip(rng, scene, anywhere=True)
        if tip is None:
            return None
        way = np.array([np.sign(tip[0]) or side, rng.uniform(-0.3, 0.5), rng.uniform(-0.3, 0.3)])
        return [(_line(tip, way, rng.uniform(50, 110)), rng.uniform(2.5, 4.5)),
                (_line(tip + way * 75, way, 4), rng.uniform(5, 8))]
    if kind == "needle":
        tip = choose_tip(rng, scene, anywhere=bool(rng.random() < 0.3))
        if tip is None:
            return None
        return [(_line(tip, needle_direction(rng, scene, tip), rng.uniform(50, 150)), NEEDLE_RADIUS_MM)]
    if kind == "pedicle_screws":
        return [(_line(np.array([s * rng.uniform(8, 22), rng.uniform(-25, 0), high[2] - rng.uniform(0, 50)]),
                       np.array([s * 0.3, 1.0, 0.1]), rng.uniform(35, 60)), rng.uniform(2.2, 3.8)) for s in (-1.0, 1.0)]
    if kind == "femoral_nail":
        start = np.array([side * rng.uniform(70, 110), rng.uniform(-60, 0), low[2]])
        return [(_line(start, np.array([rng.normal(0, 0.2), 0.0, 1.0]), rng.uniform(10, 90)), rng.uniform(4, 9)),
                (_line(start + (0, 0, 30), np.array([-side, 0.0, 0.8]), 60), rng.uniform(3, 6))]
    if kind == "plate":
        return [(anywhere + np.cumsum(rng.normal(0, 6, size=(8, 3)), axis=0), rng.uniform(1.5, 3.5))]
    if kind == "clutter":
        return [(_line(anywhere, rng.normal(size=3), rng.uniform(0, 60)), rng.uniform(0.8, 12))]
    if kind == "phlebolith":
        front = np.array([anywhere[0], rng.uniform(low[1], 0), anywhere[2]])
        return [(front[None] + rng.normal(0, 1, size=(1, 3)), rng.uniform(1.0, 3.0))]
    # Arteries and contrast-filled veins wander down in front of the sacrum and beside it.
    start = np.array([rng.uniform(-40, 40), rng.uniform(-60, -15), high[2]])
    course = start + np.cumsum(rng.normal((0, 0.4, -5), (2.5, 1.5, 1.5), size=(30, 3)), axis=0)
    if kind == "calcified_artery":
        first = int(rng.integers(0, 25))
        return [(course[first:first + int(rng.integers(2, 5))], rng.uniform(0.7, 2.2))]
    return [(course, rng.uniform(3, 8))]


def _line(start: np.ndarray, way: np.ndarray, length_mm: float) -> np.ndarray:
    unit = way / np.linalg.norm(way)
    return start + np.linspace(0, length_mm, max(2, int(length_mm / 8)))[:, None] * unit
