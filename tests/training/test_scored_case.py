"""One scan measured with a segmenter that knows the truth, one that errs on purpose, and one that refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from sacroleak.core.errors import NotAssessableError
from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Site, Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.label_grids import on_whole
from sacroleak.models.limits import shipped_limits
from sacroleak.models.segmentation import Segmentation
from sacroleak.training.baseline import BaselineConfig
from sacroleak.training.benchmark import BenchmarkCase, BenchmarkRow
from sacroleak.training.scored_case import CaseRecord, MeasureConfig, measure, own_cement, region_of
from sacroleak.training.simulation.case import Case, LeakTruth
from sacroleak.training.simulation.implant import Blob, implant

CONFIG = MeasureConfig(match_share=0.1, surface_tolerance_mm=1.0,
                       baseline=BaselineConfig(threshold_hu=1200.0, reach_mm=5.0, leak_ml=0.05))
GRID = Geometry.axis_aligned(origin_lps_mm=(-60, -50, -50), spacing_mm=1.0, shape=(120, 100, 100))
INSIDE = Blob(centre_lps_mm=(20.0, 0.0, 0.0), radii_mm=(7.0, 7.0, 7.0))
FRONT = Blob(centre_lps_mm=(20.0, -24.5, 0.0), radii_mm=(6.0, 5.0, 6.0))
ELSEWHERE = Blob(centre_lps_mm=(50.0, 0.0, 0.0), radii_mm=(5.0, 5.0, 5.0))


def bones() -> LabelMap:
    """A block of sacrum with a canal, and hips to both sides."""
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[25:95, 30:70, 15:85] = Structure.SACRUM
    labels[52:68, 55:66, 15:85] = Structure.SACRAL_CANAL
    labels[100:118, 30:70, 20:80] = Structure.HIP_LEFT
    labels[2:20, 30:70, 20:80] = Structure.HIP_RIGHT
    return LabelMap(labels=labels, geometry=GRID)


def case_of(*blobs: Blob, leak: Blob | None = None) -> BenchmarkCase:
    """A block of bone with cement; `leak` is one of the blobs and a true leak."""
    anatomy = bones()
    tissue = np.where(anatomy.labels > 0, 200, 40).astype(np.int16)
    done = implant(Volume(hu=tissue, geometry=GRID), blobs)
    numbers = np.zeros(GRID.shape, dtype=np.uint8)
    truth: tuple[LeakTruth, ...] = ()
    if leak is not None:
        only = implant(Volume(hu=tissue, geometry=GRID), [leak]).cement.labels.astype(bool)
        numbers[only & (anatomy.labels != Structure.SACRUM)] = 1
        truth = (LeakTruth(number=1, site=Site.ANTERIOR_SACRAL_SPACE, mechanism="cortical_defect",
                           volume_ml=float(np.count_nonzero(numbers)) * GRID.voxel_ml),)
    nothing = LabelMap(labels=np.zeros(GRID.shape, dtype=bool), geometry=GRID)
    case = Case(ct=done.ct, anatomy=anatomy, cement=done.cement, leaks=LabelMap(labels=numbers, geometry=GRID),
                metal=nothing, truth=truth)
    row = BenchmarkRow(case_id="a", source="procedural", anatomy="block", seed=1, sites=(), slice_mm=1.0,
                       increment_mm=1.0, pixel_mm=0.9, fov_mm=230.0, kernel="standard", saturates=True,
                       cement_hu=2000.0, prone=True,
                       cement_ml=(5.0,), lesion="", leaks=(), near_misses=(), metal=(), calcium=(), other_cement=())
    return BenchmarkCase(row=row, case=case, digest="0" * 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowing:
    """Hands out the truth after `spoil` has changed the labels and the cement."""

    case: Case
    spoil: Callable[[np.ndarray, np.ndarray], None] = lambda _labels, _cement: None

    def segment(self, ct: Volume) -> Segmentation:
        labels, cement = self.case.anatomy.labels.astype(np.uint8), np.array(self.case.cement.labels, dtype=bool)
        self.spoil(labels, cement)
        start = (5, 5, 5)
        part = ct.crop(start, GRID.shape)
        return Segmentation(
            anatomy=LabelMap(labels=labels, geometry=GRID), start=start, ct=part, metal_ml=0.0, sacrum_coverage=1.0,
            cement=LabelMap(labels=cement[5:, 5:, 5:], geometry=part.geometry))


class Refusing:
    def segment(self, ct: Volume) -> Segmentation:
        raise NotAssessableError(("no sacrum was found in the scan",))


def measured(item: BenchmarkCase, spoil: Callable[[np.ndarray, np.ndarray], None] | None = None) -> CaseRecord:
    segmenter = Knowing(case=item.case) if spoil is None else Knowing(case=item.case, spoil=spoil)
    return measure(item, segmenter, shipped_limits(), CONFIG)


@pytest.fixture(scope="module")
def leaking() -> BenchmarkCase:
    return case_of(INSIDE, FRONT, leak=FRONT)


def test_the_truth_measured_against_itself_is_perfect(leaking: BenchmarkCase) -> None:
    record = measured(leaking)
    assert record.model is not None
    assert record.anatomy is not None
    bones = {"sacrum": 1.0, "canal": 1.0, "hip_left": 1.0, "hip_right": 1.0, "hips": 1.0}
    assert record.anatomy.dice == record.anatomy.surface_dice == bones
    assert record.anatomy.hd95_mm == dict.fromkeys(bones, 0.0)
    assert record.anatomy.contour_near_cement_p95_mm == 0.0
    assert record.anatomy.sides_exchanged is False
    assert record.model.cement_dice == 1.0
    assert record.model.cement_dice_leaks == 1.0
    assert record.volume_error_pct(record.model) == 0.0
    assert [found.found_as for found in record.model.leaks] == [Site.ANTERIOR_SACRAL_SPACE]
    assert record.model.false_leaks == ()


def test_errors_lower_the_measure_they_belong_to(leaking: BenchmarkCase) -> None:
    def shave(labels: np.ndarray, cement: np.ndarray) -> None:
        labels[25:32] = 0
        cement[:, :, 50:] = False

    record = measured(leaking, shave)
    assert record.model is not None
    assert record.anatomy is not None
    sacrum = record.anatomy.dice["sacrum"]
    assert sacrum is not None
    assert 0.9 < sacrum < 1.0
    assert record.anatomy.dice["hip_left"] == 1.0
    assert record.model.cement_dice == pytest.approx(2 / 3, abs=0.06)
    assert record.volume_error_pct(record.model) == pytest.approx(50.0, abs=7.0)


def test_a_contour_is_wrong_beside_cement_by_as_much_as_it_is_moved(leaking: BenchmarkCase) -> None:
    """The front of the sacrum lies 3 mm too far back, beside the leak; its lower end is lost, where no cement is."""
    def dent(labels: np.ndarray, _cement: np.ndarray) -> None:
        labels[25:95, 30:33] = 0
        labels[25:95, :, 15:25] = 0

    anatomy = measured(leaking, dent).anatomy
    assert anatomy is not None
    assert anatomy.contour_near_cement_p95_mm == pytest.approx(3.0, abs=0.2)
    assert anatomy.hd95_mm["sacrum"] == pytest.approx(10.0, abs=0.5)
    assert anatomy.surface_dice["hips"] == 1.0


def test_without_cement_no_contour_lies_beside_it() -> None:
    anatomy = measured(case_of()).anatomy
    assert anatomy is not None
    assert anatomy.contour_near_cement_p95_mm is None


def test_the_baseline_finds_bone_in_the_box_it_is_told_and_no_sides(leaking: BenchmarkCase) -> None:
    bones = measured(leaking).baseline_anatomy
    assert bones is not None
    sacrum = bones.dice["sacrum"]
    assert sacrum is not None
    assert 0.5 < sacrum < 1.0, "the canal of this block is as dense as its bone"
    assert bones.dice["canal"] == 0.0
    assert bones.sides_exchanged is None
    assert "l5" not in bones.dice


def test_hips_with_each_others_names_are_counted(leaking: BenchmarkCase) -> None:
    def exchange(labels: np.ndarray, _cement: np.ndarray) -> None:
        left = labels == Structure.HIP_LEFT
        labels[labels == Structure.HIP_RIGHT] = Structure.HIP_LEFT
        labels[left] = Structure.HIP_RIGHT

    anatomy = measured(leaking, exchange).anatomy
    assert anatomy is not None
    assert anatomy.sides_exchanged is True
    assert anatomy.dice["hips"] == 0.0


def test_a_missed_leak_is_not_found_and_an_invented_one_is_false(leaking: BenchmarkCase) -> None:
    def move(_labels: np.ndarray, cement: np.ndarray) -> None:
        cement[:, :30] = False
        cement[75:85, 73:85, 45:55] = True

    record = measured(leaking, move)
    assert record.model is not None
    assert [found.found_as for found in record.model.leaks] == [None]
    assert len(record.model.false_leaks) == 1


def test_cement_of_another_treatment_counts_for_nothing() -> None:
    item = case_of(INSIDE, ELSEWHERE)
    own, ignored = own_cement(item.case)
    assert float(np.count_nonzero(own)) * GRID.voxel_ml == pytest.approx(INSIDE.volume_ml, rel=0.08)
    assert not (own & ignored).any()
    whole = measured(item)

    def forget(_labels: np.ndarray, cement: np.ndarray) -> None:
        cement[100:] = False

    without = measured(item, forget)
    assert whole.model is not None
    assert without.model is not None
    assert whole.model.cement_dice == without.model.cement_dice == 1.0
    assert whole.true_cement_ml == pytest.approx(INSIDE.volume_ml, rel=0.08)


def test_cement_in_a_vertebra_that_has_no_label_is_another_treatments_too() -> None:
    case = case_of(INSIDE, ELSEWHERE).case
    unlabelled = np.where(case.anatomy.labels == Structure.HIP_LEFT, 0, case.anatomy.labels).astype(np.uint8)
    own, ignored = own_cement(replace(case, anatomy=LabelMap(labels=unlabelled, geometry=GRID)))
    assert float(np.count_nonzero(own)) * GRID.voxel_ml == pytest.approx(INSIDE.volume_ml, rel=0.08)
    assert ignored[100:].any()


def test_a_refused_scan_keeps_its_reasons_and_its_baseline(leaking: BenchmarkCase) -> None:
    record = measure(leaking, Refusing(), shipped_limits(), CONFIG)
    assert record.model is None
    assert record.reasons == ("no sacrum was found in the scan",)
    assert record.baseline.sites == (Site.ANTERIOR_SACRAL_SPACE,)


def test_a_record_survives_its_file(leaking: BenchmarkCase) -> None:
    record = measured(leaking)
    assert CaseRecord.model_validate_json(record.model_dump_json()) == record


def test_the_region_is_the_part_of_the_grid_that_lies_inside() -> None:
    inner = GRID.crop((10, 20, 30), (50, 60, 70))
    assert region_of(inner, GRID) == (slice(10, 50), slice(20, 60), slice(30, 70))
    wide = Geometry.axis_aligned(origin_lps_mm=(-500, -500, -500), spacing_mm=2.0, shape=(600, 600, 600))
    assert region_of(wide, GRID) == tuple(slice(0, n) for n in GRID.shape)


def test_a_crop_is_laid_back_where_it_came_from() -> None:
    part = GRID.crop((10, 20, 30), (12, 22, 32))
    whole = on_whole(LabelMap(labels=np.full((2, 2, 2), 3, dtype=np.uint8), geometry=part), (10, 20, 30), GRID)
    assert np.count_nonzero(whole) == 8
    assert (whole[10:12, 20:22, 30:32] == 3).all()
