"""Stage: measure the released model on the benchmark, or on one real CT with labels; writes metrics and their page.

    python -m sacroleak.training.evaluate                 the benchmark: metrics/segmenter.json, metrics/leakage.json
    python -m sacroleak.training.evaluate real --ct PATH --labels PATH          one real CT: metrics/real_ct.json
    python -m sacroleak.training.evaluate page            docs/results.md from the metrics that are there
"""

from __future__ import annotations

import argparse
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console

from sacroleak.core.config import load_config
from sacroleak.core.nifti import read_nifti
from sacroleak.models.bundle import Bundle, default_bundle, load_bundle
from sacroleak.models.classifier import load_classifier
from sacroleak.models.limits import shipped_limits
from sacroleak.models.networks import load_segmenter
from sacroleak.training.benchmark import BenchmarkConfig
from sacroleak.training.benchmark import main as make_benchmark
from sacroleak.training.circumstances import circumstances
from sacroleak.training.evaluation_run import note_evaluation, note_pictures
from sacroleak.training.intervals import Bootstrap, Figure
from sacroleak.training.metrics_files import join_segmenter, join_soak, note_about, write_metrics
from sacroleak.training.real_ct import LabelNumbers, RealCt, baseline_figures, measure_real_ct, on_ct_grid
from sacroleak.training.results_page import write_page
from sacroleak.training.scored_case import CaseRecord, MeasureConfig
from sacroleak.training.scored_scans import Scoring, score_all
from sacroleak.training.summary import leakage_figures, segmenter_figures
from sacroleak.training.tracking import UNTRACKED, tracked


class EvaluateConfig(BaseModel):
    """`configs/evaluate.yaml`. `threads` 0 takes all that this process may run on."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    measures: MeasureConfig
    resamples: int = Field(ge=10)
    seed: int
    threads: int = Field(ge=0)

    @property
    def bootstrap(self) -> Bootstrap:
        """How intervals are drawn."""
        return Bootstrap(resamples=self.resamples, seed=self.seed)

    @property
    def cores(self) -> int:
        """Threads to use."""
        return self.threads or len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Folders a run reads and writes."""

    anatomies: Path
    benchmark: Path
    records: Path
    metrics: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a run is carried out: scans at a time, and where progress is shown, None for nowhere."""

    workers: int = 1
    console: Console | None = None


def main(config: EvaluateConfig, scans: BenchmarkConfig, *, bundle: Bundle, places: Places, now: datetime,
         how: How | None = None) -> list[CaseRecord]:
    """Make what is missing of the benchmark, score it, write `segmenter.json`, `leakage.json` and `about.json`.

    A run that was ended goes on with the scans that are not finished.
    """
    how = how or How()
    paths = make_benchmark(scans, anatomies=places.anatomies, out=places.benchmark)
    scoring = Scoring(bundle=bundle.folder, bundle_digest=bundle.digest, limits=shipped_limits(),
                      measures=config.measures, folder=places.records, threads=config.cores)
    records = score_all(paths, scoring, workers=how.workers, console=how.console)
    figures = {"segmenter": segmenter_figures(records, config.bootstrap)
               | {"network_mb": Figure(value=network_mb(bundle), n=1)},
               "leakage": leakage_figures(records, config.bootstrap)}
    for name, values in figures.items():
        write_metrics(places.metrics / f"{name}.json", values)
    content = hashlib.sha256("".join(r.case_digest for r in records).encode()).hexdigest()
    note_about(places.metrics, "benchmark", circumstances(bundle, now=now, data=content))
    join_segmenter(places.metrics)
    return records


def real(given: RealCt, config: EvaluateConfig, *, bundle: Bundle, places: Places, now: datetime) -> None:
    """Measure the release on one real CT; writes `real_ct.json` and `about.json`, and its mark to `segmenter.json`."""
    segmenter = load_segmenter(bundle, threads=config.cores)
    figures = measure_real_ct(given, segmenter, shipped_limits(), scratch=places.records,
                              classifier=load_classifier(bundle))
    figures |= baseline_figures(given, config.measures.baseline)
    write_metrics(places.metrics / "real_ct.json", figures)
    note_about(places.metrics, "real_ct", circumstances(bundle, now=now, data=given.digest))
    join_segmenter(places.metrics)


def network_mb(bundle: Bundle) -> float:
    """Size of all networks on disk, MB."""
    return sum(bundle.network_path(name).stat().st_size for name in bundle.index.networks) / 1e6


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("benchmark", "real", "page"), default="benchmark")
    parser.add_argument("--config", type=Path, default=Path("configs/evaluate.yaml"))
    parser.add_argument("--scans", type=Path, default=Path("configs/benchmark.yaml"))
    parser.add_argument("--bundle", type=Path, help="folder of a release; the released champion unless given")
    parser.add_argument("--released", type=Path, help="folder of releases, whose champion is measured")
    parser.add_argument("--anatomies", type=Path, default=Path("artifacts/anatomies"))
    parser.add_argument("--benchmark", type=Path, default=Path("artifacts/benchmark"))
    parser.add_argument("--records", type=Path, default=Path("artifacts/evaluate"))
    parser.add_argument("--metrics", type=Path, default=Path("metrics"))
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--workers", type=int, default=1, help="benchmark: scans at a time, which share the threads")
    parser.add_argument("--ct", type=Path, help="real: the CT, NIfTI")
    parser.add_argument("--labels", type=Path, help="real: its labels, NIfTI on any grid")
    parser.add_argument("--sacrum", type=int, nargs="+", default=[1], help="real: label numbers that are sacrum")
    parser.add_argument("--hips", type=int, nargs=2, default=[2, 3], help="real: label numbers of left and right hip")
    parser.add_argument("--l5", type=int, default=4, help="real: label number of L5")
    return parser.parse_args()


def _run(given: argparse.Namespace) -> None:
    config = load_config(given.config, EvaluateConfig)
    places = Places(anatomies=given.anatomies, benchmark=given.benchmark, records=given.records, metrics=given.metrics)
    if given.what == "page":
        join_soak(places.metrics)
    else:
        bundle = default_bundle(given.released) if given.bundle is None else load_bundle(given.bundle)
        now = datetime.now(UTC)
        if given.what == "benchmark":
            scans = load_config(given.scans, BenchmarkConfig)
            with tracked("evaluate", f"evaluate {bundle.name}") as run:
                how = How(workers=given.workers, console=Console(stderr=True))
                records = main(config, scans, bundle=bundle, places=places, now=now, how=how)
                if run is not UNTRACKED:
                    note_evaluation(run, config, bundle=bundle, metrics=places.metrics)
                    note_pictures(run, records, benchmark=places.benchmark, segmenter=load_segmenter(bundle, threads=1))
        else:
            ct, labels = read_nifti(given.ct), read_nifti(given.labels)
            numbers = LabelNumbers(sacrum=tuple(given.sacrum), hip_left=given.hips[0], hip_right=given.hips[1],
                                   l5=given.l5)
            real(on_ct_grid(ct, labels, numbers), config, bundle=bundle, places=places, now=now)
    write_page(places.metrics, given.page)


if __name__ == "__main__":
    _run(_arguments())
