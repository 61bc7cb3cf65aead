"""Small scans for a long run: most fair, some broken in as many ways as are known, and a segmenter that costs little.

Everything here is computed. The scans show cement balls in a block of bone; they test the run, not the networks.
"""

from __future__ import annotations

import gzip
import os
import signal
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sacroleak.core.dicom_write import SeriesStyle, write_series
from sacroleak.core.errors import NotAssessableError
from sacroleak.core.geometry import Geometry
from sacroleak.core.nifti_write import write_volume
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.segmentation import Segmentation

HU = npt.NDArray[np.int16]
Break = Callable[[Path, HU], Path]

SIDE_MM, VOXEL_MM = 150.0, 5.0
BONE_HU, SOFT_HU, CEMENT_HU, FAINT_BONE_HU = 500, 40, 2000, 300
KILLS_HU, FAULTS_HU = 2998, 2999
"""In a scan's corner: the segmenter ends its process, or raises an error that nobody foresaw."""


class StandIn:
    """Takes for bone what lies where the block of bone is, and for cement what is dense."""

    def segment(self, ct: Volume) -> Segmentation:
        """Raises NotAssessableError for a scan without dense bone; see KILLS_HU and FAULTS_HU for other ends."""
        corner = int(ct.hu[0, 0, 0])
        if corner == KILLS_HU:
            os.kill(os.getpid(), signal.SIGKILL)
        if corner == FAULTS_HU:
            raise ZeroDivisionError
        if ct.hu.max() < BONE_HU:
            raise NotAssessableError(("too little of a sacrum was found in the scan",))
        start = (1, 1, 1)
        part = ct.crop(start, np.array(ct.geometry.shape) - 1)
        cement = LabelMap(labels=part.hu >= CEMENT_HU, geometry=part.geometry)
        return Segmentation(anatomy=_bones(), cement=cement, ct=part, start=start, metal_ml=0.0, sacrum_coverage=1.0)


def make_scans(folder: Path, *, count: int, broken: int, rng: np.random.Generator) -> Path:
    """Write `count` scans into `folder`, `broken` of them in each way of BREAKS in turn, and their manifest; its path.

    Half of the fair ones hold cement. Every tenth is a DICOM series, every eleventh a zip file of one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spoiled = dict(zip(sorted(rng.choice(count, size=broken, replace=False).tolist()), _in_turn(broken), strict=True))
    rows = ["case_id,path"]
    for number in range(count):
        hu = _scan(number, rng, cement=number % 2 == 0)
        name = spoiled.get(number)
        if name is not None:
            path = BREAKS[name](folder / f"{number:05d}", hu)
        elif number % 10 == 9:
            path = _series(folder / f"{number:05d}", hu)
        elif number % 11 == 10:
            path = _zipped(folder / f"{number:05d}", _series(folder / f"{number:05d}-slices", hu))
        else:
            path = _nifti(folder / f"{number:05d}", hu)
        rows.append(f"scan-{number:05d}{'' if name is None else '-' + name},{path.name}")
    manifest = folder / "scans.csv"
    manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return manifest


def _in_turn(broken: int) -> list[str]:
    names = list(BREAKS)
    return [names[number % len(names)] for number in range(broken)]


def _grid() -> Geometry:
    side = int(SIDE_MM / VOXEL_MM)
    half = (side - 1) / 2 * VOXEL_MM
    return Geometry.axis_aligned(origin_lps_mm=(-half, -half, -half), spacing_mm=VOXEL_MM, shape=(side, side, side))


def _points(geometry: Geometry) -> npt.NDArray[np.float64]:
    return geometry.to_lps(np.moveaxis(np.indices(geometry.shape), 0, -1))


def _structures(points: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    labels = np.zeros(points.shape[:-1], dtype=np.uint8)
    labels[(np.abs(x) < 45) & (np.abs(y) < 20) & (np.abs(z) < 45)] = Structure.SACRUM
    labels[(np.hypot(x, y - 10) < 7) & (np.abs(z) < 45)] = Structure.SACRAL_CANAL
    labels[(np.abs(x) > 50) & (np.abs(x) < 64) & (np.abs(y) < 35) & (np.abs(z) < 50)] = Structure.HIP_RIGHT
    labels[(labels == Structure.HIP_RIGHT) & (x > 0)] = Structure.HIP_LEFT
    return labels


@cache
def _bones() -> LabelMap:
    grid = Geometry.axis_aligned(origin_lps_mm=(-70, -40, -52), spacing_mm=1.0, shape=(141, 81, 105))
    return LabelMap(labels=_structures(_points(grid)), geometry=grid)


def _scan(number: int, rng: np.random.Generator, *, cement: bool) -> HU:
    points = _points(_grid())
    inside = _structures(points) > 0
    hu = np.where(inside, BONE_HU if cement else FAINT_BONE_HU, SOFT_HU).astype(np.int16)
    centre = rng.uniform((-30, -30, -30), (30, 0, 30))
    if cement:
        hu[np.linalg.norm(points - centre, axis=-1) < rng.uniform(7, 12)] = CEMENT_HU
    hu[0] = -1000
    hu[0, 1, :2] = (-1000 + number % 1000, -1000 + number // 1000)  # no two are the same
    return np.asfortranarray(hu)


def _volume(hu: HU) -> Volume:
    return Volume(hu=hu, geometry=_grid())


def _nifti(path: Path, hu: HU) -> Path:
    target = path.with_name(f"{path.name}.nii.gz")
    write_volume(target, _volume(hu))
    return target


def _series(path: Path, hu: HU) -> Path:
    write_series(_volume(hu), path, SeriesStyle(study=path.name))
    return path


def _zipped(path: Path, folder: Path) -> Path:
    target = path.with_name(path.name + ".zip")
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return target


def _bytes(change: Callable[[bytes], bytes]) -> Break:
    """A NIfTI file whose bytes are changed."""
    def spoil(path: Path, hu: HU) -> Path:
        target = _nifti(path, hu)
        target.write_bytes(change(target.read_bytes()))
        return target
    return spoil


def _header(offset: int, value: bytes) -> Break:
    """An uncompressed NIfTI file with other bytes in its header."""
    def spoil(path: Path, hu: HU) -> Path:
        packed = _nifti(path, hu)
        data = bytearray(gzip.decompress(packed.read_bytes()))
        data[offset: offset + len(value)] = value
        packed.unlink()
        target = path.with_name(f"{path.name}.nii")
        target.write_bytes(bytes(data))
        return target
    return spoil


def _values(change: Callable[[HU], HU]) -> Break:
    """A NIfTI file of other values."""
    return lambda path, hu: _nifti(path, change(hu.copy()))


def _corner(value: int) -> Break:
    def change(hu: HU) -> HU:
        hu[0, 0, 0] = value
        return hu
    return _values(change)


def _without_a_slice(path: Path, hu: HU) -> Path:
    folder = _series(path, hu)
    sorted(folder.iterdir())[8].unlink()
    return folder


def _with_a_short_slice(path: Path, hu: HU) -> Path:
    folder = _series(path, hu)
    file = sorted(folder.iterdir())[8]
    file.write_bytes(file.read_bytes()[:-400])
    return folder


def _broken_zip(path: Path, hu: HU) -> Path:
    target = _zipped(path, _series(path.with_name(path.name + "-slices"), hu))
    target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])
    return target


def _zip_in_zip(path: Path, hu: HU) -> Path:
    inner = path.with_name(path.name + "-inner")
    inner.mkdir()
    _zipped(inner / "a", _series(path.with_name(path.name + "-slices"), hu))
    return _zipped(path, inner)


def _words(path: Path, _hu: HU) -> Path:
    path.mkdir()
    (path / "letter.txt").write_text("words")
    return path


def _nowhere(path: Path, _hu: HU) -> Path:
    return path.with_name(path.name + "-gone")


BREAKS: Mapping[str, Break] = {
    "empty": _bytes(lambda _: b""),
    "words": _bytes(lambda _: b"this is no image"),
    "cut-short": _bytes(lambda data: data[: len(data) // 2]),
    "bit-flipped": _bytes(lambda data: data[:-6] + bytes([data[-6] ^ 1]) + data[-5:]),
    "shape-of-nothing": _header(42, b"\0\0"),
    "unknown-type": _header(70, b"\xff\x7f"),
    "grid-of-nothing": _header(280, bytes(48)),
    "one-value": _values(lambda hu: np.full_like(hu, 7)),
    "never-below-0": _values(np.abs),
    "no-bone": _values(lambda hu: np.minimum(hu, np.int16(100))),
    "slice-missing": _without_a_slice,
    "slice-cut-short": _with_a_short_slice,
    "zip-cut-short": _broken_zip,
    "zip-in-zip": _zip_in_zip,
    "no-scan": _words,
    "nowhere": _nowhere,
    "kills": _corner(KILLS_HU),
    "faults": _corner(FAULTS_HU),
}
"""Ways in which a scan can be broken; each must be refused, and cost nothing but itself."""
