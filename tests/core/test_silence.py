"""No library speaks while any thread reads, whoever is done first."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from sacroleak.core.silence import Shared, silent

TALKATIVE = ("nibabel.global", "pydicom", "openjpeg", "pylibjpeg")


def speak() -> None:
    """As a library does that finds an odd value."""
    for name in TALKATIVE:
        logging.getLogger(name).error("SMITH^A")
    warnings.warn("SMITH^A", stacklevel=1)


def test_one_that_is_done_first_does_not_let_them_speak_of_what_another_reads(
        capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    begun, done = Event(), Event()

    def reads_for_long() -> None:
        with silent():
            begun.set()
            assert done.wait(30)
            speak()

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        long = Thread(target=reads_for_long)
        with silent():
            long.start()
            assert begun.wait(30)
        done.set()
        long.join(30)
        assert not long.is_alive()
        assert not told
        assert "SMITH" not in caplog.text + "".join(capfd.readouterr())
        speak()
        assert len(told) == 1
        assert caplog.text.count("SMITH") >= 1


@pytest.mark.parametrize("failing", [False, True])
def test_all_is_as_it_was_afterwards(failing: bool) -> None:
    before = [(logging.getLogger(name).propagate, list(logging.getLogger(name).handlers)) for name in TALKATIVE]
    filters = list(warnings.filters)
    for _ in range(2):
        try:
            with silent(), silent():
                assert not any(logging.getLogger(name).propagate for name in TALKATIVE)
                if failing:
                    raise KeyError
        except KeyError:
            assert failing
    after = [(logging.getLogger(name).propagate, list(logging.getLogger(name).handlers)) for name in TALKATIVE]
    assert after == before
    assert list(warnings.filters) == filters


def test_a_shared_context_is_entered_once_and_left_once() -> None:
    seen: list[str] = []

    @contextmanager
    def opened() -> Iterator[None]:
        seen.append("in")
        yield
        seen.append("out")

    shared = Shared(opened)
    with shared():
        with shared():
            assert seen == ["in"]
        assert seen == ["in"]
    with shared():
        pass
    assert seen == ["in", "out", "in", "out"]
