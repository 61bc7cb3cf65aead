"""One interface for every source of anatomy: signed distance fields in the patient's frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sacroleak.core.errors import InputError
from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.volume import Volume

STEP_MM = 0.1
"""One int8 step of a distance field; the range is then +-12.7 mm, enough for cortex, partial volume and warping."""

FIELD_NAMES = ("sacrum", "canal", "hip_left", "hip_right", "l5", "l4", "disc", "femur_left", "femur_right", "coccyx")
"""Structures an anatomy may carry. `sacrum`, `canal`, both hips and `l5` are required."""

REQUIRED = ("sacrum", "canal", "hip_left", "hip_right", "l5")

DistanceField = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Anatomy:
    """Bones of one pelvis as it was before tumour, needle and cement.

    `fields`: name -> int8 signed distance, negative inside, STEP_MM a step, clipped at +-12.7 mm, on `geometry`
    (axes along +L +P +S, about 2 mm). Fields do not overlap: where one is negative the others are not
    (canal is not sacrum, disc is neither L5 nor sacrum).
    `landmarks`: name -> (n, 3) LPS mm. `canal_centreline` runs from L5/S1 down; `anterior_foramina_left` and
    `anterior_foramina_right` hold S1, S2, ... from above, where each opens on the pelvic surface.
    `background`: the real CT that the bones were seen on, if there is one; axes along +L +P +S, the same frame.
    """

    name: str
    source: str
    geometry: Geometry
    fields: Mapping[str, DistanceField]
    landmarks: Mapping[str, Points] = field(default_factory=dict)
    background: Volume | None = None

    def __post_init__(self) -> None:
        missing = [name for name in REQUIRED if name not in self.fields]
        if missing:
            raise InputError(f"anatomy {self.name}: fields missing: {', '.join(missing)}")
        for name, values in self.fields.items():
            if name not in FIELD_NAMES:
                raise InputError(f"anatomy {self.name}: unknown field {name}")
            if values.shape != self.geometry.shape or values.dtype != np.int8:
                raise InputError(f"anatomy {self.name}: field {name} is {values.dtype}{values.shape}, wanted int8 "
                                 f"{self.geometry.shape}")
        if self.background is not None and not _runs_along_lps(self.background.geometry):
            raise InputError(f"anatomy {self.name}: the CT's axes do not run along +L +P +S")

    def save(self, path: Path) -> None:
        """Write to an .npz (whole or not at all)."""
        temporary = path.with_suffix(".part")
        fields = {f"field_{name}": values for name, values in self.fields.items()}
        marks = {f"landmark_{name}": points for name, points in self.landmarks.items()}
        behind = {} if self.background is None else {"background_hu": np.asarray(self.background.hu),
                                                     "background_affine": self.background.geometry.affine}
        with temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, name=np.array(self.name), source=np.array(self.source),
                                affine=self.geometry.affine, **fields, **marks, **behind)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Anatomy:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as data:
            fields = {k.removeprefix("field_"): data[k] for k in data.files if k.startswith("field_")}
            marks = {k.removeprefix("landmark_"): data[k] for k in data.files if k.startswith("landmark_")}
            shape = next(iter(fields.values())).shape
            behind = None
            if "background_hu" in data.files:
                hu = data["background_hu"]
                behind = Volume(hu=hu, geometry=Geometry(affine=data["background_affine"], shape=hu.shape))
            return cls(name=str(data["name"]), source=str(data["source"]), fields=fields, landmarks=marks,
                       geometry=Geometry(affine=data["affine"], shape=shape), background=behind)


def to_steps(distance_mm: npt.ArrayLike) -> DistanceField:
    """Signed distance in mm to int8 steps, clipped."""
    return np.clip(np.rint(np.asarray(distance_mm) / STEP_MM), -127, 127).astype(np.int8)


def _runs_along_lps(geometry: Geometry) -> bool:
    steps = geometry.affine[:3, :3]
    return bool(np.allclose(steps, np.diag(np.diag(steps)), atol=1e-6) and (np.diag(steps) > 0).all())
