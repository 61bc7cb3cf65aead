"""Processes of their own for long work of this room. They end with the one that began them, however that ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Started anew, because a fork of a process with threads may stand still; an error drops what has not begun."""
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_end_with_the_first)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_the_first() -> None:
    """A process that was killed cannot tell its workers, and each of them holds networks or a scan."""
    Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
    first = parent_process()
    if first is not None:
        first.join()
        os._exit(1)
