"""The header that is written is, byte for byte, the one that nibabel makes of the same grid."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sacroleak.core.geometry import Geometry
from sacroleak.core.nifti_write import RAS_FROM_LPS, write_labels, write_volume
from sacroleak.core.volume import LabelMap, Volume

SHAPE = (7, 5, 4)


def grid(turn: np.ndarray, *, flip: bool, shear: float = 0.0) -> Geometry:
    """A grid of 0.7 x 0.9 x 2 mm along the axes of any rotation."""
    axes = np.linalg.qr(turn)[0] @ np.diag([1.0, 1.0, -1.0 if flip else 1.0])
    affine = np.eye(4)
    affine[:3, :3] = axes * [0.7, 0.9, 2.0]
    affine[:3, 2] += shear * affine[:3, 1]
    affine[:3, 3] = (-120.5, 33.25, -900.125)
    return Geometry(affine=affine, shape=SHAPE)


def by_nibabel(geometry: Geometry, dtype: type, *, qform: bool) -> bytes:
    affine = RAS_FROM_LPS @ geometry.affine
    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(dtype)
    header.set_data_shape(geometry.shape)
    header.set_zooms(geometry.spacing_mm)
    header.set_xyzt_units("mm")
    header["vox_offset"] = 352
    if qform:
        header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    return bytes(header.binaryblock) + bytes(4)


turns = arrays(np.float64, (3, 3), elements=st.floats(-1, 1)).filter(lambda m: abs(np.linalg.det(m)) > 0.01)


@given(turn=turns, flip=st.booleans(), shear=st.sampled_from([0.0, 0.3]))
def test_any_grid_has_the_header_of_nibabel(tmp_path_factory: pytest.TempPathFactory, turn: np.ndarray, flip: bool,
                                            shear: float) -> None:
    geometry = grid(turn, flip=flip, shear=shear)
    path = tmp_path_factory.mktemp("nifti") / "ct.nii.gz"
    write_volume(path, Volume(hu=np.zeros(SHAPE, dtype=np.int16), geometry=geometry))
    assert gzip.decompress(path.read_bytes())[:352] == by_nibabel(geometry, np.int16, qform=shear == 0)


@pytest.mark.parametrize("largest", [1, 255, 256])
def test_labels_have_the_header_of_nibabel(largest: int, tmp_path: Path) -> None:
    geometry = grid(np.eye(3), flip=False)
    labels = np.zeros(SHAPE, dtype=np.uint16)
    labels[1, 2, 3] = largest
    write_labels(tmp_path / "l.nii.gz", LabelMap(labels=labels, geometry=geometry), start=(0, 0, 0), grid=geometry)
    dtype = np.uint8 if largest < 256 else np.uint16
    assert gzip.decompress((tmp_path / "l.nii.gz").read_bytes())[:352] == by_nibabel(geometry, dtype, qform=True)
    assert nib.Nifti1Image.from_filename(tmp_path / "l.nii.gz").get_fdata()[1, 2, 3] == largest


@given(seed=st.integers(0, 1000), share=st.sampled_from([0.0, 0.02, 0.9]), start=st.tuples(*[st.integers(0, 3)] * 3))
def test_every_label_lands_at_its_place(tmp_path_factory: pytest.TempPathFactory, seed: int, share: float,
                                        start: tuple[int, int, int]) -> None:
    whole = grid(np.eye(3), flip=False)
    random = np.random.default_rng(seed)
    stop = tuple(int(random.integers(first + 1, side + 1)) for first, side in zip(start, SHAPE, strict=True))
    place = tuple(slice(first, last) for first, last in zip(start, stop, strict=True))
    wanted = np.zeros(SHAPE, dtype=np.uint8)
    wanted[place] = random.integers(1, 7, wanted[place].shape) * (random.random(wanted[place].shape) < share)
    path = tmp_path_factory.mktemp("nifti") / "l.nii.gz"
    write_labels(path, LabelMap(labels=wanted[place], geometry=whole.crop(start, stop)), start=start, grid=whole)
    assert np.array_equal(np.asanyarray(nib.Nifti1Image.from_filename(path).dataobj), wanted)
