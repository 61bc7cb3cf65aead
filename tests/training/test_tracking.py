"""What is tracked: all that a run came from and found, nothing of the machine; and no store can stop a training."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sacroleak.core.config import load_config
from sacroleak.core.errors import ModelError
from sacroleak.core.nifti import read_nifti
from sacroleak.core.nifti_write import write_volume
from sacroleak.core.report import Report, to_report
from sacroleak.models.assess import ScanRef, assess
from sacroleak.models.bundle import Bundle
from sacroleak.models.limits import shipped_limits
from sacroleak.models.networks import load_segmenter
from sacroleak.training import export, register, release, train_segmenter
from sacroleak.training.register import RegisterConfig, promote
from sacroleak.training.release import ReleaseConfig
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.cases import plan_of, planned_case
from sacroleak.training.simulation.scanner import QUIET
from sacroleak.training.tracking import RUN_FILE, Tracker, data_digest, flattened, plain, store, tracked
from sacroleak.training.train_segmenter import How, TrainConfig, Trainer

pytestmark = pytest.mark.filterwarnings("default")  # mlflow and the ONNX exporter speak of their own inside

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of one SQLite store for all tests of this file: making its tables takes longest."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        yield folder


@pytest.fixture(scope="module")
def training(repository: Path) -> TrainConfig:
    return load_config(repository / "configs/smoke/train_coarse.yaml", TrainConfig)


@pytest.fixture(scope="module")
def bundle(repository: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A release of two untrained smoke networks."""
    folder = tmp_path_factory.mktemp("bundle")
    exported = {}
    for name in ("coarse", "fine"):
        train = load_config(repository / f"configs/smoke/train_{name}.yaml", TrainConfig)
        Trainer(train, device="cpu").save(folder / f"{name}.pt")
        exported[name] = (train, export.main(train, checkpoint=folder / f"{name}.pt", out=folder / f"{name}.onnx"))
    config = load_config(repository / "configs/smoke/release.yaml", ReleaseConfig)
    return release.main(config, networks=exported, released=folder / "released", manifest=manifest, now=NOW)


@pytest.fixture(scope="module")
def registry(repository: Path) -> RegisterConfig:
    return load_config(repository / "configs/smoke/register.yaml", RegisterConfig)


def artifacts(client: Any, run_id: str, folder: str | None = None) -> set[str]:
    return {item.path for item in client.list_artifacts(run_id, folder)}


def texts_below(folder: Path) -> str:
    """Everything readable that the store holds as a file."""
    plain_text = {"", ".yaml", ".yml", ".json", ".txt", ".jsonl", ".py", ".md"}
    return "\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in folder.rglob("*")
                     if path.is_file() and path.suffix in plain_text)


def test_a_training_leaves_all_it_came_from_and_goes_on_in_the_same_run(
        kept: Path, training: TrainConfig, anatomies: Path, manifest: Path, tmp_path: Path, repository: Path) -> None:
    for updates in (1, 3):
        with tracked("train", "train coarse", beside=tmp_path) as tracker:
            train_segmenter.main(training.model_copy(update={"updates": updates}), anatomies=anatomies,
                                 manifest=manifest, out=tmp_path, how=How(tracker=tracker))
    client = store()
    run_id = (tmp_path / RUN_FILE).read_text().strip()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["network.name"] == "coarse"
    assert run.data.params["network.patch"] == "[32, 32, 32]"
    assert run.data.params["updates"] == "1"
    assert run.data.tags["now.updates"] == "3", "the run says that it went on under another setting"
    assert run.data.tags["stage"] == "train"
    assert len(run.data.tags["commit"]) >= 7
    assert run.data.tags["data_digest"] == data_digest(manifest, list(anatomies.glob("*.npz")))
    history = client.get_metric_history(run_id, "loss")
    assert [point.step for point in history] == [1, 3]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [point.value for point in history] == [line["loss"] for line in lines]
    assert artifacts(client, run_id) == {"config.yaml", "learning_curve.png", "log.jsonl"}
    for place in (repository, tmp_path):
        assert str(place) not in json.dumps([run.data.params, run.data.tags])
        assert str(place) not in texts_below(kept / "mlruns")


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (ValueError, "FAILED")])
def test_a_run_ends_as_its_work_ends(kept: Path, tmp_path: Path, error: type[BaseException], status: str) -> None:
    with pytest.raises(error), tracked("train", "ended", beside=tmp_path):
        raise error
    assert store().get_run((tmp_path / RUN_FILE).read_text().strip()).info.status == status


class Broken:
    """A store that answered once and never again."""

    def __init__(self) -> None:
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        self.asked += 1
        raise OSError(f"no connection for {name}\nand more lines")


def test_a_store_that_fails_is_named_once_and_the_training_goes_on(
        training: TrainConfig, anatomies: Path, manifest: Path, tmp_path: Path,
        caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken()
    with caplog.at_level(logging.WARNING):
        made = train_segmenter.main(training, anatomies=anatomies, manifest=manifest, out=tmp_path,
                                    how=How(tracker=Tracker(broken, "run")))
    assert made.is_file()
    assert [record.getMessage() for record in caplog.records] == [
        "MLflow: OSError: no connection for get_run; the work goes on untracked"]
    assert broken.asked == 1


def test_without_a_store_the_work_goes_on_untracked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                    caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    with caplog.at_level(logging.WARNING), tracked("train", "nowhere", beside=tmp_path) as tracker:
        tracker.metrics({"loss": 1.0})
    assert len(caplog.records) == 1
    assert not (tmp_path / RUN_FILE).exists()


def test_figures_come_with_their_intervals(kept: Path, tmp_path: Path) -> None:
    with tracked("evaluate", "figures", beside=tmp_path) as tracker:
        tracker.figures({"found[slices<=1.5mm]": {"value": 0.5, "n": 8, "low": 0.2, "high": None}})
    metrics = store().get_run((tmp_path / RUN_FILE).read_text().strip()).data.metrics
    assert metrics == {"found/slices_up_to_1.5mm": 0.5, "found/slices_up_to_1.5mm_n": 8.0,
                       "found/slices_up_to_1.5mm_low": 0.2}


def test_each_published_figure_has_a_name_of_its_own_in_the_store(repository: Path) -> None:
    for path in (repository / "metrics").glob("*.json"):
        names = list(json.loads(path.read_text()))
        assert len({plain(name) for name in names}) == len(names), path.name


def test_nested_settings_become_names_with_dots() -> None:
    assert dict(flattened({"a": {"b": [1, 2], "c": "x"}, "d": 1})) == {"a.b": "[1, 2]", "a.c": "x", "d": 1}


def test_the_data_digest_sees_rows_names_and_content(tmp_path: Path) -> None:
    manifest, one, two = (tmp_path / name for name in ("rows.csv", "one.npz", "two.npz"))
    for path in (manifest, one, two):
        path.write_bytes(b"same")
    seen = {data_digest(manifest, [one]), data_digest(manifest, [two]), data_digest(manifest, [one, two])}
    assert data_digest(manifest, [two, one]) in seen, "the order they are listed in says nothing"
    one.write_bytes(b"other")
    seen.add(data_digest(manifest, [one]))
    manifest.write_bytes(b"other")
    seen.add(data_digest(manifest, [one]))
    assert len(seen) == 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A registered release."""

    folder: Path
    version: str
    facts: Mapping[str, str]


@pytest.fixture(scope="module")
def registered(kept: Path, bundle: Bundle, registry: RegisterConfig) -> Registered:
    figures = {"sacrum_dice": {"value": 0.97, "n": 60, "low": 0.96, "high": 0.98}}
    (kept / "metrics").mkdir()
    for name, content in (("segmenter", figures), ("leakage", {}),
                          ("about", {"benchmark": {"bundle_digest": bundle.digest}})):
        (kept / f"metrics/{name}.json").write_text(json.dumps(content))
    number = register.main(registry, bundle=bundle, metrics=kept / "metrics", out=kept / "registered.json")
    return Registered(folder=kept, version=number, facts=json.loads((kept / "registered.json").read_text()))


def test_a_release_becomes_the_challenger_with_card_and_figures(registered: Registered, registry: RegisterConfig,
                                                                bundle: Bundle, repository: Path) -> None:
    version = store().get_model_version_by_alias(registry.name, "challenger")
    assert str(version.version) == registered.version == registered.facts["version"]
    assert version.tags["bundle_digest"] == bundle.digest == registered.facts["bundle_digest"]
    assert version.tags["sacrum_dice"] == "0.97 (n 60, 95 % 0.96 to 0.98)"
    assert "Not a medical device" in version.description
    said = texts_below(registered.folder / "mlruns")
    assert "scoring_model.py" in said
    for place in (repository, bundle.folder):
        assert str(place) not in said
    assert not list((registered.folder / "mlruns").rglob("*.pkl"))


def test_the_same_release_is_registered_once(registered: Registered, registry: RegisterConfig, bundle: Bundle,
                                             tmp_path: Path) -> None:
    again = register.main(registry, bundle=bundle, metrics=tmp_path, out=tmp_path / "registered.json")
    assert again == registered.version
    assert store().get_model_version(registry.name, again).tags["measured"] == "no", "not on this release"


def test_the_registered_model_scores_a_scan(registered: Registered, registry: RegisterConfig, bundle: Bundle,
                                            pelvis: Anatomy, tmp_path: Path) -> None:
    import mlflow

    rng = np.random.default_rng(1)
    case = planned_case(rng, pelvis, plan_of(rng, (4.0,), ()), scanner=QUIET, slice_mm=3.0, pixel_mm=3.0)
    path = tmp_path / "scan.nii.gz"
    write_volume(path, case.ct)
    model = mlflow.pyfunc.load_model(f"models:/{registry.name}@challenger")
    (answer,) = model.predict([str(path)])
    report = Report.model_validate(answer)
    assert report.case_id == "scan-1"
    ref = ScanRef(case_id="scan-1", input_digest="", version="", bundle="", bundle_digest="", config_digest="")
    direct = assess(read_nifti(path), load_segmenter(bundle, threads=1), shipped_limits(), ref, now=NOW)
    wanted = to_report(direct.assessment, notes=direct.notes)
    assert report.model_dump(exclude={"provenance"}) == wanted.model_dump(exclude={"provenance"})
    assert answer["provenance"]["bundle_digest"] == bundle.digest


def test_the_challenger_is_promoted_and_the_champion_kept_as_the_former_one(registered: Registered,
                                                                            registry: RegisterConfig) -> None:
    client = store()
    assert promote(registry) == registered.version
    assert client.get_model_version_by_alias(registry.name, "champion").version == int(registered.version)
    first = client.get_model_version(registry.name, registered.version)
    newer = str(client.create_model_version(registry.name, first.source, first.run_id).version)
    client.set_registered_model_alias(registry.name, "challenger", newer)
    assert promote(registry) == newer
    assert str(client.get_model_version_by_alias(registry.name, "former_champion").version) == registered.version
    assert promote(registry, registered.version) == registered.version, "and back again"
    assert str(client.get_model_version_by_alias(registry.name, "former_champion").version) == newer
    with pytest.raises(ModelError, match="no version 99, there are: 1, 2"):
        promote(registry, "99")


def test_promoting_without_a_model_is_refused(kept: Path, registry: RegisterConfig) -> None:
    with pytest.raises(ModelError, match="never: no version challenger, there are: none"):
        promote(registry.model_copy(update={"name": "never"}))
