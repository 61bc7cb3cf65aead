"""The straight way through a header tells what pydicom tells, and leaves to it whatever is unusual."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from sacroleak.core import dicom_header
from sacroleak.core.dicom_elements import plain_elements
from sacroleak.core.dicom_header import TAGS, SliceHeader, read_header
from sacroleak.core.errors import SeriesError

PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless)


def is_plain(path: Path) -> bool:
    with path.open("rb") as stream:
        return plain_elements(stream, TAGS.values()) is not None


@pytest.fixture
def by_pydicom(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], SliceHeader | None]:
    """The header as it comes out when nothing is plain."""

    def read(path: Path) -> SliceHeader | None:
        with monkeypatch.context() as patch:
            patch.setattr(dicom_header, "plain_elements", lambda _stream, _tags: None)
            return read_header(path)

    return read


@pytest.fixture
def one(make_series: Any, slices_of: Any) -> Callable[..., Path]:
    """One slice of a series in some transfer syntax."""
    return lambda **style: slices_of(make_series(**style))[0]


def nested(depth: int, *, ends: bool) -> Dataset:
    """A sequence in a sequence, of undefined length if it `ends` with a delimiter, and one without items."""
    data = Dataset()
    data.CodeValue = "12"
    data.ReferencedSOPInstanceUID = "1.2.3"
    if depth:
        data.SourceImageSequence = [nested(depth - 1, ends=ends), nested(0, ends=ends)]
        data["SourceImageSequence"].is_undefined_length = ends
        data.PurposeOfReferenceCodeSequence = []
        data["PurposeOfReferenceCodeSequence"].is_undefined_length = ends
    data.is_undefined_length_sequence_item = ends
    return data


def with_sequences(path: Path, *, ends: bool) -> None:
    data = pydicom.dcmread(path)
    data.SourceImageSequence = [nested(3, ends=ends), nested(1, ends=not ends)]
    data["SourceImageSequence"].is_undefined_length = ends
    block = data.private_block(0x0029, "MAKER", create=True)
    block.add_new(0x10, "SQ", [nested(1, ends=ends)])
    block.add_new(0x11, "OB", bytes(range(256)) * 300)
    data.save_as(path)


@pytest.mark.parametrize("syntax", PLAIN, ids=lambda uid: uid.name)
@pytest.mark.parametrize("ends", [None, False, True])
def test_a_plain_header_tells_the_same(syntax: str, ends: bool | None, one: Any, by_pydicom: Any) -> None:
    path = one(transfer_syntax=syntax, tags={"BodyPartExamined": "PELVIS", "AcquisitionDateTime": "20200103080000"})
    if ends is not None:
        with_sequences(path, ends=ends)
    assert is_plain(path)
    header = read_header(path)
    assert header is not None
    assert header == by_pydicom(path)
    assert header.body_part == "PELVIS"
    assert header.transfer_syntax == syntax
    assert (header.pixel_length is None) == (syntax not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_header_without_pixels_tells_the_same(syntax: str, one: Any, edit: Any, by_pydicom: Any) -> None:
    path = one(transfer_syntax=syntax)
    edit([path], PixelData=None)
    assert is_plain(path)
    header = read_header(path)
    assert header == by_pydicom(path)
    assert header is not None
    assert header.pixel_offset is None


def deflated(path: Path) -> None:
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(path)


def named_otherwise(path: Path) -> None:
    """An implicit file that claims to be explicit, and the other way round: some exporters write them."""
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"))


def unknown_vr(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"\x20\x00\x11\x00IS", b"\x20\x00\x11\x00ZZ"))


def pixels_unknown(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"\xe0\x7f\x10\x00OW", b"\xe0\x7f\x10\x00UN"))


@pytest.mark.parametrize("change", [deflated, named_otherwise, unknown_vr, pixels_unknown])
def test_the_unusual_is_left_to_pydicom(change: Callable[[Path], None], one: Any, by_pydicom: Any) -> None:
    path = one()
    change(path)
    assert not is_plain(path)
    assert read_header(path) == by_pydicom(path)


def test_big_endian_is_left_to_pydicom(one: Any, by_pydicom: Any) -> None:
    path = one(transfer_syntax=ExplicitVRBigEndian)
    assert not is_plain(path)
    assert read_header(path) == by_pydicom(path)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_wherever_a_file_ends_both_ways_say_the_same(syntax: str, one: Any, tmp_path: Path, by_pydicom: Any) -> None:
    path = one(transfer_syntax=syntax)
    with_sequences(path, ends=True)
    whole = path.read_bytes()
    cut = tmp_path / "cut.dcm"

    def said(read: Callable[[Path], SliceHeader | None]) -> SliceHeader | str | None:
        try:
            return read(cut)
        except SeriesError as error:
            return str(error)

    for length in [*range(132, 900, 3), *range(900, len(whole), 997)]:
        cut.write_bytes(whole[:length])
        assert said(read_header) == said(by_pydicom), length


def test_tags_are_those_of_the_standard() -> None:
    assert {keyword: int(pydicom.tag.Tag(keyword)) for keyword in TAGS} == TAGS
