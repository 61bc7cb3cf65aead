"""Label images and preview: written, read back with another library, compared in the patient's frame."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy import ndimage
from scipy.spatial.transform import Rotation
from skimage.measure import find_contours

from sacroleak.core.geometry import Geometry
from sacroleak.core.report import read_report
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap
from sacroleak.inference.batch import RunSummary
from sacroleak.inference.own_grid import structures_on
from sacroleak.inference.planes import Plane
from sacroleak.inference.preview import draw_preview
from sacroleak.inference.score_one import Engine

MakeEngine = Callable[..., Engine]
Run = Callable[..., RunSummary]

TURNS = {
    "head first, supine": np.eye(3),
    "reversed slices": np.diag([1.0, 1.0, -1.0]),
    "prone": np.diag([-1.0, -1.0, 1.0]),
    "neurological": np.diag([-1.0, 1.0, 1.0]),
    "sagittal slices": np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]),
    "oblique": Rotation.from_euler("xyz", (17, -9, 6), degrees=True).as_matrix(),
}


def centre_lps(path: Path, label: int) -> npt.NDArray[np.float64]:
    """LPS mm of the middle of one label, read by nibabel alone."""
    image = nib.Nifti1Image.from_filename(path)
    index = np.argwhere(np.asanyarray(image.dataobj) == label)
    ras = index @ image.affine[:3, :3].T + image.affine[:3, 3]
    middle: npt.NDArray[np.float64] = (ras * (-1, -1, 1)).mean(axis=0)
    return middle


@pytest.mark.parametrize("turn", TURNS)
def test_label_images_lie_on_the_scan_and_in_the_right_place(
    turn: str, tmp_path: Path, phantom: ModuleType, make_engine: MakeEngine, run: Run,
) -> None:
    grid = phantom.grid(spacing_mm=(2.5, 2.0, 3.0), turn=TURNS[turn])
    scan = phantom.write_scan(tmp_path / "a.nii.gz", phantom.ball(phantom.IN_ALA), phantom.ball(phantom.IN_FRONT),
                              geometry=grid)
    summary = run([scan], tmp_path / "out", make_engine(label_images=True))
    folder = tmp_path / "out/cases" / summary.outcomes[0].case_id
    given = nib.Nifti1Image.from_filename(scan)
    for name in ("labels", "cement", "leaks"):
        image = nib.Nifti1Image.from_filename(folder / f"{name}.nii.gz")
        assert image.shape == given.shape
        np.testing.assert_allclose(image.affine, given.affine, atol=1e-4)
    report = read_report(folder / "report.json")
    assert [leak.side for leak in report.leaks] == ["left"]
    leak = centre_lps(folder / "leaks.nii.gz", report.leaks[0].number)
    np.testing.assert_allclose(leak, phantom.IN_FRONT[0], atol=1.0)
    np.testing.assert_allclose(leak, report.leaks[0].centroid_lps_mm, atol=0.02)
    np.testing.assert_allclose(centre_lps(folder / "labels.nii.gz", Structure.HIP_LEFT), (62, 0, 0), atol=1.0)
    np.testing.assert_allclose(centre_lps(folder / "labels.nii.gz", Structure.L5), (0, -5, 60.5), atol=1.0)
    cement = np.asanyarray(nib.Nifti1Image.from_filename(folder / "cement.nii.gz").dataobj) > 0
    labels = np.asanyarray(nib.Nifti1Image.from_filename(folder / "labels.nii.gz").dataobj)
    np.testing.assert_array_equal(labels == Structure.CEMENT, cement)


def test_without_anatomy_the_cement_is_still_written(phantom: ModuleType) -> None:
    ct = phantom.scan(phantom.grid(), phantom.ball(phantom.IN_ALA))
    known = phantom.KnowingSegmenter().segment(ct)
    empty = LabelMap(labels=np.zeros_like(known.anatomy.labels), geometry=known.anatomy.geometry)
    placed = structures_on(ct.geometry, type(known)(anatomy=empty, cement=known.cement, ct=known.ct, start=known.start,
                                                    metal_ml=0.0, sacrum_coverage=1.0))
    assert placed.part.volume_ml(Structure.CEMENT) == pytest.approx(known.cement.volume_ml(1))


def test_a_scan_without_answer_has_a_picture_and_no_label_images(tmp_path: Path, phantom: ModuleType, run: Run,
                                                                 make_engine: MakeEngine) -> None:
    scan = phantom.write_scan(tmp_path / "a.nii.gz", bone_hu=phantom.BARE_HU)
    summary = run([scan], tmp_path / "out", make_engine(preview=True, label_images=True))
    folder = tmp_path / "out/cases" / summary.outcomes[0].case_id
    assert sorted(p.name for p in folder.iterdir()) == ["preview.png", "report.html", "report.json"]
    assert json.loads((folder / "report.json").read_text())["status"] == "not_assessable"


@pytest.mark.parametrize("turn", ["head first, supine", "prone", "oblique"])
def test_the_preview_shows_the_leak_where_it_is_whatever_the_grid(
    turn: str, tmp_path: Path, phantom: ModuleType, make_engine: MakeEngine, run: Run,
) -> None:
    """The same patient on another grid gives the same picture, so what lies left is drawn on the right."""
    pictures: list[npt.NDArray[np.float64]] = []
    for name in ("head first, supine", turn):
        scan = phantom.write_scan(tmp_path / f"{len(pictures)}.nii.gz", phantom.ball(phantom.IN_FRONT),
                                  geometry=phantom.grid(turn=TURNS[name]))
        out = tmp_path / f"out-{len(pictures)}"
        summary = run([scan], out, make_engine(preview=True))
        png = (out / "cases" / summary.outcomes[0].case_id / "preview.png").read_bytes()
        pictures.append(np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(float))
    assert 1400 <= pictures[0].shape[1] <= 1800
    red = [np.argwhere((p[..., 0] > 220) & (p[..., 1] < 110) & (p[..., 2] < 110)) for p in pictures]
    first_panel = [points[points[:, 1] < 530] for points in red]
    assert len(first_panel[0]) > 50
    np.testing.assert_allclose(first_panel[0].mean(axis=0), first_panel[1].mean(axis=0), atol=8)
    assert first_panel[0][:, 1].mean() > 272, "a leak on the patient's left is right of the axial cut's middle"


def test_the_preview_draws_every_kind_of_scan(phantom: ModuleType, tmp_path: Path, make_engine: MakeEngine,
                                              run: Run) -> None:
    ct = phantom.scan(phantom.grid(), phantom.ball(phantom.IN_ALA))
    scan = phantom.write_scan(tmp_path / "a.nii.gz", phantom.ball(phantom.IN_ALA))
    (outcome,) = run([scan], tmp_path / "out", make_engine()).outcomes
    report = read_report(tmp_path / "out/cases" / outcome.case_id / "report.json")
    seen = phantom.KnowingSegmenter().segment(ct)
    drawn = {draw_preview(ct, seen, None, report), draw_preview(ct, None, None, report)}
    assert len(drawn) == 2
    assert all(png.startswith(b"\x89PNG") for png in drawn)


@pytest.mark.parametrize("turn", ["sagittal slices", "oblique"])
def test_a_cut_gives_the_value_at_its_place(turn: str, phantom: ModuleType) -> None:
    """Values that are linear in place are met exactly by linear interpolation, at every pixel inside the scan."""
    grid: Geometry = phantom.grid(turn=TURNS[turn])
    slope = np.array([1.0, 2.0, -3.0])
    values = (phantom.places(grid) @ slope).astype(np.float32)
    plane = Plane(orientation="sagittal", centre_lps_mm=(11.0, 4.0, -7.0), side_mm=60.0, pixels=40)
    cut = plane.cut(values, grid, outside=-1e6)
    for point in np.array([[11.0, -20.0, 10.0], [11.0, 30.0, -30.0], [11.0, 4.0, -7.0]]):
        x, y = np.rint(plane.to_pixel(point[None])[0]).astype(int)
        steps = (np.array([x, y]) - (plane.pixels - 1) / 2) * plane.pixel_mm
        exact = np.array([11.0, 4.0 + steps[0], -7.0 - steps[1]])
        assert cut[y, x] == pytest.approx(float(exact @ slope), abs=0.01)
    far = Plane(orientation="axial", centre_lps_mm=(0.0, 0.0, 500.0), side_mm=60.0, pixels=8)
    assert (far.cut(values, grid, outside=-1e6) == -1e6).all()


@pytest.mark.parametrize("smooth_mm", [0.0, 0.8])
@pytest.mark.parametrize("turn", ["head first, supine", "sagittal slices", "oblique"])
def test_outlines_are_those_of_the_whole_cut(turn: str, smooth_mm: float, phantom: ModuleType) -> None:
    """Looking only at the slab, and only around what is there, changes no line; nor where it meets the edge."""
    grid: Geometry = phantom.grid(turn=TURNS[turn])
    sacrum = LabelMap(labels=phantom.structures_at(phantom.places(grid)), geometry=grid)
    for centre, side in (((0.0, 0.0, 0.0), 150.0), ((40.0, 0.0, 30.0), 60.0)):
        plane = Plane(orientation="coronal", centre_lps_mm=centre, side_mm=side, pixels=220)
        share = plane.cut(sacrum.labels == Structure.SACRUM, grid, outside=0.0)
        whole = ndimage.gaussian_filter(share, smooth_mm / plane.pixel_mm) if smooth_mm else share
        wanted = [line[:, ::-1] for line in find_contours(whole, 0.5)]
        slab = plane.slab(sacrum)
        assert slab.labels.size < sacrum.labels.size
        found = plane.outlines(slab.labels == Structure.SACRUM, slab.geometry, smooth_mm=smooth_mm)
        assert [line.shape for line in found] == [line.shape for line in wanted]
        for line, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(line, other, atol=1e-3)


def test_a_plane_that_meets_nothing_has_no_outlines(phantom: ModuleType) -> None:
    everywhere = LabelMap(labels=np.ones(phantom.grid().shape, dtype=bool), geometry=phantom.grid())
    for place in (-500.0, 500.0):
        plane = Plane(orientation="axial", centre_lps_mm=(0.0, 0.0, place), side_mm=60.0, pixels=8)
        slab = plane.slab(everywhere)
        assert plane.outlines(slab.labels > 0, slab.geometry) == []
