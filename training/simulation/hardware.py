"""Dense things that are not cement: screws, nails, needles left in place, calcified vessels, contrast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sacroleak.training.simulation.cement import choose_tip
from sacroleak.training.simulation.needle import NEEDLE_RADIUS_MM, needle_direction
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
    body = empty(scene)
    for points, radius in COURSES[kind](rng, scene):
        add_tube(body, scene, points, radius)
    if not (body < 0).any():
        return None
    metal = kind in METAL_KINDS
    hu = rng.uniform(2200, 12000) if metal else rng.uniform(250, 1300)
    if kind == "vessel_contrast":
        hu = rng.uniform(120, 450)
    return DenseObject(kind=kind, distance=body, hu=float(hu), metal=metal)


Lines = list[tuple[np.ndarray, float]]
Course = Callable[[np.random.Generator, Scene], Lines]


def _corners(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest LPS mm of the scene; (3,) each."""
    return (np.array([axis[0] for axis in scene.axes]), np.array([axis[-1] for axis in scene.axes]))


def _iliosacral_screw(rng: np.random.Generator, scene: Scene) -> Lines:
    tip = choose_tip(rng, scene, anywhere=True)
    if tip is None:
        return []
    way = np.array([np.sign(tip[0]) or 1.0, rng.uniform(-0.3, 0.5), rng.uniform(-0.3, 0.3)])
    return [(_line(tip, way, rng.uniform(50, 110)), rng.uniform(2.5, 4.5)),
            (_line(tip + way * 75, way, 4), rng.uniform(5, 8))]


def _needle(rng: np.random.Generator, scene: Scene) -> Lines:
    tip = choose_tip(rng, scene, anywhere=bool(rng.random() < 0.3))
    if tip is None:
        return []
    return [(_line(tip, needle_direction(rng, scene, tip), rng.uniform(50, 150)), NEEDLE_RADIUS_MM)]


def _pedicle_screws(rng: np.random.Generator, scene: Scene) -> Lines:
    _, high = _corners(scene)
    lines = []
    for side in (-1.0, 1.0):
        start = np.array([side * rng.uniform(8, 22), rng.uniform(-25, 0), high[2] - rng.uniform(0, 50)])
        lines.append((_line(start, np.array([side * 0.3, 1.0, 0.1]), rng.uniform(35, 60)), rng.uniform(2.2, 3.8)))
    return lines


def _femoral_nail(rng: np.random.Generator, scene: Scene) -> Lines:
    low, _ = _corners(scene)
    side = float(rng.choice([-1.0, 1.0]))
    start = np.array([side * rng.uniform(70, 110), rng.uniform(-60, 0), low[2]])
    return [(_line(start, np.array([rng.normal(0, 0.2), 0.0, 1.0]), rng.uniform(10, 90)), rng.uniform(4, 9)),
            (_line(start + (0, 0, 30), np.array([-side, 0.0, 0.8]), 60), rng.uniform(3, 6))]


def _plate(rng: np.random.Generator, scene: Scene) -> Lines:
    start = rng.uniform(*_corners(scene))
    return [(start + np.cumsum(rng.normal(0, 6, size=(8, 3)), axis=0), rng.uniform(1.5, 3.5))]


def _clutter(rng: np.random.Generator, scene: Scene) -> Lines:
    start = rng.uniform(*_corners(scene))
    return [(_line(start, rng.normal(size=3), rng.uniform(0, 60)), rng.uniform(0.8, 12))]


def _phlebolith(rng: np.random.Generator, scene: Scene) -> Lines:
    low, high = _corners(scene)
    place = rng.uniform(low, (high[0], 0.0, high[2]))
    return [(place[None], rng.uniform(1.0, 3.0))]


def _vessel(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """Arteries and veins wander down in front of the sacrum and beside it; (30, 3)."""
    _, high = _corners(scene)
    start = np.array([rng.uniform(-40, 40), rng.uniform(-60, -15), high[2]])
    course: np.ndarray = start + np.cumsum(rng.normal((0, 0.4, -5), (2.5, 1.5, 1.5), size=(30, 3)), axis=0)
    return course


def _calcified_artery(rng: np.random.Generator, scene: Scene) -> Lines:
    first = int(rng.integers(0, 25))
    return [(_vessel(rng, scene)[first:first + int(rng.integers(2, 5))], rng.uniform(0.7, 2.2))]


def _vessel_contrast(rng: np.random.Generator, scene: Scene) -> Lines:
    return [(_vessel(rng, scene), rng.uniform(3, 8))]


COURSES: dict[str, Course] = {
    "iliosacral_screw": _iliosacral_screw, "pedicle_screws": _pedicle_screws, "femoral_nail": _femoral_nail,
    "needle": _needle, "plate": _plate, "clutter": _clutter, "calcified_artery": _calcified_artery,
    "phlebolith": _phlebolith, "vessel_contrast": _vessel_contrast,
}


def _line(start: np.ndarray, way: np.ndarray, length_mm: float) -> np.ndarray:
    unit = way / np.linalg.norm(way)
    line: np.ndarray = start + np.linspace(0, length_mm, max(2, int(length_mm / 8)))[:, None] * unit
    return line
