"""Where exactly cement ends: a small network judges each voxel by its density and by what the large ones say of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter, uniform_filter

from sacroleak.core.errors import ModelError
from sacroleak.core.geometry import box_where
from sacroleak.core.volume import Volume

Field = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

EDGE_FEATURES = (
    "cement_logit", "metal_logit", "share_of_level", "kilo_hu", "outside_mm", "inside_mm", "in_bone", "fine_agrees",
    "cement_around_logit", "share_of_level_around", "most_cement_around_logit", "thickest_voxel_mm",
)
"""Columns of what the network is given. `level` is the density of the patient's own cement; lengths from the bone's
surface, at most FARTHEST_MM; `around` is a box of AROUND_MM, for the largest probability of almost twice that."""
AROUND_MM, FARTHEST_MM = 5.0, 4.0
FAINT = 0.02
"""Where nothing near has a higher probability of cement than this, there is none."""
SURE = 0.003
"""Probabilities are taken as at least this far from 0 and 1 before their logit, 5.8 at most."""
HIGHEST_HU, MOST_SHARE = 3071.0, 1.6
CHUNK = 16384
"""Voxels judged at a time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """What the large networks say of one scan's bright voxels; (n,) each, `around` (n, 3): mean probability of cement,
    mean HU and largest probability of cement nearby. `where`: flat indices into the scan. `thickest_mm`: largest side
    of a voxel.
    """

    where: npt.NDArray[np.int64]
    cement: Field
    metal: Field
    fine_agrees: Mask
    hu: Field
    around: Field
    thickest_mm: float

    @property
    def candidates(self) -> npt.NDArray[np.int64]:
        """Rows that can be cement at all."""
        return np.flatnonzero(self.around[:, 2] > FAINT)

    def features(self, rows: npt.NDArray[np.int64], from_bone_mm: npt.NDArray[np.floating], level_hu: float) -> Field:
        """EDGE_FEATURES of some rows, (m, 12); `from_bone_mm` (n,), negative inside."""
        mm, around = from_bone_mm[rows], self.around[rows]
        columns = (
            _logit(self.cement[rows]), _logit(self.metal[rows]), np.minimum(self.hu[rows] / level_hu, MOST_SHARE),
            self.hu[rows] / 1000.0, np.clip(mm, 0, FARTHEST_MM), np.clip(-mm, 0, FARTHEST_MM), mm <= 0,
            self.fine_agrees[rows], _logit(around[:, 0]), around[:, 1] / level_hu, _logit(around[:, 2]),
            np.full(len(rows), self.thickest_mm),
        )
        return np.stack(columns, axis=1).astype(np.float32)


class Edge(Protocol):
    """Probability of cement, (n,), from what is seen, distances from the bone (n,) mm, and the cement's level in HU."""

    def __call__(self, seen: Seen, from_bone_mm: npt.NDArray[np.floating], level_hu: float) -> Field:
        """Judge every bright voxel of a scan."""
        ...


class OpenVinoEdge:
    """The exported network, compiled once. Raises ModelError for a file that is none."""

    def __init__(self, path: Path, *, threads: int) -> None:
        import openvino  # 0.4 s: paid only when a scan is scored

        core = openvino.Core()
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        try:
            model = core.read_model(path)
            model.reshape([CHUNK, len(EDGE_FEATURES)])
            self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise ModelError(f"{path.name}: not a network this runtime can read") from error

    def __call__(self, seen: Seen, from_bone_mm: npt.NDArray[np.floating], level_hu: float) -> Field:
        """Probability of cement of every bright voxel; 0 where none can be."""
        out = np.zeros(len(seen.cement), dtype=np.float32)
        rows = seen.candidates
        given = np.zeros((CHUNK, len(EDGE_FEATURES)), dtype=np.float32)
        for start in range(0, len(rows), CHUNK):
            some = rows[start:start + CHUNK]
            given[:len(some)] = seen.features(some, from_bone_mm, level_hu)
            self._request.infer({0: given})
            out[some] = self._request.get_output_tensor(0).data[:len(some), 0]
        return out


def surroundings(ct: Volume, certainty: npt.NDArray[np.uint8], index: npt.NDArray[np.int64]) -> Field:
    """`Seen.around` of the voxels `index` (n, 3) of `ct`; `certainty` in per cent on its grid."""
    out = np.zeros((len(index), 3), dtype=np.float32)
    half = np.rint(AROUND_MM / 2 / ct.geometry.spacing_mm).astype(int)
    box = box_where(certainty > 100 * FAINT, 2 * half)
    if box is None:
        return out
    low, high = np.array([s.start for s in box]), np.array([s.stop for s in box])
    rows = np.flatnonzero(((index >= low) & (index < high)).all(axis=1))
    place = tuple((index[rows] - low).T)
    cement = certainty[box].astype(np.float32) / np.float32(100)
    size = tuple((2 * half + 1).tolist())
    out[rows, 0] = uniform_filter(cement, size)[place]
    out[rows, 1] = uniform_filter(np.clip(ct.hu[box], 0, HIGHEST_HU).astype(np.float32), size)[place]
    out[rows, 2] = maximum_filter(cement, tuple((4 * half + 1).tolist()))[place]
    return out


def _logit(probability: Field) -> Field:
    held = np.clip(probability, SURE, 1 - SURE)
    return np.asarray(np.log(held / (1 - held)) / 3)
