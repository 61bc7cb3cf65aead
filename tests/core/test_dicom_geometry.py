"""Every way to write a series lands in one frame; what cannot be trusted is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from sacroleak.core.geometry import Geometry
from sacroleak.core.read import input_digest, read
from sacroleak.core.volume import Volume

Mark = Callable[[Volume], npt.NDArray[np.float64]]


def turned(angles_deg: tuple[float, float, float], shear: tuple[float, float] = (0, 0)) -> npt.NDArray[np.float64]:
    """An affine turned about x, y, z, its slices shifted sideways by `shear` mm each."""
    matrix = np.diag([0.7, 0.8, 2.0])
    matrix[:2, 2] = shear
    for axis, angle in enumerate(np.deg2rad(angles_deg)):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[[a, b, a, b], [a, b, b, a]] = np.cos(angle), np.cos(angle), -np.sin(angle), np.sin(angle)
        matrix = step @ matrix
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, (-40.125, 17.5, 333.3)
    return affine


GRIDS = {
    "straight": turned((0, 0, 0)),
    "oblique": turned((12, -9, 21)),
    "tilted gantry": turned((0, 0, 0), shear=(0, 0.9)),
    "tilted and oblique": turned((10, 5, -15), shear=(0.3, -0.8)),
    "stored mirrored": turned((0, 0, 0)) @ np.diag([-1.0, 1, -1, 1]),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("position", ["HFS", "HFP", "FFS", "FFP"])
@pytest.mark.parametrize("reverse", [False, True])
def test_every_position_order_and_slant_lands_in_one_frame(  # noqa: PLR0917 - fixtures
    grid: str, position: str, reverse: bool, make_ct: Any, make_series: Any, only: Any, mark_lps_mm: Mark
) -> None:
    volume = make_ct(affine=GRIDS[grid])
    found = read(only(make_series(volume=volume, position=position, reverse=reverse)))
    assert np.abs(mark_lps_mm(found) - mark_lps_mm(volume)).max() < 0.01
    assert np.linalg.det(found.geometry.affine[:3, :3]) > 0
    everywhere = np.argwhere(np.ones(volume.hu.shape, dtype=bool))
    there = np.rint(found.geometry.to_index(volume.geometry.to_lps(everywhere))).astype(int)
    assert np.array_equal(found.hu[tuple(there.T)], volume.hu[tuple(everywhere.T)])


def test_the_order_of_files_and_patient_position_do_not_count(make_series: Any, only: Any, edit: Any,
                                                              slices_of: Any) -> None:
    folder = make_series()
    before = only(folder)
    plain = read(before)
    for number, path in enumerate(np.random.default_rng(3).permutation(slices_of(folder))):
        edit([path], InstanceNumber=1, PatientPosition="FFP", SliceLocation="7")
        path.rename(folder / f"renamed-{number:03d}")
    after = only(folder)
    assert input_digest(read(after)) == input_digest(plain)
    assert after.case_id == before.case_id


def test_a_tilted_gantry_keeps_its_slice_origins(make_ct: Any, make_series: Any, only: Any) -> None:
    volume = make_ct(affine=GRIDS["tilted gantry"])
    grid: Geometry = read(only(make_series(volume=volume))).geometry
    assert np.allclose(grid.affine, volume.geometry.affine, atol=1e-6)
    assert grid.voxel_ml == pytest.approx(0.7 * 0.8 * 2.0 / 1000)


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even_enough(make_ct: Any, make_series: Any, only: Any,
                                                                      edit: Any, slices_of: Any) -> None:
    affine = turned((0, 0, 0))
    affine[2, 2] = 0.625
    folder = make_series(volume=make_ct(affine=affine))
    for path in slices_of(folder):
        x, y, z = pydicom.dcmread(path).ImagePositionPatient
        edit([path], ImagePositionPatient=[x, y, round(float(z), 1)])
    assert only(folder).kind == "dicom"


def shift(path: Path, edit: Any, *, by_mm: tuple[float, float, float]) -> None:
    position = np.array(pydicom.dcmread(path).ImagePositionPatient, dtype=float) + by_mm
    edit([path], ImagePositionPatient=[f"{n:.4f}" for n in position])


def refusal(folder: Path, only: Any) -> str:
    source = only(folder)
    assert source.kind == "refused"
    assert "\n" not in source.reason
    return str(source.reason)


def test_a_missing_slice_is_named(make_series: Any, only: Any, slices_of: Any) -> None:
    folder = make_series()
    slices_of(folder)[4].unlink()
    assert "slice 5 of 12 is missing, gap of 4.00 mm where 2.00 mm is usual" in refusal(folder, only)


def test_two_missing_slices_count_into_the_total(make_series: Any, only: Any, slices_of: Any) -> None:
    folder = make_series()
    for path in slices_of(folder)[7:9]:
        path.unlink()
    assert "slice 8 of 12 is missing, gap of 6.00 mm" in refusal(folder, only)


def test_duplicate_slices(make_series: Any, only: Any, slices_of: Any, edit: Any) -> None:
    folder = make_series()
    copy = folder / "again.dcm"
    copy.write_bytes(slices_of(folder)[2].read_bytes())
    assert "1 of 13 slices are duplicates" in refusal(folder, only)
    edit([copy], SOPInstanceUID="1.2.3")
    assert "1 of 13 slices are duplicates" in refusal(folder, only)


def test_a_series_acquired_twice_is_all_duplicates(make_series: Any, only: Any, slices_of: Any) -> None:
    folder = make_series()
    for path in slices_of(folder):
        (folder / f"again-{path.name}").write_bytes(path.read_bytes())
    assert "12 of 24 slices are duplicates" in refusal(folder, only)


@pytest.mark.parametrize("by_mm", [(0, 0, 0.4), (0.5, 0, 0), (0, -0.5, 0)])
def test_unequal_spacing_or_a_slice_pushed_sideways(by_mm: tuple[float, float, float], make_series: Any, only: Any,
                                                    edit: Any, slices_of: Any) -> None:
    folder = make_series()
    shift(slices_of(folder)[6], edit, by_mm=by_mm)
    assert "unevenly spaced" in refusal(folder, only)


def test_a_stack_whose_spacing_changes_halfway(make_series: Any, only: Any, edit: Any, slices_of: Any) -> None:
    folder = make_series()
    for number, path in enumerate(slices_of(folder)[6:], start=1):
        shift(path, edit, by_mm=(0, 0, 0.5 * number))
    assert "unevenly spaced" in refusal(folder, only)


def test_slices_too_far_apart(make_ct: Any, make_series: Any, only: Any) -> None:
    affine = turned((0, 0, 0))
    affine[2, 2] = 7
    assert "slices lie 7.00 mm apart, allowed 5.0 mm" in refusal(make_series(volume=make_ct(affine=affine)), only)


def test_a_stack_that_slides_more_than_a_gantry_tilts(make_ct: Any, make_series: Any, only: Any) -> None:
    volume = make_ct(affine=turned((0, 0, 0), shear=(0, 2.5)))
    assert "shift sideways" in refusal(make_series(volume=volume), only)


@pytest.mark.parametrize(("tags", "expected"), [
    ({"FrameOfReferenceUID": "1.2.3.4"}, "different frames of reference"),
    ({"FrameOfReferenceUID": None}, "different frames of reference"),
    ({"ImageOrientationPatient": [1, 0, 0, 0, 0.9962, 0.0872]}, "different orientations"),
    ({"ImageOrientationPatient": None}, "1 of 12 slices have no orientation"),
    ({"ImagePositionPatient": None}, "1 of 12 slices have no position"),
    ({"ImagePositionPatient": [1, 2]}, "1 of 12 slices have no position"),
    ({"PixelSpacing": [0.8, 0.75]}, "different pixel spacings"),
    ({"PixelSpacing": [0, 0.7]}, "zero or below"),
    ({"PixelSpacing": None}, "1 of 12 slices have no pixel spacing"),
    ({"Rows": 10}, "differ in size or pixel format"),
    ({"BitsStored": 12, "HighBit": 11}, "differ in size or pixel format"),
])
def test_one_odd_slice(tags: dict[str, Any], expected: str, make_series: Any, only: Any, edit: Any,
                       slices_of: Any) -> None:
    folder = make_series()
    edit(slices_of(folder)[3:4], **tags)
    assert expected in refusal(folder, only)


def test_slanted_image_axes(make_series: Any, only: Any) -> None:
    folder = make_series(tags={"ImageOrientationPatient": [1, 0, 0, 0.1, 0.99, 0]})
    assert "not perpendicular unit vectors" in refusal(folder, only)


def test_too_few_slices(make_series: Any, only: Any, slices_of: Any) -> None:
    folder = make_series()
    for path in slices_of(folder)[9:]:
        path.unlink()
    assert "has 9 slices, wanted at least 10" in refusal(folder, only)


def test_a_series_without_a_frame_of_reference_is_read(make_series: Any, only: Any) -> None:
    source = only(make_series(tags={"FrameOfReferenceUID": None}))
    assert read(source).geometry.frame_of_reference_uid is None
