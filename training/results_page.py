"""`docs/results.md`, made from the metrics files and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sacroleak.core.structures import Site
from sacroleak.core.whole import write_whole
from sacroleak.training.evaluation_run import ABOUT
from sacroleak.training.marks import MARKS, SPEED_MARKS, Mark, ahead
from sacroleak.training.metrics_files import SPEED, read_metrics
from sacroleak.training.summary import IN_REAL_CT, OF_REAL_CT, SIZES, STRATA

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

One limit, `tracks.column_outward`, was set after an error on one of these scans (procedural-018), and the rule for
paired things after false leaks on the real CT; others were chosen on an earlier benchmark of the same seven patients:
[evaluation.md](evaluation.md). Where `n` is smaller than the table of the benchmark is long, the first scans of each
source were measured.
"""

BENCHMARK_NOTE = """\
Dice is taken on the scan's own grid; hips and L5 count only within the region that the fine network looks at.
*Baseline*: all that exceeds a threshold (1200 HU) in components near the **true** sacrum is cement, what of it lies
outside that bone is a leak, and where it lies is its site. Its own sacrum is the largest component above 150 HU in the
true sacrum's box, its canal the largest hole that this bone surrounds in axial slices. It is told where the bone is;
the model is not. Cement of
other treatments (in L4, L5 or the hips) is left out of all cement figures. A scan called not assessable counts as
answered wrongly."""
MARKS_NOTE = """\
What the segmenter is to reach. *Not certain*: the interval has ends on both sides of the mark. The contour's error is
the 95th percentile in each scan of how far the true surface within 5 mm of cement lies from the found one, in the mean
of the scans; on slices thicker than the mark one voxel too many already misses it. The real CT is one patient."""
STRATA_NOTE = """\
Model (95 % interval), n / baseline. **◀** marks where the baseline is ahead of the model; with few scans that may be
chance. Strata overlap, and sites are those of the truth."""
SPEED_NOTE = """\
Seconds that the networks' calls take, and nothing else, for one made scan of this size; median of the runs. Operations
are counted from the convolutions of the exported networks times the calls made, two for each multiplication with its
addition. The peak is the faster of a large matrix product and a large convolution, run in turn with the networks by the
same runtime on the same threads in the same precision: bfloat16 where the processor multiplies that natively, else
8-bit integers where it does that (as the close networks do then), else float32. Both make networks about twice as fast
and the peak several times, so that the share of it falls. `careful` is always float32."""
BATCH_NOTE = """\
All of it in one run, by calls of the real command in processes of their own, on two cores, with everything on, files
read from the disk; *seconds* are those of the whole call, `other` those of none of its stages: start, finding scans and
reading their headers, tables, end. The scans are made ones. `n` is the number of calls, or of tiles; the batch was run
once on two cores and once on one. A few scans were scored by a call each, and that is scaled up to the size of the
batch. The *physical limit* is the time of reading the batch's bytes at the measured speed of the disk, and then of the
networks' operations at the measured peak.

*Other ways* have their networks look at the whole large scan. A few tiles were timed, one at a time, on noise, and
scaled up to the number of tiles that the method cuts the scan into; reading, resampling and writing are left out there,
and counted for this software. *Eager*: the fine and the near network of this release in torch, through MONAI's
`SlidingWindowInferer` with its default overlap of 0.25, each once on its own grid (2 and 1 mm). *nnU-Net*: its own
predictor (`nnunetv2`) with the network of its 3d_fullres plan and random weights, patch 128×128×128, steps of half a
patch, in eager torch as it does by default; on the scan's own grid with mirroring along all axes, and at 3 mm without.
Neither of the two has learned this task, so nothing is said about what they would find."""
ABLATION = {"training": "Short trainings", "inference": "Inference"}
ABLATION_NOTE = """\
What each part brings, on the first scans of each source of the benchmark. *Short trainings*: the fine network from
scratch, every arm with the same number of updates and the same seeds, its answer on a patch around the true sacrum,
on its own grid; they say which arm learns more in that time, not what a full training would reach. *Inference*: the
release with one part left out, measured on whole scans as above. *Gain*: the value of the whole less that of the arm,
scan by scan; positive means that what the arm lacks helps.

There is no arm with real backgrounds: the one labelled real CT at hand is for testing alone, and no real CT was
trained on. There is none without the coarse pass either: it says where the fine network looks, and without it there is
no answer."""
IN_REAL_CT_NOTE = """\
Bone and tissue are a real patient's, in slices of 3 mm; lesion, cement and leaks are simulated, as in the other scans.
It is one patient again and again: the intervals speak of other cement in him, not of other patients. His labels are a
tool's, his canal and foramina derived; no network learned from him, but limits were chosen with other cement in the
same CT ([evaluation.md](evaluation.md)). These scans are in no other table but the strata's."""
REAL_NOTE = """\
One patient: n = 1, no interval, an example and not a measurement. The labels are themselves the output of a tool
(TotalSegmentator), not of a reader, so this Dice is agreement and not accuracy. The two definitions of the sacrum
differ: theirs runs on into the coccyx, ours ends at S5 and has the sacral canal as a structure of its own. The second
line therefore leaves out the label below our own lower end (a cut along the axial plane); that removes the coccyx, but
also forgives an S5 that was missed. The third line joins our canal to our sacrum where the label does so. The ceiling
is the Dice of the label against itself without what lies below our lower end and without our canal: what a perfect
contour by our definition would get."""
IMPLANT_NOTE = """\
The tissue is real, the cement is computed: ellipsoids of one density, mixed into the voxels by the share they fill,
without noise, lesion or streaks of their own. It is easier than real cement."""

SEGMENTER = (
    ("sacrum_dice", "sacrum, Dice, cement in place"),
    ("sacrum_surface_dice_1mm", "sacrum, surface Dice at 1 mm, by voxels of the scan"),
    ("sacrum_hd95_mm", "sacrum, HD95, mm"),
    ("sacrum_contour_near_cement_p95_mm", "sacrum beside cement, contour error, 95th percentile, mm"),
    ("canal_dice", "sacral canal, Dice"), ("canal_surface_dice_1mm", "sacral canal, surface Dice at 1 mm"),
    ("canal_hd95_mm", "sacral canal, HD95, mm"), ("hips_dice", "hips, Dice, within the examined region"),
    ("hips_surface_dice_1mm", "hips, surface Dice at 1 mm, likewise"), ("hips_hd95_mm", "hips, HD95, mm, likewise"),
    ("l5_dice", "L5, Dice, within the examined region"), ("cement_dice", "cement, Dice"),
    ("cement_dice_leaks", "cement outside the bone, beside true leaks, Dice"),
    ("cement_volume_error_median_pct", "cement volume, absolute error, median, %"),
    ("cement_volume_bias_ml", "cement volume, mean error, mL"),
    ("false_cement_ml_without_cement", "cement reported in scans without cement, mL"),
    ("leak_component_sensitivity", "true leaks of at least 0.05 mL found (n: leaks)"),
    *((f"leak_component_sensitivity[size={size}]", f"of them {size.replace('_', ' ')} (n: leaks)") for size in SIZES),
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
    ("site_calibration_error", "expected calibration error of the sites' probabilities"),
)
REAL_CT_FIGURES = (
    "sacrum_dice", "sacrum_contour_near_cement_p95_mm", "cement_dice", "cement_dice_leaks",
    "cement_volume_error_median_pct", "leak_component_sensitivity", "false_components_per_scan", "leak_sensitivity",
    "leak_specificity", "exact_sites", *OF_REAL_CT)
SIDES = (
    ("leak_sensitivity", "leak, yes or no: sensitivity"), ("leak_specificity", "leak, yes or no: specificity"),
    ("site_macro_f1", "site, macro-F1 over the four"), ("puncture_path_f1", "puncture path, F1"),
    ("site_kappa", "site, Cohen's κ over the four"), ("exact_sites", "exactly the true set of sites"),
    ("site_calibration_error", "calibration error of the sites' probabilities"))
SIDES_NOTE = """The same scans by three ways to judge the leak parts: the rules alone, the classifier alone, and both
as released. In true masks the same is done as if no network had erred: the difference is what segmentation costs. The
rules' probabilities are scores."""
STRATA_TABLES = {
    "bones": (("segmenter", "sacrum_dice", "sacrum Dice"),
              ("segmenter", "sacrum_surface_dice_1mm", "sacrum, surface Dice at 1 mm"),
              ("segmenter", "sacrum_contour_near_cement_p95_mm", "contour beside cement, mm"),
              ("segmenter", "canal_dice", "canal Dice")),
    "cement": (("segmenter", "cement_dice", "cement Dice"), ("segmenter", "cement_dice_leaks", "in leaks only"),
               ("segmenter", "cement_volume_error_median_pct", "volume error, median, %"),
               ("segmenter", "leak_component_sensitivity", "leaks found"),
               ("segmenter", "false_components_per_scan", "false leaks per scan")),
    "leak or none": (("leakage", "leak_sensitivity", "leak sensitivity"),
                     ("leakage", "leak_specificity", "leak specificity"),
                     ("leakage", "exact_sites", "exact set of sites")),
}
REAL = (
    ("real_ct_sacrum_dice", "sacrum, Dice against the given labels, as they are"),
    ("real_ct_sacrum_dice_above_own_lower_end", "the same, label cut off below the lower end of our S5"),
    ("real_ct_sacrum_dice_above_own_lower_end_canal_joined",
     "the same, and our canal counted as sacrum where the label does so"),
    ("real_ct_sacrum_dice_ceiling", "the most that our definition can reach: the label without coccyx and canal"),
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
PLAIN_KINDS = {"rendered": "Rendered plainly", "real_ct": "Cement in one real CT, by that maker",
               "in_trouble": "Both, in trouble: metal, dense things, odd cement, how it was scanned"}
BY_TROUBLE = {"leaks_found": "leaks found (n: leaks)", "false_leaks_per_scan": "false leaks per scan",
              "leak_specificity": "specificity", "exact_sites": "exact sites", "cement_dice": "cement, Dice"}
TROUBLE_NOTE = "Half of the scans of each are rendered, half lie in the real CT. So few show a failure, no difference."
PLAIN = (
    ("leaks_found", "true leaks of at least 0.05 mL found (n: leaks)"),
    *((f"leaks_found[site={site}]", f"of them {str(site).replace('_', ' ')} (n: leaks)") for site in Site),
    ("site_right_of_found", "of the found ones, given the maker's site (n: leaks)"),
    ("false_leaks_per_scan", "false leaks per scan"),
    ("leak_sensitivity", "leak, yes or no: sensitivity"), ("leak_specificity", "leak, yes or no: specificity"),
    ("exact_sites", "exactly the maker's set of sites"), ("cement_dice", "cement, Dice"),
)
PLAIN_NOTE = """\
Balls and rods of one density as cement, in bones of two densities (of patients held out of training) or in the real
CT; made by code that shares nothing with the simulation that the model learned from but the shapes of bones, see
[evaluation.md](evaluation.md). What this maker calls a site is by how it was made, and at times arguable."""


def write_page(metrics: Path, page: Path) -> None:
    """Write the page from whatever metrics are there; sections without figures are left out."""
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole(page, ("\n".join(_lines(metrics)).rstrip() + "\n").encode())


def _lines(metrics: Path) -> Iterator[str]:
    about = read_metrics(metrics / ABOUT)
    segmenter, leakage, real, plain, speed = (read_metrics(metrics / f"{name}.json") for name in (
        "segmenter", "leakage", "real_ct", "plain", "network_speed"))
    yield HEAD
    if segmenter and leakage:
        yield from _benchmark(segmenter, leakage, about.get("benchmark", {}))
    if real:
        yield from _real(real, about.get("real_ct", {}))
    if plain:
        yield from ("## Scans of another maker (synthetic)", "", *_circumstances(about.get("plain", {})))
        yield from (PLAIN_NOTE, "")
        for kind, title in PLAIN_KINDS.items():
            rows = [(f"plain_{kind}_{name}", label) for name, label in PLAIN if f"plain_{kind}_{name}" in plain]
            if rows:
                yield from (f"### {title}", "", *_table(rows, plain))
        yield from _troubles(plain)
    if speed:
        yield from ("## Time inside the networks", "", *_circumstances(about.get("network_speed", {})), SPEED_NOTE, "")
        yield from _table([(key, key.replace("_", " ")) for key in speed], speed)
    batch = read_metrics(metrics / f"{SPEED}.json")
    if batch:
        yield from ("## Time of a scan and of a batch", "", *_circumstances(about.get("batch_speed", {})))
        yield from (BATCH_NOTE, "", *_marks(batch, SPEED_MARKS))
        named = {mark.name for mark in SPEED_MARKS}
        yield from _table([(key, key.replace("_", " ")) for key in batch if key not in named], batch)
    halves = {half: read_metrics(metrics / f"ablation_{half}.json") for half in ABLATION}
    if any(halves.values()):
        yield from ("## What each part brings (synthetic)", "", ABLATION_NOTE, "")
    for half, figures in halves.items():
        if figures:
            yield from (f"### {ABLATION[half]} (synthetic)", "", *_circumstances(about.get(f"ablation_{half}", {})))
            yield from _ablation(figures, ABLATION[half].lower())


def _benchmark(segmenter: Figures, leakage: Figures, about: Mapping[str, str]) -> Iterator[str]:
    yield from ("## Benchmark: synthetic scans of anatomies held out of training", "", *_circumstances(about))
    yield from (BENCHMARK_NOTE, "")
    yield from ("### Marks (synthetic, but for the real CT)", "", MARKS_NOTE, "", *_marks(segmenter, MARKS))
    yield from ("### Contours and cement (synthetic)", "", *_table(SEGMENTER, segmenter))
    yield from ("### Leaks and sites, scan by scan (synthetic)", "", *_table(LEAKAGE, leakage))
    yield from ("### Rules, classifier, both; in predicted and in true masks (synthetic)", "", SIDES_NOTE, "",
                *_sides(leakage))
    yield from ("### Site confusion, leak by leak (synthetic)", "", *_confusion(leakage))
    yield from ("### By the way out of the bone (synthetic)", "", *_mechanisms(leakage))
    both = {**segmenter, **leakage}
    labels = dict((*SEGMENTER, *LEAKAGE))
    inside = [(f"{name}[{IN_REAL_CT}]", labels[name]) for name in REAL_CT_FIGURES
              if both.get(f"{name}[{IN_REAL_CT}]", {}).get("n")]
    if inside:
        yield from ("### Simulated cement in one real CT", "", IN_REAL_CT_NOTE, "", *_table(inside, both))
    yield from ("### By stratum (synthetic), model / baseline", "", STRATA_NOTE, "")
    for title, columns in STRATA_TABLES.items():
        yield from _strata(title, columns, {"segmenter": segmenter, "leakage": leakage})


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


def _troubles(figures: Figures) -> Iterator[str]:
    """A row for each trouble that was measured, a column for each measure."""
    first = f"plain_in_trouble_{next(iter(BY_TROUBLE))}[trouble="
    names = [key.removeprefix(first).removesuffix("]") for key in figures if key.startswith(first)]
    if not names:
        return
    yield from ("### Each trouble by itself", "", TROUBLE_NOTE, "")
    yield "| trouble | " + " | ".join(BY_TROUBLE.values()) + " |"
    yield "|---|" + "---|" * len(BY_TROUBLE)
    for name in names:
        row = [figures[f"plain_in_trouble_{measure}[trouble={name}]"] for measure in BY_TROUBLE]
        cells = (f"{_with_interval(f)}, n {f['n']}" if f["n"] else "–" for f in row)
        yield f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |"
    yield ""


def _sides(figures: Figures) -> Iterator[str]:
    """One column for each method and masks that were measured."""
    columns = [(method, masks) for masks in ("predicted", "true") for method in ("rules", "classifier", "both")
               if f"{method}_exact_sites[masks={masks}]" in figures]
    if not columns:
        return
    yield "| measure | " + " | ".join(f"{method}, {masks} masks" for method, masks in columns) + " | n |"
    yield "|---|" + "---|" * (len(columns) + 1)
    for name, label in SIDES:
        row = [figures[f"{method}_{name}[masks={masks}]"] for method, masks in columns]
        yield f"| {label} | " + " | ".join(_with_interval(f) for f in row) + f" | {row[0]['n']} |"
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


def _marks(figures: Figures, marks: Sequence[Mark]) -> Iterator[str]:
    yield "| measure | name | mark | value | 95 % interval | n | baseline | reached |"
    yield "|---|---|---|---|---|---|---|---|"
    reached = 0
    for mark in marks:
        figure, other = figures.get(mark.name), figures.get(f"baseline_{mark.name}")
        verdict = mark.verdict(figure)
        reached += verdict.startswith("yes")
        cells = ("–", "", "") if figure is None else (_number(figure["value"]), _interval(figure), str(figure["n"]))
        yield (f"| {mark.label} | `{mark.name}` | {mark.sign} {mark.limit:g} | {' | '.join(cells)} | "
               f"{_with_interval(other) if other else ''} | {verdict} |")
    yield ""
    yield f"{reached} of {len(marks)} marks are reached."
    yield ""


def _strata(title: str, columns: Sequence[tuple[str, str, str]], files: Mapping[str, Figures]) -> Iterator[str]:
    yield f"| {title} | " + " | ".join(label for _, _, label in columns) + " |"
    yield "|---|" + "---|" * len(columns)
    compared = behind = 0
    for stratum in STRATA:
        cells = []
        for file, name, _ in columns:
            own, other = (files[file].get(f"{prefix}{name}[{stratum}]") for prefix in ("", "baseline_"))
            text = f"{_with_interval(own)}, n {own['n']}" if own else ""
            if own and other:
                lost = ahead(name, own["value"], other["value"])
                compared += own["value"] is not None and other["value"] is not None
                behind += lost
                text += f" / {_number(other['value'])}" + (" **◀**" if lost else "")
            cells.append(text)
        yield f"| {stratum} | " + " | ".join(cells) + " |"
    yield ""
    yield f"The baseline is ahead in {behind} of {compared} cells that have both."
    yield ""


def _ablation(figures: Figures, title: str) -> Iterator[str]:
    """An arm a row, value and gain of each measure."""
    names = [key.removesuffix("]").split("[") for key in figures]
    kind = names[0][1].split("=")[0]
    measures = list(dict.fromkeys(name for name, _ in names if not name.startswith("gain_")))
    yield f"| {title} | " + " | ".join(m.replace("_", " ") for m in measures) + " |"
    yield "|---|" + "---|" * len(measures)
    for arm in dict.fromkeys(arm.removeprefix(f"{kind}=") for _, arm in names):
        cells = []
        for measure in measures:
            own, gain = (figures.get(f"{prefix}{measure}[{kind}={arm}]") for prefix in ("", "gain_"))
            text = f"{_with_interval(own)}, n {own['n']}" if own else ""
            cells.append(text + (f"; gain {_with_interval(gain)}" if gain else ""))
        yield f"| {arm.replace('_', ' ')} | " + " | ".join(cells) + " |"
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

