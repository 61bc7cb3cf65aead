"""Processes that score: whatever a scan does to its process costs that scan alone."""

from __future__ import annotations

import csv
import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from sacroleak.core.errors import ModelError
from sacroleak.core.sources import Source
from sacroleak.inference.batch import RunSummary
from sacroleak.inference.crew import CrewWish, available_mib, crew_for, most_workers, peek
from sacroleak.inference.disk import FullDiskError
from sacroleak.inference.score_one import Engine

MakeEngine = Callable[..., Engine]
Run = Callable[..., RunSummary]


def content(out: Path) -> dict[str, bytes]:
    """Every file of a run that has to be the same whoever scored it."""
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*"))
            if file.is_file() and file.name not in ("run.json", "failures.csv", "index.html")}


def manifest(folder: Path, phantom: ModuleType, **corners: int | None) -> Path:
    """A scan for each name, cheap to judge; the value of its corner voxel says what it does to its process."""
    for number, (name, corner) in enumerate(corners.items()):
        ct = phantom.scan(phantom.grid(spacing_mm=(4.0, 4.0, 4.0)), bone_hu=phantom.BARE_HU)
        ct.hu[1, 0, 0] = number  # no two are the same
        ct.hu[0, 0, 0] = ct.hu[0, 0, 0] if corner is None else corner
        phantom.write_volume(folder / f"{name}.nii.gz", ct)
    path = folder / "scans.csv"
    path.write_text("case_id,path\n" + "".join(f"{name},{name}.nii.gz\n" for name in corners))
    return path


def test_a_scan_that_kills_or_swells_costs_only_itself_and_the_rest_is_as_ever(
    tmp_path: Path, shared_phantom: ModuleType, make_engine: MakeEngine, run: Run,
) -> None:
    phantom, marks = shared_phantom, tmp_path / "marks"
    marks.mkdir()
    listed = manifest(tmp_path, phantom, first=None, killer=phantom.KILL_HU, second=None,
                      swelling=phantom.HOG_HU, fault=phantom.CRASH_HU, fickle=phantom.KILL_ONCE_HU, last=None)
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        ct = phantom.scan(phantom.grid(spacing_mm=(4.5, 4.5, 4.5)), bone_hu=phantom.BARE_HU)
        phantom.write_volume(tmp_path / "inner.nii.gz", ct)
        archive.write(tmp_path / "inner.nii.gz", "a.nii.gz")
    inputs, out = [listed, tmp_path / "more.zip", tmp_path / "gone"], tmp_path / "out"
    engine = make_engine(segmenter=phantom.Troublemaker(marks))
    summary = run(inputs, out, engine, now=phantom.fixed_now, clock=time.perf_counter,
                  wish=CrewWish(workers=2, threads=1, memory_mib=1800))
    with (out / "failures.csv").open(newline="") as file:
        failures = {row["case_id"]: (row["stage"], row["reason"]) for row in csv.DictReader(file)}
    assert list(failures) == ["killer", "swelling", "fault", "refused-input-3"]
    assert failures["killer"] == ("score", "the process that scored it ended (signal 9), in each of 2 tries")
    assert failures["swelling"] == ("score", "it needed more than the 1800 MiB of memory allowed, in each of 2 tries")
    assert "RuntimeError" in failures["fault"][1]
    record = json.loads((out / "run.json").read_text())
    assert record["finished"] is True
    assert record["counts"] == {"scored": 5, "kept": 0, "refused": 4}
    assert record["device"]["workers"] == 2
    assert [outcome.number for outcome in summary.outcomes] == list(range(9))
    assert list(out.glob(".part-*")) == list((out / "cases").glob(".part-*")) == []
    good = manifest(tmp_path, phantom, first=None, killer=None, second=None, swelling=None, fault=None,
                    fickle=phantom.SOFT_HU, last=None)
    good.write_text("case_id,path\n" + "".join(f"{name},{name}.nii.gz\n" for name in ("first", "second", "last")))
    alone = tmp_path / "alone"
    run([good, tmp_path / "more.zip"], alone, make_engine(), now=phantom.fixed_now)
    ours = content(out)
    assert {name: data for name, data in content(alone).items() if name.startswith("cases/")}.items() <= ours.items()
    assert any("fickle" in name for name in ours)


def test_on_a_card_three_scans_of_a_process_are_with_the_networks_at_once(
    tmp_path: Path, shared_phantom: ModuleType, make_engine: MakeEngine, run: Run,
) -> None:
    listed = manifest(tmp_path, shared_phantom, one=None, two=None, three=None)
    summary = run([listed], tmp_path / "out", make_engine(segmenter=shared_phantom.OnCard()),
                  now=shared_phantom.fixed_now, clock=time.perf_counter, wish=CrewWish(workers=1, card=True))
    assert [outcome.what for outcome in summary.outcomes] == ["scored"] * 3
    assert json.loads((tmp_path / "out/run.json").read_text())["device"]["kind"] == "cuda"


def test_a_scan_that_hangs_is_given_up_and_its_neighbour_is_not(
    tmp_path: Path, shared_phantom: ModuleType, make_engine: MakeEngine, run: Run,
) -> None:
    phantom, marks = shared_phantom, tmp_path / "marks"
    marks.mkdir()
    listed = manifest(tmp_path, phantom, hanging=phantom.HANG_HU, next=None)
    summary = run([listed], tmp_path / "out", make_engine(segmenter=phantom.Troublemaker(marks)),
                  now=phantom.fixed_now, clock=phantom.HangClock(marks=marks), time_limit_s=9000.0,
                  wish=CrewWish(workers=1))
    (failure,) = summary.failures
    assert (failure.case_id, failure.stage) == ("hanging", "score")
    assert failure.reason == "it took longer than the 9000 s allowed, in each of 2 tries"
    assert [outcome.what for outcome in summary.outcomes] == ["refused", "scored"]


def test_a_model_that_cannot_be_loaded_ends_the_run_with_its_reason(
    tmp_path: Path, shared_phantom: ModuleType, make_engine: MakeEngine, run: Run,
) -> None:
    listed = manifest(tmp_path, shared_phantom, one=None)
    engine = make_engine(segmenter=shared_phantom.Unloadable(tmp_path))
    with pytest.raises(ModelError, match="3 networks wanted, 1 found"):
        run([listed], tmp_path / "out", engine, now=shared_phantom.fixed_now,
            clock=shared_phantom.HangClock(marks=tmp_path), wish=CrewWish(workers=1))
    assert json.loads((tmp_path / "out/run.json").read_text())["finished"] is False


def test_a_full_disk_stops_the_run_and_the_same_call_goes_on_from_there(
    tmp_path: Path, phantom: ModuleType, make_engine: MakeEngine, run: Run,
) -> None:
    listed = manifest(tmp_path, phantom, one=None, two=phantom.FULL_HU, three=None)
    out = tmp_path / "out"
    with pytest.raises(FullDiskError, match=r"disk is full.*1 scans are finished.*MiB of room.*same call"):
        run([listed], out, make_engine(segmenter=phantom.Troublemaker(tmp_path)))
    assert [folder.name for folder in (out / "cases").iterdir()] == ["one"]
    assert (out / "failures.csv").read_text().count("\n") == 1, "a full disk is no fault of a scan"
    assert "one" in (out / "results.csv").read_text()
    summary = run([listed], out, make_engine())
    assert [outcome.what for outcome in summary.outcomes] == ["kept", "scored", "scored"]


def test_a_run_stops_before_the_disk_is_full(tmp_path: Path, phantom: ModuleType, make_engine: MakeEngine,
                                             run: Run) -> None:
    listed = manifest(tmp_path, phantom, one=None, two=None)
    room = iter([1 << 40, 1 << 20, 1 << 20])
    with pytest.raises(FullDiskError, match="1 MiB free"):
        run([listed], tmp_path / "out", make_engine(), free=lambda _: next(room))
    assert [folder.name for folder in (tmp_path / "out/cases").iterdir()] == ["one"]
    assert json.loads((tmp_path / "out/run.json").read_text())["finished"] is False
    assert list((tmp_path / "out").glob(".part-*")) == []


@pytest.mark.parametrize(("wish", "scans", "cores", "memory", "wanted"), [
    (CrewWish(), 1, 4, 64_000, (0, 4)),
    (CrewWish(workers=1), 1, 4, 64_000, (1, 4)),
    (CrewWish(), 8, 4, 64_000, (4, 1)),
    (CrewWish(), 2, 4, 64_000, (2, 2)),
    (CrewWish(), 99, 32, 64_000, (32, 1)),
    (CrewWish(), 8, 4, 4_000, (2, 2)),
    (CrewWish(), 8, 4, 500, (1, 4)),
    (CrewWish(workers=3, threads=5), 8, 4, 64_000, (3, 5)),
    (CrewWish(workers=0), 8, 4, 64_000, (0, 4)),
    (CrewWish(card=True), 99, 16, 64_000, (4, 4)),
    (CrewWish(card=True), 99, 16, 16_000, (2, 8)),
    (CrewWish(workers=6, card=True), 99, 16, 64_000, (6, 2)),
])
def test_processes_fit_the_cores_the_memory_and_the_scans(
    wish: CrewWish, scans: int, cores: int, memory: int, wanted: tuple[int, int], tmp_path: Path,
) -> None:
    source = Source(kind="nifti", case_id="a", files=(), input_path=tmp_path)
    most = most_workers(wish, cores=cores, memory_mib=memory)
    crew = crew_for([source] * min(scans, peek(most)), most, wish, cores=cores, memory_mib=memory)
    assert (crew.workers, crew.threads) == wanted


def test_a_container_s_memory_counts(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9999999 kB\nMemAvailable: 4096000 kB\n")
    assert available_mib(tmp_path) == 4000
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{1000 << 20}\n")
    assert available_mib(tmp_path) == 1000
