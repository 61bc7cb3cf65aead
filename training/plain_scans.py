"""Scans of another maker: balls and rods of one density, in bones of two densities or in a real CT.

A model that knows only `simulation/` may have learned how that makes cement. This shares nothing with it but the shapes
of bones. It is plain on purpose: no veins that branch, no streaks, no lesions that soak; but for what a `Trouble` adds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.structures import Site, Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.resample import Field, sample_separable
from sacroleak.training.plain_shapes import BONES, Bones, Rod, ball, filled, inside, lumps, mix
from sacroleak.training.plain_troubles import Trouble, streaks_of
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.case import Case, LeakTruth

Kind = Literal["vein", "needle", "epidural", "front", "joint"]
SITE_OF: Mapping[Kind, Site] = {"vein": Site.SACRAL_VENOUS_PLEXUS, "needle": Site.PUNCTURE_PATH,
                                "epidural": Site.ANTERIOR_EPIDURAL_SPACE, "front": Site.ANTERIOR_SACRAL_SPACE,
                                "joint": Site.OTHER}
HARD = ("sacrum", "hip_left", "hip_right", "l5", "l4", "femur_left", "femur_right", "coccyx")
WITHOUT_LEAK, SECOND_LEAK = 0.35, 0.2
"""Shares of scans; a third of the reference cohort leaked, here two thirds do, because leaks are what is measured."""
CEMENT_HU = (1400.0, 3000.0)
SIZE_MM = (200.0, 150.0, 170.0)
"""Of a rendered scan along L, P, S; of the real CT this much around the sacrum is kept."""
LOWEST_HU, HIGHEST_HU, METAL_HU = -1024, 3071, 8000.0
WITH_SCREW = 0.2
SMALLEST_ML = 0.02
"""A leak that comes out smaller is left out of the scan."""


def plain_case(rng: np.random.Generator, anatomy: Anatomy, trouble: Trouble | None = None) -> Case:
    """One scan: rendered from the bones, or in the anatomy's own real CT if it brings one. Left is +x in LPS."""
    bones, trouble = Bones(anatomy=anatomy), trouble or Trouble()
    grid, hu = _behind(rng, bones)
    trouble.painted(rng, hu, bones, grid)
    distances = {name: bones.on(name, grid) for name in BONES}
    labels = np.zeros(grid.shape, dtype=np.uint8)
    for name, structure in BONES.items():
        labels[(distances[name] < 0) & (labels == 0)] = structure
    side = int(rng.choice([-1, 1]))
    body = lumps(rng, bones, side)
    share = trouble.spread(rng, filled([*body, *trouble.body(rng, bones, side)], grid), grid)
    share = np.minimum(share, inside(distances["sacrum"] + 1.0, grid))
    leaks, truth = np.zeros(grid.shape, dtype=np.uint8), list[LeakTruth]()
    for kind in _kinds(rng):
        out = _in_its_space(kind, filled(_LEAKS[kind](rng, bones, side, body[0].start), grid), distances, grid)
        own = (out > 0.5) & (labels != Structure.SACRUM) & (leaks == 0)
        ml = float(np.count_nonzero(own)) * grid.voxel_ml
        if ml >= SMALLEST_ML:
            truth.append(LeakTruth(number=len(truth) + 1, site=SITE_OF[kind], mechanism=kind, volume_ml=ml))
            leaks[own] = len(truth)
            share = np.maximum(share, out)
    hu += share * np.maximum(np.float32(rng.uniform(*(trouble.cement_hu or CEMENT_HU))) - hu, 0.0)
    screw = _screw(rng, bones, -side) if rng.random() < WITH_SCREW else []
    metal = filled([*screw, *trouble.metal(rng, bones, side)], grid)
    if trouble.streaks:
        hu += streaks_of(rng, metal, grid)
    hu += metal * np.maximum(np.float32(METAL_HU) - hu, 0.0)
    seen = _as_scanned(rng, hu, over=anatomy.background is not None)
    return trouble.scanned(rng, Case(
        ct=Volume(hu=seen, geometry=grid), anatomy=LabelMap(labels=labels, geometry=grid),
        cement=LabelMap(labels=(share > 0.5) & (metal <= 0.5), geometry=grid),
        leaks=LabelMap(labels=np.where(metal > 0.5, 0, leaks).astype(np.uint8), geometry=grid),
        metal=LabelMap(labels=metal > 0.5, geometry=grid), truth=tuple(truth)), bones)


def _in_its_space(kind: Kind, share: Field, distances: Mapping[str, Field], grid: Geometry) -> Field:
    """What lies in the canal of an epidural leak, and outside the bones of one in a joint; any other as it is."""
    if kind == "epidural":
        return np.minimum(share, inside(distances["canal"], grid))
    if kind == "joint":
        bones = [inside(distances[name], grid) for name in ("sacrum", "hip_left", "hip_right")]
        free: Field = np.clip(1.0 - sum(bones), 0.0, 1.0).astype(np.float32)
        return np.minimum(share, free)
    return share


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
    middle = bones.middle()
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


def _rendered(rng: np.random.Generator, bones: Bones, grid: Geometry) -> Field:
    """Soft tissue of two densities in an ellipse, bone of two, balls of gas and contrast in the pelvis."""
    middle = bones.middle()
    x, y = (grid.affine[a, 3] + grid.affine[a, a] * np.arange(grid.shape[a]) for a in range(2))
    round_ = np.hypot((x[:, None, None] - middle[0]) / 175.0, (y[None, :, None] - middle[1] + 45.0) / 115.0)
    hu = np.where(round_ > 1.0, -1000.0, np.where(round_ > 0.85, -100.0, 50.0)).astype(np.float32)
    hu = np.ascontiguousarray(np.broadcast_to(hu, grid.shape))
    for _ in range(int(rng.integers(4, 10))):
        at = middle + np.array([rng.uniform(-60, 60), rng.uniform(-95, -50), rng.uniform(-70, 70)])
        mix(hu, [ball(at, float(rng.uniform(6, 20)))], float(rng.choice([-850.0, 10.0, 30.0, 300.0])), grid)
    cortex, marrow = float(rng.uniform(500, 1100)), float(rng.uniform(80, 280))
    grain = gaussian_filter(rng.standard_normal(grid.shape, dtype=np.float32), 1.5) * 5.0
    thick = float(rng.uniform(0.8, 2.2))
    for name in (name for name in HARD if name in bones.anatomy.fields):
        distance = bones.on(name, grid)
        within, deep = inside(distance, grid), inside(distance + thick, grid)
        hu += within * (cortex + deep * (marrow + 60.0 * grain - cortex) - hu)
    canal = inside(bones.on("canal", grid), grid)
    hu += canal * (25.0 - hu)
    if rng.random() < 0.3:
        at = bones.ala(1 if rng.random() < 0.5 else -1)
        mix(hu, [ball(at, float(rng.uniform(5, 9)))], float(rng.uniform(500, 900)), grid)
    return hu


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
