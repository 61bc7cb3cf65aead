"""`sacroleak demo`: six made-up scans, scored like any other, and truth against result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sacroleak.cli.engine import EngineChoice, open_engine
from sacroleak.cli.options import BundleFolder, Debug, Out, Seed, Threads
from sacroleak.cli.scans import TruthRow, leaks_of, table_bytes
from sacroleak.cli.score import run, run_plan

if TYPE_CHECKING:
    from sacroleak.cli.scans import KnownScan
    from sacroleak.core.structures import Site
    from sacroleak.inference.batch import RunPlan, RunSummary
    from sacroleak.inference.report_page import DemoRow
    from sacroleak.inference.score_one import Engine

PAGE, SCANS, MANIFEST = "demo.html", "scans", "manifest.csv"
Force = Annotated[bool, typer.Option("--force", help="Score again what is in DIR already.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Truth:
    """What stays in memory of a known scan after its voxels are on disk."""

    name: str
    sites: frozenset[Site]
    leaked_ml: float
    cement_ml: float


def demo(*, out: Out = Path("demo"), seed: Seed = 1, bundle: BundleFolder = None, threads: Threads = None,
         force: Force = False, debug: Debug = False) -> None:
    """Make six scans with known leaks, score them, print truth against result, and write a page with pictures."""
    from sacroleak.training.simulation.cases import demo_cases

    choice = EngineChoice(bundle=bundle, mode=None, threads=threads, preview=True, debug=debug)
    engine, facts = open_engine(choice, [])
    print("The scans are synthetic: bones, cement and leaks are computed. They say nothing about accuracy on patients.")
    rows, summary = compare(demo_cases(seed), out, engine, run_plan(choice, facts=facts, force=force))
    _print_table(rows)
    print(f"For research only. Pictures and reasons: {out / PAGE}")
    raise typer.Exit(1 if summary.failures else 0)


def compare(scans: Iterable[KnownScan], out: Path, engine: Engine,
            plan: RunPlan) -> tuple[list[DemoRow], RunSummary]:
    """Write `scans` as NIfTI, score the files as a user would, write the page; a row for each scan, and the run."""
    from dataclasses import replace

    from sacroleak.core.whole import write_whole
    from sacroleak.inference.report_page import demo_page

    truths = write_scans(scans, out / SCANS)
    manifest = out / SCANS / MANIFEST
    summary = run([manifest], out, engine, replace(plan, facts=replace(plan.facts, inputs=[str(manifest)])))
    rows = [_row(truth, summary, out) for truth in truths]
    write_whole(out / PAGE, demo_page(rows, engine.bundle).encode())
    return rows, summary


def write_scans(scans: Iterable[KnownScan], folder: Path) -> list[_Truth]:
    """`<folder>/<name>.nii.gz` for each scan, and the manifest that lists them with their truth."""
    from sacroleak.core.nifti_write import write_volume
    from sacroleak.core.whole import write_whole

    folder.mkdir(parents=True, exist_ok=True)
    truths, rows = [], []
    for scan in scans:
        write_volume(folder / f"{scan.name}.nii.gz", scan.ct)
        leaked = leaks_of(scan)
        truths.append(_Truth(name=scan.name, sites=frozenset(leaked), leaked_ml=sum(leaked.values()),
                             cement_ml=scan.cement_ml))
        rows.append(TruthRow(case_id=scan.name, path=f"{scan.name}.nii.gz", sites=sorted(leaked),
                             leaked_ml=sum(leaked.values()), cement_ml=scan.cement_ml, cohort="demo"))
    write_whole(folder / MANIFEST, table_bytes(rows))
    return truths


def _row(truth: _Truth, summary: RunSummary, out: Path) -> DemoRow:
    from sacroleak.inference.report_page import DemoRow
    from sacroleak.inference.write import CASE_PAGE, CASES, PREVIEW, finished_report

    outcome = next(o for o in summary.outcomes if o.case_id == truth.name)
    folder = f"{CASES}/{truth.name}"
    return DemoRow(name=truth.name, true_sites=truth.sites, true_leaked_ml=truth.leaked_ml,
                   true_cement_ml=truth.cement_ml,
                   report=None if outcome.failure else finished_report(out / folder),
                   refused=outcome.failure.reason if outcome.failure else "",
                   picture=f"{folder}/{PREVIEW}", page=f"{folder}/{CASE_PAGE}")


def _print_table(rows: Sequence[DemoRow]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Truth against result")
    for heading in ("scan", "truth", "result", "leaked mL, truth", "leaked mL, result", "agrees", "review"):
        table.add_column(heading, justify="right" if "mL" in heading else "left")
    for row in rows:
        report = row.report
        answered = report is not None and report.status == "assessed"
        result = _names(row.found_sites) if answered else "refused" if report is None else "not assessable"
        table.add_row(row.name, _names(row.true_sites), result, f"{row.true_leaked_ml:.2f}",
                      f"{report.cement.leaked_ml:.2f}" if answered and report else "",
                      "yes" if row.sites_agree else "no", "yes" if report and report.needs_review else "")
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=140)  # a log file has no width to fit
    console.print(table)
    agree = sum(row.sites_agree for row in rows)
    print(f"{agree} of {len(rows)} scans: the same sites as the truth.")


def _names(sites: frozenset[Site]) -> str:
    return ", ".join(sorted(site.value for site in sites)) or "no leak"
