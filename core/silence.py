"""Silence of the libraries that read files: their warnings and log lines quote header values, which may be patient
text."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Lock

_TALKATIVE = ("nibabel.global", "pydicom", "openjpeg", "pylibjpeg")


class Shared:
    """A context of the whole process that threads share: `opened` is entered with the first of them and left with the
    last. If each put back what it had found, one that is done would undo it for those that still read.
    """

    def __init__(self, opened: Callable[[], AbstractContextManager[None]]) -> None:
        self._opened, self._lock, self._within, self._open = opened, Lock(), 0, ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """For one thread's work; may be entered again within."""
        with self._lock:
            if self._within == 0:
                self._open.enter_context(self._opened())
            self._within += 1
        try:
            yield
        finally:
            with self._lock:
                self._within -= 1
                if self._within == 0:
                    self._open.close()


@contextmanager
def _silence() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [(logger.propagate, logger.handlers) for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.propagate, logger.handlers = False, [logging.NullHandler()]
        try:
            yield
        finally:
            for logger, (propagate, handlers) in zip(loggers, before, strict=True):
                logger.propagate, logger.handlers = propagate, handlers


silent = Shared(_silence)
"""While any thread is within, none of these libraries says anything."""
