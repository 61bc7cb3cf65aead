"""Calls of the real command are counted by what they recorded, on the cores they were given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sacroleak.core.errors import ConfigError, SacroleakError
from sacroleak.training.score_runs import Ran, disk_bytes_a_second, files_of, forget, on_cores, score


def ran(**timings: float) -> Ran:
    return Ran(seconds=10.0, assessed=1, record={"timings": timings, "peak_memory_mib": 900, "lead_memory_mib": 1000})


def test_what_no_stage_took_is_the_rest() -> None:
    stages = ran(total_s=8.0, read_s=2.0, segment_s=5.0).stages
    assert stages == {"read": 2.0, "segment": 5.0, "other": 3.0}
    assert ran(total_s=8.0, read_s=9.0, segment_s=5.0).stages["other"] == 0.0, "stages of two scans overlap"


def test_memory_is_that_of_the_largest_process() -> None:
    assert ran(total_s=1.0).peak_gb == pytest.approx(1000 * 2**20 / 1e9)


def test_a_process_started_on_one_core_has_one_and_this_one_all_of_them_after() -> None:
    before = os.sched_getaffinity(0)
    with on_cores(1):
        code = "import os; print(len(os.sched_getaffinity(0)))"
        said = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "1"
    assert os.sched_getaffinity(0) == before


def test_more_cores_than_there_are_are_refused() -> None:
    with pytest.raises(ConfigError, match="cores: 100000 are wanted"), on_cores(100_000):
        pass


def test_files_are_dropped_and_read_whole(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/b").write_bytes(b"1" * 1000)
    (tmp_path / "a").write_bytes(b"2" * 24)
    assert forget(tmp_path) == 1024
    assert forget(tmp_path / "a") == 24
    assert disk_bytes_a_second(tmp_path) > 0
    assert files_of(tmp_path) == [tmp_path / "a", tmp_path / "inner/b"]
    assert (tmp_path / "inner/b").read_bytes() == b"1" * 1000


def test_a_call_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(SacroleakError, match=r"sacroleak score ended with [12], wanted 0: .*nothing\.nii"):
        score([tmp_path / "nothing.nii"], tmp_path / "out", bundle=tmp_path)
