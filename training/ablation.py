"""Stage: what each part of the training and of the inference brings; writes metrics/ablation_training.json,
metrics/ablation_inference.json and the results page.

Short equal trainings of one network, each without one part, are compared on a patch around the true sacrum of held-out
scans; the release without one part of its inference on the same scans whole. A run that was ended goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console

from sacroleak.core.config import load_config
from sacroleak.core.errors import ConfigError
from sacroleak.core.geometry import Geometry, box_where
from sacroleak.core.nifti import read_nifti
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.architecture import NetworkSpec
from sacroleak.models.bundle import Bundle, default_bundle, load_bundle
from sacroleak.models.effort import Effort
from sacroleak.models.intensity import to_channels
from sacroleak.models.label_grids import labels_on
from sacroleak.models.limits import shipped_limits
from sacroleak.models.networks import TwoPassSegmenter, load_segmenter
from sacroleak.models.resample import to_aligned_grid
from sacroleak.models.runtime import Network, OpenVinoNetwork
from sacroleak.training import export, train_segmenter
from sacroleak.training.assembled import OneLook, without_near, without_under
from sacroleak.training.benchmark import BenchmarkConfig, load_case
from sacroleak.training.benchmark import main as make_benchmark
from sacroleak.training.circumstances import circumstances
from sacroleak.training.evaluate import EvaluateConfig
from sacroleak.training.intervals import Bootstrap, Figure, mean_of
from sacroleak.training.manifests import anatomies_of
from sacroleak.training.measures import dice
from sacroleak.training.metrics_files import note_about, write_metrics
from sacroleak.training.real_ct import LabelNumbers, RealCt, bone_figures, on_ct_grid
from sacroleak.training.results_page import write_page
from sacroleak.training.scored_case import CaseRecord
from sacroleak.training.scored_scans import Scoring, folder_of, followed, kept_or_measured
from sacroleak.training.summary import leakage_figures, segmentation_figures
from sacroleak.training.tracking import tracked
from sacroleak.training.train_segmenter import How, TrainConfig

MEASURES = ("sacrum_dice", "canal_dice", "cement_dice")
RELEASE_MEASURES = (*MEASURES, "sacrum_surface_dice_1mm", "sacrum_contour_near_cement_p95_mm", "cement_dice_leaks",
                    "leak_component_sensitivity", "false_components_per_scan")
SITE_MEASURES = ("leak_sensitivity", "leak_specificity", "exact_sites")
REAL_CT, REAL_MEASURE = "real-ct", "real_ct_sacrum_dice"

Way = Literal["whole", "without_near", "without_under", "without_second_look", "fast", "careful"]
Scores = dict[str, float | None]
Figures = dict[str, Figure]


class Arm(BaseModel):
    """One short training: share of far-from-realistic cases, and patterns of the anatomies it may draw from."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    wild_share: float = Field(ge=0.0, le=1.0)
    anatomies: tuple[str, ...]


class AblationConfig(BaseModel):
    """`configs/ablation.yaml`; the first of `arms` and of `release` has all parts. Either may be empty."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    training: Path
    evaluation: Path
    scans: BenchmarkConfig
    updates: int = Field(ge=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    arms: tuple[Arm, ...]
    release: tuple[Way, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Folders a run reads and writes."""

    anatomies: Path
    benchmark: Path
    records: Path
    work: Path
    metrics: Path


def main(config: AblationConfig, *, bundle: Bundle, places: Places, now: datetime, real: RealCt | None = None,
         console: Console | None = None) -> Figures:
    """Train, run the release, and write `ablation_training.json`, `ablation_inference.json` and `about.json`. What the
    config names nothing for is left as it was. Raises ConfigError for an arm without anatomies.
    """
    paths = make_benchmark(config.scans, anatomies=places.anatomies, out=places.benchmark)
    content = "".join(load_case(path).digest for path in paths)
    about = circumstances(bundle, now=now, data=hashlib.sha256(content.encode()).hexdigest())
    figures: dict[str, Figures] = {}
    if config.arms:
        figures["ablation_training"] = _trainings(config, paths, places, real, console)
    if config.release:
        figures["ablation_inference"] = _inference(config, paths, bundle, places, real, console)
    for half, measured in figures.items():
        write_metrics(places.metrics / f"{half}.json", measured)
        note_about(places.metrics, half, about)
    return {name: figure for measured in figures.values() for name, figure in measured.items()}


def _trainings(config: AblationConfig, paths: Sequence[Path], places: Places, real: RealCt | None,
               console: Console | None) -> Figures:
    trained = {arm.name: [_trained(config, arm, seed, places, console) for seed in config.seeds]
               for arm in config.arms}
    scores = {name: _mean_scores([_patches(network, paths, real) for network in networks])
              for name, networks in trained.items()}
    return trained_figures(scores, load_config(config.evaluation, EvaluateConfig).bootstrap)


def _inference(config: AblationConfig, paths: Sequence[Path], bundle: Bundle, places: Places, real: RealCt | None,
               console: Console | None) -> Figures:
    evaluation = load_config(config.evaluation, EvaluateConfig)
    scoring = Scoring(bundle=bundle.folder, bundle_digest=bundle.digest, limits=shipped_limits(),
                      measures=evaluation.measures, folder=places.records, threads=evaluation.cores)
    figures: Figures = {}
    records: dict[str, list[CaseRecord]] = {}
    for way in config.release:
        opened = _once(bundle, way, evaluation.cores)
        kept = folder_of(scoring, "" if way == "whole" else f"-{way}")
        made = (kept_or_measured(path, kept, opened, scoring) for path in paths)
        records[way] = list(followed(made, total=len(paths), console=console))
        if real is not None:
            found = bone_figures(opened().segment(real.ct), real.labels)[REAL_MEASURE]
            figures[f"{REAL_MEASURE}[release={way}]"] = found
    return figures | release_figures(records, evaluation.bootstrap)


def _trained(config: AblationConfig, arm: Arm, seed: int, places: Places, console: Console | None) -> OpenPatch:
    """The arm's network, trained and exported unless it was before by the same settings from the same bones."""
    base = load_config(config.training, TrainConfig)
    settings = base.model_copy(update={"updates": config.updates, "seed": seed, "wild_share": arm.wild_share})
    manifest = config.scans.anatomy_manifest
    files = [path for path in anatomies_of("train", places.anatomies, manifest)
             if any(fnmatch(path.stem, pattern) for pattern in arm.anatomies)]
    if not files:
        raise ConfigError(f"arm {arm.name}: no training anatomy is called {' or '.join(arm.anatomies)}")
    state = json.dumps([settings.model_dump(mode="json"), [[f.stem, f.stat().st_size] for f in files]])
    folder = places.work / f"{arm.name}-{seed}-{hashlib.sha256(state.encode()).hexdigest()[:12]}"
    chosen = folder / "anatomies"
    chosen.mkdir(parents=True, exist_ok=True)
    for path in files:
        link = chosen / path.name
        if not link.exists():
            link.symlink_to(path.resolve())
    network = folder / "network.onnx"
    if not network.is_file():
        if console is not None:
            console.print(f"arm {arm.name}, seed {seed}: {len(files)} anatomies", highlight=False)
        checkpoint = train_segmenter.main(settings, anatomies=chosen, manifest=manifest, out=folder,
                                          how=How(console=console))
        export.main(settings, checkpoint=checkpoint, out=network)
    return OpenPatch(path=network, spec=settings.network)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPatch:
    """An exported network and the patch it has learned on."""

    path: Path
    spec: NetworkSpec


def _patches(network: OpenPatch, paths: Sequence[Path], real: RealCt | None) -> dict[str, Scores]:
    """Scores of every scan; of the real CT the sacrum's alone."""
    opened = OpenVinoNetwork(network.path, threads=1)
    scores: dict[str, Scores] = {}
    for path in paths:
        item = load_case(path)
        scores[item.row.case_id] = patch_scores(opened, network.spec, item.case.ct, item.case.anatomy,
                                                item.case.cement)
    if real is not None:
        found = patch_scores(opened, network.spec, real.ct, real.labels, None)
        scores[REAL_CT] = {REAL_MEASURE: found["sacrum_dice"]}
    return scores


def patch_scores(network: Network, spec: NetworkSpec, ct: Volume, anatomy: LabelMap, cement: LabelMap | None) -> Scores:
    """Dice on the network's own grid, its patch centred on the true sacrum; None for what the truth does not hold."""
    box = box_where(anatomy.labels == Structure.SACRUM)
    if box is None:
        return dict.fromkeys(MEASURES)
    middle = anatomy.geometry.to_lps(np.array([(s.start + s.stop - 1) / 2 for s in box]))
    origin = middle - (np.array(spec.patch) - 1) / 2 * spec.spacing_mm
    grid = Geometry.axis_aligned(origin_lps_mm=origin, spacing_mm=spec.spacing_mm, shape=spec.patch)
    answer = network(to_channels(to_aligned_grid(ct, grid)))
    guess, truth = answer[: Structure.CEMENT].argmax(axis=0), labels_on(anatomy, grid).labels
    pairs = {"sacrum_dice": (guess == Structure.SACRUM, truth == Structure.SACRUM),
             "canal_dice": (guess == Structure.SACRAL_CANAL, truth == Structure.SACRAL_CANAL)}
    if cement is not None:
        pairs["cement_dice"] = (answer[Structure.CEMENT] > 0.5, labels_on(cement, grid).labels > 0)
    return {name: dice(found, true) if true.any() else None for name, (found, true) in pairs.items()}


def _mean_scores(runs: Sequence[Mapping[str, Scores]]) -> dict[str, Scores]:
    """Scan by scan the mean over the seeds."""
    def mean(case: str, name: str) -> float | None:
        values = [value for run in runs if (value := run[case][name]) is not None]
        return sum(values) / len(values) if values else None

    return {case: {name: mean(case, name) for name in scores} for case, scores in runs[0].items()}


def trained_figures(scores: Mapping[str, Mapping[str, Scores]], bootstrap: Bootstrap) -> Figures:
    """`measure[trained=arm]`, and `gain_measure[trained=arm]`: what the first arm has before it, scan by scan."""
    def values(arm: str, name: str) -> list[float | None]:
        return [case.get(name) for case in scores[arm].values()]

    figures: Figures = {}
    first = next(iter(scores), "")
    for arm in scores:
        for name in (*MEASURES, REAL_MEASURE):
            own = values(arm, name)
            if any(value is not None for value in own):
                figures[f"{name}[trained={arm}]"] = mean_of(own, bootstrap)
                if arm != first:
                    figures[f"gain_{name}[trained={arm}]"] = _gain(values(first, name), own, bootstrap)
    return figures


def release_figures(records: Mapping[str, Sequence[CaseRecord]], bootstrap: Bootstrap) -> Figures:
    """The same of the release, as `[release=way]`."""
    def values(way: str, name: str) -> list[float | None]:
        return [_value(record, name) for record in records[way]]

    figures: Figures = {}
    first = next(iter(records), "")
    for way, own in records.items():
        whole = segmentation_figures(own, bootstrap)
        sites = leakage_figures(own, bootstrap)
        figures |= {f"{name}[release={way}]": whole[name] for name in RELEASE_MEASURES}
        figures |= {f"{name}[release={way}]": sites[name] for name in SITE_MEASURES}
        if way != first:
            figures |= {f"gain_{name}[release={way}]": _gain(values(first, name), values(way, name), bootstrap)
                        for name in MEASURES}
    return figures


def _value(record: CaseRecord, name: str) -> float | None:
    if record.model is None or record.anatomy is None:
        return None
    return record.model.cement_dice if name == "cement_dice" else record.anatomy.dice.get(name.removesuffix("_dice"))


def _gain(whole: Sequence[float | None], part: Sequence[float | None], bootstrap: Bootstrap) -> Figure:
    return mean_of([None if a is None or b is None else a - b for a, b in zip(whole, part, strict=True)], bootstrap)


def _once(bundle: Bundle, way: Way, threads: int) -> Callable[[], TwoPassSegmenter]:
    """Opens the release this way when it is first needed."""
    made: list[TwoPassSegmenter] = []

    def opened() -> TwoPassSegmenter:
        if not made:
            made.append(release_run(bundle, way, threads=threads))
        return made[0]

    return opened


def release_run(bundle: Bundle, way: Way, *, threads: int) -> TwoPassSegmenter:
    """The release, run in one of the ways."""
    effort = Effort(way) if way in {Effort.FAST.value, Effort.CAREFUL.value} else Effort.STANDARD
    segmenter = load_segmenter(bundle, threads=threads, effort=effort)
    if way == "without_near":
        return without_near(segmenter)
    if way == "without_under":
        return without_under(segmenter)
    return OneLook(segmenter) if way == "without_second_look" else segmenter


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/ablation.yaml"))
    parser.add_argument("--bundle", type=Path, help="folder of a release; the released champion unless given")
    for name, default in (("anatomies", "artifacts/anatomies"), ("benchmark", "artifacts/benchmark"),
                          ("records", "artifacts/evaluate"), ("work", "artifacts/ablation"), ("metrics", "metrics")):
        parser.add_argument(f"--{name}", type=Path, default=Path(default))
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--ct", type=Path, help="a real CT to test on, NIfTI")
    parser.add_argument("--labels", type=Path, help="its labels: 1 sacrum, 2 left hip, 3 right hip, 4 L5")
    parser.add_argument("--only", choices=("training", "inference"), help="the trainings or the release alone")
    given = parser.parse_args()
    chosen_config = load_config(given.config, AblationConfig)
    if given.only is not None:
        left_out = "release" if given.only == "training" else "arms"
        chosen_config = chosen_config.model_copy(update={left_out: ()})
    release = default_bundle() if given.bundle is None else load_bundle(given.bundle)
    folders = Places(anatomies=given.anatomies, benchmark=given.benchmark, records=given.records, work=given.work,
                     metrics=given.metrics)
    numbers = LabelNumbers(sacrum=(1,), hip_left=2, hip_right=3, l5=4)
    patient = on_ct_grid(read_nifti(given.ct), read_nifti(given.labels), numbers) if given.ct and given.labels else None
    with tracked("ablation", f"ablation {release.name}") as run:
        run.settings(chosen_config)
        measured = main(chosen_config, bundle=release, places=folders, now=datetime.now(UTC), real=patient,
                        console=Console(stderr=True))
        run.figures({name: figure.as_json() for name, figure in measured.items()})
    write_page(given.metrics, given.page)
