"""A release: whole, verified, usable, with its held-out patients and its licences named."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sacroleak.core.config import load_config
from sacroleak.core.errors import ModelError
from sacroleak.core.structures import Structure
from sacroleak.models.bundle import Bundle, default_bundle, load_bundle
from sacroleak.models.classifier import load_classifier
from sacroleak.models.networks import load_segmenter
from sacroleak.training import export, release
from sacroleak.training.fit_classifier import fit
from sacroleak.training.release import OUTPUTS, ReleaseConfig
from sacroleak.training.train_segmenter import TrainConfig, Trainer
from tests.training.leak_parts import SMALL, made_up

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning",
                                        "ignore::torch.jit.TracerWarning")  # the exporter speaks of its own inside

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Networks = dict[str, tuple[TrainConfig, Path]]


@pytest.fixture(scope="module")
def config(repository: Path) -> ReleaseConfig:
    return load_config(repository / "configs/smoke/release.yaml", ReleaseConfig)


@pytest.fixture(scope="module")
def networks(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Networks:
    """All smoke networks, untrained and exported."""
    folder = tmp_path_factory.mktemp("export")
    exported: Networks = {}
    for name in ("coarse", "fine", "near", "under"):
        train = load_config(repository / f"configs/smoke/train_{name}.yaml", TrainConfig)
        Trainer(train, device="cpu").save(folder / f"{name}.pt")
        path = export.main(train, checkpoint=folder / f"{name}.pt", out=folder / f"{name}.onnx")
        exported[name] = (train, path)
    return exported


@pytest.fixture
def bundle(config: ReleaseConfig, networks: Networks, manifest: Path, tmp_path: Path) -> Bundle:
    return release.main(config, networks=networks, released=tmp_path, manifest=manifest, now=NOW)


def test_a_release_is_verified_and_becomes_the_champion(bundle: Bundle, tmp_path: Path) -> None:
    assert load_bundle(bundle.folder).digest == bundle.digest
    assert default_bundle(tmp_path).digest == bundle.digest
    assert bundle.index.created == NOW
    assert bundle.index.networks["fine"].tile == (48, 32, 32)
    assert bundle.index.networks["coarse"].spacing_mm == (10.0, 10.0, 10.0)
    assert bundle.index.networks["near"].spacing_mm == (1.0, 1.0, 1.0)


def test_a_release_can_score(bundle: Bundle) -> None:
    assert hasattr(load_segmenter(bundle, threads=1), "segment")


def test_the_card_says_what_8_bits_change(config: ReleaseConfig, networks: Networks, manifest: Path,
                                          tmp_path: Path) -> None:
    ready: Networks = {}
    for name, (train, path) in networks.items():
        ready[name] = (train, tmp_path / path.name)
        ready[name][1].write_bytes(path.read_bytes())
        facts = {"updates": 5, "int8_changes": 0.0042} if name == "near" else {"updates": 5}
        ready[name][1].with_suffix(".json").write_text(json.dumps(facts))
    bundle = release.main(config, networks=ready, released=tmp_path / "released", manifest=manifest, now=NOW)
    assert bundle.index.training["near_int8_changes"] == 0.0042
    assert "change their structure then: near 0.42%." in bundle.card()


def test_a_release_without_the_near_network_can_score(config: ReleaseConfig, networks: Networks, manifest: Path,
                                                      tmp_path: Path) -> None:
    two = {name: networks[name] for name in ("coarse", "fine")}
    bundle = release.main(config, networks=two, released=tmp_path, manifest=manifest, now=NOW)
    assert set(bundle.index.networks) == {"coarse", "fine"}
    assert hasattr(load_segmenter(load_bundle(bundle.folder), threads=1), "segment")
    card = bundle.card()
    assert "Two 3-D networks" in card
    assert "near" not in card
    assert "under cement" not in card


def test_a_release_takes_the_classifier_along_and_its_card_says_so(
        config: ReleaseConfig, networks: Networks, manifest: Path, tmp_path: Path, bundle: Bundle) -> None:
    assert load_classifier(bundle) is None
    assert "rules alone" in bundle.card()
    learned = fit(made_up(0, 20), SMALL, {})
    (tmp_path / "classifier.json").write_text(learned.model_dump_json())
    with_one = release.main(config, networks=networks, released=tmp_path, manifest=manifest, now=NOW,
                            classifier=tmp_path / "classifier.json")
    loaded = load_classifier(with_one)
    assert loaded is not None
    assert loaded.content == learned
    assert f"{learned.trained['parts']} leak parts in 20 simulated scans" in with_one.card()
    assert with_one.digest != bundle.digest


def test_a_release_for_other_intensities_is_refused(bundle: Bundle) -> None:
    window = bundle.index.intensity[0].model_copy(update={"low_hu": -1.0})
    index = bundle.index.model_copy(update={"intensity": (window, *bundle.index.intensity[1:])})
    with pytest.raises(ModelError, match="expects intensity windows"):
        load_segmenter(Bundle(folder=bundle.folder, index=index, digest=bundle.digest), threads=1)


def test_the_card_names_licences_and_held_out_patients(bundle: Bundle) -> None:
    held_out = bundle.index.training["held_out_anatomies"]
    assert isinstance(held_out, list)
    assert len(held_out) >= 6
    card = bundle.card()
    assert all(str(name) in card for name in held_out)
    assert "Procedural pelvises (2)" in card
    assert "Not a medical device" in card
    assert "Four 3-D networks" in card
    assert "on a 10 mm grid" in card, "the card gives the grids of these networks, not of others"
    assert "on a 1 mm grid, only around all that may be cement" in card
    assert "Apache-2.0" in (bundle.folder / "LICENSES").read_text()


def test_the_channels_are_the_structures_in_their_order() -> None:
    assert OUTPUTS[: Structure.CEMENT] == [s.name.lower() for s in list(Structure)[: Structure.CEMENT]]
    assert OUTPUTS[Structure.CEMENT:] == ["cement", "metal"]


def test_too_few_held_out_patients_are_refused(config: ReleaseConfig, networks: Networks, tmp_path: Path) -> None:
    manifest = tmp_path / "anatomies.csv"
    rows = [f"jhu-{n:02d},somewhere,{'test' if n < 5 else 'train'},CC0" for n in range(9)]
    manifest.write_text("\n".join(["anatomy,source,split,licence", *rows]) + "\n")
    with pytest.raises(ModelError, match="5 anatomies held out, wanted at least 6"):
        release.main(config, networks=networks, released=tmp_path / "released", manifest=manifest, now=NOW)
    assert not (tmp_path / "released").exists()
