"""One scan of a run, from its files to its case folder: read, networks, attribution, writing. Nothing it raises gets
out; what became of it is an Attempt."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sacroleak.core.errors import InputError, SacroleakError
from sacroleak.core.read import input_digest, read
from sacroleak.core.report import Report
from sacroleak.core.sources import Source
from sacroleak.inference.run_record import Outcome
from sacroleak.inference.score_one import Clock, Engine, Stopwatch, score_one
from sacroleak.inference.tables import Failure
from sacroleak.inference.write import finished_report, write_case
from sacroleak.models.assess import ScanRef

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all scans of a run have in common; it is sent to every process once. `cases` is where results go.

    `force` scores again what is there already. Time comes from outside: `now` for the record, `clock` (seconds) for
    durations; both must be picklable if processes are used.
    """

    cases: Path
    engine: Engine
    now: Callable[[], datetime]
    clock: Clock
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One source and its place among the sources of the run."""

    number: int
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What became of one try. `again`: another try may end better. `full`: it failed only because the disk is full."""

    outcome: Outcome
    again: bool = False
    full: bool = False


def attempt(job: Job, setup: Setup, watch: Stopwatch) -> Attempt:
    """Score one source. With the engine's `debug`, a fault of the software is raised."""
    source, engine = job.source, setup.engine
    again = full = False
    try:
        with watch.stage("read"):
            ct = read(source)
            digest = input_digest(ct)
        ref = engine.ref(source.case_id, digest, source.needles)
        kept, redone = (None, "") if setup.force else _finished(setup.cases / source.case_id, ref)
        if kept is not None:
            return Attempt(outcome=_outcome(job, watch, report=kept, what="kept"))
        scored = score_one(ct, ref, engine, now=setup.now(), watch=watch)
        with watch.stage("write"):
            write_case(setup.cases, scored, ct.geometry, label_images=engine.outputs.label_images)
    except SacroleakError as error:
        reason = str(error)
    except MemoryError:
        reason, again = "not enough memory for this scan", True
    except OSError as error:
        reason, again = f"the file system refuses: {error.strerror or type(error).__name__}", True
        full = error.errno in FULL_DISK
    except Exception as error:  # one scan that breaks the program must not stop the others
        if engine.debug:
            raise
        reason = f"unexpected fault, {type(error).__name__}: this is an error in the software; --debug shows where"
        again = True
    else:
        return Attempt(outcome=_outcome(job, watch, report=scored.report, what="scored", redone=redone))
    return Attempt(outcome=refused(job, reason, stage_of(watch.last), seconds=watch.seconds), again=again, full=full)


def refused(job: Job, reason: str, stage: str, *, seconds: dict[str, float] | None = None) -> Outcome:
    """The outcome of a source that has no result."""
    place = str(job.source.input_path)
    failure = Failure(case_id=job.source.case_id, input=place, reason=reason, stage=stage)
    return Outcome(number=job.number, case_id=job.source.case_id, input=place, what="refused", seconds=seconds or {},
                   failure=failure)


def refused_already(job: Job) -> Outcome:
    """The outcome of a source that was no scan when it was found."""
    return refused(job, job.source.reason, "find")


def stage_of(entered: str) -> str:
    """The stage as failures.csv names it."""
    return entered if entered in ("read", "write") else "score"


def _outcome(job: Job, watch: Stopwatch, *, report: Report, what: str, redone: str = "") -> Outcome:
    return Outcome(number=job.number, case_id=job.source.case_id, input=str(job.source.input_path),
                   what="kept" if what == "kept" else "scored", seconds=watch.seconds, report=report, redone=redone)


def _finished(folder: Path, ref: ScanRef) -> tuple[Report | None, str]:
    """The report in `folder` if it is this scan's, from what `ref` says; else what changed since.

    Raises InputError if it is another scan's: overwriting it in silence would lose a result.
    """
    report = finished_report(folder)
    if report is None:
        return None, ""
    if report.provenance.get("input_digest") != ref.input_digest:
        raise InputError(f"{folder.name} already holds the result of another scan in this output folder; "
                         "give another case_id or --out, or --force to replace it")
    wanted = (("model", "bundle_digest", ref.bundle_digest), ("version", "version", ref.version),
              ("configuration", "config_digest", ref.config_digest),
              ("needle evidence", "needles_digest", ref.needles_digest))
    # A report of a scan whose needles nothing is known of says nothing of them.
    changed = [name for name, key, value in wanted if report.provenance.get(key, "") != value]
    return (None, ", ".join(changed)) if changed else (report, "")
