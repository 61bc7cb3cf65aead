"""From a placed anatomy to a labelled scan: lesion, cement, leaks, hardware, tissue, scanner, in that order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Geometry, Points, box_where
from sacroleak.core.structures import Side, Site, Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.training.simulation.body import Body, draw_body
from sacroleak.training.simulation.cement import CementBody
from sacroleak.training.simulation.cohort import draw_training_plan
from sacroleak.training.simulation.distractors import CALCIUM_KINDS, draw_object
from sacroleak.training.simulation.hardware import METAL_KINDS, DenseObject
from sacroleak.training.simulation.leak import LeakBody
from sacroleak.training.simulation.lesion import Lesion
from sacroleak.training.simulation.needle import NeedleTrack
from sacroleak.training.simulation.operation import Operation, operate
from sacroleak.training.simulation.plan import Approach, Injection, LesionKind
from sacroleak.training.simulation.randomise import clutter, invert_soft, miscalibrate, textures
from sacroleak.training.simulation.readout import Field
from sacroleak.training.simulation.scanner import (
    Scanner,
    acquire,
    draw_field_of_view,
    draw_scanner,
    round_view,
    tilted,
    tilted_grid,
)
from sacroleak.training.simulation.scene import FAR_MM, Scene
from sacroleak.training.simulation.shapes import near
from sacroleak.training.simulation.tissue import (
    TissueStyle,
    draw_style,
    paint,
    paint_arms,
    paint_cement,
    paint_fracture,
    paint_holes,
    paint_lesions,
    paint_table,
    voxel_edge_mm,
)

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
    """A scan and everything that is true about it, on one grid. `anatomy` is as if no cement were there; `drawn`:
    parameters of style, scanner, body, objects and operation, as JSON can hold them.
    """

    ct: Volume
    anatomy: LabelMap
    cement: LabelMap
    leaks: LabelMap
    metal: LabelMap
    truth: tuple[LeakTruth, ...]
    drawn: Mapping[str, object] = field(default_factory=dict)


def draw_injection(rng: np.random.Generator, volume_ml: float) -> Injection:
    """An injection on either side by any approach, needles as often as in Tian et al. (J Pain Res 2020)."""
    kind = rng.choice([None, *LesionKind], p=[0.25, 0.35, 0.2, 0.2])
    return Injection(side=Side(rng.choice([Side.LEFT, Side.RIGHT])), approach=Approach(rng.choice(list(Approach))),
                     needles=int(rng.choice([1, 2, 3, 4], p=[0.67, 0.2, 0.09, 0.04])), volume_ml=volume_ml,
                     lesion=None if kind is None else LesionKind(kind), eroded=bool(rng.random() < 0.4),
                     lesion_radius_mm=float(rng.uniform(6, 16)))


def draw_case(rng: np.random.Generator, scene: Scene, *, wild: bool) -> Case:
    """A random training case on the scene's grid, as a scan of any slices looks once it is brought to that grid."""
    plan = draw_training_plan(rng)
    plan = replace(plan, hardware=plan.hardware + _extra(rng, METAL_KINDS, 0.05),
                   calcium=plan.calcium + _extra(rng, CALCIUM_KINDS, 0.2))
    return scan(rng, scene, operate(rng, scene, plan), style=draw_style(rng, wild=wild, patient=plan.patient),
                scanner=draw_scanner(rng, wild=wild, rebinned=True), cut=bool(rng.random() < 0.3))


def _extra(rng: np.random.Generator, kinds: tuple[str, ...], chance: float) -> tuple[str, ...]:
    return (str(rng.choice(kinds)),) if rng.random() < chance else ()


def scan(rng: np.random.Generator, scene: Scene, operation: Operation, *, style: TissueStyle,
         scanner: Scanner, cut: bool = False) -> Case:
    """The CT of an operation, with hardware and everything that is true about it; `cut`: a part of it only.

    Where the scene brings a real CT, its own values stay, and only what was done and put in is added.
    """
    plan, geometry = operation.plan, scene.geometry
    body = draw_body(rng, scene, skin_behind_mm=style.skin_behind_mm, prone=scanner.prone)
    hu, fracture = _patient(rng, scene, operation, (style, scanner, body))
    cement = operation.cement(scene)
    paint_cement(rng, hu, scene, cement, style)
    objects = [o for kind in plan.hardware + plan.calcium if (o := draw_object(rng, scene, kind, body)) is not None]
    metal = _add_objects(hu, scene, objects)
    cement[metal] = FAR_MM
    if scanner.tilt_deg:
        hu = tilted(hu, geometry, scanner.tilt_deg, beyond=scanner.padding_hu)
    hu = acquire(rng, hu, geometry, scanner, body.size_mm, over=scene.background)
    if style.wild and scene.background is None and rng.random() < 0.6:
        miscalibrate(rng, hu)
    seen = _seen(rng, scene, scanner, cut=cut)
    hu[~seen] = scanner.padding_hu
    case = _label(scene, hu, cement, metal, operation, (scanner.tilt_deg, seen))
    return replace(case, drawn=_drawn(operation, objects, style=asdict(style), scanner=asdict(scanner),
                                      body=asdict(body), fracture=fracture))


def _patient(rng: np.random.Generator, scene: Scene, operation: Operation,
             how: tuple[TissueStyle, Scanner, Body]) -> tuple[Field, dict[str, float | str]]:
    """True HU before cement and metal, with lesions and needle holes; and the fracture's parameters."""
    style, scanner, body = how
    plan = operation.plan
    if scene.background is not None:
        hu = scene.background.copy()
    else:
        hu = paint(rng, scene, style, body, gas="gas" in plan.clutter or style.wild)
        if style.wild:
            textures(rng, hu, scene)
            clutter(rng, hu, scene)
            if rng.random() < 0.2:
                invert_soft(hu)
        if scanner.table and "table" in plan.clutter:
            paint_table(rng, hu, scene, body)
        if "arms" in plan.clutter:
            paint_arms(rng, hu, scene, style, body)
    fracture = paint_fracture(rng, hu, scene) if plan.fracture else {}
    paint_lesions(rng, hu, scene, operation.lesions)
    if operation.tracks:
        paint_holes(rng, hu, scene, operation.holes(scene))
    return hu, fracture


def _add_objects(hu: Field, scene: Scene, objects: list[DenseObject]) -> npt.NDArray[np.bool_]:
    """Calcium, contrast and metal over all else, by the share of each voxel they fill; returns where metal is."""
    edge = np.float32(voxel_edge_mm(scene))
    metal = np.zeros(hu.shape, dtype=bool)
    for item in objects:
        target = hu[item.box]
        target += np.clip(0.5 - item.distance / edge, 0, 1) * np.maximum(np.float32(item.hu) - target, 0)
        if item.metal:
            metal[item.box] |= item.distance < 0
    return metal


def _seen(rng: np.random.Generator, scene: Scene, scanner: Scanner, *, cut: bool) -> npt.NDArray[np.bool_]:
    """What the scan shows: not beyond its field of view, its ends, or the wedges that a tilted gantry leaves out."""
    seen = np.ones(scene.geometry.shape, dtype=bool)
    if cut:
        seen[:] = False
        seen[draw_field_of_view(rng, scene.geometry.shape)] = True
    view = round_view(scene, scanner)
    if view is not None:
        seen &= view
    if scanner.tilt_deg:
        seen &= tilted(np.ones(seen.shape, dtype=np.float32), scene.geometry, scanner.tilt_deg, beyond=0.0) > 0.5
    return seen


def _label(scene: Scene, hu: Field, cement: Field, metal: npt.NDArray[np.bool_], operation: Operation,
           view: tuple[float, npt.NDArray[np.bool_]]) -> Case:
    """Labels end where the field of view ends: nothing can be known beyond it."""
    tilt_deg, seen = view
    geometry = tilted_grid(scene.geometry, tilt_deg) if tilt_deg else scene.geometry

    def within(distance: Field) -> npt.NDArray[np.bool_]:
        if tilt_deg:
            distance = tilted(distance, scene.geometry, tilt_deg, beyond=FAR_MM)
        inside: npt.NDArray[np.bool_] = (distance < 0) & seen
        return inside

    anatomy = np.zeros(geometry.shape, dtype=np.uint8)
    for name, structure in LABELLED.items():
        found = near(scene, name, 0.0) if name in scene.distance else None
        if tilt_deg and found is not None:
            anatomy[within(scene.distance[name])] = structure
        elif found is not None:
            anatomy[found[0]][(found[1] < 0) & seen[found[0]]] = structure
    hard = within(cement)
    numbers = np.zeros(geometry.shape, dtype=np.uint8)
    truth: list[LeakTruth] = []
    box = box_where(hard)
    for leak in operation.leaks if box is not None else ():
        there = within(leak.distance)[box] if tilt_deg else leak.distance[box] < 0
        part = hard[box] & there & (anatomy[box] != Structure.SACRUM) & (numbers[box] == 0)
        if part.any():
            number = len(truth) + 1
            numbers[box][part] = number
            truth.append(LeakTruth(number=number, site=leak.site, mechanism=leak.mechanism,
                                   volume_ml=float(part.sum()) * geometry.voxel_ml))
    steel = within(np.where(metal, np.float32(-1), np.float32(1))) if tilt_deg else metal & seen
    steel &= ~hard
    return Case(ct=Volume(hu=np.rint(hu).astype(np.int16), geometry=geometry),
                anatomy=LabelMap(labels=anatomy, geometry=geometry),
                cement=LabelMap(labels=hard, geometry=geometry),
                leaks=LabelMap(labels=numbers, geometry=geometry),
                metal=LabelMap(labels=steel, geometry=geometry), truth=tuple(truth))


def _drawn(operation: Operation, objects: list[DenseObject], **more: Mapping[str, object]) -> dict[str, object]:
    """Every parameter drawn after the plan, as JSON can hold it."""
    parts: Mapping[str, Sequence[Lesion | NeedleTrack | CementBody | LeakBody | DenseObject]] = {
        "lesions": operation.lesions, "tracks": operation.tracks, "bodies": operation.bodies,
        "leaks": operation.leaks, "objects": objects}
    return {**{name: dict(values) for name, values in more.items()},
            **{name: [dict(part.drawn) for part in found] for name, found in parts.items()}}


def centred_grid(size_mm: tuple[float, float, float], spacing_mm: tuple[float, float, float],
                 centre_mm: Points | None = None) -> Geometry:
    """A grid of about `size_mm` whose middle is `centre_mm` (the scene's origin unless given)."""
    shape = tuple(max(1, round(s / d)) for s, d in zip(size_mm, spacing_mm, strict=True))
    middle = np.zeros(3) if centre_mm is None else centre_mm
    origin = middle - (np.array(shape) - 1) / 2 * np.array(spacing_mm)
    return Geometry.axis_aligned(origin_lps_mm=origin, spacing_mm=spacing_mm, shape=(shape[0], shape[1], shape[2]))
