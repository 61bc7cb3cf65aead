"""A run that is killed, and whose processes are killed, ends as one that was left alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from sacroleak.inference.soak import Found, Plan, differences, main, record, soak
from sacroleak.inference.soak_scans import BREAKS, make_scans

PLAN = Plan(scans=30, broken=len(BREAKS), run_kills=2, worker_kills=1, workers=1, seed=3)


def test_a_run_killed_again_and_again_ends_as_one_left_alone(tmp_path: Path) -> None:
    found = soak(PLAN, tmp_path)
    assert found.differences == []
    assert (found.run_kills, found.worker_kills, found.outlived) == (2, 1, 0)
    with (tmp_path / "killed/failures.csv").open(newline="") as file:
        refused = {row["case_id"].partition("-")[2][6:]: row for row in csv.DictReader(file)}
    assert refused.keys() == BREAKS.keys(), "each way of breaking a scan is refused, and no other scan"
    assert len(list((tmp_path / "killed/cases").iterdir())) == PLAN.scans - len(BREAKS)
    assert json.loads((tmp_path / "killed/run.json").read_text())["finished"] is True


def test_scans_are_the_same_for_the_same_seed_and_none_is_like_another(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_scans(tmp_path / name, count=24, broken=3, rng=np.random.default_rng(1))
    assert [name for name in differences(tmp_path / "a", tmp_path / "b") if name.endswith((".nii.gz", ".csv"))] == []
    scans = [path.read_bytes() for path in (tmp_path / "a").glob("*.nii.gz")]
    assert len(set(scans)) == len(scans) > 10


def test_a_file_that_differs_or_is_missing_is_found(tmp_path: Path) -> None:
    for name, files in (("a", {"same": "1", "other": "1", "run.json": "1"}),
                        ("b", {"same": "1", "other": "2", "more": "1"})):
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    assert differences(tmp_path / "a", tmp_path / "b") == ["more", "other"]


def test_the_figures_are_written_as_metrics() -> None:
    figures = json.loads(record(PLAN, Found(growth_mb=12.34)))
    assert figures["memory_growth_mb"] == {"value": 12.3, "n": 30, "low": None, "high": None}
    assert figures["soak_differing_files"]["value"] == 0


def test_the_figures_are_kept_where_no_metrics_were_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sacroleak.inference.soak.soak", lambda _plan, _folder: Found())
    assert main(PLAN, tmp_path / "out", tmp_path / "new/metrics")
    assert (tmp_path / "new/metrics/soak.json").is_file()
