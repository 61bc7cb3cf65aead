"""Pages for a reader: of a case, of a run, of the demonstration. Plain HTML, nothing fetched from outside."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from jinja2 import DictLoader, Environment, StrictUndefined

from sacroleak.core.report import REVIEW_RULE, RULE_SCORE, STATEMENT, Report
from sacroleak.core.structures import Site
from sacroleak.inference.preview import SITE_NAMES
from sacroleak.inference.tables import Failure

TEMPLATES = ("base.html", "parts.html", "case.html", "index.html", "demo.html")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRow:
    """One demonstration scan: what is true of it and what was found. `report` is None if it was refused.

    `picture` and `page` are links relative to the demonstration page. Volumes in mL.
    """

    name: str
    true_sites: frozenset[Site]
    true_leaked_ml: float
    true_cement_ml: float | None
    report: Report | None
    refused: str = ""
    picture: str | None = None
    page: str | None = None

    @property
    def found_sites(self) -> frozenset[Site]:
        """Sites the report calls present."""
        if self.report is None:
            return frozenset()
        return frozenset(site for site, summary in self.report.sites.items() if summary.present)

    @property
    def leak_agrees(self) -> bool:
        """Whether report and truth agree on there being a leak; a scan without an answer agrees with nothing."""
        return self._answered and self.report is not None and self.report.leak.present == bool(self.true_sites)

    @property
    def sites_agree(self) -> bool:
        """Whether report and truth name exactly the same sites."""
        return self._answered and self.found_sites == self.true_sites

    @property
    def _answered(self) -> bool:
        return self.report is not None and self.report.status == "assessed"


def case_page(report: Report, *, preview: str | None, label_images: Sequence[str]) -> str:
    """The page of one case; links are relative to its folder."""
    return _render("case.html", title=f"{report.case_id}: cement and leaks", rule_score=_about([report]),
                   report=report, preview=preview, label_images=list(label_images))


def index_page(reports: Sequence[Report], failures: Sequence[Failure], *, previews: Collection[str]) -> str:
    """The page of a run: what needs review first, then leaks, then the rest. `previews`: case ids with a picture."""
    ordered = sorted(reports, key=lambda r: (not r.needs_review, not r.leak.present, r.case_id))
    return _render("index.html", title="Cement leakage: this run", rule_score=_about(reports), reports=ordered,
                   failures=failures, previews=previews)


def demo_page(rows: Sequence[DemoRow], bundle: str) -> str:
    """The demonstration's page: truth against result for every scan."""
    return _render("demo.html", title="Demonstration: truth against result", rows=rows, bundle=bundle)


def why(report: Report) -> str:
    """The one or two sentences that explain a report best: reasons, what to look at again, else the first findings."""
    if report.reasons:
        return "; ".join(report.reasons)
    findings = [finding for leak in report.leaks for finding in leak.findings]
    review = [f.sentence for f in findings if f.rule == REVIEW_RULE]
    chosen = review or [f.sentence for f in findings] or report.notes
    return " ".join(dict.fromkeys(chosen[:2]))


def _about(reports: Sequence[Report]) -> str:
    """What the reports say of their probabilities, each sentence once."""
    said = [str(report.provenance.get("probabilities", RULE_SCORE)) for report in reports]
    return " ".join(dict.fromkeys(said)) or RULE_SCORE


def _render(name: str, *, rule_score: str = RULE_SCORE, **values: object) -> str:
    return _environment().get_template(name).render(statement=STATEMENT, rule_score=rule_score,
                                                    review_rule=REVIEW_RULE, **values)


@cache
def _environment() -> Environment:
    folder = files("sacroleak.inference") / "templates"
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in TEMPLATES}
    environment = Environment(loader=DictLoader(texts), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)
    environment.filters |= {
        "site": lambda site: SITE_NAMES[Site(site)], "ml": lambda value: f"{value:.2f} mL",
        "score": lambda value: f"{value:.2f}", "number": lambda value: f"{value:.3g}", "place": _place,
        "ranked": _ranked, "words": lambda key: str(key).replace("_", " "), "plain": _plain, "why": why,
        "sites_or_none": _sites_or_none,
    }
    return environment


def _place(lps_mm: Sequence[float]) -> str:
    """A point in words: how far to the left or right, back or front, up or down in patient coordinates."""
    names = (("L", "R"), ("P", "A"), ("S", "I"))
    return " ".join(f"{plus if value >= 0 else minus} {abs(value):.0f}"
                    for value, (plus, minus) in zip(lps_mm, names, strict=True)) + " mm"


def _ranked(scores: Mapping[Site, float]) -> list[tuple[Site, float]]:
    return sorted(scores.items(), key=lambda item: -item[1])


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _sites_or_none(sites: Collection[Site]) -> str:
    return ", ".join(SITE_NAMES[site] for site in Site if site in sites) or "no leak"
