"""NIfTI in any orientation, byte order and scaling lands in LPS; what cannot be trusted is refused."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from sacroleak.core.errors import SeriesError
from sacroleak.core.nifti_write import write_volume
from sacroleak.core.read import input_digest, read, read_one
from sacroleak.core.volume import Volume

RAS_AFFINE = np.array([[-0.7, 0, 0, 20], [0, -0.8, 0, 130.25], [0, 0, 2, -900.5], [0, 0, 0, 1]])
"""The default scan's affine, said in RAS."""

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path, ct: Volume) -> Save:
    """Write an array (default: the default scan) as NIfTI with nibabel alone, so no code under test is involved."""

    def write(values: npt.NDArray[Any] | None = None, *, name: str = "scan.nii.gz", affine: Any = RAS_AFFINE,
              codes: tuple[int, int] = (1, 1), kind: Any = nib.Nifti1Image, header: Any = None) -> Path:
        image = kind(ct.hu if values is None else values, affine, header)
        image.set_sform(affine if codes[0] else None, code=codes[0])
        image.set_qform(affine if codes[1] else None, code=codes[1])
        nib.save(image, tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "SCAN.NII.GZ"])
@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1), (2, 1), (4, 0)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_nifti_file_lands_in_lps(name: str, codes: tuple[int, int], kind: Any, save: Save, ct: Volume,
                                   mark_lps_mm: Any) -> None:
    path = save(codes=codes, kind=kind, name=name.lower())
    found = read_one(path.rename(path.with_name(name)))
    assert np.array_equal(found.hu, ct.hu)
    assert found.hu.dtype == np.int16
    assert np.abs(mark_lps_mm(found) - mark_lps_mm(ct)).max() < 0.01
    assert np.allclose(found.geometry.affine, ct.geometry.affine, atol=1e-4)


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, -1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_any_storage_orientation_keeps_the_place(flips: tuple[int, ...], order: tuple[int, ...], save: Save,
                                                 ct: Volume, mark_lps_mm: Any) -> None:
    codes = nib.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], list(zip(order, flips, strict=True)))
    image = nib.Nifti1Image(ct.hu, RAS_AFFINE).as_reoriented(codes)
    found = read_one(save(np.asarray(image.dataobj), affine=image.affine))
    assert np.abs(mark_lps_mm(found) - mark_lps_mm(ct)).max() < 0.01


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_whole_numbers_of_any_type_and_byte_order_become_int16(dtype: Any, order: str, save: Save, ct: Volume) -> None:
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(dtype).newbyteorder(order))
    path = save(ct.hu.astype(dtype), header=header)
    assert nib.Nifti1Image.from_filename(path).header.endianness == order
    found = read_one(path)
    assert found.hu.dtype == np.dtype(np.int16)
    assert found.hu.dtype.isnative
    assert np.array_equal(found.hu, ct.hu)


def scaled(path: Path, slope: float, inter: float) -> None:
    """Set scl_slope and scl_inter in the bytes of an uncompressed file (offsets from nifti1.h)."""
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([slope, inter], dtype="<f4").tobytes()
    path.write_bytes(raw)


def test_slope_and_intercept_are_applied(save: Save, ct: Volume) -> None:
    path = save((ct.hu.astype(np.int32) + 1024).astype(np.uint16), name="scan.nii")
    scaled(path, 1, -1024)
    assert np.array_equal(read_one(path).hu, ct.hu)
    scaled(path, 0.5, -1024)
    half = read_one(path)
    assert half.hu.dtype == np.float32
    assert np.allclose(half.hu, (ct.hu.astype(float) + 1024) / 2 - 1024)


def test_fractions_stay_fractions(save: Save, ct: Volume) -> None:
    found = read_one(save(ct.hu + np.float32(0.25)))
    assert found.hu.dtype == np.float32
    assert np.array_equal(found.hu, ct.hu + np.float32(0.25))


def test_a_fourth_side_of_one_is_no_fourth_dimension(save: Save, ct: Volume) -> None:
    assert np.array_equal(read_one(save(ct.hu[..., None])).hu, ct.hu)


def test_what_is_written_is_read_back(tmp_path: Path, ct: Volume) -> None:
    write_volume(tmp_path / "scan.nii.gz", ct)
    found = read_one(tmp_path / "scan.nii.gz")
    found.geometry.require_same_grid(ct.geometry, "read back")
    assert np.array_equal(found.hu, ct.hu)


def test_dicom_and_nifti_of_one_scan_agree(make_series: Any, save: Save) -> None:
    assert input_digest(read_one(make_series())) == input_digest(read_one(save(affine=RAS_AFFINE.astype(np.float64),
                                                                             kind=nib.Nifti2Image)))


def refused(path: Path, only: Any, match: str) -> None:
    source = only(path)
    with pytest.raises(SeriesError, match=match) as caught:
        read(source)
    assert "\n" not in str(caught.value)
    assert path.stem not in str(caught.value)


@pytest.mark.parametrize(("change", "match"), [
    (lambda hu: np.stack([hu, hu], axis=3), "image is 4-D, wanted 3-D"),
    (lambda hu: hu[0], "image is 2-D"),
    (lambda hu: hu[:, :, :1], "sides of at least 2"),
    (lambda hu: np.where(hu == 2999, np.nan, hu).astype(np.float32), "NaN or infinite"),
    (lambda hu: np.where(hu == 2999, np.inf, hu).astype(np.float32), "NaN or infinite"),
    (lambda hu: np.where(hu == 2999, 1e300, hu), "NaN or infinite"),
    (lambda hu: np.where(hu == 2999, 1e6, hu), "no CT in Hounsfield units"),
    (lambda hu: np.full_like(hu, -1000), "all values are -1000"),
    (lambda hu: (hu + 1000).astype(np.int16), "no value is below 0"),
    (lambda hu: (hu % 256).astype(np.uint8), "no value is below 0"),
    (lambda hu: np.minimum(hu, 150).astype(np.int16), "highest value is 150"),
    (lambda hu: hu.astype(np.complex64), "colours or complex"),
    (lambda hu: np.zeros(hu.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]), "colours or complex"),
])
def test_values_that_are_no_ct(change: Any, match: str, save: Save, ct: Volume, only: Any) -> None:
    refused(save(change(ct.hu)), only, match)


def test_no_usable_affine(save: Save, only: Any) -> None:
    refused(save(codes=(0, 0)), only, "no affine")


@pytest.mark.parametrize(("value", "match"), [
    (np.nan, "not finite and invertible"), (0.0, "not finite and invertible"), (60.0, "voxels are"),
    (0.001, "voxels are"),
])
def test_an_affine_that_places_nothing(value: float, match: str, save: Save, only: Any) -> None:
    path = save(name="scan.nii", codes=(1, 0))
    raw = bytearray(path.read_bytes())
    srow_z = 280 + 32  # offset of srow_z in nifti1.h
    raw[srow_z:srow_z + 12] = np.array([0, 0, value], dtype="<f4").tobytes()
    path.write_bytes(raw)
    refused(path, only, match)


def test_two_scanner_affines_that_disagree(save: Save, ct: Volume, only: Any, tmp_path: Path) -> None:
    image = nib.Nifti1Image(ct.hu, RAS_AFFINE)
    image.set_sform(np.diag([-1.0, 1, 1, 1]) @ RAS_AFFINE, code=1)
    image.set_qform(RAS_AFFINE, code=1)
    nib.save(image, tmp_path / "scan.nii.gz")
    refused(tmp_path / "scan.nii.gz", only, "sform and qform of the NIfTI file disagree")


def test_units_other_than_millimetres(save: Save, only: Any) -> None:
    header = nib.Nifti1Header()
    header.set_xyzt_units("meter")
    refused(save(header=header), only, "units of meter, wanted mm")


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("keep", [0, 40, 300, 2000, -400])
def test_empty_or_cut_short(name: str, keep: int, save: Save, only: Any) -> None:
    path = save(name=name)
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, only, "empty" if keep == 0 else "cut short")


def test_a_damaged_gzip_stream(save: Save, only: Any) -> None:
    path = save()
    raw = bytearray(gzip.decompress(path.read_bytes()))
    packed = bytearray(gzip.compress(raw))
    packed[-8] ^= 1  # the checksum
    path.write_bytes(packed)
    refused(path, only, "damaged or cut short")


def test_a_header_that_claims_too_much(save: Save, only: Any) -> None:
    path = save(name="scan.nii")
    raw = bytearray(path.read_bytes())
    raw[42:48] = np.array([30000, 30000, 30000], dtype="<i2").tobytes()
    path.write_bytes(raw)
    refused(path, only, "at most 1073741824")


def test_another_image_under_a_nifti_name(tmp_path: Path, only: Any) -> None:
    path = tmp_path / "SMITH.nii"
    path.write_bytes(b"\x89PNG" + bytes(4000))
    refused(path, only, "not a readable NIfTI image")


def test_nibabel_stays_silent(save: Save, only: Any, capfd: pytest.CaptureFixture[str]) -> None:
    path = save(name="scan.nii", codes=(1, 0))
    raw = bytearray(path.read_bytes())
    raw[80:84] = np.array([-3.0], dtype="<f4").tobytes()  # a negative pixdim, which nibabel repairs and reports
    path.write_bytes(raw)
    read(only(path))
    assert "".join(capfd.readouterr()) == ""
