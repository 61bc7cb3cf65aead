"""A process that scores: it loads the networks once, and reads the next scan while the last is judged and written."""

from __future__ import annotations

import atexit
import gc
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock, Semaphore

from sacroleak.core.errors import SacroleakError
from sacroleak.inference.run_record import own_peak_mib
from sacroleak.inference.scan_job import Attempt, Job, Setup, attempt
from sacroleak.inference.score_one import SEGMENT, Engine, Stopwatch
from sacroleak.models.runtime import CPU

AT_ONCE, AT_ONCE_ON_CARD = 2, 4
"""Scans in one process. On the CPU the networks work on one while the other is read, judged by the rules, or written; a
third would only wait, and cost its memory. A graphics card answers all but the one that is read or written together."""

FIRST_TO_GO = "500"
"""Of 1000: when the machine runs out of memory, the system ends a process of this kind before the one that leads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The process takes jobs; its networks may still be loading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """The networks cannot be loaded: no other process will fare better."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """A job began a stage."""

    number: int
    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A job is done. `peak_mib` is the most memory this process has held so far."""

    number: int
    attempt: Attempt
    peak_mib: int


Message = Ready | Unfit | Entered | Finished


class _Post:
    """Messages from several threads, one at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, Lock()

    def send(self, message: Message) -> None:
        with self._lock, suppress(BrokenPipeError):  # the run has gone; the end of the pipe will be noticed
            self._connection.send(message)


def at_once(engine: Engine) -> int:
    """How many scans a process has at a time."""
    return AT_ONCE if engine.device == CPU else AT_ONCE_ON_CARD


def serve(connection: Connection, setup: Setup) -> None:
    """Score the jobs that come through `connection` until None comes; end at once if the other end is gone."""
    atexit.register(gc.freeze)  # else Python looks for garbage in all it holds before it ends: 0.5 s
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the process that leads
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)
    post = _Post(connection)
    gate = Semaphore(0)  # opened when the networks are loaded; the first scan is read meanwhile
    with ThreadPoolExecutor(at_once(setup.engine)) as threads:
        threads.submit(_warm, setup, gate, post)
        post.send(Ready())
        while (job := _next(connection)) is not None:
            threads.submit(_work, job, setup, gate, post)


def _next(connection: Connection) -> Job | None:
    try:
        job: Job | None = connection.recv()
    except (EOFError, ConnectionError):
        os._exit(1)  # threads may be in the middle of a scan whose result nobody waits for
    return job


def _warm(setup: Setup, gate: Semaphore, post: _Post) -> None:
    try:
        setup.engine.warm()
    except SacroleakError as error:
        post.send(Unfit(reason=str(error)))
    except Exception as error:  # noqa: BLE001 - told to the process that leads, which stops the run
        post.send(Unfit(reason=f"the networks cannot be loaded: {type(error).__name__}"))
    finally:
        gate.release(at_once(setup.engine) - 1)


def _work(job: Job, setup: Setup, gate: Semaphore, post: _Post) -> None:
    watch = Stopwatch(clock=setup.clock, gates={SEGMENT: gate},
                      entered=lambda stage: post.send(Entered(number=job.number, stage=stage)))
    done = attempt(job, setup, watch)
    post.send(Finished(number=job.number, attempt=done, peak_mib=own_peak_mib()))
