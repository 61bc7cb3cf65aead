"""Which anatomies there are, and that no held-out patient is ever among those to train on."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from sacroleak.core.errors import ConfigError, ManifestError
from sacroleak.training.manifests import anatomies_of


def rows(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def splits(manifest: Path) -> dict[str, str]:
    return {row["anatomy"]: row["split"] for row in rows(manifest)}


def test_at_least_six_real_patients_are_held_out_and_none_is_in_two_parts(manifest: Path) -> None:
    names = [row["anatomy"] for row in rows(manifest)]
    assert len(names) == len(set(names))
    held_out = [name for name, split in splits(manifest).items() if split == "test" and name.startswith("jhu-")]
    assert len(held_out) >= 6
    assert set(splits(manifest).values()) <= {"train", "validation", "test"}


def test_training_never_meets_a_held_out_patient(manifest: Path, tmp_path: Path) -> None:
    for name in splits(manifest):
        (tmp_path / f"{name}.npz").touch()
    train = {path.stem for path in anatomies_of("train", tmp_path, manifest)}
    test = {path.stem for path in anatomies_of("test", tmp_path, manifest)}
    assert train
    assert test
    assert not train & test
    assert {splits(manifest)[name] for name in train} == {"train"}


def test_an_anatomy_without_a_row_is_refused(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "procedural-000.npz").touch()
    (tmp_path / "somebody.npz").touch()
    with pytest.raises(ConfigError, match=r"no row for somebody; every anatomy needs a split"):
        anatomies_of("train", tmp_path, manifest)


def test_an_empty_folder_is_refused(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none of the \d+ anatomies of split train is there; run the prepare stage"):
        anatomies_of("train", tmp_path, manifest)


def test_without_a_manifest_nothing_has_a_split(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such manifest"):
        anatomies_of("train", tmp_path, tmp_path / "none.csv")
