"""The elements of a DICOM file's header as bytes, read straight through files that are written as nearly all are.

What is unusual in any way is left to pydicom, which is ten times as slow, and takes 0.4 s to load.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import BinaryIO

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED_LITTLE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
COMPRESSED = ("1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.5")
"""Transfer syntaxes, and roots of families of them, from DICOM PS3.5 chapter 10 and PS3.6 A.1."""

SYNTAX, MEDIA_CLASS = 0x00020010, 0x00020002
PIXEL_DATA = 0x7FE00010
UNDEFINED_LENGTH = 0xFFFFFFFF
"""Of sequences, which end with a delimiter, and of compressed pixels."""

_META = 0x0002
_PIXELS = (0x7FE00008, 0x7FE00009, PIXEL_DATA)
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Value representations whose length takes 2 bytes, and 4 bytes after 2 empty ones (DICOM PS3.5 7.1.2)."""
_HEAD = struct.Struct("<HHI")


@dataclass(frozen=True, slots=True, kw_only=True)
class Elements:
    """The values that were asked for, by tag, as they stand in the file; other elements of the header are left out.

    `media_class` says what kind of object the file claims to hold. `pixel_offset` and `pixel_length` are bytes of the
    value of Pixel Data in the file; both are None without one, the length also when the pixels are compressed.
    """

    values: Mapping[int, bytes]
    syntax: str
    media_class: str
    little_endian: bool
    pixel_offset: int | None
    pixel_length: int | None


class _UnusualError(Exception):
    """Not written as nearly all files are; says nothing about whether it can be read."""


def plain_elements(stream: BinaryIO, tags: Collection[int]) -> Elements | None:
    """The elements `tags` of a file that begins with a preamble; None if there is anything unusual about it."""
    stream.seek(132)
    try:
        meta = _meta(stream)
        syntax = _uid(meta.get(SYNTAX, b""))
        if syntax not in (IMPLICIT_LITTLE, EXPLICIT_LITTLE) and not syntax.startswith(COMPRESSED):
            return None
        values, pixel_length = _dataset(stream, tags, explicit=syntax != IMPLICIT_LITTLE)
    except _UnusualError:
        return None
    return Elements(values=values, syntax=syntax, media_class=_uid(meta.get(MEDIA_CLASS, b"")), little_endian=True,
                    pixel_offset=None if pixel_length is None else stream.tell(),
                    pixel_length=None if pixel_length == UNDEFINED_LENGTH else pixel_length)


def _meta(stream: BinaryIO) -> dict[int, bytes]:
    """The file's own group of elements; the stream stands behind it then."""
    meta: dict[int, bytes] = {}
    while True:
        group = stream.read(2)
        stream.seek(-len(group), 1)
        head = _head(stream, explicit=True) if group == _META.to_bytes(2, "little") else None
        if head is None:
            return meta
        meta[head[0]] = _value(stream, head[2])


def _dataset(stream: BinaryIO, tags: Collection[int], *, explicit: bool) -> tuple[dict[int, bytes], int | None]:
    """Values as far as the pixels, and the length of these, before which the stream stands then; None without any."""
    values: dict[int, bytes] = {}
    before = _META << 16 | 0xFFFF
    while (head := _head(stream, explicit=explicit)) is not None:
        tag, vr, length = head
        if tag <= before:
            raise _UnusualError
        before = tag
        if tag in _PIXELS:
            if tag != PIXEL_DATA:
                return values, None
            if explicit and vr not in (b"OW", b"OB"):
                raise _UnusualError
            return values, length
        if length == UNDEFINED_LENGTH:
            _pass_sequence(stream, vr, explicit=explicit)
        elif tag in tags:
            values[tag] = _value(stream, length)
        else:
            stream.seek(length, 1)
    return values, None


def _head(stream: BinaryIO, *, explicit: bool) -> tuple[int, bytes, int] | None:
    """Tag, value representation (empty where there is none) and length of the next element; None at the end."""
    head = stream.read(8)
    if not head:
        return None
    if len(head) < 8:
        raise _UnusualError
    group, element, length = _HEAD.unpack(head)
    vr = b"" if group == 0xFFFE else head[4:6]
    if not explicit:
        if vr in _SHORT or vr in _LONG:  # explicit after all
            raise _UnusualError
        vr = b""
    elif vr in _SHORT:
        length >>= 16
    elif vr in _LONG:
        length = int.from_bytes(_value(stream, 4), "little")
    elif vr:
        raise _UnusualError
    return group << 16 | element, vr, length


def _value(stream: BinaryIO, length: int) -> bytes:
    value = b"" if length == UNDEFINED_LENGTH else stream.read(length)
    if len(value) != length:
        raise _UnusualError
    return value


def _pass_sequence(stream: BinaryIO, vr: bytes, *, explicit: bool) -> None:
    """Go to the end of a sequence of undefined length."""
    if vr not in (b"SQ", b""):
        raise _UnusualError
    while (tag_length := _in_sequence(stream, explicit=explicit))[0] != _SEQUENCE_END:
        tag, _, length = tag_length
        if tag != _ITEM:
            raise _UnusualError
        if length == UNDEFINED_LENGTH:
            _pass_item(stream, explicit=explicit)
        else:
            stream.seek(length, 1)


def _pass_item(stream: BinaryIO, *, explicit: bool) -> None:
    while (head := _in_sequence(stream, explicit=explicit))[0] != _ITEM_END:
        _, vr, length = head
        if length == UNDEFINED_LENGTH:
            _pass_sequence(stream, vr, explicit=explicit)
        else:
            stream.seek(length, 1)


def _in_sequence(stream: BinaryIO, *, explicit: bool) -> tuple[int, bytes, int]:
    head = _head(stream, explicit=explicit)
    if head is None:
        raise _UnusualError
    return head


def _uid(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")
