"""The spaces around a sacrum that cement can leak into, as signed distances in mm: negative where there is room."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d, label, maximum_filter1d

from sacroleak.core.geometry import Box, Points
from sacroleak.training.simulation.lesion import midline_mm
from sacroleak.training.simulation.needle import sacral_axes
from sacroleak.training.simulation.noise import Field
from sacroleak.training.simulation.scene import FAR_MM, Scene
from sacroleak.training.simulation.shapes import near, window

Mask = npt.NDArray[np.bool_]

AROUND_MM = 45.0
"""Leaks are made this far around the sacrum at most; longer ones end there."""
FORAMEN_REACH_MM = 15.0
"""A foramen has bone this near on its four sides; anterior S1 foramina are up to about 15 mm wide."""
FORAMEN_LATERAL_MM = (7.0, 33.0)
"""Foramina lie so far beside the midline: what is enclosed nearer or farther is a hiatus or a recess of the joint."""
FORAMEN_ML = 0.1
"""Smaller enclosed corners are no foramina."""
JOINT_MM = 6.0
"""Sacrum and hip together are this near in the joint, which is 2 to 4 mm wide."""
USED = ("sacrum", "canal", "hip_left", "hip_right", "l5", "disc")


@dataclass(frozen=True, kw_only=True, eq=False)
class Spaces:
    """Everything below is on `scene`, the part of a larger scene that lies in `box`; found when first asked for."""

    scene: Scene
    box: Box

    @classmethod
    def around(cls, scene: Scene) -> Spaces | None:
        """The spaces around the sacrum; None where none is seen."""
        bone = near(scene, "sacrum", 0.0)
        if bone is None:
            return None
        ends = scene.geometry.to_lps(np.array([[s.start for s in bone[0]], [s.stop - 1 for s in bone[0]]]))
        box, part = window(scene, ends, AROUND_MM)
        kept = {name: part.distance[name] for name in USED if name in part.distance}
        return cls(scene=Scene(geometry=part.geometry, distance=kept, mirrored=scene.mirrored), box=box)

    @cached_property
    def axes(self) -> tuple[Points, Points]:
        """Up along the upper canal and straight back from it; two unit vectors (3,) LPS."""
        return sacral_axes(self.scene)

    @cached_property
    def midline_mm(self) -> float:
        """Left-right place of the canal's middle, LPS mm."""
        return midline_mm(self.scene)

    @property
    def sacrum(self) -> Field:
        """Distance to the sacrum."""
        return self.scene.distance["sacrum"]

    @property
    def canal(self) -> Field:
        """Distance to the canal."""
        return self.scene.distance["canal"]

    @cached_property
    def hips(self) -> Field:
        """Distance to the nearer hip."""
        nearer: Field = np.minimum(self.scene.distance["hip_left"], self.scene.distance["hip_right"])
        return nearer

    @cached_property
    def spine(self) -> Field:
        """Distance to L5 and its disc."""
        l5 = self.scene.distance["l5"]
        nearer: Field = np.minimum(l5, self.scene.distance["disc"]) if "disc" in self.scene.distance else l5
        return nearer

    @cached_property
    def hull(self) -> Field:
        """Distance to the sacrum with canal and foramina closed, its corners rounded."""
        return self.scene.pelvic_surface

    @cached_property
    def canal_middle_mm(self) -> npt.NDArray[np.float64]:
        """LPS y of the canal's middle on each level of the grid, carried on straight beyond its ends; (k,)."""
        inside = self.canal < 0
        _, y, z = self.scene.axes
        area = np.count_nonzero(inside, axis=(0, 1)).astype(np.float64)
        # Levels that cut only a corner of the canal's slanted ends would bend the curve.
        full = np.flatnonzero(area > 0.6 * np.median(area[area > 0])) if area.any() else np.empty(0, dtype=int)
        if full.size < 2:
            return np.full(len(z), float(y @ np.count_nonzero(inside, axis=(0, 2)) / max(area.sum(), 1.0)))
        middle = np.count_nonzero(inside[:, :, full], axis=0).T @ y / area[full]
        middle = gaussian_filter1d(middle, max(3.0 / float(self.scene.geometry.spacing_mm[2]), 0.1))
        curve = np.interp(z, z[full], middle)
        few = min(full.size - 1, max(1, round(10 / float(self.scene.geometry.spacing_mm[2]))))
        for end, other in ((0, few), (-1, -1 - few)):
            slope = (middle[other] - middle[end]) / (z[full[other]] - z[full[end]])
            beyond = z < z[full[0]] if end == 0 else z > z[full[-1]]
            curve[beyond] = middle[end] + slope * (z[beyond] - z[full[end]])
        middle_mm: npt.NDArray[np.float64] = curve
        return middle_mm

    @cached_property
    def dorsal(self) -> Field:
        """How far behind the canal's middle surface each voxel lies, mm (negative in front)."""
        _, y, z = self.scene.axes
        steep = np.gradient(self.canal_middle_mm, z) if len(z) > 1 else np.zeros(1)
        behind = (y[:, None] - self.canal_middle_mm[None, :]) / np.sqrt(1 + steep**2)[None, :]
        return np.broadcast_to(behind.astype(np.float32)[None], self.scene.geometry.shape)

    @cached_property
    def ventral_canal(self) -> Field:
        """The front half of the canal."""
        room: Field = np.maximum(self.canal, self.dorsal + np.float32(0.1))
        return room

    @cached_property
    def dorsal_canal(self) -> Field:
        """The back half of the canal."""
        room: Field = np.maximum(self.canal, np.float32(0.1) - self.dorsal)
        return room

    @cached_property
    def in_front(self) -> Field:
        """Negative in front of the closed sacrum: bone straight behind, none straight in front."""
        return self._shadow(front=True)

    @cached_property
    def behind(self) -> Field:
        """Negative behind the closed sacrum."""
        return self._shadow(front=False)

    @cached_property
    def foramina(self) -> Field:
        """Negative by half a voxel in foramina: outside bone and canal, the sacrum on four sides or around."""
        lateral = np.abs(self.scene.axes[0] - self.midline_mm)
        solid = np.minimum(self.sacrum, self.canal) < 0
        room = (self._between(solid, 0) & self._between(self.sacrum < 0, 2) & (self.hull < 3.0)) | (self.hull < -0.8)
        room &= (self.sacrum > 0.3) & (self.canal > 1.0) & (self.spine > 2.0) & (self.hips > 2.0)
        room &= ((lateral > FORAMEN_LATERAL_MM[0]) & (lateral < FORAMEN_LATERAL_MM[1]))[:, None, None]
        half = np.float32(self.scene.geometry.spacing_mm.min() / 2)
        return np.where(room, -half, half)

    @cached_property
    def openings(self) -> Points:
        """Where each foramen opens on the pelvic surface; (n, 3) LPS mm."""
        parts, count = label(self.foramina < 0)
        cells = np.argwhere(parts > 0)
        owner = parts[parts > 0]
        points = self.scene.geometry.to_lps(cells)
        found = []
        for n in range(1, count + 1):
            own = points[owner == n]
            own = own[own[:, 0] > self.midline_mm], own[own[:, 0] <= self.midline_mm]
            for one in own:
                if len(one) * self.scene.geometry.voxel_ml >= FORAMEN_ML:
                    depth = one @ self.axes[1]
                    found.append(one[depth <= np.quantile(depth, 0.15)].mean(axis=0))
        return np.array(found).reshape(-1, 3)

    @cached_property
    def joint(self) -> Field:
        """The gap between sacrum and hip."""
        room: Field = np.maximum(np.maximum(np.float32(0.2) - self.sacrum, np.float32(0.2) - self.hips),
                                 self.sacrum + self.hips - np.float32(JOINT_MM))
        return room

    @cached_property
    def soft(self) -> Field:
        """Outside the sacrum, canal, hips, L5, disc and joints."""
        room: Field = np.maximum(np.float32(0.15) - self.sacrum, np.float32(1.0) - self.canal)
        np.maximum(room, np.float32(0.8) - self.hips, out=room)
        np.maximum(room, np.float32(1.0) - self.spine, out=room)
        np.maximum(room, (np.float32(JOINT_MM + 1) - self.sacrum - self.hips) / 2, out=room)
        return room

    @cached_property
    def presacral(self) -> Field:
        """Soft tissue in front of the sacrum, foramina left out."""
        room: Field = np.maximum(np.maximum(self.soft, self.in_front), -self.foramina)
        return room

    @cached_property
    def venous(self) -> Field:
        """Where sacral veins run: in front of the sacrum and in its foramina."""
        room: Field = np.maximum(self.soft, np.minimum(self.in_front, self.foramina))
        return room

    def _shadow(self, *, front: bool) -> Field:
        solid: Mask = np.asarray(self.hull < 0)
        seen: Mask = np.asarray(solid.any(axis=1))
        y = self.scene.axes[1].astype(np.float32)
        if front:
            surface = y[solid.argmax(axis=1)]
            return np.where(seen[:, None, :], y[None, :, None] - surface[:, None, :], np.float32(FAR_MM))
        surface = y[len(y) - 1 - solid[:, ::-1].argmax(axis=1)]
        return np.where(seen[:, None, :], surface[:, None, :] - y[None, :, None], np.float32(FAR_MM))

    def _between(self, solid: Mask, axis: int) -> Mask:
        """Where `solid` lies within FORAMEN_REACH_MM on both sides along one axis."""
        steps = 2 * max(1, round(FORAMEN_REACH_MM / float(self.scene.geometry.spacing_mm[axis]) / 2)) + 1
        bone = solid.astype(np.uint8)
        one, other = (maximum_filter1d(bone, steps, axis=axis, origin=side * (steps // 2), mode="constant")
                      for side in (-1, 1))
        both: Mask = (one > 0) & (other > 0)
        return both
