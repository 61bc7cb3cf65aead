"""The benchmark's manifest, its scans on disk, and the promise that no trained-on patient is in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sacroleak.core.config import load_config
from sacroleak.core.errors import InputError, ManifestError
from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Side, Site, Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.training import benchmark
from sacroleak.training.benchmark import (
    BenchmarkConfig,
    BenchmarkRow,
    load_case,
    make_case,
    plan_of_row,
    read_benchmark,
    save_case,
    scanner_of_row,
)
from sacroleak.training.simulation.case import Case, LeakTruth
from sacroleak.training.simulation.cohort import shipped_cohorts
from sacroleak.training.simulation.leak import MECHANISMS
from sacroleak.training.simulation.plan import LeakPlan, LesionKind

ROW = BenchmarkRow(case_id="a", source="surface", anatomy="bones", seed=1, sites=(Site.SACRAL_VENOUS_PLEXUS,),
                   slice_mm=2.0, increment_mm=2.0, pixel_mm=0.9, fov_mm=230.0, kernel="standard", saturates=True,
                   cement_hu=2000.0, prone=True, cement_ml=(5.0,), lesion="", leaks=("foraminal_vein",),
                   near_misses=(), metal=(), calcium=(), other_cement=())


@pytest.fixture
def committed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> BenchmarkConfig:
    monkeypatch.chdir(repository)
    return load_config(repository / "configs/benchmark.yaml", BenchmarkConfig)


def small_case() -> Case:
    """Every label once, on a grid of its own."""
    rng = np.random.default_rng(0)
    grid = Geometry.axis_aligned(origin_lps_mm=(-3, 4, 5), spacing_mm=(0.9, 0.9, 2.0), shape=(9, 8, 7))
    anatomy = rng.integers(0, 6, grid.shape).astype(np.uint8)
    masks = [rng.random(grid.shape) < 0.3 for _ in range(2)]
    leaks = rng.integers(0, 4, grid.shape).astype(np.uint8)
    truth = (LeakTruth(number=1, site=Site.SACRAL_VENOUS_PLEXUS, mechanism="foraminal_vein", volume_ml=0.2),)
    return Case(ct=Volume(hu=rng.integers(-1000, 3000, grid.shape).astype(np.int16), geometry=grid),
                anatomy=LabelMap(labels=anatomy, geometry=grid), cement=LabelMap(labels=masks[0], geometry=grid),
                metal=LabelMap(labels=masks[1], geometry=grid), leaks=LabelMap(labels=leaks, geometry=grid),
                truth=truth)


def test_a_saved_scan_comes_back_as_it_was(tmp_path: Path) -> None:
    case = small_case()
    save_case(tmp_path / "a.npz", ROW, case)
    back = load_case(tmp_path / "a.npz")
    assert back.row == ROW
    assert back.case.truth == case.truth
    back.case.ct.geometry.require_same_grid(case.ct.geometry, "scan")
    assert (back.case.ct.hu == case.ct.hu).all()
    for name in ("anatomy", "cement", "metal", "leaks"):
        assert (getattr(back.case, name).labels == getattr(case, name).labels).all(), name


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    case = small_case()
    for name in ("a", "b"):
        save_case(tmp_path / f"{name}.npz", ROW, case)
    case.ct.hu[0, 0, 0] += 1
    save_case(tmp_path / "c.npz", ROW, case)
    a, b, c = (load_case(tmp_path / f"{name}.npz").digest for name in "abc")
    assert a == b
    assert a != c


def test_the_committed_benchmark_is_half_procedural_half_held_out_patients(committed: BenchmarkConfig) -> None:
    rows = read_benchmark(committed)
    count = Counter(row.source for row in rows)
    assert count["procedural"] == count["surface"]
    assert count["procedural"] + count["surface"] >= 120
    assert len({row.anatomy for row in rows if row.source == "surface"}) == 7
    assert min(row.seed for row in rows) > 20_000, "no seed of the benchmark that limits were chosen on"


@pytest.mark.parametrize("source", ["procedural", "surface"])
def test_each_half_has_every_site_and_what_makes_it_hard(committed: BenchmarkConfig, source: str) -> None:
    rows = [row for row in read_benchmark(committed) if row.source == source]
    sites = Counter(site for row in rows for site in row.sites)
    assert min(sites[site] for site in Site) >= 10
    ways = {plan.mechanism for row in rows for plan in row.leak_plans}
    assert ways == set(MECHANISMS)
    assert sum(len(row.sites) > 1 for row in rows) >= 10
    assert sum(not row.leaks for row in rows) >= 15
    assert sum(not row.cement_ml for row in rows) >= 4
    assert {1.0, 1.5, 2.0, 3.0, 5.0} <= {row.slice_mm for row in rows}
    assert {row.kernel for row in rows} == {"soft", "standard", "bone"}
    assert sum(bool(row.metal) for row in rows) >= 10
    assert sum(row.lesion == "sclerotic" for row in rows) >= 6
    assert sum(row.fov_mm <= 140 for row in rows) >= 8
    assert {row.prone for row in rows} == {row.saturates for row in rows} == {True, False}
    tiny = [plan.volume_ml for row in rows for plan in row.leak_plans if plan.volume_ml and plan.volume_ml <= 0.1]
    assert len(tiny) >= 8


def test_both_halves_together_hold_each_site_often_enough(committed: BenchmarkConfig) -> None:
    rows = [row for row in read_benchmark(committed) if row.source != "real"]
    sites = Counter(site for row in rows for site in row.sites)
    assert min(sites[site] for site in Site) >= 20
    assert sum(not row.leaks for row in rows) >= 30
    assert sum(not row.cement_ml for row in rows) >= 8


def test_the_names_in_the_rows_are_known_to_the_simulation(committed: BenchmarkConfig) -> None:
    cohort = shipped_cohorts().cohort("training")
    for row in read_benchmark(committed):
        assert set(row.metal) <= set(cohort.hardware)
        assert set(row.calcium) <= set(cohort.calcium)
        assert set(row.other_cement) <= set(cohort.other_cement)
        assert set(row.near_misses) <= set(cohort.near_misses)


def test_a_row_decides_the_plan_and_its_seed_the_rest() -> None:
    row = ROW.model_copy(update={"cement_ml": (3.0, 4.0), "leaks": ("epidural@0.05", "disc"), "lesion": "sclerotic",
                                 "metal": ("lumbar_screws",)})
    plan = plan_of_row(np.random.default_rng(1), row)
    assert [injection.volume_ml for injection in plan.injections] == [3.0, 4.0]
    assert {injection.side for injection in plan.injections} == {Side.LEFT, Side.RIGHT}
    assert all(injection.lesion is LesionKind.SCLEROTIC for injection in plan.injections)
    assert plan.leaks == (LeakPlan(mechanism="epidural", volume_ml=0.05), LeakPlan(mechanism="disc"))
    assert plan.hardware == ("lumbar_screws",)
    assert plan_of_row(np.random.default_rng(1), row) == plan != plan_of_row(np.random.default_rng(2), row)
    empty = plan_of_row(np.random.default_rng(1), row.model_copy(update={"cement_ml": (), "leaks": ()}))
    assert (empty.injections, empty.leaks) == ((), ())


def test_kernels_differ_in_blur_and_edges() -> None:
    soft, bone = (scanner_of_row(np.random.default_rng(0), ROW.model_copy(update={"kernel": kernel}))
                  for kernel in ("soft", "bone"))
    assert soft.blur_mm > 1.5 * bone.blur_mm
    assert soft.edge_enhance < bone.edge_enhance


def test_a_patient_who_is_not_held_out_is_refused(committed: BenchmarkConfig, tmp_path: Path) -> None:
    anatomies = tmp_path / "anatomies.csv"
    text = committed.anatomy_manifest.read_text(encoding="utf-8")
    anatomies.write_text(text.replace("jhu-05,Han et al. 2019 atlas of 30 pelvises,test", "jhu-05,Han,train"))
    with pytest.raises(ManifestError, match="jhu-05, which is not of split test"):
        read_benchmark(committed.model_copy(update={"anatomy_manifest": anatomies}))


@pytest.mark.parametrize(("column", "value", "message"), [
    ("leaks", "tunnel", "unknown mechanism tunnel"), ("source", "dream", "source"), ("slice_mm", "thin", "slice_mm"),
    ("leaks", "epidural@much", "could not convert"), ("sites", "other", "are not those of leaks"),
])
def test_a_bad_row_is_named(committed: BenchmarkConfig, tmp_path: Path, column: str, value: str,
                            message: str) -> None:
    header, first = committed.manifest.read_text(encoding="utf-8").splitlines()[:2]
    cells = dict(zip(header.split(","), first.split(","), strict=True)) | {column: value}
    manifest = tmp_path / "benchmark.csv"
    manifest.write_text(f"{header}\n{','.join(cells.values())}\n")
    with pytest.raises(ManifestError, match=message):
        read_benchmark(committed.model_copy(update={"manifest": manifest}))


def test_two_rows_may_not_share_a_seed(committed: BenchmarkConfig, tmp_path: Path) -> None:
    lines = committed.manifest.read_text(encoding="utf-8").splitlines()
    manifest = tmp_path / "benchmark.csv"
    manifest.write_text("\n".join([*lines[:2], lines[1].replace("procedural-001", "procedural-999")]) + "\n")
    with pytest.raises(ManifestError, match="seed must differ"):
        read_benchmark(committed.model_copy(update={"manifest": manifest}))


def test_missing_bones_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run the prepare stage"):
        make_case(ROW, tmp_path)


def test_finished_scans_are_kept_until_row_or_bones_change(
    committed: BenchmarkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []

    def quick(row: BenchmarkRow, _anatomies: Path) -> Case:
        made.append(row.case_id)
        return small_case()

    monkeypatch.setattr(benchmark, "make_case", quick)
    config = committed.model_copy(update={"limit": 1, "sources": ("procedural", "surface")})
    out, bones = tmp_path / "scans", tmp_path / "bones"
    bones.mkdir()
    for content, expected in (("one", ["procedural-001", "surface-001"]), ("one", []), ("two", ["surface-001"])):
        (bones / "jhu-05.npz").write_text(content)
        made.clear()
        paths = benchmark.main(config, anatomies=bones, out=out)
        assert made == expected
        assert [path.stem for path in paths] == ["procedural-001", "surface-001"]


def test_a_row_decides_every_voxel(committed: BenchmarkConfig, tmp_path: Path) -> None:
    row = next(row for row in read_benchmark(committed) if row.sites == (Site.ANTERIOR_EPIDURAL_SPACE,)
               and row.source == "procedural")
    row = row.model_copy(update={"pixel_mm": 2.5, "slice_mm": 5.0, "increment_mm": 5.0, "metal": (), "fov_mm": 200.0,
                                 "leaks": ("epidural",)})  # the real ones take seconds each
    first, second = make_case(row, tmp_path), make_case(row, tmp_path)
    assert (first.ct.hu == second.ct.hu).all()
    assert first.truth == second.truth
    assert {t.site for t in first.truth} == {Site.ANTERIOR_EPIDURAL_SPACE}
    assert (first.anatomy.labels == Structure.SACRUM).any()


def test_rows_of_a_real_ct_are_left_out_where_it_is_not_there(
    committed: BenchmarkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(benchmark, "make_case", lambda _row, _anatomies: small_case())
    config = committed.model_copy(update={"limit": 1, "sources": ("procedural", "real")})
    assert [p.stem for p in benchmark.main(config, anatomies=tmp_path, out=tmp_path / "a")] == ["procedural-001"]
    real = next(row for row in read_benchmark(config) if row.source == "real")
    (tmp_path / f"{real.anatomy}.npz").write_text("bones")
    assert [p.stem for p in benchmark.main(config, anatomies=tmp_path, out=tmp_path / "b")] == ["procedural-001",
                                                                                               "real-001"]
