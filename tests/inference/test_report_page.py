"""Pages: they say what the report says, in order of need, and never run what a name contains."""

from __future__ import annotations

import re

import pytest

from sacroleak.core.report import (
    STATEMENT,
    CementReport,
    FindingReport,
    LeakReport,
    LeakSummary,
    Report,
    SiteReport,
)
from sacroleak.core.structures import Side, Site
from sacroleak.inference.report_page import DemoRow, case_page, demo_page, index_page, why
from sacroleak.inference.tables import Failure


def report(case_id: str = "one", *sites: Site, review: bool = False, assessed: bool = True) -> Report:
    """A report with one leak of 0.5 mL at each of `sites`."""
    findings = [FindingReport(rule="tubular", value=6.1, unit="ratio", limit=3.0, sentence="It is a tube.")]
    if review:
        findings.append(FindingReport(rule="needs_review", value=0.0, unit="", limit=0.0, sentence="It is <tiny>."))
    leaks = [LeakReport(number=n, site=site, probabilities=dict.fromkeys(Site, 0.2), volume_ml=0.5, side=Side.LEFT,
                        centroid_lps_mm=(1.0, -2.0, 3.0), needs_review=review, findings=findings)
             for n, site in enumerate(sites, start=1)]
    return Report(
        case_id=case_id, status="assessed" if assessed else "not_assessable",
        reasons=[] if assessed else ["No sacrum."], leak=LeakSummary(present=bool(sites), probability=0.9),
        cement=CementReport(total_ml=4.0, intraosseous_ml=3.5, leaked_ml=0.5), leaks=leaks,
        sites={site: SiteReport(present=site in sites, probability=0.5, volume_ml=0.5) for site in Site},
        quality={"usable": True, "notes": ["A note."]}, provenance={"version": "1"},
    )


def test_a_case_page_gives_reasons_measures_and_the_statement() -> None:
    leaking = report("one", Site.PUNCTURE_PATH, review=True)
    page = case_page(leaking, preview="preview.png", label_images=["leaks.nii.gz"])
    for text in ("It is a tube.", "tubular: 6.1 ratio, limit 3", "It is &lt;tiny&gt;.", "needs review", "puncture path",
                 "0.50 mL", "L 1 A 2 S 3 mm", "A note.", 'src="preview.png"', 'href="leaks.nii.gz"', STATEMENT):
        assert text in page, text


def test_pages_fetch_nothing_from_outside() -> None:
    row = DemoRow(name="one", true_sites=frozenset(), true_leaked_ml=0.0, true_cement_ml=1.0, report=report())
    for page in (case_page(report(), preview=None, label_images=[]), index_page([report()], [], previews={"one"}),
                 demo_page([row], "known 1")):
        assert re.findall(r'(?:src|href)="(?:https?:)?//', page) == []
        assert "<script" not in page


def test_the_index_begins_with_what_needs_review_then_leaks() -> None:
    reports = [report("d-clear"), report("c-leak", Site.OTHER), report("b-review", Site.OTHER, review=True),
               report("a-clear"), report("e-none", assessed=False)]
    failure = Failure(case_id="bad", input="<b>here</b>", reason="damaged", stage="read")
    page = index_page(reports, [failure], previews={"c-leak"})
    order = re.findall(r"cases/([\w-]+)/report\.html", page)
    assert order == ["b-review", "e-none", "c-leak", "a-clear", "d-clear"]
    assert page.count("preview.png") == 1
    assert "&lt;b&gt;here&lt;/b&gt;" in page


@pytest.mark.parametrize(("true", "found", "agree"), [
    ((), (), True), ((Site.OTHER,), (Site.OTHER,), True), ((Site.OTHER,), (), False), ((), (Site.OTHER,), False),
    ((Site.OTHER,), (Site.PUNCTURE_PATH,), False), ((Site.OTHER,), (Site.OTHER, Site.PUNCTURE_PATH), False),
])
def test_the_demonstration_compares_sites_exactly(true: tuple[Site, ...], found: tuple[Site, ...], agree: bool) -> None:
    row = DemoRow(name="one", true_sites=frozenset(true), true_leaked_ml=0.0, true_cement_ml=None,
                  report=report("one", *found))
    assert row.sites_agree is agree
    assert row.leak_agrees is (bool(true) == bool(found))
    assert ("The result agrees." in demo_page([row], "known 1")) is agree


@pytest.mark.parametrize("answer", [None, report(assessed=False)])
def test_a_scan_without_answer_agrees_with_nothing(answer: Report | None) -> None:
    row = DemoRow(name="one", true_sites=frozenset(), true_leaked_ml=0.0, true_cement_ml=0.0, report=answer,
                  refused="damaged")
    assert not row.leak_agrees
    assert not row.sites_agree
    assert "differs" in demo_page([row], "known 1")


def test_the_why_prefers_reasons_then_review_then_findings_then_notes() -> None:
    assert why(report(assessed=False)) == "No sacrum."
    assert why(report("one", Site.OTHER, review=True)) == "It is <tiny>."
    assert why(report("one", Site.OTHER)) == "It is a tube."
    assert why(report()) == "A note."
