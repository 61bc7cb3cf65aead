"""Cement put into a scan that has none, at a place known from its labels: real tissue around a known truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import edt
import numpy as np
import numpy.typing as npt

from sacroleak.core.errors import InputError
from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.structures import Side
from sacroleak.core.volume import LabelMap, Volume

Mask = npt.NDArray[np.bool_]
Place = Literal["ala", "front"]

CEMENT_HU = 2200.0
"""Middle of the range assumed for bone cement with its radiopacifier, 1200 to 3200 HU; no published value is known."""
PARTS = 4
"""A voxel's share of cement is counted on so many points along each side."""
UPPER_SHARE = 0.35
"""S1 and its alae fill about the upper third of the sacrum's height."""
ALA_MM = 18.0
"""Farther from the midline than this is ala, not body or canal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """An ellipsoid of cement: where, how large along L, P and S, how dense."""

    centre_lps_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    hu: float = CEMENT_HU

    @property
    def volume_ml(self) -> float:
        """Volume of the ellipsoid itself."""
        return float(np.prod(self.radii_mm)) * 4.0 / 3.0 * np.pi / 1000.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Implanted:
    """The scan with cement in it, and the voxels that are cement by more than half."""

    ct: Volume
    cement: LabelMap


def implant(volume: Volume, blobs: Sequence[Blob]) -> Implanted:
    """Mix cement into each voxel by the share of it that a blob fills, as a scanner averages; int16 HU, same grid."""
    hu = volume.hu.astype(np.float32)
    cement = np.zeros(hu.shape, dtype=bool)
    for blob in blobs:
        box, share = _filled(volume.geometry, blob)
        hu[box] += share * np.maximum(np.float32(blob.hu) - hu[box], 0)
        cement[box] |= share > 0.5
    return Implanted(ct=Volume(hu=np.rint(hu).astype(np.int16), geometry=volume.geometry),
                     cement=LabelMap(labels=cement, geometry=volume.geometry))


def blob_at(place: Place, side: Side, sacrum: Mask, geometry: Geometry, *, radius_mm: float) -> Blob:
    """A blob inside the ala, or lying flat on the front of the S1 cortex, on the patient's own left or right.

    `sacrum`: bool on `geometry`, any orientation. Raises InputError if the mask holds no such place.
    """
    if side is Side.MIDLINE:
        raise InputError("implant: wanted the left or the right side")
    index = np.argwhere(sacrum)
    points = geometry.to_lps(index)
    if len(points) == 0:
        raise InputError("implant: the labels hold no sacrum")
    sign = 1.0 if side is Side.LEFT else -1.0
    top = np.percentile(points[:, 2], 99.5)
    upper = points[:, 2] > top - UPPER_SHARE * np.ptp(points[:, 2])
    lateral = sign * (points[:, 0] - np.median(points[:, 0]))
    if place == "ala":
        return _in_ala(sacrum, geometry, (index, points, upper & (lateral > ALA_MM)), radius_mm)
    return _in_front(points[upper & (lateral > 8.0) & (lateral < 24.0)], radius_mm)


def _in_ala(sacrum: Mask, geometry: Geometry, rows: tuple[npt.NDArray[np.int64], Points, Mask],
            radius_mm: float) -> Blob:
    """Around the deepest point of the ala, no larger than stays a millimetre inside."""
    index, points, chosen = rows
    if not chosen.any():
        raise InputError("implant: the sacrum of the labels has no ala on that side")
    depth = edt.edt(sacrum, anisotropy=tuple(float(s) for s in geometry.spacing_mm), black_border=False)
    inside = np.where(chosen, depth[tuple(index.T)], 0.0)
    deepest = _first(-inside, points)
    radius = min(radius_mm, float(inside[deepest]) - 1.0)
    if radius < 2.0:
        raise InputError(f"implant: the ala is only {inside[deepest]:.1f} mm deep, wanted at least 3 mm")
    return Blob(centre_lps_mm=_place(points[deepest]), radii_mm=(radius, radius, radius))


def _in_front(points: Points, radius_mm: float) -> Blob:
    """Touching the foremost bone of S1 from the front, 0.7 times as thick as it is wide."""
    if len(points) == 0:
        raise InputError("implant: the sacrum of the labels has no S1 on that side")
    foremost = points[_first(points[:, 1], points)]
    thin = 0.7 * radius_mm
    # Half a millimetre of overlap, so that it lies on the cortex; it is far thicker than that.
    centre = foremost - np.array([0.0, thin + 0.5, 0.0])
    return Blob(centre_lps_mm=_place(centre), radii_mm=(radius_mm, thin, radius_mm))


def _first(values: npt.NDArray[np.floating[Any]], points: Points) -> int:
    """Row of the smallest value; of equals the one lowest and nearest to the right, however the array is stored."""
    return int(np.lexsort((points[:, 0], points[:, 2], np.round(values, 3)))[0])


def _place(point: Points) -> tuple[float, float, float]:
    x, y, z = point.tolist()
    return x, y, z


def _filled(geometry: Geometry, blob: Blob) -> tuple[tuple[slice, slice, slice], npt.NDArray[np.float32]]:
    """The index box around a blob, and the share of each of its voxels that the blob fills, 0 to 1."""
    centre, radii = np.array(blob.centre_lps_mm), np.array(blob.radii_mm)
    corners = geometry.to_index(centre + np.array(list(product(*((-r, r) for r in radii)))))
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - 1, 0, None)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 2, low + 1, geometry.shape)
    steps = (np.arange(PARTS) + 0.5) / PARTS - 0.5
    index = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1)
    share = np.zeros(index.shape[:3], dtype=np.float32)
    for offset in product(steps, repeat=3):
        away = (geometry.to_lps(index + np.array(offset)) - centre) / radii
        share += (np.square(away).sum(axis=-1) < 1.0).astype(np.float32)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return (i, j, k), share / np.float32(PARTS**3)
