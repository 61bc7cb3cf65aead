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
from importlib.metadata import version
from typing import Literal

from sacroleak.core.report import STATEMENT, Report
from sacroleak.inference.score_one import Engine
from sacroleak.inference.tables import Failure
from sacroleak.models.effort import Effort, precision_of

What = Literal["scored", "kept", "refused"]

SLOWEST = 10
PACKAGES = ("numpy", "scipy", "openvino", "pydicom", "nibabel")
"""Those whose version may change a result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one source, the `number`th of its run.

    `failure` says why it was refused, else it is None. `report` is there when the outcome is told, and let go after.
    `redone`: what had changed (model, configuration, version, needle evidence) if a finished result was there and was
    scored again.
    """

    case_id: str
    input: str
    what: What
    seconds: dict[str, float]
    number: int = 0
    report: Report | None = None
    failure: Failure | None = None
    redone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpan:
    """When a run was, how long it took, whether it reached its last scan, and how much memory its processes held.

    `peak_mib`: of the largest process that scored; `lead_mib`: of the one that led, the same if there is no other.
    """

    started: datetime
    ended: datetime
    total_s: float
    finished: bool
    peak_mib: int
    lead_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What the caller knows of the run: the inputs as they were given, the names of mode and effort, processes (0: none
    besides the one that leads) and threads for the networks of each, and the cluster that scored, if one did."""

    inputs: Sequence[str]
    mode: str
    effort: str = Effort.STANDARD
    threads: int = 0
    workers: int = 0
    scheduler: str | None = None


def run_record(engine: Engine, facts: RunFacts, *, span: RunSpan, outcomes: Sequence[Outcome]) -> bytes:
    """The record as indented JSON. Stage times are sums over the run's scans."""
    counts = Counter(outcome.what for outcome in outcomes)
    stages: dict[str, float] = defaultdict(float)
    for outcome in outcomes:
        for stage, seconds in outcome.seconds.items():
            stages[stage] += seconds
    timings = {"total_s": span.total_s, **{f"{stage}_s": seconds for stage, seconds in stages.items()}}
    slowest = sorted(outcomes, key=lambda outcome: -sum(outcome.seconds.values()))[:SLOWEST]
    record = {
        "statement": STATEMENT, "version": engine.version, "finished": span.finished,
        "bundle": {"name": engine.bundle, "digest": engine.bundle_digest},
        "config": {"mode": facts.mode, "effort": facts.effort, "digest": engine.config_digest,
                   "outputs": engine.outputs.model_dump(), "rules": engine.limits.model_dump(mode="json")},
        "device": {"kind": engine.device, "machine": platform.machine(), "cores": os.cpu_count(),
                   "workers": facts.workers, "threads": facts.threads, "scheduler": facts.scheduler,
                   "precision": precision_of(Effort(facts.effort), engine.device), "system": platform.system(),
                   "python": platform.python_version(), "packages": {name: version(name) for name in PACKAGES}},
        "started": span.started.isoformat(timespec="seconds"), "ended": span.ended.isoformat(timespec="seconds"),
        "counts": {what: counts.get(what, 0) for what in ("scored", "kept", "refused")},
        "redone": dict(Counter(outcome.redone for outcome in outcomes if outcome.redone)),
        "timings": {name: round(seconds, 3) for name, seconds in timings.items()},
        "scans_per_minute": round(60 * len(outcomes) / span.total_s, 2) if span.total_s > 0 else None,
        "slowest": [_plain(outcome) for outcome in slowest if outcome.seconds],
        "peak_memory_mib": span.peak_mib, "lead_memory_mib": span.lead_mib,
        "inputs": list(facts.inputs), "cases": [_plain(outcome) for outcome in outcomes],
    }
    return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()


def own_peak_mib() -> int:
    """The most memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _plain(outcome: Outcome) -> dict[str, object]:
    return {"case_id": outcome.case_id, "input": outcome.input, "outcome": outcome.what,
            "seconds": {stage: round(value, 3) for stage, value in outcome.seconds.items()}}
