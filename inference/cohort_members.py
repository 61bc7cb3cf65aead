"""Who belongs to a scored cohort: reports and clinical rows become patients, and whatever is left out is named."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sacroleak.core.errors import InputError
from sacroleak.core.report import Report, read_report
from sacroleak.core.structures import Site
from sacroleak.inference.cohort_clinical import TABLE, ClinicalRow, ClinicalTable

CASES, REPORT, RESULTS, FAILURES = "cases", "report.json", "results.csv", "failures.csv"
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Scans, by case id, of which a reader must know one thing. `absent`: they are in no figure of the table."""

    name: str
    sentence: str
    case_ids: tuple[str, ...] = ()
    absent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredScan:
    """One scan with its report and its row of the clinical table, if there is one."""

    report: Report
    row: ClinicalRow | None = None

    @property
    def assessed(self) -> bool:
        """Whether the report holds an answer."""
        return self.report.status == "assessed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortPatient:
    """One patient of the user's table (or one scan, if no table says more), with at least one scored scan.

    A patient's leakage is that of all assessed scans together, so that each patient counts once.
    """

    scans: tuple[ScoredScan, ...]

    @property
    def assessed(self) -> tuple[ScoredScan, ...]:
        """The scans with an answer."""
        return tuple(scan for scan in self.scans if scan.assessed)

    @property
    def sites(self) -> frozenset[Site]:
        """Every site at which one of the scans shows a leak."""
        return frozenset(site for scan in self.assessed for site, found in scan.report.sites.items() if found.present)

    @property
    def leak(self) -> bool:
        """Whether one of the assessed scans shows a leak."""
        return any(scan.report.leak.present for scan in self.assessed)

    @property
    def needs_review(self) -> bool:
        """Whether an assessed scan is not decided."""
        return any(scan.report.needs_review for scan in self.assessed)

    @property
    def rows(self) -> tuple[ClinicalRow, ...]:
        """The clinical rows of the scans, in the table's order."""
        return tuple(sorted((scan.row for scan in self.scans if scan.row is not None), key=lambda row: row.row))

    def first(self, value_of: Callable[[ClinicalRow], Value | None]) -> Value | None:
        """The first value that the patient's rows know."""
        return next((value for row in self.rows if (value := value_of(row)) is not None), None)

    @property
    def approach(self) -> str | None:
        """The way of the needle; None if it is not known, or not the same in all rows."""
        found = {row.approach for row in self.rows} - {None}
        return found.pop() if len(found) == 1 else None

    @property
    def course(self) -> ClinicalRow | None:
        """The row whose scores count: the patient's first that has any. Two courses of one patient are not two."""
        return next((row for row in self.rows if row.scores), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredCohort:
    """All patients, by their first case id, and what a reader must know of single scans."""

    patients: tuple[CohortPatient, ...]
    notices: tuple[Notice, ...]
    clinical: ClinicalTable | None

    @property
    def complete(self) -> bool:
        """Whether every scan and every clinical row found its way into the table."""
        return not any(notice.absent for notice in self.notices)


def gather(out: Path, clinical: ClinicalTable | None) -> ScoredCohort:
    """The cohort in `out`, a folder that scoring wrote. Raises InputError if it holds no scored scan.

    A scan that failures.csv names and results.csv does not is left out even if an earlier run left a report of it.
    """
    listed = set(_column(out / RESULTS, "case_id"))
    refused = set(_column(out / FAILURES, "case_id")) - listed
    reports, unreadable = _reports(out, listed, refused)
    if not reports:
        raise InputError(f"{out}: holds no scored scan; give the --out folder of sacroleak score")
    rows = {row.case_id: row for row in clinical.rows} if clinical else {}
    scans = [ScoredScan(report=report, row=rows.get(report.case_id)) for report in reports]
    patients = _patients(scans)
    lost = set(rows) - {report.case_id for report in reports} - refused - set(unreadable)
    absent = (
        _notice("refused", "Refused when scored, so in no figure here; failures.csv gives the reasons", refused, True),
        _notice("unreadable", "Without a readable report, so in no figure here; score them again", unreadable, True),
        _notice("rows_without_scan", "In the clinical table without a scored scan, so in no figure here", lost, True),
    )
    notices = (*absent, *_scan_notices(scans, clinical), *_patient_notices(patients))
    return ScoredCohort(patients=patients, notices=tuple(notice for notice in notices if notice is not None),
                        clinical=clinical)


def _notice(name: str, sentence: str, case_ids: Iterable[str], absent: bool = False) -> Notice | None:
    named = tuple(sorted(case_ids))
    return Notice(name=name, sentence=sentence, case_ids=named, absent=absent) if named else None


def _scan_notices(scans: Sequence[ScoredScan], clinical: ClinicalTable | None) -> list[Notice | None]:
    def those(wanted: Callable[[ScoredScan], bool]) -> list[str]:
        return [scan.report.case_id for scan in scans if wanted(scan)]

    found = [
        _notice("not_assessable", "Not assessable: without an answer on leakage and cement",
                those(lambda scan: not scan.assessed)),
        _notice("needs_review", "Assessed, but a reader has to decide: counted as the software answered",
                those(lambda scan: scan.assessed and scan.report.needs_review)),
        _notice("no_cement", "Assessed and no cement found: counted as without a leak and with 0 mL; leave scans that "
                             "were not taken after the procedure out of the folder",
                those(lambda scan: scan.assessed and scan.report.cement.total_ml == 0)),
        _notice("same_image", "The same image as another scan of this folder",
                _same(scans, lambda scan: scan.report.provenance.get("input_digest"))),
    ]
    origins = {tuple(str(scan.report.provenance.get(key)) for key in ("version", "bundle_digest", "config_digest"))
               for scan in scans}
    if len(origins) > 1:
        found.append(Notice(name="several_origins", sentence="The scans were not all scored by the same version, model "
                                                             "and configuration; score the folder again"))
    if clinical is not None:
        found.append(_notice("scans_without_row", "Without a row in the clinical table: counted, without its values",
                             those(lambda scan: scan.row is None)))
        if clinical.ignored:
            found.append(Notice(name="ignored_columns", sentence="Columns of the clinical table that were left alone: "
                                                                 + ", ".join(name or "?" for name in clinical.ignored)))
    else:
        found.append(Notice(name="no_clinical_table", sentence="No clinical table was given: each scan is taken for a "
                                                               "patient of its own"))
    return found


def _patient_notices(patients: Sequence[CohortPatient]) -> list[Notice | None]:
    def those(wanted: Callable[[CohortPatient], bool]) -> list[str]:
        return [scan.report.case_id for patient in patients if wanted(patient) for scan in patient.scans]

    return [
        _notice("partly_assessable", "Of one patient, some scans assessable and some not: the patient counts by those "
                                     "that are", those(lambda p: 0 < len(p.assessed) < len(p.scans))),
        _notice("several_approaches", "Of one patient, with different approaches: not in the comparison of approaches",
                those(lambda p: len({row.approach for row in p.rows} - {None}) > 1)),
        _notice("several_courses", "Of one patient, with scores in several rows: the first row counts",
                those(lambda p: sum(bool(row.scores) for row in p.rows) > 1)),
    ]


def _same(scans: Sequence[ScoredScan], key_of: Callable[[ScoredScan], object]) -> list[str]:
    groups = defaultdict(list)
    for scan in scans:
        groups[key_of(scan)].append(scan.report.case_id)
    return [name for key, names in groups.items() if key and len(names) > 1 for name in names]


def _patients(scans: Iterable[ScoredScan]) -> tuple[CohortPatient, ...]:
    groups: dict[tuple[str, str], list[ScoredScan]] = defaultdict(list)
    for scan in scans:
        code = scan.row.patient if scan.row else None
        groups["patient", code].append(scan) if code else groups["scan", scan.report.case_id].append(scan)
    patients = tuple(CohortPatient(scans=tuple(group)) for group in groups.values())
    for patient in patients:
        _require_one("sex", patient.rows, lambda row: row.sex)
        _require_one("primary_tumour", patient.rows, lambda row: row.primary_tumour)
    return patients


def _require_one(column: str, rows: Sequence[ClinicalRow], value_of: Callable[[ClinicalRow], str | None]) -> None:
    known = [(row.row, value) for row in rows if (value := value_of(row)) is not None]
    for row, value in known[1:]:
        if value != known[0][1]:
            raise InputError(f"{TABLE}, row {row}, column {column}: differs from row {known[0][0]}, which is the same "
                             "patient")


def _reports(out: Path, listed: set[str], refused: set[str]) -> tuple[list[Report], list[str]]:
    """Every readable report below `out` in order of case id, and the case ids that should have one."""
    folder = out / CASES
    if not folder.is_dir():
        raise InputError(f"{out}: is not a folder that sacroleak score wrote; it has no {CASES}/")
    present = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    reports, unreadable = [], []
    for name in sorted((present | listed) - refused):
        try:
            report = read_report(folder / name / REPORT)
        except InputError:
            unreadable.append(name)
            continue
        reports.append(report) if report.case_id == name else unreadable.append(name)
    return reports, unreadable


def _column(path: Path, column: str) -> list[str]:
    """One column of a table that scoring wrote; nothing if the table is not there."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if column not in (reader.fieldnames or ()):
                raise InputError(f"{path.name}: column {column} missing; score the folder again")
            return [value for row in reader if (value := row[column])]
    except (OSError, UnicodeDecodeError, csv.Error):
        raise InputError(f"{path.name}: cannot be read as a CSV file; score the folder again") from None
