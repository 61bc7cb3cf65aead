"""Cement where it should not be: one mechanism for each way out of the bone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, maximum_filter1d

from sacroleak.core.geometry import Points
from sacroleak.core.structures import Site
from sacroleak.training.simulation.cement import Treatment
from sacroleak.training.simulation.lesion import Drawn, midline_mm
from sacroleak.training.simulation.needle import NEEDLE_RADIUS_MM
from sacroleak.training.simulation.noise import Field, smooth_noise
from sacroleak.training.simulation.scene import Scene
from sacroleak.training.simulation.shapes import add_ball, add_tube, empty, gradient_at, roughen

BESIDE_MM = {"foraminal_vein": (10.0, 28.0), "lateral_sacral_vein": (26.0, 50.0), "median_sacral_vein": (0.0, 9.0)}
"""How far beside the midline each vein starts."""
FORAMEN_REACH_MM = 15.0
"""A foramen has bone this near on its four sides; anterior S1 foramina are up to about 15 mm wide."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LeakBody:
    """One leak before it is cut at the bone: its way out, `site` by mechanism, and its signed distance in mm."""

    site: Site
    mechanism: str
    distance: Field
    drawn: Drawn


Mechanism = Callable[[np.random.Generator, Scene, Treatment], LeakBody | None]


def vein(rng: np.random.Generator, scene: Scene, treatment: Treatment, name: str) -> LeakBody | None:
    """A sacral vein: leaves through the anterior cortex or a foramen, then winds along the pelvic surface."""
    tip = treatment.body.tip_lps_mm
    start = _anterior_point(rng, scene, tip, reach_mm=60, beside_mm=BESIDE_MM[name])
    if start is None:
        return None
    radius = float(rng.uniform(0.6, 2.0))
    smooth = scene.pelvic_surface
    body = empty(scene)
    stem = _course(rng, scene, smooth, start, radius, float(rng.uniform(12, 55)))
    if len(stem) < 4:
        return None
    add_tube(body, scene, stem, radius * rng.uniform(0.7, 1.2, size=len(stem)))
    branches = int(rng.integers(0, 3))
    for _ in range(branches):
        root = stem[int(rng.integers(1, len(stem)))]
        twig = _course(rng, scene, smooth, root, radius * 0.8, float(rng.uniform(5, 20)))
        add_tube(body, scene, twig, radius * rng.uniform(0.5, 0.9))
    _outside_only(body, scene)
    _add_neck(rng, body, scene, (tip, stem[0]), radius)
    return LeakBody(site=Site.SACRAL_VENOUS_PLEXUS, mechanism=name, distance=body,
                    drawn={"radius_mm": radius, "branches": branches})


def needle_track(rng: np.random.Generator, scene: Scene, treatment: Treatment) -> LeakBody | None:
    """Back along one of the operation's needles, from its hole in the bone outwards: straight and needle wide."""
    track = treatment.tracks[int(rng.integers(len(treatment.tracks)))]
    line = track.line(0.0, float(np.linalg.norm(track.skin_lps_mm - track.tip_lps_mm)))
    out = np.flatnonzero(scene.at("sacrum", line) > 0.5)
    if out.size == 0:
        return None
    reach = float(rng.uniform(8, 40))
    part = line[max(int(out[0]) - int(rng.integers(1, 30)), 0):int(out[0]) + int(reach) + 1]
    body = empty(scene)
    wobble = rng.uniform(0.75, 1.35, size=len(part))
    add_tube(body, scene, part, NEEDLE_RADIUS_MM * wobble * rng.uniform(0.8, 1.3))
    return LeakBody(site=Site.PUNCTURE_PATH, mechanism="needle_track", distance=body,
                    drawn={"approach": str(track.approach), "reach_mm": reach})


def epidural(rng: np.random.Generator, scene: Scene, treatment: Treatment) -> LeakBody | None:
    """Into the ventral canal, in front of the thecal sac: a tongue along its front wall."""
    return _in_canal(rng, scene, treatment.body.tip_lps_mm, ventral=True)


def dorsal_epidural(rng: np.random.Generator, scene: Scene, treatment: Treatment) -> LeakBody | None:
    """Into the dorsal half of the canal: none of the four sites."""
    return _in_canal(rng, scene, treatment.body.tip_lps_mm, ventral=False)


def cortical_defect(rng: np.random.Generator, scene: Scene, treatment: Treatment) -> LeakBody | None:
    """Through a cortical defect into the presacral space: a blob or a plate on the anterior cortex."""
    tip = treatment.body.tip_lps_mm
    start = _anterior_point(rng, scene, tip, reach_mm=30)
    if start is None:
        return None
    smooth = scene.pelvic_surface
    outward = gradient_at(smooth, scene, start)
    size = float(rng.uniform(2.5, 7))
    body = empty(scene)
    for _ in range(int(rng.integers(2, 7))):
        side = np.cross(outward, rng.normal(size=3))
        add_ball(body, scene, start + outward * rng.uniform(0, size * 0.6) + side * rng.uniform(0, size * 0.7),
                 size * float(rng.uniform(0.45, 0.9)))
    spacing = float(scene.geometry.spacing_mm.min())
    roughen(body, smooth_noise(rng, scene.geometry.shape, rng.uniform(3, 6) / spacing), float(rng.uniform(0.2, 0.9)))
    _outside_only(body, scene)
    _add_neck(rng, body, scene, (tip, start + outward), float(rng.uniform(0.8, 2.5)))
    return LeakBody(site=Site.ANTERIOR_SACRAL_SPACE, mechanism="cortical_defect", distance=body,
                    drawn={"size_mm": size})


def foramen(rng: np.random.Generator, scene: Scene, treatment: Treatment) -> LeakBody | None:
    """Confined to a sacral foramen: beside the canal, with bone on both sides of it, above it and below it."""
    enclosed = _between_bone(scene, 0) & _between_bone(scene, 2)
    enclosed &= (scene.distance["sacrum"] > 0.5) & (scene.distance["canal"] > 3.0)
    return _fill(rng, scene, enclosed, treatment, "foramen", radius_mm=(1.5, 4.0))


def sacroiliac_joint(rng: np.random.Generator, scene: Scene, treatment: Treatment) -> LeakBody | None:
    """Into the sacroiliac joint."""
    hips = np.minimum(scene.distance["hip_left"], scene.distance["hip_right"])
    gap = (scene.distance["sacrum"] > 0.2) & (hips > 0.2) & (scene.distance["sacrum"] + hips < 6.0)
    return _fill(rng, scene, gap, treatment, "sacroiliac_joint", radius_mm=(2.0, 6.0))


def disc(rng: np.random.Generator, scene: Scene, treatment: Treatment) -> LeakBody | None:
    """Through the S1 endplate into the L5/S1 disc."""
    if "disc" not in scene.distance:
        return None
    return _fill(rng, scene, scene.distance["disc"] < -0.5, treatment, "disc", radius_mm=(2.5, 7.0))


def soft_tissue(rng: np.random.Generator, scene: Scene, treatment: Treatment) -> LeakBody | None:
    """Into the muscle behind the sacrum, away from any needle's way."""
    behind = (scene.distance["sacrum"] > 0.5) & (scene.distance["sacrum"] < 9.0) & (scene.distance["canal"] > 4.0)
    behind &= np.gradient(scene.pelvic_surface, axis=1) > 0.5 * scene.geometry.spacing_mm[1]
    behind &= (scene.distance["hip_left"] > 2.0) & (scene.distance["hip_right"] > 2.0)
    return _fill(rng, scene, behind, treatment, "soft_tissue", radius_mm=(2.0, 5.0))


MECHANISMS: dict[str, Mechanism] = {
    **{name: partial(vein, name=name) for name in BESIDE_MM},
    "needle_track": needle_track, "epidural": epidural, "cortical_defect": cortical_defect, "foramen": foramen,
    "sacroiliac_joint": sacroiliac_joint, "disc": disc, "dorsal_epidural": dorsal_epidural,
    "soft_tissue": soft_tissue,
}
"""Every way out of the bone, by name."""

OF_SITE: dict[Site, tuple[str, ...]] = {
    Site.SACRAL_VENOUS_PLEXUS: ("foraminal_vein", "lateral_sacral_vein", "median_sacral_vein"),
    Site.PUNCTURE_PATH: ("needle_track",),
    Site.ANTERIOR_EPIDURAL_SPACE: ("epidural",),
    Site.ANTERIOR_SACRAL_SPACE: ("cortical_defect",),
    Site.OTHER: ("foramen", "sacroiliac_joint", "disc", "dorsal_epidural", "soft_tissue"),
}


def _in_canal(rng: np.random.Generator, scene: Scene, tip: Points, *, ventral: bool) -> LeakBody | None:
    canal = scene.distance["canal"]
    inside = np.argwhere(canal < -1.0)
    if len(inside) == 0:
        return None
    points = scene.geometry.to_lps(inside)
    level = np.abs(points[:, 2] - tip[2]) < 14
    if not level.any():
        return None
    points = points[level]
    middle = np.array([points[np.abs(points[:, 2] - z) < 4, 1].mean() for z in points[:, 2]])
    behind = points[:, 1] - middle
    half = points[behind < -0.5] if ventral else points[behind > 0.5]
    if len(half) == 0:
        return None
    start = half[int(rng.integers(len(half)))]
    reach = float(rng.uniform(2, 16))
    chain = half[np.abs(half[:, 2] - start[2]) < reach]
    chain = chain[np.argsort(chain[:, 2])][:: max(1, len(chain) // 12)]
    chain = _moving_mean(chain)
    body = empty(scene)
    add_tube(body, scene, chain, rng.uniform(1.2, 3.2, size=len(chain)))
    # Fat and dura keep it off the far wall; bone it cannot enter here.
    np.maximum(body, canal, out=body)
    if rng.random() < 0.5:
        neck = np.linspace(tip, chain[len(chain) // 2], 30)
        bone = neck[scene.at("sacrum", neck) < 1.0]
        if len(bone) > 1:
            add_tube(body, scene, bone, float(rng.uniform(0.7, 1.5)))
    site = Site.ANTERIOR_EPIDURAL_SPACE if ventral else Site.OTHER
    return LeakBody(site=site, mechanism="epidural" if ventral else "dorsal_epidural", distance=body,
                    drawn={"reach_mm": reach})


def _add_neck(rng: np.random.Generator, body: Field, scene: Scene, ends: tuple[Points, Points], radius: float) -> None:
    """Often the way through the bone shows too; never one that would cross the canal on its way."""
    neck = np.linspace(*ends, 30)
    if rng.random() < 0.7 and scene.at("canal", neck).min() > radius + 0.5:
        add_tube(body, scene, neck, radius)


def _fill(rng: np.random.Generator, scene: Scene, room: npt.NDArray[np.bool_], treatment: Treatment, name: str, *,
          radius_mm: tuple[float, float]) -> LeakBody | None:
    """A ball's worth of a narrow room, near the tip."""
    tip = treatment.body.tip_lps_mm
    cells = np.argwhere(room)
    if len(cells) == 0:
        return None
    points = scene.geometry.to_lps(cells)
    near = points[np.argsort(np.linalg.norm(points - tip, axis=1))[: max(1, len(points) // 6)]]
    centre = near[int(rng.integers(len(near)))]
    body = empty(scene)
    balls = int(rng.integers(1, 4))
    for _ in range(balls):
        add_ball(body, scene, centre + rng.normal(0, radius_mm[0] * 0.5, size=3), float(rng.uniform(*radius_mm)))
    border = np.where(room, np.float32(-1.0), np.float32(1.0)) * np.float32(scene.geometry.spacing_mm.min())
    np.maximum(body, gaussian_filter(border, 0.6), out=body)
    if not (body < 0).any():
        return None
    return LeakBody(site=Site.OTHER, mechanism=name, distance=body, drawn={"balls": balls})


def _between_bone(scene: Scene, axis: int) -> npt.NDArray[np.bool_]:
    """Where the sacrum lies within FORAMEN_REACH_MM on both sides along one axis."""
    steps = 2 * max(1, round(FORAMEN_REACH_MM / float(scene.geometry.spacing_mm[axis]) / 2)) + 1
    bone = (scene.distance["sacrum"] < 0).astype(np.uint8)
    one, other = (maximum_filter1d(bone, steps, axis=axis, origin=side * (steps // 2), mode="constant")
                  for side in (-1, 1))
    both: npt.NDArray[np.bool_] = (one > 0) & (other > 0)
    return both


def _anterior_point(rng: np.random.Generator, scene: Scene, tip: Points, *, reach_mm: float,
                    beside_mm: tuple[float, float] = (0.0, np.inf)) -> Points | None:
    """A point on the pelvic surface of the sacrum within reach of the tip, so far beside the midline; (3,)."""
    smooth = scene.pelvic_surface
    forward = np.gradient(smooth, axis=1) < -0.3 * scene.geometry.spacing_mm[1]
    skin = (np.abs(smooth - 0.5) < 0.8 * scene.geometry.spacing_mm.max()) & forward
    skin &= (scene.distance["canal"] > 5.0) & (scene.distance["sacrum"] > -0.5)
    if "disc" in scene.distance:
        skin &= scene.distance["disc"] > 2.0
    points = scene.geometry.to_lps(np.argwhere(skin))
    beside = np.abs(points[:, 0] - midline_mm(scene))
    near = (np.linalg.norm(points - tip, axis=1) < reach_mm) & (beside >= beside_mm[0]) & (beside <= beside_mm[1])
    points = points[near]
    return points[int(rng.integers(len(points)))] if len(points) else None


def _course(rng: np.random.Generator, scene: Scene, smooth: Field, start: Points, radius: float,
            length_mm: float) -> Points:
    """A winding walk on the pelvic surface, its wall lying on the cortex; (n, 3) LPS mm, 1.5 mm apart."""
    heading = rng.normal(size=3) * (1.0, 0.3, 1.3)
    point, course = np.array(start), []
    lift = radius + rng.uniform(0.0, 1.5)
    for _ in range(int(length_mm / 1.5)):
        outward = gradient_at(smooth, scene, point)
        heading = heading + rng.normal(0, 0.35, size=3) * np.linalg.norm(heading)
        heading = heading - outward * (heading @ outward)
        heading = heading / max(float(np.linalg.norm(heading)), 1e-6)
        point = point + 1.5 * heading
        point = point + outward * (lift - float(_value(smooth, scene, point)))
        if not _within(scene, point) or outward[1] > 0.5:
            break
        course.append(point)
    return np.array(course).reshape(-1, 3)


def _value(field: Field, scene: Scene, point: Points) -> float:
    index = np.clip(np.rint(scene.geometry.to_index(point)).astype(int), 0, np.array(field.shape) - 1)
    return float(field[tuple(index)])


def _within(scene: Scene, point: Points) -> bool:
    index = scene.geometry.to_index(point)
    return bool(((index > 2) & (index < np.array(scene.geometry.shape) - 3)).all())


def _outside_only(body: Field, scene: Scene) -> None:
    np.maximum(body, -scene.distance["sacrum"] - np.float32(0.3), out=body)


def _moving_mean(points: Points) -> Points:
    if len(points) < 3:
        return points
    padded = np.concatenate([points[:1], points, points[-1:]])
    smooth: Points = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    return smooth
