"""`sacroleak simulate`: a cohort of virtual patients with everything that is true about them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sacroleak.cli.options import Out, Seed
from sacroleak.cli.scans import TruthRow, table_bytes
from sacroleak.core.errors import InputError

if TYPE_CHECKING:
    from sacroleak.training.simulation.production import Finished, Run

Count = Annotated[int, typer.Option("--count", "-n", min=1, help="How many patients.", metavar="N")]
CohortName = Annotated[str, typer.Option("--cohort", help="A cohort of configs/simulate.yaml: reference or training.",
                                         metavar="NAME")]
Anatomies = Annotated[Path | None, typer.Option(
    "--anatomies", help="Bones to use: prepared anatomies (a folder or a file), a folder with ct.nii.gz and "
                        "labels.nii.gz, or one with surfaces of sacrum and hips. Computed bones if not given.",
    metavar="PATH")]
Spacing = Annotated[float | None, typer.Option("--spacing", min=0.4, max=6.0, metavar="MM",
                                               help="Pixel and slice distance; drawn if not given.")]
FieldOfView = Annotated[float, typer.Option("--fov", min=120, max=500, metavar="MM", help="Width of the scan.")]
Format = Annotated[str, typer.Option("--format", help="nifti or dicom, for the CT.", metavar="FORMAT")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, metavar="N",
                                             help="Processes; as many as cores and memory allow if not given.")]
TRUTH, OWN_BONES, CT_FILE = "truth.csv", "anatomy.npz", "ct.nii.gz"
WRITE_EVERY_S = 5.0
"""The table is written anew at most so often, and at the end."""


def simulate(*, out: Out, cohort: CohortName = "reference", count: Count = 6, seed: Seed = 1,
             anatomies: Anatomies = None, spacing: Spacing = None, fov: FieldOfView = 300.0, form: Format = "nifti",
             workers: Workers = None) -> None:
    """Write N labelled scans of virtual patients, and truth.csv, a manifest that `sacroleak score` reads."""
    from sacroleak.training.simulation.cohort import shipped_cohorts
    from sacroleak.training.simulation.production import Run, possible_workers

    shipped_cohorts().cohort(cohort)  # an unknown one is refused before anything is written
    if form not in ("nifti", "dicom"):
        raise InputError(f"--format {form}: wanted nifti or dicom")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder")
    run = Run(cohort=cohort, seed=seed, anatomies=bones(anatomies, out), spacing_mm=spacing, fov_mm=fov,
              format="dicom" if form == "dicom" else "nifti", config=shipped_cohorts())
    finished = write_cohort(run, count, out, workers=workers or possible_workers())
    print(_summary(run, finished))
    print(f"All of it is synthetic. To score the scans: sacroleak score {out / TRUTH} --out DIR")


def bones(place: Path | None, out: Path) -> tuple[Path, ...]:
    """The files to draw from. A labelled CT or surfaces become one file in `out` first, which the workers share."""
    from sacroleak.training.simulation.sources import find_anatomies, is_prepared

    if place is None or not place.is_dir() or any(is_prepared(path) for path in place.glob("*.npz")):
        return find_anatomies(place)
    # These need the packages of the training extra, so they are loaded only now.
    from sacroleak.training.labelled_ct import read_labelled_ct
    from sacroleak.training.mesh_files import from_surfaces, read_patient

    if (place / CT_FILE).is_file():
        names = place / "labels.tsv"
        anatomy = read_labelled_ct(place / CT_FILE, place / "labels.nii.gz", names if names.is_file() else None,
                                   name="real-ct", source="a labelled CT given by the user")
    else:
        anatomy = from_surfaces(read_patient(place), name="surfaces", source="surfaces given by the user")
    out.mkdir(parents=True, exist_ok=True)
    anatomy.save(out / OWN_BONES)
    return (out / OWN_BONES,)


def write_cohort(run: Run, count: int, out: Path, *, workers: int) -> list[Finished]:
    """Make what is missing of a cohort, with a bar on a terminal and a line a patient elsewhere; all patients."""
    from sacroleak.core.whole import write_whole
    from sacroleak.training.simulation.production import produce

    finished: dict[int, Finished] = {}
    written = time.monotonic()
    with _progress(count) as tell:
        for patient in produce(run, count, out, workers=workers):
            finished[patient.number] = patient
            tell(patient)
            if time.monotonic() - written > WRITE_EVERY_S:
                write_whole(out / TRUTH, _table(run, finished))
                written = time.monotonic()
    write_whole(out / TRUTH, _table(run, finished))
    return [finished[number] for number in sorted(finished)]


def sentence(patient: Finished) -> str:
    """What one patient became, in one line."""
    truth = patient.truth
    found = ", ".join(f"{leak.site} {leak.volume_ml:.2f} mL" for leak in truth.leaks)
    cement = f"{truth.cement_ml.sacral:.1f} mL of cement" if truth.cement_ml.sacral else "no cement"
    absent = ", ".join(leak.mechanism for leak in truth.missing)
    missing = f", asked for but not there: {absent}" if absent else ""
    kept = " (kept from an earlier run)" if patient.kept else ""
    return f"{truth.case_id}: {cement}, {found or 'no leak'}{missing}{kept}"


def _table(run: Run, finished: dict[int, Finished]) -> bytes:
    place = "ct.nii.gz" if run.format == "nifti" else "dicom"
    rows = []
    for number in sorted(finished):
        truth = finished[number].truth
        rows.append(TruthRow(case_id=truth.case_id, path=f"{truth.case_id}/{place}", sites=truth.sites,
                             leaked_ml=truth.cement_ml.leaked, cement_ml=truth.cement_ml.sacral, cohort=run.cohort))
    return table_bytes(rows)


def _summary(run: Run, finished: list[Finished]) -> str:
    leaking = sum(bool(patient.truth.leaks) for patient in finished)
    kept = sum(patient.kept for patient in finished)
    missing = sum(len(patient.truth.missing) for patient in finished)
    rates = "" if run.drawn_from.for_rates else " This cohort is made for learning: its frequencies mean nothing."
    return (f"{len(finished) - kept} patients made, {kept} kept from an earlier run; {leaking} of {len(finished)} with "
            f"a leak, {missing} leaks asked for found no room or lie outside the scan.{rates}")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Finished], None]]:
    """A bar on a terminal, and a line for each patient everywhere."""
    def line(patient: Finished) -> None:
        print(sentence(patient), flush=True)

    if not sys.stderr.isatty():
        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=True) as bar:
        task = bar.add_task("simulating", total=total)

        def tell(patient: Finished) -> None:
            line(patient)
            bar.advance(task)

        yield tell
