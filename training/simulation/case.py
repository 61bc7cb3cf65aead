"""From a placed anatomy to a labelled scan: lesion, cement, leaks, hardware, tissue, scanner, in that order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.structures import Site, Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.training.simulation.cement import CementBody, choose_tip, grow
from sacroleak.training.simulation.hardware import CALCIUM_KINDS, METAL_KINDS, DenseObject, draw_object
from sacroleak.training.simulation.leak import MECHANISMS, LeakBody
from sacroleak.training.simulation.noise import smooth_noise
from sacroleak.training.simulation.scanner import Scanner, acquire, draw_field_of_view, draw_scanner
from sacroleak.training.simulation.scene import Field, Scene
from sacroleak.training.simulation.shapes import empty
from sacroleak.training.simulation.tissue import TissueStyle, draw_style, paint

LABELLED = {"sacrum": Structure.SACRUM, "canal": Structure.SACRAL_CANAL, "hip_left": Structure.HIP_LEFT,
            "hip_right": Structure.HIP_RIGHT, "l5": Structure.L5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What happens in one case. `volumes_ml`: one cement body each; `mechanisms`: one leak each."""

    volumes_ml: tuple[float, ...]
    mechanisms: tuple[str, ...]
    metal: tuple[str, ...] = ()
    calcium: tuple[str, ...] = ()
    other_cement: tuple[str, ...] = ()
    cut: bool = False
    lesion: bool = True


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
    return Plan(volumes_ml=volumes, mechanisms=names, metal=metal, calcium=calcium, other_cement=other,
                cut=bool(rng.random() < 0.3))


def draw_case(rng: np.random.Generator, scene: Scene, *, wild: bool) -> Case:
    """A random training case on the scene's grid."""
    plan = draw_plan(rng)
    return scan(rng, scene, operate(rng, scene, plan), style=draw_style(rng, wild=wild),
                scanner=draw_scanner(rng, wild=wild))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operation:
    """What was done to the patient, before any scan: cement bodies, leaks, and cement of other treatments."""

    plan: Plan
    bodies: tuple[CementBody, ...]
    leaks: tuple[LeakBody, ...]
    elsewhere: tuple[Field, ...]

    def cement(self, scene: Scene) -> Field:
        """Signed distance in mm to all cement."""
        fields = [b.distance for b in self.bodies] + [b.distance for b in self.leaks] + list(self.elsewhere)
        return np.minimum.reduce(fields) if fields else empty(scene)

    def leaked_ml(self, scene: Scene) -> tuple[float, ...]:
        """Volume of each leak outside the sacrum in mL, overlaps counted for each."""
        outside = scene.distance["sacrum"] > 0
        return tuple(float(np.count_nonzero((leak.distance < 0) & outside)) * scene.geometry.voxel_ml
                     for leak in self.leaks)


def operate(rng: np.random.Generator, scene: Scene, plan: Plan) -> Operation:
    """Carry out `plan`: what the anatomy has no room for is left out."""
    bodies = _inject(rng, scene, plan)
    return Operation(plan=plan, bodies=tuple(bodies), leaks=tuple(_leaks(rng, scene, plan, bodies)),
                     elsewhere=tuple(_elsewhere(rng, scene, plan)))


def scan(rng: np.random.Generator, scene: Scene, operation: Operation, *, style: TissueStyle,
         scanner: Scanner) -> Case:
    """The CT of an operation, with hardware and everything that is true about it."""
    plan, cement = operation.plan, operation.cement(scene)
    objects = [o for kind in plan.metal + plan.calcium if (o := draw_object(rng, scene, kind)) is not None]
    tip = operation.bodies[0].tip_lps_mm if operation.bodies else choose_tip(rng, scene)
    hu = paint(rng, scene, style, tip if plan.lesion else None)
    metal = _add_dense(rng, hu, scene, objects, cement, style)
    cement = np.where(metal, np.float32(1.0), cement)
    dense = scene.geometry.to_lps(np.argwhere((cement < 0) | metal))
    hu = acquire(rng, hu, scene, scanner, dense)
    seen = np.ones(hu.shape, dtype=bool)
    if plan.cut:
        seen[:] = False
        seen[draw_field_of_view(rng, scene.geometry.shape)] = True
        hu[~seen] = rng.choice([-1024.0, -1000.0, 0.0])
    return _label(scene, hu, (cement < 0) & seen, metal & seen, list(operation.leaks), seen)


def _inject(rng: np.random.Generator, scene: Scene, plan: Plan) -> list[CementBody]:
    bodies = []
    for volume in plan.volumes_ml:
        tip = choose_tip(rng, scene, anywhere=bool(rng.random() < 0.15))
        if tip is not None:
            bodies.append(grow(rng, scene, tip, volume))
    return bodies


def _leaks(rng: np.random.Generator, scene: Scene, plan: Plan, bodies: list[CementBody]) -> list[LeakBody]:
    found = []
    for name in plan.mechanisms:
        if bodies:
            body = bodies[int(rng.integers(len(bodies)))]
            leak = MECHANISMS[name](rng, scene, body.tip_lps_mm)
            if leak is not None and (leak.distance < 0).any():
                found.append(leak)
    return found


def _elsewhere(rng: np.random.Generator, scene: Scene, plan: Plan) -> list[Field]:
    """Cement of other treatments, inside other bones."""
    fields = []
    for host in plan.other_cement:
        deep = np.flatnonzero(scene.distance[host] < -3) if host in scene.distance else np.empty(0, dtype=int)
        if deep.size:
            index = np.unravel_index(int(rng.choice(deep)), scene.geometry.shape)
            tip = scene.geometry.to_lps(np.array(index))
            fields.append(grow(rng, scene, tip, float(rng.uniform(0.5, 6)), host=host).distance)
    return fields


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
