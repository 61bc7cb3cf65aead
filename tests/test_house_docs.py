"""The documentation names everything a reader can meet: commands, options, keys, columns, rules, labels."""

from __future__ import annotations

import ast
import csv
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from sacroleak.cli.main import app
from sacroleak.core.structures import Compartment, Side, Site, Structure
from sacroleak.models.rules import RULES

GIVEN_BY_TYPER = {"--help", "--install-completion", "--show-completion"}
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def code_in(text: str) -> str:
    """Everything a Markdown page sets as code, one piece a line."""
    return "\n".join([*FENCED.findall(text), *INLINE.findall(FENCED.sub("", text))])


def undocumented(names: Iterable[str], text: str) -> list[str]:
    """The names that no piece of code in `text` holds as a whole word; a space in a name fits any white space."""
    code = code_in(text)
    patterns = {name: r"\s+".join(map(re.escape, name.split(" "))) for name in names}
    return sorted(name for name, found in patterns.items() if not re.search(rf"(?<![\w-]){found}(?![\w-])", code))


def pages(repository: Path) -> list[Path]:
    return [repository / "README.md", *sorted((repository / "docs").rglob("*.md")),
            *sorted((repository / "data_manifests").glob("*.md"))]


def keys_of(value: Any) -> Iterator[str]:
    """Every key of nested mappings and lists."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from keys_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner)


def commands_below(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Each command that does something, with the words a person types."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, child in inner.items():
        yield from commands_below(child, f"{path} {name}")


def strings_in(function: Callable[..., Any]) -> set[str]:
    """Every text that a function writes out."""
    tree = ast.parse(inspect.getsource(function))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.fixture(scope="module")
def text(repository: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in pages(repository) if path.exists())


@pytest.fixture(scope="module")
def commands() -> dict[str, Any]:
    return dict(commands_below(typer.main.get_command(app), "sacroleak"))


def configs(repository: Path) -> list[Path]:
    return sorted((repository / "configs").rglob("*.yaml"))


def test_each_command_is_documented(commands: dict[str, Any], text: str) -> None:
    assert "sacroleak score" in commands
    assert undocumented(commands, text) == []


def test_each_option_is_documented_on_a_page_with_its_command(commands: dict[str, Any], repository: Path) -> None:
    shown = [path.read_text(encoding="utf-8") for path in pages(repository)]
    missing = {}
    for name, command in commands.items():
        about = "\n".join(page for page in shown if not undocumented([name], page))
        options = {option for parameter in command.params if not getattr(parameter, "hidden", False)
                   for option in (*parameter.opts, *parameter.secondary_opts) if option.startswith("--")}
        missing[name] = undocumented(options - GIVEN_BY_TYPER, about)
    assert {name: options for name, options in missing.items() if options} == {}


def test_each_config_key_is_documented(repository: Path, text: str) -> None:
    missing = {}
    for path in configs(repository):
        keys = set(keys_of(yaml.safe_load(path.read_text(encoding="utf-8"))))
        missing[str(path.relative_to(repository))] = undocumented(keys, text)
    assert {path: keys for path, keys in missing.items() if keys} == {}


def test_each_config_opens_with_what_to_expect_of_it(repository: Path) -> None:
    assert [str(path) for path in configs(repository) if not path.read_text(encoding="utf-8").startswith("# ")] == []


def test_each_manifest_column_is_explained_beside_it(repository: Path) -> None:
    readme = (repository / "data_manifests/README.md").read_text(encoding="utf-8")
    for path in sorted((repository / "data_manifests").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            columns = next(csv.reader(file))
        assert path.name in readme
        assert undocumented(columns, readme) == [], path.name


def test_each_rule_is_documented(text: str) -> None:
    assert undocumented([rule.__name__ for rule in RULES], text) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_finding_carries_the_name_of_its_rule(rule: Callable[..., Any]) -> None:
    """So that the names in the reports are the names in the documentation."""
    assert rule.__name__ in strings_in(rule)


@pytest.mark.parametrize("member", [*Structure, *Compartment], ids=lambda m: f"{type(m).__name__}-{m.name}")
def test_each_label_number_is_documented_with_its_name(member: Structure | Compartment, text: str) -> None:
    assert in_one_table_row(member.value, member.name, text)


def in_one_table_row(number: int, name: str, text: str) -> bool:
    """Whether a row of a Markdown table has one cell with the number and another with the name."""
    for line in text.splitlines():
        cells = [cell.strip(" `*").lower().replace(" ", "_").replace("-", "_") for cell in line.split("|")]
        if str(number) in cells and name.lower() in cells:
            return True
    return False


@pytest.mark.parametrize("words", [Site, Side])
def test_each_word_of_the_output_is_documented(words: type[Enum], text: str) -> None:
    assert undocumented([str(word.value) for word in words], text) == []


def test_each_relative_link_leads_somewhere(repository: Path) -> None:
    broken = [f"{page.relative_to(repository)}: {target}" for page in pages(repository)
              for target in LINK.findall(page.read_text(encoding="utf-8"))
              if "://" not in target and not (page.parent / target).exists()]
    assert broken == []


def test_each_make_target_in_the_documentation_exists(repository: Path, text: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?<![\w-])make ([a-z-]+)", code_in(text)))
    assert {"demo", "test"} <= named, "the README gives the two commands"
    assert named <= targets


@pytest.mark.parametrize(("name", "page", "found"), [
    ("--out", "Use `--out DIR`.", True),
    ("--out", "Use --out without code marks.", False),
    ("--out", "Use `--output DIR`.", False),
    ("sacroleak review serve", "```\n$ sacroleak  review serve\n```", True),
    ("depth_mm", "`canal_depth_mm`", False),
    ("depth_mm", "`rules.depth_mm`", True),
])
def test_the_search_sees_whole_names_in_code_only(name: str, page: str, found: bool) -> None:
    assert (undocumented([name], page) == []) is found


def test_the_row_search_wants_number_and_name_together() -> None:
    assert in_one_table_row(9, "ILIUM", "| 9 | ilium | bone |")
    assert not in_one_table_row(9, "ILIUM", "| 8 | ilium |\n| 9 | other |")
