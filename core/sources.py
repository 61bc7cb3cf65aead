"""What is there to score: folders, zip files, NIfTI files and manifests become one Source for each scan."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

from sacroleak.core.archive import ZipLimits, unpack
from sacroleak.core.dicom_header import SliceHeader
from sacroleak.core.dicom_series import Candidate, SeriesChoice, choose, digest
from sacroleak.core.dicom_studies import Folder, Study, StudyStream
from sacroleak.core.errors import InputError
from sacroleak.core.geometry import Geometry
from sacroleak.core.manifest import ManifestRow, read_manifest
from sacroleak.core.needle import NeedleNote
from sacroleak.core.whole import sha256_of

NIFTI_SUFFIXES = (".nii", ".nii.gz")
DIGEST_LENGTH = 12

Kind = Literal["nifti", "dicom", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """One scan to score, or one refusal with its `reason`.

    `case_id` carries no patient text: it is the user's own from a manifest, or the kind and 12 hex digits of a digest
    of the content (a NIfTI file's bytes; the instance UIDs of a series). `files` are in slice order for DICOM.
    `input_path` is where the user will find the scan again (the file, the zip file, the folder of the series).
    `choices` tells of every series of the study. `slices` and `geometry` are what `read` needs for DICOM.
    `unpacked` is the temporary folder that holds its files, if it came in a zip file. `replaces` are case ids under
    which parts of it were given out before, whose results do not count. `position` counts what was looked at so far.
    `needles` is what a manifest says of its needles.
    """

    kind: Kind
    case_id: str
    files: tuple[Path, ...]
    input_path: Path
    reason: str = ""
    choices: tuple[SeriesChoice, ...] = ()
    slices: tuple[SliceHeader, ...] = ()
    geometry: Geometry | None = None
    unpacked: Path | None = None
    replaces: tuple[str, ...] = ()
    position: int = 0
    needles: NeedleNote | None = None


def discover(paths: Iterable[Path], *, scratch: Path | None = None,
             limits: ZipLimits | None = None) -> Iterator[Source]:
    """Every scan at `paths`, one at a time; nothing is raised for a scan that cannot be used.

    A path is a NIfTI file, a DICOM file, a folder (searched through, links to folders not followed), a zip file, or
    a manifest (`.csv`). `paths` may be endless: each is looked at when its turn comes. DICOM files are grouped into
    studies, and of each study one series is chosen (`dicom_series.RULES`); `dicom_studies` says how much is held in
    memory meanwhile, and when a study is given out twice (`Source.replaces`). DICOM files given one by one count as
    one folder with their neighbours. The same scan met twice is refused the second time.

    Zip files are unpacked into temporary folders. Without `scratch` such a folder lives only until the next source
    is asked for or the iterator is closed; with it, below `scratch` until the caller removes it (`Source.unpacked`).
    Raises ManifestError if a manifest is wrong.
    """
    finder = _Finder(scratch=scratch, limits=limits or ZipLimits())
    seen: Counter[str] = Counter()
    numbered = ((number, Path(path)) for number, path in enumerate(paths, start=1))
    for loose, run in groupby(numbered, key=lambda item: _loose(item[1])):
        for source in _loose_files(run, finder) if loose else _each(run, finder):
            again = seen[source.case_id]
            seen[source.case_id] += 1
            source = replace(source, position=finder.passed)
            if not again:
                yield source
                continue
            reason = source.reason or f"the same scan was met before in this run, as {source.case_id}"
            refusal = _refusal(source.input_path, f"{source.case_id}-again-{again}", reason)
            yield replace(refusal, position=finder.passed)


def count_units(paths: Iterable[Path]) -> int:
    """How far `Source.position` will go for `paths`: files and folders to look at, without opening them."""
    total = 0
    for path in paths:
        if path.suffix.lower() == ".csv" and path.is_file():
            total += len(read_manifest(path))
        else:
            total += sum(1 for _ in _units(path)) if path.is_dir() else 1
    return total


@dataclass(slots=True, kw_only=True)
class _Finder:
    scratch: Path | None
    limits: ZipLimits
    passed: int = 0

    def folder(self, keep: ExitStack) -> Path:
        """A fresh folder for one archive; without `scratch` it goes when `keep` is closed, dropped, or at exit."""
        folder = Path(tempfile.mkdtemp(prefix="sacroleak-zip-", dir=self.scratch))
        if self.scratch is None:
            keep.callback(weakref.finalize(keep, shutil.rmtree, folder, ignore_errors=True))
        return folder


def _loose(path: Path) -> bool:
    """A file that may be one slice."""
    return path.is_file() and not path.name.lower().endswith((*NIFTI_SUFFIXES, ".zip", ".csv"))


def _loose_files(run: Iterator[tuple[int, Path]], finder: _Finder) -> Iterator[Source]:
    """Slices given one by one; consecutive ones that lie together are looked at together."""
    dicom = _Dicom()
    for _, together in groupby(run, key=lambda item: item[1].parent):
        numbers = {file: number for number, file in together}
        folder = dicom.stream.look(numbers)
        finder.passed += len(numbers)
        for file in folder.foreign:
            number = numbers[file]
            yield _refusal(file, f"refused-input-{number}", f"input {number} holds no CT: neither DICOM, NIfTI nor zip")
        yield from dicom.after(folder)
    yield from dicom.rest()


def _each(run: Iterator[tuple[int, Path]], finder: _Finder) -> Iterator[Source]:
    for number, path in run:
        yield from _given(path, number, finder)


def _given(path: Path, number: int, finder: _Finder) -> Iterator[Source]:
    if path.suffix.lower() == ".csv" and path.is_file():
        for row in read_manifest(path):
            with ExitStack() as keep:
                source = _named(row, finder, keep)
                finder.passed += 1
                yield source
        return
    if not path.exists():
        finder.passed += 1
        yield _refusal(path, f"refused-input-{number}", f"input {number} does not exist")
        return
    found = False
    for source in _below(path, finder, counted=True):
        found = True
        yield source
    if not found:
        yield _refusal(path, f"refused-input-{number}", f"input {number} holds no CT: neither DICOM, NIfTI nor zip")


def _named(row: ManifestRow, finder: _Finder, keep: ExitStack) -> Source:
    """The one scan of a manifest row, under the row's case id."""
    if not row.path.exists():
        return _refusal(row.path, row.case_id, f"manifest, row {row.row}: path does not exist")
    sources: dict[str, Source] = {}
    for source in _below(row.path, finder, keep=keep):
        sources = {case_id: other for case_id, other in sources.items() if case_id not in source.replaces}
        sources[source.case_id] = source
    if len(sources) != 1:
        return _refusal(row.path, row.case_id, f"manifest, row {row.row}: path holds {len(sources)} scans, wanted one")
    (source,) = sources.values()
    return replace(source, case_id=row.case_id, replaces=(), needles=row.needles)


def _below(path: Path, finder: _Finder, *, keep: ExitStack | None = None, counted: bool = False) -> Iterator[Source]:
    """The scans at `path`. What a zip file holds lives until the next source is asked for, or as long as `keep`."""
    dicom = _Dicom()
    for files in _units(path):
        name = files[0].name.lower()
        if name.endswith(NIFTI_SUFFIXES):
            finder.passed += counted
            yield _nifti(files[0])
        elif name.endswith(".zip"):
            with ExitStack() as own:
                yield from _zip(files[0], finder, own if keep is None else keep)
            finder.passed += counted
        else:
            folder = dicom.stream.look(files)
            finder.passed += counted
            yield from dicom.after(folder)
    yield from dicom.rest()


def _units(path: Path) -> Iterator[tuple[Path, ...]]:
    """Files that can be looked at apart: each NIfTI and each zip alone, the others of a folder together."""
    if path.is_file():
        yield (path,)
        return
    for place, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        others: list[Path] = []
        for file in (Path(place, name) for name in sorted(names) if not _hidden(name)):
            if not file.is_file():
                continue
            if file.name.lower().endswith((*NIFTI_SUFFIXES, ".zip")):
                yield (file,)
            else:
                others.append(file)
        if others:
            yield tuple(others)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _nifti(path: Path) -> Source:
    try:
        case_id = f"nifti-{sha256_of(path)[:DIGEST_LENGTH]}"
    except OSError:
        return _refusal(path, f"refused-{digest(str(path))}", "the file cannot be opened")
    return Source(kind="nifti", case_id=case_id, files=(path,), input_path=path)


def _zip(path: Path, finder: _Finder, keep: ExitStack) -> Iterator[Source]:
    """The scans inside an archive; an archive inside an archive is refused."""
    try:
        case_id = f"refused-{sha256_of(path)[:DIGEST_LENGTH]}"
    except OSError:
        yield _refusal(path, f"refused-{digest(str(path))}", "the file cannot be opened")
        return
    try:
        folder = finder.folder(keep)
        unpack(path, folder, finder.limits)
    except (InputError, OSError) as error:
        reason = str(error) if isinstance(error, InputError) else "the zip file cannot be unpacked: the disk refuses it"
        yield _refusal(path, case_id, reason)
        return
    found = False
    for source in _inside(path, case_id, folder):
        found = True
        yield replace(source, input_path=path, unpacked=folder)
    if not found:
        yield _refusal(path, case_id, "the zip file holds no CT: neither DICOM nor NIfTI")


def _inside(path: Path, case_id: str, folder: Path) -> Iterator[Source]:
    dicom = _Dicom()
    for files in _units(folder):
        name = files[0].name.lower()
        if name.endswith(".zip"):
            yield _refusal(path, case_id, "an archive inside an archive is not opened")
        elif name.endswith(NIFTI_SUFFIXES):
            yield _nifti(files[0])
        else:
            yield from dicom.after(dicom.stream.look(files))
    yield from dicom.rest()


class _Dicom:
    """Studies as they are given out become sources."""

    def __init__(self) -> None:
        self.stream = StudyStream()
        self._given: dict[str, str] = {}

    def after(self, folder: Folder) -> Iterator[Source]:
        """What is complete after `folder` was looked at."""
        for study in self.stream.complete():
            yield self._source(study)
        if folder.damaged:
            yield _refusal(folder.damaged[0].parent, f"refused-{digest(*(str(p) for p in folder.damaged))}",
                           f"{len(folder.damaged)} DICOM file(s) are damaged or cut short: their headers cannot be "
                           "read")

    def rest(self) -> Iterator[Source]:
        """What is left after the last folder."""
        for study in self.stream.rest():
            source, before = self._source(study), self._given.get(study.uid, "") if study.again else ""
            if source.case_id != before:  # else the late files belong to a series that is not scored
                yield replace(source, replaces=(before,)) if before else source

    def _source(self, study: Study) -> Source:
        source = _study(study.series)
        if not study.again:
            self._given[study.uid] = source.case_id
        return source


def _study(series: Sequence[Sequence[SliceHeader]]) -> Source:
    chosen, choices = choose(series)
    if chosen is None:
        every = [slice_ for slices in series for slice_ in slices]
        refusal = _refusal(_common([s.path for s in every]), f"refused-{digest(*(s.sop_uid for s in every))}",
                           "; ".join(f"series {c.series} {c.reason}" for c in choices))
        return replace(refusal, choices=choices)
    return _chosen(chosen, choices)


def _chosen(chosen: Candidate, choices: tuple[SeriesChoice, ...]) -> Source:
    files = tuple(s.path for s in chosen.slices)
    return Source(kind="dicom", case_id=f"dicom-{digest(*(s.sop_uid for s in chosen.slices))}", files=files,
                  input_path=_common(files), choices=choices, slices=chosen.slices, geometry=chosen.geometry)


def _common(files: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([file.parent for file in files]))


def _refusal(path: Path, case_id: str, reason: str) -> Source:
    return Source(kind="refused", case_id=case_id, files=(), input_path=path, reason=reason)
