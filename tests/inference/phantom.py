"""A pelvis of simple solids, defined by place in the patient, and a segmenter that knows it.

Loaded by path: from the conftest files of the rooms that need it, and in the processes that the command line's tests
start.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import count
from pathlib import Path
from threading import Barrier

import numpy as np
import numpy.typing as npt

from sacroleak.core.errors import ModelError, NotAssessableError
from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.nifti_write import write_volume
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.segmentation import Segmentation

Mask = npt.NDArray[np.bool_]

CEMENT_HU, BONE_HU, SOFT_HU, CRASH_HU, BARE_HU = 2000, 500, 40, 2999, 290
KILL_HU, KILL_ONCE_HU, HANG_HU, HOG_HU, FULL_HU = 2998, 2997, 2996, 2995, 2994
"""In a scan's corner: what Troublemaker does with it."""

IN_ALA = ((30.0, 0.0, 0.0), 9.0)
"""Centre in LPS mm and radius of a cement ball well inside the left ala: no leak."""

IN_FRONT = ((20.0, -29.0, 5.0), 6.0)
"""A ball in front of the left half of the sacrum, touching it: a leak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ball:
    """Cement."""

    centre_lps_mm: tuple[float, float, float]
    radius_mm: float


def ball(of: tuple[tuple[float, float, float], float]) -> Ball:
    return Ball(centre_lps_mm=of[0], radius_mm=of[1])


def structures_at(points: Points) -> npt.NDArray[np.uint8]:
    """Structure 0-5 at LPS points (..., 3): a slab-like sacrum, canal behind its middle, hips beside, L5 above."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    labels = np.zeros(points.shape[:-1], dtype=np.uint8)
    labels[(np.abs(x) < 50) & (np.abs(y) < 22) & (np.abs(z) < 45)] = Structure.SACRUM
    labels[(np.hypot(x, y - 10) < 8) & (np.abs(z) < 45)] = Structure.SACRAL_CANAL
    labels[(x > 54) & (x < 70) & (np.abs(y) < 35) & (np.abs(z) < 50)] = Structure.HIP_LEFT
    labels[(x < -54) & (x > -70) & (np.abs(y) < 35) & (np.abs(z) < 50)] = Structure.HIP_RIGHT
    labels[(np.abs(x) < 25) & (np.abs(y + 5) < 15) & (z > 51) & (z < 70)] = Structure.L5
    return labels


def grid(*, spacing_mm: Sequence[float] = (3.0, 3.0, 3.0), turn: npt.ArrayLike | None = None,
         half_mm: float = 84.0) -> Geometry:
    """A cube around the origin whose index axes are the columns of `turn` (the identity unless given)."""
    axes = np.eye(3) if turn is None else np.asarray(turn, dtype=np.float64)
    affine = np.eye(4)
    affine[:3, :3] = axes @ np.diag(spacing_mm)
    shape = tuple(int(2 * half_mm / s) for s in spacing_mm)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Geometry(affine=affine, shape=(shape[0], shape[1], shape[2]))


def places(geometry: Geometry) -> Points:
    """LPS mm of every voxel; (i, j, k, 3)."""
    return geometry.to_lps(np.moveaxis(np.indices(geometry.shape), 0, -1))


def scan(geometry: Geometry, *balls: Ball, bone_hu: int = BONE_HU) -> Volume:
    """A CT of the phantom with cement balls."""
    points = places(geometry)
    structures = structures_at(points)
    hu = np.where(structures > 0, bone_hu, SOFT_HU).astype(np.int16)
    hu[structures == Structure.SACRAL_CANAL] = SOFT_HU
    hu[np.abs(points).max(axis=-1) > 80] = -1000
    for one in balls:
        hu[np.linalg.norm(points - one.centre_lps_mm, axis=-1) < one.radius_mm] = CEMENT_HU
    return Volume(hu=hu, geometry=geometry)


def write_scan(path: Path, *balls: Ball, geometry: Geometry | None = None, bone_hu: int = BONE_HU,
               marker: int | None = None) -> Path:
    """The phantom as a NIfTI file; `marker` puts one value into a corner voxel, which makes another file of it."""
    ct = scan(grid() if geometry is None else geometry, *balls, bone_hu=bone_hu)
    if marker is not None:
        ct.hu[0, 0, 0] = marker
    write_volume(path, ct)
    return path


@cache
def anatomy() -> LabelMap:
    """Structures on a working grid of 1 mm."""
    working = Geometry.axis_aligned(origin_lps_mm=(-75, -40, -52), spacing_mm=1.0, shape=(151, 81, 125))
    return LabelMap(labels=structures_at(places(working)), geometry=working)


class KnowingSegmenter:
    """Knows the phantom's bones by place; cement is what is dense. Counts its calls.

    A scan with BARE_HU bone is not assessable; one whose corner is CRASH_HU breaks it, as a fault of the
    software would.
    """

    def __init__(self) -> None:
        self.calls = 0

    def segment(self, ct: Volume) -> Segmentation:
        self.calls += 1
        if ct.hu[0, 0, 0] == CRASH_HU:
            raise RuntimeError("a fault whose text must not be shown: SECRET")
        if ct.hu.max() <= BARE_HU:
            raise NotAssessableError(("No sacrum was found in the scan.",))
        start = (2, 3, 4)
        region = ct.crop(start, np.array(ct.geometry.shape) - 2)
        return Segmentation(anatomy=anatomy(), cement=LabelMap(labels=region.hu >= CEMENT_HU, geometry=region.geometry),
                            ct=region, start=start, metal_ml=0.0, sacrum_coverage=1.0)


MEETING = Barrier(3)


class OnCard(KnowingSegmenter):
    """Like one on a graphics card: answers once three scans are there."""

    device = "cuda"

    def segment(self, ct: Volume) -> Segmentation:
        MEETING.wait(60)
        return super().segment(ct)


class Troublemaker(KnowingSegmenter):
    """Ends its process, hangs, takes memory, or finds the disk full, as the scan's corner says.

    `marks` is a folder where it leaves files while it hangs, and one for the first time it met KILL_ONCE_HU.
    """

    def __init__(self, marks: Path) -> None:
        super().__init__()
        self.marks = marks

    def segment(self, ct: Volume) -> Segmentation:
        corner = int(ct.hu[0, 0, 0])
        if corner != CRASH_HU:
            ct.hu[0, 0, 0] = SOFT_HU
        if corner == KILL_HU or (corner == KILL_ONCE_HU and not (self.marks / "killed").exists()):
            (self.marks / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if corner == HANG_HU:
            for number in count():
                (self.marks / f"hang-{os.getpid()}-{number}").touch()
                time.sleep(0.2)
        if corner == HOG_HU:
            hog = np.ones(2 << 30, dtype=np.uint8)
            time.sleep(3600 * int(hog[0]))
        if corner == FULL_HU:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().segment(ct)


class Unloadable(Troublemaker):
    """Networks that cannot be loaded."""

    def load(self) -> None:
        raise ModelError("3 networks wanted, 1 found")


@dataclass(frozen=True, slots=True, kw_only=True)
class HangClock:
    """Seconds; 10,000 more for each file that a hanging Troublemaker leaves, so that no test waits for a limit."""

    marks: Path

    def __call__(self) -> float:
        return time.perf_counter() + 10_000 * len(list(self.marks.glob("hang-*")))


def fixed_now() -> datetime:
    """The same moment in every process."""
    return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
