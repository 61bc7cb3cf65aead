"""How far a training is: a bar on a terminal, a plain line at a time elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Tell = Callable[[Mapping[str, Any]], None]


def _silent(line: Mapping[str, Any]) -> None:
    """For whoever does not want to be told."""


@contextmanager
def progress(total: int, *, done: int = 0, console: Console | None = None) -> Iterator[Tell]:
    """A function to hand each line of the log to. `done` updates of `total` were made before. No console: silent."""
    if console is None:
        yield _silent
    elif console.is_terminal:
        with Progress(TextColumn("updates"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]}"),
                      TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task("updates", total=total, completed=done, loss="")
            yield lambda line: bar.update(task, completed=line["update"], loss=f"{line['loss']:.3f}")
    else:
        yield lambda line: console.print(f"update {line['update']} of {total}: loss {line['loss']:.4f}, "
                                         f"{line['seconds']:.0f} s", highlight=False)
