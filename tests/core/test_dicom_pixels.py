"""Stored pixels become Hounsfield units exactly, however they are packed; damaged ones are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from sacroleak.core.dicom_write import SeriesStyle, write_series
from sacroleak.core.errors import GeometryError, InputError, SeriesError
from sacroleak.core.geometry import Geometry
from sacroleak.core.read import input_digest, read
from sacroleak.core.volume import Volume

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEG2000Lossless,
            JPEGLSLossless)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_every_transfer_syntax_gives_the_same_scan(syntax: str, ct: Volume, make_series: Any, only: Any) -> None:
    found = read(only(make_series(transfer_syntax=syntax)))
    assert found.hu.dtype == np.int16
    assert found.hu.flags.f_contiguous
    assert np.array_equal(found.hu, ct.hu)


def to_jpeg_lossless(path: Path) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@pytest.mark.parametrize("signed", [False, True])
def test_jpeg_lossless_of_most_archives(signed: bool, ct: Volume, make_series: Any, only: Any, slices_of: Any) -> None:
    folder = make_series()
    for path in slices_of(folder):
        if signed:
            make_signed(path)
        to_jpeg_lossless(path)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == JPEGLosslessSV1
    assert np.array_equal(read(only(folder)).hu, ct.hu)


def make_signed(path: Path, *, bits: int = 16) -> None:
    """Store HU themselves, as signed numbers of `bits` bits, with a rescale that changes nothing."""
    data = pydicom.dcmread(path)
    stored = (data.pixel_array.astype(np.int32) + int(data.RescaleIntercept)).astype(np.int16)
    data.PixelData = stored.tobytes()
    data.PixelRepresentation, data.RescaleIntercept, data.BitsStored, data.HighBit = 1, 0, bits, bits - 1
    data.save_as(path)


def test_signed_pixels(ct: Volume, make_series: Any, only: Any, slices_of: Any) -> None:
    folder = make_series()
    for path in slices_of(folder):
        make_signed(path)
    assert np.array_equal(read(only(folder)).hu, ct.hu)


@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_the_stored_ones_are_ignored(signed: bool, ct: Volume, make_series: Any, only: Any,
                                                slices_of: Any) -> None:
    folder = make_series()
    for path in slices_of(folder):
        if signed:
            make_signed(path, bits=13)
        data = pydicom.dcmread(path)
        if not signed:
            data.BitsStored, data.HighBit = 12, 11
        unused = np.uint16(0xFFFF << (13 if signed else 12) & 0xFFFF)
        stored = np.frombuffer(data.PixelData, dtype="<u2") & ~unused
        stored[::3] |= unused  # an overlay in the upper bits, as old scanners wrote
        data.PixelData = stored.tobytes()
        data.save_as(path)
    assert np.array_equal(read(only(folder)).hu, ct.hu)


def test_a_deflated_series(ct: Volume, make_series: Any, only: Any, slices_of: Any) -> None:
    folder = make_series()
    for path in slices_of(folder):
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        data.save_as(path)
    assert np.array_equal(read(only(folder)).hu, ct.hu)


def test_a_slope_that_is_no_whole_number_gives_float32(ct: Volume, make_series: Any, only: Any) -> None:
    found = read(only(make_series(stored_from_hu=(0.25, -1024.5))))
    assert found.hu.dtype == np.float32
    assert np.abs(found.hu - ct.hu).max() <= 0.125


def test_the_rescale_of_each_slice_is_its_own(ct: Volume, make_series: Any, only: Any, edit: Any,
                                              slices_of: Any) -> None:
    folder = make_series()
    edit(slices_of(folder)[4:5], RescaleIntercept=-1000)
    found = read(only(folder)).hu
    assert np.array_equal(found[:, :, 4], ct.hu[:, :, 4] + 24)
    assert np.array_equal(found[:, :, 5], ct.hu[:, :, 5])


def test_values_beyond_int16_are_refused_as_no_hu(make_series: Any, only: Any, edit: Any, slices_of: Any) -> None:
    folder = make_series()
    edit(slices_of(folder)[4:5], RescaleIntercept=32000)
    with pytest.raises(SeriesError, match="which no CT in Hounsfield units does"):
        read(only(folder))


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_a_slice_cut_short(syntax: str, make_series: Any, only: Any, slices_of: Any) -> None:
    folder = make_series(transfer_syntax=syntax)
    path = slices_of(folder)[11]
    path.write_bytes(path.read_bytes()[:-700])
    source = only(folder)
    with pytest.raises(SeriesError, match=r"slice 12 of 12.*cut short") as caught:
        read(source)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_pixel_data_shorter_than_the_image(make_series: Any, only: Any, edit: Any, slices_of: Any) -> None:
    folder = make_series()
    edit(slices_of(folder)[:1], PixelData=bytes(100))
    with pytest.raises(SeriesError, match="slice 1 of 12 is cut short: 100 bytes of pixels, wanted 2304"):
        read(only(folder))


def test_a_syntax_without_a_decoder_is_named(make_series: Any, only: Any, slices_of: Any) -> None:
    folder = make_series(transfer_syntax=JPEG2000Lossless)
    for path in slices_of(folder):
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.77"))
    with pytest.raises(SeriesError, match=r"1\.2\.840\.10008\.1\.2\.4\.77 is not supported"):
        read(only(folder))


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1],
                         ids=lambda uid: uid.name)
def test_a_compressed_image_cut_short_in_a_whole_file(
    syntax: str, make_series: Any, only: Any, slices_of: Any, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    lossless_jpeg = syntax == JPEGLosslessSV1
    folder = make_series(transfer_syntax=ExplicitVRLittleEndian if lossless_jpeg else syntax)
    path = slices_of(folder)[4]
    for each in slices_of(folder) if lossless_jpeg else []:
        to_jpeg_lossless(each)
    data = pydicom.dcmread(path)
    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    data.PixelData = encapsulate([frame[: len(frame) // 2]])
    data["PixelData"].VR = "OB"
    data.save_as(path)
    with pytest.raises(SeriesError, match=r"slice 5 of 12.*damaged or cut short"):
        read(only(folder))
    assert caplog.text + "".join(capfd.readouterr()) == ""


def test_lossy_twelve_bit_jpeg_is_refused_and_not_misread(make_series: Any, only: Any, slices_of: Any) -> None:
    folder = make_series(transfer_syntax=JPEG2000Lossless)
    for path in slices_of(folder):
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = JPEGExtended12Bit
        data.save_as(path)
    with pytest.raises(SeriesError, match="JPEG Extended"):
        read(only(folder))


def test_a_file_that_went_away(make_series: Any, only: Any, slices_of: Any) -> None:
    folder = make_series()
    source = only(folder)
    slices_of(folder)[3].unlink()
    with pytest.raises(SeriesError, match="cannot be opened"):
        read(source)


def test_the_digest_tells_pixels_and_places_apart(ct: Volume) -> None:
    hu = ct.hu.astype(np.int16)
    hu[0, 0, 0] += 1
    affine = ct.geometry.affine.copy()
    affine[0, 3] += 0.001
    changed = (Volume(hu=hu, geometry=ct.geometry),
               Volume(hu=ct.hu, geometry=Geometry(affine=affine, shape=ct.geometry.shape)),
               Volume(hu=ct.hu.astype(np.float32), geometry=ct.geometry))
    assert len({input_digest(volume) for volume in (ct, *changed)}) == 4
    assert input_digest(Volume(hu=np.asfortranarray(hu), geometry=ct.geometry)) == input_digest(changed[0])


def test_what_cannot_be_stored_is_not_written(ct: Volume, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="do not fit 16 stored bits"):
        write_series(ct, tmp_path / "a", SeriesStyle(stored_from_hu=(1, 0)))
    with pytest.raises(InputError, match="cannot be written"):
        SeriesStyle(transfer_syntax=JPEGExtended12Bit)
    affine = ct.geometry.affine.copy()
    affine[0, 1] = 0.3
    with pytest.raises(GeometryError, match="not perpendicular"):
        write_series(Volume(hu=ct.hu, geometry=Geometry(affine=affine, shape=ct.hu.shape)), tmp_path / "b")
