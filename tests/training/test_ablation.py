"""The stage with two trainings of three updates: equal but for what they lack, never twice, and every figure there."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from sacroleak.core.config import load_config
from sacroleak.core.errors import ConfigError, NotAssessableError
from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models import networks
from sacroleak.models.architecture import NetworkSpec
from sacroleak.models.bundle import default_bundle
from sacroleak.models.segmentation import Segmentation
from sacroleak.training import ablation, benchmark
from sacroleak.training.ablation import AblationConfig, Places, Way, main, patch_scores, release_figures, release_run
from sacroleak.training.intervals import Bootstrap
from sacroleak.training.sampling import SyntheticPatches
from tests.models.coded_scan import CodedNetwork, Scan
from tests.training.evaluation import record, result
from tests.training.test_evaluate import empty_case

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOOTSTRAP = Bootstrap(resamples=20, seed=1)
SPEC = NetworkSpec(name="fine", spacing_mm=3.0, patch=(64, 48, 64), filters=(2, 4))


class Refusing:
    def segment(self, ct: Volume) -> Segmentation:
        raise NotAssessableError(("no sacrum was found in the scan",))


def sacrum_of(ct: Volume) -> LabelMap:
    labels = np.where(ct.hu > 700, np.uint8(Structure.SACRUM), np.uint8(0))
    return LabelMap(labels=labels, geometry=ct.geometry)


@pytest.fixture
def places(tmp_path: Path, anatomies: Path) -> Places:
    return Places(anatomies=anatomies, benchmark=tmp_path / "scans", records=tmp_path / "records",
                  work=tmp_path / "work", metrics=tmp_path / "metrics")


@pytest.mark.filterwarnings("default")  # the ONNX exporter speaks of its own inside
def test_arms_differ_by_what_they_lack_and_are_trained_once(
        places: Places, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.setattr(benchmark, "make_case", empty_case)
    monkeypatch.setattr(ablation, "release_run", lambda *_args, **_more: Refusing())
    drawn: list[tuple[list[str], float, int]] = []
    iterate = SyntheticPatches.__iter__

    def noted(self: SyntheticPatches) -> object:
        drawn.append(([path.stem for path in self.files], self.wild_share, self.seed))
        return iterate(self)

    monkeypatch.setattr(SyntheticPatches, "__iter__", noted)
    config = load_config(repository / "configs/smoke/ablation.yaml", AblationConfig)
    for _ in range(2):
        main(config, bundle=default_bundle(), places=places, now=NOW)
    both = ["procedural-000", "procedural-001"]
    assert drawn == [(both, 0.5, 1), (both, 0.0, 1)], "and the second time nothing"
    figures = json.loads((places.metrics / "ablation_inference.json").read_text())
    assert figures["sacrum_dice[release=whole]"]["n"] == 0, "both scans were refused"
    assert (places.metrics / "ablation_training.json").is_file()
    assert {path.name.rpartition("-")[0] for path in places.work.iterdir()} == {"all-1", "realistic_only-1"}
    assert json.loads((places.metrics / "about.json").read_text())["ablation_training"]["bundle"]


def test_one_half_leaves_the_figures_of_the_other_as_they_are(places: Places, repository: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.setattr(benchmark, "make_case", empty_case)
    monkeypatch.setattr(ablation, "release_run", lambda *_args, **_more: Refusing())
    places.metrics.mkdir()
    (places.metrics / "ablation_training.json").write_text("{}")
    config = load_config(repository / "configs/smoke/ablation.yaml", AblationConfig)
    main(config.model_copy(update={"arms": ()}), bundle=default_bundle(), places=places, now=NOW)
    assert (places.metrics / "ablation_training.json").read_text() == "{}"
    assert not places.work.exists()
    assert set(json.loads((places.metrics / "about.json").read_text())) == {"ablation_inference"}


def test_an_arm_without_anatomies_is_refused(places: Places, repository: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.setattr(benchmark, "make_case", empty_case)
    config = load_config(repository / "configs/smoke/ablation.yaml", AblationConfig)
    arm = config.arms[0].model_copy(update={"anatomies": ("jhu-*",)})
    with pytest.raises(ConfigError, match=r"arm all: no training anatomy is called jhu-\*"):
        main(config.model_copy(update={"arms": (arm,)}), bundle=default_bundle(), places=places, now=NOW)


def test_a_patch_is_centred_on_the_sacrum_wherever_it_lies() -> None:
    scan = Scan(centre=(40.0, -30.0, 20.0), size_mm=(330.0, 240.0, 300.0))
    ct = scan.volume()
    scores = patch_scores(CodedNetwork(), SPEC, ct, sacrum_of(ct), None)
    assert scores["sacrum_dice"] is not None
    assert scores["sacrum_dice"] > 0.9
    assert scores["canal_dice"] is None, "the truth holds none"
    assert "cement_dice" not in scores


def test_without_a_true_sacrum_nothing_is_said() -> None:
    grid = Geometry.axis_aligned(origin_lps_mm=(0, 0, 0), spacing_mm=3.0, shape=(8, 8, 8))
    ct = Volume(hu=np.zeros(grid.shape, np.int16), geometry=grid)
    assert set(patch_scores(CodedNetwork(), SPEC, ct, sacrum_of(ct), None).values()) == {None}


def test_a_gain_is_what_the_whole_has_before_the_part_scan_by_scan() -> None:
    better = record(result())
    worse = record(result().model_copy(update={"cement_dice": 0.7}))
    refused = record(None)
    figures = release_figures({"whole": [better, better], "fast": [worse, refused]}, BOOTSTRAP)
    assert figures["cement_dice[release=whole]"].value == pytest.approx(0.9)
    gain = figures["gain_cement_dice[release=fast]"]
    assert gain.n == 1
    assert gain.value == pytest.approx(0.2)
    assert "gain_cement_dice[release=whole]" not in figures


def test_the_release_runs_with_each_part_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by how often the networks are asked about one scan with cement."""
    made: dict[str, CodedNetwork] = {}

    def network(path: Path, threads: int, precision: str) -> CodedNetwork:
        made[path.stem] = CodedNetwork()
        return made[path.stem]

    monkeypatch.setattr(networks, "OpenVinoNetwork", network)
    bundle, ct = default_bundle(), Scan(cement_ml=4.0).volume()
    asked = {}
    for way in get_args(Way):
        release_run(bundle, way, threads=1).segment(ct)
        asked[way] = {name: one.asked for name, one in made.items()}
    assert asked["whole"]["fine"] == asked["without_near"]["fine"] == 4
    assert asked["without_near"]["near"] == asked["without_near"]["under"] == asked["without_under"]["under"] == 0
    assert asked["without_under"]["near"] == asked["whole"]["near"]
    assert asked["careful"]["under"] == 2 * asked["whole"]["under"] > 0
    assert asked["without_second_look"]["fine"] == 2
    assert asked["fast"]["fine"] == 3, "once with the cement in sight, and once for each way to hide it"
    assert asked["careful"]["near"] == 2 * asked["whole"]["near"] > asked["without_second_look"]["near"] > 0
