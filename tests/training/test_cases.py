"""Whole simulated scans: what is true about them agrees with what they show, and a plan is carried out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sacroleak.core.structures import Site, Structure
from sacroleak.models.label_grids import labels_on
from sacroleak.models.resample import aligned_axes
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.case import Case, centred_grid, draw_case, scan
from sacroleak.training.simulation.cases import NamedCase, plan_of, planned_case
from sacroleak.training.simulation.leak import OF_SITE
from sacroleak.training.simulation.operation import operate
from sacroleak.training.simulation.plan import LeakPlan, Plan
from sacroleak.training.simulation.scanner import QUIET
from sacroleak.training.simulation.scene import Scene
from sacroleak.training.simulation.tissue import draw_style

CEMENT = plan_of(np.random.default_rng(0), (4.0,), ())
ALL = replace(plan_of(np.random.default_rng(0), (4.0, 1.0), ("foraminal_vein", "epidural", "cortical_defect")),
              hardware=("iliosacral_screw", "needle_left"), calcium=("phlebolith",), other_cement=("hip_left",))
SEEDS = range(3)
DONE: dict[tuple[Plan, int], Case] = {}


def case_of(scene: Scene, plan: Plan, seed: int, *, cut: bool = False) -> Case:
    """One scan of one plan; kept, since many laws are asked of it."""
    if (plan, seed) not in DONE:
        rng = np.random.default_rng(seed)
        operation = operate(rng, scene, plan)
        DONE[plan, seed] = scan(rng, scene, operation, style=draw_style(rng, wild=False), scanner=QUIET,
                                cut=cut)
    return DONE[plan, seed]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_voxel_of_a_leak_is_cement_outside_the_sacrum(scene: Scene, seed: int) -> None:
    case = case_of(scene, ALL, seed)
    leaked = case.leaks.labels > 0
    assert leaked.any()
    assert case.cement.labels[leaked].all()
    assert (case.anatomy.labels[leaked] != Structure.SACRUM).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_truth_lists_what_the_leak_map_shows(scene: Scene, seed: int) -> None:
    case = case_of(scene, ALL, seed)
    assert [t.number for t in case.truth] == list(range(1, len(case.truth) + 1))
    assert int(case.leaks.labels.max()) == len(case.truth)
    for leak in case.truth:
        assert case.leaks.volume_ml(leak.number) == pytest.approx(leak.volume_ml)
        assert leak.mechanism in OF_SITE[leak.site]


@pytest.mark.parametrize("seed", SEEDS)
def test_metal_is_never_cement(scene: Scene, seed: int) -> None:
    case = case_of(scene, ALL, seed)
    assert case.metal.labels.any()
    assert not (case.metal.labels & case.cement.labels).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_anatomy_is_as_if_no_cement_were_there(scene: Scene, seed: int) -> None:
    without = case_of(scene, Plan(), seed)
    assert np.array_equal(case_of(scene, ALL, seed).anatomy.labels, without.anatomy.labels)
    assert not without.cement.labels.any()
    assert without.truth == ()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_scan_shows_cement_brighter_than_bone_and_keeps_to_its_range(scene: Scene, seed: int) -> None:
    case = case_of(scene, ALL, seed)
    hu = case.ct.hu
    bone = (case.anatomy.labels == Structure.SACRUM) & ~case.cement.labels & ~case.metal.labels
    assert np.median(hu[case.cement.labels]) > np.median(hu[bone]) + 400
    assert hu.min() >= -1024
    assert hu.max() <= 3071, "this scanner saturates"


def test_a_body_of_cement_without_leak_lies_in_the_bone(scene: Scene) -> None:
    case = case_of(scene, CEMENT, 0)
    assert (case.anatomy.labels[case.cement.labels] == Structure.SACRUM).all()
    assert np.count_nonzero(case.cement.labels) * scene.geometry.voxel_ml == pytest.approx(4.0, rel=0.03)
    assert not case.leaks.labels.any()


def test_without_cement_nothing_leaks(scene: Scene) -> None:
    assert operate(np.random.default_rng(0), scene, Plan(leaks=(LeakPlan(mechanism="foraminal_vein"),))).leaks == ()


def test_labels_end_where_the_field_of_view_ends(scene: Scene) -> None:
    plan = replace(CEMENT, leaks=(LeakPlan(mechanism="foraminal_vein"),), hardware=("iliosacral_screw",))
    cut = 0
    for seed in range(6):
        case = case_of(scene, plan, seed, cut=True)
        unseen = _unseen(case.ct.hu)
        cut += bool(unseen.any())
        for labels in (case.anatomy.labels, case.cement.labels, case.leaks.labels, case.metal.labels):
            assert not labels[unseen].any()
    assert cut >= 2


def _unseen(hu: np.ndarray) -> np.ndarray:
    """Whole planes of one value at the end of an axis: what noise never leaves."""
    unseen = np.zeros(hu.shape, dtype=bool)
    for axis in range(3):
        for plane in range(hu.shape[axis]):
            where = [slice(None)] * 3
            where[axis] = slice(plane, plane + 1)
            if np.ptp(hu[tuple(where)]) == 0:
                unseen[tuple(where)] = True
    return unseen


@pytest.mark.parametrize("wild", [False, True])
def test_the_same_seed_gives_the_same_bytes(scene: Scene, wild: bool) -> None:
    a, b = (draw_case(np.random.default_rng(11), scene, wild=wild) for _ in range(2))
    other = draw_case(np.random.default_rng(12), scene, wild=wild)
    assert a.truth == b.truth
    for name in ("anatomy", "cement", "leaks", "metal"):
        assert getattr(a, name).labels.tobytes() == getattr(b, name).labels.tobytes()
    assert a.ct.hu.tobytes() == b.ct.hu.tobytes() != other.ct.hu.tobytes()


def test_every_drawn_parameter_can_be_kept_as_json(scene: Scene) -> None:
    case = case_of(scene, ALL, 0)
    kept = json.loads(json.dumps(case.drawn))
    assert {"style", "scanner", "body", "fracture", "objects", "lesions", "tracks", "bodies", "leaks"} == set(kept)
    assert kept["scanner"]["noise_hu"] == QUIET.noise_hu
    assert {"iliosacral_screw", "needle_left"} <= {one["kind"] for one in kept["objects"]}
    assert len(kept["bodies"]) == 2


def test_a_tilted_gantry_tilts_labels_and_picture_alike(scene: Scene) -> None:
    rng, plan = np.random.default_rng(0), CEMENT
    operation = operate(rng, scene, plan)
    tilted = scan(np.random.default_rng(1), scene, operation, style=draw_style(np.random.default_rng(2), wild=False),
                  scanner=replace(QUIET, tilt_deg=15.0))
    upright = scan(np.random.default_rng(1), scene, operation, style=draw_style(np.random.default_rng(2), wild=False),
                   scanner=QUIET)
    assert aligned_axes(tilted.ct.geometry) is None
    assert (tilted.ct.hu == -1024).all(axis=0).any(), "wedges that the gantry leaves out"
    for name in ("cement", "anatomy"):
        straight, slanted = (getattr(case, name) for case in (upright, tilted))
        back = labels_on(slanted, straight.geometry).labels > 0
        true = straight.labels > 0
        assert 2 * (back & true).sum() / (back.sum() + true.sum()) > 0.8
    dense = tilted.ct.hu > 900
    assert tilted.cement.labels[dense].mean() > 0.2


def test_a_real_ct_stays_as_it_is_around_what_was_put_in(scene: Scene) -> None:
    real = np.random.default_rng(0).normal(40, 20, scene.geometry.shape).astype(np.float32)
    patient = replace(scene, background=real)
    operation = operate(np.random.default_rng(0), patient, CEMENT)
    case = scan(np.random.default_rng(1), patient, operation, style=draw_style(np.random.default_rng(2), wild=False),
                scanner=replace(QUIET, hardening=0.0, starvation=False))
    far = (operation.cement(scene) > 9) & (operation.holes(scene) > 9)
    far &= np.all([lesion.distance > 9 for lesion in operation.lesions] or [far], axis=0)
    assert np.abs(case.ct.hu[far] - real[far]).max() < 3
    assert np.median(case.ct.hu[case.cement.labels]) > 400


SITES = [site for site in Site if site is not Site.OTHER]


@pytest.mark.parametrize("name", [*(OF_SITE[site][0] for site in SITES), "disc", "sacroiliac_joint", "dorsal_epidural"])
def test_a_planned_case_has_the_leak_asked_for(pelvis: Anatomy, name: str) -> None:
    asked = plan_of(np.random.default_rng(5), (4.0,), (name,))
    site = next(site for site, names in OF_SITE.items() if name in names)
    kept = 0
    for seed in range(3):
        case = planned_case(np.random.default_rng(seed), pelvis, asked, scanner=QUIET, slice_mm=3.0, pixel_mm=3.0)
        kept += [t.site for t in case.truth] == [site]
    assert kept >= 2


def test_a_named_case_sums_its_leaks_and_leaves_other_treatments_out(scene: Scene) -> None:
    case = case_of(scene, replace(plan_of(np.random.default_rng(1), (3.0,), ()), other_cement=("hip_right",)), 1)
    named = NamedCase(name="one", case=case)
    assert named.cement_ml == pytest.approx(3.0, rel=0.03)
    assert np.count_nonzero(case.cement.labels) * scene.geometry.voxel_ml > named.cement_ml + 0.3
    assert named.leaked_ml == {}
    leaking = NamedCase(name="two", case=case_of(scene, ALL, 1))
    assert sum(leaking.leaked_ml.values()) == pytest.approx(sum(t.volume_ml for t in leaking.case.truth))
    assert leaking.ct is leaking.case.ct


def test_a_centred_grid_is_centred() -> None:
    grid = centred_grid((30.0, 20.0, 10.0), (1.0, 2.0, 3.0), np.array([5.0, -7.0, 100.0]))
    assert grid.shape == (30, 10, 3)
    assert grid.centre_lps_mm == pytest.approx([5.0, -7.0, 100.0])
