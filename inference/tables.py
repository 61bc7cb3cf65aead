"""The tables of a run, built from its case reports alone: so a run that was ended and taken up again has the same."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from sacroleak.core.report import Report
from sacroleak.core.structures import Site
from sacroleak.core.whole import whole_file, write_whole

Cell = str | float | int | bool
Row = Mapping[str, Cell]

RESULT_COLUMNS: Mapping[str, str] = {
    "case_id": "string", "status": "string", "needs_review": "bool", "reasons": "string", "leak_present": "bool",
    "leak_probability": "double", "cement_total_ml": "double", "cement_intraosseous_ml": "double",
    "cement_leaked_ml": "double", "leak_count": "int64",
    **{f"{site}_{what}": kind for site in Site
       for what, kind in (("present", "bool"), ("probability", "double"), ("volume_ml", "double"))},
}
"""Columns and their types in the Parquet file, by the names Arrow gives them."""
LEAK_COLUMNS = ("case_id", "number", "site", "volume_ml", "side", "centroid_l_mm", "centroid_p_mm", "centroid_s_mm",
                "needs_review", *(f"probability_{site}" for site in Site), "findings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One input that has no result. `input` is the path as it was given; `stage` is find, read, score or write."""

    case_id: str
    input: str
    reason: str
    stage: str


def write_tables(out: Path, reports: Iterable[Report], failures: Sequence[Failure]) -> None:
    """Write results.csv, results.parquet, leaks.csv and failures.csv into `out`, each whole or not at all."""
    ordered = sorted(reports, key=lambda report: report.case_id)
    results = _csv(RESULT_COLUMNS, [result_row(report) for report in ordered])
    write_whole(out / "results.csv", results)
    _write_parquet(out / "results.parquet", RESULT_COLUMNS, results)
    write_whole(out / "leaks.csv", _csv(LEAK_COLUMNS, [row for report in ordered for row in leak_rows(report)]))
    names = [field.name for field in fields(Failure)]
    refused = [{name: getattr(failure, name) for name in names} for failure in failures]
    write_whole(out / "failures.csv", _csv(names, refused))


def result_row(report: Report) -> Row:
    """One scan as a row of results.csv."""
    row: dict[str, Cell] = {
        "case_id": report.case_id, "status": report.status, "needs_review": report.needs_review,
        "reasons": "; ".join(report.reasons), "leak_present": report.leak.present,
        "leak_probability": report.leak.probability, "cement_total_ml": report.cement.total_ml,
        "cement_intraosseous_ml": report.cement.intraosseous_ml, "cement_leaked_ml": report.cement.leaked_ml,
        "leak_count": len(report.leaks),
    }
    for site in Site:
        summary = report.sites[site]
        row |= {f"{site}_present": summary.present, f"{site}_probability": summary.probability,
                f"{site}_volume_ml": summary.volume_ml}
    return row


def leak_rows(report: Report) -> list[Row]:
    """The leaks of one scan as rows of leaks.csv."""
    rows: list[Row] = []
    for leak in report.leaks:
        left, behind, up = leak.centroid_lps_mm
        row: dict[str, Cell] = {
            "case_id": report.case_id, "number": leak.number, "site": leak.site.value, "volume_ml": leak.volume_ml,
            "side": leak.side.value, "centroid_l_mm": left, "centroid_p_mm": behind, "centroid_s_mm": up,
            "needs_review": leak.needs_review, "findings": " ".join(finding.sentence for finding in leak.findings),
        }
        row |= {f"probability_{site}": leak.probabilities.get(site, 0.0) for site in Site}
        rows.append(row)
    return rows


def _csv(columns: Iterable[str], rows: Iterable[Mapping[str, Cell]]) -> bytes:
    """UTF-8, comma, one line feed a row, `true` and `false` in lower case as JSON has them."""
    names = list(columns)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_plain(row[name]) for name in names])
    return text.getvalue().encode()


def _plain(value: Cell) -> Cell:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(value.splitlines()) if isinstance(value, str) else value


def _write_parquet(path: Path, columns: Mapping[str, str], table: bytes) -> None:
    """The same table with types, read from the bytes of the CSV: of Python's lists pyarrow makes none without loading
    pandas where that is installed, which takes 0.4 s.
    """
    import pyarrow.csv  # 0.2 s: processes that score write no tables
    import pyarrow.parquet

    types = pyarrow.csv.ConvertOptions(column_types=columns)
    with whole_file(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.csv.read_csv(io.BytesIO(table), convert_options=types), temporary)
