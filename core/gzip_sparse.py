"""Gzip for data that is mostly zeros: long runs are taken from a block compressed once. One ordinary gzip member."""

from __future__ import annotations

import struct
import zlib

ZERO_BLOCK = 1 << 20
"""Bytes in the zero block that is compressed once and then repeated."""

_HEADER = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x04\xff"  # deflate, no name, no time (RFC 1952): same data, same bytes


class SparseGzip:
    """Collects data and runs of zeros; `finish` gives one gzip member (RFC 1952) that any reader unpacks."""

    def __init__(self, level: int = 1) -> None:
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._parts: list[bytes] = [_HEADER]
        self._crc = 0
        self._size = 0
        self._pending = 0
        self._zeros = bytes(ZERO_BLOCK)
        block = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._packed_zeros = block.compress(self._zeros) + block.flush(zlib.Z_FULL_FLUSH)

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
            self._parts.append(self._packed_zeros * blocks)
            for _ in range(blocks):
                self._count(self._zeros)
        if rest:
            self._write(bytes(rest))

    def _write(self, data: bytes) -> None:
        self._parts.append(self._deflate.compress(data))
        self._count(data)

    def _count(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
