"""Releases: written whole, verified file by file, refused when anything is not what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sacroleak.core.errors import ModelError
from sacroleak.models.bundle import (
    Bundle,
    BundleDraft,
    IntensityWindow,
    NetworkDraft,
    TrainingData,
    default_bundle,
    load_bundle,
    released_names,
    write_bundle,
)

NETWORKS = {"coarse": b"coarse network", "fine": b"fine network"}
Write = Callable[..., Bundle]


def draft(**changes: Any) -> BundleDraft:
    network = {key: NetworkDraft(file=f"{key}.onnx", spacing_mm=(2.0, 2.0, 2.0), tile=(96, 80, 80), outputs=["sacrum"])
               for key in NETWORKS}
    values: dict[str, Any] = {
        "name": "first", "version": "1", "created": datetime(2026, 1, 1, tzinfo=UTC), "networks": network,
        "intensity": (IntensityWindow(low_hu=-1000, high_hu=3000),), "training": {"samples": 10},
        "training_data": [TrainingData(name="made up", licence="CC0", source="here")],
    }
    return BundleDraft(**(values | changes))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def go(*, classifier: bytes | None = None, **changes: Any) -> Bundle:
        return write_bundle(tmp_path, draft(**changes), networks=NETWORKS, card="# Card\n", licences="CC0\n",
                            classifier=classifier)

    return go


def test_what_is_written_is_read_back(write: Write) -> None:
    bundle = write()
    assert bundle.name == "first 1"
    assert bundle.network_path("fine").read_bytes() == NETWORKS["fine"]
    assert bundle.card() == "# Card\n"
    assert bundle.index.structures == ["background", "sacrum", "sacral_canal", "hip_left", "hip_right", "l5"]
    assert sorted(p.name for p in bundle.folder.parent.iterdir()) == ["first"], "nothing unfinished is left"


@pytest.mark.parametrize("name", ["fine.onnx", "MODEL_CARD.md", "LICENSES"])
@pytest.mark.parametrize("harm", [lambda p: p.write_bytes(p.read_bytes() + b" "), lambda p: p.unlink()])
def test_every_file_is_verified(write: Write, name: str, harm: Callable[[Path], None]) -> None:
    folder = write().folder
    harm(folder / name)
    with pytest.raises(ModelError, match=name):
        load_bundle(folder)


@pytest.mark.parametrize("edit", [
    lambda d: d.update(extra=1), lambda d: d["networks"].pop("fine"), lambda d: d.pop("created"),
    lambda d: d.update(format=2), lambda d: d["networks"]["fine"].update(file="../fine.onnx"),
    lambda d: d["networks"]["fine"].update(file="fine.pkl"), lambda d: d["files"].pop("LICENSES"),
    lambda d: d["intensity"][0].update(low_hu=9000),
])
def test_an_index_that_is_not_exactly_right_is_refused(write: Write, edit: Callable[[dict[str, Any]], None]) -> None:
    path = write().folder / "bundle.json"
    index = json.loads(path.read_text())
    edit(index)
    path.write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"bundle first: bundle\.json"):
        load_bundle(path.parent)


def test_the_digest_changes_with_any_content(write: Write) -> None:
    assert write().digest == write().digest
    assert write().digest != write(training={"samples": 11}).digest


def test_a_classifier_is_optional_and_verified_like_every_file(write: Write) -> None:
    assert write().classifier_path is None
    bundle = write(classifier=b"{}")
    assert bundle.classifier_path is not None
    assert bundle.classifier_path.read_bytes() == b"{}"
    bundle.classifier_path.write_bytes(b"[]")
    with pytest.raises(ModelError, match=r"classifier\.json is damaged"):
        load_bundle(bundle.folder)


def test_networks_given_and_described_must_match(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="described"):
        write_bundle(tmp_path, draft(), networks={"coarse": b"1"}, card="", licences="")
    assert list(tmp_path.iterdir()) == []


def test_only_onnx_may_be_described() -> None:
    with pytest.raises(ValidationError):
        NetworkDraft(file="fine.pkl", spacing_mm=(1, 1, 1), tile=(16, 16, 16), outputs=[])


def test_an_unknown_network_is_named_with_those_there_are(write: Write) -> None:
    with pytest.raises(ModelError, match="no network patch, it has coarse, fine"):
        write().network_path("patch")


def test_the_champion_is_the_default(write: Write, tmp_path: Path) -> None:
    write()
    write(name="second", version="2")
    (tmp_path / "CHAMPION").write_text("second\n")
    assert released_names(tmp_path) == ("first", "second")
    assert default_bundle(tmp_path).name == "second 2"


@pytest.mark.parametrize("champion", ["third", "../elsewhere", ""])
def test_a_champion_that_is_not_there_is_refused(write: Write, tmp_path: Path, champion: str) -> None:
    write()
    (tmp_path / "CHAMPION").write_text(champion)
    with pytest.raises(ModelError, match="give --bundle PATH"):
        default_bundle(tmp_path)


def test_without_any_release_the_error_says_what_to_give(tmp_path: Path) -> None:
    assert released_names(tmp_path / "none") == ()
    with pytest.raises(ModelError, match="give --bundle PATH"):
        default_bundle(tmp_path / "none")
