"""A pelvis from closed forms: drawn parameters in, signed distance fields out. Needs no outside data."""

from __future__ import annotations

import hashlib

import numpy as np

from sacroleak.core.geometry import Geometry
from sacroleak.training.simulation import sdf
from sacroleak.training.simulation.anatomy import Anatomy, to_steps
from sacroleak.training.simulation.pelvis_parameters import PelvisParameters, draw_pelvis
from sacroleak.training.simulation.procedural_hips import BLADE, COLUMN, build_hips, place
from sacroleak.training.simulation.procedural_sacrum import bent_axis, build_sacrum
from sacroleak.training.simulation.procedural_spine import build_coccyx, build_spine
from sacroleak.training.simulation.sdf import Field, Vector

SOURCE = "procedural"

FACET_GAP_MM = 1.0
"""Half the narrowest gap kept between two bones, so that neighbours stay apart on a 2 mm grid."""


def procedural_pelvis(rng: np.random.Generator, *, spacing_mm: float = 2.0) -> Anatomy:
    """Draw and build one pelvis. The same generator state gives the same bytes."""
    return build_pelvis(draw_pelvis(rng), spacing_mm=spacing_mm)


def build_pelvis(parameters: PelvisParameters, *, spacing_mm: float = 2.0) -> Anatomy:
    """The anatomy of one drawn pelvis on a grid along +L +P +S; the S1 endplate's centre is LPS (0, 0, 0).

    All of FIELD_NAMES are present. Landmarks, LPS mm: `canal_centreline` (n, 3); `anterior_foramina_left` and
    `anterior_foramina_right` (4, 3), S1 first; `ala_left`, `ala_right` (1, 3), the middle of the lateral mass at
    S1-S2; `s1_endplate_centre` (1, 3); `s1_endplate_normal` (1, 3), a unit vector that points up.
    """
    geometry = _grid(parameters, spacing_mm)
    sacrum = build_sacrum(parameters.sacrum, parameters.tilt_deg, geometry)
    fields = {"sacrum": sacrum.bone, "canal": sacrum.canal}
    fields |= build_hips(parameters, sacrum.solid, geometry)
    fields |= build_spine(parameters, geometry)
    fields["coccyx"] = build_coccyx(parameters, sacrum.axis, geometry)
    _keep_apart(fields)
    digest = hashlib.sha256(repr(parameters).encode()).hexdigest()[:12]
    return Anatomy(name=f"{SOURCE}-{digest}", source=SOURCE, geometry=geometry, landmarks=sacrum.landmarks,
                   fields={name: to_steps(values) for name, values in fields.items()})


def _keep_apart(fields: dict[str, Field]) -> None:
    """Cut each structure back from those before it in the list, bones by a gap, in place."""
    order = ("canal", "sacrum", "coccyx", "l5", "l4", "hip_left", "hip_right", "femur_left", "femur_right")
    touching = {("canal", "sacrum")}
    for i, name in enumerate(order):
        for other in order[:i]:
            gap = 0.0 if (other, name) in touching else 2.0 * FACET_GAP_MM
            np.maximum(fields[name], np.float32(gap) - fields[other], out=fields[name])
    for other in order:
        np.maximum(fields["disc"], -fields[other], out=fields["disc"])


def _grid(p: PelvisParameters, spacing_mm: float) -> Geometry:
    """The smallest grid that holds hips, sacrum, coccyx and L4's body with a margin."""
    knots = np.concatenate([np.array(BLADE)[..., :3].reshape(-1, 3), np.array(COLUMN)[..., :3].reshape(-1, 3)])
    reached: list[Vector] = [bent_axis(p.sacrum, p.tilt_deg).points, np.array([[0.0, -45.0, 75.0], [0.0, 70.0, 75.0]])]
    for side, half_width in ((1.0, p.sacrum.half_width_left_mm), (-1.0, p.sacrum.half_width_right_mm)):
        reached.append(place(p, side, half_width / 57.0, knots))
    points = np.concatenate(reached)
    low = np.floor((points.min(axis=0) - sdf.MARGIN_MM - 6.0) / spacing_mm) * spacing_mm
    high = points.max(axis=0) + sdf.MARGIN_MM + 6.0
    sides = np.ceil((high - low) / spacing_mm).astype(int) + 1
    return Geometry.axis_aligned(origin_lps_mm=low, spacing_mm=spacing_mm,
                                 shape=(int(sides[0]), int(sides[1]), int(sides[2])))
