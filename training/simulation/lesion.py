"""A metastasis in the sacral ala: where bone is gone or hardened before any needle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Points
from sacroleak.core.structures import Side
from sacroleak.training.simulation.noise import Field, smooth_noise
from sacroleak.training.simulation.plan import Injection, LesionKind
from sacroleak.training.simulation.scene import Scene
from sacroleak.training.simulation.shapes import MARGIN_MM, add_ball, around, empty, roughen, whole, window

Drawn = Mapping[str, float | str | list[float]]

ALA_DEPTH_MM = 3.5
"""The middle of a lesion, and a needle's tip, lie at least so deep in bone."""
ALA_LATERAL_MM = 9.0
"""And so far from the canal: beyond the foramina, Denis zone I."""
FORAMINA_MM = 17.0
"""Anterior S1 foramina open about so far from the midline; the ala begins beside them."""
ALA_HEIGHT_MM = 58.0
"""S1 and S2 together, from the top of the ala down, of a sacrum tilted by 40 degrees."""
SPARED_MM = 1.5
"""Bone left over a lesion that has not eroded the cortex."""
ERODED_MM = 0.5
"""How far beyond the former contour an eroding lesion swells at most."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesion:
    """Signed distance in mm, negative in the tumour; `eroded`: it has broken through the cortex somewhere."""

    distance: Field
    kind: LesionKind
    eroded: bool
    centre_lps_mm: Points
    drawn: Drawn


def choose_in_ala(rng: np.random.Generator, scene: Scene, side: Side | None, *,
                  anywhere: bool = False) -> Points | None:
    """A point well within the bone of one ala (either, without a side), or anywhere in the sacrum; (3,) LPS mm."""
    scene = around(scene, "sacrum")
    deep = scene.distance["sacrum"] < -ALA_DEPTH_MM if anywhere else ala(scene)
    if side is not None:
        deep = deep & of_side(scene, side)[:, None, None]
    candidates = np.flatnonzero(deep)
    if candidates.size == 0:
        return None
    chosen = np.unravel_index(int(rng.choice(candidates)), scene.geometry.shape)
    return scene.geometry.to_lps(np.array(chosen))


def ala(scene: Scene) -> npt.NDArray[np.bool_]:
    """Deep in the alae: lateral to canal and foramina, on the levels of S1 and S2; the whole lateral mass where a field
    of view shows nothing of these.
    """
    bone = scene.distance["sacrum"]
    deep = (bone < -ALA_DEPTH_MM) & (scene.distance["canal"] > ALA_LATERAL_MM)
    levels = np.flatnonzero((bone < 0).any(axis=(0, 1)))
    if levels.size == 0:
        return deep
    x, _, z = scene.axes
    high = z > z[levels[-1]] - ALA_HEIGHT_MM
    wide = np.abs(x - midline_mm(scene)) > FORAMINA_MM
    upper: npt.NDArray[np.bool_] = deep & wide[:, None, None] & high
    return upper if upper.any() else deep


def of_side(scene: Scene, side: Side) -> npt.NDArray[np.bool_]:
    """Which of the grid's sagittal planes lie on one side of the midline; (i,)."""
    lateral: npt.NDArray[np.float64] = scene.axes[0] - midline_mm(scene)
    return lateral > 0 if side is Side.LEFT else lateral < 0


def midline_mm(scene: Scene) -> float:
    """Left-right place of the canal's middle, LPS mm; 0 where no canal is seen."""
    scene = around(scene, "canal")
    across = np.count_nonzero(scene.distance["canal"] < 0, axis=(1, 2))
    return float(scene.axes[0] @ across / across.sum()) if across.any() else 0.0


def draw_lesion(rng: np.random.Generator, scene: Scene, injection: Injection) -> Lesion | None:
    """The metastasis an injection treats; None without one, or where no ala is seen on its side."""
    centre = choose_in_ala(rng, scene, injection.side) if injection.lesion is not None else None
    if injection.lesion is None or centre is None:
        return None
    lobes, rough = int(rng.integers(1, 5)), float(rng.uniform(0.4, 2.2))
    radius = injection.lesion_radius_mm
    box, inner = window(scene, centre[None], 2.2 * radius + MARGIN_MM)
    body = empty(inner)
    add_ball(body, inner, centre, radius * float(rng.uniform(0.7, 0.95)))
    for _ in range(lobes):
        add_ball(body, inner, centre + rng.normal(0, 0.5 * radius, size=3), radius * float(rng.uniform(0.4, 0.8)))
    spacing = float(scene.geometry.spacing_mm.min())
    roughen(body, smooth_noise(rng, inner.geometry.shape, rng.uniform(4, 9) / spacing), rough)
    # A lesion that has not eroded the cortex ends within it.
    border = inner.distance["sacrum"] + np.float32(-ERODED_MM if injection.eroded else SPARED_MM)
    np.maximum(body, border, out=body)
    np.maximum(body, np.float32(ERODED_MM) - inner.distance["canal"], out=body)
    if not (body < 0).any():
        return None
    eroded = bool(((body < 0) & (inner.distance["sacrum"] > -ERODED_MM)).any())
    drawn: Drawn = {"kind": str(injection.lesion), "centre_lps_mm": centre.tolist(), "lobes": lobes,
                    "roughness_mm": rough, "radius_mm": radius,
                    "volume_ml": float(np.count_nonzero(body < 0)) * scene.geometry.voxel_ml}
    return Lesion(distance=whole(scene, body, box), kind=injection.lesion, eroded=eroded,
                  centre_lps_mm=centre, drawn=drawn)
