"""`python -m sacroleak.inference.soak`: does a long run survive broken scans, and being killed again and again?

The same scans are scored twice: once undisturbed, and once in a run that is ended by SIGKILL at random moments, as are
its processes, and is taken up again each time. Both must end with the same files, byte by byte, `run.json` aside.
Writes soak.json into the metrics folder. Exit code 1 if a file differs, or if a process outlives its run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from sacroleak.core.whole import write_whole
from sacroleak.inference.batch import RUN, RunPlan, score_many
from sacroleak.inference.config import Outputs, config_digest, load_limits
from sacroleak.inference.crew import CrewWish
from sacroleak.inference.disk import MIB
from sacroleak.inference.run_record import Outcome, RunFacts
from sacroleak.inference.score_one import Engine
from sacroleak.inference.soak_scans import BREAKS, StandIn, make_scans
from sacroleak.models.effort import Effort

FROM_SCAN, WINDOW = 100, 20
"""Memory is compared between the scans after the 100th and the last ones, as the mean over so many of them."""
GONE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much: scans, of which so many broken; how often run and processes are killed; processes in a run."""

    scans: int
    broken: int
    run_kills: int
    worker_kills: int
    workers: int
    seed: int


@dataclass(slots=True, kw_only=True)
class Found:
    """What a soak found. `differences`: files that are not the same, or there once only."""

    differences: list[str] = field(default_factory=list)
    run_kills: int = 0
    worker_kills: int = 0
    outlived: int = 0
    refused: int = 0
    growth_mb: float = 0.0
    seconds: float = 0.0


def soak(plan: Plan, folder: Path) -> Found:
    """Make the scans, score them twice below `folder`, and compare."""
    rng = np.random.default_rng(plan.seed)
    manifest = make_scans(folder / "scans", count=plan.scans, broken=plan.broken, rng=rng)
    found = Found()
    begin = time.perf_counter()
    found.growth_mb = _undisturbed(manifest, folder / "quiet", plan)
    found.seconds = time.perf_counter() - begin
    _disturbed(manifest, folder / "killed", plan, found, rng)
    found.differences = differences(folder / "quiet", folder / "killed")
    found.refused = (folder / "quiet/failures.csv").read_text(encoding="utf-8").count("\n") - 1
    return found


def differences(one: Path, other: Path) -> list[str]:
    """Names of the files that two runs do not share or in which they differ; `run.json` holds times and is left out."""
    ours, theirs = (dict(_files(folder)) for folder in (one, other))
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def run_once(manifest: Path, out: Path, *, workers: int) -> None:
    """Score with the stand-in, at a fixed time of day; a line for each scan that is done."""
    outputs, limits = Outputs(label_images=True, preview=False), load_limits()
    engine = Engine(segmenter=StandIn(), limits=limits, outputs=outputs, version="soak", bundle="stand-in",
                    bundle_digest="0" * 64, config_digest=config_digest(limits, outputs, Effort.STANDARD))
    plan = RunPlan(facts=RunFacts(inputs=[str(manifest)], mode="soak"), now=_fixed_now, clock=time.perf_counter,
                   tell=_tell, wish=CrewWish(workers=workers, threads=1))
    score_many([manifest], out, engine, plan)


def _fixed_now() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


def _tell(outcome: Outcome, _position: int) -> None:
    sys.stdout.write(f"{outcome.case_id}\n")
    sys.stdout.flush()


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != RUN:
            yield str(file.relative_to(folder)), file.read_bytes()


def _start(manifest: Path, out: Path, plan: Plan) -> subprocess.Popen[str]:
    call = [sys.executable, "-m", "sacroleak.inference.soak", "--run", str(manifest), "--out", str(out), "--workers",
            str(plan.workers)]
    return subprocess.Popen(call, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own command


def _undisturbed(manifest: Path, out: Path, plan: Plan) -> float:
    """Score everything; how much memory all processes together grew from the 100th scan to the last, MB."""
    with _start(manifest, out, plan) as run:
        held = [sum(_resident_mb(pid) for pid in (run.pid, *_children(run.pid))) for _ in run.stdout or ()]
    if run.returncode != 0:
        raise RuntimeError("the undisturbed run failed")
    first = min(FROM_SCAN, len(held) // 2)
    return float(np.mean(held[-WINDOW:]) - np.mean(held[first: first + WINDOW]))


def _disturbed(manifest: Path, out: Path, plan: Plan, found: Found, rng: np.random.Generator) -> None:
    """Begin and kill until all kills are spent; then let the run come to its end."""
    share = max(1, plan.scans // (plan.run_kills + 1))
    while found.run_kills < plan.run_kills:
        # A run that is taken up again first passes what is done already, so the moment moves on from kill to kill.
        stop = found.run_kills * share + int(rng.integers(1, share + 1))
        hurt = int(rng.integers(0, stop)) if found.worker_kills < plan.worker_kills else -1
        with _start(manifest, out, plan) as run:
            for number, _ in enumerate(run.stdout or ()):
                if number == hurt:
                    found.worker_kills += _kill_a_worker(run.pid, rng)
                if number == stop:
                    break
            time.sleep(float(rng.uniform(0, 0.3)))
            workers = _children(run.pid)
            run.kill()
        found.run_kills += 1
        found.outlived += _outliving(workers)
    with _start(manifest, out, plan) as run:
        run.communicate()
    if run.returncode != 0:
        raise RuntimeError("a run that was taken up again failed")


def _kill_a_worker(leader: int, rng: np.random.Generator) -> int:
    workers = _children(leader)
    if not workers:
        return 0
    os.kill(int(rng.choice(workers)), signal.SIGKILL)
    return 1


def _children(pid: int) -> list[int]:
    """Processes that score for a run; the one that multiprocessing keeps for its own ends is none of them."""
    try:
        pids = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [child for child in pids if b"spawn_main" in _command(child)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _outliving(pids: Sequence[int]) -> int:
    """How many of the processes are there still after a fair time."""
    end = time.perf_counter() + GONE_S
    while any(_command(pid) for pid in pids) and time.perf_counter() < end:
        time.sleep(0.1)
    return sum(bool(_command(pid)) for pid in pids)


def _resident_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB
    except (OSError, IndexError):
        return 0.0


def record(plan: Plan, found: Found) -> bytes:
    """The figures as metrics files have them."""
    values = {
        "soak_differing_files": len(found.differences), "soak_run_kills": found.run_kills,
        "soak_worker_kills": found.worker_kills, "soak_outliving_processes": found.outlived,
        "soak_refused": found.refused, "soak_ways_broken": min(plan.broken, len(BREAKS)),
        "memory_growth_mb": round(found.growth_mb, 1), "soak_undisturbed_s": round(found.seconds, 1),
    }
    figures = {name: {"value": value, "n": plan.scans, "low": None, "high": None} for name, value in values.items()}
    return (json.dumps(figures, indent=1) + "\n").encode()


def main(plan: Plan, folder: Path, metrics: Path) -> bool:
    """Soak in `folder`, which is emptied first, write `metrics`/soak.json; whether all is as it should be."""
    shutil.rmtree(folder, ignore_errors=True)
    metrics.mkdir(parents=True, exist_ok=True)
    found = soak(plan, folder)
    write_whole(metrics / "soak.json", record(plan, found))
    sys.stdout.write(record(plan, found).decode() + "".join(f"differs: {name}\n" for name in found.differences))
    return not found.differences and not found.outlived


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--broken", type=int, help="one in twenty if not given")
    parser.add_argument("--run-kills", type=int, default=10)
    parser.add_argument("--worker-kills", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("artifacts/soak"))
    parser.add_argument("--metrics", type=Path, default=Path("metrics"))
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run is not None:
        run_once(given.run, given.out, workers=given.workers)
        raise SystemExit(0)
    wanted = Plan(scans=given.count, broken=given.count // 20 if given.broken is None else given.broken,
                  run_kills=given.run_kills, worker_kills=given.worker_kills, workers=given.workers, seed=given.seed)
    raise SystemExit(0 if main(wanted, given.out, given.metrics) else 1)
