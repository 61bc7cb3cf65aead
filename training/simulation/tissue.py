"""Hounsfield units for everything that is not cement or metal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sacroleak.training.simulation.noise import smooth_noise
from sacroleak.training.simulation.scene import Field, Scene
from sacroleak.training.simulation.shapes import add_ball, add_tube, empty, roughen

AIR_HU = -1000.0
BONES = ("sacrum", "hip_left", "hip_right", "l5", "l4", "femur_left", "femur_right", "coccyx")


@dataclass(frozen=True, slots=True, kw_only=True)
class TissueStyle:
    """Drawn once for a scan. HU unless said otherwise; `wild` styles leave realism far behind on purpose."""

    wild: bool
    fat_hu: float
    muscle_hu: float
    organ_hu: float
    trabecular_hu: float
    trabecular_texture_hu: float
    cortex_hu: float
    cortex_mm: float
    disc_hu: float
    canal_hu: float
    skin_behind_mm: float
    subcutaneous_mm: float
    gas_share: float
    lesion: str
    soft_edge_mm: float


def draw_style(rng: np.random.Generator, *, wild: bool) -> TissueStyle:
    """Realistic styles span age, sex and osteoporosis; wild ones so much more that intensity alone says nothing."""
    u = rng.uniform
    trabecular = u(-40, 320)
    cortex = u(350, 1500)
    if wild:
        trabecular, cortex = u(-100, 800), u(200, 1700)
    return TissueStyle(
        wild=wild,
        fat_hu=u(-300, 200) if wild else u(-125, -70),
        muscle_hu=u(-250, 300) if wild else u(25, 80),
        organ_hu=u(-250, 300) if wild else u(-10, 110),
        trabecular_hu=trabecular,
        trabecular_texture_hu=u(10, 130),
        cortex_hu=max(cortex, trabecular + 60),
        cortex_mm=u(0.4, 2.8),
        disc_hu=u(-200, 350) if wild else u(40, 140),
        canal_hu=u(-250, 300) if wild else u(-90, 45),
        skin_behind_mm=u(8, 90),
        subcutaneous_mm=u(3, 45),
        gas_share=u(0, 0.35) if rng.random() < 0.6 else 0.0,
        lesion=str(rng.choice(["none", "lytic", "sclerotic", "mixed"], p=[0.35, 0.3, 0.2, 0.15])),
        soft_edge_mm=u(0.0, 0.6),
    )


def paint(rng: np.random.Generator, scene: Scene, style: TissueStyle, lesion_at: np.ndarray | None) -> Field:
    """HU of soft tissue, bowel, bones and lesion on the scene's grid, with partial volume at every bone's surface."""
    hu = _soft_tissue(rng, scene, style)
    edge = float(scene.geometry.spacing_mm.max()) + style.soft_edge_mm
    _mix(hu, style.canal_hu + 15 * smooth_noise(rng, hu.shape, 4), _cover(scene.distance["canal"], edge))
    if "disc" in scene.distance:
        _mix(hu, np.float32(style.disc_hu), _cover(scene.distance["disc"], edge))
    texture = smooth_noise(rng, hu.shape, rng.uniform(1.0, 3.0))
    patches = smooth_noise(rng, hu.shape, rng.uniform(8, 20))
    for name in BONES:
        if name in scene.distance:
            _paint_bone(rng, hu, scene.distance[name], style, (texture, patches, edge))
    _sclerose_joints(rng, hu, scene)
    if style.lesion != "none" and lesion_at is not None:
        _paint_lesion(rng, hu, scene, style, lesion_at)
    return hu


def _soft_tissue(rng: np.random.Generator, scene: Scene, style: TissueStyle) -> Field:
    shape = scene.geometry.shape
    spacing = float(scene.geometry.spacing_mm.min())
    skin = _skin_distance(rng, scene, style)
    near_bone = np.minimum.reduce([scene.distance[n] for n in ("sacrum", "hip_left", "hip_right", "l5")])
    blobs = smooth_noise(rng, shape, rng.uniform(12, 30) / spacing)
    fine = smooth_noise(rng, shape, rng.uniform(3, 8) / spacing)
    streaks = blobs + 0.5 * fine
    hu = np.where(streaks > rng.uniform(-0.3, 0.9), np.float32(style.muscle_hu), np.float32(style.fat_hu))
    hu = np.where((blobs - fine > 1.1) & (near_bone > 4), np.float32(style.organ_hu), hu)
    hu = np.where(-skin < style.subcutaneous_mm, np.float32(style.fat_hu), hu).astype(np.float32)
    hu += 8 * fine
    _bowel(rng, hu, scene, style, near_bone)
    if style.wild:
        for _ in range(int(rng.integers(0, 5))):
            mask = smooth_noise(rng, shape, rng.uniform(5, 30) / spacing) > rng.uniform(0.8, 1.8)
            hu[mask] = rng.uniform(-900, 900)
    hu[skin > 0] = AIR_HU
    return hu


def _skin_distance(rng: np.random.Generator, scene: Scene, style: TissueStyle) -> Field:
    """Rough distance to an oval body's surface, negative inside; the back lies `skin_behind_mm` behind the sacrum."""
    x, y, z = (axis.astype(np.float32) for axis in scene.axes)
    inside = np.argwhere(scene.distance["sacrum"] < 0)
    back = float(scene.geometry.to_lps(inside.max(axis=0))[1]) if len(inside) else 40.0
    half_x, half_y = rng.uniform(140, 230), rng.uniform(95, 165)
    centre_y = back + style.skin_behind_mm - half_y
    radial = np.sqrt((x[:, None] / half_x) ** 2 + ((y[None, :] - centre_y) / half_y) ** 2)
    distance = (radial - 1) * half_y
    return np.broadcast_to(distance[:, :, None], (len(x), len(y), len(z))).astype(np.float32)


def _bowel(rng: np.random.Generator, hu: Field, scene: Scene, style: TissueStyle, near_bone: Field) -> None:
    """Gas, stool and oral contrast as rounded loops in front of the bones."""
    x, y, z = scene.axes
    front = scene.geometry.to_lps(np.zeros(3))
    for _ in range(int(rng.poisson(4 * style.gas_share + 1.2))):
        loop = empty(scene)
        centre = front + rng.uniform(0, 1, size=3) * (x[-1] - x[0], (y[-1] - y[0]) * 0.55, z[-1] - z[0])
        turns = centre + np.cumsum(rng.normal(0, 9, size=(int(rng.integers(1, 6)), 3)), axis=0)
        add_tube(loop, scene, turns, rng.uniform(6, 20))
        inside = (loop < 0) & (near_bone > 5)
        hu[inside] = rng.choice([-900.0, rng.uniform(-100, 80), rng.uniform(150, 1200)],
                                p=[style.gas_share + 0.1, 0.75 - style.gas_share, 0.15])


def _paint_bone(rng: np.random.Generator, hu: Field, distance: Field, style: TissueStyle,
                material: tuple[Field, Field, float]) -> None:
    texture, patches, edge = material
    box = _inside_box(distance, edge)
    if box is None:
        return
    d = distance[box]
    shift = rng.normal(0, 40)
    marrow = (style.trabecular_hu + shift + style.trabecular_texture_hu * texture[box]
              + 0.7 * style.trabecular_texture_hu * patches[box])
    thickness = style.cortex_mm * np.float32(np.exp(rng.normal(0, 0.2))) * np.clip(1 + 0.4 * patches[box], 0.1, 2.5)
    shell = np.clip((d + thickness) / edge + 0.5, 0, 1)
    bone = marrow + (style.cortex_hu * np.clip(1 + 0.12 * texture[box], 0.5, 1.5) - marrow) * shell
    cover = np.clip(0.5 - d / edge, 0, 1)
    hu[box] += cover * (bone - hu[box])


def _sclerose_joints(rng: np.random.Generator, hu: Field, scene: Scene) -> None:
    """Dense bone beside the sacroiliac joints, as age brings it."""
    if rng.random() < 0.5:
        return
    hips = np.minimum(scene.distance["hip_left"], scene.distance["hip_right"])
    bone = np.minimum(hips, scene.distance["sacrum"])
    other = np.maximum(hips, scene.distance["sacrum"])
    reach = rng.uniform(4, 9)
    dense = (bone < 0) & (other < reach)
    hu[dense] += np.float32(rng.uniform(50, 450)) * (1 - other[dense] / np.float32(reach))


def _paint_lesion(rng: np.random.Generator, hu: Field, scene: Scene, style: TissueStyle, centre: np.ndarray) -> None:
    """Metastasis around `centre` (LPS mm): lytic lesions take the cortex with them, sclerotic ones reach 900 HU."""
    lesion = empty(scene)
    for _ in range(int(rng.integers(1, 5))):
        add_ball(lesion, scene, centre + rng.normal(0, 6, size=3), float(rng.uniform(5, 15)))
    spacing = float(scene.geometry.spacing_mm.min())
    roughen(lesion, smooth_noise(rng, lesion.shape, rng.uniform(4, 9) / spacing), rng.uniform(0.5, 2.5))
    within = (lesion < 0) & (scene.distance["sacrum"] < (0.5 if rng.random() < 0.6 else -1.5))
    if not within.any():
        return
    lytic = np.float32(rng.uniform(0, 90)) + 10 * smooth_noise(rng, lesion.shape, 3)
    dense = np.float32(rng.uniform(400, 900)) + 90 * smooth_noise(rng, lesion.shape, 2)
    if style.lesion == "mixed":
        value = np.where(smooth_noise(rng, lesion.shape, 6 / spacing) > 0, dense, lytic)
    else:
        value = dense if style.lesion == "sclerotic" else lytic
    hu[within] = value[within]


def _cover(distance: Field, edge: float) -> Field:
    cover: Field = np.clip(0.5 - distance / np.float32(edge), 0, 1)
    return cover


def _mix(hu: Field, value: Field | np.float32, cover: Field) -> None:
    hu += cover * (value - hu)


def _inside_box(distance: Field, edge: float) -> tuple[slice, slice, slice] | None:
    near = distance < edge
    spans = []
    for axis in range(3):
        used = np.flatnonzero(near.any(axis=tuple(a for a in range(3) if a != axis)))
        if used.size == 0:
            return None
        spans.append(slice(int(used[0]), int(used[-1]) + 1))
    return spans[0], spans[1], spans[2]
