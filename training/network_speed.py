"""Stage: seconds inside a release's networks for one scan as large as a clinical one, and the share of the peak.

    python -m sacroleak.training.network_speed           metrics/network_speed.json, its marks in metrics/segmenter.json
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from sacroleak.core.config import load_config
from sacroleak.core.errors import ConfigError
from sacroleak.core.geometry import Shape
from sacroleak.core.volume import Volume
from sacroleak.models.bundle import Bundle, default_bundle, load_bundle
from sacroleak.models.effort import Effort, precision_of
from sacroleak.models.int8 import VALUES_LEVELS, WEIGHTS_LEVELS, in_steps
from sacroleak.models.networks import TwoPassSegmenter, load_segmenter
from sacroleak.models.resample import Field as Floats
from sacroleak.models.runtime import Network, Precision, each, hint_of
from sacroleak.training.assembled import watched
from sacroleak.training.benchmark import BenchmarkConfig, make_case, read_benchmark
from sacroleak.training.circumstances import circumstances
from sacroleak.training.full_size_scan import full_size
from sacroleak.training.intervals import Bootstrap, Figure, median_of
from sacroleak.training.metrics_files import join_segmenter, note_about, write_metrics
from sacroleak.training.results_page import write_page

CHANNELS_OF_PEAK, SIDE_OF_PEAK = 64, 64
"""Channels and voxels a side of the convolution that is timed: large enough that nothing but arithmetic counts."""
REACH_OF_PEAK = 4.0
"""How far the normal numbers that it multiplies are told apart in int8."""


class NetworkSpeedConfig(BaseModel):
    """`configs/network_speed.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    case_id: str
    manifest: Path
    anatomy_manifest: Path
    fov_mm: float
    pixel_mm: float
    slice_mm: float
    shape: Shape
    threads: int = Field(ge=1)
    repeats: int = Field(ge=1)
    matrix: int = Field(ge=16)
    resamples: int = Field(ge=10)
    seed: int


@dataclass(slots=True, kw_only=True)
class Timed:
    """A network that counts its calls by the sides of what it is fed, and the seconds from what it is asked to what it
    answers; of many inputs at a time, also what is done with the first answers before the last has come.
    """

    network: Network
    calls: dict[Shape, int] = field(default_factory=dict)
    seconds: float = 0.0

    def __call__(self, channels: Floats) -> Floats:
        """Run it once."""
        (answer,) = self.many((channels,))
        return answer

    def many(self, inputs: Iterable[Floats]) -> Iterator[Floats]:
        """The network's answers in order."""
        began = perf_counter()
        yield from each(self.network, map(self._counted, inputs))
        self.seconds += perf_counter() - began

    def _counted(self, channels: Floats) -> Floats:
        sides = (channels.shape[1], channels.shape[2], channels.shape[3])
        self.calls[sides] = self.calls.get(sides, 0) + 1
        return channels


def timed_segmenter(bundle: Bundle, *, threads: int, effort: Effort) -> tuple[TwoPassSegmenter, dict[str, Timed]]:
    """The release as scoring uses it, and its networks, which count."""
    timed: dict[str, Timed] = {}

    def watch(name: str, network: Network) -> Network:
        timed[name] = Timed(network=network)
        return timed[name]

    return watched(load_segmenter(bundle, threads=threads, effort=effort), watch), timed


def operations(path: Path, sides: Shape) -> int:
    """Operations of all convolutions of an ONNX network in one call on `sides` voxels: two for each multiplication with
    its addition. Norms, activations and the softmax are left out; they are under a hundredth.
    """
    import openvino  # 0.4 s, and only where networks are measured

    model = openvino.Core().read_model(path)
    channels = model.input(0).partial_shape[1].get_length()
    model.reshape([1, channels, *sides])
    return sum(_of_convolution(node) for node in model.get_ops())


def _of_convolution(node: Any) -> int:
    """Weights are (out, in, i, j, k) forwards and (in, out, i, j, k) backwards: each is used once for every voxel of
    the output, or of the input.
    """
    kind = node.get_type_name()
    if kind not in {"Convolution", "ConvolutionBackpropData"}:
        return 0
    voxels = node.output(0).get_shape()[2:] if kind == "Convolution" else node.input(0).get_shape()[2:]
    return 2 * int(prod(node.input(1).get_shape())) * int(prod(voxels))


def peak_tests(matrix: int, threads: int, precision: Precision) -> dict[str, tuple[Callable[[], None], int]]:
    """What the machine's peak is read off, each ready to run, with its operations: a matrix product and a convolution
    by the runtime of the networks.
    """
    import openvino  # as above
    from openvino import opset13 as ops

    def ready(result: Any, inputs: list[Any]) -> Callable[[], None]:
        settings = {"INFERENCE_PRECISION_HINT": hint_of(precision), "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        compiled = openvino.Core().compile_model(openvino.Model([result], inputs, "peak"), "CPU", settings)
        request = compiled.create_infer_request()
        rng = np.random.default_rng(0)
        request.infer([rng.standard_normal(tuple(i.get_output_shape(0)), dtype=np.float32) for i in inputs])

        def run() -> None:
            request.infer()

        return run

    def rounded(numbers: Any, levels: int) -> Any:
        return in_steps(numbers.output(0), -REACH_OF_PEAK, REACH_OF_PEAK, levels) if precision == "int8" else numbers

    pair = [ops.parameter([matrix, matrix], np.float32) for _ in range(2)]
    n, side = CHANNELS_OF_PEAK, SIDE_OF_PEAK
    image = ops.parameter([1, n, side, side, side], np.float32)
    weights = ops.constant(np.random.default_rng(1).standard_normal((n, n, 3, 3, 3), dtype=np.float32))
    convolved = ops.convolution(rounded(image, VALUES_LEVELS), rounded(weights, WEIGHTS_LEVELS), [1] * 3, [1] * 3,
                                [1] * 3, [1] * 3)
    product = ops.matmul(rounded(pair[0], VALUES_LEVELS), rounded(pair[1], WEIGHTS_LEVELS), False, False)
    return {"matrix": (ready(product, pair), 2 * matrix**3),
            "convolution": (ready(convolved, [image]), 2 * n * n * 27 * side**3)}


def seconds_of(run: Callable[[], None]) -> float:
    """Of one run."""
    began = perf_counter()
    run()
    return perf_counter() - began


def operations_a_second(run: Callable[[], None], count: int) -> float:
    """How fast one of the `peak_tests` ran, once."""
    return count / seconds_of(run)


def operations_of(bundle: Bundle, timed: Mapping[str, Timed]) -> dict[str, int]:
    """Operations of all calls that each of the networks counted."""
    return {name: sum(count * operations(bundle.network_path(name), sides) for sides, count in network.calls.items())
            for name, network in timed.items()}


def scan_of(config: NetworkSpeedConfig, anatomies: Path) -> Volume:
    """The chosen patient, scanned in the wanted width and stretched to the wanted shape."""
    return full_size(patient_of(config, anatomies), rng=np.random.default_rng(config.seed), shape=config.shape)


def patient_of(config: NetworkSpeedConfig, anatomies: Path) -> Volume:
    """The same before it is stretched. Raises ConfigError if the benchmark has no such row."""
    rows = read_benchmark(BenchmarkConfig(manifest=config.manifest, anatomy_manifest=config.anatomy_manifest))
    chosen = [row for row in rows if row.case_id == config.case_id]
    if not chosen:
        raise ConfigError(f"{config.manifest.name}: no row {config.case_id}")
    row = chosen[0].model_copy(update={"fov_mm": config.fov_mm, "pixel_mm": config.pixel_mm,
                                       "slice_mm": config.slice_mm, "increment_mm": config.slice_mm})
    return make_case(row, anatomies).ct


def main(config: NetworkSpeedConfig, *, bundle: Bundle, anatomies: Path, metrics: Path, now: datetime) -> None:
    """Write `network_speed.json` and `about.json`, and the marks to `segmenter.json`."""
    load = os.getloadavg()[0]
    figures = measured(config, bundle, scan_of(config, anatomies))
    # Other programs slow the networks more than the short tests of the peak: a reader has to know.
    figures["load_before"] = Figure(value=load, n=1)
    write_metrics(metrics / "network_speed.json", figures)
    note_about(metrics, "network_speed", circumstances(bundle, now=now, data=""))
    join_segmenter(metrics)


def measured(config: NetworkSpeedConfig, bundle: Bundle, ct: Volume) -> dict[str, Figure]:
    """Seconds at each effort; at `standard` also operations, the peak, and the share of it. Medians of the repeats."""
    tests = peak_tests(config.matrix, config.threads, precision_of(Effort.STANDARD))
    rates: dict[str, list[float]] = {name: [] for name in tests}
    seconds: dict[Effort, list[float]] = {effort: [] for effort in Effort}
    passes = {effort: timed_segmenter(bundle, threads=config.threads, effort=effort) for effort in Effort}
    for effort in Effort:
        _seconds(passes[effort], ct)  # memory is laid out in the first run
    for _ in range(config.repeats):
        for name, (run, count) in tests.items():
            rates[name].append(operations_a_second(run, count))
        for effort in Effort:
            seconds[effort].append(_seconds(passes[effort], ct))
    return _figures(config, bundle, passes[Effort.STANDARD][1], (seconds, rates))


def _seconds(given: tuple[TwoPassSegmenter, Mapping[str, Timed]], ct: Volume) -> float:
    """Inside the networks for one scan; the counters hold that scan alone afterwards."""
    segmenter, timed = given
    for network in timed.values():
        network.calls.clear()
        network.seconds = 0.0
    segmenter.segment(ct)
    return sum(network.seconds for network in timed.values())


def _figures(config: NetworkSpeedConfig, bundle: Bundle, timed: Mapping[str, Timed],
             times: tuple[Mapping[Effort, list[float]], Mapping[str, list[float]]]) -> dict[str, Figure]:
    seconds, rates = times
    bootstrap = Bootstrap(resamples=config.resamples, seed=config.seed)
    work = operations_of(bundle, timed)
    peaks = {name: median_of(values, bootstrap) for name, values in rates.items()}
    peak = max(figure.value or 0.0 for figure in peaks.values())
    total = sum(work.values())
    figures = {"network_seconds": median_of(seconds[Effort.STANDARD], bootstrap),
               "network_share_of_peak": median_of([total / s / peak for s in seconds[Effort.STANDARD]], bootstrap)}
    figures |= {f"network_seconds[effort={effort}]": median_of(values, bootstrap) for effort, values in seconds.items()}
    for name, network in timed.items():
        figures[f"{name}_calls"] = Figure(value=float(sum(network.calls.values())), n=1)
        figures[f"{name}_gflop"] = Figure(value=work[name] / 1e9, n=1)
    figures |= {f"peak_gflops[{name}]": _scaled(figure, 1e-9) for name, figure in peaks.items()}
    return figures


def _scaled(figure: Figure, by: float) -> Figure:
    value, low, high = (None if v is None else v * by for v in (figure.value, figure.low, figure.high))
    return Figure(value=value, n=figure.n, low=low, high=high)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/network_speed.yaml"))
    parser.add_argument("--bundle", type=Path, help="folder of a release; the released champion unless given")
    parser.add_argument("--anatomies", type=Path, default=Path("artifacts/anatomies"))
    parser.add_argument("--metrics", type=Path, default=Path("metrics"))
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"))
    given = parser.parse_args()
    release = default_bundle() if given.bundle is None else load_bundle(given.bundle)
    main(load_config(given.config, NetworkSpeedConfig), bundle=release, anatomies=given.anatomies,
         metrics=given.metrics, now=datetime.now(UTC))
    write_page(given.metrics, given.page)
