"""From a placed anatomy to a labelled scan: lesion, cement, leaks, hardware, tissue, scanner, in that order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.structures import Side, Site, Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.training.simulation.cement import choose_tip
from sacroleak.training.simulation.hardware import CALCIUM_KINDS, METAL_KINDS, DenseObject, draw_object
from sacroleak.training.simulation.leak import MECHANISMS, LeakBody
from sacroleak.training.simulation.noise import smooth_noise
from sacroleak.training.simulation.operation import Operation, operate
from sacroleak.training.simulation.plan import Approach, Injection, LeakPlan, LesionKind, Plan
from sacroleak.training.simulation.scanner import Scanner, acquire, draw_field_of_view, draw_scanner
from sacroleak.training.simulation.scene import Field, Scene
from sacroleak.training.simulation.tissue import TissueStyle, draw_style, paint

LABELLED = {"sacrum": Structure.SACRUM, "canal": Structure.SACRAL_CANAL, "hip_left": Structure.HIP_LEFT,
            "hip_right": Structure.HIP_RIGHT, "l5": Structure.L5}


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakTruth:
    """One simulated leak: its number in the leak map, its site by mechanism, its volume outside bone in mL."""

    number: int
    site: Site
    mechanism: str
    volume_ml: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A scan and everything that is true about it, on one grid. `anatomy` is as if no cement were there."""

    ct: Volume
    anatomy: LabelMap
    cement: LabelMap
    leaks: LabelMap
    metal: LabelMap
    truth: tuple[LeakTruth, ...]


def draw_plan(rng: np.random.Generator) -> Plan:
    """Plans for training: every mechanism about equally often, near-misses, metal in almost half of the cases."""
    if rng.random() < 0.18:
        volumes: tuple[float, ...] = ()
    else:
        volumes = tuple(float(np.exp(rng.uniform(np.log(0.3), np.log(8)))) for _ in range(int(rng.choice([1, 2, 3],
                                                                                       p=[0.6, 0.3, 0.1]))))
    leaks = int(rng.choice([0, 1, 2, 3], p=[0.25, 0.35, 0.25, 0.15])) if volumes else 0
    names = tuple(str(n) for n in rng.choice(list(MECHANISMS), size=leaks, replace=True))
    metal = tuple(str(n) for n in rng.choice(METAL_KINDS, size=int(rng.choice([0, 1, 2], p=[0.55, 0.3, 0.15]))))
    calcium = tuple(str(n) for n in rng.choice(CALCIUM_KINDS, size=int(rng.integers(0, 3))))
    other = tuple(str(n) for n in rng.choice(["l5", "hip_left", "hip_right", "l4"],
                                             size=int(rng.random() < 0.2)))
    return Plan(injections=tuple(draw_injection(rng, ml) for ml in volumes),
                leaks=tuple(LeakPlan(mechanism=name) for name in names), hardware=metal, calcium=calcium,
                other_cement=other)


def draw_injection(rng: np.random.Generator, volume_ml: float) -> Injection:
    """An injection on either side by any approach, needles as often as in Tian et al. (J Pain Res 2020)."""
    kind = rng.choice([None, *LesionKind], p=[0.25, 0.35, 0.2, 0.2])
    return Injection(side=Side(rng.choice([Side.LEFT, Side.RIGHT])), approach=Approach(rng.choice(list(Approach))),
                     needles=int(rng.choice([1, 2, 3, 4], p=[0.67, 0.2, 0.09, 0.04])), volume_ml=volume_ml,
                     lesion=None if kind is None else LesionKind(kind), eroded=bool(rng.random() < 0.4),
                     lesion_radius_mm=float(rng.uniform(6, 16)))


def draw_case(rng: np.random.Generator, scene: Scene, *, wild: bool) -> Case:
    """A random training case on the scene's grid."""
    plan = draw_plan(rng)
    return scan(rng, scene, operate(rng, scene, plan), style=draw_style(rng, wild=wild),
                scanner=draw_scanner(rng, wild=wild), cut=bool(rng.random() < 0.3))


def scan(rng: np.random.Generator, scene: Scene, operation: Operation, *, style: TissueStyle,
         scanner: Scanner, cut: bool = False) -> Case:
    """The CT of an operation, with hardware and everything that is true about it; `cut`: a part of it only."""
    plan, cement = operation.plan, operation.cement(scene)
    objects = [o for kind in plan.hardware + plan.calcium if (o := draw_object(rng, scene, kind)) is not None]
    tip = operation.bodies[0].tip_lps_mm if operation.bodies else choose_tip(rng, scene)
    hu = paint(rng, scene, style, tip if any(i.lesion for i in plan.injections) else None)
    metal = _add_dense(rng, hu, scene, objects, cement, style)
    cement = np.where(metal, np.float32(1.0), cement)
    dense = scene.geometry.to_lps(np.argwhere((cement < 0) | metal))
    hu = acquire(rng, hu, scene, scanner, dense)
    seen = np.ones(hu.shape, dtype=bool)
    if cut:
        seen[:] = False
        seen[draw_field_of_view(rng, scene.geometry.shape)] = True
        hu[~seen] = rng.choice([-1024.0, -1000.0, 0.0])
    return _label(scene, hu, (cement < 0) & seen, metal & seen, list(operation.leaks), seen)


def _add_dense(rng: np.random.Generator, hu: Field, scene: Scene, objects: list[DenseObject], cement: Field,
               style: TissueStyle) -> npt.NDArray[np.bool_]:
    """Paint cement, then calcium and metal over it, with partial volume; returns where metal is."""
    edge = float(scene.geometry.spacing_mm.max()) + style.soft_edge_mm
    metal = np.zeros(hu.shape, dtype=bool)
    if (cement < edge).any():
        base = rng.uniform(700, 3600) if style.wild else rng.uniform(1100, 3200)
        grain = smooth_noise(rng, hu.shape, rng.uniform(1, 4))
        value = np.float32(base) * (1 + np.float32(rng.uniform(0, 0.22)) * grain)
        cover = np.clip(0.5 - cement / edge, 0, 1)
        hu += cover * (np.maximum(value, 500) - hu)
    for item in objects:
        cover = np.clip(0.5 - item.distance / edge, 0, 1)
        hu += cover * np.maximum(np.float32(item.hu) - hu, 0)
        if item.metal:
            metal |= item.distance < 0
    return metal


def _label(scene: Scene, hu: Field, cement: npt.NDArray[np.bool_], metal: npt.NDArray[np.bool_],
           leaks: list[LeakBody], seen: npt.NDArray[np.bool_]) -> Case:
    """Labels end where the field of view ends: nothing can be known beyond it."""
    geometry = scene.geometry
    anatomy = np.zeros(geometry.shape, dtype=np.uint8)
    for name, structure in LABELLED.items():
        anatomy[(scene.distance[name] < 0) & seen] = structure
    outside = cement & (anatomy != Structure.SACRUM)
    numbers = np.zeros(geometry.shape, dtype=np.uint8)
    truth: list[LeakTruth] = []
    for leak in leaks:
        part = outside & (leak.distance < 0) & (numbers == 0)
        if part.any():
            number = len(truth) + 1
            numbers[part] = number
            truth.append(LeakTruth(number=number, site=leak.site, mechanism=leak.mechanism,
                                   volume_ml=float(part.sum()) * geometry.voxel_ml))
    return Case(ct=Volume(hu=np.rint(hu).astype(np.int16), geometry=geometry),
                anatomy=LabelMap(labels=anatomy, geometry=geometry),
                cement=LabelMap(labels=cement, geometry=geometry),
                leaks=LabelMap(labels=numbers, geometry=geometry),
                metal=LabelMap(labels=metal, geometry=geometry), truth=tuple(truth))


def centred_grid(size_mm: tuple[float, float, float], spacing_mm: tuple[float, float, float],
                 centre_mm: Points | None = None) -> Geometry:
    """A grid of about `size_mm` whose middle is `centre_mm` (the scene's origin unless given)."""
    shape = tuple(max(1, round(s / d)) for s, d in zip(size_mm, spacing_mm, strict=True))
    middle = np.zeros(3) if centre_mm is None else centre_mm
    origin = middle - (np.array(shape) - 1) / 2 * np.array(spacing_mm)
    return Geometry.axis_aligned(origin_lps_mm=origin, spacing_mm=spacing_mm, shape=(shape[0], shape[1], shape[2]))
