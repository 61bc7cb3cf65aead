"""Sources come in order, never far ahead, and leave nothing unpacked behind."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from sacroleak.core.errors import ManifestError
from sacroleak.core.sources import Source
from sacroleak.inference.feed import Feed, Unpacked


def source(name: str, unpacked: Path | None = None) -> Source:
    return Source(kind="nifti", case_id=name, files=(), input_path=Path(name), unpacked=unpacked)


def taken(feed: Feed) -> Iterator[str]:
    while not feed.over:
        wait([feed.bell])
        one = feed.take()
        if one is not None:
            yield one.case_id


def test_sources_come_in_order_and_only_a_few_are_looked_for_ahead() -> None:
    looked = 0

    def find() -> Iterator[Source]:
        nonlocal looked
        for looked in range(1, 21):
            yield source(str(looked))

    with Feed(find(), ahead=3) as feed:
        for number, name in enumerate(taken(feed), start=1):
            assert name == str(number)
            assert looked <= number + 4, "three wait, and one is in the hand that waits for room"
    assert looked == 20


def test_what_finding_raises_is_raised_where_sources_are_taken() -> None:
    def find() -> Iterator[Source]:
        yield source("a")
        raise ManifestError("row 3")

    with Feed(find(), ahead=3) as feed, pytest.raises(ManifestError, match="row 3"):
        assert list(taken(feed)) == ["a"]


def test_a_feed_that_is_left_early_lets_its_thread_end() -> None:
    with Feed((source(str(n)) for n in range(100)), ahead=1) as feed:
        assert next(taken(feed)) == "0"
    feed._thread.join(10)
    assert not feed._thread.is_alive()


def test_an_unpacked_folder_goes_when_its_last_scan_is_done_and_another_input_was_begun(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    unpacked = Unpacked()
    a, b, c = source("a", first), source("b", first), source("c", second)
    unpacked.taken(a)
    unpacked.done(a)
    assert first.is_dir(), "more of it may come"
    unpacked.taken(b)
    unpacked.taken(c)
    assert first.is_dir()
    unpacked.done(b)
    assert not first.exists()
    unpacked.done(c)
    unpacked.taken(source("d"))
    assert not second.exists()
