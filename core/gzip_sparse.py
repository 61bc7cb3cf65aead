"""Gzip for data that is mostly zeros: long runs are taken from a block compressed once. One ordinary gzip member."""

from __future__ import annotations

import struct
import zlib
from functools import cache

ZERO_BLOCK = 1 << 16
"""Bytes in the zero block that is compressed once and then repeated; it takes 83 bytes."""

_HEADER = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x04\xff"  # deflate, no name, no time (RFC 1952): same data, same bytes


class SparseGzip:
    """Collects data and runs of zeros; `finish` gives one gzip member (RFC 1952) that any reader unpacks."""

    def __init__(self, level: int = 1) -> None:
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._parts: list[bytes] = [_HEADER]
        self._crc = 0
        self._size = 0
        self._pending = 0

    def add(self, data: bytes) -> None:
        """Append bytes."""
        self._write_zeros()
        self._write(data)

    def add_zeros(self, count: int) -> None:
        """Append `count` zero bytes; runs that follow each other become one."""
        self._pending += count

    def finish(self) -> bytes:
        """The whole member; nothing may be added afterwards."""
        self._write_zeros()
        self._parts.append(self._deflate.flush(zlib.Z_FINISH))
        self._parts.append(struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))
        return b"".join(self._parts)

    def _write_zeros(self) -> None:
        blocks, rest = divmod(self._pending, ZERO_BLOCK)
        self._pending = 0
        if blocks:
            # After a full flush the stream is at a byte border and nothing refers back, so whole blocks may follow.
            self._parts.append(self._deflate.flush(zlib.Z_FULL_FLUSH))
            self._parts.append(_packed_zeros() * blocks)
            for _ in range(blocks):
                self._crc = _after_zeros(self._crc)
            self._size += blocks * ZERO_BLOCK
        if rest:
            self._write(bytes(rest))

    def _write(self, data: bytes) -> None:
        self._parts.append(self._deflate.compress(data))
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)


@cache
def _packed_zeros() -> bytes:
    block = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return block.compress(bytes(ZERO_BLOCK)) + block.flush(zlib.Z_FULL_FLUSH)


def _after_zeros(crc: int) -> int:
    """The checksum `crc` after one more zero block, without a look at its bytes."""
    zero, *bits = _checksums()
    for place, after in enumerate(bits):
        if crc >> place & 1:
            zero ^= after
    return zero


@cache
def _checksums() -> tuple[int, ...]:
    """What a zero block makes of a checksum of 0, and what each bit of one changes in that: the bits act apart."""
    zeros = bytes(ZERO_BLOCK)
    zero = zlib.crc32(zeros)
    return zero, *(zlib.crc32(zeros, 1 << place) ^ zero for place in range(32))
