"""Cement where it was meant to go: grown from a needle tip inside the sacral ala."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sacroleak.core.geometry import Points
from sacroleak.training.simulation.lesion import Drawn, Lesion, choose_in_ala
from sacroleak.training.simulation.needle import NeedleTrack
from sacroleak.training.simulation.noise import Field, smooth_noise
from sacroleak.training.simulation.scene import FAR_MM, Scene
from sacroleak.training.simulation.shapes import add_ball, empty, roughen


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CementBody:
    """Intraosseous cement: signed distance, the needle tip it grew from, its volume within the sacrum in mL."""

    distance: Field
    tip_lps_mm: Points
    volume_ml: float
    drawn: Drawn = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Treatment:
    """One injection carried out: what a leak comes from. There is always at least one needle."""

    lesion: Lesion | None
    tracks: tuple[NeedleTrack, ...]
    body: CementBody


def choose_tip(rng: np.random.Generator, scene: Scene, *, anywhere: bool = False) -> Points | None:
    """A point inside the ala (well within bone, lateral to canal and foramina), or anywhere in the sacrum; (3,)."""
    return choose_in_ala(rng, scene, None, anywhere=anywhere)


def grow(rng: np.random.Generator, scene: Scene, tip: Points, target_ml: float, *, host: str = "sacrum") -> CementBody:
    """Fill bone around `tip` until `target_ml`: clustered balls with rough borders, held back by the bone's surface.

    `host` is the bone being filled. The volume is set by moving the surface of the distance field, so that it is met
    as closely as the bone's room allows.
    """
    body = empty(scene)
    mean_radius = np.cbrt(target_ml * 1000 * 3 / (4 * np.pi))
    centre = np.array(tip)
    for _ in range(int(rng.integers(2, 9))):
        add_ball(body, scene, centre, float(mean_radius * rng.uniform(0.35, 0.8)))
        centre = centre + rng.normal(0, mean_radius * 0.5, size=3)
    spacing = float(scene.geometry.spacing_mm.min())
    roughen(body, smooth_noise(rng, scene.geometry.shape, rng.uniform(2.5, 7) / spacing), rng.uniform(0.3, 1.8))
    margin = rng.uniform(-0.1, 0.9)
    limit = scene.distance[host] + np.float32(max(margin, 0.2))
    body = _to_volume(body, limit, target_ml, scene.geometry.voxel_ml)
    inside = float(np.count_nonzero(body < 0)) * scene.geometry.voxel_ml
    return CementBody(distance=body, tip_lps_mm=np.array(tip), volume_ml=inside)


def _to_volume(body: Field, limit: Field, target_ml: float, voxel_ml: float) -> Field:
    """Shift the surface until the part within the bone has the wanted volume."""
    room = np.sort(body[(limit < 0) & (body < FAR_MM)])
    wanted = int(target_ml / voxel_ml)
    if room.size == 0:
        return np.full_like(body, FAR_MM)
    shift = room[min(wanted, room.size - 1)]
    grown: Field = np.maximum(body - shift, limit)
    return grown
