"""The benchmark's manifest, its scans on disk, and the promise that no trained-on patient is in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sacroleak.core.config import load_config
from sacroleak.core.errors import InputError, ManifestError
from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Site, Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.training import benchmark
from sacroleak.training.benchmark import BenchmarkConfig, BenchmarkRow, load_case, make_case, read_benchmark, save_case
from sacroleak.training.simulation.case import Case, LeakTruth
from sacroleak.training.simulation.leak import OF_SITE

ROW = BenchmarkRow(case_id="a", source="surface", anatomy="bones", seed=1, slice_mm=2.0, cement_ml=(5.0,),
                   leaks=("foraminal_vein",), metal=(), other_cement=())


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


def test_the_committed_benchmark_holds_forty_scans_half_of_each_source(committed: BenchmarkConfig) -> None:
    rows = read_benchmark(committed)
    assert [sum(row.source == source for row in rows) for source in ("procedural", "surface")] == [20, 20]


@pytest.mark.parametrize("source", ["procedural", "surface"])
def test_each_half_has_every_site_and_scans_without_leak_and_without_cement(
    committed: BenchmarkConfig, source: str,
) -> None:
    rows = [row for row in read_benchmark(committed) if row.source == source]
    leaks = [name for row in rows for name in row.leaks]
    for site, names in OF_SITE.items():
        assert sum(name in names for name in leaks) >= 3, site
    assert sum(not row.leaks and bool(row.cement_ml) for row in rows) >= 3
    assert sum(not row.cement_ml for row in rows) >= 2
    assert {row.slice_mm for row in rows} == {1.0, 1.5, 2.0, 3.0}
    assert 4 <= sum(bool(row.metal) for row in rows) <= 10


def test_a_patient_who_is_not_held_out_is_refused(committed: BenchmarkConfig, tmp_path: Path) -> None:
    anatomies = tmp_path / "anatomies.csv"
    text = committed.anatomy_manifest.read_text(encoding="utf-8")
    anatomies.write_text(text.replace("jhu-05,Han et al. 2019 atlas of 30 pelvises,test", "jhu-05,Han,train"))
    with pytest.raises(ManifestError, match="jhu-05, which is not of split test"):
        read_benchmark(committed.model_copy(update={"anatomy_manifest": anatomies}))


@pytest.mark.parametrize(("column", "value", "message"), [
    ("leaks", "tunnel", "unknown mechanism tunnel"), ("source", "real", "source"), ("slice_mm", "thin", "slice_mm"),
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
    manifest.write_text("\n".join([*lines[:2], lines[1].replace("procedural-01", "procedural-99")]) + "\n")
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
    config = committed.model_copy(update={"limit": 1})
    out, bones = tmp_path / "scans", tmp_path / "bones"
    bones.mkdir()
    for content, expected in (("one", ["procedural-01", "surface-01"]), ("one", []), ("two", ["surface-01"])):
        (bones / "jhu-05.npz").write_text(content)
        made.clear()
        paths = benchmark.main(config, anatomies=bones, out=out)
        assert made == expected
        assert [path.stem for path in paths] == ["procedural-01", "surface-01"]


def test_a_row_decides_every_voxel(committed: BenchmarkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "PIXEL_MM", 2.5)  # the real ones take seconds each
    row = read_benchmark(committed)[3].model_copy(update={"slice_mm": 6.0, "metal": ()})
    first, second = make_case(row, tmp_path), make_case(row, tmp_path)
    assert (first.ct.hu == second.ct.hu).all()
    assert first.truth == second.truth
    assert {t.site for t in first.truth} == {Site.ANTERIOR_EPIDURAL_SPACE}
    assert (first.anatomy.labels == Structure.SACRUM).any()
