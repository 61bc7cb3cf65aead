"""Processes of their own for long work of this room. They end with the one that began them, however that ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Started anew, because a fork of a process with threads may stand still; an error drops what has not begun."""
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_end_with_the_first)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def as_they_end(work: Callable[[Item], Answer], items: Sequence[Item], *, workers: int) -> Iterator[Answer]:
    """The answers for all items, each as soon as it is there; in this process where one worker is enough."""
    if workers <= 1 or len(items) <= 1:
        yield from map(work, items)
        return
    with processes(min(workers, len(items))) as pool:
        for done in as_completed([pool.submit(work, item) for item in items]):
            yield done.result()


def _end_with_the_first() -> None:
    """A process that was killed cannot tell its workers, and each of them holds networks or a scan."""
    Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
    first = parent_process()
    if first is not None:
        first.join()
        os._exit(1)
