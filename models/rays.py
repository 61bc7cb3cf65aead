"""Straight looks from points through the label map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Points
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap
from sacroleak.models.canal import LocalPoints, SacralFrame

RAY_STEP_MM = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rays:
    """Straight looks from (n, 3) LPS mm `points` through `bone`."""

    bone: LabelMap
    points: Points

    def hits(
        self, direction: Points, reach_mm: float, *, through: tuple[Structure, ...] = (),
    ) -> npt.NDArray[np.bool_]:
        """Whether the sacrum (or one of `through`) lies within `reach_mm` of points along unit `direction`; (n,)."""
        wanted = np.zeros(int(max(Structure)) + 1, dtype=np.bool_)
        wanted[[Structure.SACRUM, *through]] = True
        grid = self.bone.geometry
        first = grid.to_index(self.points)
        step = grid.to_index(self.points + np.broadcast_to(direction, self.points.shape) * RAY_STEP_MM) - first
        # One row per axis, and only what has met nothing yet: less time than one row per point.
        start, step = (np.ascontiguousarray(rows.T) for rows in (first, step))
        end = np.array(grid.shape)[:, None]
        open_, hit = np.arange(len(self.points)), np.zeros(len(self.points), dtype=np.bool_)
        for n in range(1, int(reach_mm / RAY_STEP_MM) + 1):
            if len(open_) == 0:
                break
            at = np.rint(start + n * step).astype(np.int64)
            met = np.asarray(((at >= 0) & (at < end)).all(axis=0))
            i, j, k = at[:, met]
            met[met] = wanted[self.bone.labels[i, j, k]]
            hit[open_[met]] = True
            start, step, open_ = start[:, ~met], step[:, ~met], open_[~met]
        return hit


def enclosed(rays: Rays, local: LocalPoints, frame: SacralFrame, reach_mm: float) -> npt.NDArray[np.bool_]:
    """Which points have bone (or canal) on the medial side and bone on the lateral, upper and lower side; (n,)."""
    lateral = np.sign(local.left_mm)[:, None] * frame.left
    walls = rays.hits(lateral, reach_mm) & rays.hits(-lateral, reach_mm, through=(Structure.SACRAL_CANAL,))
    return np.asarray(walls & rays.hits(local.up, reach_mm) & rays.hits(-local.up, reach_mm))
