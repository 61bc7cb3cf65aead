"""The header of one DICOM file, read once, as a plain value: what choosing, ordering and decoding a series need."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sacroleak.core.dicom_elements import (
    DEFLATED_LITTLE,
    EXPLICIT_BIG,
    IMPLICIT_LITTLE,
    PIXEL_DATA,
    UNDEFINED_LENGTH,
    Elements,
    plain_elements,
)
from sacroleak.core.errors import SeriesError
from sacroleak.core.silence import Shared, silent

Triple = tuple[float, float, float]
Numbers = tuple[float, ...]

DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
"""Media Storage Directory: a table of contents, not an image (DICOM PS3.4 B.5)."""

TAGS = {
    "ImageType": 0x00080008, "SOPClassUID": 0x00080016, "SOPInstanceUID": 0x00080018, "AcquisitionDate": 0x00080022,
    "AcquisitionDateTime": 0x0008002A, "AcquisitionTime": 0x00080032, "Modality": 0x00080060,
    "ContrastBolusAgent": 0x00180010, "BodyPartExamined": 0x00180015, "MultienergyCTAcquisition": 0x00189361,
    "StudyInstanceUID": 0x0020000D, "SeriesInstanceUID": 0x0020000E, "SeriesNumber": 0x00200011,
    "ImagePositionPatient": 0x00200032, "ImageOrientationPatient": 0x00200037, "FrameOfReferenceUID": 0x00200052,
    "SamplesPerPixel": 0x00280002, "PhotometricInterpretation": 0x00280004, "NumberOfFrames": 0x00280008,
    "Rows": 0x00280010, "Columns": 0x00280011, "PixelSpacing": 0x00280030, "BitsAllocated": 0x00280100,
    "BitsStored": 0x00280101, "HighBit": 0x00280102, "PixelRepresentation": 0x00280103, "RescaleIntercept": 0x00281052,
    "RescaleSlope": 0x00281053, "RescaleType": 0x00281054,
}  # fmt: skip
"""All that is read of a header, under the names of DICOM PS3.6 chapter 6."""
_WANTED = frozenset(TAGS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelFormat:
    """How one slice's pixels are stored; slices of one series must agree in all of it."""

    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceHeader:
    """One DICOM object. Places are LPS mm; a value the file lacks, or that is no number, is None or "".

    `pixel_spacing_mm` is (between rows, between columns) as in the file. `pixel_offset` and `pixel_length` are bytes
    of the value of Pixel Data in the file; the length is None when the pixels are compressed. `acquired` is the
    acquisition date and time as sortable digits, or "".
    """

    path: Path
    transfer_syntax: str
    sop_class: str
    sop_uid: str
    study_uid: str
    series_uid: str
    series_number: int
    frame_uid: str
    modality: str
    image_type: tuple[str, ...]
    body_part: str
    contrast: bool
    multi_energy: bool
    acquired: str
    position_lps_mm: Triple | None
    orientation: Numbers | None
    pixel_spacing_mm: Numbers | None
    slope: float | None
    intercept: float | None
    rescale_type: str
    pixels: PixelFormat
    pixel_offset: int | None
    pixel_length: int | None


@contextmanager
def _any_values() -> Iterator[None]:
    from pydicom import config  # 0.4 s: most files need none of it

    mode = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.IGNORE
    try:
        yield
    finally:
        config.settings.reading_validation_mode = mode


_unvalidated = Shared(_any_values)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom and its decoders silent, and let it take values that are none of the kind they should be."""
    with silent(), _unvalidated():
        yield


def read_header(path: Path) -> SliceHeader | None:
    """The header of `path`, or None if it is no DICOM object that could be part of a series.

    Raises SeriesError if the file begins as DICOM and cannot be read on.
    """
    with path.open("rb") as stream:
        head = stream.read(132)
        if not _looks_like_dicom(head):
            return None
        try:
            found = plain_elements(stream, _WANTED) if head[128:] == b"DICM" else None
            found = _any_elements(stream) if found is None else found
            return None if found.media_class == DICOMDIR_CLASS else _header(path, found)
        except Exception:  # noqa: BLE001 - damaged files make pydicom raise nearly every error, quoting content
            raise SeriesError("a DICOM file is damaged or cut short: its header cannot be read") from None


def _looks_like_dicom(head: bytes) -> bool:
    """`DICM` after the preamble, or (older exports without one) an element of group 0008 first."""
    return head[128:] == b"DICM" or (head[:2] == b"\x08\x00" and len(head) == 132 and head[3] == 0)


def _any_elements(stream: BinaryIO) -> Elements:
    """The same as `plain_elements` for whatever pydicom can read; raises what pydicom raises."""
    from pydicom import dcmread  # see quiet()

    stream.seek(0)
    with quiet():
        data = dcmread(stream, stop_before_pixels=True, force=True, specific_tags=list(TAGS.values()))
        syntax = str(data.file_meta.get("TransferSyntaxUID", "")) or IMPLICIT_LITTLE
        raw = {tag: data.get_item(tag) for tag in _WANTED}
        media_class = str(data.file_meta.get("MediaStorageSOPClassUID", ""))
    offset, length = _pixel_element(stream, syntax)
    # as they stand in the file: pydicom's own conversion takes half the time of reading a header
    values = {tag: element.value for tag, element in raw.items()
              if element is not None and isinstance(element.value, bytes)}
    return Elements(values=values, syntax=syntax, media_class=media_class, pixel_offset=offset, pixel_length=length,
                    little_endian=bool(data.original_encoding[1]))


def _pixel_element(stream: BinaryIO, syntax: str) -> tuple[int | None, int | None]:
    """Offset and length of the value of Pixel Data, which `stream` stands before; (None, None) without one."""
    if syntax == DEFLATED_LITTLE:
        return 0, None  # lies inside the deflated part; the decoder finds it
    order = ">" if syntax == EXPLICIT_BIG else "<"
    head = stream.read(8)
    if len(head) < 8 or struct.unpack(f"{order}HH", head[:4]) != divmod(PIXEL_DATA, 1 << 16):
        return None, None
    explicit = head[4:6] in (b"OW", b"OB")
    length = struct.unpack(f"{order}I", stream.read(4) if explicit else head[4:])[0]
    return stream.tell(), None if length == UNDEFINED_LENGTH else int(length)


def _header(path: Path, data: Elements) -> SliceHeader:
    series = _text(data, "SeriesInstanceUID")
    sop = _text(data, "SOPInstanceUID")
    if not series or not sop:
        raise SeriesError("no series or instance UID")
    position = _numbers(data, "ImagePositionPatient", 3)
    acquired = _text(data, "AcquisitionDateTime") or _text(data, "AcquisitionDate") + _text(data, "AcquisitionTime")
    return SliceHeader(
        path=path, transfer_syntax=data.syntax, sop_class=_text(data, "SOPClassUID"), sop_uid=sop, series_uid=series,
        study_uid=_text(data, "StudyInstanceUID") or series, series_number=_whole(data, "SeriesNumber"),
        frame_uid=_text(data, "FrameOfReferenceUID"), modality=_text(data, "Modality").upper(),
        image_type=_words(data, "ImageType"), body_part=_text(data, "BodyPartExamined").upper(),
        contrast=bool(_text(data, "ContrastBolusAgent")), acquired=acquired[:14],
        multi_energy=_text(data, "MultienergyCTAcquisition").upper() == "YES",
        position_lps_mm=None if position is None else (position[0], position[1], position[2]),
        orientation=_numbers(data, "ImageOrientationPatient", 6), pixel_spacing_mm=_numbers(data, "PixelSpacing", 2),
        slope=_number(data, "RescaleSlope"), intercept=_number(data, "RescaleIntercept"),
        rescale_type=_text(data, "RescaleType").upper(), pixels=_pixel_format(data),
        pixel_offset=data.pixel_offset, pixel_length=data.pixel_length,
    )  # fmt: skip


def _pixel_format(data: Elements) -> PixelFormat:
    stored = _unsigned(data, "BitsStored")
    return PixelFormat(
        rows=_unsigned(data, "Rows"), columns=_unsigned(data, "Columns"),
        samples=_unsigned(data, "SamplesPerPixel", 1), photometric=_text(data, "PhotometricInterpretation").upper(),
        bits_allocated=_unsigned(data, "BitsAllocated"), bits_stored=stored,
        high_bit=_unsigned(data, "HighBit", stored - 1), signed=_unsigned(data, "PixelRepresentation") == 1,
        frames=_whole(data, "NumberOfFrames", 1),
    )  # fmt: skip


def _text(data: Elements, keyword: str) -> str:
    return data.values.get(TAGS[keyword], b"").decode("ascii", "replace").strip(" \0")


def _words(data: Elements, keyword: str) -> tuple[str, ...]:
    text = _text(data, keyword).upper()
    return tuple(word.strip() for word in text.split("\\")) if text else ()


def _unsigned(data: Elements, keyword: str, default: int = 0) -> int:
    """A 16-bit number (VR US), in the byte order of the file."""
    value = data.values.get(TAGS[keyword], b"")
    return int.from_bytes(value, "little" if data.little_endian else "big") if len(value) == 2 else default


def _whole(data: Elements, keyword: str, default: int = 0) -> int:
    value = _number(data, keyword)
    return default if value is None else int(value)


def _number(data: Elements, keyword: str) -> float | None:
    numbers = _numbers(data, keyword, 1)
    return None if numbers is None else numbers[0]


def _numbers(data: Elements, keyword: str, count: int) -> Numbers | None:
    """`count` finite numbers (VR DS or IS), or None if the element is missing, of another length, or not numeric."""
    try:
        numbers = tuple(float(part) for part in _text(data, keyword).split("\\"))
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(abs(n) < 1e9 for n in numbers) else None
