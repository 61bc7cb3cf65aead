"""The baseline on a box of bone: it sees what it should, and fails where a threshold must."""

from __future__ import annotations

import numpy as np
import pytest

from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Site, Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.training.baseline import BaselineConfig, BaselineResult, baseline, baseline_bones

CONFIG = BaselineConfig(threshold_hu=1200.0, reach_mm=5.0, leak_ml=0.05)
GRID = Geometry.axis_aligned(origin_lps_mm=(0, 0, 0), spacing_mm=1.0, shape=(40, 40, 40))
Box = tuple[slice, slice, slice]
INSIDE: Box = (slice(14, 20), slice(16, 20), slice(14, 20))
FRONT: Box = (slice(14, 20), slice(8, 12), slice(14, 20))
BEHIND: Box = (slice(14, 20), slice(28, 33), slice(14, 20))
CANAL: Box = (slice(20, 24), slice(20, 24), slice(10, 30))


def judged(*boxes: Box, hu: int = 2000) -> BaselineResult:
    anatomy = np.zeros(GRID.shape, dtype=np.uint8)
    anatomy[10:30, 12:28, 10:30] = Structure.SACRUM
    anatomy[CANAL] = Structure.SACRAL_CANAL
    image = np.full(GRID.shape, 40, dtype=np.int16)
    for box in boxes:
        image[box] = hu
    return baseline(Volume(hu=image, geometry=GRID), LabelMap(labels=anatomy, geometry=GRID), CONFIG)


def test_cement_inside_the_bone_is_no_leak() -> None:
    found = judged(INSIDE)
    assert np.count_nonzero(found.cement) == 6 * 4 * 6
    assert not found.sites


@pytest.mark.parametrize(("box", "site"), [
    (FRONT, Site.ANTERIOR_SACRAL_SPACE), (BEHIND, Site.PUNCTURE_PATH),
    ((slice(20, 24), slice(20, 24), slice(15, 22)), Site.ANTERIOR_EPIDURAL_SPACE),
])
def test_cement_outside_the_bone_is_named_by_where_it_lies(box: Box, site: Site) -> None:
    found = judged(INSIDE, box)
    assert list(found.sites.values()) == [site]
    assert (found.leaks[box] == 1).all()


def test_fainter_cement_and_specks_are_missed() -> None:
    assert not judged(INSIDE, hu=1100).cement.any()
    assert not judged(INSIDE, (slice(14, 17), slice(9, 12), slice(14, 17))).sites


def test_dense_things_far_from_the_bone_are_not_its_cement() -> None:
    assert not judged((slice(14, 20), slice(0, 4), slice(14, 20))).cement.any()


def test_bone_is_what_exceeds_its_threshold_and_the_canal_what_it_surrounds() -> None:
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[10:30, 12:28, 10:30] = Structure.SACRUM
    labels[CANAL] = Structure.SACRAL_CANAL
    hu = np.where(labels == Structure.SACRUM, 400, 0).astype(np.int16)
    hu[2:4, 2:4, 2:4] = 400
    found = baseline_bones(Volume(hu=hu, geometry=GRID), LabelMap(labels=labels, geometry=GRID), CONFIG)
    for structure in (Structure.SACRUM, Structure.SACRAL_CANAL):
        both = np.count_nonzero((found == structure) & (labels == structure))
        assert both > 0.75 * np.count_nonzero(labels == structure)
    assert not found[:8].any()


def test_without_a_sacrum_the_baseline_finds_no_bone() -> None:
    empty = np.zeros(GRID.shape, dtype=np.uint8)
    hu = np.full(GRID.shape, 400, dtype=np.int16)
    assert not baseline_bones(Volume(hu=hu, geometry=GRID), LabelMap(labels=empty, geometry=GRID), CONFIG).any()
