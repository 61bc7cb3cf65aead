"""Room on the disk that results go to: a run stops before it is full, and keeps enough back to write its tables."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sacroleak.core.errors import InputError
from sacroleak.core.whole import PART_PREFIX

MIB = 1 << 20
SCAN_BYTES = 16 * MIB
"""Allowed for one scan until a larger case was seen: a 512x512x300 scan with images takes about 1 MiB."""
RESERVE_BYTES = 16 * MIB
"""Held from the first scan on, and let go for the tables of a run that ran out of room."""
RESERVE = f"{PART_PREFIX}reserve"


class FullDiskError(InputError):
    """No room for the next result; what is finished stays, and the same call goes on from there."""


def free_bytes(folder: Path) -> int:
    """What an ordinary user may still write where `folder` lies."""
    return shutil.disk_usage(folder).free


@dataclass(slots=True, kw_only=True)
class Room:
    """Watches the disk of `out`. `largest` is the size of the largest case so far; `free` measures."""

    out: Path
    free: Callable[[Path], int] = free_bytes
    largest: int = SCAN_BYTES
    full: bool = False

    def reserve(self) -> None:
        """Take the reserve. Raises FullDiskError if there is no room even for that."""
        try:
            with (self.out / RESERVE).open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError:
            self.release()
            raise self.error(0) from None

    def release(self) -> None:
        """Give the reserve back."""
        with suppress(OSError):
            (self.out / RESERVE).unlink(missing_ok=True)

    def enough(self, in_flight: int) -> bool:
        """Whether one scan more than those `in_flight` will fit; once it is False it stays so."""
        self.full = self.full or self.free(self.out) < (in_flight + 1) * self.largest
        return not self.full

    def saw(self, case: Path) -> None:
        """Learn from a finished case how much one takes."""
        with suppress(OSError):
            self.largest = max(self.largest, 2 * sum(file.stat().st_size for file in case.iterdir()))

    def error(self, finished: int) -> FullDiskError:
        """What is wrong and how to mend it, in one sentence."""
        wanted, free = 4 * self.largest + RESERVE_BYTES, self.free(self.out)
        return FullDiskError(
            f"--out {self.out}: the disk is full, {free // MIB} MiB free; {finished} scans are finished and stay. Make "
            f"at least {wanted // MIB} MiB of room ({-(-self.largest // MIB)} MiB a scan at most), then give the same "
            "call again: it goes on from there")
