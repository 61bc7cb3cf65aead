"""Nobody is on both sides: each way in which a patient could be fails with its own reason."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sacroleak.core.config import load_config, parse_config
from sacroleak.core.errors import ConfigError, ManifestError
from sacroleak.training import split
from sacroleak.training.split import SplitConfig, check_anatomies, check_benchmark, check_prepared

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def config(repository: Path) -> SplitConfig:
    """The committed configuration, its manifests found from anywhere."""
    given = load_config(repository / "configs/split.yaml", SplitConfig)
    return given.model_copy(update={"anatomy_manifest": repository / given.anatomy_manifest,
                                    "benchmark_manifest": repository / given.benchmark_manifest})


def table(path: Path) -> Rows:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def rows(*pairs: tuple[str, str]) -> Rows:
    return [{"anatomy": name, "split": where} for name, where in pairs]


def patients(count: int = 6) -> Sequence[tuple[str, str]]:
    return [(f"jhu-{n:02d}", "test") for n in range(count)]


def scan(anatomy: str, source: str = "surface") -> Rows:
    return [{"case_id": "case-1", "anatomy": anatomy, "source": source}]


def bones(path: Path, *, name: str | None = None, sacrum: int = 0) -> Path:
    """A prepared file with as much in it as the check reads."""
    np.savez(path, name=np.array(name or path.stem), field_sacrum=np.full((2, 2, 2), sacrum, dtype=np.int8))
    return path


def test_the_committed_manifests_pass(config: SplitConfig, anatomies: Path, tmp_path: Path) -> None:
    verdict = split.main(config, anatomies=anatomies, out=tmp_path / "split.json")
    assert json.loads((tmp_path / "split.json").read_text()) == verdict
    held_out = verdict["test"]
    assert isinstance(held_out, dict)
    assert len(held_out["patients"]) >= 6
    assert verdict["prepared"] == {"train": 2, "validation": 0, "test": 0}


@pytest.mark.parametrize("extra", [
    (("jhu-40", "train"), ("jhu-40", "train")), (("jhu-40", "train"), ("jhu-40", "test")),
])
def test_a_patient_with_two_rows_is_refused(config: SplitConfig, extra: Sequence[tuple[str, str]]) -> None:
    with pytest.raises(ManifestError, match="jhu-40: has two rows"):
        check_anatomies(rows(*patients(), *extra), config)


def test_two_anatomies_of_one_patient_in_two_splits_are_refused(config: SplitConfig) -> None:
    text = {"kinds": [{"name": "patients", "pattern": r"(p\d+)(-[ab])?", "real": True}]}
    two = config.model_copy(update={"kinds": SplitConfig.model_validate(config.model_dump() | text).kinds})
    held_out = [(f"p{n}", "test") for n in range(6)]
    assert check_anatomies(rows(*held_out, ("p9-a", "train"), ("p9-b", "train")), two)["p9-b"] == "train"
    with pytest.raises(ManifestError, match=r"p9: is in train and, as p9-b, in test; a person has one split"):
        check_anatomies(rows(*held_out, ("p9-a", "train"), ("p9-b", "test")), two)


def test_a_derived_anatomy_is_never_for_the_test(config: SplitConfig) -> None:
    with pytest.raises(ManifestError, match="shape-000: is in test, but made from patients of train"):
        check_anatomies(rows(*patients(), ("shape-000", "test")), config)
    assert check_anatomies(rows(*patients(), ("shape-000", "validation")), config)["shape-000"] == "validation"


def test_six_real_patients_are_held_out(config: SplitConfig) -> None:
    assert len(check_anatomies(rows(*patients(6)), config)) == 6
    with pytest.raises(ManifestError, match="5 real patients held out for the test, wanted at least 6"):
        check_anatomies(rows(*patients(5), ("procedural-000", "test")), config)


def test_an_anatomy_of_no_kind_or_split_is_refused(config: SplitConfig) -> None:
    with pytest.raises(ManifestError, match="someone: is of 0 kinds"):
        check_anatomies(rows(*patients(), ("someone", "train")), config)
    with pytest.raises(ManifestError, match="jhu-40: split 'Train', wanted one of train, validation, test"):
        check_anatomies(rows(*patients(), ("jhu-40", "Train")), config)


@pytest.mark.parametrize("where", ["train", "validation"])
def test_a_benchmark_scan_of_someone_not_held_out_is_refused(config: SplitConfig, where: str) -> None:
    with pytest.raises(ManifestError, match=f"case-1: shows jhu-40, who is in {where}; wanted test"):
        check_benchmark(scan("jhu-40"), {"jhu-40": where}, config)


def test_a_benchmark_scan_of_a_stranger_is_refused(config: SplitConfig) -> None:
    with pytest.raises(ManifestError, match="case-1: shows jhu-40, who is in no split"):
        check_benchmark(scan("jhu-40"), {"jhu-41": "test"}, config)


def test_a_procedural_benchmark_scan_bears_no_name_of_a_training_pelvis(config: SplitConfig) -> None:
    check_benchmark(scan("procedural-test-01", "procedural"), {"procedural-000": "train"}, config)
    with pytest.raises(ManifestError, match="case-1: is drawn under the name of procedural-000"):
        check_benchmark(scan("procedural-000", "procedural"), {"procedural-000": "train"}, config)


def test_a_leak_in_the_committed_benchmark_would_be_seen(config: SplitConfig) -> None:
    """Move one patient of the benchmark to training, as an edit of the manifest by mistake would."""
    given = table(config.anatomy_manifest)
    case = next(row for row in table(config.benchmark_manifest) if row["source"] == "surface")
    moved = [row | {"split": "train"} if row["anatomy"] == case["anatomy"] else row for row in given]
    splits = check_anatomies(moved, config)
    with pytest.raises(ManifestError, match=f"{case['case_id']}: shows {case['anatomy']}, who is in train"):
        check_benchmark(table(config.benchmark_manifest), splits, config)


def test_a_prepared_file_needs_a_row_and_holds_its_own_bones(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="jhu-40: is prepared but has no row"):
        check_prepared([bones(tmp_path / "jhu-40.npz")], {})
    with pytest.raises(ManifestError, match="jhu-41: holds the bones of jhu-40"):
        check_prepared([bones(tmp_path / "jhu-41.npz", name="jhu-40")], {"jhu-41": "train"})


def test_the_same_sacrum_under_two_names_stays_in_one_split(tmp_path: Path) -> None:
    files = [bones(tmp_path / "jhu-40.npz", sacrum=1), bones(tmp_path / "jhu-41.npz", sacrum=1),
             bones(tmp_path / "jhu-42.npz", sacrum=2)]
    check_prepared(files, {"jhu-40": "train", "jhu-41": "train", "jhu-42": "test"})
    with pytest.raises(ManifestError, match="jhu-41: has the sacrum of jhu-40, which is in train"):
        check_prepared(files, {"jhu-40": "train", "jhu-41": "test", "jhu-42": "test"})


def test_a_failed_check_writes_no_verdict(config: SplitConfig, anatomies: Path, tmp_path: Path) -> None:
    shutil.copytree(anatomies, tmp_path / "anatomies")
    bones(tmp_path / "anatomies/stranger.npz")
    with pytest.raises(ManifestError, match="stranger"):
        split.main(config, anatomies=tmp_path / "anatomies", out=tmp_path / "split.json")
    assert not (tmp_path / "split.json").exists()


def test_each_committed_anatomy_is_of_one_kind(config: SplitConfig) -> None:
    for row in table(config.anatomy_manifest):
        kind, person = config.kind_of(row["anatomy"])
        assert re.fullmatch(kind.pattern, row["anatomy"])
        assert row["anatomy"].startswith(person)


@pytest.mark.parametrize(("kinds", "message"), [
    ("[{name: a, pattern: '('}]", "no regular expression"),
    ("[{name: a, pattern: x, derived_from: b}]", "derived from b, which is no kind"),
])
def test_a_wrong_configuration_is_refused(kinds: str, message: str) -> None:
    text = f"kinds: {kinds}\nanatomy_manifest: a.csv\nbenchmark_manifest: b.csv\nheld_out: 6\n"
    with pytest.raises(ConfigError, match=message):
        parse_config(text, SplitConfig, name="split.yaml")
