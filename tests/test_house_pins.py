"""The pinned versions fit what pyproject.toml asks for, and nothing names one machine or one package server."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

# Assembled here so that this file does not find itself.
MACHINE = ["/" + "work/", "/" + "root/", "/" + "opt/", "pypi" + ".org/simple", "files.pythonhosted" + ".org"]

FOR_BENCH = {"nnunetv2"}
"""What `make bench` installs and `make test` does not."""


def pins_in(text: str) -> dict[str, Version]:
    """Name (canonical) to version of each line `name==version`. Anything else on a line is an error."""
    pins: dict[str, Version] = {}
    for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
        found = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line)
        assert found, f"wanted name==version, got {line!r}"
        pins[canonicalize_name(found[1])] = Version(found[2])
    return pins


def declared(repository: Path) -> list[Requirement]:
    """All requirements of pyproject.toml, extras and build system included, our own name left out."""
    settings = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    lines = [*project["dependencies"], *settings["build-system"]["requires"]]
    for extra in project["optional-dependencies"].values():
        lines += extra
    return [requirement for requirement in map(Requirement, lines) if requirement.name != "sacroleak"]


@pytest.fixture(scope="module")
def pins(repository: Path) -> dict[str, Version]:
    return pins_in((repository / "constraints.txt").read_text(encoding="utf-8"))


def test_each_requirement_has_a_pin_that_satisfies_it(repository: Path, pins: dict[str, Version]) -> None:
    for requirement in declared(repository):
        assert canonicalize_name(requirement.name) in pins, requirement
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def imported_by(paths: Iterable[Path]) -> set[str]:
    """Top-level names of all third-party modules that files import, inside functions too."""
    names: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"sacroleak", "tests"}


def installed(name: str) -> bool:
    """Whether a distribution is there."""
    return next(iter(metadata.distributions(name=name)), None) is not None


def undeclared(repository: Path, folders: Sequence[str], *extras: str) -> set[str]:
    """Modules that Python files in `folders` import and that neither the project nor its `extras` ask for."""
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    asked = {canonicalize_name(Requirement(line).name) for line in lines}
    from_where = metadata.packages_distributions()
    files = [path for folder in folders for path in (repository / folder).rglob("*.py") if path.name != "segmenter.py"]
    return {name for name in imported_by(files)
            if not asked & {canonicalize_name(distribution) for distribution in from_where.get(name, [])}}


def test_scoring_and_the_demo_import_only_what_a_plain_install_brings(repository: Path) -> None:
    rooms = ["core", "models", "inference", "review", "cli", "training/simulation"]
    assert undeclared(repository, rooms, "gpu") == {"distributed"}, "asked for by --scheduler alone"
    assert undeclared(repository, rooms, "cluster") == {"torch", "monai", "onnx"}, "asked for by --device cuda alone"
    assert undeclared(repository, rooms, "cluster", "gpu") == set()


def test_training_and_tests_import_only_what_their_extras_bring(repository: Path) -> None:
    assert undeclared(repository, ["training"], "train") == {"nnunetv2"}, "asked for by make bench alone"
    if installed("nnunetv2"):
        assert undeclared(repository, ["training"], "train", "bench") == set()
    assert undeclared(repository, ["tests"], "cluster", "train", "dev") == set()


def test_an_import_nobody_asked_for_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import os\ndef f():\n    import requests.adapters\n")
    assert imported_by([tmp_path / "a.py"]) == {"requests"}


def test_pyproject_pins_nothing(repository: Path) -> None:
    assert [str(r) for r in declared(repository) if any(s.operator in {"==", "===", "~="} for s in r.specifier)] == []


def test_what_is_installed_is_what_is_pinned(repository: Path, pins: dict[str, Version]) -> None:
    """Results are reported for these versions; a local build label such as +cpu is the same version."""
    for requirement in declared(repository):
        if not installed(requirement.name) and requirement.name in FOR_BENCH:
            continue
        pin = pins[canonicalize_name(requirement.name)]
        assert Version(Version(metadata.version(requirement.name)).public) == pin, requirement.name


def test_everything_that_comes_along_is_pinned_too(repository: Path, pins: dict[str, Version]) -> None:
    """Follow the requirements of requirements, as they apply to this interpreter and platform."""
    seen: set[str] = set()
    waiting = [canonicalize_name(requirement.name) for requirement in declared(repository)]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in FOR_BENCH and not installed(name):
            continue
        waiting += [canonicalize_name(r.name) for r in map(Requirement, metadata.requires(name) or [])
                    if r.marker is None or r.marker.evaluate({"extra": ""})]
    # PyTorch's build for NVIDIA cards brings its own exactly pinned libraries, which the CPU build does not have.
    unpinned = {name for name in seen - set(pins) if not name.startswith(("nvidia-", "cuda-", "triton"))}
    assert unpinned == set()


def test_no_gpl_decoder_is_required(repository: Path) -> None:
    assert "pylibjpeg-libjpeg" not in {canonicalize_name(r.name) for r in declared(repository)}


def test_no_committed_file_names_one_machine(repository: Path) -> None:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, listing.stdout.split("\0")):
        path = repository / name
        if path.is_symlink() or not path.is_file() or path.suffix in {".onnx", ".png", ".npz", ".safetensors"}:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not [place for place in MACHINE if place in text], name


@pytest.mark.parametrize("line", ["torch==2.13.0+cpu", "numpy>=2", "numpy", "-e .", "numpy @ file:///tmp/x.whl"])
def test_a_line_that_is_no_plain_pin_is_refused(line: str) -> None:
    with pytest.raises(AssertionError, match="wanted name==version"):
        pins_in(line)
