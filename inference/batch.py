"""Many scans, one after the other: one that fails stops only itself, and a run that was ended can be taken up again."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sacroleak.core.errors import InputError, SacroleakError
from sacroleak.core.read import input_digest, read
from sacroleak.core.report import Report
from sacroleak.core.sources import Source
from sacroleak.core.whole import remove_leftovers, write_whole
from sacroleak.inference.report_page import index_page
from sacroleak.inference.run_record import Outcome, RunFacts, RunSpan, run_record
from sacroleak.inference.score_one import Clock, Engine, Stopwatch, score_one
from sacroleak.inference.tables import Failure, write_tables
from sacroleak.inference.write import CASES, PREVIEW, finished_report, write_case

INDEX, RUN = "index.html", "run.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """How a run goes. Time comes from outside: `now` for the record, `clock` (seconds) for durations.

    `force` scores again what is there already. `tell` is called after each source.
    """

    facts: RunFacts
    now: Callable[[], datetime]
    clock: Clock
    force: bool = False
    tell: Callable[[Outcome], None] = lambda _: None


@dataclass(slots=True, kw_only=True)
class RunSummary:
    """All outcomes of a run so far. `damaged`: case folders of earlier runs that hold no readable report.

    `finished` is False if the run was ended before its last source.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    damaged: list[Failure] = field(default_factory=list)
    finished: bool = False

    @property
    def failures(self) -> list[Failure]:
        """Every row of failures.csv: the refused sources in order, then damaged case folders."""
        return [outcome.failure for outcome in self.outcomes if outcome.failure is not None] + self.damaged


def score_many(sources: Iterable[Source], out: Path, engine: Engine, plan: RunPlan) -> RunSummary:
    """Score every source into `out`; tables, index page and run record are written even if the run is ended early.

    A case whose report holds the same input, bundle and config digests is kept as it is unless the
    plan says to force. Raises InputError if `out` cannot be written to or another run writes there now.
    """
    cases = _prepare(out)
    summary, begin = RunSummary(), plan.clock()
    with _alone(out):
        remove_leftovers(out)
        remove_leftovers(cases)
        started = plan.now()
        try:
            for source in sources:
                outcome = _score(source, cases, engine, plan)
                summary.outcomes.append(outcome)
                plan.tell(outcome)
            summary.finished = True
        finally:
            _conclude(out, summary)
            span = RunSpan(started=started, ended=plan.now(), total_s=plan.clock() - begin, finished=summary.finished)
            record = run_record(engine, plan.facts, span=span, outcomes=summary.outcomes)
            write_whole(out / RUN, record)
    return summary


def _score(source: Source, cases: Path, engine: Engine, plan: RunPlan) -> Outcome:
    watch = Stopwatch(clock=plan.clock)
    place = str(source.input_path)
    stage = "find" if source.kind == "refused" else "read"
    try:
        with watch.stage("read"):
            ct = read(source)
            digest = input_digest(ct)
        stage = "score"
        kept = None if plan.force else _kept(cases / source.case_id, digest, engine)
        if kept is not None:
            return Outcome(case_id=source.case_id, input=place, what="kept", seconds=watch.seconds, report=kept)
        scored = score_one(ct, engine.ref(source.case_id, digest), engine, now=plan.now(), watch=watch)
        stage = "write"
        with watch.stage("write"):
            write_case(cases, scored, ct.geometry, label_images=engine.outputs.label_images)
    except SacroleakError as error:
        reason = str(error)
    except MemoryError:
        reason = "not enough memory for this scan"
    except OSError as error:
        reason = f"the file system refuses: {error.strerror or type(error).__name__}"
    except Exception as error:  # one scan that breaks the program must not stop the others
        if engine.debug:
            raise
        reason = f"unexpected fault, {type(error).__name__}: this is an error in the software; --debug shows where"
    else:
        return Outcome(case_id=source.case_id, input=place, what="scored", seconds=watch.seconds, report=scored.report)
    failure = Failure(case_id=source.case_id, input=place, reason=reason, stage=stage)
    return Outcome(case_id=source.case_id, input=place, what="refused", seconds=watch.seconds, failure=failure)


def _kept(folder: Path, digest: str, engine: Engine) -> Report | None:
    """The report in `folder` if it is this scan's, by this bundle and configuration.

    Raises InputError if it is another scan's: overwriting it in silence would lose a result.
    """
    report = finished_report(folder)
    if report is None:
        return None
    if report.provenance.get("input_digest") != digest:
        raise InputError(f"{folder.name} already holds the result of another scan in this output folder; "
                         "give another case_id or --out, or --force to replace it")
    wanted = {"bundle_digest": engine.bundle_digest, "config_digest": engine.config_digest, "version": engine.version}
    same = all(report.provenance.get(key) == value for key, value in wanted.items())
    return report if same else None


def _conclude(out: Path, summary: RunSummary) -> None:
    """Tables and index of all reports in `out`, except those whose scan this run refused."""
    refused = {failure.case_id for failure in summary.failures}
    reports: list[Report] = []
    for folder in sorted((out / CASES).iterdir()):
        if folder.name.startswith(".") or folder.name in refused or not folder.is_dir():
            continue
        report = finished_report(folder)
        if report is None:
            reason = "the case folder holds no readable report; score the scan again"
            summary.damaged.append(Failure(case_id=folder.name, input="", reason=reason, stage="find"))
        else:
            reports.append(report)
    write_tables(out, reports, summary.failures)
    previews = {report.case_id for report in reports if (out / CASES / report.case_id / PREVIEW).is_file()}
    write_whole(out / INDEX, index_page(reports, summary.failures, previews=previews).encode())


def _prepare(out: Path) -> Path:
    cases = out / CASES
    try:
        cases.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be used as a folder: {error.strerror}") from error
    if not os.access(out, os.W_OK) or not os.access(cases, os.W_OK):
        raise InputError(f"--out {out}: may not be written to")
    return cases


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold `out` for this process; the system lets go of it when the process ends, however it ends."""
    handle = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise InputError(f"--out {out}: another run is writing there; wait for it, or give another folder") from error
    finally:
        os.close(handle)
