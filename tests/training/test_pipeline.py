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

STAGES = ("prepare", "train_coarse", "train_fine", "export_coarse", "export_fine", "release", "benchmark", "evaluate")


@pytest.fixture(scope="module")
def stages(repository: Path) -> dict[str, dict[str, Any]]:
    """Stages of dvc.yaml with their variables filled in."""
    text = (repository / "dvc.yaml").read_text(encoding="utf-8")
    for variable in yaml.safe_load(text)["vars"]:
        for name, value in variable.items():
            text = text.replace("${" + name + "}", value)
    assert "${" not in text
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["stages"]
    return found


def outputs(stage: dict[str, Any]) -> set[str]:
    """Paths a stage writes."""
    entries = [*stage.get("outs", []), *stage.get("metrics", [])]
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


def module_of(command: str) -> str:
    words = shlex.split(command)
    assert words[:2] == ["python", "-m"]
    return words[2]


def test_every_stage_is_there(stages: dict[str, dict[str, Any]]) -> None:
    assert tuple(stages) == STAGES


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_runs_a_module_with_a_main(stages: dict[str, dict[str, Any]], name: str) -> None:
    module = importlib.import_module(module_of(stages[name]["cmd"]))
    assert callable(module.main)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_names_files_that_exist_and_depends_on_its_config_and_code(
        stages: dict[str, dict[str, Any]], name: str, repository: Path) -> None:
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


def test_what_a_stage_needs_an_earlier_one_writes(stages: dict[str, dict[str, Any]]) -> None:
    written: set[str] = set()
    for name, stage in stages.items():
        needed = {path for path in stage["deps"] if path.startswith("artifacts/") and path != "artifacts/surfaces"}
        assert needed <= written, name
        assert not outputs(stage) & written, "no two stages write one path"
        written |= outputs(stage)


@pytest.mark.parametrize("target", ["prepare", "train", "export", "release", "evaluate"])
def test_make_runs_the_same_modules_on_the_same_folders(stages: dict[str, dict[str, Any]], target: str,
                                                        repository: Path) -> None:
    done = subprocess.run(["make", "-n", target, "SURFACES=artifacts/surfaces"], cwd=repository, capture_output=True,
                          text=True, check=True)
    wanted = {module_of(stage["cmd"]) for name, stage in stages.items() if name.startswith(target)}
    assert wanted <= set(re.findall(r"-m (sacroleak\.training\.\w+)", done.stdout))
    for folder in re.findall(r"artifacts/\w+", done.stdout):
        network = folder in {"artifacts/train_", "artifacts/surfaces"}
        assert network or any(folder in stage["cmd"] for stage in stages.values()), folder


def test_each_option_of_a_command_is_one_of_its_modules(stages: dict[str, dict[str, Any]], repository: Path) -> None:
    """Read from the source: asking five modules for --help would load torch five times."""
    for name, stage in stages.items():
        path = module_of(stage["cmd"]).removeprefix("sacroleak.").replace(".", "/") + ".py"
        options = set(re.findall(r'add_argument\("(--\w+)"', (repository / path).read_text(encoding="utf-8")))
        assert options, path
        assert set(re.findall(r" (--\w+)", stage["cmd"])) <= options, name
