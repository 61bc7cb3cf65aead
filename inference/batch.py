"""Many scans: one that fails costs only itself, and a run that was ended, however it was, can be taken up again."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from threading import Thread

from sacroleak.core.errors import InputError
from sacroleak.core.report import Report
from sacroleak.core.sources import Source, discover
from sacroleak.core.whole import PART_PREFIX, remove_leftovers, write_whole
from sacroleak.inference.crew import (
    Crew,
    CrewWish,
    available_mib,
    crew_for,
    most_workers,
    peek,
    usable_cores,
)
from sacroleak.inference.dask_cluster import run_on_cluster
from sacroleak.inference.disk import Room, free_bytes
from sacroleak.inference.feed import Feed, Unpacked
from sacroleak.inference.pool import Pool, ScanLimits
from sacroleak.inference.report_page import index_page
from sacroleak.inference.run_record import Outcome, RunFacts, RunSpan, own_peak_mib, run_record
from sacroleak.inference.scan_job import FULL_DISK, Job, Setup, attempt, refused_already
from sacroleak.inference.score_one import Clock, Engine, Stopwatch
from sacroleak.inference.tables import Failure, write_tables
from sacroleak.inference.write import CASES, PREVIEW, finished_report

INDEX, RUN = "index.html", "run.json"
TIME_LIMIT_S = 900.0
"""A 512x512x300 scan takes seconds; a slow machine under load a few minutes."""
AHEAD_ON_CLUSTER = 8
THREADS_ON_CLUSTER = 1
"""A Dask worker has a thread for each core, and each of them scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """How a run goes. Time comes from outside: `now` for the record, `clock` (seconds) for durations.

    `force` scores again what is there already. `tell` is called after each source, with how far into the input the
    run has looked (`Source.position`). `wish`: processes and threads; `scheduler`: address of a Dask cluster to score
    on instead. `time_limit_s`: of work on one scan. `free` measures the room on the disk.
    """

    facts: RunFacts
    now: Callable[[], datetime]
    clock: Clock
    force: bool = False
    tell: Callable[[Outcome, int], None] = lambda _outcome, _position: None
    wish: CrewWish = field(default_factory=CrewWish)
    scheduler: str | None = None
    time_limit_s: float = TIME_LIMIT_S
    free: Callable[[Path], int] = free_bytes


@dataclass(slots=True, kw_only=True)
class RunSummary:
    """All outcomes of a run so far, without their reports. `damaged`: case folders of earlier runs that hold none.

    `finished` is False if the run was ended before its last source.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    damaged: list[Failure] = field(default_factory=list)
    finished: bool = False

    @property
    def failures(self) -> list[Failure]:
        """Every row of failures.csv: the refused sources in the order of the input, then damaged case folders."""
        return [outcome.failure for outcome in self.outcomes if outcome.failure is not None] + self.damaged


@dataclass(slots=True, kw_only=True)
class _Run:
    """What the parts of one run share. `replaced`: case ids of scans that turned out to be parts of others."""

    out: Path
    plan: RunPlan
    engine: Engine
    room: Room
    facts: RunFacts
    position: int = 0
    replaced: set[str] = field(default_factory=set)
    taken: list[Source | None] = field(default_factory=list)
    unpacked: Unpacked = field(default_factory=Unpacked)
    peak_mib: int = 0

    def watched(self, sources: Iterable[Source]) -> Iterator[Source]:
        """`sources`, noting what is needed of each until it is finished with."""
        for source in sources:
            self.position = source.position
            self.replaced.update(source.replaces)
            self.taken.append(source if source.unpacked is not None else None)
            self.unpacked.taken(source)
            yield source

    def done(self, number: int) -> None:
        """The source of this number is finished with."""
        source, self.taken[number] = self.taken[number], None
        if source is not None:
            self.unpacked.done(source)


def score_many(paths: Iterable[Path], out: Path, engine: Engine, plan: RunPlan) -> RunSummary:
    """Score every scan at `paths` (see `discover`) into `out`.

    Tables, index page and run record are written even if the run is ended early. A case whose report holds the same
    input, bundle and config digests is kept as it is unless the plan says to force. Raises InputError if `out` cannot
    be written to or another run writes there now, FullDiskError if the disk is full, ModelError if the networks
    cannot be loaded. With the engine's `debug`, everything happens in this process.
    """
    cases = _prepare(out)
    summary, begin = RunSummary(), plan.clock()
    room = Room(out=out, free=plan.free)
    with _alone(out), _scratch(out) as scratch:
        remove_leftovers(cases)
        room.reserve()
        run = _Run(out=out, plan=plan, engine=engine, room=room, facts=plan.facts)
        started = plan.now()
        _record(run, summary, started=started, begin=begin)  # says from the start that the tables are not this run's
        try:
            with closing(_outcomes(run, discover(paths, scratch=scratch))) as outcomes:
                for outcome in outcomes:
                    _note(run, summary, outcome)
            summary.finished = not room.full
        finally:
            room.release()
            _finish(run, summary, started=started, begin=begin)
        if room.full:
            raise room.error(sum(outcome.failure is None for outcome in summary.outcomes))
    return summary


def _note(run: _Run, summary: RunSummary, outcome: Outcome) -> None:
    run.done(outcome.number)
    if outcome.what == "scored":
        run.room.saw(run.out / CASES / outcome.case_id)
    run.plan.tell(outcome, run.position)
    summary.outcomes.append(replace(outcome, report=None))


def _finish(run: _Run, summary: RunSummary, *, started: datetime, begin: float) -> None:
    """Tables and record; what turned out to be part of another scan leaves them."""
    summary.outcomes = sorted((outcome for outcome in summary.outcomes if outcome.case_id not in run.replaced),
                              key=lambda outcome: outcome.number)
    for case_id in run.replaced:
        shutil.rmtree(run.out / CASES / case_id, ignore_errors=True)
    remove_leftovers(run.out / CASES)  # of processes that were ended while they wrote
    try:
        _conclude(run.out, summary)
        _record(run, summary, started=started, begin=begin)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        run.room.full = True


def _outcomes(run: _Run, sources: Iterator[Source]) -> Generator[Outcome, None, None]:
    """The outcomes of all sources as they come, from this process, others, or a cluster."""
    plan = run.plan
    setup = Setup(cases=run.out / CASES, engine=run.engine, now=plan.now, clock=plan.clock, force=plan.force)
    if plan.scheduler is not None:
        threads = plan.wish.threads or THREADS_ON_CLUSTER
        run.facts = replace(plan.facts, scheduler=plan.scheduler, threads=threads)
        setup = replace(setup, engine=run.engine.with_threads(threads))
        limits = ScanLimits(time_s=plan.time_limit_s, memory_mib=0)
        with Feed(run.watched(sources), ahead=AHEAD_ON_CLUSTER) as feed:
            yield from run_on_cluster(feed, setup, plan.scheduler, limits=limits, room=run.room)
        return
    first, crew = _crew(run, sources)
    setup = replace(setup, engine=run.engine.with_threads(crew.threads))
    run.facts = replace(plan.facts, workers=crew.workers, threads=crew.threads)
    watched = run.watched(chain(first, sources))
    if crew.workers == 0:
        yield from _one_by_one(watched, setup, run.room)
        return
    limits = ScanLimits(time_s=plan.time_limit_s, memory_mib=crew.memory_mib)
    pool = Pool(setup, count=crew.workers, limits=limits, room=run.room)
    with Feed(watched, ahead=crew.workers) as feed:
        for outcome in pool.run(feed):
            run.peak_mib = pool.peak_mib
            yield outcome


def _crew(run: _Run, sources: Iterator[Source]) -> tuple[list[Source], Crew]:
    wish = replace(run.plan.wish, workers=0) if run.engine.debug else run.plan.wish
    cores, memory = usable_cores(), available_mib()
    most = most_workers(wish, cores=cores, memory_mib=memory)
    first = list(islice(sources, peek(most)))
    return first, crew_for(first, most, wish, cores=cores, memory_mib=memory)


def _one_by_one(sources: Iterator[Source], setup: Setup, room: Room) -> Iterator[Outcome]:
    """Everything in this process, one scan after the other; a fault is tried once more too."""
    for number, source in enumerate(sources):
        job = Job(number=number, source=source)
        if source.kind == "refused":
            yield refused_already(job)
            continue
        if not room.enough(0):
            return
        if setup.force or not (setup.cases / source.case_id).exists():
            Thread(target=_warm, args=(setup.engine,), name="warm").start()
        done = attempt(job, setup, Stopwatch(clock=setup.clock))
        if done.again and not done.full:
            done = attempt(job, setup, Stopwatch(clock=setup.clock))
        if done.full:
            room.full = True
            return
        yield done.outcome


def _warm(engine: Engine) -> None:
    """Load the networks, if they are not, while the scan is read."""
    with suppress(Exception):  # raised again where they are used
        engine.warm()


def _record(run: _Run, summary: RunSummary, *, started: datetime, begin: float) -> None:
    lead = own_peak_mib()
    span = RunSpan(started=started, ended=run.plan.now(), total_s=run.plan.clock() - begin, finished=summary.finished,
                   peak_mib=run.peak_mib or lead, lead_mib=lead)
    write_whole(run.out / RUN, run_record(run.engine, run.facts, span=span, outcomes=summary.outcomes))


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


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """Where zip files are unpacked: in `out`, under a name that the next run removes if this one is killed."""
    remove_leftovers(out)
    folder = Path(tempfile.mkdtemp(prefix=f"{PART_PREFIX}unpacked-", dir=out))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
