"""An anatomy placed on a grid: turned, stretched, bent, mirrored, and read out as distances in mm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from sacroleak.core.geometry import Geometry, Points
from sacroleak.models.resample import sample_separable
from sacroleak.training.simulation.anatomy import STEP_MM, Anatomy
from sacroleak.training.simulation.noise import smooth_noise

Field = npt.NDArray[np.float32]
FAR_MM = 12.7
PLACING_MM = 2.0
"""Spacing at which anatomies are read out; their own fields are no finer."""
WORD = 16
"""Bytes of one gathered number, and the most fields an anatomy may carry."""
CHUNK = 4096
"""Points interpolated at once."""

MIRRORED = {"hip_left": "hip_right", "hip_right": "hip_left", "femur_left": "femur_right",
            "femur_right": "femur_left"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Warp:
    """Patient to scene. `matrix`: (3, 3) from scene mm to anatomy mm; `bend_mm`: scene-wide displacement or 0."""

    matrix: Points
    focus_mm: Points
    mirrored: bool
    bend_mm: float
    bend_cells_mm: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Signed distances in mm on `geometry` (axes +L +P +S), negative inside, +FAR_MM where unknown."""

    geometry: Geometry
    distance: Mapping[str, Field]
    mirrored: bool = False

    @property
    def axes(self) -> tuple[Points, Points, Points]:
        """LPS mm along each axis; three vectors."""
        g = self.geometry
        x, y, z = (g.affine[a, 3] + g.affine[a, a] * np.arange(g.shape[a]) for a in range(3))
        return x, y, z

    @cached_property
    def pelvic_surface(self) -> Field:
        """The sacrum without its holes: foramina and canal are bridged, so that a course can run over them."""
        filled = np.minimum(self.distance["sacrum"], self.distance["canal"])
        smooth: Field = gaussian_filter(filled, 3.0 / self.geometry.spacing_mm)
        return smooth

    def at(self, name: str, points_lps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Distance of one structure at (n, 3) LPS mm, nearest voxel; (n,)."""
        index = np.rint(self.geometry.to_index(points_lps)).astype(int)
        index = np.clip(index, 0, np.array(self.geometry.shape) - 1)
        values = self.distance[name][index[..., 0], index[..., 1], index[..., 2]]
        distances: npt.NDArray[np.float64] = values.astype(np.float64)
        return distances


def sacrum_centre_mm(anatomy: Anatomy) -> Points:
    """Middle of the sacrum's bounding box, LPS mm; (3,)."""
    inside = np.argwhere(anatomy.fields["sacrum"] < 0)
    return anatomy.geometry.to_lps((inside.min(axis=0) + inside.max(axis=0)) / 2)


def still(anatomy: Anatomy) -> Warp:
    """The patient as he is."""
    return Warp(matrix=np.eye(3), focus_mm=sacrum_centre_mm(anatomy), mirrored=False, bend_mm=0.0, bend_cells_mm=60.0)


def draw_warp(rng: np.random.Generator, anatomy: Anatomy, *, strength: float = 1.0) -> Warp:
    """A random patient from a known one: turned up to about 20 degrees, 15 % larger or smaller, bent by millimetres."""
    angles = np.radians(rng.normal(0, 9, size=3)) * strength
    scale = np.exp(rng.normal(0, 0.07, size=3) * strength + rng.normal(0, 0.07) * strength)
    return Warp(matrix=_rotation(angles) @ np.diag(1 / scale), focus_mm=sacrum_centre_mm(anatomy),
                mirrored=bool(rng.random() < 0.5), bend_mm=float(rng.uniform(0, 4.0)) * strength,
                bend_cells_mm=float(rng.uniform(30, 80)))


def place(anatomy: Anatomy, geometry: Geometry, warp: Warp, rng: np.random.Generator) -> Scene:
    """Read the anatomy out on `geometry`, whose point (0, 0, 0) mm lies at the warp's focus.

    Distances are smooth, so grids finer than PLACING_MM are filled by stretching a grid of that spacing.
    """
    placing = _no_finer(geometry)
    points = _source_points(placing, warp, rng)
    index = (points - anatomy.geometry.affine[:3, 3]) / anatomy.geometry.spacing_mm.astype(np.float32)
    names = list(anatomy.fields)
    packed = np.stack([anatomy.fields[name] for name in names], axis=-1)
    values = _trilinear(packed, index.astype(np.float32))
    stretch = float(np.cbrt(abs(np.linalg.det(warp.matrix))))
    wanted = tuple((geometry.affine[a, 3] + geometry.affine[a, a] * np.arange(geometry.shape[a])
                    - placing.affine[a, 3]) / placing.affine[a, a] for a in range(3))
    distance: dict[str, Field] = {}
    for n, name in enumerate(names):
        target = MIRRORED.get(name, name) if warp.mirrored else name
        field = np.ascontiguousarray(values[:, n].reshape(placing.shape)) * np.float32(STEP_MM / stretch)
        distance[target] = field if placing is geometry else sample_separable(field, wanted)
    return Scene(geometry=geometry, distance=distance, mirrored=warp.mirrored)


def _no_finer(geometry: Geometry) -> Geometry:
    """The grid itself, or one of PLACING_MM that covers it where it is finer."""
    if geometry.spacing_mm.min() > PLACING_MM - 0.1:
        return geometry
    extent = geometry.spacing_mm * (np.array(geometry.shape) - 1)
    sides = np.ceil(extent / PLACING_MM).astype(int) + 1
    return Geometry.axis_aligned(origin_lps_mm=geometry.affine[:3, 3], spacing_mm=PLACING_MM,
                                 shape=(int(sides[0]), int(sides[1]), int(sides[2])))


def _source_points(geometry: Geometry, warp: Warp, rng: np.random.Generator) -> Field:
    axes = [(geometry.affine[a, 3] + geometry.affine[a, a] * np.arange(geometry.shape[a])).astype(np.float32)
            for a in range(3)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    if warp.bend_mm > 0:
        cells = warp.bend_cells_mm / float(geometry.spacing_mm.min())
        for a in range(3):
            points[..., a] += np.float32(warp.bend_mm) * smooth_noise(rng, geometry.shape, cells)
    if warp.mirrored:
        points[..., 0] *= -1
    flat: Field = points.reshape(-1, 3) @ warp.matrix.T.astype(np.float32)
    flat += warp.focus_mm.astype(np.float32)
    return flat


def _trilinear(packed: npt.NDArray[np.int8], index: Field) -> Field:
    """Channel-last field (i, j, k, c) at (n, 3) fractional indices; (n, c), far beyond the edge."""
    shape = np.array(packed.shape[:3], dtype=np.int32)
    fields = packed.shape[3]
    # Sixteen int8 channels travel as one 16-byte number: gathering numbers is many times faster than gathering rows.
    padded = np.zeros((*packed.shape[:3], WORD), dtype=np.int8)
    padded[..., :fields] = packed
    words = padded.reshape(-1, WORD).view(np.complex128)[:, 0]
    strides = np.array([shape[1] * shape[2], shape[2], 1], dtype=np.int32)
    out = np.empty((index.shape[0], packed.shape[3]), dtype=np.float32)
    # Chunks that stay in the processor's cache: three times as fast as one pass over everything.
    for start in range(0, index.shape[0], CHUNK):
        part = index[start:start + CHUNK]
        low = np.clip(part.astype(np.int32), 0, shape - 2)
        weight = np.clip(part - low, 0, 1)
        values = _corners(words, fields, low @ strides, (weight, strides))
        values[((part < 0) | (part > shape - 1)).any(axis=1)] = 127
        out[start:start + CHUNK] = values
    return out


def _corners(words: npt.NDArray[np.complex128], fields: int, base: npt.NDArray[np.int32],
             step: tuple[Field, npt.NDArray[np.int32]]) -> Field:
    """Linear along k, then j, then i; (n, fields)."""
    weight, strides = step
    si, sj, sk = (int(s) for s in strides)
    wi, wj, wk = (weight[:, a, None] for a in range(3))

    def value(offset: int) -> Field:
        return words.take(base + offset).view(np.int8).reshape(-1, WORD)[:, :fields].astype(np.float32)

    def along_k(offset: int) -> Field:
        below = value(offset)
        return below + wk * (value(offset + sk) - below)

    def along_j(offset: int) -> Field:
        below = along_k(offset)
        return below + wj * (along_k(offset + sj) - below)

    below = along_j(0)
    return below + wi * (along_j(si) - below)


def _rotation(angles: npt.NDArray[np.float64]) -> Points:
    """Turn about L, P, S by three angles in radians; (3, 3)."""
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[a, a], turn[a, b], turn[b, a], turn[b, b] = c, -s, s, c
        result = result @ turn
    return result
