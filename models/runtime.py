"""Exported networks on a CPU, through OpenVINO."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from sacroleak.core.errors import ModelError

Field = npt.NDArray[np.float32]
Precision = Literal["f32", "bf16"]

CPU_FLAGS = Path("/proc/cpuinfo")
"""Where Linux says what a processor can do. The runtime itself offers bfloat16 on processors too that only imitate it,
slower than float32."""
BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})


class Network(Protocol):
    """(2, i, j, k) channels to (8, i, j, k) probabilities; float32 both."""

    def __call__(self, channels: Field) -> Field:
        """Run the network once."""
        ...


@cache
def quickest() -> Precision:
    """bfloat16 where the processor multiplies it natively, which takes half the time; else, or if unknown, float32."""
    try:
        lines = CPU_FLAGS.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return "f32"
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return "f32" if BF16_FLAGS.isdisjoint(flags) else "bf16"


class OpenVinoNetwork:
    """One ONNX network, compiled once. Sides of the input must be multiples of 16."""

    def __init__(self, path: Path, *, threads: int, precision: Precision = "f32") -> None:
        import openvino  # 0.4 s: paid only when a scan is scored

        core = openvino.Core()
        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        try:
            self._request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise ModelError(f"{path.name}: not a network this runtime can read") from error

    def __call__(self, channels: Field) -> Field:
        """Run once; the result is a copy of its own."""
        self._request.infer({"channels": np.ascontiguousarray(channels[None])})
        result: Field = self._request.get_output_tensor(0).data[0].astype(np.float32)
        return result
