"""Hounsfield units for everything that is not cement or metal: bones by age and density, lesions, holes, fractures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sacroleak.core.geometry import box_where
from sacroleak.training.simulation.body import Body
from sacroleak.training.simulation.lesion import Lesion
from sacroleak.training.simulation.noise import Field, smooth_noise
from sacroleak.training.simulation.plan import LesionKind, Patient
from sacroleak.training.simulation.scene import Scene
from sacroleak.training.simulation.shapes import distance_in, near
from sacroleak.training.simulation.soft_tissue import AIR_HU, SoftStyle, soft_tissue

HEALTHY_HU = 226.0
"""Trabecular HU of L1 under 30 years; it falls by 2.5 a year to 89 at 90 and more (Jang et al., Radiology 2019;291:360,
20374 adults; L1). `Patient.density` scales it."""
BONES = {"sacrum": 0.75, "hip_left": 0.85, "hip_right": 0.85, "l5": 1.0, "l4": 1.0, "femur_left": 1.1,
         "femur_right": 1.1, "coccyx": 0.7}
"""Trabecular density of each bone against L1's; assumptions, S1 being looser than the lumbar spine."""
ALA_SHARE = 0.55
"""The ala holds little more than fat in age: its trabeculae against those of the sacral bodies; an assumption."""
CEMENT_HU, CEMENT_SHARES = ((1200.0, 3200.0), (3000.0, 4500.0), (700.0, 1200.0)), (0.75, 0.17, 0.08)
"""Ranges of cement's HU and how often each is drawn: as expected on CT, beyond a 12-bit scanner's end, and faint. No
measurement of opacified cement was found; the first range is an assumption."""
SCLEROTIC_HU = (400.0, 900.0)
SOFT_LESION_HU = (15.0, 85.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TissueStyle:
    """Drawn once for a scan. HU unless said otherwise; `wild` styles leave realism far behind on purpose."""

    wild: bool
    fat_hu: float
    muscle_hu: float
    organ_hu: float
    vessel_hu: float
    bladder_hu: float
    trabecular_hu: float
    trabecular_texture_hu: float
    cortex_hu: float
    cortex_mm: float
    disc_hu: float
    canal_hu: float
    skin_behind_mm: float
    subcutaneous_mm: float
    marbling: float
    mottle_hu: float
    iliacus_mm: float
    bowel: int
    gas_share: float
    sclerosis_hu: float
    cement_hu: float
    cement_grain: float
    cement_voids: float
    soft_edge_mm: float


def draw_style(rng: np.random.Generator, *, wild: bool, patient: Patient | None = None) -> TissueStyle:
    """Realistic styles follow the patient, or span age, sex and osteoporosis where none is given; wild ones go so far
    beyond that intensity alone says nothing.
    """
    u = rng.uniform
    density = patient.density if patient is not None else float(np.clip(rng.normal(0.7, 0.3), 0.05, 1.5))
    age = patient.age if patient is not None else float(u(25, 92))
    fat = patient.subcutaneous_mm if patient is not None else float(u(3, 60))
    # The spread among people of one age is 40 HU; most of it is in `density` already.
    trabecular = HEALTHY_HU * density + rng.normal(0, 12)
    cortex = u(550, 1250) * np.clip(0.75 + 0.25 * density, 0.7, 1.15)
    if wild:
        trabecular, cortex = u(-100, 800), u(200, 1700)
    cement = u(*CEMENT_HU[int(rng.choice(len(CEMENT_HU), p=CEMENT_SHARES))])
    return TissueStyle(
        wild=wild,
        fat_hu=u(-300, 200) if wild else u(-118, -80),
        muscle_hu=u(-250, 300) if wild else u(30, 68) - 0.15 * max(age - 50, 0),
        organ_hu=u(-250, 300) if wild else u(-10, 60), vessel_hu=u(-250, 300) if wild else u(32, 55),
        bladder_hu=u(-250, 300) if wild else u(-3, 18),
        trabecular_hu=trabecular, trabecular_texture_hu=u(10, 130) if wild else u(12, 60) * (0.5 + density),
        cortex_hu=max(cortex, trabecular + 60), cortex_mm=u(0.4, 2.8) if wild else u(0.8, 2.2) * (0.6 + 0.4 * density),
        disc_hu=u(-200, 350) if wild else u(40, 140), canal_hu=u(-250, 300) if wild else u(-80, 45),
        skin_behind_mm=fat + u(6, 22), subcutaneous_mm=fat,
        marbling=u(0, 0.5) if wild else float(np.clip(0.004 * (age - 25) + rng.normal(0, 0.05), 0.0, 0.45)),
        mottle_hu=u(0, 200) if wild else u(8, 35), iliacus_mm=u(2, 12), bowel=int(rng.integers(1, 8)),
        gas_share=u(0.1, 0.9), sclerosis_hu=u(50, 450) if rng.random() < (0.25 if age < 45 else 0.6) else 0.0,
        cement_hu=max(u(600, 4500), trabecular + 350) if wild else cement, cement_grain=u(0, 0.25),
        cement_voids=u(0, 1) ** 2, soft_edge_mm=u(0.0, 0.6))


def paint(rng: np.random.Generator, scene: Scene, style: TissueStyle, body: Body, *, gas: bool = True) -> Field:
    """HU of soft tissue, bowel and bones on the scene's grid, with partial volume at every bone's surface."""
    soft = SoftStyle(fat_hu=style.fat_hu, muscle_hu=style.muscle_hu, organ_hu=style.organ_hu,
                     vessel_hu=style.vessel_hu, bladder_hu=style.bladder_hu, subcutaneous_mm=style.subcutaneous_mm,
                     marbling=style.marbling, mottle_hu=style.mottle_hu, iliacus_mm=style.iliacus_mm,
                     bowel=style.bowel, gas=style.gas_share if gas else 0.0)
    hu = soft_tissue(rng, scene, soft, body)
    edge = voxel_edge_mm(scene) + style.soft_edge_mm
    for name, value in (("canal", style.canal_hu), ("disc", style.disc_hu)):
        found = near(scene, name, edge) if name in scene.distance else None
        if found is not None:
            mix(hu[found[0]], np.float32(value), found[1], edge)
    spacing = float(scene.geometry.spacing_mm.min())
    texture = smooth_noise(rng, hu.shape, rng.uniform(1.0, 3.0) / spacing)
    patches = smooth_noise(rng, hu.shape, rng.uniform(12, 30) / spacing)
    for name in BONES:
        if name in scene.distance:
            _paint_bone(rng, hu, scene, name, style, (texture, patches, edge))
    if style.sclerosis_hu > 0:
        _sclerose_joints(rng, hu, scene, style.sclerosis_hu)
    return hu


def voxel_edge_mm(scene: Scene) -> float:
    """Over how many millimetres a surface fades within voxels: their side, on average."""
    return float(np.cbrt(np.prod(scene.geometry.spacing_mm)))


def mix(hu: Field, value: Field | np.float32, distance: Field, edge: float) -> None:
    """Put `value` where `distance` is negative, in place, by the share of each voxel that it covers."""
    hu += np.clip(0.5 - distance / np.float32(edge), 0, 1) * (value - hu)


def _fill(hu: Field, distance: Field, edge: float, value: float) -> None:
    box = box_where(distance < edge)
    if box is not None:
        mix(hu[box], np.float32(value), distance[box], edge)


def _paint_bone(rng: np.random.Generator, hu: Field, scene: Scene, name: str, style: TissueStyle,
                material: tuple[Field, Field, float]) -> None:
    texture, patches, edge = material
    found = near(scene, name, edge)
    if found is None:
        return
    box, d = found
    fine, wide = texture[box], patches[box]
    level = style.trabecular_hu * (1.0 if style.wild else BONES[name]) + rng.normal(0, 40 if style.wild else 10)
    marrow = np.float32(level) + np.float32(style.trabecular_texture_hu) * (fine + 0.7 * wide)
    if name == "sacrum" and not style.wild:
        lateral = np.clip((np.abs(scene.axes[0][box[0]]) - 16) / 12, 0, 1).astype(np.float32)[:, None, None]
        # Fat fills what the trabeculae leave.
        marrow += lateral * np.float32(1 - ALA_SHARE) * np.float32(-60 - 0.6 * max(level, 0.0))
    thickness = np.float32(style.cortex_mm * np.exp(rng.normal(0, 0.2))) * np.clip(1 + 0.4 * wide, 0.1, 2.5)
    shell = np.clip((d + thickness) / np.float32(edge) + 0.5, 0, 1)
    bone = marrow + (np.float32(style.cortex_hu) * np.clip(1 + 0.12 * fine, 0.5, 1.5) - marrow) * shell
    mix(hu[box], bone, d, edge)


def _sclerose_joints(rng: np.random.Generator, hu: Field, scene: Scene, dense_hu: float) -> None:
    """Dense bone beside the sacroiliac joints, as age brings it."""
    reach = np.float32(rng.uniform(4, 9))
    found = near(scene, "sacrum", float(reach))
    if found is not None:
        box, sacrum = found
        hips = np.minimum(distance_in(scene, "hip_left", box), distance_in(scene, "hip_right", box))
        bone, other = np.minimum(hips, sacrum), np.maximum(hips, sacrum)
        hu[box] += np.float32(dense_hu) * np.clip(1 - other / reach, 0, 1) * np.clip(-bone, 0, 1)


def paint_lesions(rng: np.random.Generator, hu: Field, scene: Scene, lesions: Sequence[Lesion]) -> None:
    """Tumour in place of bone: soft tissue, dense bone of 400 to 900 HU, or both; some lytic ones with a dense rim."""
    spacing, edge = float(scene.geometry.spacing_mm.min()), voxel_edge_mm(scene)
    for lesion in lesions:
        box = box_where(lesion.distance < 4)
        if box is None:
            continue
        distance = lesion.distance[box]
        grain = smooth_noise(rng, distance.shape, rng.uniform(1.5, 4) / spacing)
        soft = np.float32(rng.uniform(*SOFT_LESION_HU)) + 10 * grain
        dense = np.clip(np.float32(rng.uniform(*SCLEROTIC_HU)) + 90 * grain, *SCLEROTIC_HU)
        value = dense if lesion.kind is LesionKind.SCLEROTIC else soft
        if lesion.kind is LesionKind.MIXED:
            value = np.where(smooth_noise(rng, distance.shape, 6 / spacing) > 0, dense, soft)
        elif lesion.kind is LesionKind.LYTIC and rng.random() < 0.25:
            rim = np.clip(1 - np.abs(distance) / np.float32(1.5), 0, 1) * (distance_in(scene, "sacrum", box) < 0)
            hu[box] += rim * np.float32(rng.uniform(100, 400))
        mix(hu[box], value, distance, edge)


def paint_holes(rng: np.random.Generator, hu: Field, scene: Scene, holes: Field) -> None:
    """Needle holes hold blood, some a little air."""
    _fill(hu, holes, voxel_edge_mm(scene), rng.uniform(20, 70) if rng.random() < 0.8 else -400.0)


def paint_fracture(rng: np.random.Generator, hu: Field, scene: Scene) -> dict[str, float | str]:
    """A vertical line through one ala, lateral to the foramina: an open gap, or the dense band of a healing one."""
    side = float(rng.choice([-1.0, 1.0]))
    lateral = side * rng.uniform(24, 38)
    way = np.array([1.0, rng.normal(0, 0.25), rng.normal(0, 0.2)])
    way /= np.linalg.norm(way)
    spacing = float(scene.geometry.spacing_mm.min())
    healing = bool(rng.random() < 0.4)
    half = float(rng.uniform(1.5, 4) if healing else rng.uniform(0.4, 1.6))
    level, value = float(rng.uniform(-45, 45)), float(rng.uniform(150, 450) if healing else rng.uniform(0, 60))
    drawn: dict[str, float | str] = {"kind": "healing" if healing else "gap", "lateral_mm": lateral,
                                     "width_mm": 2 * half, "hu": value}
    found = near(scene, "sacrum", 0.0)
    if found is None:
        return drawn
    box, bone = found
    x, y, z = (axis[s].astype(np.float32) for axis, s in zip(scene.axes, box, strict=True))
    sheet = ((x - lateral) * way[0])[:, None, None] + (y * way[1])[None, :, None] + (z * way[2])[None, None, :]
    sheet = sheet.astype(np.float32) + 2 * smooth_noise(rng, sheet.shape, 12 / spacing)
    # It ends at a level: fractures of insufficiency seldom run all the way down.
    crack = np.maximum(np.abs(sheet) - np.float32(half), (np.float32(level) - z)[None, None, :])
    crack = np.maximum(crack, bone - np.float32(0.5))
    target = hu[box]
    if healing:
        target += np.clip(0.5 - crack / np.float32(voxel_edge_mm(scene)), 0, 1) * np.float32(value)
    else:
        mix(target, np.float32(value), crack, voxel_edge_mm(scene))
    return drawn


def paint_cement(rng: np.random.Generator, hu: Field, scene: Scene, cement: Field, style: TissueStyle) -> None:
    """Cement of the style's density: opacifier in clumps, bubbles within, thinner mixture at some of its ends.

    Voxels get the share of cement they hold, no more: the rest of partial volume is the scanner's.
    """
    edge = voxel_edge_mm(scene)
    box = box_where(cement < edge)
    if box is None:
        return
    distance = cement[box]
    spacing = float(scene.geometry.spacing_mm.min())
    grain = smooth_noise(rng, distance.shape, rng.uniform(1, 4) / spacing)
    value = np.float32(style.cement_hu) * (1 + np.float32(style.cement_grain) * grain)
    wide = smooth_noise(rng, distance.shape, rng.uniform(6, 14) / spacing)
    value *= 1 - np.float32(0.45) * np.clip(wide - 1, 0, 1)
    np.maximum(value, 500, out=value)
    # Bubbles well inside: cement around them stays labelled as one body.
    bubbles = (grain > 3.2 - 1.2 * style.cement_voids) & (distance < -1.5)
    value[bubbles] *= np.float32(0.25)
    mix(hu[box], value, distance, edge)


def paint_table(rng: np.random.Generator, hu: Field, scene: Scene, body: Body) -> None:
    """The couch: a curved shell with a foam core, a few millimetres under the body."""
    x, y, _ = scene.axes
    low = body.rest_mm + body.down * rng.uniform(1, 8)
    depth = body.down * (y[None, :] - low) + rng.uniform(0.0002, 0.001) * x[:, None] ** 2
    thick = rng.uniform(15, 45)
    shell = np.minimum(np.abs(depth), np.abs(depth - thick)) - 1.2
    edge = float(scene.geometry.spacing_mm[:2].mean())
    cover = np.clip(0.5 - shell / edge, 0, 1) * rng.uniform(0.4, 0.9)
    foam = ((depth > 0) & (depth < thick)) * 60.0
    table = (cover * (rng.uniform(-250, 150) - AIR_HU) + foam).astype(np.float32)
    used = np.flatnonzero((table > 1).any(axis=0))
    if used.size:
        rows = slice(int(used[0]), int(used[-1]) + 1)
        part = hu[:, rows]
        air = np.clip((-700 - part) / 300, 0, 1)
        part += air * table[:, rows, None]


def paint_arms(rng: np.random.Generator, hu: Field, scene: Scene, style: TissueStyle, body: Body) -> None:
    """Forearms or hands beside the hips: muscle, fat and two shafts of bone in what was air."""
    x, y, _ = scene.axes
    for side in (-1.0, 1.0):
        centre = (body.centre_x_mm + side * (body.half_x_mm + rng.uniform(20, 45)),
                  body.centre_y_mm + rng.normal(0, 30))
        away = np.hypot(x[:, None] - centre[0], y[None, :] - centre[1])
        arm = np.where(away < 26, style.muscle_hu, style.fat_hu)
        for shaft in (-11.0, 11.0):
            ring = np.hypot(x[:, None] - centre[0], y[None, :] - centre[1] - shaft)
            arm = np.where(ring < 7, style.cortex_hu if not style.wild else 800.0, arm)
            arm = np.where(ring < 3.5, style.fat_hu, arm)
        inside = (away < 34)[:, :, None] & (hu < -600)
        np.copyto(hu, arm[:, :, None].astype(np.float32), where=inside)


