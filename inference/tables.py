"""The tables of a run, built from its case reports alone: so a run that was ended and taken up again has the same."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sacroleak.core.report import Report
from sacroleak.core.structures import Site
from sacroleak.core.whole import whole_file, write_whole

Cell = str | float | int | bool
Row = Mapping[str, Cell]
Columns = Mapping[str, pa.DataType]

RESULT_COLUMNS: Columns = {
    "case_id": pa.string(), "status": pa.string(), "needs_review": pa.bool_(), "reasons": pa.string(),
    "leak_present": pa.bool_(), "leak_probability": pa.float64(), "cement_total_ml": pa.float64(),
    "cement_intraosseous_ml": pa.float64(), "cement_leaked_ml": pa.float64(), "leak_count": pa.int64(),
    **{f"{site}_{what}": kind for site in Site
       for what, kind in (("present", pa.bool_()), ("probability", pa.float64()), ("volume_ml", pa.float64()))},
}
LEAK_COLUMNS: Columns = {
    "case_id": pa.string(), "number": pa.int64(), "site": pa.string(), "volume_ml": pa.float64(), "side": pa.string(),
    "centroid_l_mm": pa.float64(), "centroid_p_mm": pa.float64(), "centroid_s_mm": pa.float64(),
    "needs_review": pa.bool_(), **{f"probability_{site}": pa.float64() for site in Site}, "findings": pa.string(),
}


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
    results = [result_row(report) for report in ordered]
    write_whole(out / "results.csv", _csv(RESULT_COLUMNS, results))
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


def _write_parquet(path: Path, columns: Columns, rows: Sequence[Row]) -> None:
    schema = pa.schema(list(columns.items()))
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    with whole_file(path) as temporary:
        pq.write_table(table, temporary)
