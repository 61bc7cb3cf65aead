"""`run.json`: with what, on what, and how long a run took."""

from __future__ import annotations

import json
import os
import platform
import resource
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sacroleak.core.report import STATEMENT, Report
from sacroleak.inference.score_one import Engine
from sacroleak.inference.tables import Failure

What = Literal["scored", "kept", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one source. `report` is None exactly if it was refused, and then `failure` says why."""

    case_id: str
    input: str
    what: What
    seconds: dict[str, float]
    report: Report | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpan:
    """When a run was, how long it took, and whether it reached its last scan."""

    started: datetime
    ended: datetime
    total_s: float
    finished: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What the caller knows of the run: the inputs as they were given, the mode's name, threads for the networks."""

    inputs: Sequence[str]
    mode: str
    threads: int


def run_record(engine: Engine, facts: RunFacts, *, span: RunSpan, outcomes: Sequence[Outcome]) -> bytes:
    """The record as indented JSON. Stage times are sums over the run's scans; memory is this process's peak."""
    counts = Counter(outcome.what for outcome in outcomes)
    stages: dict[str, float] = defaultdict(float)
    for outcome in outcomes:
        for stage, seconds in outcome.seconds.items():
            stages[stage] += seconds
    timings = {"total_s": span.total_s, **{f"{stage}_s": seconds for stage, seconds in stages.items()}}
    record = {
        "statement": STATEMENT, "version": engine.version, "finished": span.finished,
        "bundle": {"name": engine.bundle, "digest": engine.bundle_digest},
        "config": {"mode": facts.mode, "digest": engine.config_digest, "outputs": engine.outputs.model_dump(),
                   "rules": engine.limits.model_dump(mode="json")},
        "device": {"kind": "cpu", "machine": platform.machine(), "cores": os.cpu_count(), "threads": facts.threads,
                   "system": platform.system(), "python": platform.python_version()},
        "started": span.started.isoformat(timespec="seconds"), "ended": span.ended.isoformat(timespec="seconds"),
        "counts": {what: counts.get(what, 0) for what in ("scored", "kept", "refused")},
        "timings": {name: round(seconds, 3) for name, seconds in timings.items()},
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "inputs": list(facts.inputs), "cases": [_plain(outcome) for outcome in outcomes],
    }
    return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()


def _plain(outcome: Outcome) -> dict[str, object]:
    return {"case_id": outcome.case_id, "input": outcome.input, "outcome": outcome.what,
            "seconds": {stage: round(value, 3) for stage, value in outcome.seconds.items()}}
