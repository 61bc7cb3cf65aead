"""The patient's outline: how wide, how deep, how he lies; what is on the skin, behind it and under it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sacroleak.training.simulation.noise import Field
from sacroleak.training.simulation.scene import Scene
from sacroleak.training.simulation.shapes import near

DEFAULT_BACK_MM = 42.0
"""How far the sacrum's back lies behind its middle, where the grid does not hold it."""
FLATTENED_MM = 8.0
"""How much weight flattens the side the body lies on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """An oval body: half axes along L and P and its middle in LPS mm; `prone`: it lies on its belly."""

    half_x_mm: float
    half_y_mm: float
    centre_x_mm: float
    centre_y_mm: float
    prone: bool

    @property
    def down(self) -> float:
        """Direction of gravity along +P: 1 for a patient on his back."""
        return -1.0 if self.prone else 1.0

    @property
    def size_mm(self) -> tuple[float, float]:
        """Full width and depth."""
        return 2 * self.half_x_mm, 2 * self.half_y_mm

    @property
    def rest_mm(self) -> float:
        """Where the body touches the table, mm along P."""
        return self.centre_y_mm + self.down * (self.half_y_mm - FLATTENED_MM)

    def distance(self, scene: Scene) -> Field:
        """Rough signed distance to the skin [i, j, 1], negative inside: an oval, flat where it lies."""
        x, y, _ = scene.axes
        across = np.abs(x[:, None] - self.centre_x_mm) / self.half_x_mm
        deep = np.abs(y[None, :] - self.centre_y_mm) / self.half_y_mm
        # Exponent 2.5: hips make a body squarer than an ellipse.
        oval = ((across ** 2.5 + deep ** 2.5) ** 0.4 - 1) * self.half_y_mm
        lying = self.down * (y[None, :] - self.rest_mm)
        skin: Field = np.maximum(oval, lying)[:, :, None].astype(np.float32)
        return skin


def draw_body(rng: np.random.Generator, scene: Scene, *, skin_behind_mm: float, prone: bool) -> Body:
    """An outline whose back lies `skin_behind_mm` behind the sacrum; thick patients are wide, too."""
    thick = float(np.clip((skin_behind_mm - 15) / 60, 0, 1))
    half_y = rng.uniform(88, 130) + 45 * thick
    half_x = half_y * rng.uniform(1.25, 1.65)
    back = back_of_sacrum_mm(scene)
    return Body(half_x_mm=float(half_x), half_y_mm=float(half_y), centre_x_mm=float(rng.normal(0, 4)),
                centre_y_mm=float(back + skin_behind_mm - half_y + (0.0 if prone else FLATTENED_MM)), prone=prone)


def back_of_sacrum_mm(scene: Scene) -> float:
    """The hindmost of the sacrum, mm along P; an average one where the grid holds none."""
    bone = near(scene, "sacrum", 0.0)
    if bone is None:
        return DEFAULT_BACK_MM
    last = bone[0][1].stop - 1
    seen = float(scene.axes[1][last])
    return seen if last < scene.geometry.shape[1] - 2 else max(seen, DEFAULT_BACK_MM)
