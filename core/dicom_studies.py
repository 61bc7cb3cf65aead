"""Studies out of folders that are looked at one after the other, given out as soon as they are likely to be complete.

No more headers are held than those of a few folders. A study whose files turn up again later, in a folder far away,
is gathered once more as a whole, and says what it replaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sacroleak.core.dicom_header import SliceHeader, read_header
from sacroleak.core.errors import SeriesError

DICOM_SUFFIXES = (".dcm", ".ima")
HOLD_FOLDERS = 4
"""A study is given out when so many folders with images in a row held nothing of it: its series often lie in
neighbouring folders, seldom farther apart."""
HOLD_HEADERS = 20_000
"""Headers kept in memory, about 1.5 kB each. Of what lies beyond in one folder only the path is kept (about 0.2 kB),
and the header is read again when its study is given out."""

Series = list[list[SliceHeader]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """All slices of one study that are known, by series. `again`: it was given out before, with fewer slices."""

    uid: str
    series: Series
    again: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """What one folder turned out to hold, beside the studies it completes: `damaged` files that should have been
    slices, and `foreign` files that are no DICOM at all."""

    damaged: list[Path]
    foreign: list[Path]


@dataclass(slots=True)
class _Held:
    headers: list[SliceHeader] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    last: int = 0


class StudyStream:
    """Takes folders in the order of a walk. Not for several threads."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._past: dict[str, set[Path]] = {}
        self._late: set[str] = set()
        self._count = self._folders = 0

    def look(self, files: Iterable[Path]) -> Folder:
        """Read the headers of one folder's files."""
        damaged, foreign = [], []
        self._folders += 1
        for file in files:
            try:
                header = read_header(file)
            except (SeriesError, OSError):
                damaged.append(file)
                continue
            if header is not None:
                self._keep(header)
            elif _claims_dicom(file):
                damaged.append(file)
            else:
                foreign.append(file)
        return Folder(damaged=damaged, foreign=foreign)

    def complete(self) -> Iterator[Study]:
        """The studies that the walk has left behind."""
        for uid in [uid for uid, held in self._held.items() if self._folders - held.last >= HOLD_FOLDERS]:
            yield self._give(uid)

    def rest(self) -> Iterator[Study]:
        """What is left when the walk is over; then the studies that were given out too early, as a whole."""
        for uid in list(self._held):
            yield self._give(uid)
        for uid in sorted(self._late):
            files = sorted(file for folder in self._past[uid] for file in folder.iterdir() if file.is_file())
            slices = [header for header in _read_again(files) if header.study_uid == uid]
            yield Study(uid=uid, series=_by_series(slices), again=True)

    def _keep(self, header: SliceHeader) -> None:
        uid = header.study_uid
        if uid in self._past:
            self._late.add(uid)
            self._past[uid].add(header.path.parent)
            return
        held = self._held.setdefault(uid, _Held())
        held.last = self._folders
        if self._count < HOLD_HEADERS:
            held.headers.append(header)
            self._count += 1
        else:
            held.paths.append(header.path)

    def _give(self, uid: str) -> Study:
        held = self._held.pop(uid)
        self._count -= len(held.headers)
        slices = held.headers + _read_again(held.paths)
        self._past[uid] = {header.path.parent for header in slices}
        return Study(uid=uid, series=_by_series(slices), again=False)


def _read_again(files: Sequence[Path]) -> list[SliceHeader]:
    headers = []
    for file in files:
        try:
            header = read_header(file)
        except (SeriesError, OSError):
            continue  # was told when the folder was looked at first
        headers += [] if header is None else [header]
    return headers


def _by_series(slices: Iterable[SliceHeader]) -> Series:
    series: dict[str, list[SliceHeader]] = {}
    for slice_ in slices:
        series.setdefault(slice_.series_uid, []).append(slice_)
    return list(series.values())


def _claims_dicom(file: Path) -> bool:
    """A file that should have been a slice: silence about it could hide the loss of the first or last slice."""
    return file.suffix.lower() in DICOM_SUFFIXES or file.stat().st_size == 0
