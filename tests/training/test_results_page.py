"""The page says what the metrics say, and that the scans are synthetic."""

from __future__ import annotations

import json
from pathlib import Path

from sacroleak.core.structures import Site
from sacroleak.training.evaluate import write_metrics
from sacroleak.training.intervals import Bootstrap, Figure
from sacroleak.training.results_page import write_page
from sacroleak.training.summary import leakage_figures, segmenter_figures
from tests.training.evaluation import leak, record, result

VEIN = Site.SACRAL_VENOUS_PLEXUS
ABOUT = {"date": "2026-01-02", "machine": "a machine, 2 cores", "commit": "abc123", "bundle": "model 1",
         "bundle_digest": "d" * 64, "data_digest": "e" * 64}


def page_of(folder: Path, **files: dict[str, Figure]) -> str:
    for name, figures in files.items():
        write_metrics(folder / "metrics" / f"{name}.json", figures)
    write_page(folder / "metrics", folder / "docs" / "results.md")
    return (folder / "docs" / "results.md").read_text(encoding="utf-8")


def test_benchmark_figures_stand_with_interval_n_and_baseline(tmp_path: Path) -> None:
    records = [record(result([leak(VEIN, VEIN)]), truth=[VEIN]), record(result())]
    bootstrap = Bootstrap(resamples=20, seed=1)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/about.json").write_text(json.dumps({"benchmark": ABOUT}))
    text = page_of(tmp_path, segmenter=segmenter_figures(records, bootstrap),
                   leakage=leakage_figures(records, bootstrap))
    row = next(line for line in text.splitlines() if "`leak_sensitivity`" in line)
    assert [cell.strip() for cell in row.split("|")][3:7] == ["1.000", "0.207 to 1.000", "1", "0.000 (0.000 to 0.793)"]
    assert "2026-01-02; a machine, 2 cores; commit abc123; model model 1 (dddddddddddd)" in text
    vein = next(line for line in text.splitlines() if line.startswith("| sacral venous plexus |"))
    assert [cell.strip() for cell in vein.split("|")][2:9] == ["1", "0", "0", "0", "0", "0", "1"]


def test_each_section_of_the_benchmark_says_that_it_is_synthetic(tmp_path: Path) -> None:
    records = [record(result())] * 2
    bootstrap = Bootstrap(resamples=20, seed=1)
    text = page_of(tmp_path, segmenter=segmenter_figures(records, bootstrap),
                   leakage=leakage_figures(records, bootstrap))
    headings = [line for line in text.splitlines() if line.startswith(("## ", "### "))]
    assert len(headings) >= 6
    assert all("synthetic" in heading for heading in headings)


def test_sections_without_figures_are_left_out(tmp_path: Path) -> None:
    text = page_of(tmp_path)
    assert "##" not in text.replace("# Results", "")


def test_a_real_ct_is_one_patient_without_interval(tmp_path: Path) -> None:
    text = page_of(tmp_path, real_ct={"real_ct_sacrum_dice": Figure(value=0.9, n=1)})
    assert "| `real_ct_sacrum_dice` | 0.900 |  | 1 |" in text
    assert "n = 1" in text
    assert "coccyx" in text
