"""What is installed is what the checkout holds: an installed wheel must score too."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

NOT_ROOMS = {"artifacts", "build", "demo", "dist", "tests"}
HEAVY = ("torch", "monai", "sklearn", "skops", "openvino", "pandas", "matplotlib", "scipy", "pydicom")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel built from a copy of the checkout, and unpacked."""

    files: frozenset[str]
    unpacked: Path
    metadata: Message
    entry_points: str


def settings_of(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


def folders_with_code(repository: Path) -> Iterator[Path]:
    """Every folder below the root that holds an __init__.py, relative to the root."""
    for found in sorted(repository.rglob("__init__.py")):
        folder = found.parent.relative_to(repository)
        if folder.parts[0] not in NOT_ROOMS and not folder.parts[0].startswith("."):
            yield folder


def packaged_files(repository: Path) -> set[str]:
    """Every file of every room, as the wheel must name it; caches and half-written files are no content."""
    rooms = {folder.parts[0] for folder in folders_with_code(repository)}
    found = set()
    for room in rooms:
        for path in (repository / room).rglob("*"):
            hidden = any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(repository).parts)
            if path.is_file() and not hidden and ".part" not in path.name:
                found.add(f"sacroleak/{path.relative_to(repository).as_posix()}")
    return found


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, source / name)
    for room in {folder.parts[0] for folder in folders_with_code(repository)}:
        shutil.copytree(repository / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    built = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(built), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = built.glob("*.whl")
    unpacked = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(unpacked)
        files = frozenset(name for name in archive.namelist() if not name.endswith("/"))
    (info,) = unpacked.glob("*.dist-info")
    metadata = Parser().parsestr((info / "METADATA").read_text(encoding="utf-8"))
    return Wheel(files=files, unpacked=unpacked, metadata=metadata,
                 entry_points=(info / "entry_points.txt").read_text(encoding="utf-8"))


def run_installed(code: str, place: Path) -> str:
    """Run code in a fresh interpreter that sees `place` and the third-party packages, but not the checkout.

    -S leaves out .pth files, and with them the editable install, which would hide what a wheel lacks.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PYTHONPATH"] = os.pathsep.join([str(place), sysconfig.get_paths()["purelib"]])
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False,
                          env=environment, cwd=place)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_folder_with_code_is_in_the_package_list(repository: Path) -> None:
    listed = set(settings_of(repository)["tool"]["setuptools"]["packages"])
    assert listed == {"sacroleak." + ".".join(folder.parts) for folder in folders_with_code(repository)}


def test_each_package_is_mapped_to_the_folder_of_its_name(repository: Path) -> None:
    tool = settings_of(repository)["tool"]["setuptools"]
    expected = {name: name.removeprefix("sacroleak.").replace(".", "/") for name in tool["packages"]}
    assert tool["package-dir"] == expected


def test_the_type_checker_sees_each_room_through_a_relative_link(repository: Path) -> None:
    links = {path.name: path for path in (repository / ".types/sacroleak").iterdir()}
    rooms = {folder.parts[0] for folder in folders_with_code(repository)}
    assert set(links) == rooms
    for name, link in links.items():
        assert not link.readlink().is_absolute()
        assert link.resolve() == repository / name


def test_the_import_rule_covers_each_room(repository: Path) -> None:
    judged = set(settings_of(repository)["tool"]["importlinter"]["root_packages"])
    rooms = {f"sacroleak.{folder.parts[0]}" for folder in folders_with_code(repository)}
    assert rooms - judged == {"sacroleak.configs"}, "configs holds no code; every other room is judged"


def test_the_wheel_holds_every_file_of_every_room(repository: Path, wheel: Wheel) -> None:
    missing = packaged_files(repository) - wheel.files
    assert not missing, f"not in the wheel: {sorted(missing)}; add them to package-data or delete them"


def test_the_wheel_holds_nothing_else(wheel: Wheel) -> None:
    assert {name.split("/")[0] for name in wheel.files if ".dist-info/" not in name} == {"sacroleak"}


def test_the_wheel_names_its_licence_and_what_scoring_needs(wheel: Wheel) -> None:
    assert wheel.metadata["License-Expression"] == "Apache-2.0"
    assert any(name.endswith("licenses/LICENSE") for name in wheel.files)
    needed = [line for line in wheel.metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert any(line.startswith("openvino") for line in needed)
    assert not [line for line in needed if line.startswith(("torch", "monai"))]


def test_the_wheel_installs_the_command(wheel: Wheel) -> None:
    assert "sacroleak = sacroleak.cli.main:main" in wheel.entry_points


def test_the_license_is_the_whole_apache_text(repository: Path) -> None:
    text = (repository / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_a_released_model_is_whole_and_in_the_wheel(repository: Path, wheel: Wheel) -> None:
    released = repository / "models/released"
    if not released.exists():
        pytest.skip("no model has been released yet")
    bundles = [path for path in released.iterdir() if path.is_dir()]
    assert bundles, "models/released is there but holds no bundle"
    for bundle in bundles:
        json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
        for path in bundle.rglob("*"):
            if path.is_file():
                assert f"sacroleak/{path.relative_to(repository).as_posix()}" in wheel.files
    megabytes = sum(path.stat().st_size for path in released.rglob("*") if path.is_file()) / 1e6
    assert megabytes < 20, f"models/released is {megabytes:.1f} MB; above 20 MB it does not belong into the repository"


def test_packaged_files_are_found_without_the_checkout(wheel: Wheel) -> None:
    code = """
from importlib.resources import files
print(sorted(p.name for p in files("sacroleak.configs").iterdir() if p.name.endswith(".yaml")))
"""
    expected = sorted(name.split("/")[-1] for name in wheel.files
                      if name.startswith("sacroleak/configs/") and name.count("/") == 2 and name.endswith(".yaml"))
    assert run_installed(code, wheel.unpacked).strip() == str(expected)


def test_help_loads_no_slow_package(wheel: Wheel) -> None:
    code = f"""
import contextlib, io, sys
sys.argv = ["sacroleak", "--help"]
from sacroleak.cli.main import main
shown = io.StringIO()
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(shown):
    main()
assert "score" in shown.getvalue(), shown.getvalue()
print(*[name for name in {HEAVY!r} if name in sys.modules])
"""
    assert run_installed(code, wheel.unpacked).strip() == ""


def test_ci_runs_make_test_and_nothing_else(repository: Path) -> None:
    script = repository / ".ci/run"
    assert os.access(script, os.X_OK)
    lines = [line for line in script.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "exec make test"]


def test_make_test_checks_style_types_imports_and_runs_the_tests(repository: Path, tmp_path: Path) -> None:
    shutil.copy(repository / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    shown = subprocess.run(["make", "-n", "test"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    tools = re.findall(r"^\.venv/bin/([a-z-]+)", shown, re.MULTILINE)
    assert tools == ["ruff", "mypy", "lint-imports", "pytest"]
    assert shown.count("-m venv .venv") == 1


def test_make_and_the_pipeline_name_stages_and_configs_that_exist(repository: Path) -> None:
    places = [repository / name for name in ("Makefile", "dvc.yaml") if (repository / name).exists()]
    text = "\n".join(place.read_text(encoding="utf-8") for place in places)
    modules = set(re.findall(r"-m sacroleak\.([\w.]+)", text))
    assert modules
    for module in modules:
        stage = ast.parse((repository / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
        assert "main" in {node.name for node in stage.body if isinstance(node, ast.FunctionDef)}, module
    for config in set(re.findall(r"configs/[\w/]+\.yaml", text)):
        assert (repository / config).is_file(), config


def test_an_old_python_is_refused_with_a_way_out(repository: Path, tmp_path: Path) -> None:
    shutil.copy(repository / "Makefile", tmp_path)
    old = tmp_path / "old-python"
    old.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; sys.version_info = (3, 9, 1)\n$2"\n')
    old.chmod(0o755)
    done = subprocess.run(["make", f"PYTHON={old}", ".venv/bin/python"], cwd=tmp_path, capture_output=True, text=True,
                          check=False)
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / ".venv").exists()
