"""`docs/results.md`, made from the metrics files and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sacroleak.core.structures import Site
from sacroleak.core.whole import write_whole
from sacroleak.training.summary import STRATA

Figure = Mapping[str, Any]
Figures = Mapping[str, Figure]

HEAD = """# Results

Made by `make results` from `metrics/*.json`; do not edit by hand.

**All benchmark scans are synthetic.** Bones are either computed (procedural) or the surfaces of real patients that
training never saw; tissue, lesion, cement, leaks, metal and the scanner are computed in both. No scan taken after a
real sacroplasty has been measured. These figures do not say how the software does on patients, and the software is not
a medical device.

`n` is the number of scans (of leaks, where the line says so); intervals are 95 %: Wilson's for shares, bootstrap over
scans for all else. A bootstrap interval of no width says only that all scans gave the same value, not that more scans
would. A figure without interval rests on one item. Sites with few positives have wide intervals: read those, not the
value.

No limit was chosen on these scans, but some on an earlier benchmark of the same seven patients:
[evaluation.md](evaluation.md). Where `n` is smaller than the table of the benchmark is long, the first scans of each
source were measured.
"""

BENCHMARK_NOTE = """\
Dice is taken on the scan's own grid; hips and L5 count only within the region that the fine network looks at.
*Baseline*: all that exceeds a threshold (1200 HU) in components near the **true** sacrum is cement, what of it lies
outside that bone is a leak, and where it lies is its site. It is told where the bone is; the model is not. Cement of
other treatments (in L5 or the hips) is left out of all cement figures. A scan called not assessable counts as answered
wrongly."""
REAL_NOTE = """\
One patient: n = 1, no interval, an example and not a measurement. The labels are themselves the output of a tool
(TotalSegmentator), not of a reader, so this Dice is agreement and not accuracy. The two definitions of the sacrum
differ: theirs runs on into the coccyx, ours ends at S5 and has the sacral canal as a structure of its own. The second
line therefore leaves out the label below our own lower end (a cut along the axial plane); that removes the coccyx, but
also forgives an S5 that was missed. The third line joins our canal to our sacrum where the label does so."""
IMPLANT_NOTE = """\
The tissue is real, the cement is computed: ellipsoids of one density, mixed into the voxels by the share they fill,
without noise, lesion or streaks of their own. It is easier than real cement."""

SEGMENTER = (
    ("sacrum_dice", "sacrum, Dice, cement in place"),
    ("sacrum_surface_dice_1mm", "sacrum, surface Dice at 1 mm, by voxels of the scan"),
    ("canal_dice", "sacral canal, Dice"), ("hips_dice", "hips, Dice, within the examined region"),
    ("l5_dice", "L5, Dice, within the examined region"), ("cement_dice", "cement, Dice"),
    ("cement_dice_leaks", "cement outside the bone, beside true leaks, Dice"),
    ("cement_volume_error_median_pct", "cement volume, absolute error, median, %"),
    ("cement_volume_bias_ml", "cement volume, mean error, mL"),
    ("false_cement_ml_without_cement", "cement reported in scans without cement, mL"),
    ("leak_component_sensitivity", "true leaks of at least 0.05 mL found (n: leaks)"),
    ("false_components_per_scan", "false leaks per scan"),
    ("left_right_swaps", "scans with left and right exchanged"), ("not_assessable", "scans called not assessable"),
    ("network_mb", "all networks on disk, MB"),
)
LEAKAGE = (
    ("leak_sensitivity", "leak, yes or no: sensitivity"), ("leak_specificity", "leak, yes or no: specificity"),
    ("exact_sites", "exactly the true set of sites"), ("site_macro_f1", "site, macro-F1 over the four"),
    ("site_kappa", "site, Cohen's κ over the four"),
    *((f"{site}_{what}", f"{str(site).replace('_', ' ')}, {label}") for site in Site
      for what, label in (("recall", "recall"), ("precision", "precision"), ("f1", "F1"))),
    ("review_share", "sent to review"), ("accuracy_without_review", "exactly the true sites, among the rest"),
    ("site_calibration_error", "expected calibration error of the sites' rule scores (they are not calibrated)"),
)
BY_STRATUM = (("segmenter", "sacrum_dice", "sacrum Dice"), ("segmenter", "cement_dice", "cement Dice"),
              ("segmenter", "leak_component_sensitivity", "leaks found"),
              ("segmenter", "false_components_per_scan", "false leaks per scan"),
              ("leakage", "leak_sensitivity", "leak sensitivity"), ("leakage", "leak_specificity", "leak specificity"),
              ("leakage", "exact_sites", "exact set of sites"))
REAL = (
    ("real_ct_sacrum_dice", "sacrum, Dice against the given labels, as they are"),
    ("real_ct_sacrum_dice_above_own_lower_end", "the same, label cut off below the lower end of our S5"),
    ("real_ct_sacrum_dice_above_own_lower_end_canal_joined",
     "the same, and our canal counted as sacrum where the label does so"),
    ("real_ct_sacrum_ml", "our sacrum, mL"), ("real_ct_label_sacrum_ml", "the label's sacrum, mL"),
    ("real_ct_label_below_own_lower_end_ml", "the label below our lower end, mL"),
    ("real_ct_own_canal_in_label_share", "share of our canal that the label calls sacrum"),
    ("real_ct_hip_left_dice_in_region", "left hip, Dice within the examined region"),
    ("real_ct_hip_right_dice_in_region", "right hip, Dice within the examined region"),
    ("real_ct_l5_dice_in_region", "L5, Dice within the examined region"),
    ("real_ct_cement_reported_ml", "cement reported, mL (there is none)"),
    ("real_ct_leaks_reported", "leaks reported (there are none)"),
    ("real_ct_metal_ml", "metal seen within the examined region, mL"),
    ("real_ct_sacrum_coverage", "share of the sacrum that the scan shows"),
)
IMPLANTED = (
    ("real_ct_ala_cement_dice", "inside the left ala: cement, Dice"),
    ("real_ct_ala_volume_error_pct", "inside the left ala: volume error, %"),
    ("real_ct_ala_centroid_error_mm", "inside the left ala: centroid off by, mm"),
    ("real_ct_ala_leaks_reported", "inside the left ala: leaks reported (there are none)"),
    *((f"real_ct_front_{side}_{name}", f"in front of S1, {side}: {label}") for side in ("left", "right")
      for name, label in (("leak_found", "leak found (1 yes)"), ("side_right", "given its true side (1 yes)"),
                          ("site_anterior_sacral", "called anterior sacral space (1 yes)"),
                          ("centroid_error_mm", "centroid off by, mm"), ("volume_error_pct", "volume error, %"),
                          ("false_leaks", "false leaks"))),
    ("real_ct_dicom_same_findings", "written as HFS, HFP, FFS, FFP and reversed: share with the same findings"),
    ("real_ct_dicom_centroid_shift_max_mm", "the same: largest shift of a leak's centroid, mm"),
    ("real_ct_dicom_cement_centroid_shift_max_mm", "the same: largest shift of the centroid of all cement, mm"),
)
OTHERS = {"bench": "One scan of 512×512×300 voxels, by stage", "fresh_clone": "A fresh clone"}
"""Metrics that other commands may have left; shown as they are."""


def write_page(metrics: Path, page: Path) -> None:
    """Write the page from whatever metrics are there; sections without figures are left out."""
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole(page, ("\n".join(_lines(metrics)).rstrip() + "\n").encode())


def _lines(metrics: Path) -> Iterator[str]:
    about, segmenter, leakage = (_read(metrics / f"{name}.json") for name in ("about", "segmenter", "leakage"))
    yield HEAD
    if segmenter and leakage:
        yield from _benchmark(segmenter, leakage, about.get("benchmark", {}))
    real = _read(metrics / "real_ct.json")
    if real:
        yield from _real(real, about.get("real_ct", {}))
    for name, title in OTHERS.items():
        figures = _read(metrics / f"{name}.json")
        if figures:
            yield from (f"## {title}", "", *_circumstances(about.get(name, {})))
            yield from _table([(key, key.replace("_", " ")) for key in figures], figures)


def _benchmark(segmenter: Figures, leakage: Figures, about: Mapping[str, str]) -> Iterator[str]:
    yield from ("## Benchmark: synthetic scans of anatomies held out of training", "", *_circumstances(about))
    yield from (BENCHMARK_NOTE, "")
    yield from ("### Contours and cement (synthetic)", "", *_table(SEGMENTER, segmenter))
    yield from ("### Leaks and sites, scan by scan (synthetic)", "", *_table(LEAKAGE, leakage))
    yield from ("### Site confusion, leak by leak (synthetic)", "", *_confusion(leakage))
    yield from ("### By the way out of the bone (synthetic)", "", *_mechanisms(leakage))
    yield from ("### By stratum (synthetic), model / baseline", "", *_strata({"segmenter": segmenter,
                                                                              "leakage": leakage}))


def _real(figures: Figures, about: Mapping[str, str]) -> Iterator[str]:
    yield from ("## One real CT, without cement", "", *_circumstances(about))
    yield from (REAL_NOTE, "")
    yield from _table(REAL, figures)
    yield from ("### Cement put into that CT at known places", "", IMPLANT_NOTE, "")
    yield from _table(IMPLANTED, figures)


def _circumstances(about: Mapping[str, str]) -> Iterator[str]:
    if about:
        bundle = f"; model {about['bundle']} ({about['bundle_digest'][:12]})" if about.get("bundle") else ""
        data = f"; data {about['data_digest'][:12]}" if about.get("data_digest") else ""
        yield f"{about['date']}; {about['machine']}; commit {about['commit']}{bundle}{data}."
        yield ""


def _table(rows: Sequence[tuple[str, str]], figures: Figures) -> Iterator[str]:
    """Measure, name, value, interval, n; and the baseline's value and interval where one row has it."""
    beside = any(f"baseline_{name}" in figures for name, _ in rows)
    yield "| measure | name | value | 95 % interval | n |" + (" baseline |" if beside else "")
    yield "|---|---|---|---|---|" + ("---|" if beside else "")
    for name, label in rows:
        if name in figures:
            figure = figures[name]
            line = f"| {label} | `{name}` | {_number(figure['value'])} | {_interval(figure)} | {figure['n']} |"
            if beside:
                other = figures.get(f"baseline_{name}")
                line += f" {_with_interval(other)} |" if other else " |"
            yield line
    yield ""


def _confusion(figures: Figures) -> Iterator[str]:
    """Counts, from the shares and their n."""
    columns = [*(str(site) for site in Site), "none"]
    yield "| truth \\ found as | " + " | ".join(c.replace("_", " ") for c in columns) + " | n |"
    yield "|---|" + "---|" * (len(columns) + 1)
    for truth in columns:
        row = [figures.get(f"confusion[{truth}>{found}]") for found in columns]
        counts = ["" if f is None else str(round((f["value"] or 0.0) * f["n"])) for f in row]
        n = max((f["n"] for f in row if f is not None), default=0)
        label = truth.replace("_", " ") if truth != "none" else "none (false leaks)"
        yield f"| {label} | " + " | ".join(counts) + f" | {n} |"
    yield ""
    yield "Rows with fewer than ten leaks say little: the shares' intervals are in `metrics/leakage.json`."
    yield ""


def _mechanisms(figures: Figures) -> Iterator[str]:
    yield "| way out | found | site right | n |"
    yield "|---|---|---|---|"
    for key, figure in figures.items():
        if key.startswith("found["):
            name = key.removeprefix("found[").removesuffix("]")
            right = figures[f"site_right[{name}]"]
            yield (f"| {name.replace('_', ' ')} | {_with_interval(figure)} | {_with_interval(right)} | {figure['n']} |")
    yield ""


def _strata(files: Mapping[str, Figures]) -> Iterator[str]:
    yield "| stratum | " + " | ".join(label for _, _, label in BY_STRATUM) + " |"
    yield "|---|" + "---|" * len(BY_STRATUM)
    for stratum in STRATA:
        cells = []
        for file, name, _ in BY_STRATUM:
            own, other = (files[file].get(f"{prefix}{name}[{stratum}]") for prefix in ("", "baseline_"))
            text = f"{_with_interval(own)}, n {own['n']}" if own else ""
            cells.append(text + (f" / {_number(other['value'])}" if other else ""))
        yield f"| {stratum} | " + " | ".join(cells) + " |"
    yield ""


def _with_interval(figure: Figure) -> str:
    interval = _interval(figure)
    return f"{_number(figure['value'])} ({interval})" if interval else _number(figure["value"])


def _interval(figure: Figure) -> str:
    low, high = figure.get("low"), figure.get("high")
    return f"{_number(low)} to {_number(high)}" if low is not None and high is not None else ""


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
