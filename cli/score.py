"""`sacroleak score`: scans in, reports, label images, pictures and tables out."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sacroleak.cli.engine import EngineChoice, crew_wish, open_engine
from sacroleak.cli.options import BundleFolder, Debug, Out, Threads, Workers
from sacroleak.core.errors import InputError

if TYPE_CHECKING:
    from sacroleak.inference.batch import RunPlan, RunSummary
    from sacroleak.inference.progress import Pace
    from sacroleak.inference.run_record import Outcome
    from sacroleak.inference.score_one import Engine

STDIN = Path("-")
LINE_S = 60.0
"""Without a terminal, a line on how far the run is comes so often."""

Inputs = Annotated[list[Path], typer.Argument(help="DICOM folders or files, zip files, NIfTI files, manifests (.csv); "
                                                   "any mix of them. - reads more of them from standard input, one a "
                                                   "line.", metavar="INPUT...")]
Mode = Annotated[str | None, typer.Option("--mode", help="What to write per scan: full, or report (no images).",
                                          metavar="MODE")]
EffortName = Annotated[str | None, typer.Option("--effort", metavar="EFFORT",
                                                help="How long the networks look: fast, standard or careful.")]
NoPreview = Annotated[bool, typer.Option("--no-preview", help="Write no preview.png.")]
Force = Annotated[bool, typer.Option("--force", help="Score again what is in DIR already.")]
TimeLimit = Annotated[float | None, typer.Option("--time-limit", min=1.0, metavar="SECONDS",
                                                 help="Work on one scan after which it is given up.")]
MemoryLimit = Annotated[int | None, typer.Option("--memory-limit", min=256, metavar="MIB",
                                                 help="Memory at which a process that scores is ended.")]
Scheduler = Annotated[str | None, typer.Option("--scheduler", metavar="ADDRESS",
                                               help="Score on the Dask cluster with its scheduler there, as "
                                                    "tcp://HOST:PORT.")]
Device = Annotated[str, typer.Option("--device", metavar="DEVICE",
                                     help="What the networks run on: cpu, or a graphics card: cuda or cuda:N.")]


def score(inputs: Inputs, *, out: Out, bundle: BundleFolder = None, mode: Mode = None, effort: EffortName = None,
          workers: Workers = None, threads: Threads = None, time_limit: TimeLimit = None,
          memory_limit: MemoryLimit = None, scheduler: Scheduler = None, device: Device = "cpu",
          no_preview: NoPreview = False, force: Force = False, debug: Debug = False) -> None:
    """Say for every scan whether cement leaked, where, and why.

    Exit code 0: all done; 1: some scans refused, see failures.csv; 2: the call was wrong.
    """
    _require_sense(inputs, out)
    choice = EngineChoice(bundle=bundle, mode=mode, effort=effort, threads=threads, workers=workers,
                          memory_mib=memory_limit, preview=not no_preview, debug=debug, device=device)
    engine, facts = open_engine(choice, [str(path) for path in inputs])
    plan = run_plan(choice, facts=facts, force=force, scheduler=scheduler, time_limit_s=time_limit)
    summary = run(inputs, out, engine, plan)
    counts = {what: sum(o.what == what for o in summary.outcomes) for what in ("scored", "kept", "refused")}
    redone = Counter(outcome.redone for outcome in summary.outcomes if outcome.redone)
    for changed, number in redone.items():
        print(f"{number} of them scored again: another {changed} than that of the result that was there")
    print(f"{counts['scored']} scored, {counts['kept']} kept from an earlier run, {counts['refused']} refused. "
          f"For research only. See {out / 'index.html'}")
    raise typer.Exit(1 if summary.failures else 0)


def run_plan(choice: EngineChoice, **changes: Any) -> RunPlan:
    """How a run goes by this machine's clocks; `changes` are fields of RunPlan, None as if they were not given."""
    from sacroleak.inference.batch import RunPlan
    from sacroleak.inference.config import load_score_config

    given = {"time_limit_s": load_score_config().time_limit_s,
             **{name: value for name, value in changes.items() if value is not None}}
    return RunPlan(now=utc_now, clock=time.perf_counter, wish=crew_wish(choice), **given)


def utc_now() -> datetime:
    """The clock of the records; a function of a module, so that it can be sent to other processes."""
    return datetime.now(UTC)


def run(inputs: list[Path], out: Path, engine: Engine, plan: RunPlan) -> RunSummary:
    """Find and score every scan at `inputs`, with a progress bar on a terminal and a line per scan elsewhere."""
    from sacroleak.inference.batch import score_many

    with _progress(inputs, plan) as tell:
        return score_many(_given(inputs), out, engine, replace(plan, tell=tell))


def _given(inputs: Iterable[Path]) -> Iterator[Path]:
    """The inputs, and in the place of `-` those that standard input lists."""
    for path in inputs:
        if path == STDIN:
            yield from (Path(line.rstrip("\n")) for line in sys.stdin if line.strip())
        else:
            yield path


def sentence(outcome: Outcome) -> str:
    """What became of one scan, in one line."""
    if outcome.failure is not None:
        return f"{outcome.case_id}: refused: {outcome.failure.reason} [{outcome.input}]"
    report = outcome.report
    if report is None or report.status != "assessed":
        return f"{outcome.case_id}: not assessable: {'; '.join(report.reasons) if report else ''}"
    sites = ", ".join(f"{site} {found.volume_ml:.2f} mL" for site, found in report.sites.items() if found.present)
    found = f"leak: {sites}" if report.leak.present else "no leak" if report.cement.total_ml > 0 else "no cement"
    review = ", needs review" if report.needs_review else ""
    kept = " (kept from an earlier run)" if outcome.what == "kept" else ""
    again = f" (scored again: another {outcome.redone})" if outcome.redone else ""
    return f"{outcome.case_id}: {found}{review}{kept}{again}"


def _require_sense(inputs: list[Path], out: Path) -> None:
    """Refuse calls that cannot be meant."""
    missing = [path for path in inputs if path != STDIN and not path.exists()]
    if len(missing) == len(inputs):
        raise InputError(f"input does not exist: {missing[0]}; give DICOM folders, zip files, NIfTI files or a "
                         "manifest")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder")
    for path in inputs:
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise InputError(f"--out {out} lies inside the input {path}, so results would be read as scans; give a "
                             "folder outside it")


@contextmanager
def _progress(inputs: list[Path], plan: RunPlan) -> Iterator[Callable[[Outcome, int], None]]:
    """A bar on a terminal, a line now and then elsewhere; refusals go to stderr, all else to stdout."""
    from sacroleak.inference.progress import Pace

    pace = Pace(clock=plan.clock, total=_counted(inputs))
    pace.start()
    with _bar(pace) if sys.stderr.isatty() else _lines(pace) as show:
        def tell(outcome: Outcome, position: int) -> None:
            refused = outcome.failure is not None
            print(sentence(outcome), file=sys.stderr if refused else sys.stdout, flush=True)
            pace.count(outcome, position)
            show()

        yield tell


@contextmanager
def _lines(pace: Pace) -> Iterator[Callable[[], None]]:
    said = pace.clock()

    def show() -> None:
        nonlocal said
        if pace.clock() - said >= LINE_S:
            said = pace.clock()
            print(f"-- {pace.line()}", flush=True)

    yield show


@contextmanager
def _bar(pace: Pace) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=True,
                  redirect_stderr=True) as bar:
        task = bar.add_task("looking for scans", total=None)
        yield lambda: bar.update(task, description=pace.line(), total=pace.total(), completed=pace.position)


def _counted(inputs: list[Path]) -> Callable[[], int | None]:
    """Counts in a thread what there is to look at; the result is None until that is known, and for standard input."""
    from sacroleak.core.errors import SacroleakError
    from sacroleak.core.sources import count_units

    found: list[int] = []

    def count() -> None:
        with suppress(SacroleakError, OSError):  # the run itself says what is wrong
            found.append(count_units(inputs))

    if STDIN not in inputs:
        Thread(target=count, name="count", daemon=True).start()
    return lambda: found[0] if found else None
