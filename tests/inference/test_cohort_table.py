"""The cohort table: a cohort with the reference paper's numbers gives the paper's table; nobody is lost in silence."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sacroleak.cli.main import main
from sacroleak.core.errors import InputError
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
from sacroleak.inference.cohort_clinical import read_clinical
from sacroleak.inference.cohort_members import gather
from sacroleak.inference.cohort_table import CohortTable, build_table

VENOUS, PATH, EPIDURAL, PRESACRAL, OTHER = Site
APPROACHES = ["posterior"] * 18 + ["transiliac"] * 7 + ["anterior_oblique"] * 10
TUMOURS = ["lung"] * 14 + ["thyroid"] * 8 + ["liver"] * 6 + ["prostate"] * 3 + ["biliary"] * 2 + ["breast", "colon"]
LEAKS = dict(zip([0, 1, 2, 3, 4, 5, 18, 19, 25, 26, 27, 28],
                 [VENOUS] * 5 + [PATH] * 2 + [EPIDURAL] * 2 + [PRESACRAL] * 3, strict=True))
"""Patient to site; the paper does not say how its twelve leaks fell on the approaches, only that P was above 0.05."""

VAS = {"0": (7.20, 0.93), "3d": (3.43, 1.38), "1mo": (3.13, 1.07), "3mo": (3.17, 1.15), "6mo": (2.91, 1.38),
       "12mo": (2.57, 1.51)}


def report(case_id: str, *sites: Site, cement_ml: float = 4.0, review: bool = False, assessed: bool = True) -> Report:
    """A report with a leak of 0.2 mL at each of `sites`."""
    findings = [FindingReport(rule="needs_review", value=0, unit="", limit=0, sentence="Small.")] if review else []
    leaks = [LeakReport(number=n, site=site, probabilities=dict.fromkeys(Site, 0.2), volume_ml=0.2, side=Side.LEFT,
                        centroid_lps_mm=(0, 0, 0), needs_review=review, findings=findings)
             for n, site in enumerate(sites, start=1)]
    leaked = 0.2 * len(sites)
    return Report(
        case_id=case_id, status="assessed" if assessed else "not_assessable",
        reasons=[] if assessed else ["No sacrum."], leak=LeakSummary(present=bool(sites), probability=0.9),
        cement=CementReport(total_ml=cement_ml, intraosseous_ml=max(cement_ml - leaked, 0), leaked_ml=leaked),
        leaks=leaks,
        sites={site: SiteReport(present=site in sites, probability=0.5, volume_ml=0.2) for site in Site},
        quality={}, provenance={"version": "1", "input_digest": case_id},
    )


def scored(out: Path, reports: Iterable[Report], refused: Sequence[str] = ()) -> Path:
    """An output folder as scoring leaves it, as far as a cohort reads it."""
    (out / "cases").mkdir(parents=True)
    for one in reports:
        (out / "cases" / one.case_id).mkdir()
        (out / "cases" / one.case_id / "report.json").write_text(one.to_json(), encoding="utf-8")
    lines = [f"{name},x,y,read\n" for name in refused]
    (out / "failures.csv").write_text("".join(["case_id,input,reason,stage\n", *lines]))
    return out


def clinic(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def made(out: Path, clinical: Path | None = None) -> CohortTable:
    return build_table(gather(out, read_clinical(clinical) if clinical else None), np.random.default_rng(1))


def text_of(table: CohortTable, label: str) -> str:
    (text,) = {line.text for section in table.sections for line in section.lines if line.label == label}
    return text


def named(table: CohortTable) -> dict[str, tuple[str, ...]]:
    return {notice.name: notice.case_ids for notice in table.cohort.notices}


def with_moments(n: int, mean: float, sd: float, *, fixed: Sequence[float] = ()) -> list[float]:
    """`n` values that begin with `fixed` and have exactly this mean and standard deviation."""
    held, free = np.array(fixed, dtype=np.float64), n - len(fixed)
    middle = (n * mean - held.sum()) / free
    square = ((n - 1) * sd**2 + n * mean**2 - (held**2).sum()) / free
    even = np.linspace(-1, 1, free)
    return [*fixed, *(middle + even / even.std() * np.sqrt(square - middle**2)).tolist()]


def reference(folder: Path) -> tuple[Path, Path]:
    """Reports and a clinical table of 35 patients with the figures of Tian et al., J Pain Res 2020;13:151."""
    rng = np.random.default_rng(7)
    twice = [3.5, 4.5, 5.0, 5.5, 6.0, 7.0]  # patients with two lesions, which share their cement equally
    lesions_ml = with_moments(41, 5.20, 1.55, fixed=[*twice, *twice, 2.0, 8.0])
    cement_ml = [2 * volume for volume in twice] + lesions_ml[12:]
    ages = with_moments(35, 60.74, 12.74, fixed=[30.0, 90.0])
    vas = {time: rng.permutation(with_moments(35, mean, sd)) for time, (mean, sd) in VAS.items()}
    needles = [2] * 6 + [1] * 16 + [2] * 8 + [3] * 3 + [4] * 2
    reports = [report(f"s{i:02}", *([LEAKS[i]] if i in LEAKS else []), cement_ml=cement_ml[i]) for i in range(35)]
    rows = [{"case_id": f"s{i:02}", "patient": f"code-{i}", "approach": APPROACHES[i], "age": ages[i],
             "sex": "m" if i < 24 else "f", "primary_tumour": TUMOURS[i], "lesions": 2 if i < 6 else 1,
             "needles": needles[i], **{f"vas_{time}": values[i] for time, values in vas.items()}} for i in range(35)]
    return scored(folder / "out", reports), clinic(folder / "clinic.csv", rows)


def test_the_reference_cohort_gives_the_papers_table_one(tmp_path: Path) -> None:
    table = made(*reference(tmp_path))
    assert text_of(table, "Patients") == "35"
    assert text_of(table, "Sex: male").startswith("24 of 35 ")
    assert text_of(table, "Sex: female").startswith("11 of 35 ")
    assert text_of(table, "Age, years") == "60.74 ± 12.74 (30.00 to 90.00)"
    tumours = {"lung": 14, "thyroid": 8, "liver": 6, "prostate": 3, "biliary": 2, "breast": 1, "colon": 1}
    for tumour, count in tumours.items():
        assert text_of(table, f"Primary tumour: {tumour}").startswith(f"{count} of 35 ")
    for approach, count in {"posterior": 18, "transiliac": 7, "anterior oblique": 10}.items():
        assert text_of(table, f"Approach: {approach}").startswith(f"{count} of 35 ")
    assert text_of(table, "Lesions") == "41"
    assert text_of(table, "Patients with one lesion") == "29 of 35"
    assert text_of(table, "Patients with several lesions") == "6 of 35"
    assert text_of(table, "Needles per lesion") == "1.49 ± 0.84 (1.00 to 4.00)"
    assert text_of(table, "Cement per lesion, mL") == "5.20 ± 1.55 (2.00 to 8.00)"
    assert table.cohort.notices == ()


def test_the_reference_cohort_gives_the_papers_leakage_paragraph(tmp_path: Path) -> None:
    table = made(*reference(tmp_path))
    assert table.summary.startswith(
        "Cement outside the bone was found in 12 of 35 patients (34.29 %, 95 % interval 20.8 to 50.8 %): sacral venous "
        "plexus 5, puncture path 2, anterior epidural space 2, anterior sacral space 3. Between approaches: P = ")
    assert text_of(table, "Sacral venous plexus") == "5 of 35 (14.29 %; 6.3 to 29.4 %)"
    assert text_of(table, "Puncture path") == "2 of 35 (5.71 %; 1.6 to 18.6 %)"
    assert text_of(table, "Other site").startswith("0 of 35 ")
    assert {name: (s.hits, s.n) for name, s in table.approaches.items()} == {
        "posterior": (6, 18), "anterior oblique": (4, 10), "transiliac": (2, 7)}
    assert table.comparison.test.startswith("Fisher's exact test")
    assert "2.4" in table.comparison.why  # 12 of 35 expected among the seven transiliac patients
    assert table.comparison.p is not None
    assert table.comparison.p > 0.05


def test_the_reference_cohort_gives_the_papers_pain_scores(tmp_path: Path) -> None:
    table = made(*reference(tmp_path))
    labels = {"0": "Before", "3d": "Day 3", "1mo": "1 month", "3mo": "3 months", "6mo": "6 months", "12mo": "12 months"}
    for time, (mean, sd) in VAS.items():
        assert text_of(table, labels[time]).startswith(f"{mean:.2f} ± {sd:.2f} (")
    figures = {figure.name: figure for figure in table.figures}
    for time in list(VAS)[1:]:
        raw, corrected = figures[f"vas.{time}.change.p"], figures[f"vas.{time}.change.p_corrected"]
        assert raw.n == 35
        assert raw.value is not None
        assert corrected.value is not None
        assert raw.value <= corrected.value < 0.001
        assert "because" not in raw.method
        assert "Shapiro-Wilk" in raw.method


def test_the_command_writes_page_table_and_pictures_that_need_nothing_else(tmp_path: Path,
                                                                           capsys: pytest.CaptureFixture[str]) -> None:
    out, clinical = reference(tmp_path)
    assert main(["cohort", str(out), "--clinical", str(clinical)]) == 0
    assert "12 of 35 patients" in capsys.readouterr().out
    page = (out / "cohort.html").read_text(encoding="utf-8")
    assert STATEMENT in page
    assert "5.20 ± 1.55 (2.00 to 8.00)" in page
    assert "code-" not in page + (out / "cohort.csv").read_text(encoding="utf-8")
    pictures = ("cohort_approach.png", "cohort_cement.png", "cohort_leakage.png", "cohort_vas.png")
    assert sorted(path.name for path in out.glob("*.png")) == sorted(pictures)
    assert page.count('src="data:image/png;base64,') == len(re.findall(r"(?:src|href)=", page)) == len(pictures)
    for name in pictures:
        assert np.asarray(Image.open(BytesIO((out / name).read_bytes())).convert("L")).std() > 10
    with (out / "cohort.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["name"]: row for row in csv.DictReader(stream)}
    assert list(next(iter(rows.values()))) == ["name", "value", "n", "low", "high", "method"]
    wilson = [round(float(rows["leakage"][key]), 3) for key in ("value", "n", "low", "high")]
    assert wilson == [0.343, 35, 0.208, 0.508]
    assert rows["leakage.approach.p"]["method"].startswith("Fisher's exact test")
    assert (float(rows["cement_per_lesion.mean"]["value"]), float(rows["cement_per_lesion.sd"]["value"])) == (5.2, 1.55)

    first = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert main(["cohort", str(out), "--clinical", str(clinical)]) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == first
    assert main(["cohort", str(out)]) == 0
    assert sorted(path.name for path in out.glob("*.png")) == ["cohort_cement.png", "cohort_leakage.png"]


def test_scans_of_one_patient_count_once(tmp_path: Path) -> None:
    out = scored(tmp_path / "out", [report("a", VENOUS), report("b", PATH), report("c"), report("d")])
    rows = [{"case_id": "a", "patient": "x", "age": 60, "sex": "f", "lesions": 1, "vas_0": 8, "vas_3d": 2},
            {"case_id": "b", "patient": "x", "age": 61, "sex": "f", "lesions": 2, "vas_0": 5, "vas_3d": 5},
            {"case_id": "c", "patient": "y", "age": "", "sex": "m", "lesions": "", "vas_0": 7, "vas_3d": ""}]
    table = made(out, clinic(tmp_path / "t.csv", rows))
    assert (table.leakage.hits, table.leakage.n) == (1, 3)
    assert [table.sites[site].hits for site in (VENOUS, PATH)] == [1, 1]
    assert "1 patient had more than one site" in table.summary
    assert text_of(table, "Age, years") == "60.00 (60.00 to 60.00)"
    assert text_of(table, "Lesions") == "3"
    assert text_of(table, "Patients with several lesions") == "1 of 1"
    assert [line.n for s in table.sections for line in s.lines if line.label in ("Before", "Day 3")] == [2, 1]
    assert named(table) == {"several_courses": ("a", "b"), "scans_without_row": ("d",)}


def test_one_patient_cannot_have_two_sexes(tmp_path: Path) -> None:
    out = scored(tmp_path / "out", [report("a"), report("b")])
    rows = [{"case_id": name, "patient": "x", "sex": sex} for name, sex in (("a", "f"), ("b", "m"))]
    with pytest.raises(InputError, match="row 3, column sex: differs from row 2"):
        made(out, clinic(tmp_path / "t.csv", rows))


def test_whoever_has_no_answer_or_no_certain_one_is_counted_and_named(tmp_path: Path) -> None:
    out = scored(tmp_path / "out", [report("leak", VENOUS), report("unsure", OTHER, review=True), report("clear"),
                                    report("empty", cement_ml=0.0), report("cut", assessed=False, cement_ml=0.0)])
    table = made(out)
    assert (table.leakage.hits, table.leakage.n) == (2, 4)
    assert text_of(table, "Patients") == "5"
    assert text_of(table, "Scans with an answer") == "4 of 5"
    assert text_of(table, "Leakage, without patients who need review").startswith("1 of 3 ")
    assert table.cement_ml == (4.0, 0.0, 4.0, 4.0)
    assert named(table) == {"not_assessable": ("cut",), "needs_review": ("unsure",), "no_cement": ("empty",),
                            "no_clinical_table": ()}
    assert {f.name: f.method for f in table.figures}["named.not_assessable"].endswith(": cut")


def test_whoever_is_missing_is_named_and_makes_the_exit_code_1(tmp_path: Path,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    out = scored(tmp_path / "out", [report("good"), report("old", VENOUS)], refused=["old", "never"])
    (out / "cases/broken").mkdir()
    (out / "cases/broken/report.json").write_text("{")
    (out / "results.csv").write_text("case_id,status\ngood,assessed\ngone,assessed\n")
    rows = [{"case_id": name, "age": 50} for name in ("good", "old", "lost")]
    assert main(["cohort", str(out), "--clinical", str(clinic(tmp_path / "t.csv", rows))]) == 1
    shown = capsys.readouterr()
    for line in ("failures.csv gives the reasons: never, old", "score them again: broken, gone",
                 "so in no figure here: lost"):
        assert line in shown.err
        assert line.partition(": ")[0] in (out / "cohort.html").read_text(encoding="utf-8")
    assert "0 of 1 patient " in shown.out


def test_several_approaches_of_one_patient_are_left_out_of_the_comparison(tmp_path: Path) -> None:
    out = scored(tmp_path / "out", [report("a", VENOUS), report("b"), report("c", VENOUS), report("d")])
    rows = [{"case_id": name, "patient": patient, "approach": approach} for name, patient, approach in
            (("a", "x", "posterior"), ("b", "x", "transiliac"), ("c", "y", "Posterior"), ("d", "z", "transiliac"))]
    table = made(out, clinic(tmp_path / "t.csv", rows))
    assert {name: (s.hits, s.n) for name, s in table.approaches.items()} == {"posterior": (1, 1), "transiliac": (0, 1)}
    assert (table.comparison.test, table.comparison.p) == ("Fisher's exact test", 1.0)
    assert named(table) == {"several_approaches": ("a", "b")}


@pytest.mark.parametrize("count", [1, 8])
def test_when_all_leak_nothing_is_compared(tmp_path: Path, count: int) -> None:
    out = scored(tmp_path / "out", [report(f"s{i}", VENOUS) for i in range(count)])
    rows = [{"case_id": f"s{i}", "approach": ("posterior", "transiliac")[i % 2], "vas_0": 7, "vas_3d": 3, "kps_3d": 80}
            for i in range(count)]
    assert main(["cohort", str(out), "--clinical", str(clinic(tmp_path / "t.csv", rows))]) == 0
    table = made(out, tmp_path / "t.csv")
    assert (table.leakage.value, table.comparison.p) == (1.0, None)
    assert text_of(table, "Difference between approaches") == "not tested"
    assert (out / "cohort_kps.png").is_file()


def test_when_no_scan_can_be_assessed_the_page_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = scored(tmp_path / "out", [report("a", assessed=False, cement_ml=0.0)])
    assert main(["cohort", str(out)]) == 0
    assert "No scan has an answer" in capsys.readouterr().out


def test_the_same_image_under_two_names_is_named(tmp_path: Path) -> None:
    twin = report("b").model_copy(update={"provenance": {"version": "2", "input_digest": "a"}})
    assert named(made(scored(tmp_path / "out", [report("a"), twin, report("c")]))) == {
        "same_image": ("a", "b"), "several_origins": (), "no_clinical_table": ()}


@pytest.mark.parametrize(("make", "message"), [
    (lambda out: None, "is not a folder"),
    (lambda out: out.mkdir(), "has no cases/"),
    (lambda out: scored(out, []), "holds no scored scan"),
    (lambda out: scored(out, [report("a")], refused=["a"]), "holds no scored scan"),
])
def test_a_folder_without_scans_is_a_wrong_call(tmp_path: Path, capsys: pytest.CaptureFixture[str], make: object,
                                                message: str) -> None:
    assert callable(make)
    make(tmp_path / "out")
    assert main(["cohort", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_a_wrong_cell_is_a_wrong_call_and_nothing_is_written(tmp_path: Path,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    out = scored(tmp_path / "out", [report("a")])
    clinical = clinic(tmp_path / "t.csv", [{"case_id": "a", "odi_3mo": "much better"}])
    assert main(["cohort", str(out), "--clinical", str(clinical)]) == 2
    assert "row 2, column odi_3mo: wanted a number from 0 to 100" in capsys.readouterr().err
    assert not (out / "cohort.csv").exists()
