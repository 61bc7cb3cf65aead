"""Pictures for whoever follows a training: the learning curve, and a scan with truth and result side by side."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap
from sacroleak.models.label_grids import labels_on
from sacroleak.models.segmentation import Segmentation
from sacroleak.training.simulation.case import Case

WINDOW_HU = (-200.0, 1800.0)
"""Soft tissue to cement."""
TRUE, FOUND = "#39d353", "#ff4fa3"
WIDE_INCHES, DPI = 9.0, 100

Labels = npt.NDArray[np.generic]


def learning_curve(log: Path) -> bytes:
    """PNG of loss and Dice by update, from a training's `log.jsonl`."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    figure = _figure(4.0)
    left, right = figure.subplots(1, 2)
    left.plot([line["update"] for line in lines], [line["loss"] for line in lines], color="black", linewidth=1)
    left.set(xlabel="update", ylabel="loss", title="loss, mean of 20 updates")
    for name in sorted({name for line in lines for name in line if name.startswith("dice_")}):
        points = [(line["update"], line[name]) for line in lines if line.get(name) is not None]
        right.plot(*zip(*points, strict=True), linewidth=1, label=name.removeprefix("dice_"))
    right.set(xlabel="update", ylabel="Dice", ylim=(0, 1), title="Dice of the samples trained on")
    if right.lines:
        right.legend(fontsize=7, loc="lower right")
    return _png(figure)


def draw_case(case: Case, segmentation: Segmentation | None, title: str) -> bytes:
    """PNG of an axial and a sagittal slice, where cement of truth and result differ most: truth green, result red.

    Without `segmentation` the truth alone.
    """
    bones, cement = _result(case, segmentation)
    where = _middle(case, cement)
    figure = _figure(4.8)
    figure.suptitle(title, fontsize=9)
    axial = _axis_along(case, 2)
    for place, axis in zip(figure.subplots(1, 2), (axial, _axis_along(case, 0)), strict=True):
        cut = tuple(where[a] if a == axis else slice(None) for a in range(3))
        upright = _upright(case, axis)
        spacing = [float(n) for a, n in enumerate(case.ct.geometry.spacing_mm) if a != axis]
        place.imshow(upright(case.ct.hu[cut]), cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1],
                     aspect=_aspect(case, axis, spacing))
        true_sacrum, found_sacrum = (labels == Structure.SACRUM for labels in (case.anatomy.labels, bones))
        for mask, colour in ((true_sacrum, TRUE), (case.cement.labels > 0, TRUE), (found_sacrum, FOUND),
                             (cement, FOUND)):
            if mask[cut].any():
                place.contour(upright(mask[cut]).astype(float), levels=[0.5], colors=[colour], linewidths=0.8)
        place.set_axis_off()
    return _png(figure)


def _result(case: Case, segmentation: Segmentation | None) -> tuple[Labels, npt.NDArray[np.bool_]]:
    """Found anatomy and cement on the case's own grid."""
    if segmentation is None:
        return np.zeros(case.ct.geometry.shape, dtype=np.uint8), np.zeros(case.ct.geometry.shape, dtype=bool)
    cement = np.zeros(case.ct.geometry.shape, dtype=bool)
    part = tuple(slice(a, a + n) for a, n in zip(segmentation.start, segmentation.cement.labels.shape, strict=True))
    cement[part] = segmentation.cement.labels > 0
    anatomy: LabelMap = labels_on(segmentation.anatomy, case.ct.geometry)
    return anatomy.labels, cement


def _middle(case: Case, cement: npt.NDArray[np.bool_]) -> tuple[int, int, int]:
    """A voxel in the slices where true and found cement differ most, else amid the cement, else amid the sacrum."""
    true = case.cement.labels > 0
    for mask in (true != cement, true, case.anatomy.labels == Structure.SACRUM):
        if mask.any():
            i, j, k = (int(mask.sum(axis=tuple(b for b in range(3) if b != a)).argmax()) for a in range(3))
            return i, j, k
    i, j, k = (n // 2 for n in case.ct.geometry.shape)
    return i, j, k


def _axis_along(case: Case, lps: int) -> int:
    """The array axis that runs most along L (0), P (1) or S (2)."""
    return int(np.abs(case.ct.geometry.affine[lps, :3] / case.ct.geometry.spacing_mm).argmax())


def _upright(case: Case, axis: int) -> Any:
    """Turns a cut across `axis` so that back is down in an axial and head is up in a sagittal one."""
    down = 1 if axis == _axis_along(case, 2) else 2
    rows = _axis_along(case, down)
    falling = case.ct.geometry.affine[down, rows] > 0
    first = min(a for a in range(3) if a != axis) == rows

    def turned(cut: Labels) -> Labels:
        cut = cut if first else cut.T
        return cut[::-1] if falling != (down == 1) else cut

    return turned


def _aspect(case: Case, axis: int, spacing: list[float]) -> float:
    """Height over width of a voxel as it is drawn."""
    rows = _axis_along(case, 1 if axis == _axis_along(case, 2) else 2)
    first = min(a for a in range(3) if a != axis) == rows
    return spacing[0] / spacing[1] if first else spacing[1] / spacing[0]


def _figure(high_inches: float) -> Any:
    from matplotlib.figure import Figure  # a second, for stages that draw

    return Figure(figsize=(WIDE_INCHES, high_inches), dpi=DPI, layout="tight")


def _png(figure: Any) -> bytes:
    content = BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
