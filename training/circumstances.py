"""When, where and with what figures were measured: date, machine in words, commit, release, data."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sacroleak.models.bundle import Bundle


class Circumstances(BaseModel):
    """What a reader needs to repeat a measurement. `commit` ends in `+` if files differed from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    date: str
    machine: str
    commit: str
    bundle: str
    bundle_digest: str
    data_digest: str


def circumstances(bundle: Bundle, *, now: datetime, data: str) -> Circumstances:
    """Of this process, on this machine; `data`: sha256 of what was measured on."""
    return Circumstances(date=now.date().isoformat(), machine=machine(), commit=commit(), bundle=bundle.name,
                         bundle_digest=bundle.digest, data_digest=data)


def machine() -> str:
    """Processor model, cores this process may use, memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{_processor()}, {cores} core{'' if cores == 1 else 's'}, {memory:.0f} GiB memory, {platform.system()}"


def commit() -> str:
    """Short commit of the checkout the code runs from, `unknown` outside of one."""
    folder = Path(__file__).resolve().parent
    try:
        name = _git(folder, "rev-parse", "--short=12", "HEAD")
        # Results themselves change with every run and say nothing about the code.
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)metrics",
                       ":(exclude,top)docs/results.md")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + ("+" if changed else "")


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)  # noqa: S603, S607 - fixed words, the user's own git
    return done.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
