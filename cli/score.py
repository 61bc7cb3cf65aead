"""`sacroleak score`: scans in, reports, label images, pictures and tables out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sacroleak.cli.engine import EngineChoice, open_engine
from sacroleak.cli.options import BundleFolder, Debug, Out, Threads
from sacroleak.core.errors import InputError

if TYPE_CHECKING:
    from sacroleak.core.sources import Source
    from sacroleak.inference.batch import RunSummary
    from sacroleak.inference.run_record import Outcome, RunFacts
    from sacroleak.inference.score_one import Engine

Inputs = Annotated[list[Path], typer.Argument(help="DICOM folders or files, zip files, NIfTI files, manifests (.csv); "
                                                   "any mix of them.", metavar="INPUT...")]
Mode = Annotated[str | None, typer.Option("--mode", help="What to write per scan: full, or report (no images).",
                                          metavar="MODE")]
NoPreview = Annotated[bool, typer.Option("--no-preview", help="Write no preview.png.")]
Force = Annotated[bool, typer.Option("--force", help="Score again what is in DIR already.")]


def score(inputs: Inputs, *, out: Out, bundle: BundleFolder = None, mode: Mode = None, threads: Threads = None,
          no_preview: NoPreview = False, force: Force = False, debug: Debug = False) -> None:
    """Say for every scan whether cement leaked, where, and why.

    Exit code 0: all done; 1: some scans refused, see failures.csv; 2: the call was wrong.
    """
    _require_sense(inputs, out)
    choice = EngineChoice(bundle=bundle, mode=mode, threads=threads, preview=not no_preview, debug=debug)
    engine, facts = open_engine(choice, [str(path) for path in inputs])
    summary = run(inputs, out, engine, facts=facts, force=force)
    counts = {what: sum(o.what == what for o in summary.outcomes) for what in ("scored", "kept", "refused")}
    print(f"{counts['scored']} scored, {counts['kept']} kept from an earlier run, {counts['refused']} refused. "
          f"For research only. See {out / 'index.html'}")
    raise typer.Exit(1 if summary.failures else 0)


def run(inputs: list[Path], out: Path, engine: Engine, *, facts: RunFacts, force: bool) -> RunSummary:
    """Find and score every scan at `inputs`, with a progress bar on a terminal and a line per scan elsewhere."""
    from sacroleak.core.sources import discover
    from sacroleak.inference.batch import RunPlan, score_many

    sources: Iterable[Source] = discover(inputs)
    total = None
    if not _any_archive(inputs):  # an archive is unpacked only while its own scans are scored
        sources = list(sources)
        total = len(sources)
    with _progress(total) as tell:
        plan = RunPlan(facts=facts, now=lambda: datetime.now(UTC), clock=time.perf_counter, force=force, tell=tell)
        return score_many(sources, out, engine, plan)


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
    return f"{outcome.case_id}: {found}{review}{kept}"


def _require_sense(inputs: list[Path], out: Path) -> None:
    """Refuse calls that cannot be meant."""
    missing = [path for path in inputs if not path.exists()]
    if len(missing) == len(inputs):
        raise InputError(f"input does not exist: {missing[0]}; give DICOM folders, zip files, NIfTI files or a "
                         "manifest")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder")
    for path in inputs:
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise InputError(f"--out {out} lies inside the input {path}, so results would be read as scans; give a "
                             "folder outside it")


def _any_archive(inputs: list[Path]) -> bool:
    if any(path.suffix.lower() == ".csv" for path in inputs):
        return True  # a manifest may name archives
    return any(path.suffix.lower() == ".zip" or (path.is_dir() and any(path.rglob("*.[zZ][iI][pP]")))
               for path in inputs)


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[Outcome], None]]:
    """A bar on a terminal; refusals go to stderr, all else to stdout."""
    def line(outcome: Outcome) -> None:
        print(sentence(outcome), file=sys.stderr if outcome.failure is not None else sys.stdout, flush=True)

    if not sys.stderr.isatty():
        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=True, redirect_stderr=True) as bar:
        task = bar.add_task("scoring", total=total)

        def tell(outcome: Outcome) -> None:
            line(outcome)
            bar.advance(task)

        yield tell
