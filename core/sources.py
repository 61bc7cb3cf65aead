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
from pathlib import Path
from typing import Literal

from sacroleak.core.archive import ZipLimits, unpack
from sacroleak.core.dicom_header import SliceHeader, quiet, read_header
from sacroleak.core.dicom_series import Candidate, SeriesChoice, choose, digest, group
from sacroleak.core.errors import InputError, SeriesError
from sacroleak.core.geometry import Geometry
from sacroleak.core.manifest import ManifestRow, read_manifest
from sacroleak.core.whole import sha256_of

NIFTI_SUFFIXES = (".nii", ".nii.gz")
DICOM_SUFFIXES = (".dcm", ".ima")
DIGEST_LENGTH = 12

Kind = Literal["nifti", "dicom", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """One scan to score, or one refusal with its `reason`.

    `case_id` carries no patient text: it is the user's own from a manifest, or the kind and 12 hex digits of a digest
    of the content (a NIfTI file's bytes; the instance UIDs of a series). `files` are in slice order for DICOM.
    `input_path` is where the user will find the scan again (the file, the zip file, the folder of the series).
    `choices` tells of every series of the study. `slices` and `geometry` are what `read` needs for DICOM.
    """

    kind: Kind
    case_id: str
    files: tuple[Path, ...]
    input_path: Path
    reason: str = ""
    choices: tuple[SeriesChoice, ...] = ()
    slices: tuple[SliceHeader, ...] = ()
    geometry: Geometry | None = None


def discover(paths: Iterable[Path], *, scratch: Path | None = None,
             limits: ZipLimits | None = None) -> Iterator[Source]:
    """Every scan at `paths`, in order, one at a time; nothing is raised for a scan that cannot be used.

    A path is a NIfTI file, a DICOM file, a folder (searched through, links to folders not followed), a zip file, or
    a manifest (`.csv`). The DICOM files of one path are grouped into studies, and of each study one series is chosen
    (`dicom_series.RULES`). The same scan met twice is refused the second time.

    Zip files are unpacked into temporary folders. Without `scratch` such a folder lives only until the next source
    is asked for or the iterator is closed; with it, below `scratch` until the caller removes it.
    Raises ManifestError if a manifest is wrong.
    """
    finder = _Finder(scratch=scratch, limits=limits or ZipLimits())
    seen: Counter[str] = Counter()
    for number, path in enumerate(paths, start=1):
        for source in _given(Path(path), number, finder):
            again = seen[source.case_id]
            seen[source.case_id] += 1
            if not again:
                yield source
                continue
            reason = source.reason or f"the same scan was met before in this run, as {source.case_id}"
            yield _refusal(source.input_path, f"{source.case_id}-again-{again}", reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finder:
    scratch: Path | None
    limits: ZipLimits

    def folder(self, keep: ExitStack) -> Path:
        """A fresh folder for one archive; without `scratch` it goes when `keep` is closed, dropped, or at exit."""
        folder = Path(tempfile.mkdtemp(prefix="sacroleak-zip-", dir=self.scratch))
        if self.scratch is None:
            keep.callback(weakref.finalize(keep, shutil.rmtree, folder, ignore_errors=True))
        return folder


def _given(path: Path, number: int, finder: _Finder) -> Iterator[Source]:
    if path.suffix.lower() == ".csv" and path.is_file():
        for row in read_manifest(path):
            with ExitStack() as keep:
                yield _named(row, finder, keep)
        return
    if not path.exists():
        yield _refusal(path, f"refused-input-{number}", f"input {number} does not exist")
        return
    found = False
    for files in _units(path):
        with ExitStack() as keep:
            for source in _at(files, finder, keep):
                found = True
                yield source
    if not found:
        yield _refusal(path, f"refused-input-{number}", f"input {number} holds no CT: neither DICOM, NIfTI nor zip")


def _named(row: ManifestRow, finder: _Finder, keep: ExitStack) -> Source:
    """The one scan of a manifest row, under the row's case id."""
    if not row.path.exists():
        return _refusal(row.path, row.case_id, f"manifest, row {row.row}: path does not exist")
    sources = [source for files in _units(row.path) for source in _at(files, finder, keep)]
    if len(sources) != 1:
        return _refusal(row.path, row.case_id, f"manifest, row {row.row}: path holds {len(sources)} scans, wanted one")
    return replace(sources[0], case_id=row.case_id)


def _units(path: Path) -> Iterator[tuple[Path, ...]]:
    """Files that can be looked at apart: each NIfTI and each zip alone, then all others together."""
    others: list[Path] = []
    for file in [path] if path.is_file() else _files_below(path):
        if file.name.lower().endswith((*NIFTI_SUFFIXES, ".zip")):
            yield (file,)
        else:
            others.append(file)
    if others:
        yield tuple(others)


def _files_below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        for name in sorted(names):
            file = Path(place, name)
            if not _hidden(name) and file.is_file():
                yield file


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _at(files: Sequence[Path], finder: _Finder, keep: ExitStack) -> Iterator[Source]:
    name = files[0].name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        yield _nifti(files[0])
    elif name.endswith(".zip"):
        yield from _zip(files[0], finder, keep)
    else:
        yield from _dicom(files)


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
    for files in _units(folder):
        inner = files[0].name.lower().endswith(".zip")
        for source in [_refusal(path, case_id, "an archive inside an archive is not opened")] if inner else \
                _at(files, finder, keep):
            found = True
            yield replace(source, input_path=path)
    if not found:
        yield _refusal(path, case_id, "the zip file holds no CT: neither DICOM nor NIfTI")


def _dicom(files: Sequence[Path]) -> Iterator[Source]:
    headers, damaged = _headers(files)
    for study in group(headers).values():
        yield _study(list(study.values()))
    if damaged:
        yield _refusal(damaged[0].parent, f"refused-{digest(*(str(p) for p in damaged))}",
                       f"{len(damaged)} DICOM file(s) are damaged or cut short: their headers cannot be read")


def _headers(files: Sequence[Path]) -> tuple[list[SliceHeader], list[Path]]:
    headers: list[SliceHeader] = []
    damaged: list[Path] = []
    with quiet():
        for file in files:
            try:
                header = read_header(file)
            except (SeriesError, OSError):
                damaged.append(file)
            else:
                headers += [] if header is None else [header]
                damaged += [file] if header is None and _claims_dicom(file) else []
    return headers, damaged


def _claims_dicom(file: Path) -> bool:
    """A file that should have been a slice: silence about it could hide the loss of the first or last slice."""
    return file.suffix.lower() in DICOM_SUFFIXES or file.stat().st_size == 0


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
