"""NIfTI out: label maps and volumes on a grid in LPS. This is where LPS becomes RAS on the way out."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Affine, Geometry
from sacroleak.core.gzip_sparse import SparseGzip
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.core.whole import write_whole

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SCANNER_CODE = 1
"""NIfTI's code for "scanner-based anatomical coordinates"."""

Labels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

DATA_OFFSET = 352
TYPE_CODES = {"uint8": 2, "int16": 4, "uint16": 512}
"""NIfTI's codes for the types written here."""
MILLIMETRES = 2
SHEAR_TOLERANCE = 1e-5


def write_labels(path: Path, part: LabelMap, *, start: tuple[int, int, int], grid: Geometry) -> None:
    """Write labels as `labels_file` has them. Written whole or not at all."""
    write_whole(path, labels_file(part, start=start, grid=grid))


def labels_file(part: LabelMap, *, start: tuple[int, int, int], grid: Geometry) -> bytes:
    """A `.nii.gz` of labels on the whole of `grid`: `part` lies at index `start` of it, all else is 0.

    The file's array runs as the grid's [i, j, k] and its affine is the grid's, in RAS. Raises GeometryError if `part`
    is not exactly that region of `grid`.
    """
    stop = tuple(s + n for s, n in zip(start, part.geometry.shape, strict=True))
    grid.crop(start, stop).require_same_grid(part.geometry, "labels to write")
    wide = int(part.labels.max(initial=0)) > 255
    return _packed(_unsigned(part.labels, wide=wide), start, grid)


def write_volume(path: Path, volume: Volume) -> None:
    """Write a CT as `.nii.gz`, int16 HU, on its own grid. Written whole or not at all."""
    stream = SparseGzip()
    stream.add(_header(volume.geometry, np.dtype(np.int16)))
    stream.add(np.rint(volume.hu).astype("<i2").tobytes(order="F"))
    write_whole(path, stream.finish())


def _unsigned(labels: npt.NDArray[np.generic], *, wide: bool) -> Labels:
    return labels.astype(np.uint16) if wide else labels.astype(np.uint8, copy=False)


def _packed(labels: Labels, start: tuple[int, int, int], grid: Geometry) -> bytes:
    """Row by row from the first to the last one with labels in every layer; what lies between are zeros."""
    stream = SparseGzip()
    stream.add(_header(grid, labels.dtype))
    (i, j, k), (ni, nj, _) = start, labels.shape
    sides, voxel = grid.shape, labels.dtype.itemsize
    rows = np.zeros((sides[0], nj), dtype=labels.dtype, order="F")
    written = 0  # rows so far
    for layer, used in enumerate(np.any(labels, axis=0).T):
        if not used.any():
            continue
        rows[i:i + ni] = labels[:, :, layer]
        places = np.flatnonzero(used)
        first, last = int(places[0]), int(places[-1]) + 1
        begin = (k + layer) * sides[1] + j + first
        stream.add_zeros((begin - written) * sides[0] * voxel)
        stream.add(rows[:, first:last].tobytes(order="F"))
        written = begin + last - first
    stream.add_zeros((sides[1] * sides[2] - written) * sides[0] * voxel)
    return stream.finish()


def _header(grid: Geometry, dtype: np.dtype[np.generic]) -> bytes:
    """The 348-byte header and the empty extension word. A sheared grid (gantry tilt) has no qform, only the sform.

    Offsets are those of nifti1.h. To write it here spares scans that come as DICOM the 0.2 s to load nibabel.
    """
    affine = RAS_FROM_LPS @ grid.affine
    header = bytearray(DATA_OFFSET)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *grid.shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, TYPE_CODES[dtype.name], 8 * dtype.itemsize)
    struct.pack_into("<8f", header, 76, 1, *grid.spacing_mm, 1, 1, 1, 1)
    struct.pack_into("<2f", header, 108, DATA_OFFSET, 1)  # and a slope of 1
    header[123] = MILLIMETRES
    axes = affine[:3, :3] / grid.spacing_mm
    if np.abs(axes.T @ axes - np.eye(3)).max() < SHEAR_TOLERANCE:
        side, quaternion = _turn(axes)
        struct.pack_into("<f", header, 76, side)
        struct.pack_into("<h", header, 252, SCANNER_CODE)
        struct.pack_into("<6f", header, 256, *quaternion[1:], *affine[:3, 3])
    struct.pack_into("<h", header, 254, SCANNER_CODE)
    struct.pack_into("<12f", header, 280, *affine[:3].ravel())
    header[344:348] = b"n+1\0"
    return bytes(header)


def _turn(axes: Affine) -> tuple[float, Affine]:
    """The (3, 3) unit axes as a side (-1: the third is turned round first) and a quaternion w, x, y, z with w >= 0."""
    side = 1.0 if np.linalg.det(axes) > 0 else -1.0
    left, _, right = np.linalg.svd(axes * [1.0, 1.0, side])
    m = left @ right  # the nearest rotation
    form = np.array([[m[0, 0] - m[1, 1] - m[2, 2], 0, 0, 0],
                     [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], 0, 0],
                     [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], 0],
                     [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m.trace()]]) / 3.0
    quaternion = np.linalg.eigh(form)[1][[3, 0, 1, 2], -1]  # Bar-Itzhack 2000, doi:10.2514/2.4654
    return side, -quaternion if quaternion[0] < 0 else quaternion
