"""Cement where it was meant to go: pressed from the tips of needles into porous bone, by the way that resists least."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from skimage.graph import MCP_Geometric

from sacroleak.core.geometry import Box, Geometry, Points
from sacroleak.models.resample import sample_separable
from sacroleak.training.simulation.lesion import Drawn, Lesion, choose_in_ala
from sacroleak.training.simulation.needle import NEEDLE_RADIUS_MM, NeedleTrack
from sacroleak.training.simulation.noise import Field, smooth_noise, streaks
from sacroleak.training.simulation.plan import LesionKind
from sacroleak.training.simulation.scene import FAR_MM, Scene
from sacroleak.training.simulation.shapes import add_tube, empty, whole, window

Fill = Literal["compact", "lobulated", "streaky"]
FILLS: tuple[Fill, ...] = ("compact", "lobulated", "streaky")
"""How cement looks in bone: one round mass, several lobes, or streaks between trabeculae."""

LYTIC, SCLEROTIC = 0.35, 2.5
"""Resistance of tumour against that of sound trabecular bone, 1: soft where it is gone, dense where it has hardened."""
CORTEX, OUTSIDE = 3.0, 8.0
"""Resistance within a millimetre of the surface, and beyond it: ways through the outside are hardly ever shortest."""
BLOCKED_MM = 2.5
"""Farther outside the bone than this no way is looked for."""
GRAIN = 0.35
"""How much single trabeculae add to the unevenness of any filling."""
FINEST_MM, COARSEST_MM = 0.9, 2.2
"""Filling is worked out on voxels between these; noise coarser than 2 mm shapes it, so finer ones add nothing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CementBody:
    """Intraosseous cement: signed distance, the needle tip it grew from, its volume within the bone in mL."""

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
    """A point inside an ala (well within bone, lateral to canal and foramina), or anywhere in the sacrum; (3,)."""
    return choose_in_ala(rng, scene, None, anywhere=anywhere)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bed:
    """The bone that takes the cement, its lesion, and the needles whose holes are in it."""

    host: str = "sacrum"
    lesion: Lesion | None = None
    tracks: tuple[NeedleTrack, ...] = ()


SOUND = Bed()
"""The sacrum without lesion or hole."""


def inject(rng: np.random.Generator, scene: Scene, tips: Points, target_ml: float, *, bed: Bed = SOUND) -> CementBody:
    """Press `target_ml` into a bone from (n, 3) LPS mm: voxels fill in the order in which pressure reaches them.

    The volume is met as closely as the bone's room allows. The cortex is closed, but for what the lesion has
    eroded and the needles have drilled: there cement may come up to the former surface.
    """
    parameters = _draw_fill(rng)
    streaky = parameters["fill"] == "streaky"
    margin = float(rng.uniform(0.2, 1.1))
    lesion = bed.lesion
    box, part = _room(scene, tips, target_ml, bed.host)
    limit = _limit(part, box, margin, bed)
    grid = _working_grid(part.geometry)
    tumour = None if lesion is None else lesion.distance[box]
    fields = [None if f is None else _onto(f, part.geometry, grid) for f in (part.distance[bed.host], tumour)]
    resistance, texture = _resistance(rng, grid, fields, None if lesion is None else lesion.kind, parameters)
    arrival = _arrival(resistance, grid, tips)
    arrival *= 1 + np.float32(float(parameters["fringe"])) * np.clip(texture, -2, 2)
    arrival = _onto(gaussian_filter(arrival, 0.55 if streaky else 0.7), grid, part.geometry)
    body = meet_volume(_as_distance(arrival, limit, target_ml, part.geometry), limit, target_ml, part.geometry)
    inside = float(np.count_nonzero(body < 0)) * scene.geometry.voxel_ml
    drawn: Drawn = {**parameters, "margin_mm": margin, "asked_ml": float(target_ml),
                    "volume_ml": inside}
    return CementBody(distance=whole(scene, body, box), tip_lps_mm=np.array(tips[0]), volume_ml=inside, drawn=drawn)


def meet_volume(body: Field, limit: Field, target_ml: float, geometry: Geometry, *,
                fixed: Field | None = None) -> Field:
    """Shift a surface until the part where `limit` is negative, together with `fixed`, has the wanted volume."""
    free = limit < 0
    have = 0
    if fixed is not None:
        have = int(np.count_nonzero(fixed < 0))
        free = free & (fixed >= 0)
    values = body[free]
    wanted = max(0, round(target_ml / geometry.voxel_ml) - have)
    if values.size == 0:
        return np.full_like(body, FAR_MM)
    # Halfway between the last voxel that fills and the first that does not; all of it if there is not room enough.
    n = min(wanted, values.size)
    order = np.partition(values, [max(n - 1, 0), min(n, values.size - 1)])
    shift = float(order[-1] + 0.01) if n == values.size else float(order[max(n - 1, 0)] + order[n]) / 2
    shift = shift - FAR_MM if n == 0 else shift
    grown: Field = np.maximum(body - np.float32(shift), limit)
    return np.minimum(grown, fixed) if fixed is not None else grown


def _draw_fill(rng: np.random.Generator) -> dict[str, float | str]:
    """A way of filling and its figures: how uneven the resistance, over what lengths, how frayed the border."""
    style, u = FILLS[int(rng.integers(len(FILLS)))], rng.uniform
    if style == "compact":
        wide, drawn = u(8, 14), {"unevenness": u(0.1, 0.35), "fringe": u(0.0, 0.04)}
        return {"fill": style, "width_mm": wide, "length_mm": wide, **drawn}
    if style == "lobulated":
        return {"fill": style, "unevenness": u(0.7, 1.2), "width_mm": u(6, 9), "length_mm": u(6, 12),
                "fringe": u(0.05, 0.15)}
    return {"fill": style, "unevenness": u(0.8, 1.3), "width_mm": u(2.4, 3.6), "length_mm": u(8, 15),
            "fringe": u(0.15, 0.35)}


def _room(scene: Scene, tips: Points, target_ml: float, host: str) -> tuple[Box, Scene]:
    """A window around the tips with bone enough for the volume, or the whole scene."""
    reach = 1.7 * float(np.cbrt(target_ml * 1000 * 3 / (4 * np.pi))) + 5.0
    while True:
        box, part = window(scene, tips, reach)
        deep = float(np.count_nonzero(part.distance[host] < -1.0)) * scene.geometry.voxel_ml
        if deep > 1.3 * target_ml or part.geometry.shape == scene.geometry.shape:
            return box, part
        reach *= 1.4


def _limit(part: Scene, box: Box, margin: float, bed: Bed) -> Field:
    """Negative where cement may be: `margin` mm within the bone, or up to its surface where the cortex is open."""
    bone, lesion = part.distance[bed.host], bed.lesion
    limit: Field = bone + np.float32(margin)
    if lesion is not None and lesion.eroded:
        limit = np.where(lesion.distance[box] < 0, bone + np.float32(0.05), limit)
    if bed.tracks:
        holes = empty(part)
        for track in bed.tracks:
            add_tube(holes, part, np.array([track.tip_lps_mm, track.skin_lps_mm]), NEEDLE_RADIUS_MM)
        limit = np.where(holes < 0, bone + np.float32(0.05), limit)
    return limit


def _working_grid(geometry: Geometry) -> Geometry:
    """The grid itself where its voxels are of middling size, else one of 1 or 2 mm over the same place."""
    spacing = geometry.spacing_mm
    if spacing.min() >= FINEST_MM and spacing.max() <= COARSEST_MM:
        return geometry
    step = float(np.clip(spacing.min(), 1.0, 2.0))
    sides = np.maximum(np.ceil(spacing * (np.array(geometry.shape) - 1) / step).astype(int) + 1, 2)
    return Geometry.axis_aligned(origin_lps_mm=geometry.affine[:3, 3], spacing_mm=step,
                                 shape=(int(sides[0]), int(sides[1]), int(sides[2])))


def _onto(values: Field, source: Geometry, target: Geometry) -> Field:
    """A field of one axis-aligned grid on another, linearly."""
    if source is target:
        return values
    index = tuple((target.affine[a, 3] + target.affine[a, a] * np.arange(target.shape[a]) - source.affine[a, 3])
                  / source.affine[a, a] for a in range(3))
    return sample_separable(values, index)


def _resistance(rng: np.random.Generator, grid: Geometry, fields: list[Field | None], kind: LesionKind | None,
                fill: Mapping[str, float | str]) -> tuple[Field, Field]:
    """Resistance to flow of each voxel (-1: none gets there), and the unit-variance texture in it."""
    bone, tumour = fields
    if bone is None:
        raise ValueError("resistance: no bone given")
    way = rng.normal(size=3) * (0.6, 0.6, 1.0)  # principal trabeculae of the ala run up and down more than across
    axes = [(grid.affine[a, 3] + grid.affine[a, a] * np.arange(grid.shape[a])).astype(np.float32) for a in range(3)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    texture = streaks(rng, points, along=way / np.linalg.norm(way), length_mm=float(fill["length_mm"]),
                      width_mm=float(fill["width_mm"]))
    log = np.float32(float(fill["unevenness"])) * texture
    log += np.float32(GRAIN) * smooth_noise(rng, grid.shape, 2.5 / float(grid.spacing_mm.min()))
    if tumour is not None and kind is not None:
        log += np.clip(0.5 - tumour / 2, 0, 1) * _log_of_tumour(rng, grid, kind)
    log += np.float32(np.log(CORTEX)) * np.clip(bone + 1.5, 0, 1)
    log += np.float32(np.log(OUTSIDE / CORTEX)) * np.clip(bone + 0.5, 0, 1)
    resistance = np.exp(np.clip(log, -3.0, 4.0))
    resistance[bone > BLOCKED_MM] = -1.0
    return resistance, texture


def _log_of_tumour(rng: np.random.Generator, grid: Geometry, kind: LesionKind) -> Field:
    soft, hard = np.float32(np.log(LYTIC)), np.float32(np.log(SCLEROTIC))
    if kind is LesionKind.MIXED:
        patches = smooth_noise(rng, grid.shape, 6.0 / float(grid.spacing_mm.min()))
        return np.where(patches > 0, hard, soft)
    return np.full(grid.shape, soft if kind is LesionKind.LYTIC else hard, dtype=np.float32)


def _arrival(resistance: Field, grid: Geometry, tips: Points) -> Field:
    """When the front that starts at the tips reaches each voxel, in mm of unit resistance."""
    index = np.clip(np.rint(grid.to_index(tips)).astype(int), 0, np.array(grid.shape) - 1)
    costs, _ = MCP_Geometric(resistance, sampling=tuple(grid.spacing_mm)).find_costs([tuple(i) for i in index.tolist()])
    reached = np.isfinite(costs)
    # What is never reached comes last; infinity would spread when the field is smoothed.
    costs[~reached] = 1.2 * costs[reached].max() if reached.any() else FAR_MM
    return np.asarray(costs, dtype=np.float32)


def _as_distance(arrival: Field, limit: Field, target_ml: float, geometry: Geometry) -> Field:
    """Signed distance in mm, to first order, to the front that encloses the volume."""
    times = arrival[limit < 0]
    if times.size == 0:
        return np.full_like(arrival, FAR_MM)
    n = min(max(round(target_ml / geometry.voxel_ml), 0), times.size - 1)
    front = float(np.partition(times, n)[n])
    slopes = np.gradient(arrival, *geometry.spacing_mm.astype(np.float32))
    steep = np.sqrt(sum((s * s for s in slopes), start=np.zeros_like(arrival)))
    near: npt.NDArray[np.bool_] = np.abs(arrival - front) < max(0.2 * front, 1e-3)
    usual = float(np.median(steep[near])) if near.any() else 1.0
    distance = (arrival - np.float32(front)) / np.maximum(steep, np.float32(max(0.4 * usual, 1e-3)))
    return np.clip(distance, -FAR_MM, FAR_MM).astype(np.float32)
