"""Dense things that are not cement: there, dense, never labelled cement, and metal labelled metal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sacroleak.training.simulation.body import Body, draw_body
from sacroleak.training.simulation.case import scan
from sacroleak.training.simulation.distractors import CALCIUM, draw_object
from sacroleak.training.simulation.hardware import METAL, Piece, solid
from sacroleak.training.simulation.operation import operate
from sacroleak.training.simulation.plan import Patient, Plan
from sacroleak.training.simulation.scanner import QUIET
from sacroleak.training.simulation.scene import FAR_MM, Scene
from sacroleak.training.simulation.tissue import draw_style

SEEDS = range(6)
SLIM = Patient(age=60, male=True, primary="lung", density=0.7, subcutaneous_mm=8)
PLAIN = replace(QUIET, noise_hu=0.0, hardening=0.0, starvation=False, saturates=False)


def body_of(scene: Scene, seed: int = 0) -> Body:
    return draw_body(np.random.default_rng(seed), scene, skin_behind_mm=25.0, prone=True)


def test_no_name_is_both_metal_and_calcium() -> None:
    assert not set(METAL) & set(CALCIUM)
    assert {"iliosacral_screw", "lumbar_screws", "hip_prosthesis", "femoral_nail", "needle_left", "plate", "clutter",
            "stimulator_lead", "clips", "skin_marker"} == set(METAL)
    assert {"calcified_artery", "phlebolith", "vessel_contrast", "oral_contrast", "dense_bowel",
            "bladder_contrast"} == set(CALCIUM)


@pytest.mark.parametrize("kind", [*METAL, *CALCIUM])
def test_an_object_is_drawn_again_by_the_same_seed(scene: Scene, kind: str) -> None:
    found = 0
    for seed in SEEDS:
        item = draw_object(np.random.default_rng(seed), scene, kind, body_of(scene))
        if item is None:
            continue
        found += 1
        assert item.kind == kind
        assert item.metal == (kind in METAL)
        assert (item.distance < 0).any()
        assert 3000 <= item.hu <= 24000 if item.metal else 120 <= item.hu <= 1800
        assert item.on(scene).shape == scene.geometry.shape
        again = draw_object(np.random.default_rng(seed), scene, kind, body_of(scene))
        assert again is not None
        assert item.distance.tobytes() == again.distance.tobytes()
    # Leads and clips are thinner than these 3 mm voxels, and a third of the hips' surroundings are beyond the grid.
    assert found >= 1


@pytest.mark.parametrize("kind", [*METAL, *CALCIUM])
def test_in_a_scan_it_is_bright_and_never_labelled_cement(scene: Scene, kind: str) -> None:
    shown = False
    for seed in range(12):
        if draw_object(np.random.default_rng(seed), scene, kind, body_of(scene)) is None:
            continue
        plan = Plan(hardware=(kind,) if kind in METAL else (), calcium=(kind,) if kind in CALCIUM else ())
        operation = operate(np.random.default_rng(0), scene, plan)
        style = draw_style(np.random.default_rng(0), wild=False, patient=SLIM)
        case = scan(np.random.default_rng(seed), scene, operation, style=style, scanner=PLAIN)
        without = scan(np.random.default_rng(seed), scene, operate(np.random.default_rng(0), scene, Plan()),
                       style=style, scanner=PLAIN)
        assert not case.cement.labels.any()
        brighter = int((case.ct.hu.astype(int) - without.ct.hu).max())
        if not case.drawn["objects"] or brighter < 40:
            continue
        shown = True
        assert case.metal.labels.any() == (kind in METAL)
        if kind in METAL:
            assert np.median(case.ct.hu[case.metal.labels]) > 600
        break
    assert shown


def test_screws_and_needles_have_their_tip_in_the_sacrum(scene: Scene) -> None:
    for kind in ("iliosacral_screw", "needle_left"):
        items = [draw_object(np.random.default_rng(seed), scene, kind, body_of(scene)) for seed in SEEDS]
        hits = [bool(((item.on(scene) < 1) & (scene.distance["sacrum"] < 0)).any()) for item in items if item]
        assert hits
        assert all(hits)


@pytest.mark.parametrize("kind", CALCIUM)
def test_calcium_and_contrast_keep_off_the_sacrum(scene: Scene, kind: str) -> None:
    for seed in SEEDS:
        item = draw_object(np.random.default_rng(seed), scene, kind, body_of(scene))
        if item is not None:
            assert scene.distance["sacrum"][item.box][item.distance < 0].min() > 2.9


@pytest.mark.parametrize("kind", ["iliosacral_screw", "needle_left"])
def test_where_there_is_no_bone_there_is_no_screw(scene: Scene, kind: str) -> None:
    far = Scene(geometry=scene.geometry, distance={key: np.full(scene.geometry.shape, FAR_MM, dtype=np.float32)
                                                   for key in scene.distance})
    assert draw_object(np.random.default_rng(0), far, kind, body_of(scene)) is None


def test_a_hollow_half_ball_is_hollow_and_half(scene: Scene) -> None:
    centre = np.zeros(3)
    found = solid(scene, [Piece(points=centre[None], radius_mm=20.0, wall_mm=7.0, facing=np.array([0.0, 0.0, 1.0]))])
    assert found is not None
    box, distance = found
    points = scene.geometry.to_lps(np.argwhere(distance < 0) + [s.start for s in box])
    away = np.linalg.norm(points, axis=1)
    assert away.min() > 12.9
    assert away.max() < 20.1
    assert points[:, 2].min() > -0.1
