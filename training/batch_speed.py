"""Stage: what one large scan and a batch of small ones cost, how near that is to what the machine can do, and what
other ways cost in the same run.

    python -m sacroleak.training.batch_speed           metrics/benchmark.json; needs the bench extra: make bench
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console

from sacroleak.core.config import load_config
from sacroleak.core.dicom_write import SeriesStyle, write_series
from sacroleak.core.errors import NotAssessableError
from sacroleak.core.geometry import Geometry, Shape
from sacroleak.core.volume import Volume
from sacroleak.models.bundle import Bundle, default_bundle, load_bundle
from sacroleak.models.effort import Effort, precision_of
from sacroleak.training.circumstances import circumstances
from sacroleak.training.full_size_scan import full_size
from sacroleak.training.intervals import Bootstrap, Figure, median_of
from sacroleak.training.metrics_files import SPEED, join_soak, note_about, write_metrics
from sacroleak.training.network_speed import (
    NetworkSpeedConfig,
    operations_a_second,
    operations_of,
    patient_of,
    peak_tests,
    scan_of,
    timed_segmenter,
)
from sacroleak.training.other_ways import (
    NnUNetPlan,
    eager,
    inferer_tiles,
    nnunet,
    nnunet_tiles,
    scaled,
    sides_at,
    timed,
)
from sacroleak.training.results_page import write_page
from sacroleak.training.score_runs import Ran, disk_bytes_a_second, forget, help_seconds, on_cores, score
from sacroleak.training.train_segmenter import TrainConfig, Trainer

Figures = dict[str, Figure]


class BatchConfig(BaseModel):
    """The small scans: patients of the benchmark, each scanned once and copied with other noise, on a grid of `shape`.

    `separate`: how many of them are scored by a call of the command each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    case_ids: tuple[str, ...] = Field(min_length=1)
    scans: int = Field(ge=1)
    separate: int = Field(ge=1)
    fov_mm: float
    pixel_mm: float
    slice_mm: float
    shape: Shape


class EagerConfig(BaseModel):
    """MONAI's sliding window: networks as they were trained, overlap of the tiles, tiles that are timed of each."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    networks: tuple[Path, ...]
    overlap: float = Field(ge=0, lt=1)
    tiles: int = Field(ge=1)


class NnUNetConfig(BaseModel):
    """nnU-Net's predictor: its plan, the voxel of the coarse variant, and tiles that are timed of each."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    plan: NnUNetPlan
    tiles: int = Field(ge=1)
    coarse_mm: float = Field(gt=0)
    coarse_tiles: int = Field(ge=1)


class BatchSpeedConfig(BaseModel):
    """`configs/batch_speed.yaml`. Without `nnunet` that is not measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    network_speed: Path
    cores: int = Field(ge=1)
    scan_repeats: int = Field(ge=1)
    help_repeats: int = Field(ge=1)
    batch: BatchConfig
    eager: EagerConfig
    nnunet: NnUNetConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Folders: prepared anatomies, one that is emptied for scans and results, and metrics."""

    anatomies: Path
    work: Path
    metrics: Path


@dataclass(slots=True, kw_only=True)
class Bench:
    """What the parts of one measurement share. `tell` is given a line as each begins."""

    config: BatchSpeedConfig
    speed: NetworkSpeedConfig
    bundle: Bundle
    places: Places
    tell: Callable[[str], None]
    figures: Figures = field(default_factory=dict)

    def note(self, name: str, values: Sequence[float]) -> float:
        """Keep the median with its n and interval; the median."""
        bootstrap = Bootstrap(resamples=self.speed.resamples, seed=self.speed.seed)
        self.figures[name] = median_of(values, bootstrap)
        return float(median(values))

    def score(self, scans: Sequence[Path]) -> Ran:
        """Score them with the release that is measured."""
        return score(scans, self.places.work / "out", bundle=self.bundle.folder)


def main(config: BatchSpeedConfig, *, bundle: Bundle, places: Places, now: datetime,
         tell: Callable[[str], None] = lambda _: None) -> None:
    """Write `benchmark.json` and `about.json`. Raises ConfigError if there are fewer cores than wanted."""
    load = os.getloadavg()[0]
    speed = load_config(config.network_speed, NetworkSpeedConfig).model_copy(update={"threads": config.cores})
    bench = Bench(config=config, speed=speed, bundle=bundle, places=places, tell=tell)
    shutil.rmtree(places.work, ignore_errors=True)
    with on_cores(config.cores):
        large = _large(bench)
        small = _small(bench)
        _start_up(bench, small)
        scan_s = _one_scan(bench, places.work / "large")
        batch_s = _batch(bench, small)
        _limit(bench, small, batch_s)
        _eager(bench, large, scan_s)
        _nnunet(bench, large, scan_s)
    # Other programs make every figure worse, and not all by the same share: a reader has to know.
    bench.figures["load_before"] = Figure(value=load, n=1)
    write_metrics(places.metrics / f"{SPEED}.json", bench.figures)
    join_soak(places.metrics)
    note_about(places.metrics, "batch_speed", circumstances(bundle, now=now, data=""))


def _large(bench: Bench) -> Geometry:
    """Write the large scan as a DICOM series; its grid."""
    bench.tell("Making the large scan")
    scan = scan_of(bench.speed, bench.places.anatomies)
    write_series(scan, bench.places.work / "large", SeriesStyle(study="large"))
    return scan.geometry


def _patients(bench: Bench) -> list[Volume]:
    """The patients of the batch, before they are stretched."""
    own = bench.config.batch
    grid = {"fov_mm": own.fov_mm, "pixel_mm": own.pixel_mm, "slice_mm": own.slice_mm}
    return [patient_of(bench.speed.model_copy(update={"case_id": case_id, **grid}), bench.places.anatomies)
            for case_id in own.case_ids]


def _small(bench: Bench) -> dict[Path, Volume]:
    """Write the scans of the batch as DICOM series, each with noise of its own; folder -> scan."""
    own = bench.config.batch
    bench.tell(f"Making {own.scans} small scans, patients: {len(own.case_ids)}")
    patients, made = _patients(bench), {}
    for n in range(own.scans):
        scan = full_size(patients[n % len(patients)], rng=np.random.default_rng((bench.speed.seed, n)), shape=own.shape)
        folder = bench.places.work / f"small-{n + 1:03d}"
        write_series(scan, folder, SeriesStyle(study=folder.name))
        made[folder] = scan
    return made


def _start_up(bench: Bench, small: Mapping[Path, Volume]) -> None:
    """`--help`, and calls of the command with one scan each; the first of each only warms the system up."""
    bench.tell("Starting the command, and scoring scans one by one")
    help_seconds()
    bench.note("help_seconds", [help_seconds() for _ in range(bench.config.help_repeats)])
    chosen = list(small)[: bench.config.batch.separate]
    bench.score(chosen[:1])
    bench.note("separate_seconds", [bench.score([scan]).seconds for scan in chosen])


def _one_scan(bench: Bench, scan: Path) -> float:
    """One large scan, DICOM to report and picture; seconds of the whole call."""
    bench.tell("Scoring the large scan")
    runs = [bench.score([scan]) for _ in range(bench.config.scan_repeats)]
    seconds = bench.note("scan_seconds", [run.seconds for run in runs])
    for stage in runs[0].stages:
        bench.note(f"scan_seconds[stage={stage}]", [run.stages.get(stage, 0.0) for run in runs])
    bench.note("scan_peak_gb", [run.peak_gb for run in runs])
    bench.figures["scan_assessed"] = Figure(value=float(runs[0].assessed), n=1)
    return seconds


def _batch(bench: Bench, small: Mapping[Path, Volume]) -> float:
    """All small scans in one call, on all cores and on one; seconds on all."""
    count = len(small)
    bench.tell(f"Scoring {count} scans in one call, cores: {bench.config.cores}")
    both = bench.score(list(small))
    bench.tell(f"Scoring {count} scans in one call, cores: 1")
    with on_cores(1):
        one = bench.score(list(small))
    for cores, run in ((bench.config.cores, both), (1, one)):
        bench.figures[f"batch_seconds[cores={cores}]"] = Figure(value=run.seconds, n=1)
        bench.figures[f"batch_scans_per_minute[cores={cores}]"] = Figure(value=60 * count / run.seconds, n=1)
    bench.figures["batch_scans"] = Figure(value=float(count), n=1)
    bench.figures["batch_scans_assessed"] = Figure(value=float(both.assessed), n=1)
    bench.figures["batch_peak_gb"] = Figure(value=both.peak_gb, n=1)
    separate = bench.figures["separate_seconds"]
    bench.figures["batch_against_separate"] = times(separate, count / both.seconds)
    bench.figures["batch_two_cores_against_one"] = Figure(value=one.seconds / both.seconds, n=1)
    return both.seconds


def times(figure: Figure, by: float) -> Figure:
    """The figure and its interval multiplied."""
    value, low, high = (None if v is None else v * by for v in (figure.value, figure.low, figure.high))
    return Figure(value=value, n=figure.n, low=low, high=high)


def share_of_limit(*, read_bytes: float, bytes_a_second: float, operations: float, peak: float,
                   seconds: float) -> float:
    """The least time that reading and the networks' arithmetic need one after the other, over the time it took."""
    return (read_bytes / bytes_a_second + operations / peak) / seconds


def _limit(bench: Bench, small: Mapping[Path, Volume], batch_s: float) -> None:
    """What reading and arithmetic alone would take on this machine, and their share of the batch."""
    bench.tell("Measuring disk and arithmetic")
    tests = peak_tests(bench.speed.matrix, bench.speed.threads, precision_of(Effort.STANDARD))
    rates: dict[str, list[float]] = {name: [] for name in tests}
    disk = []
    for scan in list(small)[: bench.speed.repeats]:
        for name, (run, count) in tests.items():
            rates[name].append(operations_a_second(run, count))
        disk.append(disk_bytes_a_second(scan))
    peak = max(bench.note(f"peak_gflops[{name}]", [r / 1e9 for r in values]) for name, values in rates.items()) * 1e9
    speed = bench.note("disk_mb_a_second", [r / 1e6 for r in disk]) * 1e6
    work, read = float(_operations(bench, small)), float(sum(forget(scan) for scan in small))
    share = share_of_limit(read_bytes=read, bytes_a_second=speed, operations=work, peak=peak, seconds=batch_s)
    values = {"batch_mb": read / 1e6, "batch_gflop": work / 1e9, "batch_read_limit_seconds": read / speed,
              "batch_network_limit_seconds": work / peak, "share_of_limit": share}
    bench.figures |= {name: Figure(value=value, n=1) for name, value in values.items()}


def _operations(bench: Bench, small: Mapping[Path, Volume]) -> int:
    """Operations of the networks over the whole batch: counted on the first copy of each patient, times the copies."""
    patients, scans = len(bench.config.batch.case_ids), list(small.values())
    total = 0
    for n, scan in enumerate(scans[:patients]):
        segmenter, counted = timed_segmenter(bench.bundle, threads=bench.speed.threads, effort=Effort.STANDARD)
        with suppress(NotAssessableError):  # what was looked at before that was said counts
            segmenter.segment(scan)
        total += sum(operations_of(bench.bundle, counted).values()) * len(scans[n::patients])
    return total


def _eager(bench: Bench, large: Geometry, scan_s: float) -> None:
    """The release's networks in eager torch through MONAI's sliding window, each on its own grid over all of it."""
    bench.tell("Timing tiles in eager torch")
    own = bench.config.eager
    torch.set_num_threads(bench.config.cores)
    whole = np.zeros(own.tiles)
    for path in own.networks:
        config = load_config(path, TrainConfig).model_copy(update={"compiled": False})
        name, patch = config.network.name, config.network.patch
        trainer = Trainer(config, device="cpu")
        trainer.start_from(bench.bundle.network_path(name))  # says so if the release has another network
        run = eager(trainer.smooth, patch, own.overlap)
        run()
        seconds = timed(run, own.tiles)
        tiles = inferer_tiles(sides_at(large, config.network.spacing_mm), patch, own.overlap)
        _tiles(bench, f"eager_{name}", seconds, tiles)
        whole += scaled(seconds, tiles)
    bench.note("eager_seconds", list(whole))
    bench.note("times_eager_sliding_window", list(whole / scan_s))


def _nnunet(bench: Bench, large: Geometry, scan_s: float) -> None:
    """nnU-Net's predictor: on a coarse grid without mirroring, then on the scan's own grid with it."""
    own = bench.config.nnunet
    if own is None:
        return
    # The coarse one comes first: its first tile, which is not counted, warms up for both.
    for name, sides, count in (("nnunet_3mm", sides_at(large, own.coarse_mm), own.coarse_tiles),
                               ("nnunet", large.shape, own.tiles)):
        bench.tell(f"Timing tiles of nnU-Net's predictor: {name}")
        run = nnunet(own.plan, mirror=name == "nnunet")
        if name == "nnunet_3mm":
            run()
        seconds, tiles = timed(run, count), nnunet_tiles(sides, own.plan)
        _tiles(bench, name, seconds, tiles)
        whole = scaled(seconds, tiles)
        bench.note(f"{name}_seconds", whole)
        bench.note(f"times_{name}", [s / scan_s for s in whole])


def _tiles(bench: Bench, name: str, seconds: Sequence[float], tiles: int) -> None:
    bench.note(f"{name}_tile_seconds", seconds)
    bench.figures[f"{name}_tiles"] = Figure(value=float(tiles), n=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/batch_speed.yaml"))
    parser.add_argument("--bundle", type=Path, help="folder of a release; the released champion unless given")
    parser.add_argument("--anatomies", type=Path, default=Path("artifacts/anatomies"))
    parser.add_argument("--work", type=Path, default=Path("artifacts/bench"), help="emptied first")
    parser.add_argument("--metrics", type=Path, default=Path("metrics"))
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"))
    given = parser.parse_args()
    release = default_bundle() if given.bundle is None else load_bundle(given.bundle)
    main(load_config(given.config, BatchSpeedConfig), bundle=release, now=datetime.now(UTC),
         places=Places(anatomies=given.anatomies, work=given.work, metrics=given.metrics),
         tell=Console(stderr=True).print)
    write_page(given.metrics, given.page)
