"""Stage: exported networks, their card and their licences become a released model that scoring can trust."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sacroleak.core.config import load_config
from sacroleak.core.errors import ModelError
from sacroleak.core.whole import sha256_of, write_whole
from sacroleak.models.bundle import (
    CHAMPION,
    CLASSIFIER,
    Bundle,
    BundleDraft,
    IntensityWindow,
    NetworkDraft,
    TrainingData,
    write_bundle,
)
from sacroleak.models.classifier import LeakClassifier
from sacroleak.models.intensity import WINDOWS_HU
from sacroleak.training.manifests import splits_of
from sacroleak.training.tracking import BUNDLE_FOLDER, tracked
from sacroleak.training.train_segmenter import TrainConfig

OUTPUTS = ["background", "sacrum", "sacral_canal", "hip_left", "hip_right", "l5", "cement", "metal"]

PASSES = {
    "coarse": "The coarse one finds the sacrum anywhere in a CT on a {mm:g} mm grid.",
    "fine": "The fine one labels sacrum, sacral canal, hip bones and L5 *as if no cement were there*, and cement and "
            "metal, on a {mm:g} mm grid around it.",
    "near": "The near one looks again at cement, metal and the bones beside them, on a {mm:g} mm grid, only around all "
            "that may be cement.",
    "under": "The one for what lies under cement says on a {mm:g} mm grid whether bone lies where cement is seen.",
}
"""What each network does, for the card. A release has the first two at least."""


class ReleaseConfig(BaseModel):
    """Name and version of the release and what its networks learned from."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    version: str
    training_data: tuple[TrainingData, ...]


Networks = dict[str, tuple[TrainConfig, Path]]
"""Pass -> (its config, its ONNX file)."""


def main(config: ReleaseConfig, *, networks: Networks, released: Path, manifest: Path, now: datetime,
         classifier: Path | None = None) -> Bundle:
    """Write `<released>/<name>/` whole and make it the champion; `classifier`: file of the train_classifier stage.

    Without it the release goes by the rules alone.
    Raises ModelError if it is not one this version can use.
    """
    facts = {name: json.loads(path.with_suffix(".json").read_text()) for name, (_, path) in networks.items()}
    held_out = _held_out(manifest)
    training = {f"{name}_{fact}": facts[name][fact] for fact in ("updates", "int8_changes") for name in networks
                if fact in facts[name]} | {"held_out_anatomies": held_out}
    draft = BundleDraft(
        name=config.name, version=config.version, created=now, training=training,
        intensity=tuple(IntensityWindow(low_hu=low, high_hu=high) for low, high in WINDOWS_HU),
        training_data=list(config.training_data),
        networks={name: _network(name, train) for name, (train, _) in networks.items()})
    by = RULES_ALONE if classifier is None else _by_classifier(LeakClassifier.load(classifier))
    bundle = write_bundle(released, draft, networks={name: path.read_bytes() for name, (_, path) in networks.items()},
                          card=_card(config, draft, by), licences=_licences(config),
                          classifier=None if classifier is None else classifier.read_bytes())
    write_whole(released / CHAMPION, f"{config.name}\n".encode())
    return bundle


def exported_networks(configs: Path, exported: Path) -> Networks:
    """What the export stage wrote, with the configurations in `configs`."""
    return {name: (load_config(configs / f"train_{name}.yaml", TrainConfig), exported / f"{name}.onnx")
            for name in PASSES}


def provisional(configs: Path, exported: Path, folder: Path, *, manifest: Path, now: datetime) -> Bundle:
    """The exported networks as a release below `folder`, without classifier, for stages before the real release."""
    folder.mkdir(parents=True, exist_ok=True)
    return main(load_config(configs / "release.yaml", ReleaseConfig), networks=exported_networks(configs, exported),
                released=folder, manifest=manifest, now=now)


def _network(name: str, train: TrainConfig) -> NetworkDraft:
    spacing = train.network.spacing_mm
    return NetworkDraft(file=f"{name}.onnx", spacing_mm=(spacing, spacing, spacing), tile=train.network.patch,
                        outputs=OUTPUTS)


def _held_out(manifest: Path) -> list[str]:
    names = [name for name, split in splits_of(manifest).items() if split == "test"]
    if len(names) < 6:
        raise ModelError(f"{manifest.name}: {len(names)} anatomies held out, wanted at least 6")
    return names


RULES_ALONE = "Sites are told by written rules alone; their scores are no calibrated probabilities."


def _by_classifier(classifier: LeakClassifier) -> str:
    """How sites are told, for the card."""
    learned = classifier.content.trained
    return (f"Sites are told by written rules and by a classifier together. It learned from {learned['parts']} "
            f"leak parts in {learned['cases']} simulated scans of {learned['patients']} virtual patients, as "
            "networks of this kind, not always these, saw them. Its probabilities are calibrated on such scans, not on "
            "patients.")


def _card(config: ReleaseConfig, draft: BundleDraft, by: str) -> str:
    held_out = draft.training["held_out_anatomies"]
    names = ", ".join(str(name) for name in held_out) if isinstance(held_out, list) else ""
    data = "\n".join(f"* {d.name} ({d.licence}): {d.source}" for d in config.training_data)
    updates = ", ".join(f"{name} {draft.training[f'{name}_updates']}" for name in draft.networks)
    return f"""# {config.name} {config.version}

For research. Not a medical device; not for diagnosis or treatment of anyone.

**What it does.** {_count(draft)} 3-D networks (MONAI DynUNet). {_passes(draft)}
{_in_8_bits(draft)}{by}

**What it learned from.** Only synthetic scans, rendered anew for every update from distance fields of bones, with
randomised tissue, lesions, cement, leaks, metal, noise, blur and field of view. Updates: {updates}. Never a real scan,
never a real cement leak.

{data}

**Held out for ever**, never used in training: {names}.

**What was measured.** See `docs/results.md`. Those cases are synthetic too, but for one real CT without cement.

**Known limits.** No scan after a real sacroplasty has been seen. Fractured or dysmorphic sacra, transitional
vertebrae, children and earlier pelvic surgery are outside what it learned.
"""


def _count(draft: BundleDraft) -> str:
    return {2: "Two", 3: "Three", 4: "Four"}.get(len(draft.networks), str(len(draft.networks)))


def _in_8_bits(draft: BundleDraft) -> str:
    changes = {name: draft.training[f"{name}_int8_changes"] for name in draft.networks
               if f"{name}_int8_changes" in draft.training}
    if not changes:
        return ""
    shares = ", ".join(f"{name} {share:.2%}" for name, share in changes.items())
    return (f"On processors that are quickest so, convolutions of {' and '.join(changes)} multiply 8-bit integers; of "
            f"the voxels of simulated samples these change their structure then: {shares}.\n")


def _passes(draft: BundleDraft) -> str:
    """One sentence a network, in the order a scan meets them."""
    return "\n".join(sentence.format(mm=draft.networks[name].spacing_mm[0])
                     for name, sentence in PASSES.items() if name in draft.networks)


def _licences(config: ReleaseConfig) -> str:
    rows = "\n".join(f"{d.name}\n  {d.licence}\n  {d.source}\n" for d in config.training_data)
    return f"The networks are released under Apache-2.0. They were trained on:\n\n{rows}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/release.yaml"))
    parser.add_argument("--configs", type=Path, default=Path("configs"), help="folder with train_coarse.yaml and so on")
    parser.add_argument("--exported", type=Path, default=Path("artifacts/export"))
    parser.add_argument("--manifest", type=Path, default=Path("data_manifests/anatomies.csv"))
    parser.add_argument("--classifier", type=Path, help="folder of the train_classifier stage")
    parser.add_argument("--released", type=Path, default=Path("models/released"))
    given = parser.parse_args()
    learned = None if given.classifier is None else given.classifier / CLASSIFIER
    settings = load_config(given.config, ReleaseConfig)
    with tracked("release", f"release {settings.name}") as run:
        made = main(settings, networks=exported_networks(given.configs, given.exported), released=given.released,
                    manifest=given.manifest, now=datetime.now(UTC),
                    classifier=learned if learned is not None and learned.is_file() else None)
        run.settings(settings)
        run.tags({"bundle": made.name, "bundle_digest": made.digest, "manifest_digest": sha256_of(given.manifest)})
        run.file(made.folder, BUNDLE_FOLDER)
