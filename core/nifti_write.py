"""NIfTI out: label maps and volumes on a grid in LPS. This is where LPS becomes RAS on the way out."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Geometry
from sacroleak.core.gzip_sparse import SparseGzip
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.core.whole import write_whole

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SCANNER_CODE = 1
"""NIfTI's code for "scanner-based anatomical coordinates"."""

Labels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

DATA_OFFSET = 352
SHEAR_TOLERANCE = 1e-5


def write_labels(path: Path, part: LabelMap, *, start: tuple[int, int, int], grid: Geometry) -> None:
    """Write labels as `.nii.gz` on the whole of `grid`: `part` lies at index `start` of it, all else is 0.

    The file's array runs as the grid's [i, j, k] and its affine is the grid's, in RAS. Written whole or not at all.
    Raises GeometryError if `part` is not exactly that region of `grid`.
    """
    stop = tuple(s + n for s, n in zip(start, part.geometry.shape, strict=True))
    grid.crop(start, stop).require_same_grid(part.geometry, "labels to write")
    wide = int(part.labels.max(initial=0)) > 255
    write_whole(path, _packed(_unsigned(part.labels, wide=wide), start, grid))


def write_volume(path: Path, volume: Volume) -> None:
    """Write a CT as `.nii.gz`, int16 HU, on its own grid. Written whole or not at all."""
    stream = SparseGzip()
    stream.add(_header(volume.geometry, np.dtype(np.int16)))
    stream.add(np.rint(volume.hu).astype("<i2").tobytes(order="F"))
    write_whole(path, stream.finish())


def _unsigned(labels: npt.NDArray[np.generic], *, wide: bool) -> Labels:
    return labels.astype(np.uint16) if wide else labels.astype(np.uint8, copy=False)


def _packed(labels: Labels, start: tuple[int, int, int], grid: Geometry) -> bytes:
    stream = SparseGzip()
    stream.add(_header(grid, labels.dtype))
    (i, j, k), (ni, nj, nk) = start, labels.shape
    plane = np.zeros(grid.shape[:2], dtype=labels.dtype, order="F")
    used = np.any(labels, axis=(0, 1)).tolist()
    stream.add_zeros(plane.nbytes * k)
    for layer in range(nk):
        if not used[layer]:
            stream.add_zeros(plane.nbytes)
            continue
        plane[i:i + ni, j:j + nj] = labels[:, :, layer]
        stream.add(plane.tobytes(order="F"))
    stream.add_zeros(plane.nbytes * (grid.shape[2] - k - nk))
    return stream.finish()


def _header(grid: Geometry, dtype: np.dtype[np.generic]) -> bytes:
    """The 348-byte header and the empty extension word. A sheared grid (gantry tilt) has no qform, only the sform."""
    affine = RAS_FROM_LPS @ grid.affine
    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(dtype)
    header.set_data_shape(grid.shape)
    header.set_zooms(grid.spacing_mm)
    header.set_xyzt_units("mm")
    header["vox_offset"] = DATA_OFFSET
    axes = affine[:3, :3] / grid.spacing_mm
    if np.abs(axes.T @ axes - np.eye(3)).max() < SHEAR_TOLERANCE:
        header.set_qform(affine, code=SCANNER_CODE)
    header.set_sform(affine, code=SCANNER_CODE)
    return bytes(header.binaryblock) + bytes(DATA_OFFSET - 348)
