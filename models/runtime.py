"""Exported networks on a CPU, through OpenVINO."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from sacroleak.core.errors import ModelError
from sacroleak.models.int8 import to_int8

Field = npt.NDArray[np.float32]
Precision = Literal["f32", "bf16", "int8"]
"""At `int8` convolutions multiply in integers and all else is float32; so is a network whose file says no ranges."""

CPU = "cpu"
"""The device that is always there; any other is a graphics card, see models/graphics.py."""
CPU_FLAGS = Path("/proc/cpuinfo")
"""Where Linux says what a processor can do. The runtime itself offers bfloat16 on processors too that only imitate it,
slower than float32."""
BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})
INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni"})
"""Without these products of 8 bits may overflow."""


class Network(Protocol):
    """(2, i, j, k) channels to (8, i, j, k) probabilities; float32 both."""

    def __call__(self, channels: Field) -> Field:
        """Run the network once."""
        ...


@runtime_checkable
class AnswersMany(Protocol):
    """A network that answers several inputs sooner than one after the other."""

    def many(self, inputs: Iterable[Field]) -> Iterator[Field]:
        """The answers in order."""
        ...


def each(network: Network, inputs: Iterable[Field]) -> Iterator[Field]:
    """The network's answers in order, several at a time where it can."""
    return network.many(inputs) if isinstance(network, AnswersMany) else map(network, inputs)


@cache
def quickest() -> Precision:
    """bfloat16 where the processor multiplies it natively, which takes half the time; else int8 where it does that;
    else, or if unknown, float32.
    """
    try:
        lines = CPU_FLAGS.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return "f32"
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    if not BF16_FLAGS.isdisjoint(flags):
        return "bf16"
    return "f32" if INT8_FLAGS.isdisjoint(flags) else "int8"


def hint_of(precision: Precision) -> str:
    """What the runtime is told: of 8 bits it learns from the network itself."""
    return "f32" if precision == "int8" else precision


class OpenVinoNetwork:
    """One ONNX network, compiled once. Sides of the input must be multiples of 16. One caller at a time.

    Every input is worked on by one thread, as many inputs at a time as there are `threads`: two threads for one input
    would round otherwise than one, and an answer must not depend on how many there are.
    """

    def __init__(self, path: Path, *, threads: int, precision: Precision = "f32") -> None:
        import openvino  # 0.4 s: paid only when a scan is scored

        core = openvino.Core()
        settings = {"INFERENCE_PRECISION_HINT": hint_of(precision), "INFERENCE_NUM_THREADS": threads,
                    "NUM_STREAMS": threads, "ENABLE_CPU_PINNING": False}
        try:
            model = core.read_model(path)
            if precision == "int8":
                to_int8(model)
            compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise ModelError(f"{path.name}: not a network this runtime can read") from error
        except ModelError as error:
            raise ModelError(f"{path.name}: {error}") from error
        # One more than can run, so that none has to wait until the last answer is taken.
        self._requests = [compiled.create_infer_request() for _ in range(threads + 1)]

    def __call__(self, channels: Field) -> Field:
        """Run once; the result is a copy of its own."""
        (answer,) = self.many((channels,))
        return answer

    def many(self, inputs: Iterable[Field]) -> Generator[Field, None, None]:
        """The answers in order, each a copy of its own; some inputs are taken ahead."""
        idle, running = deque(self._requests), deque[Any]()
        try:
            for channels in inputs:
                answer = None
                if not idle:
                    idle.append(running.popleft())
                    answer = _answer(idle[0])
                running.append(idle.popleft())
                running[-1].start_async({"channels": np.ascontiguousarray(channels[None])})
                if answer is not None:
                    yield answer
            while running:
                yield _answer(running.popleft())
        finally:
            for request in running:  # nobody wants these any more
                request.wait()


def _answer(request: Any) -> Field:
    """What the request was started for, once it is there."""
    request.wait()
    result: Field = request.get_output_tensor(0).data[0].astype(np.float32)
    return result
