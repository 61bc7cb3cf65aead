"""All scans of a benchmark through a release, one after the other or several at a time; finished ones are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from time import monotonic
from typing import TypeVar

from pydantic import ValidationError
from rich.console import Console
from rich.progress import track

from sacroleak.core.whole import remove_leftovers, write_whole
from sacroleak.models.bundle import load_bundle
from sacroleak.models.classifier import LeakClassifier, load_classifier
from sacroleak.models.limits import RuleLimits
from sacroleak.models.networks import load_segmenter
from sacroleak.training.benchmark import load_case
from sacroleak.training.processes import processes
from sacroleak.training.scored_case import FORMAT, CaseRecord, MeasureConfig, Segmenter, measure

MEASURED_BY = ("baseline.py", "case_answers.py", "measures.py", "part_table.py", "scored_case.py", "seen_cases.py",
               "side_by_side.py")
"""Files of this room that decide what a record holds."""
TOLD_EVERY = 10
"""Scans between two lines of progress where there is no terminal."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """Which release scores, by which rules and measures; `folder` keeps the records; `threads` of all workers together.
    """

    bundle: Path
    bundle_digest: str
    limits: RuleLimits
    measures: MeasureConfig
    folder: Path
    threads: int


def score_all(paths: Sequence[Path], scoring: Scoring, *, workers: int = 1,
              console: Console | None = None) -> list[CaseRecord]:
    """Records of all scans in the order of `paths`.

    Finished scans are kept by code, release, rules, measures and content of the scan: a run that was ended goes on.
    `workers` above 1 share the threads and give the same records.
    """
    each = partial(_record, scoring=replace(scoring, threads=max(1, scoring.threads // workers)),
                   kept=folder_of(scoring))
    if workers <= 1:
        return list(followed(map(each, paths), total=len(paths), console=console))
    with processes(workers) as pool:
        return list(followed(pool.map(each, paths), total=len(paths), console=console))


def folder_of(scoring: Scoring, arm: str = "") -> Path:
    """Where records made like this are kept; `arm` names another way to run the release. Made if it is not there."""
    kept = scoring.folder / (_key(scoring) + arm)
    kept.mkdir(parents=True, exist_ok=True)
    remove_leftovers(kept)
    return kept


def followed(items: Iterable[Item], *, total: int, console: Console | None) -> Iterator[Item]:
    """The same items, with a bar and the time left on a terminal, and a line now and then elsewhere."""
    if console is None:
        yield from items
    elif console.is_terminal:
        yield from track(items, description="scans", total=total, console=console)
    else:
        began = monotonic()
        for done, item in enumerate(items, start=1):
            if done % TOLD_EVERY == 0 or done == total:
                left = (monotonic() - began) / done * (total - done) / 60
                console.print(f"scan {done} of {total}, about {left:.0f} min left", highlight=False)
            yield item


@cache
def opened_release(bundle: Path, threads: int) -> Segmenter:
    """The release, opened once in each process."""
    return load_segmenter(load_bundle(bundle), threads=threads)


@cache
def classifier_of(bundle: Path) -> LeakClassifier | None:
    """That of the release, read once in each process."""
    return load_classifier(load_bundle(bundle))


def _record(path: Path, *, scoring: Scoring, kept: Path) -> CaseRecord:
    return kept_or_measured(path, kept, lambda: opened_release(scoring.bundle, scoring.threads), scoring)


def kept_or_measured(path: Path, kept: Path, opened: Callable[[], Segmenter], scoring: Scoring) -> CaseRecord:
    """The record of one scan from the folder `kept`, if it is of this scan; else a new one, which is kept there."""
    item = load_case(path)
    place = kept / f"{item.row.case_id}.json"
    if place.is_file():
        try:
            record = CaseRecord.model_validate_json(place.read_bytes())
        except ValidationError:
            record = None
        if record is not None and record.case_digest == item.digest:
            return record
    record = measure(item, opened(), scoring.limits, scoring.measures, classifier=classifier_of(scoring.bundle))
    write_whole(place, record.model_dump_json(indent=1).encode())
    return record


def _key(scoring: Scoring) -> str:
    content = [FORMAT, _code(), scoring.bundle_digest, scoring.limits.model_dump(mode="json"),
               scoring.measures.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _code() -> str:
    """sha256 over all code between a scan and its measures: any change of it makes kept records stale."""
    rooms = (Path(__file__).parent, Path(str(files("sacroleak.models"))), Path(str(files("sacroleak.core"))))
    state = hashlib.sha256()
    for path in sorted(path for room in rooms for path in room.glob("*.py") if path.parent != rooms[0]
                       or path.name in MEASURED_BY):
        state.update(path.name.encode() + path.read_bytes())
    return state.hexdigest()
