"""The table of a scored cohort: patients, cement, leakage, sites, approaches and courses, as lines of figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sacroleak.core.structures import Site
from sacroleak.inference.cohort_clinical import BEFORE, ScoreTime
from sacroleak.inference.cohort_members import CohortPatient, ScoredCohort, ScoredScan
from sacroleak.inference.cohort_statistics import (
    Change,
    Comparison,
    Floats,
    Moments,
    Share,
    compare_groups,
    compare_times,
    moments,
    share,
)
from sacroleak.inference.preview import SITE_NAMES

WILSON = "Wilson's 95 % interval"
FEW = 10
"""A share of fewer hits says little, and its line says so."""

MEASURE_NAMES: Mapping[str, str] = {"vas": "VAS, pain (0 to 10)", "odi": "ODI, disability (%)",
                                    "kps": "KPS, performance (0 to 100)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortFigure:
    """One row of cohort.csv; `low` and `high` bound the 95 % interval."""

    name: str
    value: float | int | None
    n: int
    low: float | None = None
    high: float | None = None
    method: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line for a reader: `text` says the same as `figures`; `n` is what they rest on."""

    label: str
    text: str
    n: int
    note: str = ""
    figures: tuple[CohortFigure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Lines under one heading, with a sentence on all of them."""

    title: str
    lines: tuple[Line, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One score over time: `values` (times, patients), NaN where not known."""

    measure: str
    times: tuple[ScoreTime, ...]
    values: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortTable:
    """Everything that the page, the CSV file and the pictures show."""

    cohort: ScoredCohort
    sections: tuple[Section, ...]
    leakage: Share
    sites: Mapping[Site, Share]
    approaches: Mapping[str, Share]
    comparison: Comparison
    cement_ml: tuple[float, ...]
    courses: tuple[Course, ...]

    @property
    def figures(self) -> tuple[CohortFigure, ...]:
        """All rows of cohort.csv."""
        return tuple(figure for section in self.sections for line in section.lines for figure in line.figures)

    @property
    def summary(self) -> str:
        """The leakage in a paragraph."""
        if self.leakage.n == 0:
            return "No scan has an answer, so nothing can be said on leakage."
        found = ", ".join(f"{SITE_NAMES[site]} {s.hits}" for site, s in self.sites.items()
                          if s.hits or site is not Site.OTHER)
        text = f"Cement outside the bone was found in {share_words(self.leakage)}: {found}."
        many = sum(len(patient.sites) > 1 for patient in self.cohort.patients)
        if many:
            text += f" {_patients(many)} had more than one site."
        if self.comparison.p is not None:
            text += f" Between approaches: {p_text(self.comparison.p)} ({self.comparison.test})."
        return text


def build_table(cohort: ScoredCohort, rng: np.random.Generator) -> CohortTable:
    """The whole table. `rng` draws the tables of Fisher's test where more than two approaches are compared."""
    answered = [patient for patient in cohort.patients if patient.assessed]
    leakage = share(sum(patient.leak for patient in answered), len(answered))
    sites = {site: share(sum(site in patient.sites for patient in answered), len(answered)) for site in Site}
    approaches = _by_approach(answered)
    comparison = compare_groups([s.hits for s in approaches.values()], [s.n for s in approaches.values()], rng)
    cement = tuple(scan.report.cement.total_ml for patient in answered for scan in patient.assessed)
    courses = _courses(cohort)
    sections = [_who(cohort), _volumes(answered, cement), _leakage(answered, leakage, sites)]
    if approaches:
        sections.append(_approaches(approaches, comparison))
    sections += [_course(course) for course in courses]
    sections.append(_named(cohort))
    return CohortTable(cohort=cohort, sections=tuple(s for s in sections if s.lines), leakage=leakage, sites=sites,
                       approaches=approaches, comparison=comparison, cement_ml=cement, courses=courses)


def share_words(s: Share) -> str:
    """`12 of 35 patients (34.29 %, 95 % interval 20.8 to 50.8 %)`."""
    if s.value is None or s.low is None or s.high is None:
        return "0 of 0 patients"
    interval = f"95 % interval {100 * s.low:.1f} to {100 * s.high:.1f} %"
    return f"{s.hits} of {_patients(s.n)} ({100 * s.value:.2f} %, {interval})"


def p_text(p: float) -> str:
    """`P = 0.013`, three decimals; below that `P < 0.001`."""
    return "P < 0.001" if p < 0.001 else f"P = {p:.3f}"


def moments_text(m: Moments, unit: str = "") -> str:
    """`5.20 ± 1.55 (2.00 to 8.00) mL`."""
    if m.mean is None:
        return "no value"
    spread = f" ± {m.sd:.2f}" if m.sd is not None else ""
    return f"{m.mean:.2f}{spread} ({m.smallest:.2f} to {m.largest:.2f}){unit}"


def _patients(count: int) -> str:
    return f"{count} patient{'' if count == 1 else 's'}"


def _who(cohort: ScoredCohort) -> Section:
    patients = cohort.patients
    scans = [scan for patient in patients for scan in patient.scans]
    lines = [_count("patients", "Patients", len(patients)),
             _count("scans", "Scans", len(scans)),
             _count("scans.assessed", "Scans with an answer", sum(scan.assessed for scan in scans), of=len(scans)),
             *_shares("sex", [patient.first(lambda row: row.sex) for patient in patients]),
             *_moments("age", "Age, years", [patient.first(lambda row: row.age) for patient in patients]),
             *_shares("primary tumour", [patient.first(lambda row: row.primary_tumour) for patient in patients]),
             *_shares("approach", [patient.approach for patient in patients])]
    return Section(title="Patients", lines=tuple(lines), note="Each patient counts once; n is how many have the value.")


def _volumes(answered: Sequence[CohortPatient], cement: Sequence[float]) -> Section:
    """Cement per scan and per lesion. A scan does not tell its lesions apart, so they share its cement equally."""
    scans = [scan for patient in answered for scan in patient.assessed]
    equal = "lesions of one scan count in equal shares: the mean is exact, the SD leaves out how they differ"
    lesions = _per_lesion(scans)
    every = [row for patient in answered for row in patient.rows]
    needles = [row.needles / row.lesions for row in every if row.needles and row.lesions for _ in range(row.lesions)]
    counts = Counter(sum(row.lesions or 0 for row in patient.rows) for patient in answered)
    one, several = counts[1], sum(times for number, times in counts.items() if number > 1)
    once = len(scans) == len(answered)
    lines = [*_moments("cement per scan", "Cement per scan, mL", cement, independent=once)]
    if lesions:
        lines += [_count("lesions", "Lesions", len(lesions)),
                  _count("patients.one_lesion", "Patients with one lesion", one, of=one + several),
                  _count("patients.several_lesions", "Patients with several lesions", several, of=one + several)]
        lines += _moments("cement per lesion", "Cement per lesion, mL", lesions, independent=False, note=equal)
    lines += _moments("needles per lesion", "Needles per lesion", needles, independent=False, note=equal)
    return Section(title="Procedure", lines=tuple(lines),
                   note="Cement is what the scan shows inside the sacrum and leaked from it, measured by the software; "
                        "it need not be what was injected. Of patients with an answer only.")


def _per_lesion(scans: Iterable[ScoredScan]) -> list[float]:
    return [scan.report.cement.total_ml / scan.row.lesions for scan in scans if scan.row and scan.row.lesions
            for _ in range(scan.row.lesions)]


def _leakage(answered: Sequence[CohortPatient], leakage: Share, sites: Mapping[Site, Share]) -> Section:
    lines = [_share_line("leakage", "Patients with leakage", leakage)]
    lines += [_share_line(f"site.{site}", SITE_NAMES[site].capitalize(), found) for site, found in sites.items()]
    decided = [patient for patient in answered if not patient.needs_review]
    if len(decided) < len(answered):
        without = share(sum(patient.leak for patient in decided), len(decided))
        lines.append(_share_line("leakage.without_review", "Leakage, without patients who need review", without))
    return Section(title="Leakage", lines=tuple(lines),
                   note="Shares of patients with an answer. A patient may have several sites. The intervals say how "
                        "far chance may carry a cohort of this size, not how often the software errs.")


def _by_approach(answered: Sequence[CohortPatient]) -> dict[str, Share]:
    """Leakage for each approach that occurs, the most frequent first."""
    groups: dict[str, list[bool]] = {}
    for patient in answered:
        if patient.approach is not None:
            groups.setdefault(patient.approach, []).append(patient.leak)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return {approach: share(sum(leaks), len(leaks)) for approach, leaks in ordered}


def _approaches(approaches: Mapping[str, Share], comparison: Comparison) -> Section:
    n = sum(s.n for s in approaches.values())
    lines = [_share_line(f"leakage.approach.{_key(name)}", name.capitalize(), s) for name, s in approaches.items()]
    text = p_text(comparison.p) if comparison.p is not None else "not tested"
    method = f"{comparison.test}: {comparison.why}"
    figure = CohortFigure(name="leakage.approach.p", value=comparison.p, n=n, method=method)
    lines.append(Line(label="Difference between approaches", text=text, n=n, note=method, figures=(figure,)))
    return Section(title="Leakage by approach", lines=tuple(lines),
                   note="Chi-squared if no expected count is below 5, else Fisher's exact test.")


def _courses(cohort: ScoredCohort) -> tuple[Course, ...]:
    if cohort.clinical is None:
        return ()
    rows = [row for patient in cohort.patients if (row := patient.course) is not None]
    found = []
    for measure, times in cohort.clinical.times.items():
        values = np.array([[row.scores.get((measure, time.key), np.nan) for row in rows] for time in times],
                          dtype=np.float64).reshape(len(times), len(rows))
        if np.isfinite(values).any():
            found.append(Course(measure=measure, times=times, values=values))
    return tuple(found)


def _course(course: Course) -> Section:
    """Values at each time, then each time against before."""
    lines: list[Line] = []
    for time, row in zip(course.times, course.values, strict=True):
        known = [float(value) for value in row if np.isfinite(value)]
        lines += _moments(f"{course.measure}.{time.key}", time.label.capitalize(), known, quartiles=True)
    title = MEASURE_NAMES[course.measure]
    if course.times[0] != BEFORE:
        return Section(title=title, lines=tuple(lines), note="No score from before, so nothing to compare with.")
    chosen, changes = compare_times(course.values[0], course.values[1:])
    lines += [_change_line(course.measure, time, change, chosen)
              for time, change in zip(course.times[1:], changes, strict=True)]
    note = (f"Each time against before, over the patients with both: {chosen.test}, because {chosen.why}. P values are "
            "corrected by Holm's method for the number of times.")
    if chosen.test == "none":
        note = f"Not tested: {chosen.why}."
    return Section(title=title, lines=tuple(lines), note=note)


def _change_line(measure: str, time: ScoreTime, c: Change, chosen: Comparison) -> Line:
    name = f"{measure}.{time.key}.change"
    between = f" ({c.low:.2f} to {c.high:.2f})" if c.low is not None and c.high is not None else ""
    text = f"{c.value:+.2f}{between}" if c.value is not None else "no value"
    interval = "95 % interval by Student's t" if c.what == "mean change" else "95 % interval by order statistics"
    figures = [CohortFigure(name=name, value=c.value, n=c.n, low=c.low, high=c.high,
                            method=f"{c.what}, {interval}" if between else c.what)]
    note = c.why_none
    if c.p is not None and c.p_corrected is not None:
        text += f", {p_text(c.p_corrected)}"
        note = f"{interval}; {p_text(c.p)} before correction"
        method = f"{chosen.test}: {chosen.why}"
        figures += [CohortFigure(name=f"{name}.p", value=c.p, n=c.n, method=method),
                    CohortFigure(name=f"{name}.p_corrected", value=c.p_corrected, n=c.n, method=f"{method}; Holm")]
    return Line(label=f"{time.label.capitalize()}, {c.what}", text=text, n=c.n, note=note, figures=tuple(figures))


def _named(cohort: ScoredCohort) -> Section:
    lines = []
    for notice in cohort.notices:
        count, names = len(notice.case_ids), ", ".join(notice.case_ids)
        if count:
            method = f"{notice.sentence}: {names}"
            figure = CohortFigure(name=f"named.{notice.name}", value=count, n=count, method=method)
            lines.append(Line(label=notice.sentence, text=str(count), n=count, note=names, figures=(figure,)))
    return Section(title="Scans to know of", lines=tuple(lines))


def _count(name: str, label: str, value: int, *, of: int | None = None) -> Line:
    n = value if of is None else of
    text = str(value) if of is None else f"{value} of {of}"
    return Line(label=label, text=text, n=n, figures=(CohortFigure(name=name, value=value, n=n, method="count"),))


def _share_line(name: str, label: str, s: Share) -> Line:
    text = f"{s.hits} of {s.n}"
    if s.value is not None and s.low is not None and s.high is not None:
        text += f" ({100 * s.value:.2f} %; {100 * s.low:.1f} to {100 * s.high:.1f} %)"
    note = f"few: {s.hits} says little" if 0 < s.hits < FEW else ""
    figures = (CohortFigure(name=f"{name}.patients", value=s.hits, n=s.n, method="count"),
               CohortFigure(name=name, value=s.value, n=s.n, low=s.low, high=s.high, method=f"share; {WILSON}"))
    return Line(label=label, text=text, n=s.n, note=note, figures=figures)


def _shares(column: str, values: Sequence[str | None]) -> list[Line]:
    """One line for each word that occurs, the most frequent first, out of the patients of whom it is known."""
    counts = Counter(value for value in values if value is not None)
    return [_share_line(f"{_key(column)}.{_key(word)}", f"{column.capitalize()}: {word}", share(hits, counts.total()))
            for word, hits in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _moments(column: str, label: str, values: Sequence[float | None], *, independent: bool = True,
             quartiles: bool = False, note: str = "") -> list[Line]:
    """One line, or none if no value is known."""
    m = moments([value for value in values if value is not None], independent=independent)
    if m.quartiles is None:
        return []
    text = moments_text(m)
    if quartiles:
        text += f"; median {m.median:g} ({m.quartiles[0]:g} to {m.quartiles[1]:g})"
    key = _key(column)
    interval = "95 % interval by Student's t" if m.low is not None else "no interval"
    method = "; ".join(filter(None, ("mean", interval, note)))
    figures = (
        CohortFigure(name=f"{key}.mean", value=m.mean, n=m.n, low=m.low, high=m.high, method=method),
        CohortFigure(name=f"{key}.sd", value=m.sd, n=m.n, method="standard deviation, n - 1"),
        CohortFigure(name=f"{key}.min", value=m.smallest, n=m.n, method="smallest"),
        CohortFigure(name=f"{key}.max", value=m.largest, n=m.n, method="largest"),
        CohortFigure(name=f"{key}.median", value=m.median, n=m.n, method="median"),
        CohortFigure(name=f"{key}.q1", value=m.quartiles[0], n=m.n, method="lower quartile, linear"),
        CohortFigure(name=f"{key}.q3", value=m.quartiles[1], n=m.n, method="upper quartile, linear"),
    )
    between = f"95 % interval of the mean {m.low:.2f} to {m.high:.2f}" if m.low is not None else ""
    return [Line(label=label, text=text, n=m.n, note="; ".join(filter(None, (between, note))), figures=figures)]


def _key(words: str) -> str:
    return "_".join(words.split())
