"""Stage: measure the released model on the benchmark, or on one real CT with labels; writes metrics and their page.

    python -m sacroleak.training.evaluate                 the benchmark: metrics/segmenter.json, metrics/leakage.json
    python -m sacroleak.training.evaluate real --ct PATH --labels PATH          one real CT: metrics/real_ct.json
    python -m sacroleak.training.evaluate page            docs/results.md from the metrics that are there
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.progress import track

from sacroleak.core.config import load_config
from sacroleak.core.nifti import read_nifti
from sacroleak.core.whole import remove_leftovers, write_whole
from sacroleak.models.bundle import Bundle, default_bundle, load_bundle
from sacroleak.models.limits import RuleLimits, shipped_limits
from sacroleak.models.networks import load_segmenter
from sacroleak.training.benchmark import BenchmarkConfig, load_case
from sacroleak.training.benchmark import main as make_benchmark
from sacroleak.training.circumstances import Circumstances, circumstances
from sacroleak.training.evaluation_run import ABOUT, note_evaluation, note_pictures
from sacroleak.training.intervals import Bootstrap, Figure
from sacroleak.training.real_ct import LabelNumbers, RealCt, measure_real_ct, on_ct_grid
from sacroleak.training.results_page import write_page
from sacroleak.training.scored_case import FORMAT, CaseRecord, MeasureConfig, Segmenter, measure
from sacroleak.training.summary import leakage_figures, segmenter_figures
from sacroleak.training.tracking import UNTRACKED, tracked

MEASURED_BY = ("baseline.py", "measures.py", "scored_case.py")
"""Files of this room that decide what a record holds."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Folders a run reads and writes."""

    anatomies: Path
    benchmark: Path
    records: Path
    metrics: Path


def main(config: EvaluateConfig, scans: BenchmarkConfig, *, bundle: Bundle, places: Places,
         now: datetime) -> list[CaseRecord]:
    """Make what is missing of the benchmark, score it, write `segmenter.json`, `leakage.json` and `about.json`.

    Finished scans are kept by code, release, rules, measures and content of the scan: a run that was ended goes on.
    """
    paths = make_benchmark(scans, anatomies=places.anatomies, out=places.benchmark)
    limits = shipped_limits()
    segmenter = load_segmenter(bundle, threads=config.threads or len(os.sched_getaffinity(0)))
    folder = places.records / _key(bundle, limits, config.measures)
    records = [_record(path, folder, segmenter, limits, config.measures)
               for path in track(paths, description="scoring")]
    figures = {"segmenter": segmenter_figures(records, config.bootstrap)
               | {"network_mb": Figure(value=network_mb(bundle), n=1)},
               "leakage": leakage_figures(records, config.bootstrap)}
    for name, values in figures.items():
        write_metrics(places.metrics / f"{name}.json", values)
    content = hashlib.sha256("".join(r.case_digest for r in records).encode()).hexdigest()
    note_about(places.metrics, "benchmark", circumstances(bundle, now=now, data=content))
    return records


def real(given: RealCt, config: EvaluateConfig, *, bundle: Bundle, places: Places, now: datetime) -> None:
    """Measure the release on one real CT; writes `real_ct.json` and `about.json`."""
    segmenter = load_segmenter(bundle, threads=config.threads or len(os.sched_getaffinity(0)))
    figures = measure_real_ct(given, segmenter, shipped_limits(), scratch=places.records)
    write_metrics(places.metrics / "real_ct.json", figures)
    note_about(places.metrics, "real_ct", circumstances(bundle, now=now, data=given.digest))


def network_mb(bundle: Bundle) -> float:
    """Size of all networks on disk, MB."""
    return sum(bundle.network_path(name).stat().st_size for name in bundle.index.networks) / 1e6


def write_metrics(path: Path, figures: Mapping[str, Figure]) -> None:
    """Flat JSON, name -> value, n, low, high; written whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {name: figure.as_json() for name, figure in figures.items()}
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def note_about(metrics: Path, stage: str, about: Circumstances) -> None:
    """Say in `about.json` under which circumstances a stage's figures were measured; other stages stay."""
    path = metrics / ABOUT
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known[stage] = about.model_dump(mode="json")
    write_whole(path, (json.dumps(known, indent=1) + "\n").encode())


def _key(bundle: Bundle, limits: RuleLimits, measures: MeasureConfig) -> str:
    content = [FORMAT, _code(), bundle.digest, limits.model_dump(mode="json"), measures.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _code() -> str:
    """sha256 over all code between a scan and its measures: any change of it makes kept records stale."""
    rooms = (Path(__file__).parent, Path(str(files("sacroleak.models"))), Path(str(files("sacroleak.core"))))
    state = hashlib.sha256()
    for path in sorted(path for room in rooms for path in room.glob("*.py") if path.parent != rooms[0]
                       or path.name in MEASURED_BY):
        state.update(path.name.encode() + path.read_bytes())
    return state.hexdigest()


def _record(path: Path, folder: Path, segmenter: Segmenter, limits: RuleLimits, config: MeasureConfig) -> CaseRecord:
    item = load_case(path)
    kept = folder / f"{item.row.case_id}.json"
    if kept.is_file():
        try:
            record = CaseRecord.model_validate_json(kept.read_bytes())
        except ValidationError:
            record = None
        if record is not None and record.case_digest == item.digest:
            return record
    record = measure(item, segmenter, limits, config)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    write_whole(kept, record.model_dump_json(indent=1).encode())
    return record


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
    parser.add_argument("--ct", type=Path, help="real: the CT, NIfTI")
    parser.add_argument("--labels", type=Path, help="real: its labels, NIfTI on any grid")
    parser.add_argument("--sacrum", type=int, nargs="+", default=[1], help="real: label numbers that are sacrum")
    parser.add_argument("--hips", type=int, nargs=2, default=[2, 3], help="real: label numbers of left and right hip")
    parser.add_argument("--l5", type=int, default=4, help="real: label number of L5")
    return parser.parse_args()


def _run(given: argparse.Namespace) -> None:
    config = load_config(given.config, EvaluateConfig)
    places = Places(anatomies=given.anatomies, benchmark=given.benchmark, records=given.records, metrics=given.metrics)
    if given.what != "page":
        bundle = default_bundle(given.released) if given.bundle is None else load_bundle(given.bundle)
        now = datetime.now(UTC)
        if given.what == "benchmark":
            scans = load_config(given.scans, BenchmarkConfig)
            with tracked("evaluate", f"evaluate {bundle.name}") as run:
                records = main(config, scans, bundle=bundle, places=places, now=now)
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
