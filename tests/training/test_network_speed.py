"""Operations of a graph are those counted by hand, calls are counted, and the marks reach the one file of them all."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from sacroleak.core.config import load_config
from sacroleak.core.errors import ConfigError
from sacroleak.models import networks
from sacroleak.models.bundle import default_bundle
from sacroleak.models.effort import Effort
from sacroleak.training import network_speed
from sacroleak.training.circumstances import circumstances
from sacroleak.training.intervals import Figure
from sacroleak.training.metrics_files import join_segmenter, note_about, write_metrics
from sacroleak.training.network_speed import NetworkSpeedConfig, Timed, main, operations, peak_tests, scan_of
from tests.models.coded_scan import CodedNetwork, Scan

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def config(repository: Path) -> NetworkSpeedConfig:
    chosen = load_config(repository / "configs/network_speed.yaml", NetworkSpeedConfig)
    paths = {name: repository / getattr(chosen, name) for name in ("manifest", "anatomy_manifest")}
    return chosen.model_copy(update={"threads": 1, "repeats": 2, "matrix": 64, **paths})


def test_operations_of_a_graph_are_counted_forwards_and_backwards(tmp_path: Path) -> None:
    """2 channels to 4 at half the sides, then back to 3 at the whole: each weight once a voxel."""
    image = ops.parameter([1, 2, -1, -1, -1], np.float32)
    weights = ops.constant(np.ones((4, 2, 3, 3, 3), np.float32))
    down = ops.convolution(image, weights, [2] * 3, [1] * 3, [1] * 3, [1] * 3)
    up = ops.convolution_backprop_data(down, ops.constant(np.ones((4, 3, 2, 2, 2), np.float32)), [2] * 3)
    openvino.save_model(openvino.Model([up], [image], "u"), tmp_path / "u.xml", compress_to_fp16=False)
    assert operations(tmp_path / "u.xml", (16, 16, 32)) == 2 * (4 * 2 * 27 + 4 * 3 * 8) * 8 * 8 * 16


def test_the_released_fine_network_does_what_its_filters_say() -> None:
    bundle = default_bundle()
    once, wide = (operations(bundle.network_path("fine"), sides) for sides in ((32, 32, 32), (64, 32, 32)))
    assert wide == pytest.approx(2 * once, rel=1e-6)
    assert once > 2 * 32**3 * 27 * 8 * 8, "the two convolutions of the finest level alone do more"


def test_calls_and_seconds_are_counted() -> None:
    timed = Timed(network=CodedNetwork())
    for sides in ((16, 16, 16), (16, 16, 16), (32, 16, 16)):
        timed(np.zeros((2, *sides), np.float32))
    assert timed.calls == {(16, 16, 16): 2, (32, 16, 16): 1}
    alone = timed.seconds
    assert alone > 0
    many = list(timed.many(np.zeros((2, side, 16, 16), np.float32) for side in (16, 48)))
    assert [answer.shape[1] for answer in many] == [16, 48]
    assert timed.calls == {(16, 16, 16): 3, (32, 16, 16): 1, (48, 16, 16): 1}
    assert timed.seconds > alone


def test_each_test_of_the_peak_runs_and_knows_its_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_speed, "SIDE_OF_PEAK", 8)
    tests = peak_tests(32, 1, "f32")
    assert {name: count for name, (_, count) in tests.items()} == {
        "matrix": 2 * 32**3, "convolution": 2 * 64 * 64 * 27 * 8**3}
    for run, _ in tests.values():
        run()


def test_the_marks_reach_the_segmenters_file_if_the_release_is_the_same(
        config: NetworkSpeedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a small scan without a network's weights in it: which calls are made is what counts."""
    monkeypatch.setattr(network_speed, "SIDE_OF_PEAK", 8)
    monkeypatch.setattr(networks, "OpenVinoNetwork", lambda _path, threads, precision: CodedNetwork())
    monkeypatch.setattr(network_speed, "scan_of", lambda _config, _anatomies: Scan(cement_ml=4.0).volume())
    bundle = default_bundle()
    write_metrics(tmp_path / "segmenter.json", {"sacrum_dice": Figure(value=0.9, n=3),
                                                "network_seconds": Figure(value=99.0, n=1)})
    note_about(tmp_path, "benchmark", circumstances(bundle, now=NOW, data="d"))
    main(config, bundle=bundle, anatomies=tmp_path, metrics=tmp_path, now=NOW)
    speed, joined = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("network_speed", "segmenter"))
    assert speed["network_seconds"]["n"] == 2
    assert all(f"network_seconds[effort={effort}]" in speed for effort in Effort)
    assert speed["fine_calls"]["value"] == 4, "both ways, with the cement seen and hidden"
    assert speed["network_share_of_peak"]["value"] > 0
    assert joined["network_seconds"] == speed["network_seconds"]
    assert joined["sacrum_dice"]["value"] == 0.9

    about = json.loads((tmp_path / "about.json").read_text())
    about["network_speed"]["bundle_digest"] = "0" * 64
    (tmp_path / "about.json").write_text(json.dumps(about))
    join_segmenter(tmp_path)
    assert set(json.loads((tmp_path / "segmenter.json").read_text())) == {"sacrum_dice"}


def test_an_unknown_row_is_refused(config: NetworkSpeedConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"benchmark.csv: no row procedural-999"):
        scan_of(config.model_copy(update={"case_id": "procedural-999"}), tmp_path)
