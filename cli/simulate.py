"""`sacroleak simulate`: scans of virtual sacroplasty with everything that is true about them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sacroleak.cli.options import Out, Seed
from sacroleak.cli.scans import leaks_of, table_bytes, truth_row

if TYPE_CHECKING:
    from sacroleak.cli.scans import LabelledScan

Count = Annotated[int, typer.Option("--count", "-n", min=1, help="How many scans.", metavar="N")]
TRUTH = "truth.csv"


def simulate(*, out: Out, count: Count = 6, seed: Seed = 1) -> None:
    """Write N labelled scans: ct, anatomy as before cement, cement, leaks, and a manifest with the truth."""
    from sacroleak.training.simulation.cases import simulated_cases

    written = write_labelled(simulated_cases(seed, count), out)
    print(f"{written} synthetic scans. To score them: sacroleak score {out / TRUTH} --out DIR")


def write_labelled(scans: Iterable[LabelledScan], out: Path) -> int:
    """One whole folder per scan and the manifest `truth.csv`, after each scan whole; how many were written."""
    from sacroleak.core.nifti_write import write_labels, write_volume
    from sacroleak.core.whole import remove_leftovers, whole_folder, write_whole

    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    rows = []
    for scan in scans:
        with whole_folder(out / scan.name) as folder:
            write_volume(folder / "ct.nii.gz", scan.ct)
            for name, labels in (("anatomy", scan.anatomy), ("cement", scan.cement), ("leaks", scan.leaks)):
                write_labels(folder / f"{name}.nii.gz", labels, start=(0, 0, 0), grid=scan.ct.geometry)
        rows.append(truth_row(scan, f"{scan.name}/ct.nii.gz"))
        write_whole(out / TRUTH, table_bytes(rows))
        print(f"{scan.name}: {', '.join(sorted(leaks_of(scan))) or 'no leak'}", flush=True)
    return len(rows)
