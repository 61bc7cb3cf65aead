"""The same run on a Dask cluster, of which one worker is killed in the middle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from distributed import LocalCluster

from sacroleak.core.errors import InputError
from sacroleak.inference import dask_cluster
from sacroleak.inference.batch import RunSummary
from sacroleak.inference.score_one import Engine

MakeEngine = Callable[..., Engine]
Run = Callable[..., RunSummary]


@pytest.mark.filterwarnings("ignore")
def test_a_killed_worker_loses_nothing_and_the_results_are_those_of_one_process(
    tmp_path: Path, shared_phantom: ModuleType, make_engine: MakeEngine, run: Run,
) -> None:
    phantom = shared_phantom
    scans = []
    for number in range(6):
        ct = phantom.scan(phantom.grid(spacing_mm=(4.0, 4.0, 4.0)), bone_hu=phantom.BARE_HU)
        ct.hu[0, 0, 0] = phantom.KILL_ONCE_HU if number == 2 else number
        phantom.write_volume(tmp_path / f"{number}.nii.gz", ct)
        scans.append(tmp_path / f"{number}.nii.gz")
    inputs, marks = [*scans, tmp_path / "gone"], tmp_path / "marks"
    marks.mkdir()
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
                      scheduler_port=0) as cluster:
        cluster.wait_for_workers(2)
        summary = run(inputs, tmp_path / "out", make_engine(segmenter=phantom.Troublemaker(marks)),
                      now=phantom.fixed_now, clock=phantom.HangClock(marks=marks),
                      scheduler=cluster.scheduler_address)
    assert (marks / "killed").exists(), "a worker died"
    # What the dead worker had written but not yet told of is kept, not scored again.
    what = ["scored" if outcome.what == "kept" else outcome.what for outcome in summary.outcomes]
    assert sorted(what) == ["refused"] + ["scored"] * 6
    run(inputs, tmp_path / "alone", make_engine(segmenter=phantom.Troublemaker(marks)), now=phantom.fixed_now)
    for file in sorted((tmp_path / "alone").rglob("*")):
        if file.is_file() and file.name != "run.json":
            assert (tmp_path / "out" / file.relative_to(tmp_path / "alone")).read_bytes() == file.read_bytes()
    assert json.loads((tmp_path / "out/run.json").read_text())["device"]["scheduler"].startswith("tcp://")


def test_an_address_where_nobody_answers_is_a_wrong_call(tmp_path: Path, phantom: ModuleType, make_engine: MakeEngine,
                                                         run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "CONNECT_S", 1)
    scan = phantom.write_scan(tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="no Dask scheduler answers there"):
        run([scan], tmp_path / "out", make_engine(), scheduler="tcp://127.0.0.1:9")
