"""The page says what the metrics say, and that the scans are synthetic."""

from __future__ import annotations

import json
from pathlib import Path

from sacroleak.core.structures import Site
from sacroleak.training.intervals import Bootstrap, Figure
from sacroleak.training.metrics_files import write_metrics
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


def cells_of(text: str, start: str) -> list[str]:
    row = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in row.split("|")][1:-1]


def test_each_mark_says_whether_it_is_reached_and_how_certainly(tmp_path: Path) -> None:
    measured = {"sacrum_dice": Figure(value=0.98, n=60, low=0.975, high=0.985),
                "canal_dice": Figure(value=0.91, n=60, low=0.89, high=0.92),
                "cement_dice": Figure(value=0.9, n=50, low=0.88, high=0.92),
                "network_mb": Figure(value=12.0, n=1),
                "false_components_per_scan": Figure(value=0.06, n=60, low=0.04, high=0.08),
                "baseline_sacrum_dice": Figure(value=0.5, n=60, low=0.4, high=0.6)}
    text = page_of(tmp_path, segmenter=measured, leakage={"leak_sensitivity": Figure(value=1.0, n=1)})
    assert cells_of(text, "sacrum, Dice, cement in place | `sacrum_dice` | ≥") == [
        "sacrum, Dice, cement in place", "`sacrum_dice`", "≥ 0.97", "0.980", "0.975 to 0.985", "60",
        "0.500 (0.400 to 0.600)", "yes"]
    wanted = {"sacral canal, Dice | `canal_dice` | ≥": "yes, not certain", "cement, Dice | `cement_dice` | ≥": "no",
              "released networks, MB": "yes", "false components a scan": "no, not certain",
              "scans with left and right exchanged | `left_right_swaps` | ≤": "not measured"}
    assert {start: cells_of(text, start)[-1] for start in wanted} == wanted
    assert "3 of 14 marks are reached." in text


def test_a_stratum_is_marked_where_the_baseline_is_ahead(tmp_path: Path) -> None:
    """Lower is better for an error and higher for a Dice; equal is not ahead."""
    def pair(name: str, own: float, other: float) -> dict[str, Figure]:
        return {f"{prefix}{name}[metal=yes]": Figure(value=v, n=3) for prefix, v in (("", own), ("baseline_", other))}

    text = page_of(tmp_path, leakage={"leak_sensitivity": Figure(value=1.0, n=1)}, segmenter=(
        pair("cement_dice", 0.7, 0.8) | pair("cement_dice_leaks", 0.8, 0.8)
        | pair("cement_volume_error_median_pct", 5.0, 4.0) | pair("false_components_per_scan", 0.1, 1.2)))
    row = next(line for line in text.splitlines() if line.startswith("| metal=yes | 0.700"))
    assert [cell.strip() for cell in row.split("|")][2:7] == [
        "0.700, n 3 / 0.800 **◀**", "0.800, n 3 / 0.800", "5.000, n 3 / 4.000 **◀**", "", "0.100, n 3 / 1.200"]
    assert "The baseline is ahead in 2 of 4 cells that have both." in text


def test_an_ablation_shows_value_and_gain_of_each_arm(tmp_path: Path) -> None:
    text = page_of(tmp_path, ablation_training={
        "sacrum_dice[trained=all]": Figure(value=0.8, n=4, low=0.7, high=0.9),
        "sacrum_dice[trained=realistic_only]": Figure(value=0.6, n=4, low=0.5, high=0.7),
        "gain_sacrum_dice[trained=realistic_only]": Figure(value=0.2, n=4, low=0.1, high=0.3)})
    assert cells_of(text, "all |") == ["all", "0.800 (0.700 to 0.900), n 4"]
    assert cells_of(text, "realistic only |")[1] == "0.600 (0.500 to 0.700), n 4; gain 0.200 (0.100 to 0.300)"
    assert "There is no arm with real backgrounds" in text


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
