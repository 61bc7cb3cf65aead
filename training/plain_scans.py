"""Scans of another maker: balls and rods of one density, in bones of two densities or in a real CT.

A model that knows only `simulation/` may have learned how that makes cement. This shares nothing with it but the shapes
of bones. It is plain on purpose: no veins that branch, no streaks, no lesions that soak.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.structures import Site, Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.resample import Field, sample_points, sample_separable
from sacroleak.training.simulation.anatomy import STEP_MM, Anatomy
from sacroleak.training.simulation.case import Case, LeakTruth

Kind = Literal["vein", "needle", "epidural", "front", "joint"]
SITE_OF: Mapping[Kind, Site] = {"vein": Site.SACRAL_VENOUS_PLEXUS, "needle": Site.PUNCTURE_PATH,
                                "epidural": Site.ANTERIOR_EPIDURAL_SPACE, "front": Site.ANTERIOR_SACRAL_SPACE,
                                "joint": Site.OTHER}
BONES = {"sacrum": Structure.SACRUM, "canal": Structure.SACRAL_CANAL, "hip_left": Structure.HIP_LEFT,
         "hip_right": Structure.HIP_RIGHT, "l5": Structure.L5}
HARD = ("sacrum", "hip_left", "hip_right", "l5", "l4", "femur_left", "femur_right", "coccyx")
WITHOUT_LEAK, SECOND_LEAK = 0.35, 0.2
"""Shares of scans; a third of the reference cohort leaked, here two thirds do, because leaks are what is measured."""
CEMENT_HU = (1400.0, 3000.0)
SIZE_MM = (200.0, 150.0, 170.0)
"""Of a rendered scan along L, P, S; of the real CT this much around the sacrum is kept."""
LOWEST_HU, HIGHEST_HU, METAL_HU = -1024, 3071, 8000.0
WITH_SCREW = 0.2
REACH_MM = 60.0
"""No ala is so deep in any direction."""
SMALLEST_ML = 0.02
"""A leak that comes out smaller is left out of the scan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rod:
    """All that lies within `radius_mm` of the line from `start` to `end`, LPS mm; a ball if they are one."""

    start: Points
    end: Points
    radius_mm: float

    def distance(self, points: Points) -> npt.NDArray[np.float64]:
        """Signed distance of (..., 3) LPS mm points, mm, negative inside."""
        way = self.end - self.start
        along = np.clip((points - self.start) @ way / max(float(way @ way), 1e-9), 0.0, 1.0)
        return np.asarray(np.linalg.norm(points - self.start - along[..., None] * way, axis=-1) - self.radius_mm)


def ball(centre: Points, radius_mm: float) -> Rod:
    """A rod without length."""
    return Rod(start=centre, end=centre, radius_mm=radius_mm)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bones:
    """An anatomy's distance fields, mm, sampled where they are asked for."""

    anatomy: Anatomy

    def at(self, name: str, points: Points) -> npt.NDArray[np.float64]:
        """Signed distance at (n, 3) LPS mm points; (n,), negative inside, at most 12.7."""
        index = self.anatomy.geometry.to_index(points)
        return sample_points(self.anatomy.fields[name].astype(np.float32), index).astype(np.float64) * STEP_MM

    def on(self, name: str, grid: Geometry) -> Field:
        """The same at every voxel of a grid whose axes run along +L +P +S."""
        own = self.anatomy.geometry
        axes = tuple((grid.affine[a, 3] + grid.affine[a, a] * np.arange(n) - own.affine[a, 3]) / own.affine[a, a]
                     for a, n in enumerate(grid.shape))
        return sample_separable(self.anatomy.fields[name].astype(np.float32), axes) * np.float32(STEP_MM)

    def ala(self, side: int) -> Points:
        """The deepest bone of the left (1) or the right (-1) ala, LPS mm."""
        ala: Points = self.anatomy.landmarks["ala_left" if side > 0 else "ala_right"][0]
        return ala

    def leaves(self, start: Points, direction: Points) -> Points:
        """Where a ray from inside the sacrum first leaves it, or after REACH_MM."""
        ray = start + np.arange(0.0, REACH_MM, 0.5)[:, None] * direction
        outside = np.flatnonzero(self.at("sacrum", ray) > 0)
        return np.asarray(ray[outside[0] if len(outside) else -1])


def plain_case(rng: np.random.Generator, anatomy: Anatomy) -> Case:
    """One scan: rendered from the bones, or in the anatomy's own real CT if it brings one. Left is +x in LPS."""
    bones = Bones(anatomy=anatomy)
    grid, hu = _behind(rng, bones)
    distances = {name: bones.on(name, grid) for name in BONES}
    labels = np.zeros(grid.shape, dtype=np.uint8)
    for name, structure in BONES.items():
        labels[(distances[name] < 0) & (labels == 0)] = structure
    side = int(rng.choice([-1, 1]))
    body = _body(rng, bones, side)
    share = np.minimum(_filled(body, grid), _inside(distances["sacrum"] + 1.0, grid))
    leaks, truth = np.zeros(grid.shape, dtype=np.uint8), list[LeakTruth]()
    for kind in _kinds(rng):
        filled = _in_its_space(kind, _filled(_LEAKS[kind](rng, bones, side, body[0].start), grid), distances, grid)
        own = (filled > 0.5) & (labels != Structure.SACRUM) & (leaks == 0)
        ml = float(np.count_nonzero(own)) * grid.voxel_ml
        if ml >= SMALLEST_ML:
            truth.append(LeakTruth(number=len(truth) + 1, site=SITE_OF[kind], mechanism=kind, volume_ml=ml))
            leaks[own] = len(truth)
            share = np.maximum(share, filled)
    hu += share * np.maximum(np.float32(rng.uniform(*CEMENT_HU)) - hu, 0.0)
    metal = _filled(_screw(rng, bones, -side) if rng.random() < WITH_SCREW else [], grid)
    hu += metal * np.maximum(np.float32(METAL_HU) - hu, 0.0)
    seen = _as_scanned(rng, hu, over=anatomy.background is not None)
    return Case(
        ct=Volume(hu=seen, geometry=grid), anatomy=LabelMap(labels=labels, geometry=grid),
        cement=LabelMap(labels=(share > 0.5) & (metal <= 0.5), geometry=grid),
        leaks=LabelMap(labels=np.where(metal > 0.5, 0, leaks).astype(np.uint8), geometry=grid),
        metal=LabelMap(labels=metal > 0.5, geometry=grid), truth=tuple(truth))


def _in_its_space(kind: Kind, filled: Field, distances: Mapping[str, Field], grid: Geometry) -> Field:
    """What lies in the canal of an epidural leak, and outside the bones of one in a joint; any other as it is."""
    if kind == "epidural":
        return np.minimum(filled, _inside(distances["canal"], grid))
    if kind == "joint":
        bones = [_inside(distances[name], grid) for name in ("sacrum", "hip_left", "hip_right")]
        free: Field = np.clip(1.0 - sum(bones), 0.0, 1.0).astype(np.float32)
        return np.minimum(filled, free)
    return filled


def _as_scanned(rng: np.random.Generator, hu: Field, *, over: bool) -> npt.NDArray[np.int16]:
    """Blurred within slices, with noise of its own; little of both `over` a real CT, which has had them."""
    blur = 0.3 if over else float(rng.uniform(0.3, 0.7))
    level = float(rng.uniform(10.0, 40.0)) * (0.2 if over else 1.0)
    noise = rng.standard_normal(hu.shape, dtype=np.float32) * np.float32(level)
    seen = gaussian_filter(hu, (blur, blur, 0.0)) + gaussian_filter(noise, (blur, blur, 0.0))
    return np.asarray(np.clip(np.rint(seen), LOWEST_HU, HIGHEST_HU), dtype=np.int16)


def _kinds(rng: np.random.Generator) -> list[Kind]:
    if rng.random() < WITHOUT_LEAK:
        return []
    return [list(SITE_OF)[n] for n in rng.permutation(len(SITE_OF))[: 2 if rng.random() < SECOND_LEAK else 1]]


def _behind(rng: np.random.Generator, bones: Bones) -> tuple[Geometry, Field]:
    """Grid and HU of the patient before cement."""
    middle = _middle(bones)
    if bones.anatomy.background is None:
        pixel, slices = float(rng.uniform(0.7, 1.2)), float(rng.choice([1.0, 1.5, 2.0, 3.0]))
        spacing = np.array([pixel, pixel, slices])
        i, j, k = (int(n) for n in np.array(SIZE_MM) / spacing)
        grid = Geometry.axis_aligned(origin_lps_mm=middle - np.array(SIZE_MM) / 2, spacing_mm=spacing, shape=(i, j, k))
        return grid, _rendered(rng, bones, grid)
    ct = bones.anatomy.background
    index = ct.geometry.to_index(middle + np.array([[-0.5], [0.5]]) * SIZE_MM)
    start = np.maximum(np.floor(index[0]), 0).astype(int)
    stop = np.minimum(np.ceil(index[1]), ct.geometry.shape).astype(int)
    part = ct.crop(start, stop)
    if rng.random() < 0.5:
        return part.geometry, part.hu.astype(np.float32)
    finer = 3
    i, j, k = ((n - 1) * finer + 1 for n in part.geometry.shape)
    grid = Geometry.axis_aligned(origin_lps_mm=part.geometry.affine[:3, 3], spacing_mm=part.geometry.spacing_mm / finer,
                                 shape=(i, j, k))
    hu = sample_separable(part.hu.astype(np.float32), tuple(np.arange(n) / finer for n in grid.shape))
    return grid, hu


def _middle(bones: Bones) -> Points:
    """Of the box around the sacrum, LPS mm."""
    index = np.argwhere(bones.anatomy.fields["sacrum"] < 0)
    return bones.anatomy.geometry.to_lps((index.min(axis=0) + index.max(axis=0)) / 2)


def _rendered(rng: np.random.Generator, bones: Bones, grid: Geometry) -> Field:
    """Soft tissue of two densities in an ellipse, bone of two, balls of gas and contrast in the pelvis."""
    middle = _middle(bones)
    x, y = (grid.affine[a, 3] + grid.affine[a, a] * np.arange(grid.shape[a]) for a in range(2))
    round_ = np.hypot((x[:, None, None] - middle[0]) / 175.0, (y[None, :, None] - middle[1] + 45.0) / 115.0)
    hu = np.where(round_ > 1.0, -1000.0, np.where(round_ > 0.85, -100.0, 50.0)).astype(np.float32)
    hu = np.ascontiguousarray(np.broadcast_to(hu, grid.shape))
    for _ in range(int(rng.integers(4, 10))):
        at = middle + np.array([rng.uniform(-60, 60), rng.uniform(-95, -50), rng.uniform(-70, 70)])
        _mix(hu, [ball(at, float(rng.uniform(6, 20)))], float(rng.choice([-850.0, 10.0, 30.0, 300.0])), grid)
    cortex, marrow = float(rng.uniform(500, 1100)), float(rng.uniform(80, 280))
    grain = gaussian_filter(rng.standard_normal(grid.shape, dtype=np.float32), 1.5) * 5.0
    thick = float(rng.uniform(0.8, 2.2))
    for name in (name for name in HARD if name in bones.anatomy.fields):
        distance = bones.on(name, grid)
        within, deep = _inside(distance, grid), _inside(distance + thick, grid)
        hu += within * (cortex + deep * (marrow + 60.0 * grain - cortex) - hu)
    canal = _inside(bones.on("canal", grid), grid)
    hu += canal * (25.0 - hu)
    if rng.random() < 0.3:
        at = bones.ala(1 if rng.random() < 0.5 else -1)
        _mix(hu, [ball(at, float(rng.uniform(5, 9)))], float(rng.uniform(500, 900)), grid)
    return hu


def _mix(hu: Field, rods: list[Rod], value: float, grid: Geometry) -> None:
    share = _filled(rods, grid)
    hu += share * (np.float32(value) - hu)


def _filled(rods: list[Rod], grid: Geometry) -> Field:
    """Share of each voxel that the rods fill together, by the distance of its centre from their surface."""
    share = np.zeros(grid.shape, dtype=np.float32)
    for rod in rods:
        ends = grid.to_index(np.stack([rod.start, rod.end]))
        margin = rod.radius_mm / grid.spacing_mm + 2
        low = np.clip(np.floor(ends.min(axis=0) - margin), 0, grid.shape).astype(int)
        high = np.clip(np.ceil(ends.max(axis=0) + margin) + 1, low, grid.shape).astype(int)
        if (high <= low).any():
            continue
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        steps = (np.arange(a, b) for a, b in zip(low, high, strict=True))
        index = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1)
        np.maximum(share[box], _inside(rod.distance(grid.to_lps(index)), grid), out=share[box])
    return share


def _inside(distance: npt.NDArray[np.floating], grid: Geometry) -> Field:
    """Share of a voxel within a surface whose signed distance from its centre is given."""
    share: Field = np.clip(0.5 - distance / float(grid.spacing_mm.mean()), 0.0, 1.0).astype(np.float32)
    return share


def _body(rng: np.random.Generator, bones: Bones, side: int) -> list[Rod]:
    """Balls around the middle of an ala; the first is the largest."""
    ala = bones.ala(side)
    around = [ball(ala + rng.normal(0.0, 5.0, 3), float(rng.uniform(2.5, 6.0))) for _ in range(int(rng.integers(3, 9)))]
    return [ball(ala, float(rng.uniform(5.0, 8.0))), *around]


def _screw(rng: np.random.Generator, bones: Bones, side: int) -> list[Rod]:
    """From the outside of an ilium into S1."""
    ala = bones.ala(side)
    return [Rod(start=ala + side * np.array([45.0, 0.0, 0.0]), end=ala - side * np.array([15.0, 0.0, 0.0]),
                radius_mm=float(rng.uniform(2.5, 3.7)))]


def _vein(rng: np.random.Generator, bones: Bones, side: int, ala: Points) -> list[Rod]:
    """A winding tube out of the first or second foramen, two to six millimetres off the pelvic surface."""
    foramina = np.asarray(bones.anatomy.landmarks["anterior_foramina_left" if side > 0 else "anterior_foramina_right"])
    at, radius = foramina[int(rng.integers(2))].astype(np.float64), float(rng.uniform(0.8, 1.7))
    way = [ala, at, at + np.array([0.0, -4.0, 0.0])]
    heading = np.array([side * rng.uniform(-1, 1), 0.0, rng.uniform(-1, 1)])
    for _ in range(int(rng.integers(7, 14))):
        heading = heading / np.linalg.norm(heading) + rng.normal(0.0, 0.35, 3)
        gap = float(bones.at("sacrum", way[-1][None])[0])
        step = np.array([heading[0], 0.6 * np.clip(gap - 3.5, -2.0, 2.0), heading[2]])
        way.append(way[-1] + 2.0 * step / np.linalg.norm(step))
    return [Rod(start=a, end=b, radius_mm=radius) for a, b in pairwise(way)]


def _needle(rng: np.random.Generator, bones: Bones, side: int, ala: Points) -> list[Rod]:
    """A straight cylinder from the cement outwards, to the back or through the ilium."""
    to = np.array([side * rng.uniform(-0.2, 0.4), 1.0, rng.uniform(-0.3, 0.3)])
    if rng.random() < 0.35:
        to = np.array([side * 1.0, rng.uniform(0.1, 0.5), rng.uniform(-0.2, 0.2)])
    to = to / np.linalg.norm(to)
    out = bones.leaves(ala, to)
    return [Rod(start=ala, end=out + float(rng.uniform(8.0, 28.0)) * to, radius_mm=float(rng.uniform(1.1, 1.6)))]


def _epidural(rng: np.random.Generator, bones: Bones, side: int, ala: Points) -> list[Rod]:
    """Balls along the front half of the canal, one beside the next."""
    line = np.asarray(bones.anatomy.landmarks["canal_centreline"], dtype=np.float64)
    near = int(np.argmin(np.abs(line[:, 2] - ala[2] - rng.uniform(-12.0, 6.0))))
    at, radius = line[near], float(rng.uniform(2.0, 3.2))
    ray = at + np.arange(0.0, 12.0, 0.5)[:, None] * np.array([0.0, -1.0, 0.0])
    within = np.flatnonzero(bones.at("canal", ray) < 0)
    front = ray[within[-1]] if len(within) else at
    middle = front + np.array([side * rng.uniform(0.0, 3.0), 0.6 * radius, 0.0])
    reach = np.array([0.0, 0.0, float(rng.uniform(2.0, 6.0))])
    return [ball(middle, radius), ball(middle + reach, 0.8 * radius), ball(middle - reach, 0.8 * radius)]


def _front(rng: np.random.Generator, bones: Bones, side: int, ala: Points) -> list[Rod]:
    """A heap on the front of the ala, with the way to it."""
    to = np.array([side * rng.uniform(-0.1, 0.3), -1.0, rng.uniform(-0.2, 0.3)])
    to = to / np.linalg.norm(to)
    out = bones.leaves(ala, to)
    radius = float(rng.uniform(2.5, 5.0))
    heap = [ball(out + 0.5 * radius * to + np.append(rng.normal(0.0, 2.0, 1), [0.0, rng.normal(0.0, 2.0)]), radius)
            for _ in range(3)]
    return [Rod(start=ala, end=out, radius_mm=1.5), *heap]


def _joint(rng: np.random.Generator, bones: Bones, side: int, ala: Points) -> list[Rod]:
    """A plate between sacrum and ilium; what of it would be bone is cut off where it is put in."""
    to = np.array([side * 1.0, rng.uniform(0.0, 0.4), 0.0])
    to = to / np.linalg.norm(to)
    out = bones.leaves(ala, to)
    return [ball(out + 0.7 * to + np.array([0.0, *rng.normal(0.0, 3.0, 2)]), float(rng.uniform(2.5, 4.0)))
            for _ in range(4)]


_LEAKS: Mapping[Kind, Callable[[np.random.Generator, Bones, int, Points], list[Rod]]] = {
    "vein": _vein, "needle": _needle, "epidural": _epidural, "front": _front, "joint": _joint}
