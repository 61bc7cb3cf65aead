"""Needles on their way to the ala: axes by approach, clear of canal and foramina, tips apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Points
from sacroleak.core.structures import Side
from sacroleak.training.simulation.lesion import Drawn, Lesion, ala, midline_mm, of_side
from sacroleak.training.simulation.plan import Approach, Injection
from sacroleak.training.simulation.scene import Scene
from sacroleak.training.simulation.shapes import around

NEEDLE_RADIUS_MM = 1.2
"""13 gauge: 2.4 mm outer diameter."""
CLEARANCE_MM = 1.8
"""Bone or air between a needle's wall and the canal."""
FORAMEN_CLEARANCE_MM = 2.5
"""And between its axis and a sacral foramen."""
LENGTH_MM = 150.0
"""Needles for the sacrum are 100 to 150 mm long; nothing farther from the tip is looked at."""
STEP_MM = 1.5
ATTEMPTS = 96
REFERENCE_SHARES = {Approach.POSTERIOR_SHORT_AXIS: 9 / 35, Approach.POSTERIOR_LONG_AXIS: 9 / 35,
                    Approach.TRANSILIAC: 7 / 35, Approach.ANTERIOR_OBLIQUE: 10 / 35}
"""Patients by approach in Tian et al. (J Pain Res 2020): posterior 18, transiliac 7, anterior-oblique 10 of 35; they
do not say how posterior divides."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NeedleTrack:
    """One needle: from its tip in the bone to the skin, LPS mm; (3,) each."""

    tip_lps_mm: Points
    skin_lps_mm: Points
    approach: Approach
    drawn: Drawn

    @property
    def direction(self) -> Points:
        """Unit vector from tip to skin; (3,)."""
        way: Points = self.skin_lps_mm - self.tip_lps_mm
        unit: Points = way / np.linalg.norm(way)
        return unit

    def line(self, start_mm: float, stop_mm: float, step_mm: float = 1.0) -> Points:
        """Points on the axis between two distances from the tip; (n, 3) LPS mm."""
        count = max(2, round((stop_mm - start_mm) / step_mm) + 1)
        line: Points = np.asarray(self.tip_lps_mm + np.linspace(start_mm, stop_mm, count)[:, None] * self.direction)
        return line


def needle_direction(rng: np.random.Generator, scene: Scene, tip: Points) -> Points:
    """From tip to skin by any approach, as often as in Tian et al.; unit vector (3,)."""
    approach = list(REFERENCE_SHARES)[int(rng.choice(4, p=list(REFERENCE_SHARES.values())))]
    side = Side.LEFT if tip[0] >= midline_mm(scene) else Side.RIGHT
    return np.asarray(draw_directions(rng, scene, approach, side, count=1)[0])


def draw_directions(rng: np.random.Generator, scene: Scene, approach: Approach, side: Side, *, count: int) -> Points:
    """From tip to skin, `count` unit vectors (n, 3): what the approach allows."""
    up, back = sacral_axes(scene)
    out = np.array([1.0 if side is Side.LEFT else -1.0, 0.0, 0.0])
    u, v, w = (rng.uniform(0, 1, size=(count, 1)) for _ in range(3))
    if approach is Approach.POSTERIOR_SHORT_AXIS:
        # Across the ala, between the dorsal foramina and the joint.
        ways = back + (0.8 * u - 0.3) * out + (0.6 * v - 0.3) * up
    elif approach is Approach.POSTERIOR_LONG_AXIS:
        # Along the ala from S3 upwards: the skin lies well below.
        ways = -up + (0.25 + 0.65 * u) * back + (0.4 * v - 0.1) * out
    elif approach is Approach.TRANSILIAC:
        ways = out + (0.7 * u - 0.1) * back + (0.6 * v - 0.3) * up
    else:
        # Beside the iliac vessels, over or through the iliac fossa.
        ways = out + np.array([0.0, -1.0, 0.0]) * (0.25 + 0.65 * u) + np.array([0.0, 0.0, 0.6]) * v
    ways = ways + 0.1 * (w - 0.5) * out
    unit: Points = ways / np.linalg.norm(ways, axis=1, keepdims=True)
    return unit


def sacral_axes(scene: Scene) -> tuple[Points, Points]:
    """Up along the upper canal, and straight back from it, in the sagittal plane; two unit vectors (3,).

    Where the canal is not seen they are those of a sacrum tilted by 40 degrees.
    """
    scene = around(scene, "canal")
    inside = scene.distance["canal"] < 0
    per_level = np.count_nonzero(inside, axis=(0, 1))
    levels = np.flatnonzero(per_level)
    up = np.array([0.0, -np.sin(np.radians(40)), np.cos(np.radians(40))])
    _, y, z = scene.axes
    if levels.size >= 3 and np.ptp(z[levels]) > 20:
        upper = levels[z[levels] > z[levels[-1]] - 45]
        middle = np.count_nonzero(inside[:, :, upper], axis=0).T @ y / per_level[upper]
        slope = float(np.clip(np.polyfit(z[upper], middle, 1)[0], -2.0, 0.5))
        up = np.array([0.0, slope, 1.0]) / np.hypot(slope, 1.0)
    return up, np.array([0.0, up[2], -up[1]])


def place_needles(rng: np.random.Generator, scene: Scene, injection: Injection,
                  lesion: Lesion | None) -> tuple[NeedleTrack, ...]:
    """Up to `injection.needles` needles into one ala; fewer, or none, where the anatomy leaves no safe way."""
    tips = _tips(rng, scene, injection, lesion)
    if len(tips) == 0:
        return ()
    ways = draw_directions(rng, scene, injection.approach, injection.side, count=len(tips))
    safe = np.flatnonzero(_is_safe(scene, tips, ways))
    chosen: list[int] = []
    apart = max(4.0, 0.5 * injection.lesion_radius_mm)
    for n in safe:
        free = all(np.linalg.norm(tips[n] - tips[m]) >= apart for m in chosen)
        if free and not _crosses_foramen(scene, tips[n], ways[n]):
            chosen.append(int(n))
        if len(chosen) == injection.needles:
            break
    return tuple(_track(rng, scene, injection.approach, tips[n], ways[n]) for n in chosen)


def _tips(rng: np.random.Generator, scene: Scene, injection: Injection, lesion: Lesion | None) -> Points:
    """Candidates, nearest to the lesion's middle (or any one point of the ala) first; (n, 3) LPS mm."""
    scene = around(scene, "sacrum")
    deep = ala(scene) & of_side(scene, injection.side)[:, None, None]
    points = scene.geometry.to_lps(np.argwhere(deep))
    if len(points) == 0:
        return points
    centre = lesion.centre_lps_mm if lesion is not None else points[int(rng.integers(len(points)))]
    near = points[np.linalg.norm(points - centre, axis=1) < max(6.0, injection.lesion_radius_mm)]
    near = near if len(near) else points
    return near[rng.integers(len(near), size=ATTEMPTS)]


def _is_safe(scene: Scene, tips: Points, ways: Points) -> npt.NDArray[np.bool_]:
    """Clear of the canal all the way, and out of the sacrum once and for good; (n,)."""
    steps = np.arange(0.0, LENGTH_MM, STEP_MM)
    lines = tips[:, None] + steps[:, None] * ways[:, None]
    clear = scene.at("canal", lines).min(axis=1) > NEEDLE_RADIUS_MM + CLEARANCE_MM
    bone = scene.at("sacrum", lines)
    left = np.maximum.accumulate(bone > 0.5, axis=1)
    # A way that comes back into the bone has crossed a foramen or the canal's roof.
    again = (left & (bone < -0.5)).any(axis=1)
    safe: npt.NDArray[np.bool_] = clear & ~again
    return safe


def _crosses_foramen(scene: Scene, tip: Points, way: Points) -> bool:
    """Whether the needle, or what lies FORAMEN_CLEARANCE_MM beside it, leaves the bone into a foramen."""
    side = np.cross(way, np.eye(3)[int(np.argmin(np.abs(way)))])
    side /= np.linalg.norm(side)
    round_it = np.array([np.zeros(3), side, -side, np.cross(way, side), -np.cross(way, side)]) * FORAMEN_CLEARANCE_MM
    points = tip + (np.arange(0.0, LENGTH_MM / 2, STEP_MM)[:, None] * way)[:, None] + round_it
    points = points[(scene.at("sacrum", points) > 0.5) & (scene.at("sacrum", points) < 8.0)]
    reach = np.arange(2.0, 14.1, 2.0)[:, None]
    walls = [(scene.at("sacrum", points[:, None] + reach * sign * axis) < 0).any(axis=1)
             for axis in (np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])) for sign in (-1, 1)]
    return bool(np.logical_and.reduce(walls).any())


def _track(rng: np.random.Generator, scene: Scene, approach: Approach, tip: Points, way: Points) -> NeedleTrack:
    """From the tip out through the last bone on the way, then through muscle and fat."""
    steps = np.arange(0.0, LENGTH_MM, STEP_MM)
    line = tip + steps[:, None] * way
    bones = np.minimum.reduce([scene.at(name, line) for name in ("sacrum", "hip_left", "hip_right")])
    inside = np.flatnonzero(bones < 0)
    in_bone = float(steps[inside[-1]]) if inside.size else 0.0
    beyond = float(rng.uniform(25, 70))
    drawn: Drawn = {"approach": str(approach), "tip_lps_mm": tip.tolist(), "direction_lps": way.tolist(),
                    "bone_mm": in_bone, "soft_tissue_mm": beyond}
    return NeedleTrack(tip_lps_mm=tip, skin_lps_mm=tip + way * (in_bone + beyond), approach=approach, drawn=drawn)
