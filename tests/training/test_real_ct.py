"""What is measured on a CT with labels: renumbering, agreement of bones, and the released model on cement put into it.

The scan is a simulated one, so that no outside data are needed; `make evaluate-real` does the same on a real CT.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sacroleak.core.errors import GeometryError, InputError, ModelError
from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Side, Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.bundle import default_bundle
from sacroleak.models.limits import shipped_limits
from sacroleak.models.networks import TwoPassSegmenter, load_segmenter
from sacroleak.models.segmentation import Segmentation
from sacroleak.training import real_ct
from sacroleak.training.baseline import BaselineConfig
from sacroleak.training.intervals import Figure
from sacroleak.training.real_ct import (
    LabelNumbers,
    RealCt,
    baseline_figures,
    bone_figures,
    front_implant,
    implant_figures,
    measure_real_ct,
    on_ct_grid,
    position_figures,
)
from sacroleak.training.simulation.case import centred_grid as grid_of
from sacroleak.training.simulation.case import scan
from sacroleak.training.simulation.operation import operate
from sacroleak.training.simulation.plan import Plan
from sacroleak.training.simulation.procedural import procedural_pelvis
from sacroleak.training.simulation.scanner import QUIET
from sacroleak.training.simulation.scene import place, still
from sacroleak.training.simulation.tissue import draw_style

NUMBERS = LabelNumbers(sacrum=(25, 26), hip_left=77, hip_right=78, l5=27)
GRID = Geometry.axis_aligned(origin_lps_mm=(0, 0, 0), spacing_mm=2.0, shape=(40, 30, 50))
BODY, TAIL = (slice(10, 30), slice(10, 20), slice(20, 45)), (slice(18, 22), slice(10, 20), slice(5, 20))
CANAL = (slice(18, 22), slice(14, 18), slice(20, 45))


def ours() -> Segmentation:
    """A block of sacrum with a canal, as if a model had found it."""
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[BODY] = Structure.SACRUM
    labels[CANAL] = Structure.SACRAL_CANAL
    ct = Volume(hu=np.zeros(GRID.shape, dtype=np.int16), geometry=GRID)
    return Segmentation(anatomy=LabelMap(labels=labels, geometry=GRID), ct=ct, start=(0, 0, 0), metal_ml=0.0,
                        cement=LabelMap(labels=np.zeros(GRID.shape, dtype=bool), geometry=GRID), sacrum_coverage=1.0)


def theirs(*, tail: bool, canal: bool, geometry: Geometry = GRID) -> LabelMap:
    """Somebody's labels of the same bone: with a coccyx below, or with the canal filled."""
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[BODY] = Structure.SACRUM
    if not canal:
        labels[CANAL] = Structure.BACKGROUND
    if tail:
        labels[TAIL] = Structure.SACRUM
    return LabelMap(labels=labels if geometry is GRID else labels[::-1, ::-1], geometry=geometry)


def value(figures: dict[str, Figure], name: str) -> float:
    found = figures[f"real_ct_{name}"].value
    assert found is not None
    return found


def test_labels_are_renumbered_and_several_may_be_sacrum() -> None:
    ct = Volume(hu=np.zeros((4, 2, 2), dtype=np.int16), geometry=GRID.crop((0, 0, 0), (4, 2, 2)))
    numbers = np.array([25, 26, 77, 3], dtype=np.int16).reshape(4, 1, 1) * np.ones((1, 2, 2), dtype=np.int16)
    given = on_ct_grid(ct, Volume(hu=numbers, geometry=ct.geometry), NUMBERS)
    assert given.labels.labels[:, 0, 0].tolist() == [Structure.SACRUM, Structure.SACRUM, Structure.HIP_LEFT, 0]


def test_labels_without_sacrum_or_on_another_grid_are_refused() -> None:
    ct = Volume(hu=np.zeros(GRID.shape, dtype=np.int16), geometry=GRID)
    with pytest.raises(InputError, match="no voxel is sacrum"):
        on_ct_grid(ct, ct, NUMBERS)
    with pytest.raises(GeometryError, match="labels"):
        on_ct_grid(ct, ct.crop((0, 0, 0), (9, 9, 9)), NUMBERS)


def test_the_same_bone_agrees_fully() -> None:
    figures = bone_figures(ours(), theirs(tail=False, canal=False))
    assert value(figures, "sacrum_dice") == 1.0
    assert value(figures, "own_canal_in_label_share") == 0.0
    assert value(figures, "label_below_own_lower_end_ml") == 0.0


def test_a_coccyx_in_the_labels_is_left_out_below_our_lower_end() -> None:
    figures = bone_figures(ours(), theirs(tail=True, canal=False))
    assert value(figures, "sacrum_dice") < 0.95
    assert value(figures, "sacrum_dice_above_own_lower_end") == 1.0
    assert value(figures, "label_below_own_lower_end_ml") == pytest.approx(4 * 10 * 15 * GRID.voxel_ml)


def test_a_filled_canal_in_the_labels_is_joined_to_ours() -> None:
    figures = bone_figures(ours(), theirs(tail=True, canal=True))
    assert value(figures, "sacrum_dice_above_own_lower_end") < 1.0
    assert value(figures, "sacrum_dice_above_own_lower_end_canal_joined") == 1.0
    assert value(figures, "own_canal_in_label_share") == 1.0
    assert value(figures, "sacrum_dice_ceiling") == value(figures, "sacrum_dice"), "our contour is perfect by our rule"


def test_a_threshold_is_measured_on_the_same_labels_unless_the_scan_is_slanted() -> None:
    labels = theirs(tail=False, canal=True)
    hu = np.where(labels.labels > 0, np.int16(400), np.int16(0))
    slanted = GRID.affine.copy()
    slanted[:2, 0] = (np.sqrt(2), np.sqrt(2))
    slanted[:2, 1] = (-np.sqrt(2), np.sqrt(2))
    found = []
    for grid in (GRID, Geometry(affine=slanted, shape=GRID.shape)):
        given = RealCt(ct=Volume(hu=hu, geometry=grid), digest="d",
                       labels=LabelMap(labels=labels.labels, geometry=grid))
        config = BaselineConfig(threshold_hu=1200.0, reach_mm=5.0, leak_ml=0.05)
        found.append(baseline_figures(given, config)["baseline_real_ct_sacrum_dice"].value)
    assert found[0] is not None
    assert found[0] > 0.9
    assert found[1] is None


def test_the_way_the_array_is_stored_changes_nothing() -> None:
    affine = GRID.affine.copy()
    affine[:3, 3] = GRID.to_lps((GRID.shape[0] - 1, GRID.shape[1] - 1, 0))
    affine[:2, :2] *= -1
    turned = Geometry(affine=affine, shape=GRID.shape)
    straight, flipped = (bone_figures(ours(), theirs(tail=True, canal=True, geometry=g)) for g in (GRID, turned))
    assert straight == flipped


@pytest.fixture(scope="module")
def released() -> TwoPassSegmenter:
    """Both networks of the released model."""
    try:
        bundle = default_bundle()
    except ModelError:
        pytest.skip("no model is released yet")
    return load_segmenter(bundle, threads=1)


@pytest.fixture(scope="module")
def untreated() -> RealCt:
    """A simulated scan without cement, 2 mm slices, stored as scanners store it: columns to the left and behind."""
    rng = np.random.default_rng((31, 7))
    anatomy = procedural_pelvis(rng)
    scene = place(anatomy, grid_of((240.0, 190.0, 190.0), (1.2, 1.2, 2.0)), still(anatomy), rng)
    plan = operate(rng, scene, Plan())
    case = scan(rng, scene, plan, style=draw_style(rng, wild=False), scanner=QUIET)
    return RealCt(ct=case.ct, labels=case.anatomy, digest="0" * 64)


def sacrum_of(given: RealCt) -> np.ndarray:
    return np.asarray(given.labels.labels == Structure.SACRUM)


@pytest.fixture(scope="module")
def implanted(released: TwoPassSegmenter, untreated: RealCt) -> dict[str, Figure]:
    return implant_figures(untreated.ct, sacrum_of(untreated), released, shipped_limits())


def test_cement_in_the_left_ala_is_found_and_is_no_leak(implanted: dict[str, Figure]) -> None:
    assert value(implanted, "ala_cement_dice") > 0.8
    assert value(implanted, "ala_centroid_error_mm") < 2.0
    assert value(implanted, "ala_leaks_reported") == 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_cement_in_front_of_s1_is_a_leak_on_its_own_side(implanted: dict[str, Figure], side: str) -> None:
    assert value(implanted, f"front_{side}_leak_found") == 1.0
    assert value(implanted, f"front_{side}_side_right") == 1.0
    assert value(implanted, f"front_{side}_centroid_error_mm") < 4.0


def test_patient_position_and_slice_order_change_no_finding(
    released: TwoPassSegmenter, untreated: RealCt, tmp_path: Path,
) -> None:
    ct = front_implant(untreated.ct, sacrum_of(untreated), Side.LEFT)[0].ct
    figures = position_figures(ct, released, shipped_limits(), scratch=tmp_path)
    assert (value(figures, "dicom_same_findings"), figures["real_ct_dicom_same_findings"].n) == (1.0, 5)
    assert value(figures, "dicom_centroid_shift_max_mm") < 1.0
    assert value(figures, "dicom_cement_centroid_shift_max_mm") < 1.0
    assert not list(tmp_path.iterdir()), "series are removed again"


def test_a_scan_without_cement_shows_none(released: TwoPassSegmenter, untreated: RealCt) -> None:
    found = released.segment(untreated.ct)
    assert not np.asarray(found.cement.labels).any()
    agreement = bone_figures(found, untreated.labels)
    assert value(agreement, "sacrum_dice") > 0.8


def test_all_figures_of_a_ct_are_there(
    released: TwoPassSegmenter, untreated: RealCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(real_ct, "position_figures", lambda *_args, **_more: {})
    monkeypatch.setattr(real_ct, "implant_figures", lambda *_args, **_more: {})
    figures = measure_real_ct(untreated, released, shipped_limits(), scratch=tmp_path)
    assert value(figures, "leaks_reported") == 0
    assert all(figure.low is None for figure in figures.values())
