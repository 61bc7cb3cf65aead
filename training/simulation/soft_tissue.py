"""Muscle, fat, bowel, bladder and vessels around the bones, on a grid of about 2 mm that is stretched to the scan's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter

from sacroleak.core.geometry import Geometry, Points
from sacroleak.models.resample import sample_separable
from sacroleak.training.simulation.body import Body
from sacroleak.training.simulation.distractors import BLADDER_MM, artery, loop
from sacroleak.training.simulation.hardware import Piece, solid
from sacroleak.training.simulation.noise import Field, smooth_noise
from sacroleak.training.simulation.scene import Scene
from sacroleak.training.simulation.shapes import add_tube, empty

AIR_HU = -1000.0
SOFT_MM = 2.0
"""Soft tissue is made no finer than this: its borders are seldom sharper in a scan."""
COARSE_MM = 6.0
"""What lies outside and behind the pelvis is asked on a grid of about this spacing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftStyle:
    """HU of soft tissues and how they are arranged. `marbling`: share of fat within muscle; `mottle`: how strongly
    bowel and fat are textured, HU; `bowel`: loops in the grid; `gas`: share of their width that is gas.
    """

    fat_hu: float
    muscle_hu: float
    organ_hu: float
    vessel_hu: float
    bladder_hu: float
    subcutaneous_mm: float
    marbling: float
    mottle_hu: float
    iliacus_mm: float
    bowel: int
    gas: float


def soft_tissue(rng: np.random.Generator, scene: Scene, style: SoftStyle, body: Body) -> Field:
    """HU of everything but bone inside the skin, AIR_HU outside; float32 on the scene's grid."""
    small, steps = _thinned(scene)
    hu = _muscle_and_fat(rng, small, style, body)
    _organs(rng, hu, small, style, body)
    if steps != (1, 1, 1):
        index = tuple(np.arange(n) / s for n, s in zip(scene.geometry.shape, steps, strict=True))
        hu = sample_separable(hu, index)
    skin = body.distance(scene)
    cover = np.clip(0.5 - skin / np.float32(scene.geometry.spacing_mm[:2].mean()), 0, 1)
    hu -= np.float32(AIR_HU)
    hu *= cover
    hu += np.float32(AIR_HU)
    return hu


def _thinned(scene: Scene) -> tuple[Scene, tuple[int, int, int]]:
    """Every n-th voxel along each axis, so that the grid is about SOFT_MM; and n."""
    i, j, k = (max(1, round(SOFT_MM / float(s) - 0.2)) for s in scene.geometry.spacing_mm)
    if (i, j, k) == (1, 1, 1):
        return scene, (1, 1, 1)
    fields = {name: scene.distance[name][::i, ::j, ::k] for name in ("sacrum", "hip_left", "hip_right", "l5", "canal")
              if name in scene.distance}
    affine = scene.geometry.affine.copy()
    affine[:3, :3] = affine[:3, :3] * (i, j, k)
    grid = Geometry(affine=affine, shape=fields["sacrum"].shape)
    return replace(scene, geometry=grid, distance=fields, background=None), (i, j, k)


def _muscle_and_fat(rng: np.random.Generator, scene: Scene, style: SoftStyle, body: Body) -> Field:
    shape, spacing = scene.geometry.shape, float(scene.geometry.spacing_mm.min())
    blobs = smooth_noise(rng, shape, rng.uniform(18, 35) / spacing)
    fine = smooth_noise(rng, shape, rng.uniform(3, 7) / spacing)
    hips = np.minimum(scene.distance["hip_left"], scene.distance["hip_right"])
    muscle = np.minimum(_outer(scene), hips - np.float32(style.iliacus_mm))
    np.minimum(muscle, _muscle_tubes(rng, scene), out=muscle)
    muscle += 3 * blobs + np.float32(0.8) * fine
    # Fat planes between muscle groups: a sheet where a smooth field crosses a value.
    plane = np.abs(blobs - np.float32(rng.uniform(-0.6, 0.6)))
    np.maximum(muscle, np.float32(1.0) - 26 * plane, out=muscle)
    skin = body.distance(scene)
    np.maximum(muscle, skin + np.float32(style.subcutaneous_mm) + 3 * blobs, out=muscle)
    x, _, z = scene.axes
    cleft = np.float32(9) - np.abs(x[:, None] - body.centre_x_mm) - np.maximum(z[None, :] + 15, 0)
    behind = muscle[:, int(np.searchsorted(scene.axes[1], 20)):]
    np.maximum(behind, cleft[:, None, :].astype(np.float32), out=behind)
    share = np.clip(0.5 - muscle / np.float32(spacing + 1.0), 0, 1)
    share *= 1 - np.float32(style.marbling) * np.clip(0.9 + fine + 0.4 * blobs, 0, 3)
    hu = np.float32(style.fat_hu) + np.float32(style.mottle_hu) * 0.4 * fine
    hu += share * (np.float32(style.muscle_hu) - np.float32(style.fat_hu))
    # Bowel and mesentery of the cavity, which loops alone would leave empty; the fat before the sacrum stays.
    cavity = np.minimum(np.minimum(muscle, scene.distance["sacrum"]) - 6, 4 * (blobs - np.float32(0.25)) - fine)
    hu += np.clip(cavity * np.float32(0.5), 0, 1) * (np.float32(style.organ_hu) - hu) * (-skin > style.subcutaneous_mm)
    dermis = np.clip(1 - np.abs(skin + 1.0) / np.float32(max(1.2, spacing)), 0, 1)
    hu += dermis * np.float32(0.7) * (np.float32(style.muscle_hu) - hu)
    return hu.astype(np.float32)


def _outer(scene: Scene) -> Field:
    """Score in about mm, negative lateral to the hips or behind any bone: gluteal and back muscles lie there."""
    steps = tuple(max(1, round(COARSE_MM / float(s))) for s in scene.geometry.spacing_mm)
    cut = tuple(slice(None, None, s) for s in steps)
    hips = np.minimum(scene.distance["hip_left"][cut], scene.distance["hip_right"][cut]) < 1
    bone = hips | (scene.distance["sacrum"][cut] < 1)
    if "l5" in scene.distance:
        bone |= scene.distance["l5"][cut] < 1
    x = scene.axes[0][cut[0]]
    left, right = x >= 0, x < 0
    outer = np.zeros(bone.shape, dtype=bool)
    outer[left] = np.logical_or.accumulate(hips[left], axis=0)
    outer[right] = np.logical_or.accumulate(hips[right][::-1], axis=0)[::-1]
    outer |= np.logical_or.accumulate(bone, axis=1)
    smooth = gaussian_filter(outer.astype(np.float32), 1.2)
    index = tuple(np.arange(n) / s for n, s in zip(scene.geometry.shape, steps, strict=True))
    score: Field = (np.float32(0.5) - sample_separable(smooth, index)) * np.float32(22)
    return score


def _muscle_tubes(rng: np.random.Generator, scene: Scene) -> Field:
    """Psoas beside L5 and forwards, piriformis from the front of S2 to S4 out to the greater trochanter."""
    out = empty(scene)
    for side in (-1.0, 1.0):
        psoas = np.array([[36.0, -28, 95], [46.0, -42, 45], [62.0, -68, -5], [80.0, -90, -60]]) * (side, 1, 1)
        piriformis = np.array([[side * 22.0, -2, -8], [side * 50.0, 2, -30], [side * 90.0, -8, -48]])
        add_tube(out, scene, psoas + rng.normal(0, 4, size=3), np.array([19, 17, 14, 11]) * rng.uniform(0.7, 1.15))
        add_tube(out, scene, piriformis + rng.normal(0, 4, size=3), np.array([8, 11, 7]) * rng.uniform(0.7, 1.2))
    return out


def _organs(rng: np.random.Generator, hu: Field, scene: Scene, style: SoftStyle, body: Body) -> None:
    """Bladder, rectum, bowel loops and vessels, each kept off the bones."""
    near = np.minimum.reduce([scene.distance[n] for n in ("sacrum", "hip_left", "hip_right")])
    low, high = scene.axes[2][0], scene.axes[2][-1]
    if low < -20:
        size = rng.uniform(18, 45)
        place = BLADDER_MM + rng.normal(0, 6, size=3)
        _fill(hu, scene, near, [Piece(points=np.array([place, place + (0.0, 0.0, 8.0)]), radius_mm=size)],
              (style.bladder_hu, style.muscle_hu))
    for side in (-1.0, 1.0):
        for _ in range(2):
            _fill(hu, scene, near, [Piece(points=artery(rng, side)[::8], radius_mm=rng.uniform(3.5, 7))],
                  (style.vessel_hu, style.vessel_hu))
    rectum = [(course, rng.uniform(9, 17)) for course in (loop(rng, scene, presacral=True),)]
    loops = [(loop(rng, scene), rng.uniform(8, 20)) for _ in range(style.bowel)]
    for course, radius in rectum + loops:
        if course[:, 2].max() > low - radius and course[:, 2].min() < high + radius:
            _bowel(rng, hu, scene, near, (course, radius), (style, body))


def _fill(hu: Field, scene: Scene, near: Field, pieces: list[Piece], values: tuple[float, float]) -> None:
    """Content and a 2.5 mm wall, off the bones."""
    found = solid(scene, pieces)
    if found is None:
        return
    box, distance = found
    np.maximum(distance, np.float32(3) - near[box], out=distance)
    edge = np.float32(scene.geometry.spacing_mm.mean())
    target = hu[box]
    target += np.clip(0.5 - distance / edge, 0, 1) * (np.float32(values[1]) - target)
    target += np.clip(0.5 - (distance + 2.5) / edge, 0, 1) * (np.float32(values[0]) - target)


def _bowel(rng: np.random.Generator, hu: Field, scene: Scene, near: Field, tube: tuple[Points, float],
           how: tuple[SoftStyle, Body]) -> None:
    """A loop with a wall, holding fluid, mottled stool, and gas that has risen."""
    style, body = how
    found = solid(scene, [Piece(points=tube[0], radius_mm=tube[1])])
    if found is None:
        return
    box, distance = found
    np.maximum(distance, np.float32(3) - near[box], out=distance)
    edge = np.float32(scene.geometry.spacing_mm.mean())
    target = hu[box]
    target += np.clip(0.5 - distance / edge, 0, 1) * (np.float32(style.muscle_hu) - target)
    inside = np.clip(0.5 - (distance + 2.5) / edge, 0, 1)
    content = np.full(distance.shape, style.organ_hu, dtype=np.float32)
    if rng.random() < 0.5:
        grain = smooth_noise(rng, distance.shape, rng.uniform(3, 7) / float(scene.geometry.spacing_mm.min()))
        content += np.float32(style.mottle_hu) * grain
        content[grain > 1.6] = -600
    if rng.random() < style.gas:
        y = scene.axes[1][box[1]]
        # Gas lies on the side that is up.
        level = tube[0][:, 1].mean() - body.down * tube[1] * rng.uniform(-0.8, 0.8)
        content[:, (y - level) * body.down < 0] = AIR_HU + 50
    target += inside * (content - target)
