"""The pictures of a cohort table, as PNG: cement, leakage with its intervals, and each score over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from sacroleak.core.report import STATEMENT
from sacroleak.inference.cohort_statistics import Share
from sacroleak.inference.cohort_table import MEASURE_NAMES, CohortTable, Course, p_text
from sacroleak.inference.preview import SITE_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CEMENT, LEAKAGE, APPROACH = "cohort_cement.png", "cohort_leakage.png", "cohort_approach.png"
COURSES = {measure: f"cohort_{measure}.png" for measure in MEASURE_NAMES}
FILES = (CEMENT, LEAKAGE, APPROACH, *COURSES.values())
"""Every picture there can be; those without data are not drawn."""

WIDE_INCHES, HIGH_INCHES, ROW_INCHES, DPI = 7.2, 4.2, 0.42, 150
INK, SOFT, MARK, FILL = "#1b2330", "#5b6675", "#1f6feb", "#a9c7f5"
BETTER = {"vas": "lower is better", "odi": "lower is better", "kps": "higher is better"}


def draw_cohort(table: CohortTable) -> dict[str, bytes]:
    """File name to PNG, for everything the table has data for. The same table gives the same bytes."""
    pictures: dict[str, bytes] = {}
    if table.cement_ml:
        pictures[CEMENT] = _cement(table.cement_ml)
    if table.leakage.n:
        shares = {"any leakage": table.leakage} | {SITE_NAMES[site]: found for site, found in table.sites.items()}
        pictures[LEAKAGE] = _shares(shares, f"Leakage and its sites, {table.leakage.n} patients")
    if table.approaches:
        p = f", {p_text(table.comparison.p)}" if table.comparison.p is not None else ""
        pictures[APPROACH] = _shares(table.approaches, f"Leakage by approach{p}")
    return pictures | {COURSES[course.measure]: _course(course) for course in table.courses}


def _cement(values_ml: Sequence[float]) -> bytes:
    from matplotlib.ticker import MaxNLocator  # a second, and only a cohort draws

    figure, axes = _figure(HIGH_INCHES)
    edges = np.arange(0.0, np.floor(max(values_ml)) + 2.0)  # whole millilitres
    axes.hist(values_ml, bins=edges.tolist(), color=FILL, edgecolor=MARK)
    median = float(np.median(values_ml))
    axes.axvline(median, color=INK, linestyle="--", linewidth=1.2, label=f"median {median:.2f} mL")
    axes.set_title(f"Cement of the sacrum, {len(values_ml)} scan{'' if len(values_ml) == 1 else 's'}")
    axes.set_xlabel("cement, mL")
    axes.set_ylabel("scans")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return _png(figure)


def _shares(shares: Mapping[str, Share], title: str) -> bytes:
    """One bar for each share, from the top, with its interval and its counts at the right."""
    figure, axes = _figure(1.5 + ROW_INCHES * len(shares))
    places = np.arange(len(shares))[::-1]
    for place, s in zip(places.tolist(), shares.values(), strict=True):
        if s.value is None or s.low is None or s.high is None:
            continue
        axes.barh(place, 100 * s.value, height=0.62, color=FILL, edgecolor=MARK)
        axes.plot([100 * s.low, 100 * s.high], [place, place], color=INK, linewidth=1.6, marker="|", markersize=8)
        axes.annotate(f"{s.hits}/{s.n}", (1.01, place), xycoords=("axes fraction", "data"), va="center", color=INK)
    axes.set_yticks(places, list(shares))
    axes.set_xlim(0, 100)
    axes.set_title(title)
    axes.set_xlabel("% of patients, with Wilson's 95 % interval")
    return _png(figure)


def _course(course: Course) -> bytes:
    """Median and interquartile range at each time, every patient as a faint dot, and n below each time."""
    figure, axes = _figure(HIGH_INCHES)
    places: list[int] = []
    medians: list[float] = []
    labels: list[str] = []
    for place, (time, row) in enumerate(zip(course.times, course.values, strict=True)):
        known = row[np.isfinite(row)]
        labels.append(f"{time.label}\nn {known.size}")
        if known.size == 0:
            continue
        lower, middle, upper = (float(q) for q in np.percentile(known, (25, 50, 75)))
        spread = np.linspace(-0.14, 0.14, known.size) if known.size > 1 else np.zeros(1)
        axes.plot(place + spread, known, ".", color=SOFT, alpha=0.35, markersize=4)
        axes.plot([place, place], [lower, upper], color=FILL, linewidth=9, solid_capstyle="butt", zorder=1.5)
        places.append(place)
        medians.append(middle)
    axes.plot(places, medians, color=MARK, marker="o", linewidth=1.8, zorder=3)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_title(f"{MEASURE_NAMES[course.measure]}: median and interquartile range")
    axes.set_ylabel(f"{course.measure.upper()}, {BETTER[course.measure]}")
    return _png(figure)


def _figure(high_inches: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # a second, and only a cohort draws

    figure = Figure(figsize=(WIDE_INCHES, high_inches), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    """With the statement below, because a picture travels without its page; nothing in it tells when it was made."""
    figure.supxlabel(STATEMENT, fontsize=7, color=SOFT)
    content = BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
