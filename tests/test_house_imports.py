"""The parts of the import rule that import-linter cannot say: file names, functions, and what really gets loaded."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOMS = ("cli", "core", "inference", "models", "review", "training")
DICOM_PACKAGES = {"pydicom", "highdicom", "pynetdicom", "dicomweb_client", "pylibjpeg", "gdcm", "jpeg_ls"}


def sources(repository: Path) -> list[Path]:
    """Every Python file of every room."""
    return [path for room in ROOMS for path in sorted((repository / room).rglob("*.py"))]


def imported(node: ast.AST) -> Iterator[str]:
    """Full names that one import statement loads."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module


def imports_in(tree: ast.AST) -> Iterator[str]:
    """Full names of everything imported anywhere below `tree`."""
    for node in ast.walk(tree):
        yield from imported(node)


def own_imports_in_functions(tree: ast.AST) -> set[str]:
    """Our own modules that are imported inside a function, a method, or a function inside those."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {name for function in functions for name in imports_in(function) if name.split(".")[0] == "sacroleak"}


def dicom_imports(tree: ast.AST) -> set[str]:
    return {name.split(".")[0] for name in imports_in(tree)} & DICOM_PACKAGES


def may_speak_dicom(path: Path) -> bool:
    return path.name.startswith(("dicom", "pacs"))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def test_dicom_packages_are_imported_in_dicom_files_only(repository: Path) -> None:
    wrong = {str(path.relative_to(repository)): dicom_imports(parsed(path))
             for path in sources(repository) if not may_speak_dicom(path)}
    assert {path: names for path, names in wrong.items() if names} == {}


def test_our_own_modules_are_imported_at_the_top_of_a_file(repository: Path) -> None:
    wrong = {str(path.relative_to(repository)): own_imports_in_functions(parsed(path))
             for path in sources(repository) if path.relative_to(repository).parts[0] != "cli"}
    assert {path: names for path, names in wrong.items() if names} == {}


def test_the_command_line_loads_rooms_inside_commands_only(repository: Path) -> None:
    """At the top of a cli file only cli and core.errors may be imported, so that --help stays quick."""
    for path in sorted((repository / "cli").glob("*.py")):
        for node in parsed(path).body:
            for name in imported(node):
                own = name.split(".")[0] == "sacroleak"
                assert not own or name.startswith(("sacroleak.cli", "sacroleak.core.errors")), f"{path.name}: {name}"


@pytest.mark.parametrize(("code", "expected"), [
    ("import pydicom", {"pydicom"}),
    ("def f():\n    from highdicom.seg import Segmentation", {"highdicom"}),
    ("import numpy", set()),
])
def test_the_dicom_rule_sees_an_offender(code: str, expected: set[str]) -> None:
    assert dicom_imports(ast.parse(code)) == expected


@pytest.mark.parametrize(("code", "expected"), [
    ("def f():\n    from sacroleak.core.volume import Volume", {"sacroleak.core.volume"}),
    ("class A:\n    def f(self):\n        import sacroleak.core", {"sacroleak.core"}),
    ("from sacroleak.core.volume import Volume", set()),
    ("def f():\n    import monai", set()),
])
def test_the_function_rule_sees_an_offender(code: str, expected: set[str]) -> None:
    assert own_imports_in_functions(ast.parse(code)) == expected


def test_scoring_loads_neither_torch_nor_monai(repository: Path) -> None:
    """Everything a CPU scan may load, loaded at once: core, models without the training network, inference."""
    names = [".".join(("sacroleak", *path.relative_to(repository).with_suffix("").parts))
             for path in sources(repository)
             if path.relative_to(repository).parts[0] in {"core", "models", "inference"}
             and path.name not in {"__init__.py", "segmenter.py"}]
    code = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
print(*[name for name in ("torch", "monai", "mlflow", "dvc") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
