"""The pipeline's description fits the code: commands, options, files, and the order of the stages."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sacroleak.training.seen_cases import SEGMENTED_BY

NETWORKS = ("coarse", "fine", "near", "under")
STAGES = ("prepare", "split", *(f"train@{n}" for n in NETWORKS[:-1]), "train_under", *(f"export@{n}" for n in NETWORKS),
          *(f"quantise@{n}" for n in NETWORKS),
          "extract_features", "train_classifier", "release", "benchmark", "evaluate", "register")
Stages = dict[str, dict[str, Any]]


def filled(value: Any, names: dict[str, str]) -> Any:
    """`value` with each ${name} replaced, in lists, mappings and texts alike."""
    if isinstance(value, dict):
        return {filled(key, names): filled(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, names) for inner in value]
    return re.sub(r"\$\{([\w.]+)\}", lambda found: names[found[1]], value) if isinstance(value, str) else value


def stages_of(repository: Path, parameters: str) -> Stages:
    """Stages of dvc.yaml with their names filled in, one for each element of a matrix."""
    names = yaml.safe_load((repository / parameters).read_text(encoding="utf-8"))
    found: Stages = {}
    for name, stage in yaml.safe_load((repository / "dvc.yaml").read_text(encoding="utf-8"))["stages"].items():
        for network in stage.pop("matrix", {"network": [None]})["network"]:
            found[f"{name}@{network}" if network else name] = filled(stage, names | {"item.network": str(network)})
    return found


@pytest.fixture(scope="module")
def stages(repository: Path) -> Stages:
    """The stages of the real run."""
    return stages_of(repository, "params.yaml")


def outputs(stage: dict[str, Any]) -> set[str]:
    """Paths a stage writes."""
    entries = [*stage.get("outs", []), *stage.get("metrics", [])]
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


def module_of(command: str) -> str:
    words = shlex.split(command)
    assert words[:2] == ["python", "-m"]
    return words[2]


def test_the_classifier_is_learned_anew_whenever_scans_are_seen_otherwise(stages: Stages) -> None:
    assert {f"models/{name}" for name in SEGMENTED_BY} <= set(stages["extract_features"]["deps"])


def test_all_that_a_segmenter_imports_decides_what_is_seen(repository: Path) -> None:
    """But for what loads a release, runs it on a graphics card, or only carries labels from grid to grid."""
    assert imported_by("networks", repository) - {"architecture", "bundle", "graphics", "label_grids"} == {
        Path(name).stem for name in SEGMENTED_BY}


def test_the_classifier_is_learned_anew_whenever_parts_are_measured_otherwise(
        stages: Stages, repository: Path) -> None:
    measured_by = imported_by("parts", repository) | imported_by("feature_vector", repository)
    assert {f"models/{name}.py" for name in measured_by} <= set(stages["extract_features"]["deps"])


def imported_by(name: str, repository: Path) -> set[str]:
    """The modules of the models' room that one of them needs, itself among them."""
    reached, left = {name}, [name]
    while left:
        text = (repository / f"models/{left.pop()}.py").read_text(encoding="utf-8")
        new = set(re.findall(r"from sacroleak\.models\.(\w+) import", text)) - reached
        reached |= new
        left += new
    return reached


def test_every_stage_is_there(stages: Stages) -> None:
    assert tuple(stages) == STAGES


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_runs_a_module_with_a_main(stages: Stages, name: str) -> None:
    module = importlib.import_module(module_of(stages[name]["cmd"]))
    assert callable(module.main)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_names_files_that_exist_and_depends_on_its_config_and_code(
        stages: Stages, name: str, repository: Path) -> None:
    stage = stages[name]
    configs = re.findall(r"configs/\S+\.yaml", stage["cmd"])
    assert configs
    assert set(configs) <= set(stage["deps"])
    made = {path for other in stages.values() for path in outputs(other)}
    given = {"artifacts/surfaces"}
    missing = [path for path in stage["deps"] if path not in made | given and not (repository / path).exists()]
    assert missing == []
    code = module_of(stage["cmd"]).removeprefix("sacroleak.").replace(".", "/") + ".py"
    assert code in stage["deps"]


def test_what_a_stage_needs_an_earlier_one_writes(stages: Stages) -> None:
    written: set[str] = set()
    for name, stage in stages.items():
        needed = {path for path in stage["deps"] if path.startswith("artifacts/") and path != "artifacts/surfaces"}
        assert needed <= written, name
        assert not outputs(stage) & written, "no two stages write one path"
        written |= outputs(stage)


def test_the_smoke_run_is_the_same_chain_and_writes_over_nothing_real(repository: Path, stages: Stages) -> None:
    smoke = stages_of(repository, "configs/smoke/params.yaml")
    assert smoke.keys() == stages.keys()
    for name, stage in smoke.items():
        assert all(path.startswith("artifacts/smoke/") for path in outputs(stage)), name
        configs = re.findall(r"configs/\S+\.yaml", stage["cmd"])
        assert configs
        assert all(path.startswith("configs/smoke/") for path in configs), name
        assert all((repository / path).is_file() for path in configs), name


def test_nothing_is_trained_or_measured_before_the_split_is_checked(stages: Stages) -> None:
    for name, stage in stages.items():
        if name.startswith(("train", "quantise", "extract", "release", "benchmark")):
            assert "artifacts/split.json" in stage["deps"], name


MADE_BY = {"export": ["export", "quantise"], "classifier": ["extract_features", "train_classifier"]}
"""Stages of a make target that has another name than its stage."""


@pytest.mark.parametrize("target", ["prepare", "split", "train", "export", "classifier", "release", "evaluate",
                                    "register"])
def test_make_runs_the_same_modules_on_the_same_folders(stages: Stages, target: str, repository: Path) -> None:
    done = subprocess.run(["make", "-n", target, "SURFACES=artifacts/surfaces"], cwd=repository, capture_output=True,
                          text=True, check=True)
    names = MADE_BY.get(target, [target])
    wanted = {module_of(stage["cmd"]) for name, stage in stages.items() if name.split("@")[0] in names}
    assert wanted
    assert wanted <= set(re.findall(r"-m (sacroleak\.training\.\w+)", done.stdout))
    loops = re.findall(r"for network in ([\w ]+);", done.stdout)
    assert loops == [" ".join(NETWORKS)] * (target in {"train", "export"})
    for folder in re.findall(r"artifacts/\w+", done.stdout):
        network = folder in {"artifacts/train_", "artifacts/surfaces"}
        assert network or any(folder in stage["cmd"] for stage in stages.values()), folder


def test_each_option_of_a_command_is_one_of_its_modules(stages: Stages, repository: Path) -> None:
    """Read from the source: asking five modules for --help would load torch five times."""
    for name, stage in stages.items():
        path = module_of(stage["cmd"]).removeprefix("sacroleak.").replace(".", "/") + ".py"
        options = set(re.findall(r'add_argument\("(--[\w-]+)"', (repository / path).read_text(encoding="utf-8")))
        assert options, path
        assert set(re.findall(r" (--[\w-]+)", stage["cmd"])) <= options, name
