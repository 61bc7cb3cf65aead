"""Processes that score, and what is done about one that hangs, takes too much memory, or dies.

A process has two or more scans at a time (`worker.at_once`), so it is not always known which of them ended it. Then
all are tried again, each alone in its process: the innocent ones pass, and the other is refused when it ends its
process once more.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from sacroleak.core.errors import ModelError
from sacroleak.inference.disk import MIB, Room
from sacroleak.inference.feed import Feed
from sacroleak.inference.run_record import Outcome
from sacroleak.inference.scan_job import Job, Setup, refused, refused_already, stage_of
from sacroleak.inference.score_one import WAITING
from sacroleak.inference.worker import Entered, Finished, Message, Ready, Unfit, at_once, serve

TRIES = 2
STILLBORN = 3
"""So many processes in a row that end before they can take a job mean that none will."""
LOOK_S = 0.25
"""How often time and memory are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanLimits:
    """What one scan may take before its process is ended: seconds of work, and resident memory of its process."""

    time_s: float
    memory_mib: int


@dataclass(slots=True)
class _Try:
    """A job in a process. `since` is None while it waits for its turn."""

    job: Job
    stage: str = "read"
    spent: float = 0.0
    since: float | None = None


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    connection: Connection
    tries: dict[int, _Try] = field(default_factory=dict)
    ready: bool = False
    alone: bool = False
    why: str = ""
    blamed: int | None = None


@dataclass(slots=True)
class _History:
    """What is known of a job that did not end well."""

    failed: int = 0
    last: Outcome | None = None


class Pool:
    """Scores the sources of a feed in `count` processes. `peak_mib` is the most memory one of them has held."""

    def __init__(self, setup: Setup, *, count: int, limits: ScanLimits, room: Room) -> None:
        self._setup, self._count, self._limits, self._room = setup, count, limits, room
        self._clock: Callable[[], float] = setup.clock
        self._workers: list[_Worker] = []
        self._again: deque[Job] = deque()
        self._history: dict[int, _History] = {}
        self._next: Job | None = None
        self._stillborn = self._taken = 0
        self.peak_mib = 0

    def run(self, feed: Feed) -> Iterator[Outcome]:
        """Outcomes as they come. Raises FullDiskError or ModelError when the run cannot go on; what the feed raises."""
        try:
            while True:
                yield from self._hand_out(feed)
                if not self._busy() and (self._room.full or self._through(feed)):
                    break
                yield from self._listen(feed)
                self._judge()
        finally:
            self._end()

    def _through(self, feed: Feed) -> bool:
        return feed.over and not self._again and self._next is None

    def _busy(self) -> int:
        return sum(len(worker.tries) for worker in self._workers)

    def _hand_out(self, feed: Feed) -> Iterator[Outcome]:
        """Give work to whoever has room for it: first what is to be tried again, alone, then new sources."""
        while self._room.enough(self._busy()):
            if self._next is None and not self._again:
                source = None if feed.over else feed.take()
                if source is None:
                    return
                job = Job(number=self._taken, source=source)
                self._taken += 1
                if source.kind == "refused":
                    yield refused_already(job)
                    continue
                self._next = job
            free = self._free()
            if free is None or (self._again and free.tries):
                return  # what is tried again waits for a process that is idle
            if self._again:
                free.alone = True
                self._give(free, self._again.popleft())
            elif self._next is not None:
                self._give(free, self._next)
                self._next = None

    def _free(self) -> _Worker | None:
        """The process with the least to do that has room for a job; a new one if all are busy and more are allowed."""
        most = at_once(self._setup.engine)
        open_ = [worker for worker in self._workers
                 if not worker.alone and not worker.why and len(worker.tries) < most]
        best = min(open_, key=lambda worker: len(worker.tries), default=None)
        if (best is None or best.tries) and len(self._workers) < self._count:
            best = self._start()
        return best if best is not None and best.ready else None

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, self._setup), name="sacroleak-worker", daemon=True)
        process.start()
        theirs.close()  # so that its end is noticed here
        worker = _Worker(process=process, connection=ours)
        self._workers.append(worker)
        return worker

    def _give(self, worker: _Worker, job: Job) -> None:
        worker.tries[job.number] = _Try(job=job, since=self._clock())
        with suppress(OSError):  # it has just ended: noticed when it is listened to
            worker.connection.send(job)

    def _listen(self, feed: Feed) -> Iterator[Outcome]:
        """Wait for a message, an end, or a source, and take in what there is."""
        waiting: list[Connection | int] = [worker.connection for worker in self._workers]
        if not (feed.over or self._next or self._again or self._room.full):
            waiting.append(feed.bell)
        wait(waiting, timeout=LOOK_S)
        for worker in list(self._workers):
            try:
                while worker.connection.poll():
                    yield from self._heard(worker, worker.connection.recv())
            except (EOFError, OSError):
                yield from self._lost(worker)

    def _heard(self, worker: _Worker, message: Message) -> Iterator[Outcome]:
        if isinstance(message, Ready):
            worker.ready, self._stillborn = True, 0
        elif isinstance(message, Unfit):
            raise ModelError(message.reason)
        elif isinstance(message, Entered):
            self._entered(worker.tries[message.number], message.stage)
        else:
            yield from self._finished(worker, message)

    def _entered(self, one: _Try, stage: str) -> None:
        now = self._clock()
        if one.since is not None:
            one.spent += now - one.since
        one.since = None if stage == WAITING else now
        if stage != WAITING:
            one.stage = stage

    def _finished(self, worker: _Worker, message: Finished) -> Iterator[Outcome]:
        job = worker.tries.pop(message.number).job
        worker.alone = False
        self.peak_mib = max(self.peak_mib, message.peak_mib)
        done = message.attempt
        if done.full:
            self._room.full = True
        elif done.again:
            yield from self._once_more(job, done.outcome)
        else:
            self._history.pop(job.number, None)
            yield done.outcome

    def _once_more(self, job: Job, failed: Outcome) -> Iterator[Outcome]:
        history = self._history.setdefault(job.number, _History())
        history.failed += 1
        if history.failed < TRIES:
            self._again.append(job)
        else:
            del self._history[job.number]
            yield failed

    def _lost(self, worker: _Worker) -> Iterator[Outcome]:
        """A process has ended: its scans are tried again, or refused if it is known that they ended it."""
        worker.connection.close()
        worker.process.join()
        self._workers.remove(worker)
        if not worker.ready:
            self._stillborn += 1
            if self._stillborn >= STILLBORN:
                raise ModelError(f"the processes that score end before they begin ({_exit(worker.process)}); "
                                 "--workers 0 --debug shows why")
        why = worker.why or f"the process that scored it ended ({_exit(worker.process)})"
        known = worker.blamed is not None
        for number, one in worker.tries.items():
            if known and number != worker.blamed:
                self._again.append(one.job)  # was only there
            elif known or len(worker.tries) == 1:
                failed = refused(one.job, f"{why}, in each of {TRIES} tries", stage_of(one.stage))
                yield from self._once_more(one.job, failed)
            else:
                self._history.setdefault(number, _History()).failed = 1  # one of them did it
                self._again.append(one.job)

    def _judge(self) -> None:
        """End the processes whose scan takes too long, or that hold too much memory."""
        now = self._clock()
        for worker in self._workers:
            if worker.why:
                continue
            if _resident_mib(worker.process.pid) > self._limits.memory_mib:
                self._kill(worker, f"it needed more than the {self._limits.memory_mib} MiB of memory allowed")
                continue
            for number, one in worker.tries.items():
                if one.since is not None and one.spent + now - one.since > self._limits.time_s:
                    self._kill(worker, f"it took longer than the {self._limits.time_s:g} s allowed", number)
                    break

    def _kill(self, worker: _Worker, why: str, blamed: int | None = None) -> None:
        worker.why, worker.blamed = why, blamed
        worker.process.kill()

    def _end(self) -> None:
        """Let idle processes go, end busy ones."""
        for worker in self._workers:
            if worker.tries:
                worker.process.kill()
            else:
                with suppress(OSError):
                    worker.connection.send(None)
        for worker in self._workers:
            worker.process.join(5.0)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()
        self._workers.clear()


def _exit(process: SpawnProcess) -> str:
    code = process.exitcode or 0
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _resident_mib(pid: int | None) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0  # it has just ended
    return pages * os.sysconf("SC_PAGE_SIZE") // MIB
