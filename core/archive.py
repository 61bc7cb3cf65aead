"""Zip files from outside: unpacked under names of our own, within limits, or refused."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from sacroleak.core.errors import InputError

KEPT_SUFFIXES = (".nii.gz", ".nii", ".zip", ".dcm", ".ima")
"""Endings that decide how a member is read; all others are left off."""

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipLimits:
    """What one archive may unpack to. The defaults hold a study of 20,000 slices and fit on a scratch disk."""

    total_bytes: int = 12 << 30
    members: int = 50_000


def unpack(archive: Path, folder: Path, limits: ZipLimits | None = None) -> list[Path]:
    """Unpack the files of `archive` into `folder`, flat, numbered in the archive's order; their paths.

    Member names never become paths, so nothing can leave `folder` and no patient name enters it; an archive whose
    names try to leave, or that holds a link, is refused all the same. Raises InputError.
    """
    limits = limits or ZipLimits()
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [m for m in opened.infolist() if not m.is_dir()]
            _require_fair(members, limits)
            return _unpack_all(opened, members, folder, limits)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError):
        raise InputError("the zip file is damaged, cut short, or packed in a way that is not supported") from None


def _require_fair(members: list[zipfile.ZipInfo], limits: ZipLimits) -> None:
    if len(members) > limits.members:
        raise InputError(f"the zip file holds {len(members)} files, allowed {limits.members}")
    declared = sum(m.file_size for m in members)
    if declared > limits.total_bytes:
        raise _too_large(limits)
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or any(":" in part for part in path.parts[:1]):
            raise InputError("the zip file has a member that would leave its folder")
        mode = member.external_attr >> 16
        if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise InputError("the zip file has a member that is a link or a device")
        if member.flag_bits & 1:
            raise InputError("the zip file is encrypted")


def _unpack_all(opened: zipfile.ZipFile, members: list[zipfile.ZipInfo], folder: Path, limits: ZipLimits) -> list[Path]:
    """Count what really comes out: the sizes in the directory of an archive may lie."""
    left, paths = limits.total_bytes, []
    for number, member in enumerate(members):
        target = folder / f"{number:06d}{_suffix(member.filename)}"
        with opened.open(member) as source, target.open("xb") as out:
            left -= _copy(source, out, left, limits)
        paths.append(target)
    return paths


def _copy(source: IO[bytes], out: IO[bytes], left: int, limits: ZipLimits) -> int:
    written = 0
    while block := source.read(_BLOCK):
        written += len(block)
        if written > left or shutil.disk_usage(out.name).free < 2 * _BLOCK:
            raise _too_large(limits)
        out.write(block)
    return written


def _suffix(name: str) -> str:
    hidden = PurePosixPath(name.replace("\\", "/")).name.startswith(".") or "__MACOSX" in name
    return ".hidden" if hidden else next((s for s in KEPT_SUFFIXES if name.lower().endswith(s)), "")


def _too_large(limits: ZipLimits) -> InputError:
    return InputError(f"the zip file unpacks to more than the {limits.total_bytes / (1 << 30):.1f} GiB allowed, or "
                      "than the disk holds")
