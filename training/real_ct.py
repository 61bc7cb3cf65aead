"""The released model on one real CT with labels: its bones, its silence without cement, and cement put into it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from sacroleak.core.dicom_write import SeriesStyle, write_series
from sacroleak.core.errors import InputError
from sacroleak.core.geometry import Geometry
from sacroleak.core.read import read_one
from sacroleak.core.structures import Side, Site, Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.attribution import Attribution, attribute
from sacroleak.models.classifier import LeakClassifier
from sacroleak.models.label_grids import labels_on, on_whole
from sacroleak.models.limits import RuleLimits
from sacroleak.models.segmentation import Segmentation
from sacroleak.training.baseline import BaselineConfig, baseline_bones
from sacroleak.training.intervals import Figure
from sacroleak.training.measures import dice
from sacroleak.training.scored_case import Segmenter, region_of
from sacroleak.training.simulation.implant import Blob, Implanted, blob_at, implant

Mask = npt.NDArray[np.bool_]
Figures = dict[str, Figure]

ALA_RADIUS_MM, FRONT_RADIUS_MM = 9.0, 7.0
STYLES = (SeriesStyle(position="HFS"), SeriesStyle(position="HFP"), SeriesStyle(position="FFS"),
          SeriesStyle(position="FFP"), SeriesStyle(position="HFS", reverse=True))
"""Every patient position a scanner writes, and one series numbered from the other end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelNumbers:
    """Which numbers of somebody's label image are which bone; several may be sacrum."""

    sacrum: tuple[int, ...]
    hip_left: int
    hip_right: int
    l5: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RealCt:
    """A CT and its labels, in the numbers of Structure, on its grid; `digest`: sha256 of both."""

    ct: Volume
    labels: LabelMap
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """What the released model makes of one scan."""

    segmentation: Segmentation
    found: Attribution

    @property
    def cement_points(self) -> npt.NDArray[np.float64]:
        """Cement voxels, (n, 3) LPS mm."""
        cement = self.segmentation.cement
        return cement.geometry.to_lps(np.argwhere(cement.labels))


def on_ct_grid(ct: Volume, labels: Volume, numbers: LabelNumbers) -> RealCt:
    """Labels read like a scan, renumbered. Raises GeometryError if they are not on the CT's grid, InputError if they
    hold no sacrum.
    """
    ct.geometry.require_same_grid(labels.geometry, "labels")
    own = np.zeros(labels.hu.shape, dtype=np.uint8)
    own[np.isin(labels.hu, numbers.sacrum)] = Structure.SACRUM
    for number, structure in ((numbers.hip_left, Structure.HIP_LEFT), (numbers.hip_right, Structure.HIP_RIGHT),
                              (numbers.l5, Structure.L5)):
        own[labels.hu == number] = structure
    if not (own == Structure.SACRUM).any():
        raise InputError(f"labels: no voxel is sacrum ({', '.join(map(str, numbers.sacrum))}); give --sacrum")
    state = hashlib.sha256(np.ascontiguousarray(ct.hu).data)
    state.update(own.data)
    return RealCt(ct=ct, labels=LabelMap(labels=own, geometry=ct.geometry), digest=state.hexdigest())


def measure_real_ct(given: RealCt, segmenter: Segmenter, limits: RuleLimits, *, scratch: Path,
                    classifier: LeakClassifier | None = None) -> Figures:
    """Everything of `metrics/real_ct.json`; DICOM series are written below `scratch` and removed again.

    One patient: n is 1 and there is no interval. Raises NotAssessableError if the model refuses the scan.
    """
    plain = score(given.ct, segmenter, limits, classifier)
    figures = bone_figures(plain.segmentation, given.labels)
    figures["real_ct_cement_reported_ml"] = one(plain.found.cement.total_ml + plain.found.cement.elsewhere_ml)
    figures["real_ct_leaks_reported"] = one(len(plain.found.leaks))
    figures["real_ct_metal_ml"] = one(plain.segmentation.metal_ml)
    figures["real_ct_sacrum_coverage"] = one(plain.segmentation.sacrum_coverage)
    sacrum = given.labels.labels == Structure.SACRUM
    figures |= implant_figures(given.ct, sacrum, segmenter, limits, classifier=classifier)
    with_cement = front_implant(given.ct, sacrum, Side.RIGHT)[0].ct
    return figures | position_figures(with_cement, segmenter, limits, scratch=scratch, classifier=classifier)


def score(ct: Volume, segmenter: Segmenter, limits: RuleLimits, classifier: LeakClassifier | None = None) -> Scored:
    """The whole way from HU to leaks."""
    segmentation = segmenter.segment(ct)
    return Scored(segmentation=segmentation, found=attribute(segmentation, limits, classifier))


def bone_figures(segmentation: Segmentation, truth: LabelMap) -> Figures:
    """Dice of the bones on the CT's grid. What the two definitions of the sacrum do to it is measured beside it:
    the label image may go on into the coccyx below S5, and may fill the canal, which is a structure of its own here.
    """
    grid = truth.geometry
    found = labels_on(segmentation.anatomy, grid).labels
    ours, theirs = found == Structure.SACRUM, truth.labels == Structure.SACRUM
    canal = found == Structure.SACRAL_CANAL
    height = _height(grid)
    above = height >= (height[ours].min() if ours.any() else -np.inf)
    region = region_of(segmentation.anatomy.geometry, grid) if _aligned(grid) else (slice(None),) * 3
    figures = {
        "real_ct_sacrum_dice": one(dice(ours, theirs)),
        "real_ct_sacrum_dice_above_own_lower_end": one(dice(ours, theirs & above)),
        "real_ct_sacrum_dice_above_own_lower_end_canal_joined": one(dice(ours | (canal & theirs), theirs & above)),
        "real_ct_sacrum_dice_ceiling": one(dice(theirs & above & ~canal, theirs)),
        "real_ct_label_below_own_lower_end_ml": one(float(np.count_nonzero(theirs & ~above)) * grid.voxel_ml),
        "real_ct_own_canal_in_label_share": one(float(theirs[canal].mean()) if canal.any() else None),
        "real_ct_sacrum_ml": one(float(np.count_nonzero(ours)) * grid.voxel_ml),
        "real_ct_label_sacrum_ml": one(float(np.count_nonzero(theirs)) * grid.voxel_ml),
    }
    for name, structure in (("hip_left", Structure.HIP_LEFT), ("hip_right", Structure.HIP_RIGHT), ("l5", Structure.L5)):
        figures[f"real_ct_{name}_dice_in_region"] = one(dice(found[region] == structure,
                                                             truth.labels[region] == structure))
    return figures


def baseline_figures(given: RealCt, config: BaselineConfig) -> Figures:
    """What a threshold makes of the same sacrum; it is told the box of the label. Needs axes along L, P and S."""
    found = baseline_bones(given.ct, given.labels, config) if _aligned(given.ct.geometry) else None
    sacrum = given.labels.labels == Structure.SACRUM
    return {"baseline_real_ct_sacrum_dice": one(None if found is None else dice(found == Structure.SACRUM, sacrum))}


def front_implant(ct: Volume, sacrum: Mask, side: Side) -> tuple[Implanted, Blob]:
    """Cement inside the ala and a blob in front of the S1 cortex, both on `side`; the second is returned too."""
    front = blob_at("front", side, sacrum, ct.geometry, radius_mm=FRONT_RADIUS_MM)
    ala = blob_at("ala", side, sacrum, ct.geometry, radius_mm=ALA_RADIUS_MM)
    return implant(ct, (ala, front)), front


def implant_figures(ct: Volume, sacrum: Mask, segmenter: Segmenter, limits: RuleLimits, *,
                    classifier: LeakClassifier | None = None) -> Figures:
    """Cement in the left ala: found, and no leak. In front of the S1 cortex, on either side: a leak, on that side."""
    ala = blob_at("ala", Side.LEFT, sacrum, ct.geometry, radius_mm=ALA_RADIUS_MM)
    inside = implant(ct, (ala,))
    judged = score(inside.ct, segmenter, limits, classifier)
    figures = {
        "real_ct_ala_cement_dice": one(dice(_cement(judged, ct.geometry), inside.cement.labels.astype(bool))),
        "real_ct_ala_volume_error_pct": one(100.0 * abs(judged.found.cement.total_ml - ala.volume_ml) / ala.volume_ml),
        "real_ct_ala_centroid_error_mm": one(_off(judged.cement_points, ala)),
        "real_ct_ala_leaks_reported": one(len(judged.found.leaks)),
    }
    for side in (Side.LEFT, Side.RIGHT):
        both, front = front_implant(ct, sacrum, side)
        found = _front_figures(score(both.ct, segmenter, limits, classifier), front, side)
        figures |= {f"real_ct_front_{side}_{name}": figure for name, figure in found.items()}
    return figures


def _front_figures(judged: Scored, front: Blob, side: Side) -> Figures:
    """The leak nearest to the blob; all leaks beside it are false."""
    leaks = judged.found.leaks
    if not leaks:
        return {"leak_found": one(0.0), "false_leaks": one(0.0)}
    place = np.array(front.centre_lps_mm)
    nearest = min(leaks, key=lambda leak: float(np.linalg.norm(np.array(leak.centroid_lps_mm) - place)))
    off = float(np.linalg.norm(np.array(nearest.centroid_lps_mm) - place))
    hit = off < max(front.radii_mm)
    return {
        "leak_found": one(float(hit)), "side_right": one(float(hit and nearest.side is side)),
        "site_anterior_sacral": one(float(hit and nearest.site is Site.ANTERIOR_SACRAL_SPACE)),
        "centroid_error_mm": one(off),
        "volume_error_pct": one(100.0 * abs(nearest.volume_ml - front.volume_ml) / front.volume_ml),
        "false_leaks": one(float(len(leaks) - int(hit))),
    }


def position_figures(ct: Volume, segmenter: Segmenter, limits: RuleLimits, *, scratch: Path,
                     classifier: LeakClassifier | None = None) -> Figures:
    """The same scan written as DICOM in every position and read again: the same findings at the same places?"""
    wanted = score(ct, segmenter, limits, classifier)
    scratch.mkdir(parents=True, exist_ok=True)
    same, shifts, cement_shifts = 0, [], []
    with TemporaryDirectory(dir=scratch) as folder:
        for number, style in enumerate(STYLES):
            series = Path(folder) / str(number)
            write_series(ct, series, style)
            got = score(read_one(series), segmenter, limits, classifier)
            same += findings_of(got.found) == findings_of(wanted.found)
            shifts.append(largest_shift_mm(got.found, wanted.found))
            cement_shifts.append(_apart(got.cement_points, wanted.cement_points))
    return {"real_ct_dicom_same_findings": Figure(value=same / len(STYLES), n=len(STYLES)),
            "real_ct_dicom_centroid_shift_max_mm": _largest(shifts),
            "real_ct_dicom_cement_centroid_shift_max_mm": _largest(cement_shifts)}


def findings_of(found: Attribution) -> list[tuple[Site, Side, tuple[str, ...], bool]]:
    """What is said of each leak, largest first, without its numbers."""
    return [(leak.site, leak.side, tuple(f.rule for f in leak.findings), leak.needs_review) for leak in found.leaks]


def largest_shift_mm(got: Attribution, wanted: Attribution) -> float | None:
    """Largest distance between the centroids of leaks of one number; infinite if their count differs, None for none."""
    shifts = [np.inf if a is None or b is None
              else float(np.linalg.norm(np.array(a.centroid_lps_mm) - np.array(b.centroid_lps_mm)))
              for a, b in zip_longest(got.leaks, wanted.leaks)]
    return max(shifts) if shifts else None


def _apart(points: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> float | None:
    """Distance of two centroids in mm; None if either has no points."""
    if len(points) == 0 or len(others) == 0:
        return None
    return float(np.linalg.norm(points.mean(axis=0) - others.mean(axis=0)))


def _largest(values: list[float | None]) -> Figure:
    known = [v for v in values if v is not None]
    return Figure(value=max(known) if known else None, n=len(known))


def one(value: float | None) -> Figure:
    """A figure of the one patient there is: no interval."""
    return Figure(value=value, n=1)


def _cement(judged: Scored, grid: Geometry) -> Mask:
    cement: Mask = on_whole(judged.segmentation.cement, judged.segmentation.start, grid) > 0
    return cement


def _off(points: npt.NDArray[np.float64], blob: Blob) -> float | None:
    return float(np.linalg.norm(points.mean(axis=0) - blob.centre_lps_mm)) if len(points) else None


def _height(grid: Geometry) -> npt.NDArray[np.float64]:
    """LPS z of every voxel; grid.shape."""
    parts: Sequence[npt.NDArray[np.float64]] = [
        np.arange(n).reshape([-1 if a == b else 1 for b in range(3)]) * grid.affine[2, a]
        for a, n in enumerate(grid.shape)]
    return np.asarray(grid.affine[2, 3] + parts[0] + parts[1] + parts[2])


def _aligned(grid: Geometry) -> bool:
    """Whether the axes run along L, P and S in this order, either way."""
    steps = grid.affine[:3, :3]
    return bool(np.abs(steps - np.diag(np.diag(steps))).max() < 1e-3)
