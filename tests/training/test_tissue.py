"""Bone follows age and density; lesions, fractures, holes and cement show what they should where they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sacroleak.training.simulation.body import Body, draw_body
from sacroleak.training.simulation.lesion import Lesion
from sacroleak.training.simulation.plan import LesionKind, Patient
from sacroleak.training.simulation.randomise import DIM_HU, clutter, invert_soft, miscalibrate, textures
from sacroleak.training.simulation.readout import Field
from sacroleak.training.simulation.scene import Scene
from sacroleak.training.simulation.shapes import add_ball, empty
from sacroleak.training.simulation.tissue import (
    SCLEROTIC_HU,
    TissueStyle,
    draw_style,
    paint,
    paint_arms,
    paint_cement,
    paint_fracture,
    paint_holes,
    paint_lesions,
    paint_table,
)

CENTRE = np.array([30.0, 5.0, 15.0])


def patient(age: float = 60, density: float = 0.7, subcutaneous_mm: float = 20) -> Patient:
    return Patient(age=age, male=True, primary="lung", density=density, subcutaneous_mm=subcutaneous_mm)


def body_of(scene: Scene, *, behind_mm: float = 25.0, prone: bool = True) -> Body:
    return draw_body(np.random.default_rng(0), scene, skin_behind_mm=behind_mm, prone=prone)


def painted(scene: Scene, style: TissueStyle, *, prone: bool = True) -> Field:
    body = body_of(scene, behind_mm=style.skin_behind_mm, prone=prone)
    return paint(np.random.default_rng(1), scene, style, body)


def ball(scene: Scene, radius_mm: float) -> Field:
    field = empty(scene)
    add_ball(field, scene, CENTRE, radius_mm)
    return field


def test_bone_grows_thinner_with_lost_density(scene: Scene) -> None:
    deep = scene.distance["l5"] < -6
    level = {density: float(np.median(painted(scene, draw_style(np.random.default_rng(3), wild=False,
                                                                patient=patient(density=density)))[deep]))
             for density in (0.3, 0.7, 1.2)}
    assert level[0.3] < level[0.7] < level[1.2]
    assert level[1.2] - level[0.3] == pytest.approx(0.9 * 226, rel=0.35)


def test_styles_follow_the_patient_and_span_everyone_without_one() -> None:
    rng = np.random.default_rng(0)
    fat = [draw_style(rng, wild=False, patient=patient(subcutaneous_mm=70)) for _ in range(20)]
    assert all(s.subcutaneous_mm == 70 and s.skin_behind_mm > 70 for s in fat)
    anyone = [draw_style(rng, wild=False) for _ in range(300)]
    assert min(s.trabecular_hu for s in anyone) < 40
    assert max(s.trabecular_hu for s in anyone) > 240
    assert all(700 <= s.cement_hu <= 4500 for s in anyone)
    assert min(s.cement_hu for s in anyone) < 1000
    assert all(-130 < s.fat_hu < -70 and s.cortex_hu > s.trabecular_hu for s in anyone)


def test_fat_muscle_and_air_lie_where_they_belong(scene: Scene) -> None:
    style = draw_style(np.random.default_rng(5), wild=False, patient=patient())
    body = body_of(scene, behind_mm=style.skin_behind_mm)
    hu = painted(scene, style)
    skin = np.broadcast_to(body.distance(scene), hu.shape)
    bone = np.minimum.reduce([scene.distance[n] for n in ("sacrum", "hip_left", "hip_right", "l5")])
    assert np.median(hu[skin > 6]) == pytest.approx(-1000, abs=5)
    under = (skin > -14) & (skin < -5) & (bone > 6)
    assert np.median(hu[under]) == pytest.approx(style.fat_hu, abs=25)
    behind = (scene.axes[1] > 0)[None, :, None] & (bone > 3) & (bone < 10) & (skin < -30)
    outer = behind & (np.abs(scene.axes[0]) > 60)[:, None, None]
    assert np.mean(hu[outer] > -60) > 0.5, "gluteal muscle behind the ilium"


def test_a_patient_is_flat_on_the_side_he_lies_on(scene: Scene) -> None:
    prone, supine = body_of(scene, prone=True), body_of(scene, prone=False)
    assert prone.rest_mm < prone.centre_y_mm
    assert supine.rest_mm > supine.centre_y_mm
    hu = np.full(scene.geometry.shape, -1000, dtype=np.float32)
    paint_table(np.random.default_rng(0), hu, scene, supine)
    rows = scene.axes[1][(hu > -900).any(axis=(0, 2))]
    assert rows.size == 0 or rows.min() > supine.rest_mm - 5


@pytest.mark.parametrize("kind", LesionKind)
def test_a_lesion_shows_its_nature(scene: Scene, kind: LesionKind) -> None:
    hu = np.full(scene.geometry.shape, 200, dtype=np.float32)
    lesion = Lesion(distance=ball(scene, 12), kind=kind, eroded=False, centre_lps_mm=CENTRE, drawn={})
    paint_lesions(np.random.default_rng(0), hu, scene, [lesion])
    inside = hu[lesion.distance < -3]
    if kind is LesionKind.LYTIC:
        assert inside.max() < 150
    elif kind is LesionKind.SCLEROTIC:
        assert SCLEROTIC_HU[0] <= inside.min()
        assert inside.max() <= SCLEROTIC_HU[1]
    else:
        assert inside.min() < 120
        assert inside.max() > 350
    assert (hu[lesion.distance > 6] == 200).all()


def test_a_fracture_is_a_sheet_through_one_ala(scene: Scene) -> None:
    kinds = set()
    for seed in range(8):
        hu = np.full(scene.geometry.shape, 300, dtype=np.float32)
        drawn = paint_fracture(np.random.default_rng(seed), hu, scene)
        kinds.add(drawn["kind"])
        changed = np.abs(hu - 300) > 40
        assert changed.any()
        assert (scene.distance["sacrum"][changed] < 2.5).all()
        x = scene.axes[0][np.argwhere(changed)[:, 0]]
        assert np.abs(np.median(x) - float(drawn["lateral_mm"])) < 16
    assert kinds == {"gap", "healing"}


def test_a_needle_hole_is_no_longer_bone(scene: Scene) -> None:
    hu = np.full(scene.geometry.shape, 900, dtype=np.float32)
    hole = ball(scene, 6)
    paint_holes(np.random.default_rng(0), hu, scene, hole)
    assert hu[hole < -3].max() < 100
    assert (hu[hole > 3] == 900).all()


def test_cement_is_as_dense_as_its_style_says(scene: Scene) -> None:
    cement = ball(scene, 10)
    for base in (500.0, 1500.0, 3600.0):
        style = replace(draw_style(np.random.default_rng(0), wild=False), cement_hu=base, cement_grain=0.1,
                        cement_voids=0.0)
        hu = np.zeros(scene.geometry.shape, dtype=np.float32)
        paint_cement(np.random.default_rng(0), hu, scene, cement, style)
        assert np.median(hu[cement < -2]) == pytest.approx(base, rel=0.2)
        assert (hu[cement > 2] == 0).all()


def test_cement_may_hold_bubbles(scene: Scene) -> None:
    cement = ball(scene, 12)
    style = replace(draw_style(np.random.default_rng(0), wild=False), cement_hu=2000.0, cement_voids=1.0)
    hu = np.zeros(scene.geometry.shape, dtype=np.float32)
    paint_cement(np.random.default_rng(0), hu, scene, cement, style)
    assert hu[cement < -2].min() < 700


def test_arms_lie_beside_the_body_in_the_air(scene: Scene) -> None:
    narrow = replace(body_of(scene), half_x_mm=60.0)
    hu = np.full(scene.geometry.shape, -1000, dtype=np.float32)
    paint_arms(np.random.default_rng(0), hu, scene, draw_style(np.random.default_rng(0), wild=False), narrow)
    used = scene.axes[0][(hu > -500).any(axis=(1, 2))]
    assert used.size
    assert np.abs(used).min() > 40


def test_clutter_as_bright_as_cement_keeps_off_the_sacrum(scene: Scene) -> None:
    changed_any = False
    for seed in range(12):
        hu = np.zeros(scene.geometry.shape, dtype=np.float32)
        clutter(np.random.default_rng(seed), hu, scene)
        textures(np.random.default_rng(seed), hu, scene)
        changed_any |= bool((hu > DIM_HU + 200).any())
        near = (scene.distance["sacrum"] < 6) & (scene.distance["sacrum"] > 1)
        assert hu[near].max() <= DIM_HU + 250
        assert (hu[scene.distance["sacrum"] < -2] == 0).all()
    assert changed_any


def test_miscalibration_keeps_the_order_and_inversion_turns_it() -> None:
    ladder = np.linspace(-1000, 3500, 2000, dtype=np.float32).reshape(20, 10, 10)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        hu = ladder.copy()
        miscalibrate(rng, hu)
        assert np.isfinite(hu).all()
        assert np.corrcoef(hu.ravel(), ladder.ravel())[0, 1] > 0.97
    soft = np.array([[[-100.0, 50.0, 900.0, -1000.0]]], dtype=np.float32)
    invert_soft(soft)
    assert soft[0, 0, 0] > soft[0, 0, 1]
    assert soft[0, 0, 2:].tolist() == [900.0, -1000.0]
