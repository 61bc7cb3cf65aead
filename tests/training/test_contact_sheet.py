"""Contact sheets show every site and distractor, each scan in three planes, the patient the right way round."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Site, Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.training import contact_sheet
from sacroleak.training.contact_sheet import COLOURS, TILE_PX, distractor_rows, focus_of, sheet, site_rows, strip
from sacroleak.training.simulation.case import Case, LeakTruth
from sacroleak.training.simulation.cohort import shipped_cohorts

GRID = Geometry.axis_aligned(origin_lps_mm=(-20, -20, -30), spacing_mm=(1, 1, 2), shape=(40, 40, 30))


def block_case() -> Case:
    """Bone in the middle, a leak at the patient's left, in front, above."""
    anatomy, leaks = np.zeros(GRID.shape, dtype=np.uint8), np.zeros(GRID.shape, dtype=np.uint8)
    anatomy[10:30, 15:35, 5:25] = Structure.SACRUM
    leaks[32:38, 4:8, 24:28] = 1
    hu = np.where(anatomy > 0, 400, -100).astype(np.int16)
    hu[leaks > 0] = 2500
    truth = (LeakTruth(number=1, site=Site.OTHER, mechanism="soft_tissue", volume_ml=0.2),)
    return Case(ct=Volume(hu=hu, geometry=GRID), anatomy=LabelMap(labels=anatomy, geometry=GRID),
                cement=LabelMap(labels=leaks > 0, geometry=GRID), leaks=LabelMap(labels=leaks, geometry=GRID),
                metal=LabelMap(labels=np.zeros(GRID.shape, dtype=bool), geometry=GRID), truth=truth)


def test_the_focus_is_a_voxel_of_the_leak_and_without_one_of_the_bone() -> None:
    case = block_case()
    assert case.leaks.labels[focus_of(case)] == 1
    none = LabelMap(labels=np.zeros(GRID.shape, dtype=np.uint8), geometry=GRID)
    bare = replace(case, leaks=none, cement=LabelMap(labels=np.zeros(GRID.shape, dtype=bool), geometry=GRID))
    assert case.anatomy.labels[focus_of(bare)] == Structure.SACRUM


def places_of(picture: np.ndarray, colour: str) -> np.ndarray:
    return np.argwhere((picture == COLOURS[colour]).all(axis=-1))


def test_the_patients_left_is_at_the_right_his_front_up_his_head_up() -> None:
    picture = strip(block_case(), "a leak")
    axial, sagittal, coronal = (picture[contact_sheet.CAPTION_PX:, start:stop]
                                for start, stop in zip(*_columns(picture), strict=True))
    leak = places_of(axial, "leak").mean(axis=0)
    assert leak[1] > axial.shape[1] / 2, "left of the patient at the right"
    assert leak[0] < axial.shape[0] / 2, "front up"
    assert places_of(sagittal, "leak").mean(axis=0)[0] < TILE_PX / 2, "head up"
    assert places_of(coronal, "leak").mean(axis=0)[1] > coronal.shape[1] / 2


def _columns(picture: np.ndarray) -> tuple[list[int], list[int]]:
    wide = [round(40 / 40 * TILE_PX), round(40 / 60 * TILE_PX), round(40 / 60 * TILE_PX)]
    ends = np.cumsum(wide).tolist()
    assert abs(ends[-1] - picture.shape[1]) <= 2
    return [0, *ends[:-1]], ends


def test_the_truth_is_drawn_in_its_colour() -> None:
    full, hidden = block_case(), block_case()
    none = LabelMap(labels=np.zeros(GRID.shape, dtype=np.uint8), geometry=GRID)
    hidden = replace(hidden, leaks=none)
    assert len(places_of(strip(full, ""), "leak")) > 20
    assert len(places_of(strip(hidden, ""), "leak")) == 0
    assert len(places_of(strip(hidden, ""), "cement")) > 20


def test_every_site_and_every_distractor_has_a_row() -> None:
    config = shipped_cohorts()
    captions = [row.caption for row in site_rows()]
    assert len(captions) == len({name for names in config.mechanisms.values() for name in names})
    for site in Site:
        assert any(caption.startswith(site.replace("_", " ")) for caption in captions)
    shown = " ".join(row.caption for row in distractor_rows())
    cohort = config.cohort("training")
    for name in (*cohort.hardware, *cohort.calcium, *cohort.clutter, *cohort.near_misses, *cohort.other_cement):
        assert name.replace("_", " ") in shown


def test_a_sheet_is_one_picture_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_sheet, "_scan", lambda *_: block_case())
    rows = list(site_rows())[:3]
    data = sheet(rows, (), seed=1)
    picture = Image.open(BytesIO(data))
    one = strip(block_case(), "")
    assert picture.size == (2 * one.shape[1], 2 * one.shape[0])


def test_both_sheets_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_sheet, "_scan", lambda *_: block_case())
    written = contact_sheet.main(tmp_path, anatomies=(), seed=1)
    assert [path.name for path in written] == ["simulated_sites.png", "simulated_distractors.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
