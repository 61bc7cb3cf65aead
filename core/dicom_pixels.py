"""Pixels of an ordered series to Hounsfield units, each file read once, without a second copy of the scan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sacroleak.core.dicom_elements import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from sacroleak.core.dicom_header import SliceHeader, quiet
from sacroleak.core.errors import SeriesError

HuArray = npt.NDArray[np.int16] | npt.NDArray[np.float32]
Stored = npt.NDArray[np.int16] | npt.NDArray[np.uint16]

_NATIVE = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG)
PLUGINS = ("pyjpegls", "pylibjpeg", "pydicom", "gdcm")
"""The first that knows a syntax decodes it: JPEG-LS, JPEG 2000, RLE; GDCM, which prints to the console, the rest."""

_INT16 = np.iinfo(np.int16)


def read_hu(slices: Sequence[SliceHeader]) -> HuArray:
    """HU of an ordered series, [i, j, k] = (columns, rows, slices), Fortran order.

    int16 where slope and intercept are whole and the result fits, else float32. Raises SeriesError if a file is cut
    short or its compressed pixels cannot be decoded.
    """
    whole = all(s.slope == 1 and s.intercept == int(s.intercept or 0) for s in slices)
    hu = _read_whole(slices) if whole else None
    return _read_scaled(slices) if hu is None else hu


def _read_whole(slices: Sequence[SliceHeader]) -> npt.NDArray[np.int16] | None:
    """Stored values are read into the result and shifted in place; None when a value leaves the range of int16."""
    pixels = slices[0].pixels
    hu = np.empty((len(slices), pixels.rows, pixels.columns), dtype=np.int16)
    for number, (header, out) in enumerate(zip(slices, hu, strict=True), start=1):
        stored = out if pixels.signed else out.view(np.uint16)
        _read_stored(header, stored, f"slice {number} of {len(slices)}")
        shift = int(header.intercept or 0)
        if int(stored.min()) + shift < _INT16.min or int(stored.max()) + shift > _INT16.max:
            return None
        # arithmetic modulo 2**16, so a stored 40000 with intercept -32768 comes out right
        np.add(stored, np.array(shift % 65536, dtype=np.uint16).astype(stored.dtype), out=stored)
    return hu.transpose(2, 1, 0)


def _read_scaled(slices: Sequence[SliceHeader]) -> npt.NDArray[np.float32]:
    pixels = slices[0].pixels
    hu = np.empty((len(slices), pixels.rows, pixels.columns), dtype=np.float32)
    stored = np.empty(hu.shape[1:], dtype=np.int16 if pixels.signed else np.uint16)
    for number, (header, out) in enumerate(zip(slices, hu, strict=True), start=1):
        _read_stored(header, stored, f"slice {number} of {len(slices)}")
        np.multiply(stored, np.float32(header.slope or 0), out=out)
        out += np.float32(header.intercept or 0)
    return hu.transpose(2, 1, 0)


def _read_stored(header: SliceHeader, out: Stored, what: str) -> None:
    """Fill `out` (rows, columns) with the stored values, bits above the stored ones cleared or sign-extended."""
    if header.transfer_syntax in _NATIVE and header.pixel_length is not None:
        _read_native(header, out, what)
    else:
        _decode(header, out, what)
    unused = 16 - header.pixels.bits_stored
    if unused:  # old scanners kept overlays there
        np.left_shift(out, unused, out=out)
        np.right_shift(out, unused, out=out)


def _read_native(header: SliceHeader, out: Stored, what: str) -> None:
    with header.path.open("rb", buffering=0) as stream:
        stream.seek(header.pixel_offset or 0)
        got = stream.readinto(out.data.cast("B")) or 0
    if min(got, header.pixel_length or 0) < out.nbytes:
        raise SeriesError(f"{what} is cut short: {min(got, header.pixel_length or 0)} bytes of pixels, "
                          f"wanted {out.nbytes}")
    if header.transfer_syntax == EXPLICIT_BIG:
        out.byteswap(inplace=True)


def _decode(header: SliceHeader, out: Stored, what: str) -> None:
    from pydicom import dcmread  # 0.4 s: scans that are not compressed need none of it
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    syntax = UID(header.transfer_syntax)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise SeriesError(f"transfer syntax {syntax} is not supported") from None
    plugin = next((p for p in PLUGINS if p in decoder.available_plugins), "")
    if not decoder.is_native and not plugin:
        raise SeriesError(f"no decoder is installed for {syntax.name} ({syntax})")
    try:
        with quiet():
            decoded, _ = decoder.as_array(dcmread(header.path, force=True), raw=True, index=0, decoding_plugin=plugin)
    except Exception:  # noqa: BLE001 - decoders raise nearly every built-in error on damaged data
        raise SeriesError(f"{what}: its {syntax.name} pixels are damaged or cut short") from None
    if decoded.shape != out.shape:
        raise SeriesError(f"{what}: decoded to {decoded.shape}, wanted {out.shape}")
    np.copyto(out, decoded, casting="unsafe")
