"""NIfTI in: a CT with a usable affine becomes a Volume. This is where RAS becomes LPS on the way in."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sacroleak.core.errors import GeometryError, SeriesError
from sacroleak.core.geometry import Affine, Geometry, Shape
from sacroleak.core.nifti_write import RAS_FROM_LPS
from sacroleak.core.silence import silent
from sacroleak.core.volume import Volume

if TYPE_CHECKING:
    from nibabel.arrayproxy import ArrayProxy
    from nibabel.nifti1 import Nifti1Header as Header

MAX_VOXELS = 1 << 30
"""A 512x512 scan of 4,096 slices. A header that claims more is damaged or hostile."""

MIN_SPACING_MM, MAX_SPACING_MM = 0.05, 5.0
"""Voxel sides of a CT that can show the sacrum; beyond, the file is usually in metres, microns, or no unit at all."""

AFFINE_TOLERANCE_MM = 1.0
"""Two scanner-based affines of one file (sform and qform) may place a corner this far apart."""

_SCANNER = 1
_BLOCK = 4 << 20

HuArray = npt.NDArray[np.int16] | npt.NDArray[np.float32]


def read_nifti(path: Path) -> Volume:
    """The CT in a `.nii` or `.nii.gz` file (NIfTI-1 or -2, either byte order), on its own grid, LPS mm.

    HU are int16 where every value is whole and in range, else float32, Fortran order. Raises SeriesError.
    """
    header, proxy = _header(path)
    shape = _shape(header)
    try:
        geometry = Geometry(affine=_affine_lps(header, shape), shape=shape)
    except GeometryError:
        raise SeriesError("the affine of the NIfTI file cannot be used: it is not finite and invertible") from None
    _require_spacing(geometry)
    stored = _stored(path, header.get_data_dtype(), shape, offset=int(proxy.offset))
    return Volume(hu=_to_hu(stored, float(proxy.slope), float(proxy.inter)), geometry=geometry)


def _header(path: Path) -> tuple[Header, ArrayProxy]:
    """The header, and the proxy that alone knows offset and scaling: nibabel empties them in the header."""
    import nibabel as nib  # 0.2 s, and pydicom's 0.4 s besides: scans that come as DICOM need none of it
    from nibabel.arrayproxy import ArrayProxy

    if path.stat().st_size == 0:
        raise SeriesError("the file is empty")
    try:
        with silent():  # nibabel prints repairs of odd headers
            image = nib.load(path, mmap=False)
    except Exception:  # noqa: BLE001 - nibabel raises nearly every error on damaged headers, path included
        raise SeriesError("the file is not a readable NIfTI image: damaged or cut short") from None
    header, proxy = image.header, getattr(image, "dataobj", None)
    if not isinstance(header, nib.Nifti1Header) or not isinstance(proxy, ArrayProxy):  # NIfTI-2 headers are among them
        raise SeriesError("the file is not a NIfTI image")
    return header, proxy


def _shape(header: Header) -> Shape:
    sides = tuple(int(n) for n in header.get_data_shape())
    while len(sides) > 3 and sides[-1] == 1:
        sides = sides[:-1]
    if len(sides) != 3:
        raise SeriesError(f"the image is {len(sides)}-D, wanted 3-D: one CT volume")
    if min(sides) < 2 or int(np.prod(sides, dtype=np.float64)) > MAX_VOXELS:
        raise SeriesError(f"the image has {'x'.join(map(str, sides))} voxels, wanted sides of at least 2 and at most "
                          f"{MAX_VOXELS} in all")
    return sides[0], sides[1], sides[2]


def _affine_lps(header: Header, shape: Shape) -> Affine:
    """The sform if it has a code, else the qform; if both claim the scanner's frame they must agree."""
    if header.get_xyzt_units()[0] not in ("mm", "unknown"):
        raise SeriesError(f"the NIfTI file is in units of {header.get_xyzt_units()[0]}, wanted mm")
    try:
        sform, sform_code = header.get_sform(coded=True)
        qform, qform_code = header.get_qform(coded=True)
    except Exception:  # noqa: BLE001 - a damaged quaternion makes nibabel raise its own error or numpy's
        raise SeriesError("the affine of the NIfTI file cannot be used: its quaternion is damaged") from None
    if sform is None and qform is None:
        raise SeriesError("the NIfTI file has no affine (sform and qform codes are 0), so left and right are unknown")
    if sform_code == qform_code == _SCANNER:
        ends = np.array([[0, 0, 0, 1], [*(n - 1 for n in shape), 1]], dtype=np.float64)
        apart = float(np.abs(ends @ (sform - qform).T).max())
        if not apart <= AFFINE_TOLERANCE_MM:
            raise SeriesError(f"sform and qform of the NIfTI file disagree by {apart:.1f} mm, allowed "
                              f"{AFFINE_TOLERANCE_MM} mm")
    chosen: Affine = RAS_FROM_LPS @ np.asarray(qform if sform is None else sform, dtype=np.float64)
    return chosen


def _require_spacing(geometry: Geometry) -> None:
    spacing = geometry.spacing_mm
    if spacing.min() < MIN_SPACING_MM or spacing.max() > MAX_SPACING_MM * 1.001:
        sides = " x ".join(f"{s:.3g}" for s in spacing)
        raise SeriesError(f"voxels are {sides} mm, allowed {MIN_SPACING_MM} to {MAX_SPACING_MM} mm")


def _stored(path: Path, dtype: np.dtype[np.generic], shape: Shape, *, offset: int) -> npt.NDArray[np.generic]:
    """The file's own numbers in native byte order, [i, j, k], Fortran order; read straight into their place."""
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise SeriesError("the image holds colours or complex numbers, wanted Hounsfield units")
    stored = np.empty(shape[::-1], dtype=dtype)
    try:
        with _opened(path) as stream:
            stream.seek(offset)
            _fill(stream, stored.data.cast("B"))
    except (OSError, EOFError, zlib.error):
        raise SeriesError("the file is damaged or cut short: its pixels cannot be read to the end") from None
    if not dtype.isnative:
        stored.byteswap(inplace=True)
        stored = stored.view(dtype.newbyteorder("="))
    return stored.T


def _opened(path: Path) -> gzip.GzipFile | IO[bytes]:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _fill(stream: gzip.GzipFile | IO[bytes], view: memoryview) -> None:
    done = 0
    while done < len(view):
        block = stream.read(min(_BLOCK, len(view) - done))
        if not block:
            raise EOFError
        view[done:done + len(block)] = block
        done += len(block)
    stream.read(1)  # at the end, so that gzip compares its checksum


def _to_hu(stored: npt.NDArray[np.generic], slope: float, intercept: float) -> HuArray:
    """Scaled values, slice by slice so that no second full-size copy in double precision ever exists."""
    if stored.dtype == np.int16 and slope == 1 and intercept == 0:
        return stored.astype(np.int16, copy=False)
    whole = np.empty(stored.shape, dtype=np.int16, order="F")
    for k in range(stored.shape[2]):
        scaled = _scaled(stored[:, :, k], slope, intercept)
        if not (np.isfinite(scaled).all() and (np.abs(scaled) < 32768).all() and (scaled == np.rint(scaled)).all()):
            break
        whole[:, :, k] = scaled
    else:
        return whole
    del whole
    exact = np.empty(stored.shape, dtype=np.float32, order="F")
    for k in range(stored.shape[2]):
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, and is refused as such
            exact[:, :, k] = _scaled(stored[:, :, k], slope, intercept)
    return exact


def _scaled(values: npt.NDArray[np.generic], slope: float, intercept: float) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore", over="ignore"):
        return values.astype(np.float64) * slope + intercept
