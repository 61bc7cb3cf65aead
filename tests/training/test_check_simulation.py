"""The check finds what it is meant to find: cement too much, leaks astray, broken labels; and passes what is right."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Site, Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.training import check_simulation
from sacroleak.training.check_simulation import REGIONS, Checked, broken_rules, check, figures, main
from sacroleak.training.intervals import Bootstrap
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.case import Case, LeakTruth
from sacroleak.training.simulation.cases import operate_until, plan_of
from sacroleak.training.simulation.cohort import shipped_cohorts
from sacroleak.training.simulation.leak import MECHANISMS
from sacroleak.training.simulation.operation import Operation
from sacroleak.training.simulation.scene import Scene

GRID = Geometry.axis_aligned(origin_lps_mm=(0, 0, 0), spacing_mm=(1, 1, 1), shape=(8, 8, 8))
RIGHT = Checked(injections=1, volume_ratios=(1.01,), leaks=(("epidural", 1.0),), asked=1, missing=0, stray_voxels=0,
                broken=())


def good_case() -> Case:
    """A block of bone filled with cement, and a leak beside it."""
    anatomy, leaks = np.zeros(GRID.shape, dtype=np.uint8), np.zeros(GRID.shape, dtype=np.uint8)
    anatomy[:4], leaks[4:6] = Structure.SACRUM, 1
    cement = (anatomy == Structure.SACRUM) | (leaks > 0)
    truth = (LeakTruth(number=1, site=Site.OTHER, mechanism="disc", volume_ml=0.128),)
    return Case(ct=Volume(hu=np.zeros(GRID.shape, dtype=np.int16), geometry=GRID),
                anatomy=LabelMap(labels=anatomy, geometry=GRID), cement=LabelMap(labels=cement, geometry=GRID),
                leaks=LabelMap(labels=leaks, geometry=GRID), truth=truth,
                metal=LabelMap(labels=np.zeros(GRID.shape, dtype=bool), geometry=GRID))


def changed(name: str, where: tuple[slice | int, ...], value: int) -> Case:
    case = good_case()
    labels = getattr(case, name).labels.copy()
    labels[where] = value
    change: dict[str, Any] = {name: LabelMap(labels=labels, geometry=GRID)}
    return replace(case, **change)


@pytest.mark.parametrize(("case", "broken"), [
    (good_case(), set()),
    (changed("cement", (5,), 0), {"leak_is_cement"}),
    (changed("anatomy", (4,), Structure.SACRUM), {"leak_is_outside_bone"}),
    (changed("metal", (0,), 1), {"cement_is_not_metal"}),
    (changed("leaks", (4,), 2), {"truth_lists_the_map"}),
    (changed("anatomy", (7,), Structure.CEMENT), {"anatomy_has_no_cement"}),
])
def test_each_broken_rule_is_named(case: Case, broken: set[str]) -> None:
    assert set(broken_rules(case)) == broken


def test_figures_count_what_is_wrong() -> None:
    off = replace(RIGHT, volume_ratios=(1.04, 0.99), injections=3)
    astray = replace(RIGHT, leaks=(("epidural", 0.5), ("disc", 0.96)), asked=3, missing=1)
    stray = replace(RIGHT, stray_voxels=2, broken=("leak_is_cement",))
    found = figures([RIGHT, off, astray, stray], Bootstrap(resamples=20, seed=1))
    assert (found["cement_volume_within_3pct"].value, found["cement_volume_within_3pct"].n) == (0.8, 5)
    assert found["cement_volume_error_max_pct"].value == pytest.approx(4.0)
    assert found["injections_that_found_a_way"].value == pytest.approx(5 / 6)
    assert (found["leaks_inside_their_compartment"].value, found["leaks_inside_their_compartment"].n) == (0.8, 5)
    assert found["leaks_inside_their_compartment[disc]"].value == 1.0
    assert found["leaks_asked_for_and_made"].value == pytest.approx(5 / 6)
    assert found["cases_without_intraosseous_cement_outside_bone"].value == 0.75
    assert found["cases_that_keep_every_label_rule"].value == 0.75


@pytest.fixture(scope="module")
def operations(scene: Scene) -> dict[str, Operation]:
    """One operation for each way out that this coarse pelvis has room for."""
    found = {}
    for name in MECHANISMS:
        rng = np.random.default_rng(2)
        operation = operate_until(rng, scene, plan_of(rng, (4.0,), (name,)))
        if operation.leaks:
            found[name] = operation
    return found


def share_in(scene: Scene, operation: Operation, region: str) -> float:
    outside = (operation.leaks[0].distance < 0) & (scene.distance["sacrum"] > 0)
    return float(REGIONS[region](scene, operation)[outside].mean())


def test_every_way_out_has_a_region_and_its_leaks_lie_there(scene: Scene, operations: dict[str, Operation]) -> None:
    assert set(REGIONS) == set(MECHANISMS)
    assert len(operations) >= len(MECHANISMS) - 2
    for name, operation in operations.items():
        assert share_in(scene, operation, name) > 0.6, name  # voxels of 3 mm straddle every border


@pytest.mark.parametrize(("name", "elsewhere"), [
    ("epidural", "cortical_defect"), ("cortical_defect", "epidural"), ("cortical_defect", "needle_track"),
    ("needle_track", "disc"), ("sacroiliac_joint", "epidural"), ("median_sacral_vein", "soft_tissue"),
    ("disc", "sacroiliac_joint"),
])
def test_a_leak_does_not_lie_in_the_region_of_another_site(scene: Scene, operations: dict[str, Operation], name: str,
                                                           elsewhere: str) -> None:
    if name not in operations:
        pytest.skip(f"this pelvis has no room for {name}")
    assert share_in(scene, operations[name], elsewhere) < 0.5


def test_a_patient_is_checked_from_plan_to_labels(pelvis: Anatomy, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_simulation, "FINE_MM", 3.0)
    monkeypatch.setattr(check_simulation, "COARSE_MM", 5.0)
    pelvis.save(tmp_path / "bones.npz")
    anatomies = (tmp_path / "bones.npz",)
    item = check(shipped_cohorts(), "reference", 1, anatomies)
    assert item == check(shipped_cohorts(), "reference", 1, anatomies)
    assert item.broken == ()
    assert len(item.volume_ratios) == item.injections >= 1
    now = datetime(2026, 5, 6, tzinfo=UTC)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/about.json").write_text('{"bench": {"date": "2026-01-01"}}')
    main(shipped_cohorts(), count=2, anatomies=anatomies, metrics=tmp_path / "metrics", now=now)
    content = json.loads((tmp_path / "metrics/simulation.json").read_text())
    assert all(set(figure) == {"value", "n", "low", "high"} for figure in content.values())
    assert content["cases_that_keep_every_label_rule"]["n"] == 2
    about = json.loads((tmp_path / "metrics/about.json").read_text())
    assert about["simulation"]["date"] == "2026-05-06"
    assert about["bench"] == {"date": "2026-01-01"}
