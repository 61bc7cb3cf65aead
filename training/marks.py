"""What the segmenter and scoring are to reach, by the names of `segmenter.json` and `benchmark.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOWER_IS_BETTER = frozenset({
    "sacrum_contour_near_cement_p95_mm", "cement_volume_error_median_pct", "false_components_per_scan",
    "left_right_swaps", "network_mb", "network_seconds", "scan_seconds", "scan_peak_gb", "memory_growth_mb",
    "help_seconds"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One measure and its limit, which counts as reached."""

    name: str
    label: str
    limit: float

    @property
    def sign(self) -> str:
        """On which side of the limit it is reached."""
        return "≤" if self.name in LOWER_IS_BETTER else "≥"

    def verdict(self, figure: Mapping[str, Any] | None) -> str:
        """`yes`, `no`, or that it was not measured; a value whose interval has ends on both sides is not certain."""
        if figure is None or figure["value"] is None:
            return "not measured"
        said = "yes" if self._reached(figure["value"]) else "no"
        ends = [self._reached(figure[end]) for end in ("low", "high") if figure.get(end) is not None]
        return said if all(end is (said == "yes") for end in ends) else f"{said}, not certain"

    def _reached(self, value: float) -> bool:
        return value <= self.limit if self.sign == "≤" else value >= self.limit


MARKS = (
    Mark(name="sacrum_dice", label="sacrum, Dice, cement in place", limit=0.97),
    Mark(name="sacrum_surface_dice_1mm", label="sacrum, surface Dice at 1 mm", limit=0.97),
    Mark(name="canal_dice", label="sacral canal, Dice", limit=0.90),
    Mark(name="sacrum_contour_near_cement_p95_mm", limit=1.5,
         label="contour error of the sacrum beside cement, 95th percentile, mm"),
    Mark(name="real_ct_sacrum_dice", label="sacrum, Dice, on the real CT against its labels", limit=0.92),
    Mark(name="cement_dice", label="cement, Dice", limit=0.95),
    Mark(name="cement_dice_leaks", label="cement in leaks only, Dice", limit=0.85),
    Mark(name="cement_volume_error_median_pct", label="cement volume error, median, %", limit=4.0),
    Mark(name="leak_component_sensitivity", label="leak components of at least 0.05 mL found (n: leaks)", limit=0.98),
    Mark(name="false_components_per_scan", label="false components a scan", limit=0.05),
    Mark(name="left_right_swaps", label="scans with left and right exchanged", limit=0.0),
    Mark(name="network_mb", label="released networks, MB", limit=12.0),
    Mark(name="network_seconds", limit=2.0,
         label="network time on 512×512×300 voxels, two cores, `standard`, s (n: runs)"),
    Mark(name="network_share_of_peak", label="share of the machine's measured peak (n: runs)", limit=0.5),
)
SPEED_MARKS = (
    Mark(name="scan_seconds", label="one scan of 512×512×300, DICOM to report and picture, two cores, s", limit=5.0),
    Mark(name="scan_peak_gb", label="memory of that, GB", limit=2.0),
    Mark(name="batch_against_separate", label="times faster: a batch than as many separate calls", limit=2.0),
    Mark(name="batch_two_cores_against_one", label="times faster: the batch on two cores than on one", limit=1.6),
    Mark(name="share_of_limit", label="share of the physical limit, batch", limit=0.5),
    Mark(name="times_eager_sliding_window", limit=10.0,
         label="times faster than the same networks over the whole scan, eager, sliding window (n: tiles)"),
    Mark(name="times_nnunet", label="times faster than nnU-Net's predictor, whole scan (n: tiles)", limit=200.0),
    Mark(name="times_nnunet_3mm", label="the same at 3 mm, without mirroring (n: tiles)", limit=5.0),
    Mark(name="memory_growth_mb", label="memory growth from the 100th to the last of 1,000 scans, MB (n: scans)",
         limit=50.0),
    Mark(name="help_seconds", label="`sacroleak --help`, s", limit=0.5),
)


def ahead(name: str, model: float | None, baseline: float | None) -> bool:
    """Whether the baseline's value of measure `name` is better than the model's."""
    if model is None or baseline is None:
        return False
    return baseline < model if name in LOWER_IS_BETTER else baseline > model
