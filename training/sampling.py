"""Endless labelled patches, made on the fly by worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import maximum_filter
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from sacroleak.core.structures import Structure
from sacroleak.models.architecture import NetworkSpec
from sacroleak.models.intensity import erase, to_channels
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.case import Case, centred_grid, draw_case
from sacroleak.training.simulation.scene import Scene, Warp, draw_warp, place

Sample = tuple[Tensor, Tensor, Tensor]
Mask = npt.NDArray[np.bool_]
Point = npt.NDArray[np.float64]
BONES = (Structure.SACRUM, Structure.HIP_LEFT, Structure.HIP_RIGHT, Structure.L5)
SWAY_MM = np.array([18.0, 18.0, 25.0])
"""How far the middle of the sacrum may lie from the middle of a fine patch; of a coarse one 3.5 times as far."""
NEAR_SWAY_MM, AROUND_MM = 12.0, 50.0
SHARED = 3
"""Cases that share one placed pelvis, each with its own operation, tissue and scanner: placing takes longest."""

UNDER = "under"
CLOSE = ("near", UNDER)
LOOKS = 2
"""Samples made of each case: the scan as it is, and with its cement erased, as the second look at the bones sees it.
The network `under` is shown the first only."""
TRIES, WITHOUT_LEAK = 3, 0.35
"""It learns from cement in view, best from a leak: so often another case is drawn, unless cement without leak has this
chance."""
STRAY_MM = (2.0, 9.0)
"""Radius of what is erased without being cement, because a detector errs."""
TRAILS, TRAIL_MM, TRAIL_LENGTH_MM = 6, (1.0, 5.0), 35.0
"""Most tubes that are erased from the bones' surfaces on, their radius and greatest length. Cement lies mostly in bone:
without them a network learns that what is hidden is bone, instead of looking at what is around it."""
BEND = 0.3
"""How much a tube turns from ball to ball."""


def random_scene(rng: np.random.Generator, anatomy: Anatomy, spec: NetworkSpec) -> Scene:
    """One randomly placed pelvis on the network's own grid, what the network is for somewhere in its middle."""
    warp = draw_warp(rng, anatomy)
    if spec.name in CLOSE:
        centre = _near_bone(rng, anatomy, warp)
    else:
        centre = rng.uniform(-1, 1, size=3) * SWAY_MM * (1.0 if spec.name == "fine" else 3.5)
    size = tuple(n * spec.spacing_mm for n in spec.patch)
    grid = centred_grid(size, (spec.spacing_mm,) * 3, centre)  # type: ignore[arg-type]
    return place(anatomy, grid, warp, rng)


def _near_bone(rng: np.random.Generator, anatomy: Anatomy, warp: Warp) -> Point:
    """Mostly a point of the sacrum, at times of what lies around it; (3,) LPS mm of the scene."""
    inside = np.argwhere(anatomy.fields["sacrum"] < 0)
    point = anatomy.geometry.to_lps(inside[int(rng.integers(len(inside)))])
    scene = np.linalg.solve(warp.matrix, point - warp.focus_mm)
    scene = scene * (-1.0 if warp.mirrored else 1.0, 1.0, 1.0)
    away = NEAR_SWAY_MM if rng.random() < 0.75 else AROUND_MM
    moved: Point = scene + rng.uniform(-away, away, size=3)
    return moved


def random_case(rng: np.random.Generator, scene: Scene, *, wild_share: float = 0.5) -> Case:
    """One randomised case, `wild_share` of them far beyond realism."""
    return draw_case(rng, scene, wild=bool(rng.random() < wild_share))


def to_sample(case: Case, spec: NetworkSpec, erased: Mask | None = None) -> Sample:
    """Channels (2, i, j, k) bfloat16, anatomy (i, j, k) uint8, cement and metal (2, i, j, k) uint8.

    `erased`: what is hidden from the network. A close network sees too little of the pelvis to tell left from right:
    both hips are one to it.
    """
    channels = to_channels(case.ct.hu)
    if erased is not None:
        erase(channels, erased)
    dense = np.stack([case.cement.labels, case.metal.labels]).astype(np.uint8)
    anatomy = case.anatomy.labels
    if spec.name in CLOSE:
        anatomy = np.where(anatomy == Structure.HIP_RIGHT, np.uint8(Structure.HIP_LEFT), anatomy)
    return torch.from_numpy(channels).to(torch.bfloat16), torch.from_numpy(anatomy), torch.from_numpy(dense)


def draw_erased(rng: np.random.Generator, case: Case) -> Mask:
    """Cement as a detector would find it, (i, j, k): grown by up to 3 mm, at times in part only, at times with a bright
    ball of something else; and tubes like leaks, in and out of bone.
    """
    spacing = float(case.ct.geometry.spacing_mm.min())
    found = case.cement.labels.astype(bool)
    if found.any() and rng.random() < 0.25:
        kept = np.zeros_like(found)
        _hide(kept, _any_of(rng, found), rng.uniform(4.0, 12.0) / spacing)
        found = found & ~kept
    reach = round(float(rng.uniform(0.0, 3.0)) / spacing)
    erased: Mask = maximum_filter(found, size=2 * reach + 1) if reach else found.copy()
    bright = case.ct.hu > 300
    for _ in range(int(rng.integers(0, 3)) if rng.random() < 0.4 or not found.any() else 0):
        if bright.any():
            _hide(erased, _any_of(rng, bright), rng.uniform(*STRAY_MM) / spacing)
    bone = np.isin(case.anatomy.labels, BONES)
    surface = maximum_filter(bone, size=3) & ~bone
    for _ in range(int(rng.integers(0, TRAILS + 1)) if surface.any() else 0):
        _hide_trail(rng, erased, _any_of(rng, surface), spacing)
    return erased


def _hide_trail(rng: np.random.Generator, erased: Mask, start: Point, spacing: float) -> None:
    """Set a bent tube of `erased` from `start` on, in place."""
    radius = rng.uniform(*TRAIL_MM) / spacing
    point, step = start, rng.normal(size=3)
    for _ in range(int(rng.uniform(1, max(2.0, TRAIL_LENGTH_MM / spacing / radius)))):
        _hide(erased, point, radius)
        step = step / np.linalg.norm(step) + BEND * rng.normal(size=3)
        point = point + radius * step / np.linalg.norm(step)


def _any_of(rng: np.random.Generator, mask: Mask) -> Point:
    """Index of a random voxel of `mask`, (3,)."""
    return np.array(np.unravel_index(int(rng.choice(np.flatnonzero(mask))), mask.shape), dtype=np.float64)


def _hide(erased: Mask, centre: Point, radius: float) -> None:
    """Set a ball, in voxels, in place."""
    low = np.maximum(np.floor(centre - radius), 0).astype(int)
    high = np.minimum(np.ceil(centre + radius).astype(int) + 1, erased.shape)
    if (low >= high).any():
        return
    i, j, k = (np.arange(a, b) - c for a, b, c in zip(low, high, centre, strict=True))
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    erased[box] |= i[:, None, None] ** 2 + j[:, None] ** 2 + k**2 < radius**2


class SyntheticPatches(IterableDataset[Sample]):
    """Sample n depends on `seed` and n alone, whatever the number of workers, so that a resumed run goes on exactly.

    `every`: samples `start`, `start` + `every` and so on, where several processes share them out. `wild_share`: of the
    cases that are randomised far beyond realism.
    """

    def __init__(self, files: list[Path], spec: NetworkSpec, *, seed: int, start: int, every: int = 1,
                 wild_share: float = 0.5) -> None:
        super().__init__()
        self.files, self.spec, self.seed, self.start, self.every = files, spec, seed, start, every
        self.wild_share = wild_share

    def __iter__(self) -> Iterator[Sample]:
        """From sample `start` on, this worker's share."""
        torch.set_num_threads(1)
        worker = get_worker_info()
        workers, own = (worker.num_workers, worker.id) if worker else (1, 0)
        step, number = self.every * workers, self.start + self.every * own
        looks = 1 if self.spec.name == UNDER else LOOKS
        scene, case, drawn = None, None, -1
        while True:
            wanted, look = divmod(number, looks)
            if scene is None or wanted // SHARED != drawn // SHARED:
                draw = np.random.default_rng((self.seed, wanted // SHARED, 0))
                # Read anew each time, a tenth of a second in six samples: hundreds of anatomies are gigabytes.
                anatomy = Anatomy.load(self.files[int(draw.integers(len(self.files)))])
                scene = random_scene(draw, anatomy, self.spec)
            if case is None or wanted != drawn:
                rng = np.random.default_rng((self.seed, wanted))
                case, drawn = self._case(rng, scene), wanted
            erased = draw_erased(np.random.default_rng((self.seed, number, look)), case) if look else None
            yield to_sample(case, self.spec, erased)
            number += step

    def _case(self, rng: np.random.Generator, scene: Scene) -> Case:
        case = random_case(rng, scene, wild_share=self.wild_share)
        for _ in range(TRIES - 1 if self.spec.name == UNDER else 0):
            if case.leaks.labels.any() or (case.cement.labels.any() and rng.random() < WITHOUT_LEAK):
                break
            case = random_case(rng, scene, wild_share=self.wild_share)
        return case
