"""Pictures show what they are made from."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap
from sacroleak.models.segmentation import Segmentation
from sacroleak.training.pictures import draw_case, learning_curve
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.case import Case
from sacroleak.training.simulation.cases import plan_of, planned_case
from sacroleak.training.simulation.scanner import QUIET

Pixels = npt.NDArray[np.int16]
TRUE, FOUND = (57, 211, 83), (255, 79, 163)


def pixels(png: bytes) -> Pixels:
    return np.asarray(Image.open(BytesIO(png)).convert("RGB"), dtype=np.int16)


def count(picture: Pixels, colour: tuple[int, int, int]) -> int:
    return int((np.abs(picture - colour).max(axis=-1) < 40).sum())


@pytest.fixture(scope="module")
def case(pelvis: Anatomy) -> Case:
    rng = np.random.default_rng(1)
    return planned_case(rng, pelvis, plan_of(rng, (4.0,), ()), scanner=QUIET, slice_mm=3.0, pixel_mm=3.0)


def segmented(case: Case, anatomy: LabelMap) -> Segmentation:
    return Segmentation(anatomy=anatomy, cement=LabelMap(labels=case.cement.labels > 0, geometry=case.ct.geometry),
                        ct=case.ct, start=(0, 0, 0), metal_ml=0.0, sacrum_coverage=1.0)


def test_a_learning_curve_is_drawn_from_any_log(tmp_path: Path) -> None:
    lines = [{"update": 20 * n, "loss": 2.0 / n, "seconds": n, "dice_sacrum": 1 - 1 / n} for n in range(1, 9)]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(json.dumps(line | ({"dice_metal": 0.5} if line["update"] > 80 else {})) for line in lines))
    drawn = pixels(learning_curve(log))
    log.write_text("")
    assert np.abs(drawn - pixels(learning_curve(log))).max() > 100, "the log decides what is seen"


def test_truth_is_green_and_the_result_red(case: Case) -> None:
    alone = pixels(draw_case(case, None, "truth alone"))
    assert count(alone, TRUE) > 200
    assert count(alone, FOUND) == 0
    shifted = np.roll(case.anatomy.labels, 8, axis=0)
    anatomy = LabelMap(labels=shifted, geometry=case.ct.geometry)
    both = pixels(draw_case(case, segmented(case, anatomy), "sacrum 24 mm aside"))
    assert count(both, FOUND) > 100
    assert count(both, TRUE) > 100


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)])
def test_a_scan_is_shown_upright_however_it_is_stored(case: Case, flips: tuple[int, int, int]) -> None:
    """Mark the upper end white: it must be at the top of the right picture, whatever the direction of the array."""
    hu = np.zeros_like(case.ct.hu)
    hu[:, :, -hu.shape[2] // 4:] = 1800
    marked = replace(case, ct=replace(case.ct, hu=hu))
    flipped = flip(marked, flips)
    drawn = pixels(draw_case(flipped, None, ""))
    right = drawn[:, drawn.shape[1] // 2:].mean(axis=-1)[:, 150:300]
    inside = right[60:-40].mean(axis=1)
    assert inside[: len(inside) // 4].mean() > inside[-len(inside) // 4:].mean() + 30


def flip(case: Case, signs: tuple[int, int, int]) -> Case:
    """The same case with array axes reversed where the sign is negative; no voxel moves in the patient."""
    affine = case.ct.geometry.affine.copy()
    for axis, sign in enumerate(signs):
        if sign < 0:
            affine[:3, 3] += affine[:3, axis] * (case.ct.geometry.shape[axis] - 1)
            affine[:3, axis] *= -1
    cut = tuple(slice(None, None, sign) for sign in signs)
    geometry = Geometry(affine=affine, shape=case.ct.geometry.shape)
    maps = {name: replace(getattr(case, name), labels=getattr(case, name).labels[cut].copy(), geometry=geometry)
            for name in ("anatomy", "cement", "leaks", "metal")}
    return replace(case, ct=replace(case.ct, hu=case.ct.hu[cut].copy(), geometry=geometry), **maps)


def test_the_sacrum_is_in_the_scan_that_is_drawn(case: Case) -> None:
    assert (case.anatomy.labels == Structure.SACRUM).any()
