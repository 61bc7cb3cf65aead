"""From the slices of one series to one grid, by ImagePositionPatient, ImageOrientationPatient and PixelSpacing alone.

Patient position (head or feet first, supine or prone), instance numbers, slice locations and file order are never
consulted: scanners and exporters write them in too many ways. Refusals are SeriesError, one sentence, no patient text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from sacroleak.core.dicom_header import Numbers, SliceHeader
from sacroleak.core.errors import SeriesError
from sacroleak.core.geometry import Geometry, Points

MIN_SLICES = 10
"""Fewer slices cannot show the sacrum (about 100 mm long) even at the largest spacing allowed."""

MAX_SPACING_MM = 5.0
"""Slices farther apart are refused: leaks are 1-4 mm thick, and 5 mm is the thickest axial CT in routine use."""

POSITION_TOLERANCE_MM = 0.1
"""A slice may lie this far from its place on an even stack: scanners round positions to 0.1 mm at worst."""

MISSING_FACTOR = 1.5
"""A gap of this many usual gaps means that at least one slice is missing."""

DUPLICATE_FACTOR = 0.1
"""A gap below this share of the pixel spacing means two slices at one place."""

ANGLE_TOLERANCE = 1e-4
"""Direction cosines of one series may differ by this (0.05 mm over 500 mm)."""

UNIT_TOLERANCE = 1e-3
"""Rows and columns must be of unit length and perpendicular within this."""

MAX_SHEAR = 1.0
"""Sideways shift per slice distance (tan of the tilt). Gantries tilt up to 30 degrees, tan 0.58."""


def stack(slices: Sequence[SliceHeader]) -> tuple[tuple[SliceHeader, ...], Geometry]:
    """The slices in order along the normal of the image plane, and their grid.

    i runs along a row of the image (columns), j down its rows, k along the normal i x j, so the grid is always
    right-handed. A tilted gantry gives a sheared affine, which is kept exactly. Raises SeriesError.
    """
    if len(slices) < MIN_SLICES:
        raise SeriesError(f"has {len(slices)} slices, wanted at least {MIN_SLICES}")
    rows, columns = _require_one_plane(slices)
    positions = np.array([s.position_lps_mm for s in slices], dtype=np.float64)
    normal = np.cross(rows, columns)
    order = np.argsort(positions @ normal, kind="stable")
    ordered = tuple(slices[int(n)] for n in order)
    positions = positions[order]
    _require_even(positions, normal, _spacing(slices[0])[1])
    affine = np.eye(4)
    between_rows, between_columns = _spacing(slices[0])
    affine[:3, 0], affine[:3, 1] = rows * between_columns, columns * between_rows
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(slices) - 1)
    affine[:3, 3] = positions[0]
    shape = (slices[0].pixels.columns, slices[0].pixels.rows, len(slices))
    return ordered, Geometry(affine=affine, shape=shape, frame_of_reference_uid=slices[0].frame_uid or None)


def normal_of(slice_: SliceHeader) -> Points | None:
    """Unit normal of the image plane, LPS; (3,). None without a usable orientation."""
    return None if slice_.orientation is None else _normal(slice_.orientation)


@lru_cache(maxsize=16)  # slices of one series share it
def _normal(orientation: Numbers) -> Points | None:
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    if abs(length - 1) >= 10 * UNIT_TOLERANCE:
        return None
    unit: Points = normal / length
    unit.setflags(write=False)
    return unit


def _spacing(slice_: SliceHeader) -> tuple[float, float]:
    if slice_.pixel_spacing_mm is None:
        raise SeriesError("has no pixel spacing")
    return slice_.pixel_spacing_mm[0], slice_.pixel_spacing_mm[1]


def _require_one_plane(slices: Sequence[SliceHeader]) -> tuple[Points, Points]:
    """Unit vectors along rows (i) and down columns (j), LPS, after checking that all slices share them."""
    for what, values in (("position", [s.position_lps_mm for s in slices]),
                         ("orientation", [s.orientation for s in slices]),
                         ("pixel spacing", [s.pixel_spacing_mm for s in slices])):
        lacking = sum(value is None for value in values)
        if lacking:
            raise SeriesError(f"{lacking} of {len(slices)} slices have no {what}")
    if len({s.frame_uid for s in slices}) > 1:
        raise SeriesError("slices lie in different frames of reference")
    if len({s.pixels for s in slices}) > 1:
        raise SeriesError("slices differ in size or pixel format")
    cosines = np.array([s.orientation for s in slices], dtype=np.float64)
    if float(np.abs(cosines - cosines[0]).max()) > ANGLE_TOLERANCE:
        raise SeriesError("slices have different orientations")
    spacing = np.array([s.pixel_spacing_mm for s in slices], dtype=np.float64)
    if spacing.min() <= 0:
        raise SeriesError("pixel spacing is zero or below")
    if float(np.abs(spacing / spacing[0] - 1).max()) > ANGLE_TOLERANCE:
        raise SeriesError("slices have different pixel spacings")
    rows, columns = cosines[0, :3], cosines[0, 3:]
    lengths = float(np.linalg.norm(rows)), float(np.linalg.norm(columns))
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(float(rows @ columns))) > UNIT_TOLERANCE:
        raise SeriesError("rows and columns of the slices are not perpendicular unit vectors")
    return rows / lengths[0], columns / lengths[1]


def _require_even(positions: Points, normal: Points, pixel_mm: float) -> None:
    """Positions (n, 3) LPS mm, sorted: one per step of an even, straight stack."""
    count = len(positions)
    gaps = np.diff(positions @ normal)
    doubles = int(np.count_nonzero(gaps < DUPLICATE_FACTOR * pixel_mm))
    if doubles:
        raise SeriesError(f"{doubles} of {count} slices are duplicates: they lie where another slice lies")
    usual = float(np.median(gaps))
    wide = np.flatnonzero(gaps > MISSING_FACTOR * usual)
    if len(wide):
        gap = float(gaps[wide[0]])
        raise SeriesError(f"slice {int(wide[0]) + 2} of {count + round(float((gaps[wide] / usual - 1).sum()))} is "
                          f"missing, gap of {gap:.2f} mm where {usual:.2f} mm is usual")
    if usual > MAX_SPACING_MM * 1.001:
        raise SeriesError(f"slices lie {usual:.2f} mm apart, allowed {MAX_SPACING_MM} mm")
    step = (positions[-1] - positions[0]) / (count - 1)
    apart = float(np.linalg.norm(positions - positions[0] - np.arange(count)[:, None] * step, axis=1).max())
    if apart > POSITION_TOLERANCE_MM:
        raise SeriesError(f"slices are unevenly spaced: one lies {apart:.2f} mm from its place, allowed "
                          f"{POSITION_TOLERANCE_MM} mm")
    along = float(step @ normal)
    if float(np.linalg.norm(step - along * normal)) > MAX_SHEAR * along:
        raise SeriesError("slices shift sideways more than a tilted gantry can")
