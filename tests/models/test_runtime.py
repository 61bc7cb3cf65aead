"""What networks calculate in: bfloat16 or integers only where the processor has them, with nearly the same answers; and
the same answers with however many threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from sacroleak.core.errors import ModelError
from sacroleak.models import runtime
from sacroleak.models.bundle import default_bundle
from sacroleak.models.effort import Effort, precision_of
from sacroleak.models.runtime import OpenVinoNetwork, Precision, quickest

INTEGERS_TOO: tuple[Precision, Precision] = ("f32", "int8")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    quickest.cache_clear()
    yield
    quickest.cache_clear()


@pytest.mark.parametrize(("flags", "wanted"), [
    ("fpu avx2 avx512f avx512_bf16 amx_tile", "bf16"), ("fpu amx_bf16", "bf16"), ("fpu avx2 avx512f", "f32"),
    ("fpu avx512f avx512_vnni", "int8"), ("fpu avx2 avx_vnni", "int8"), ("fpu avx512_vnni avx512_bf16", "bf16")])
def test_a_processor_uses_what_it_multiplies_quickest(
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


@pytest.fixture(scope="module")
def shown() -> list[npt.NDArray[np.float32]]:
    """More inputs than there are threads, of two sizes."""
    rng = np.random.default_rng(4)
    return [rng.uniform(-1, 1, size=(2, 32, 32, side)).astype(np.float32) for side in (32, 48, 32, 48, 32, 32, 48)]


def test_integers_say_nearly_the_same_as_float32_and_a_network_without_ranges_the_same(tmp_path: Path) -> None:
    channels = np.random.default_rng(3).uniform(-1, 1, size=(2, 32, 32, 32)).astype(np.float32)
    path = default_bundle().network_path("near")
    exact, rough = (OpenVinoNetwork(path, threads=1, precision=p)(channels) for p in INTEGERS_TOO)
    assert 0 < np.abs(exact - rough).mean() < 0.02
    silent = onnx.load(path)
    del silent.metadata_props[:]
    (tmp_path / "near.onnx").write_bytes(silent.SerializeToString())
    assert np.array_equal(OpenVinoNetwork(tmp_path / "near.onnx", threads=1, precision="int8")(channels), exact)


def test_a_network_that_says_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    said = onnx.load(default_bundle().network_path("near"))
    said.metadata_props[0].value = "nothing"
    (tmp_path / "near.onnx").write_bytes(said.SerializeToString())
    with pytest.raises(ModelError, match=r"near\.onnx: sacroleak\.ranges: wanted"):
        OpenVinoNetwork(tmp_path / "near.onnx", threads=1, precision="int8")


@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
def test_an_answer_does_not_depend_on_the_threads_nor_on_its_company(
        shown: list[npt.NDArray[np.float32]], precision: Precision) -> None:
    path = default_bundle().network_path("near")
    alone = OpenVinoNetwork(path, threads=1, precision=precision)
    wanted = [alone(one) for one in shown]
    for threads in (1, 2, 3):
        answers = list(OpenVinoNetwork(path, threads=threads, precision=precision).many(shown))
        assert len(answers) == len(wanted)
        assert all(np.array_equal(a, b) for a, b in zip(answers, wanted, strict=True)), "in order, bit for bit"


def test_who_leaves_early_leaves_the_network_usable(shown: list[npt.NDArray[np.float32]]) -> None:
    network = OpenVinoNetwork(default_bundle().network_path("near"), threads=2)
    wanted = network(shown[1])
    answers = network.many(shown)
    next(answers)
    answers.close()
    assert np.array_equal(network(shown[1]), wanted)
    assert len(list(network.many(shown))) == len(shown)


def test_inputs_are_taken_only_as_they_can_be_worked_on(shown: list[npt.NDArray[np.float32]]) -> None:
    taken = []

    def inputs() -> Iterator[npt.NDArray[np.float32]]:
        for number, one in enumerate(shown):
            taken.append(number)
            yield one

    next(OpenVinoNetwork(default_bundle().network_path("near"), threads=1).many(inputs()))
    assert len(taken) <= 3, "one at work, one that waits, and the one in whose place it is"
