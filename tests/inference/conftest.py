"""The phantom, a segmenter that knows it, and a run over it, for the tests of scoring."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.util import module_from_spec, spec_from_file_location
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sacroleak.inference.batch import RunPlan, RunSummary, score_many
from sacroleak.inference.config import Outputs, config_digest, load_limits
from sacroleak.inference.crew import CrewWish
from sacroleak.inference.run_record import RunFacts
from sacroleak.inference.score_one import Engine
from sacroleak.models.effort import Effort

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

Run = Callable[..., RunSummary]


@pytest.fixture(scope="session")
def phantom() -> ModuleType:
    name = "sacroleak_test_phantom"
    if name not in sys.modules:
        spec = spec_from_file_location(name, Path(__file__).parent / "phantom.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def shared_phantom(phantom: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The phantom, so that processes which the test starts find it under the same name."""
    place = tmp_path / "modules"
    place.mkdir()
    (place / f"{phantom.__name__}.py").symlink_to(Path(__file__).parent / "phantom.py")
    monkeypatch.syspath_prepend(place)
    return phantom


@pytest.fixture
def make_engine(phantom: ModuleType) -> Callable[..., Engine]:
    """An engine around a fresh KnowingSegmenter; no preview unless asked for."""

    def make(*, preview: bool = False, label_images: bool = False, **changes: Any) -> Engine:
        outputs, limits = Outputs(label_images=label_images, preview=preview), load_limits()
        values: dict[str, Any] = {
            "segmenter": phantom.KnowingSegmenter(), "limits": limits, "outputs": outputs, "version": "1.2.3",
            "bundle": "known 1", "bundle_digest": "b" * 64,
            "config_digest": config_digest(limits, outputs, Effort.STANDARD),
        }
        return Engine(**(values | changes))

    return make


@pytest.fixture
def run() -> Run:
    """Score paths into a folder in this process, at a fixed time and with a clock that ticks once a look."""

    def go(inputs: Iterable[Path], out: Path, engine: Engine, **changes: Any) -> RunSummary:
        paths, ticks = list(inputs), count()
        values: dict[str, Any] = {
            "facts": RunFacts(inputs=[str(path) for path in paths], mode="full"), "now": lambda: NOW,
            "clock": lambda: float(next(ticks)), "wish": CrewWish(workers=0),
        }
        return score_many(paths, out, engine, RunPlan(**(values | changes)))

    return go
