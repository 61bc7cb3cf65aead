"""The stage runs the real command on tiny scans, and its ratios are what they say."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sacroleak.core.config import load_config
from sacroleak.models.bundle import default_bundle
from sacroleak.training import network_speed
from sacroleak.training.batch_speed import BatchSpeedConfig, Places, main, share_of_limit, times
from sacroleak.training.intervals import Figure
from sacroleak.training.marks import SPEED_MARKS
from sacroleak.training.metrics_files import join_soak, read_metrics, write_metrics
from sacroleak.training.results_page import write_page

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WITHOUT_NNUNET = {"times_nnunet", "times_nnunet_3mm", "memory_growth_mb"}


def tiny(repository: Path, folder: Path) -> BatchSpeedConfig:
    """The smoke settings, with paths that do not depend on where tests are started, and a large scan that is small."""
    text = (repository / "configs/network_speed.yaml").read_text(encoding="utf-8")
    for old, new in (("[512, 512, 300]", "[96, 96, 48]"), ("repeats: 5", "repeats: 1"), ("matrix: 2048", "matrix: 64"),
                     ("pixel_mm: 1.6", "pixel_mm: 4.0"), ("slice_mm: 2.0", "slice_mm: 4.0"), ("400.0", "230.0"),
                     ("data_manifests", str(repository / "data_manifests"))):
        assert old in text
        text = text.replace(old, new)
    (folder / "speed.yaml").write_text(text, encoding="utf-8")
    config = load_config(repository / "configs/smoke/batch_speed.yaml", BatchSpeedConfig)
    networks = tuple(repository / path for path in config.eager.networks)
    return config.model_copy(update={"network_speed": folder / "speed.yaml",
                                     "eager": config.eager.model_copy(update={"networks": networks})})


@pytest.mark.slow
def test_the_stage_measures_all_but_nnunet_in_one_run(
        repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_speed, "SIDE_OF_PEAK", 8)
    told: list[str] = []
    main(tiny(repository, tmp_path), bundle=default_bundle(), now=NOW, tell=told.append,
         places=Places(anatomies=tmp_path, work=tmp_path / "work", metrics=tmp_path / "metrics"))
    figures = json.loads((tmp_path / "metrics/benchmark.json").read_text())
    assert {mark.name for mark in SPEED_MARKS} - figures.keys() == WITHOUT_NNUNET
    value = {name: figure["value"] for name, figure in figures.items()}
    assert all(v is not None and v >= 0 for v in value.values())
    assert value["batch_scans_per_minute[cores=1]"] == pytest.approx(2 * 60 / value["batch_seconds[cores=1]"], rel=1e-3)
    first_batch = value["batch_seconds[cores=1]"] / value["batch_two_cores_against_one"]  # here both are on one core
    assert value["batch_against_separate"] == pytest.approx(2 * value["separate_seconds"] / first_batch, rel=1e-3)
    assert value["times_eager_sliding_window"] == pytest.approx(
        value["eager_near_tile_seconds"] * value["eager_near_tiles"] / value["scan_seconds"], rel=1e-3)
    assert value["share_of_limit"] > 0
    assert value["batch_mb"] == pytest.approx(2 * 96 * 96 * 48 * 2 / 1e6, rel=0.2), "two bytes a voxel, and headers"
    assert {f"scan_seconds[stage={s}]" for s in ("read", "segment", "write", "preview", "other")} <= figures.keys()
    assert all(figure["n"] == 1 for figure in figures.values())
    assert json.loads((tmp_path / "metrics/about.json").read_text())["batch_speed"]["date"] == "2026-01-01"
    assert len(told) >= 6


def test_the_limit_is_reading_and_then_arithmetic() -> None:
    """100 MB at 50 MB a second, and 3e9 operations at 1e9 a second, in ten seconds."""
    assert share_of_limit(read_bytes=1e8, bytes_a_second=5e7, operations=3e9, peak=1e9, seconds=10.0) == 0.5


def test_a_figure_is_multiplied_with_its_interval() -> None:
    assert times(Figure(value=2.0, n=4, low=1.0, high=3.0), 2.5) == Figure(value=5.0, n=4, low=2.5, high=7.5)
    assert times(Figure(value=2.0, n=1), 3.0) == Figure(value=6.0, n=1)


def test_the_shipped_settings_are_those_of_the_marks(repository: Path) -> None:
    config = load_config(repository / "configs/batch_speed.yaml", BatchSpeedConfig)
    assert (config.cores, config.batch.scans) == (2, 20)
    assert config.nnunet is not None
    assert config.nnunet.plan.levels == 6


def test_memory_growth_is_taken_over_from_the_soak(tmp_path: Path) -> None:
    growth = Figure(value=12.3, n=1000)
    write_metrics(tmp_path / "soak.json", {"memory_growth_mb": growth, "soak_refused": Figure(value=50.0, n=1000)})
    join_soak(tmp_path)
    assert not (tmp_path / "benchmark.json").exists(), "nothing else was measured"
    write_metrics(tmp_path / "benchmark.json", {"help_seconds": Figure(value=0.3, n=5)})
    join_soak(tmp_path)
    assert read_metrics(tmp_path / "benchmark.json").keys() == {"help_seconds", "memory_growth_mb"}
    write_page(tmp_path, tmp_path / "results.md")
    rows = [line for line in (tmp_path / "results.md").read_text().splitlines() if line.startswith("| ")]
    assert any("`memory_growth_mb` | ≤ 50 | 12.3 |  | 1000 |  | yes |" in row for row in rows)
    assert any("`times_nnunet` | ≥ 200 | – |" in row and "not measured" in row for row in rows)
