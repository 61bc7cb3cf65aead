"""Stage: check that nobody is on both sides of a split; fails with the reason, else writes who is where."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from sacroleak.core.config import load_config
from sacroleak.core.errors import ManifestError
from sacroleak.core.whole import sha256_of, write_whole
from sacroleak.training.manifests import manifest_rows

SPLITS = ("train", "validation", "test")

Row = Mapping[str, str]


def _regular(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error
    return pattern


class Kind(BaseModel):
    """Anatomies of one origin. `pattern` fits their whole names; its group, if any, is the person.

    `real`: bones of a person. `derived_from`: made from the train patients of that kind, so not for the test.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    pattern: Annotated[str, AfterValidator(_regular)]
    real: bool = False
    derived_from: str | None = None

    def person(self, anatomy: str) -> str | None:
        """Whose bones an anatomy of this kind are; None if its name is not of this kind."""
        found = re.fullmatch(self.pattern, anatomy)
        if found is None:
            return None
        return found[1] if found.re.groups else anatomy


class SplitConfig(BaseModel):
    """`configs/split.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kinds: tuple[Kind, ...]
    anatomy_manifest: Path
    benchmark_manifest: Path
    held_out: int = Field(ge=1)

    @model_validator(mode="after")
    def _known(self) -> SplitConfig:
        names = {kind.name for kind in self.kinds}
        for kind in self.kinds:
            if kind.derived_from is not None and kind.derived_from not in names:
                raise ValueError(f"{kind.name}: derived from {kind.derived_from}, which is no kind")
        return self

    def kind_of(self, anatomy: str) -> tuple[Kind, str]:
        """Kind and person of an anatomy. Raises ManifestError for one of no kind, or of two."""
        fits = [(kind, person) for kind in self.kinds if (person := kind.person(anatomy)) is not None]
        if len(fits) != 1:
            raise ManifestError(f"{anatomy}: is of {len(fits)} kinds of anatomy, wanted exactly one of "
                                f"{', '.join(kind.name for kind in self.kinds)} (see configs/split.yaml)")
        return fits[0]


def main(config: SplitConfig, *, anatomies: Path, out: Path) -> dict[str, object]:
    """Check manifests and prepared files, write the verdict to `out`. Raises ManifestError with the first fault."""
    rows = list(manifest_rows(config.anatomy_manifest))
    splits = check_anatomies(rows, config)
    check_benchmark(list(manifest_rows(config.benchmark_manifest)), splits, config)
    prepared = sorted(anatomies.glob("*.npz"))
    check_prepared(prepared, splits)
    verdict: dict[str, object] = {
        "verdict": "nobody is on both sides",
        **{split: _people(splits, split, config) for split in SPLITS},
        "prepared": {split: sum(splits[path.stem] == split for path in prepared) for split in SPLITS},
        "manifests": {path.name: sha256_of(path) for path in (config.anatomy_manifest, config.benchmark_manifest)},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, json.dumps(verdict, indent=1).encode() + b"\n")
    return verdict


def check_anatomies(rows: Sequence[Row], config: SplitConfig) -> dict[str, str]:
    """Anatomy -> split. Every person in one split, derived anatomies not in the test, enough real people held out."""
    splits: dict[str, str] = {}
    where: dict[str, str] = {}
    held_out = set()
    for row in rows:
        name, split = row["anatomy"], row["split"]
        if name in splits:
            raise ManifestError(f"{name}: has two rows, wanted one")
        if split not in SPLITS:
            raise ManifestError(f"{name}: split {split!r}, wanted one of {', '.join(SPLITS)}")
        kind, person = config.kind_of(name)
        if where.setdefault(person, split) != split:
            raise ManifestError(f"{person}: is in {where[person]} and, as {name}, in {split}; a person has one split")
        if kind.derived_from is not None and split == "test":
            raise ManifestError(f"{name}: is in test, but made from {kind.derived_from} of train: no new person")
        if kind.real and split == "test":
            held_out.add(person)
        splits[name] = split
    if len(held_out) < config.held_out:
        raise ManifestError(f"{len(held_out)} real patients held out for the test, wanted at least {config.held_out}")
    return splits


def check_benchmark(rows: Iterable[Row], splits: Mapping[str, str], config: SplitConfig) -> None:
    """Every benchmark scan of a person who is held out, or of bones that no manifest knows and no person has."""
    own = {config.kind_of(name)[1]: split for name, split in splits.items()}
    for row in rows:
        name, case = row["anatomy"], row["case_id"]
        if row["source"] == "procedural":
            if name in splits:
                raise ManifestError(f"{case}: is drawn under the name of {name}, which is a row of the anatomies")
            continue
        person = config.kind_of(name)[1]
        if own.get(person) != "test":
            raise ManifestError(f"{case}: shows {person}, who is in {own.get(person, 'no split')}; wanted test")


def check_prepared(paths: Iterable[Path], splits: Mapping[str, str]) -> None:
    """Every prepared file has a row, carries its own name inside, and no sacrum is in two splits."""
    seen: dict[bytes, str] = {}
    for path in paths:
        if path.stem not in splits:
            raise ManifestError(f"{path.stem}: is prepared but has no row in the manifest; every anatomy needs a split")
        with np.load(path, allow_pickle=False) as data:
            inside, sacrum = str(data["name"]), hashlib.sha256(data["field_sacrum"].tobytes()).digest()
        if inside != path.stem:
            raise ManifestError(f"{path.stem}: holds the bones of {inside}")
        first = seen.setdefault(sacrum, path.stem)
        if splits[first] != splits[path.stem]:
            raise ManifestError(f"{path.stem}: has the sacrum of {first}, which is in {splits[first]}")


def _people(splits: Mapping[str, str], split: str, config: SplitConfig) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted(name for name, own in splits.items() if own == split):
        kind, person = config.kind_of(name)
        if person not in found.setdefault(kind.name, []):
            found[kind.name].append(person)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/split.yaml"))
    parser.add_argument("--anatomies", type=Path, default=Path("artifacts/anatomies"))
    parser.add_argument("--out", type=Path, default=Path("artifacts/split.json"))
    given = parser.parse_args()
    main(load_config(given.config, SplitConfig), anatomies=given.anatomies, out=given.out)
