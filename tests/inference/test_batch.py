"""Many scans: failures stay apart, finished work is kept, and nothing is ever half written."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest

from sacroleak.core.errors import ConfigError, InputError
from sacroleak.core.needle import Approach, NeedleNote
from sacroleak.core.report import read_report
from sacroleak.core.sources import discover
from sacroleak.core.structures import Site
from sacroleak.inference import batch, scan_job
from sacroleak.inference.batch import RunSummary
from sacroleak.inference.config import config_digest, load_score_config, needles_digest
from sacroleak.inference.crew import CrewWish
from sacroleak.inference.run_record import Outcome
from sacroleak.inference.score_one import Engine
from sacroleak.inference.write import write_case
from sacroleak.models.effort import Effort
from sacroleak.models.limits import shipped_limits

MakeEngine = Callable[..., Engine]
Run = Callable[..., RunSummary]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def manifest(folder: Path, **scans: Path) -> Path:
    """Scans under names of the test's own."""
    path = folder / "scans.csv"
    path.write_text("case_id,path\n" + "".join(f"{name},{scan}\n" for name, scan in scans.items()))
    return path


def whats(summary: RunSummary) -> list[str]:
    return [outcome.what for outcome in summary.outcomes]


def test_a_scan_that_fails_stops_only_itself(tmp_path: Path, phantom: ModuleType, make_engine: MakeEngine,
                                             run: Run) -> None:
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    listed = manifest(tmp_path, broken=tmp_path / "broken.nii.gz",
                      fault=phantom.write_scan(tmp_path / "f.nii.gz", marker=phantom.CRASH_HU),
                      bare=phantom.write_scan(tmp_path / "b.nii.gz", bone_hu=phantom.BARE_HU),
                      leaking=phantom.write_scan(tmp_path / "l.nii.gz", phantom.ball(phantom.IN_ALA),
                                                 phantom.ball(phantom.IN_FRONT)),
                      gone=tmp_path / "gone.nii.gz")
    out = tmp_path / "out"
    summary = run([listed], out, make_engine())
    assert whats(summary) == ["refused", "refused", "scored", "scored", "refused"]
    failures = {row["case_id"]: row for row in rows(out / "failures.csv")}
    assert {name: row["stage"] for name, row in failures.items()} == {"broken": "read", "fault": "score",
                                                                      "gone": "find"}
    assert failures["broken"]["input"] == str(tmp_path / "broken.nii.gz")
    assert "RuntimeError" in failures["fault"]["reason"]
    assert "SECRET" not in (out / "failures.csv").read_text()
    results = {row["case_id"]: row for row in rows(out / "results.csv")}
    assert results.keys() == {"bare", "leaking"}
    assert results["bare"]["status"] == "not_assessable"
    assert results["bare"]["reasons"] == "No sacrum was found in the scan."
    assert results["leaking"]["leak_present"] == "true"
    assert [row["side"] for row in rows(out / "leaks.csv")] == ["left"]
    assert sorted(p.name for p in (out / "cases").iterdir()) == ["bare", "leaking"]


def test_the_run_record_says_with_what_and_how_it_went(tmp_path: Path, phantom: ModuleType, make_engine: MakeEngine,
                                                       run: Run) -> None:
    scan = phantom.write_scan(tmp_path / "a.nii.gz")
    run([scan], tmp_path / "out", make_engine())
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["finished"] is True
    assert record["counts"] == {"scored": 1, "kept": 0, "refused": 0}
    assert record["bundle"] == {"name": "known 1", "digest": "b" * 64}
    assert record["inputs"] == [str(scan)]
    assert record["started"] == "2026-01-02T03:04:05+00:00"
    assert {"total_s", "read_s", "segment_s", "rules_s", "write_s"} <= record["timings"].keys()
    assert record["config"]["rules"]["leaks"]["volume_ml"] > 0


def test_csv_and_parquet_tell_the_same(tmp_path: Path, phantom: ModuleType, make_engine: MakeEngine, run: Run) -> None:
    scan = phantom.write_scan(tmp_path / "a.nii.gz", phantom.ball(phantom.IN_ALA), phantom.ball(phantom.IN_FRONT))
    run([scan], tmp_path / "out", make_engine())
    table = pq.read_table(tmp_path / "out/results.parquet").to_pylist()
    (row,) = rows(tmp_path / "out/results.csv")
    assert list(table[0]) == list(row)
    assert table[0]["cement_leaked_ml"] == float(row["cement_leaked_ml"]) > 0
    assert table[0]["leak_present"] is True


def test_tables_of_no_scan_have_their_columns(tmp_path: Path, make_engine: MakeEngine, run: Run) -> None:
    summary = run([tmp_path / "nowhere"], tmp_path / "out", make_engine())
    assert whats(summary) == ["refused"]
    assert pq.read_table(tmp_path / "out/results.parquet").num_rows == 0
    header = (tmp_path / "out/results.csv").read_text().strip().split(",")
    assert {f"{site}_present" for site in Site} <= set(header)


def test_finished_cases_are_kept_and_tables_are_complete(tmp_path: Path, phantom: ModuleType, make_engine: MakeEngine,
                                                         run: Run) -> None:
    first = phantom.write_scan(tmp_path / "a.nii.gz")
    second = phantom.write_scan(tmp_path / "b.nii.gz", phantom.ball(phantom.IN_ALA))
    out, engine = tmp_path / "out", make_engine()
    run([first], out, engine)
    assert engine.segmenter.calls == 1  # type: ignore[attr-defined]
    assert whats(run([first, second], out, engine)) == ["kept", "scored"]
    assert engine.segmenter.calls == 2  # type: ignore[attr-defined]
    assert whats(run([second], out, engine)) == ["kept"]
    assert len(rows(out / "results.csv")) == 2


@pytest.mark.parametrize("change", [{"bundle_digest": "c" * 64}, {"config_digest": "d" * 64}, {"version": "9"}])
def test_another_model_configuration_or_version_scores_again(tmp_path: Path, phantom: ModuleType, run: Run,
                                                             make_engine: MakeEngine, change: dict[str, str]) -> None:
    scan = phantom.write_scan(tmp_path / "a.nii.gz")
    run([scan], tmp_path / "out", make_engine())
    assert whats(run([scan], tmp_path / "out", make_engine(**change))) == ["scored"]


def test_what_had_changed_is_told(tmp_path: Path, phantom: ModuleType, run: Run, make_engine: MakeEngine) -> None:
    scan = phantom.write_scan(tmp_path / "a.nii.gz", bone_hu=phantom.BARE_HU)
    run([scan], tmp_path / "out", make_engine())
    (outcome,) = run([scan], tmp_path / "out", make_engine(bundle_digest="c" * 64, version="9")).outcomes
    assert outcome.redone == "model, version"
    assert json.loads((tmp_path / "out/run.json").read_text())["redone"] == {"model, version": 1}


def test_other_evidence_on_the_needles_scores_again_and_none_keeps_the_old_key(
    tmp_path: Path, phantom: ModuleType, run: Run, make_engine: MakeEngine,
) -> None:
    scan, out = phantom.write_scan(tmp_path / "a.nii.gz", bone_hu=phantom.BARE_HU), tmp_path / "out"
    listed = tmp_path / "scans.csv"

    def given(cells: str) -> Outcome:
        listed.write_text(f"case_id,path,approach,entry_lps_mm\none,{scan},{cells}\n")
        (outcome,) = run([listed], out, make_engine()).outcomes
        return outcome

    assert given(",").what == "scored"
    assert "needles_digest" not in read_report(out / "cases/one/report.json").provenance
    for cells in ("posterior,", "posterior,1 2 3", ","):
        outcome = given(cells)
        assert (outcome.what, outcome.redone) == ("scored", "needle evidence")
        assert given(cells).what == "kept"
    assert "needles_digest" not in read_report(out / "cases/one/report.json").provenance


def test_the_word_of_a_manifest_reaches_the_rules_in_another_process(
    tmp_path: Path, shared_phantom: ModuleType, run: Run, make_engine: MakeEngine,
) -> None:
    phantom = shared_phantom
    scan = phantom.write_scan(tmp_path / "a.nii.gz", phantom.ball(phantom.IN_ALA), phantom.ball(phantom.IN_FRONT))
    listed = tmp_path / "scans.csv"
    listed.write_text(f"case_id,path,approach,entry_lps_mm\none,{scan},posterior,30 90 0\n")
    run([listed], tmp_path / "out", make_engine(), now=phantom.fixed_now, clock=time.perf_counter,
        wish=CrewWish(workers=1, threads=1, memory_mib=1800))
    notes = read_report(tmp_path / "out/cases/one/report.json").notes
    assert "the approach (posterior) and one entry" in notes[0]


def test_how_needles_are_weighed_is_in_the_key_of_scans_with_evidence_alone() -> None:
    limits, outputs = shipped_limits(), load_score_config().outputs(None, preview=True)
    needles = limits.needles.model_copy(update={"entry_odds": limits.needles.entry_odds + 1})
    other, note = limits.model_copy(update={"needles": needles}), NeedleNote(approach=Approach.POSTERIOR)
    assert config_digest(other, outputs, Effort.STANDARD) == config_digest(limits, outputs, Effort.STANDARD)
    assert needles_digest(None, other) == needles_digest(None, limits) == ""
    assert needles_digest(note, other) != needles_digest(note, limits)


def test_a_part_of_a_study_leaves_no_result_once_the_whole_was_met(tmp_path: Path, phantom: ModuleType, run: Run,
                                                                   make_engine: MakeEngine,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    part, whole = (phantom.write_scan(tmp_path / f"{name}.nii.gz", bone_hu=phantom.BARE_HU, marker=number)
                   for number, name in enumerate(("part", "whole")))
    found = list(discover([part, whole]))
    found[1] = replace(found[1], replaces=(found[0].case_id,))
    monkeypatch.setattr(batch, "discover", lambda *_, **__: iter(found))
    summary = run([part, whole], tmp_path / "out", make_engine())
    assert [outcome.case_id for outcome in summary.outcomes] == [found[1].case_id]
    assert [folder.name for folder in (tmp_path / "out/cases").iterdir()] == [found[1].case_id]


def test_force_scores_again(tmp_path: Path, phantom: ModuleType, make_engine: MakeEngine, run: Run) -> None:
    scan = phantom.write_scan(tmp_path / "a.nii.gz")
    run([scan], tmp_path / "out", make_engine())
    assert whats(run([scan], tmp_path / "out", make_engine(), force=True)) == ["scored"]


def test_another_scan_never_takes_a_case_folder_in_silence(tmp_path: Path, phantom: ModuleType, run: Run,
                                                           make_engine: MakeEngine) -> None:
    out = tmp_path / "out"
    run([manifest(tmp_path, same=phantom.write_scan(tmp_path / "a.nii.gz"))], out, make_engine())
    other = manifest(tmp_path, same=phantom.write_scan(tmp_path / "b.nii.gz", phantom.ball(phantom.IN_ALA)))
    summary = run([other], out, make_engine())
    assert whats(summary) == ["refused"]
    assert "another scan" in summary.failures[0].reason
    assert read_report(out / "cases/same/report.json").cement.total_ml == 0.0
    assert whats(run([other], out, make_engine(), force=True)) == ["scored"]
    assert read_report(out / "cases/same/report.json").cement.total_ml > 0.0


def test_leftovers_of_an_ended_run_are_removed_and_never_read(tmp_path: Path, phantom: ModuleType, run: Run,
                                                              make_engine: MakeEngine) -> None:
    out = tmp_path / "out"
    left = out / "cases/.part-abc"
    left.mkdir(parents=True)
    (left / "report.json").write_text("{")
    (out / ".part-def.csv").write_text("half a li")
    summary = run([phantom.write_scan(tmp_path / "a.nii.gz")], out, make_engine())
    assert whats(summary) == ["scored"]
    assert not left.exists()
    assert not (out / ".part-def.csv").exists()


def test_a_run_that_is_interrupted_leaves_whole_cases_and_can_go_on(
    tmp_path: Path, phantom: ModuleType, make_engine: MakeEngine, run: Run, monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = manifest(tmp_path, one=phantom.write_scan(tmp_path / "a.nii.gz"),
                      two=phantom.write_scan(tmp_path / "b.nii.gz", phantom.ball(phantom.IN_ALA)))
    out = tmp_path / "out"

    def interrupted(cases: Path, scored: Any, *others: Any, **more: Any) -> None:
        if scored.report.case_id == "two":
            raise KeyboardInterrupt
        write_case(cases, scored, *others, **more)

    monkeypatch.setattr(scan_job, "write_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run([listed], out, make_engine())
    assert [row["case_id"] for row in rows(out / "results.csv")] == ["one"]
    assert json.loads((out / "run.json").read_text())["finished"] is False
    monkeypatch.undo()
    assert whats(run([listed], out, make_engine())) == ["kept", "scored"]


def test_a_damaged_case_folder_is_named_and_scored_again(tmp_path: Path, phantom: ModuleType, make_engine: MakeEngine,
                                                         run: Run) -> None:
    out = tmp_path / "out"
    scans = {"one": phantom.write_scan(tmp_path / "a.nii.gz"),
             "two": phantom.write_scan(tmp_path / "b.nii.gz", phantom.ball(phantom.IN_ALA))}
    run([manifest(tmp_path, **scans)], out, make_engine())
    for name in scans:
        (out / f"cases/{name}/report.json").write_text('{"case_id": "one"')
    summary = run([manifest(tmp_path, one=scans["one"])], out, make_engine())
    assert whats(summary) == ["scored"]
    assert [(row["case_id"], row["stage"]) for row in rows(out / "failures.csv")] == [("two", "find")]
    assert [failure.case_id for failure in summary.failures] == ["two"]


def test_a_scan_that_is_refused_now_leaves_the_tables(tmp_path: Path, phantom: ModuleType, make_engine: MakeEngine,
                                                      run: Run) -> None:
    scan, out = phantom.write_scan(tmp_path / "a.nii.gz"), tmp_path / "out"
    listed = manifest(tmp_path, one=scan)
    run([listed], out, make_engine())
    scan.write_bytes(b"now it is damaged")
    run([listed], out, make_engine())
    assert rows(out / "results.csv") == []
    assert [row["case_id"] for row in rows(out / "failures.csv")] == ["one"]


def test_two_runs_never_share_a_folder(tmp_path: Path, phantom: ModuleType, make_engine: MakeEngine, run: Run) -> None:
    out = tmp_path / "out"
    out.mkdir()
    handle = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is writing there"):
            run([phantom.write_scan(tmp_path / "a.nii.gz")], out, make_engine())
    finally:
        os.close(handle)


def test_an_out_that_is_a_file_is_refused(tmp_path: Path, phantom: ModuleType, make_engine: MakeEngine,
                                          run: Run) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="cannot be used as a folder"):
        run([tmp_path], tmp_path / "out", make_engine())


def test_each_outcome_is_told_as_it_happens(tmp_path: Path, phantom: ModuleType, make_engine: MakeEngine,
                                            run: Run) -> None:
    told: list[Outcome] = []
    summary = run([phantom.write_scan(tmp_path / "a.nii.gz")], tmp_path / "out", make_engine(),
                  tell=lambda outcome, _: told.append(outcome))
    assert [replace(outcome, report=None) for outcome in told] == summary.outcomes
    assert told[0].report is not None


def test_with_debug_a_fault_is_raised(tmp_path: Path, phantom: ModuleType, make_engine: MakeEngine, run: Run) -> None:
    scan = phantom.write_scan(tmp_path / "a.nii.gz", marker=phantom.CRASH_HU)
    with pytest.raises(RuntimeError):
        run([scan], tmp_path / "out", make_engine(debug=True))


def test_another_effort_is_another_configuration() -> None:
    limits, outputs = shipped_limits(), load_score_config().outputs(None, preview=True)
    digests = {config_digest(limits, outputs, load_score_config().effort_of(name)) for name in (None, *Effort)}
    assert len(digests) == len(Effort)
    with pytest.raises(ConfigError, match="fast, standard, careful"):
        load_score_config().effort_of("heroic")
