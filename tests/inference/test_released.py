"""The networks of a release are loaded once, by whoever needs them first, and never sent along."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any

import pytest

from sacroleak.inference.batch import RunSummary
from sacroleak.inference.released import ReleasedSegmenter
from sacroleak.inference.score_one import Engine
from sacroleak.models import networks
from sacroleak.models.bundle import default_bundle
from sacroleak.models.effort import Effort

MakeEngine = Callable[..., Engine]
Run = Callable[..., RunSummary]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was loaded, instead of loading it."""
    made: list[dict[str, Any]] = []

    def load(bundle: object, **settings: Any) -> object:
        made.append({"bundle": bundle, **settings})
        return object()

    monkeypatch.setattr(networks, "load_segmenter", load)
    return made


def test_several_threads_load_it_once(loads: list[dict[str, Any]]) -> None:
    segmenter = ReleasedSegmenter(default_bundle(), threads=2)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: segmenter.load(), range(32)))
    assert len(loads) == 1
    assert len(set(map(id, found))) == 1


def test_it_is_sent_with_all_it_was_told_and_not_loaded(loads: list[dict[str, Any]]) -> None:
    segmenter = ReleasedSegmenter(default_bundle(), threads=3, effort=Effort.CAREFUL, device="cuda:1")
    segmenter.load()
    ForkingPickler.dumps(segmenter)
    sent = copy.copy(segmenter)  # by the same way
    sent.load()
    assert loads[0] == loads[1]
    assert loads[1] == {"bundle": segmenter.bundle, "threads": 3, "effort": Effort.CAREFUL, "device": "cuda:1"}


def test_networks_are_loaded_beside_reading_and_not_for_what_is_kept(tmp_path: Path, phantom: ModuleType,
                                                                     make_engine: MakeEngine, run: Run) -> None:
    class Late(phantom.KnowingSegmenter):  # type: ignore[misc, name-defined]
        """Says when it was loaded."""

        def __init__(self) -> None:
            super().__init__()
            self.loaded = Event()

        def load(self) -> None:
            self.loaded.set()

        def segment(self, ct: Any) -> Any:
            assert self.loaded.wait(60), "nobody had it loaded"
            return super().segment(ct)

    scan, out = phantom.write_scan(tmp_path / "a.nii.gz"), tmp_path / "out"
    assert [outcome.what for outcome in run([scan], out, make_engine(segmenter=Late())).outcomes] == ["scored"]
    idle = Late()
    assert [outcome.what for outcome in run([scan], out, make_engine(segmenter=idle)).outcomes] == ["kept"]
    assert not idle.loaded.is_set()
