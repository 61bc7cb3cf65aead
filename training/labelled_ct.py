"""A real CT with a label map becomes an anatomy with the CT behind it: everything around the bones stays real."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import edt
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from sacroleak.core.errors import InputError
from sacroleak.core.geometry import Geometry
from sacroleak.core.nifti import read_nifti
from sacroleak.core.volume import Volume
from sacroleak.models.resample import aligned_axes, sample_separable
from sacroleak.training.derived import complete
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.readout import axis_indices
from sacroleak.training.surfaces import FAR_MM, GRID_MM, Distance

NAMES = {"sacrum": ("sacrum", "vertebrae_S1"), "hip_left": ("hip_left",), "hip_right": ("hip_right",),
         "l5": ("vertebrae_L5",), "l4": ("vertebrae_L4",), "femur_left": ("femur_left",),
         "femur_right": ("femur_right",)}
"""Our structures by TotalSegmentator's names; v2 has split S1 off the sacrum, which leaves a hole there."""
REQUIRED = ("sacrum", "hip_left", "hip_right", "l5")
TOTALSEGMENTATOR_V2 = {"sacrum": 25, "vertebrae_S1": 26, "vertebrae_L5": 27, "vertebrae_L4": 28, "femur_left": 75,
                       "femur_right": 76, "hip_left": 77, "hip_right": 78}
"""Numbers of the task `total` in TotalSegmentator v2 (its class map in totalsegmentator/map_to_binary.py)."""
SOFT_HU = 120.0
"""Half way between what fills the canal (fat -100, nerves and fluid 0 to 40) and thin laminae at 3 mm (200 to 300)."""
HU_A_MM = 60.0
"""How steeply bone rises from what surrounds it, on a CT of 1 to 3 mm."""
MARGIN_MM = 16.0
KEPT_MM = 160.0
"""Slices kept of the CT above and below the pelvis."""

Labels = npt.NDArray[np.generic]


def read_names(path: Path) -> dict[str, int]:
    """Name -> number from lines of a number and a name, with a tab or spaces between. Raises InputError."""
    names: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) < 2 or not words[0].isdigit():
            if number == 1:
                continue  # a heading
            raise InputError(f"{path.name}: line {number} is not a number and a name")
        names[words[1]] = int(words[0])
    return names


def read_labelled_ct(ct: Path, labels: Path, names: Path | None = None, *, name: str, source: str) -> Anatomy:
    """The anatomy of a CT and its label map, both NIfTI on one grid; `names`: a table of the labels' numbers.

    Without `names` the numbers are TotalSegmentator v2's. Raises SeriesError for an unusable file, GeometryError for
    two grids, InputError if a bone is missing, or lies where it cannot.
    """
    volume, map_ = read_nifti(ct), read_nifti(labels)
    volume.geometry.require_same_grid(map_.geometry, "labels")
    numbers = TOTALSEGMENTATOR_V2 if names is None else read_names(names)
    return from_labels(volume, map_.hu, numbers, name=name, source=source)


def from_labels(ct: Volume, labels: Labels, numbers: Mapping[str, int], *, name: str, source: str) -> Anatomy:
    """The anatomy of a CT and labels of its shape, whose numbers are named as TotalSegmentator does."""
    ct, labels = _upright(ct, labels)
    masks = {key: np.isin(labels, [numbers[n] for n in theirs if n in numbers]) for key, theirs in NAMES.items()}
    masks = {key: mask for key, mask in masks.items() if mask.any()}
    missing = [key for key in REQUIRED if key not in masks]
    if missing:
        raise InputError(f"{name}: the labels hold no {', '.join(NAMES[key][0] for key in missing)}")
    x = {key: float(ct.geometry.to_lps(np.argwhere(masks[key])).mean(axis=0)[0]) for key in ("hip_left", "hip_right")}
    if x["hip_left"] <= x["hip_right"]:
        raise InputError(f"{name}: hip_left lies to the patient's right of hip_right; left and right are exchanged")
    grid = _grid(masks, ct.geometry)
    bones = {key: _distance(mask, ct.geometry, grid) for key, mask in masks.items()}
    anatomy = complete(name, source, grid, bones, soft=_soft(ct, grid))
    return Anatomy(name=name, source=source, geometry=grid, fields=anatomy.fields, landmarks=anatomy.landmarks,
                   background=_kept(ct, grid))


def _upright(ct: Volume, labels: Labels) -> tuple[Volume, Labels]:
    """Both with their axes along +L +P +S; nothing is interpolated."""
    found = aligned_axes(ct.geometry)
    if found is None:
        raise InputError("the CT's axes are slanted against the patient's; resample CT and labels together first")
    order, sign = found
    flip = tuple(slice(None, None, s) for s in sign)
    sides = np.array(ct.geometry.shape)
    first = np.zeros(3)
    for a in range(3):
        first[order[a]] = 0 if sign[a] > 0 else sides[order[a]] - 1
    spacing = ct.geometry.spacing_mm[list(order)]
    shape = (int(sides[order[0]]), int(sides[order[1]]), int(sides[order[2]]))
    geometry = Geometry.axis_aligned(origin_lps_mm=ct.geometry.to_lps(first), spacing_mm=spacing, shape=shape)
    hu = np.clip(np.rint(np.transpose(ct.hu, order)[flip]), -32768, 32767).astype(np.int16)
    return Volume(hu=hu, geometry=geometry), np.transpose(labels, order)[flip]


def _grid(masks: Mapping[str, npt.NDArray[np.bool_]], geometry: Geometry) -> Geometry:
    """Around the pelvis and L5."""
    index = np.concatenate([np.argwhere(masks[key])[[0, -1]] for key in REQUIRED]
                           + [np.stack([e.min(axis=0), e.max(axis=0)]) for e in map(np.argwhere, (
                               masks["sacrum"], masks["hip_left"], masks["hip_right"], masks["l5"]))])
    low = geometry.to_lps(index.min(axis=0)) - MARGIN_MM
    high = geometry.to_lps(index.max(axis=0)) + MARGIN_MM
    sides = np.ceil((high - low) / GRID_MM).astype(int)
    return Geometry.axis_aligned(origin_lps_mm=low, spacing_mm=GRID_MM,
                                 shape=(int(sides[0]), int(sides[1]), int(sides[2])))


def _distance(mask: npt.NDArray[np.bool_], geometry: Geometry, grid: Geometry) -> Distance:
    """Signed distance in mm on `grid`; steps of the label's voxels are smoothed by half a voxel."""
    step = geometry.spacing_mm
    index = np.argwhere(mask)
    reach = np.ceil((FAR_MM + 3 * step.max()) / step).astype(int)
    low = np.maximum(index.min(axis=0) - reach, 0)
    high = np.minimum(index.max(axis=0) + reach + 1, mask.shape)
    part = np.ascontiguousarray(mask[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))])
    spacing = tuple(float(s) for s in step)
    outside = edt.edt(~part, anisotropy=spacing, black_border=False)
    inside = edt.edt(part, anisotropy=spacing, black_border=False)
    half = float(step.min()) / 2
    signed = np.where(part, half - inside, outside - half).astype(np.float32)
    signed = gaussian_filter(np.clip(signed, -2 * FAR_MM, 2 * FAR_MM), 0.5)
    places = axis_indices(geometry.crop(low, high), grid)
    beyond = [(p < -0.5) | (p > n - 0.5) for p, n in zip(places, part.shape, strict=True)]
    out = np.clip(sample_separable(signed, places), -FAR_MM, FAR_MM)
    for axis, outer in enumerate(beyond):
        # A bone that the scan cuts is closed there.
        out[tuple(outer if a == axis else slice(None) for a in range(3))] = FAR_MM
    return out.astype(np.float32)


def _soft(ct: Volume, grid: Geometry) -> Distance:
    """Positive where the CT shows less than bone, about in mm; on `grid`."""
    places = axis_indices(ct.geometry, grid)
    low = [max(int(np.floor(p[0])) - 2, 0) for p in places]
    high = [max(min(int(np.ceil(p[-1])) + 3, n), a + 2) for p, n, a in zip(places, ct.geometry.shape, low, strict=True)]
    part = ct.crop(low, high)
    smooth = gaussian_filter(part.hu.astype(np.float32), 0.5 / np.maximum(part.geometry.spacing_mm, 0.5))
    hu = sample_separable(smooth, axis_indices(part.geometry, grid))
    soft: Distance = np.clip((SOFT_HU - hu) / HU_A_MM, -4, 4).astype(np.float32)
    return soft


def _kept(ct: Volume, grid: Geometry) -> Volume:
    """The slices within KEPT_MM of the pelvis, whole."""
    low = ct.geometry.to_index(grid.affine[:3, 3] - KEPT_MM)
    high = ct.geometry.to_index(grid.corners_lps_mm().max(axis=0) + KEPT_MM)
    start = max(int(np.floor(low[2])), 0)
    stop = min(int(np.ceil(high[2])) + 1, ct.geometry.shape[2])
    part = ct.crop((0, 0, start), (*ct.geometry.shape[:2], stop))
    return Volume(hu=part.hu.copy(), geometry=part.geometry)
