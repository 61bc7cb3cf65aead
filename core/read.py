"""A Source becomes a Volume: HU on a grid in LPS mm, or one clear sentence why not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from sacroleak.core.dicom_pixels import read_hu
from sacroleak.core.errors import InputError, SeriesError
from sacroleak.core.nifti import MAX_VOXELS, read_nifti
from sacroleak.core.sources import Source, discover
from sacroleak.core.volume import Volume

HU_LIMIT = 32768
"""Values of this size and beyond are no Hounsfield units: extended CT scales end below 31,000."""

MIN_BONE_HU = 200
"""A pelvis holds bone above this; a scan without it is no CT of a pelvis, or not in Hounsfield units."""


def read(source: Source) -> Volume:
    """The scan of a Source from `discover`, k along the slices, Fortran order; int16 where HU are whole.

    Raises SeriesError (the source's own reason if it was refused already).
    """
    if source.kind == "refused":
        raise SeriesError(source.reason)
    try:
        volume = read_nifti(source.files[0]) if source.kind == "nifti" else _read_dicom(source)
    except OSError:
        raise SeriesError("a file of the scan cannot be opened, or is gone") from None
    require_plausible(volume)
    return volume


def read_one(path: Path) -> Volume:
    """The only scan at `path` (file, folder or zip). Raises InputError if there is none, or more than one."""
    volumes = [read(source) for source in discover([path])]
    if len(volumes) != 1:
        raise InputError(f"{len(volumes)} scans found, wanted one")
    return volumes[0]


def input_digest(volume: Volume) -> str:
    """sha256 in hex over the HU in the order of the file, their type and shape, and the affine rounded to 1e-6 mm.

    The same scan gives the same digest from NIfTI or DICOM only if both store it on the same grid.
    """
    state = hashlib.sha256(f"{volume.hu.dtype.name} {volume.geometry.shape}".encode())
    state.update((np.rint(volume.geometry.affine * 1e6) + 0.0).tobytes())  # + 0.0 turns -0 into 0
    for k in range(volume.geometry.shape[2]):
        state.update(np.ascontiguousarray(volume.hu[:, :, k].T).data)
    return state.hexdigest()


def require_plausible(volume: Volume) -> None:
    """Raise SeriesError unless the values can be Hounsfield units of a pelvis: finite, in range, with fat and bone."""
    low, high = float(volume.hu.min()), float(volume.hu.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise SeriesError("the scan holds values that are no numbers (NaN or infinite)")
    if low < -HU_LIMIT or high >= HU_LIMIT:
        raise SeriesError(f"values reach from {low:.3g} to {high:.3g}, which no CT in Hounsfield units does")
    if low == high:
        raise SeriesError(f"all values are {low:g}: the scan is empty")
    if low >= 0:
        raise SeriesError("no value is below 0: the scan is not CT, or not rescaled to Hounsfield units")
    if high < MIN_BONE_HU:
        raise SeriesError(f"the highest value is {high:g}: bone, above {MIN_BONE_HU} HU, is missing, so the scan is "
                          "not a CT of a pelvis")


def _read_dicom(source: Source) -> Volume:
    if source.geometry is None:
        raise SeriesError("the series has not been looked at: take sources from discover()")
    voxels = int(np.prod(source.geometry.shape, dtype=np.float64))
    if voxels > MAX_VOXELS:
        raise SeriesError(f"the series has {voxels} voxels, allowed {MAX_VOXELS}")
    return Volume(hu=read_hu(source.slices), geometry=source.geometry)
