"""One case folder on disk: whole or not at all."""

from __future__ import annotations

from pathlib import Path

from sacroleak.core.errors import InputError
from sacroleak.core.geometry import Geometry
from sacroleak.core.nifti_write import labels_file
from sacroleak.core.report import Report, read_report
from sacroleak.core.whole import whole_folder
from sacroleak.inference.own_grid import structures_on
from sacroleak.inference.report_page import case_page
from sacroleak.inference.score_one import ScoredScan

REPORT, LABELS, CEMENT, LEAKS = "report.json", "labels.nii.gz", "cement.nii.gz", "leaks.nii.gz"
PREVIEW, CASE_PAGE = "preview.png", "report.html"
CASES = "cases"


def write_case(cases: Path, scored: ScoredScan, grid: Geometry, *, label_images: bool) -> None:
    """Write `<cases>/<case_id>/`, replacing an older one. `grid` is the scan's own.

    A scan that is not assessable has no label images: empty ones would read as "nothing there".
    """
    with whole_folder(cases / scored.report.case_id) as folder:
        if scored.preview is not None:
            (folder / PREVIEW).write_bytes(scored.preview)
        segmentation, numbers = scored.scan.segmentation, scored.scan.leak_numbers
        if label_images and segmentation is not None and numbers is not None:
            placed = structures_on(grid, segmentation)
            for name, part, start in ((LABELS, placed.part, placed.start),
                                      (CEMENT, segmentation.cement, segmentation.start),
                                      (LEAKS, numbers, segmentation.start)):
                (folder / name).write_bytes(labels_file(part, start=start, grid=grid))
        page = case_page(scored.report, preview=PREVIEW if scored.preview is not None else None,
                         label_images=[name for name in (LABELS, CEMENT, LEAKS) if (folder / name).is_file()])
        (folder / CASE_PAGE).write_text(page, encoding="utf-8")
        (folder / REPORT).write_text(scored.report.to_json(), encoding="utf-8")


def finished_report(folder: Path) -> Report | None:
    """The report of a case folder written earlier; None if there is none or it cannot be read."""
    if not (folder / REPORT).is_file():
        return None
    try:
        return read_report(folder / REPORT)
    except InputError:
        return None
