"""The same run on a Dask cluster that is there already: one task a scan, the same stages, results on a shared disk.

Only the extra `cluster` brings Dask. A worker that dies loses nothing: Dask gives its tasks to another one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from threading import Lock, Timer
from typing import TYPE_CHECKING, Any

from sacroleak.core.errors import InputError, SacroleakError
from sacroleak.inference.disk import Room
from sacroleak.inference.feed import Feed
from sacroleak.inference.pool import TRIES, ScanLimits
from sacroleak.inference.run_record import Outcome
from sacroleak.inference.scan_job import Attempt, Job, Setup, attempt, refused, refused_already
from sacroleak.inference.score_one import SEGMENT, WAITING, Clock, Stopwatch

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_S = 20
QUEUED = 2
"""Tasks sent for each thread of the cluster: one at work, one waiting."""


@dataclass(slots=True, kw_only=True)
class _Loaded:
    """The setup of a run in a worker process of the cluster; its networks are loaded once, behind `gate`."""

    setup: Setup
    gate: Lock


_loaded: dict[str, _Loaded] = {}
_loading = Lock()


def run_on_cluster(feed: Feed, setup: Setup, address: str, *, limits: ScanLimits, room: Room) -> Iterator[Outcome]:
    """Outcomes as they come from the cluster whose scheduler is at `address` (`tcp://host:8786`).

    Its workers must see inputs and results under the same paths and have this software installed. Raises InputError
    if Dask is not installed or nobody answers at the address.
    """
    client = _connect(address)
    try:
        yield from _Cluster(client, setup, limits=limits, room=room).run(feed)
    finally:
        client.close()


class _Cluster:
    def __init__(self, client: Client, setup: Setup, *, limits: ScanLimits, room: Room) -> None:
        from distributed import as_completed

        self._client, self._setup, self._limits, self._room = client, setup, limits, room
        self._done = as_completed(loop=client.loop, raise_errors=False)
        self._jobs: dict[str, tuple[Job, int]] = {}
        self._taken = 0

    def run(self, feed: Feed) -> Iterator[Outcome]:
        while True:
            yield from self._hand_out(feed)
            if self._jobs:
                yield from self._take_in(next(self._done))
            elif feed.over or self._room.full:
                return
            else:
                wait([feed.bell], timeout=1.0)

    def _hand_out(self, feed: Feed) -> Iterator[Outcome]:
        threads = sum(self._client.nthreads().values())
        while not feed.over and len(self._jobs) < QUEUED * max(1, threads) and self._room.enough(len(self._jobs)):
            source = feed.take()
            if source is None:
                return
            job = Job(number=self._taken, source=source)
            self._taken += 1
            if source.kind == "refused":
                yield refused_already(job)
            else:
                self._send(job, 1)

    def _send(self, job: Job, number: int) -> None:
        key = f"sacroleak-{job.number}-{number}"
        future = self._client.submit(score_remotely, job, self._setup, self._limits.time_s, key=key, pure=False)
        self._jobs[future.key] = (job, number)
        self._done.add(future)

    def _take_in(self, future: Future[Any]) -> Iterator[Outcome]:
        job, number = self._jobs.pop(future.key)
        error = future.exception()
        if isinstance(error, SacroleakError):
            raise error
        if error is not None:
            yield refused(job, f"{_why(error)} (limit {self._limits.time_s:g} s)", "score")
            return
        done: Attempt = future.result()
        if done.full:
            self._room.full = True
        elif done.again and number < TRIES:
            self._send(job, number + 1)
        else:
            yield done.outcome


def score_remotely(job: Job, setup: Setup, time_limit_s: float) -> Attempt:
    """One task: score one scan in a worker of the cluster, whose process is ended if that takes too long."""
    loaded = _here(setup)
    limit = _Limit(time_limit_s, loaded.setup.clock)
    try:
        watch = Stopwatch(clock=loaded.setup.clock, gates={SEGMENT: loaded.gate}, entered=limit.entered)
        return attempt(job, loaded.setup, watch)
    finally:
        limit.stop()


class _Limit:
    """Ends this process when one scan has worked for longer than `time_s`; Dask starts another, or has others."""

    def __init__(self, time_s: float, clock: Clock) -> None:
        self._left, self._clock, self._since = time_s, clock, 0.0
        self._timer: Timer | None = None

    def entered(self, stage: str) -> None:
        """A stage begins; waiting is no work."""
        self.stop()
        if stage != WAITING:
            self._since = self._clock()
            self._timer = Timer(max(self._left, 0.0), os.kill, (os.getpid(), signal.SIGKILL))
            self._timer.daemon = True
            self._timer.start()

    def stop(self) -> None:
        """The scan is done, or waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._left -= self._clock() - self._since
            self._timer = None


def _here(setup: Setup) -> _Loaded:
    """The setup of this run in this process; the networks of another run are let go."""
    engine = setup.engine
    # The limits are named too: the configuration's digest leaves out how needles are weighed.
    key = (f"{setup.cases} {engine.bundle_digest} {engine.config_digest} {engine.version} {setup.force} "
           f"{engine.limits.model_dump_json()}")
    with _loading:
        if key not in _loaded:
            setup.engine.warm()
            _loaded.clear()
            _loaded[key] = _Loaded(setup=setup, gate=Lock())
        return _loaded[key]


def _why(error: BaseException) -> str:
    if type(error).__name__ == "KilledWorker":
        return "the processes of the cluster that scored it ended, in every try: a crash, too little memory, or time"
    return f"unexpected fault on the cluster, {type(error).__name__}"


def _connect(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--scheduler: Dask is not installed; pip install 'sacroleak[cluster]'") from None
    try:
        return Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"--scheduler {address}: no Dask scheduler answers there; wanted tcp://HOST:PORT") from error
