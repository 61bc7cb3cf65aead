"""Sources, found ahead of the scans that are being scored, and not farther ahead than a bounded queue allows."""

from __future__ import annotations

import queue
import shutil
from collections import Counter
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType

from sacroleak.core.sources import Source


class Feed:
    """Draws from `sources` in a thread of its own, at most `ahead` of them in advance. Use it as a context.

    `bell` becomes readable when there is something to take, so that one wait covers sources and processes.
    """

    def __init__(self, sources: Iterator[Source], *, ahead: int) -> None:
        self._sources, self._queue = sources, queue.Queue[Source | Exception | None](maxsize=ahead)
        self.bell, self._rope = Pipe(duplex=False)
        self._closed = Event()
        self._thread = Thread(target=self._draw, name="sources", daemon=True)
        self.over = False

    def __enter__(self) -> Feed:
        """Begin to look for sources."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Stop looking; a source that is being looked at is not waited for."""
        self._closed.set()

    def take(self) -> Source | None:
        """The next source, None if none is ready; `over` says that none will come. Raises what finding raised."""
        try:
            item = self._queue.get_nowait()
        except queue.Empty:
            return None
        self.bell.recv_bytes()
        if isinstance(item, Source):
            return item
        self.over = True
        if item is not None:
            raise item
        return None

    def _draw(self) -> None:
        last: Exception | None = None
        try:
            for source in self._sources:
                if not self._put(source):
                    return
        except Exception as error:  # noqa: BLE001 - raised again where the source is taken
            last = error
        self._put(last)

    def _put(self, item: Source | Exception | None) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.5)
            except queue.Full:
                continue
            self._rope.send_bytes(b".")
            return True
        return False


class Unpacked:
    """Removes what was unpacked from a zip file when its last scan is done and the next input was begun.

    Sources are taken in one thread and done in another.
    """

    def __init__(self) -> None:
        self._open: Counter[Path] = Counter()
        self._latest: Path | None = None
        self._lock = Lock()

    def taken(self, source: Source) -> None:
        """A source was given out."""
        with self._lock:
            before, self._latest = self._latest, source.unpacked
            if source.unpacked is not None:
                self._open[source.unpacked] += 1
            if before is not None and before != self._latest:
                self._sweep(before)

    def done(self, source: Source) -> None:
        """A source is finished with."""
        if source.unpacked is None:
            return
        with self._lock:
            self._open[source.unpacked] -= 1
            if source.unpacked != self._latest:
                self._sweep(source.unpacked)

    def _sweep(self, folder: Path) -> None:
        if self._open[folder] <= 0:
            del self._open[folder]
            shutil.rmtree(folder, ignore_errors=True)
