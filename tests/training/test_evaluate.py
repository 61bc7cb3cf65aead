"""The stage as a whole with a segmenter that finds nothing: files, kept records, and what makes them stale."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from sacroleak.core.config import load_config
from sacroleak.core.errors import NotAssessableError
from sacroleak.core.geometry import Geometry
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.bundle import Bundle, BundleDraft, IntensityWindow, NetworkDraft, default_bundle, write_bundle
from sacroleak.models.segmentation import Segmentation
from sacroleak.training import benchmark, evaluate, scored_scans
from sacroleak.training.benchmark import BenchmarkConfig, BenchmarkRow
from sacroleak.training.circumstances import circumstances, machine
from sacroleak.training.evaluate import EvaluateConfig, How, Places
from sacroleak.training.metrics_files import note_about
from sacroleak.training.simulation.case import Case

NOW = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
GRID = Geometry.axis_aligned(origin_lps_mm=(0, 0, 0), spacing_mm=2.0, shape=(20, 20, 20))


class Refusing:
    """A segmenter that judges no scan, and counts how often it was asked."""

    asked = 0

    def segment(self, ct: Volume) -> Segmentation:
        Refusing.asked += 1
        raise NotAssessableError(("no sacrum was found in the scan",))


def empty_case(row: BenchmarkRow, _anatomies: Path) -> Case:
    hu = np.full(GRID.shape, row.seed % 100, dtype=np.int16)
    nothing = LabelMap(labels=np.zeros(GRID.shape, dtype=np.uint8), geometry=GRID)
    none = LabelMap(labels=np.zeros(GRID.shape, dtype=bool), geometry=GRID)
    return Case(ct=Volume(hu=hu, geometry=GRID), anatomy=nothing, cement=none, leaks=nothing, metal=none, truth=())


def bundle_in(folder: Path, version: str = "1") -> Bundle:
    network = NetworkDraft(file="net.onnx", spacing_mm=(2.0, 2.0, 2.0), tile=(16, 16, 16), outputs=["x"])
    draft = BundleDraft(
        name="made-up", version=version, created=NOW, intensity=(IntensityWindow(low_hu=0, high_hu=1),) * 2,
        training={}, training_data=[],
        networks={name: network.model_copy(update={"file": f"{name}.onnx"}) for name in ("coarse", "fine")})
    return write_bundle(folder, draft, networks={"coarse": b"1" * 500_000, "fine": b"2" * 1_500_000}, card="card",
                        licences="none")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> Places:
    monkeypatch.chdir(repository)
    monkeypatch.setattr(benchmark, "make_case", empty_case)
    monkeypatch.setattr(scored_scans, "load_segmenter", lambda _bundle, threads: Refusing())
    Refusing.asked = 0
    return Places(anatomies=tmp_path / "anatomies", benchmark=tmp_path / "scans", records=tmp_path / "records",
                  metrics=tmp_path / "metrics")


def run(places: Places, bundle: Bundle, repository: Path) -> int:
    config = load_config(repository / "configs/smoke/evaluate.yaml", EvaluateConfig)
    scans = load_config(repository / "configs/smoke/benchmark.yaml", BenchmarkConfig)
    before = Refusing.asked
    records = evaluate.main(config, scans, bundle=bundle, places=places, now=NOW)
    assert [record.case_id for record in records] == ["procedural-001", "procedural-002"]
    return Refusing.asked - before


def test_metrics_are_flat_and_say_where_they_come_from(places: Places, tmp_path: Path, repository: Path) -> None:
    bundle = bundle_in(tmp_path / "released")
    run(places, bundle, repository)
    for name in ("segmenter", "leakage"):
        content = json.loads((places.metrics / f"{name}.json").read_text())
        assert all(set(figure) == {"value", "n", "low", "high"} for figure in content.values())
    segmenter = json.loads((places.metrics / "segmenter.json").read_text())
    assert segmenter["not_assessable"]["value"] == 1.0
    assert segmenter["network_mb"]["value"] == 2.0
    about = json.loads((places.metrics / "about.json").read_text())["benchmark"]
    assert about["date"] == "2026-03-04"
    assert about["bundle_digest"] == bundle.digest
    assert "core" in about["machine"]


def test_finished_scans_are_not_scored_again_until_model_or_scan_changes(
    places: Places, tmp_path: Path, repository: Path,
) -> None:
    first, second = (bundle_in(tmp_path / f"released{n}", version=str(n)) for n in (1, 2))
    assert run(places, first, repository) == 2
    assert run(places, first, repository) == 0
    assert run(places, second, repository) == 2
    (places.benchmark / "procedural-001.npz").unlink()
    assert run(places, first, repository) == 0, "made again from its row, the scan is the same"
    benchmark.save_case(places.benchmark / "procedural-001.npz",
                        benchmark.load_case(places.benchmark / "procedural-001.npz").row,
                        benchmark.load_case(places.benchmark / "procedural-002.npz").case)
    assert run(places, first, repository) == 1


def test_two_workers_measure_what_one_does_and_keep_it(places: Places, repository: Path) -> None:
    """With the released networks, which find no sacrum in scans of nothing."""
    config = load_config(repository / "configs/smoke/evaluate.yaml", EvaluateConfig)
    scans = load_config(repository / "configs/smoke/benchmark.yaml", BenchmarkConfig)
    shared = evaluate.main(config, scans, bundle=default_bundle(), places=places, now=NOW, how=How(workers=2))
    assert [record.reasons for record in shared] == [("no sacrum was found in the scan",)] * 2
    kept = {path.name: path.stat().st_mtime_ns for path in places.records.rglob("*.json")}
    assert sorted(kept) == ["procedural-001.json", "procedural-002.json"]
    alone = evaluate.main(config, scans, bundle=default_bundle(), places=places, now=NOW)
    assert alone == shared
    assert Refusing.asked == 0, "what the two have finished is not scored again"


def test_a_damaged_record_is_measured_again(places: Places, tmp_path: Path, repository: Path) -> None:
    bundle = bundle_in(tmp_path / "released")
    run(places, bundle, repository)
    kept = sorted(places.records.rglob("*.json"))
    kept[0].write_text("{")
    assert run(places, bundle, repository) == 1


def test_other_stages_keep_their_circumstances(tmp_path: Path) -> None:
    bundle = bundle_in(tmp_path / "released")
    for stage in ("benchmark", "real_ct"):
        note_about(tmp_path, stage, circumstances(bundle, now=NOW, data="d"))
    assert set(json.loads((tmp_path / "about.json").read_text())) == {"benchmark", "real_ct"}


def test_the_machine_is_named_in_words() -> None:
    assert "GiB memory" in machine()
