"""Workers of long stages: they work, and none outlives the process that began it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sacroleak.training.processes import processes

BEGIN = """
import os, time
from pathlib import Path
from sacroleak.training.processes import processes

def tell(folder):
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)

if __name__ == "__main__":
    with processes(2) as pool:
        list(pool.map(tell, [{folder!r}] * 2))
"""
PATIENCE_S = 60


def test_the_work_comes_back_in_order() -> None:
    with processes(2) as pool:
        assert list(pool.map(abs, [-1, 2, -3])) == [1, 2, 3]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_first(tmp_path: Path, how: signal.Signals) -> None:
    script, folder = tmp_path / "begin.py", tmp_path / "told"
    folder.mkdir()
    script.write_text(BEGIN.format(folder=str(folder)))
    with subprocess.Popen([sys.executable, str(script)]) as first:
        workers = wait_for(lambda: [int(p.name) for p in folder.iterdir()], 2)
        assert len(workers) == 2, "both have begun"
        first.send_signal(how)
    wait_for(lambda: [pid for pid in workers if not alive(pid)], 2)
    assert not [pid for pid in workers if alive(pid)]


def wait_for(found: Callable[[], list[int]], count: int) -> list[int]:
    """What `found` gives once it is so many, or after PATIENCE_S."""
    end = time.monotonic() + PATIENCE_S
    while len(found()) < count and time.monotonic() < end:
        time.sleep(0.1)
    return list(found())


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
