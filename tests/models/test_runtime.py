"""What networks calculate in: bfloat16 only where the processor says it has it, and nearly the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sacroleak.models import runtime
from sacroleak.models.bundle import default_bundle
from sacroleak.models.effort import Effort, precision_of
from sacroleak.models.runtime import OpenVinoNetwork, quickest


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    quickest.cache_clear()
    yield
    quickest.cache_clear()


@pytest.mark.parametrize(("flags", "wanted"), [
    ("fpu avx2 avx512f avx512_bf16 amx_tile", "bf16"), ("fpu amx_bf16", "bf16"), ("fpu avx2 avx512f", "f32")])
def test_a_processor_with_native_bfloat16_uses_it(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, wanted: str) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: some\nflags\t\t: {flags}\n")
    monkeypatch.setattr(runtime, "CPU_FLAGS", tmp_path / "cpuinfo")
    assert precision_of(Effort.FAST) == precision_of(Effort.STANDARD) == wanted
    assert precision_of(Effort.CAREFUL) == "f32"


def test_an_unknown_processor_gets_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "CPU_FLAGS", tmp_path / "none")
    assert quickest() == "f32"


def test_both_precisions_say_nearly_the_same() -> None:
    channels = np.random.default_rng(3).uniform(-1, 1, size=(2, 32, 32, 32)).astype(np.float32)
    path = default_bundle().network_path("near")
    exact, short = (OpenVinoNetwork(path, threads=1, precision=p)(channels) for p in ("f32", "bf16"))
    if quickest() == "bf16":
        assert not np.array_equal(exact, short), "otherwise the choice has no effect"
    assert np.abs(exact - short).mean() < 0.01
