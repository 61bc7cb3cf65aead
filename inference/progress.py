"""How far a run is, in one line: done, refused, scans a minute, and about how much longer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sacroleak.inference.run_record import Outcome
from sacroleak.inference.score_one import Clock


@dataclass(slots=True, kw_only=True)
class Pace:
    """Counts outcomes. `total` says how many places there are to look at, None while that is not known.

    `clock` is in seconds.
    """

    clock: Clock
    total: Callable[[], int | None] = lambda: None
    done: int = 0
    refused: int = 0
    position: int = 0
    began: float = -1.0

    def count(self, outcome: Outcome, position: int) -> None:
        """One more source is through; `position` is how far the run has looked."""
        self.done += 1
        self.refused += outcome.failure is not None
        self.position = position

    def start(self) -> None:
        """The run begins now."""
        self.began = self.clock()

    def line(self) -> str:
        """What there is to say now. The time left supposes that the rest is like what was seen."""
        passed = self.clock() - self.began
        rate = 60 * self.done / passed if passed > 0 else 0.0
        line = f"{self.done} done, {self.refused} refused, {rate:.1f} a minute"
        total = self.total()
        if total is None or not 0 < self.position < total or passed <= 0:
            return line
        return f"{line}, about {_duration(passed * (total - self.position) / self.position)} left"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes <= 1:
        return "a minute"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
