"""The real `sacroleak` command in a process of its own, as a user calls it: its seconds, and what it recorded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from sacroleak.core.errors import ConfigError, SacroleakError

MIB = 2**20
BLOCK = 4 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One run of `sacroleak score`: seconds from its start to its end, its run.json, and how many scans it assessed."""

    seconds: float
    record: Mapping[str, Any]
    assessed: int

    @property
    def stages(self) -> dict[str, float]:
        """Seconds by stage, summed over the scans; `other` is the rest: start, headers, tables, end.

        Where stages overlap their sum is more than the run took, and there is no rest.
        """
        timings: Mapping[str, float] = self.record["timings"]
        named = {name.removesuffix("_s"): s for name, s in timings.items() if name != "total_s"}
        return named | {"other": max(0.0, self.seconds - sum(named.values()))}

    @property
    def peak_gb(self) -> float:
        """The most memory that the largest of its processes held, GB."""
        return float(max(self.record["peak_memory_mib"], self.record["lead_memory_mib"])) * MIB / 1e9


def score(scans: Sequence[Path], out: Path, *, bundle: Path) -> Ran:
    """Score `scans` into `out`, which is emptied first; their files are read from the disk, not from memory.

    Raises SacroleakError if not all of them are scored.
    """
    shutil.rmtree(out, ignore_errors=True)
    for scan in scans:
        forget(scan)
    began = perf_counter()
    done = _call("score", *map(str, scans), "--out", str(out), "--bundle", str(bundle))
    seconds = perf_counter() - began
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["nothing said"]
        raise SacroleakError(f"sacroleak score ended with {done.returncode}, wanted 0: {said[-1]}")
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    if record["counts"]["scored"] != len(scans):
        raise SacroleakError(f"{record['counts']['scored']} scans were scored, wanted {len(scans)}")
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in out.glob("cases/*/report.json")]
    return Ran(seconds=seconds, record=record, assessed=sum(report["status"] == "assessed" for report in reports))


def help_seconds() -> float:
    """Seconds of one `sacroleak --help`. Raises SacroleakError if it fails."""
    began = perf_counter()
    done = _call("--help")
    if done.returncode != 0:
        raise SacroleakError(f"sacroleak --help ended with {done.returncode}, wanted 0")
    return perf_counter() - began


def forget(place: Path) -> int:
    """Have the system drop what it holds in memory of a file, or of all files of a folder; bytes that they have."""
    size = 0
    for path in files_of(place):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)  # what is not on the disk yet cannot be dropped
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            size += os.fstat(handle).st_size
        finally:
            os.close(handle)
    return size


def disk_bytes_a_second(place: Path) -> float:
    """How fast the files of a folder are read one after the other, from the disk."""
    size = forget(place)
    began = perf_counter()
    for path in files_of(place):
        with path.open("rb", buffering=0) as file:
            while file.read(BLOCK):
                pass
    return size / (perf_counter() - began)


def files_of(place: Path) -> list[Path]:
    """The file, or all files of the folder, in the order of their names."""
    return [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Let this thread, and processes and threads that it starts, run on `count` cores only.

    Raises ConfigError if there are fewer.
    """
    before = os.sched_getaffinity(0)
    if len(before) < count:
        raise ConfigError(f"cores: {count} are wanted, this process may run on {len(before)}")
    os.sched_setaffinity(0, set(sorted(before)[:count]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _call(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command with these words."""
    command = Path(sysconfig.get_path("scripts")) / "sacroleak"
    if not command.is_file():
        raise ConfigError("the command sacroleak is not installed beside this Python; run make bench")
    return subprocess.run([str(command), *words], capture_output=True, text=True, check=False)  # noqa: S603 - our own command
