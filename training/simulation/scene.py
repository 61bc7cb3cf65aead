"""An anatomy placed on a grid: turned, stretched, bent, mirrored, and read out as distances in mm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from sacroleak.core.geometry import Geometry, Points, box_where
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.noise import smooth_noise
from sacroleak.training.simulation.readout import (
    Field,
    Places,
    Stretched,
    indices_in,
    no_finer,
    read_background,
    read_field,
)

FAR_MM = 12.7
SMOOTH_MM = 3.0
"""Width (one sigma) of the filter that bridges foramina and canal."""

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
    """Signed distances in mm on `geometry` (axes +L +P +S), negative inside, about +FAR_MM where far or unknown.

    `distance` is read-only; on grids finer than the anatomies it fills a field when it is asked for. `background`:
    the HU of the real CT that the anatomy comes from, moved in the same way, or None.
    """

    geometry: Geometry
    distance: Mapping[str, Field]
    mirrored: bool = False
    background: Field | None = None

    @property
    def axes(self) -> tuple[Points, Points, Points]:
        """LPS mm along each axis; three vectors."""
        g = self.geometry
        x, y, z = (g.affine[a, 3] + g.affine[a, a] * np.arange(g.shape[a]) for a in range(3))
        return x, y, z

    @cached_property
    def pelvic_surface(self) -> Field:
        """The sacrum without its holes: foramina and canal are bridged, so that a course can run over them."""
        filled: Field = np.minimum(self.distance["sacrum"], self.distance["canal"])
        sigma = SMOOTH_MM / self.geometry.spacing_mm
        # Beyond the filter's reach of the bone all is one value, which filtering would not change.
        box = box_where(filled < filled.max(), np.ceil(4 * sigma).astype(int) + 1)
        if box is not None:
            filled[box] = gaussian_filter(filled[box], sigma)
        return filled

    def at(self, name: str, points_lps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Distance of one structure at (n, 3) LPS mm, nearest voxel; (n,)."""
        index = np.rint(self.geometry.to_index(points_lps)).astype(int)
        index = np.clip(index, 0, np.array(self.geometry.shape) - 1)
        if isinstance(self.distance, Stretched):
            values = self.distance.at(name, index)
        else:
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

    Distances are smooth, so grids finer than 2 mm are filled by stretching a grid of that spacing.
    """
    placing = no_finer(geometry)
    points = _source_points(placing, warp, rng)
    places = Places.of(indices_in(anatomy.geometry, points))
    stretch = float(np.cbrt(abs(np.linalg.det(warp.matrix))))
    placed = {MIRRORED.get(name, name) if warp.mirrored else name: read_field(values, places, stretch)
              for name, values in anatomy.fields.items()}
    distance = Stretched(placed, placing, geometry)
    background = None
    if anatomy.background is not None:
        background = read_background(anatomy.background, points, placing, geometry)
    return Scene(geometry=geometry, distance=distance, mirrored=warp.mirrored, background=background)


def _source_points(geometry: Geometry, warp: Warp, rng: np.random.Generator) -> Field:
    """Where each voxel comes from: LPS mm in the anatomy's frame; (3, i, j, k)."""
    matrix = warp.matrix * np.array([-1.0 if warp.mirrored else 1.0, 1.0, 1.0])
    along = [geometry.affine[a, 3] + geometry.affine[a, a] * np.arange(geometry.shape[a]) for a in range(3)]
    points = np.empty((3, *geometry.shape), dtype=np.float32)
    for a in range(3):
        x, y, z = ((matrix[a, b] * along[b]).astype(np.float32) for b in range(3))
        points[a] = (x + np.float32(warp.focus_mm[a]))[:, None, None] + (y[:, None] + z[None, :])
    if warp.bend_mm > 0:
        cells = warp.bend_cells_mm / float(geometry.spacing_mm.min())
        for b in range(3):
            bend = smooth_noise(rng, geometry.shape, cells)
            for a in range(3):
                points[a] += np.float32(matrix[a, b] * warp.bend_mm) * bend
    return points


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
