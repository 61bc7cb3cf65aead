"""Small scans for the tests of reading: noise with one marked voxel whose place in the patient is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from sacroleak.core.dicom_write import SeriesStyle, write_series
from sacroleak.core.geometry import Geometry
from sacroleak.core.sources import Source, discover
from sacroleak.core.volume import Volume

SHAPE = (36, 32, 12)
AFFINE = np.array([[0.7, 0, 0, -20], [0, 0.8, 0, -130.25], [0, 0, 2, -900.5], [0, 0, 0, 1]])
MARK = (5, 7, 3)
MARK_HU = 2999

Edit = Callable[..., None]
MakeCt = Callable[..., Volume]
MakeSeries = Callable[..., Path]
Only = Callable[[Path], Source]


@pytest.fixture
def make_ct() -> MakeCt:
    """A scan of SHAPE on `affine` (default: 0.7 x 0.8 x 2 mm), MARK_HU at MARK and nowhere else."""

    def make(*, affine: npt.ArrayLike | None = None, seed: int = 0) -> Volume:
        hu = np.random.default_rng(seed).integers(-1000, 1500, SHAPE, dtype=np.int16)
        hu[MARK] = MARK_HU
        used = AFFINE if affine is None else np.asarray(affine, dtype=np.float64)
        return Volume(hu=hu, geometry=Geometry(affine=used, shape=SHAPE))

    return make


@pytest.fixture
def ct(make_ct: MakeCt) -> Volume:
    """The default scan."""
    return make_ct()


@pytest.fixture
def make_series(tmp_path: Path, ct: Volume) -> MakeSeries:
    """Write a series (of `volume`, default `ct`) with any SeriesStyle keywords; its folder below tmp_path."""

    def make(folder: str = "series", *, volume: Volume | None = None, **style: Any) -> Path:
        write_series(ct if volume is None else volume, tmp_path / folder, SeriesStyle(**{"study": "s", **style}))
        return tmp_path / folder

    return make


@pytest.fixture
def edit() -> Edit:
    """Change attributes of written DICOM files; None removes one."""

    def change(paths: Iterable[Path], **tags: Any) -> None:
        for path in paths:
            data = pydicom.dcmread(path)
            for keyword, value in tags.items():
                if value is None:
                    delattr(data, keyword)
                else:
                    setattr(data, keyword, value)
            data.save_as(path)

    return change


@pytest.fixture
def only() -> Only:
    """The only source at a path."""

    def find(path: Path) -> Source:
        (source,) = discover([path])
        return source

    return find


def slices_of(folder: Path) -> list[Path]:
    """The files of a written series, lowest number first."""
    return sorted(folder.glob("*.dcm"))


@pytest.fixture(name="slices_of")
def _slices_of() -> Callable[[Path], list[Path]]:
    return slices_of


@pytest.fixture
def mark_lps_mm() -> Callable[[Volume], npt.NDArray[np.float64]]:
    """Where the marked voxel of a scan lies; exactly one must be found."""

    def find(volume: Volume) -> npt.NDArray[np.float64]:
        (index,) = np.argwhere(volume.hu == MARK_HU)
        return volume.geometry.to_lps(index)

    return find
