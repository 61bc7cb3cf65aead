"""What makes a scan of another maker hard to judge: metal, dense things, odd cement, and how it was scanned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

from sacroleak.core.geometry import Geometry
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.resample import Field
from sacroleak.training.plain_shapes import Bones, Rod, ball, filled, inside, lumps, mix
from sacroleak.training.simulation.case import Case

Rng = np.random.Generator
Array = npt.NDArray[Any]

THICK_MM = 5.0
FINEST_THICK_MM = 2.5
"""Slices so thick already are left as they are."""
CUT_MM = 12.0
"""A cut field of view ends so far beyond the middle of the sacrum."""
TURNED_DEG = 22.0
AIR_HU = -1024
STREAK_HU, STREAK_REACH_MM = 250.0, 60.0


def _no_rods(rng: Rng, bones: Bones, side: int) -> list[Rod]:  # noqa: ARG001 - as the others
    return []


def _nothing(rng: Rng, hu: Field, bones: Bones, grid: Geometry) -> None:
    """Paint nothing."""


def _as_it_is(rng: Rng, share: Field, grid: Geometry) -> Field:  # noqa: ARG001 - as the others
    return share


def _unchanged(rng: Rng, case: Case, bones: Bones) -> Case:  # noqa: ARG001 - as the others
    return case


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What differs from a plain scan. `cement_hu`: its range, None as usual. `body`: more cement in the bone, beside
    that on `side`. `spread`: how full of cement each voxel is. `painted`: what is put into the patient before the
    cement, in place. `metal`: what is put in besides; with `streaks`. `scanned`: the scan as it is kept.
    """

    cement_hu: tuple[float, float] | None = None
    body: Callable[[Rng, Bones, int], list[Rod]] = _no_rods
    spread: Callable[[Rng, Field, Geometry], Field] = _as_it_is
    painted: Callable[[Rng, Field, Bones, Geometry], None] = _nothing
    metal: Callable[[Rng, Bones, int], list[Rod]] = _no_rods
    streaks: bool = False
    scanned: Callable[[Rng, Case, Bones], Case] = _unchanged


def streaks_of(rng: Rng, metal: Field, grid: Geometry) -> Field:
    """HU that metal adds to all else in its slices: rays of a few widths that fade with distance."""
    out = np.zeros(grid.shape, dtype=np.float32)
    for k in range(grid.shape[2]):
        own = np.argwhere(metal[:, :, k] > 0.5)
        if len(own) == 0:
            continue
        centre = own.mean(axis=0)
        x, y = np.meshgrid(*((np.arange(n) - c) * s for n, c, s in
                             zip(grid.shape[:2], centre, grid.spacing_mm[:2], strict=True)), indexing="ij")
        turn = np.arctan2(y, x)
        rays = sum(rng.normal() * np.sin(n * turn + rng.uniform(0, 2 * np.pi)) for n in (4, 7, 11, 17, 23, 31))
        out[:, :, k] = STREAK_HU / 2.4 * rays * np.exp(-np.hypot(x, y) / STREAK_REACH_MM)
    return np.asarray(out * (metal <= 0.5), dtype=np.float32)


def _other_side(rng: Rng, bones: Bones, side: int) -> list[Rod]:
    """As much in the other ala."""
    return lumps(rng, bones, -side)


def _grain(rng: Rng, size_mm: float, grid: Geometry) -> Field:
    """A random field of unit variance whose lumps have this size."""
    field = gaussian_filter(rng.standard_normal(grid.shape, dtype=np.float32), size_mm / grid.spacing_mm)
    return np.asarray(field / field.std(), dtype=np.float32)


def _between_trabeculae(rng: Rng, share: Field, grid: Geometry) -> Field:
    """Cement that soaks 4 mm into the bone around it, and fills neither wholly."""
    grain = _grain(rng, float(rng.uniform(0.8, 1.6)), grid)
    around = np.clip(3.0 * gaussian_filter(share, 3.0 / grid.spacing_mm), 0.0, 1.0)
    lace = np.clip(2.0 * grain + 0.1, 0.0, 1.0) * around
    return np.asarray(np.maximum(lace, share * np.clip(0.8 + 0.25 * grain, 0.5, 1.0)), dtype=np.float32)


def _dense_lesions(rng: Rng, hu: Field, bones: Bones, grid: Geometry) -> None:
    """Blastic foci in the sacrum."""
    within = inside(bones.on("sacrum", grid), grid)
    for _ in range(5):
        at = bones.ala(int(rng.choice([-1, 1]))) + rng.normal(0.0, 12.0, 3)
        share = np.minimum(filled([ball(at, float(rng.uniform(4.0, 10.0)))], grid), within)
        share *= np.clip(0.7 + 0.2 * _grain(rng, 1.5, grid), 0.2, 1.0)
        hu += share * np.maximum(np.float32(rng.uniform(800, 1500)) - hu, 0.0)


def _contrast(rng: Rng, hu: Field, bones: Bones, grid: Geometry) -> None:
    """A full bladder or rectum, and vessels or ureters to both sides."""
    middle, value = bones.middle(), float(rng.uniform(200, 1200))
    mix(hu, [ball(middle + (rng.uniform(-10, 10), -75.0, -50.0), float(rng.uniform(15, 28)))], value, grid)
    for side in (-1, 1):
        at, radius = middle + (side * rng.uniform(18, 35), -46.0, 70.0), float(rng.uniform(1.5, 6.0))
        for _ in range(12):
            to = at + (side * rng.uniform(0, 5), rng.uniform(-5, 2), -9.0)
            mix(hu, [Rod(start=at, end=to, radius_mm=radius)], value, grid)
            at = to


def _calcified_arteries(rng: Rng, hu: Field, bones: Bones, grid: Geometry) -> None:
    """Bits of wall along both iliac arteries, and phleboliths."""
    middle = bones.middle()
    for side in (-1, 1):
        at = middle + (side * rng.uniform(18, 40), -48.0, 60.0)
        for _ in range(12):
            to = at + (side * rng.uniform(0, 4), rng.uniform(-5, 3), -9.0)
            if rng.random() < 0.6:
                bit = Rod(start=at, end=at + (to - at) * rng.uniform(0.2, 1.0), radius_mm=float(rng.uniform(0.8, 1.8)))
                mix(hu, [bit], float(rng.uniform(500, 1600)), grid)
            at = to
    for _ in range(6):
        at = middle + rng.uniform(-60, 60, 3) * (1, 0, 1) + (0.0, -45.0, 0.0)
        mix(hu, [ball(at, float(rng.uniform(1.0, 3.0)))], float(rng.uniform(400, 1500)), grid)


def _pedicle_screws(rng: Rng, bones: Bones, side: int) -> list[Rod]:  # noqa: ARG001 - as the others
    """From behind into both alae, one of them through the cement."""
    return [Rod(start=bones.ala(s) + (s * 12.0, 60.0, 12.0), end=bones.ala(s) + (-s * 4.0, -8.0, 0.0),
                radius_mm=float(rng.uniform(2.5, 3.5))) for s in (-1, 1)]


def _prosthesis(rng: Rng, bones: Bones, side: int) -> list[Rod]:  # noqa: ARG001 - as the others
    """Head and stem in one hip."""
    sign = int(rng.choice([-1, 1]))
    head = bones.middle() + (sign * 85.0, -60.0, -70.0)
    return [ball(head, 22.0), Rod(start=head, end=head + (sign * 20.0, 0.0, -60.0), radius_mm=8.0)]


def _cut(rng: Rng, case: Case, bones: Bones) -> Case:
    """Without what lies beyond the middle of the sacrum on the side without cement, or below it."""
    grid = case.ct.geometry
    low, high = np.zeros(3, dtype=int), np.array(grid.shape)
    middle = grid.to_index(bones.middle())
    beyond = CUT_MM / grid.spacing_mm
    cement = float(np.argwhere(case.cement.labels)[:, 0].mean()) if case.cement.labels.any() else middle[0]
    if rng.random() < 0.5:
        low[2] = max(int(middle[2] - beyond[2]), 0)
    elif cement > middle[0]:
        low[0] = max(int(middle[0] - beyond[0]), 0)
    else:
        high[0] = min(int(middle[0] + beyond[0]), high[0])
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return _each(case, lambda values, _: values[box], grid.crop(low, high))


def _thick(rng: Rng, case: Case, bones: Bones) -> Case:  # noqa: ARG001 - as the others
    """In slices of about 5 mm, each the mean of thin ones."""
    grid = case.ct.geometry
    if grid.spacing_mm[2] > FINEST_THICK_MM:
        return case
    count = round(THICK_MM / float(grid.spacing_mm[2]))
    slices = grid.shape[2] // count

    def joined(values: Array, is_label: bool) -> Array:
        stacks = values[:, :, : slices * count].reshape(*values.shape[:2], slices, count)
        if values.dtype == np.bool_:
            return np.asarray(stacks.mean(axis=3) > 0.5)
        return stacks[..., count // 2] if is_label else np.rint(stacks.mean(axis=3)).astype(values.dtype)

    first = grid.to_lps(np.array([[0.0, 0.0, (count - 1) / 2]]))[0]
    return _each(case, joined, Geometry.axis_aligned(
        origin_lps_mm=first, spacing_mm=grid.spacing_mm * (1, 1, count), shape=(*grid.shape[:2], slices)))


def _turned(rng: Rng, case: Case, bones: Bones) -> Case:  # noqa: ARG001 - as the others
    """The patient lies askew."""
    grid, scale = case.ct.geometry, np.diag(case.ct.geometry.spacing_mm)
    turn = Rotation.from_euler("xyz", rng.uniform(-TURNED_DEG, TURNED_DEG, 3), degrees=True).as_matrix()
    motion = np.linalg.inv(scale) @ turn @ scale
    middle = (np.array(grid.shape) - 1) / 2

    def moved(values: Array, is_label: bool) -> Array:
        number = values.astype(np.uint8 if is_label else np.float32)
        out = affine_transform(number, motion, middle - motion @ middle, order=0 if is_label else 1, mode="constant",
                               cval=0 if is_label else AIR_HU)
        return np.asarray(out.astype(values.dtype) if is_label else np.rint(out).astype(values.dtype))

    return _each(case, moved, grid)


def _each(case: Case, change: Callable[[Array, bool], Array], grid: Geometry) -> Case:
    """The case with scan and labels changed, `change` told whether they are labels, and the leaks that are left."""
    def labels(of: LabelMap) -> LabelMap:
        return LabelMap(labels=np.ascontiguousarray(change(of.labels, True)), geometry=grid)

    leaks = labels(case.leaks)
    left = [(truth, int(np.count_nonzero(leaks.labels == truth.number))) for truth in case.truth]
    return replace(
        case, ct=Volume(hu=np.ascontiguousarray(change(case.ct.hu, False)), geometry=grid), leaks=leaks,
        anatomy=labels(case.anatomy), cement=labels(case.cement), metal=labels(case.metal),
        truth=tuple(replace(truth, volume_ml=n * grid.voxel_ml) for truth, n in left if n))


TROUBLES: Mapping[str, Trouble] = {
    "both_sides": Trouble(body=_other_side, spread=_between_trabeculae),
    "between_trabeculae": Trouble(spread=_between_trabeculae),
    "weak_cement": Trouble(cement_hu=(700.0, 1100.0)),
    "saturated_cement": Trouble(cement_hu=(3000.0, 6000.0)),
    "blastic_bone": Trouble(painted=_dense_lesions),
    "contrast": Trouble(painted=_contrast),
    "calcified_arteries": Trouble(painted=_calcified_arteries),
    "pedicle_screws": Trouble(metal=_pedicle_screws),
    "hip_prosthesis": Trouble(metal=_prosthesis, streaks=True),
    "cut_field_of_view": Trouble(scanned=_cut),
    "thick_slices": Trouble(scanned=_thick),
    "turned": Trouble(scanned=_turned),
}
"""By name, in the order in which they are measured."""
