"""How many processes score, and how many threads and how much memory each may take, on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sacroleak.core.sources import Source
from sacroleak.inference.disk import MIB

WORKER_MIB = 1_500
"""One process at work on 512x512x300 scans: 0.9 GB at its peak, and the next scan read ahead."""
CARD_WORKERS, CARD_WORKER_MIB = 4, 6_000
"""Processes that share a graphics card, each with networks and up to 2 GB of activations there; and the memory outside
the card of one: CUDA's own, and four scans. Estimates: no card was there to try."""
SHARE_OF_MEMORY = 0.9
PEEK = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """`workers` processes with `threads` each for their networks; `memory_mib` is where a process is ended."""

    workers: int
    threads: int
    memory_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewWish:
    """What the caller asks for; None takes what fits the machine. `workers` 0: no process besides the caller's. `card`:
    the networks run on a graphics card.
    """

    workers: int | None = None
    threads: int | None = None
    memory_mib: int | None = None
    card: bool = False

    @property
    def worker_mib(self) -> int:
        """Memory to count with for one process."""
        return CARD_WORKER_MIB if self.card else WORKER_MIB


def most_workers(wish: CrewWish, *, cores: int, memory_mib: int) -> int:
    """Processes at most: as wished, else one per core as far as memory goes."""
    if wish.workers is not None:
        return wish.workers
    room = int(SHARE_OF_MEMORY * memory_mib) // (wish.memory_mib or wish.worker_mib)
    return max(1, min(cores, room, CARD_WORKERS if wish.card else cores))


def crew_for(first: Sequence[Source], most: int, wish: CrewWish, *, cores: int, memory_mib: int) -> Crew:
    """The crew for a run that begins with the sources `first`, with no more than `most` processes.

    One process for each core gets more done than one for all of them: only the networks use several threads. A single
    scan that is all there is gets all cores, in the process that is there already, unless the wish says how many
    processes: to start another and load the software there takes longer than to read the scan.
    """
    workers = most
    if wish.workers is None and len(first) < peek(most):  # these are all
        scans = sum(source.kind != "refused" for source in first)
        workers = min(most, scans) if scans > 1 else 0
    share = int(SHARE_OF_MEMORY * memory_mib) // max(1, workers)
    return Crew(workers=workers, threads=wish.threads or max(1, cores // max(1, workers)),
                memory_mib=wish.memory_mib or max(2 * wish.worker_mib, share))


def peek(most: int) -> int:
    """How many sources to look for before the crew is chosen."""
    return max(2, min(PEEK, most))


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0))


def available_mib(root: Path = Path("/")) -> int:
    """Memory that can be had without swapping: of the machine, or of the container if that is less."""
    found = [_meminfo(root / "proc/meminfo")]
    with suppress(OSError, ValueError):  # no limit reads "max"
        found.append(int((root / "sys/fs/cgroup/memory.max").read_text()) // MIB)
    return min(found)


def _meminfo(path: Path) -> int:
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return int(lines["MemAvailable"].split()[0]) // 1024
