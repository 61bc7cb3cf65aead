"""Screws, nails, pins and rods: straight, even runs of something dense, told from cement by their shape."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cc3d
import edt
import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects, map_coordinates, maximum_filter, maximum_filter1d

from sacroleak.core.geometry import Geometry, Points
from sacroleak.models.distance import Distances, Mask, near_mm

Scan = npt.NDArray[np.int16] | npt.NDArray[np.float32]

METAL_HU = 5000.0
"""No mixture of cement is so dense, where a scanner's scale goes that far; titanium is."""
SATURATED_HU = 2950.0
"""A 12-bit scanner ends at 3071 HU, where metal lies; noise takes a little off it."""
DENSE_HU = 1800.0
"""Where the thickness of something saturated is measured: half way between bone and metal."""
THINNEST_MM, THICKEST_MM = 1.5, 5.5
"""Radius. Iliosacral and pedicle screws measure 4 to 8.5 mm across; half of that, and the blur."""
WHOLE_MM, WHOLE_SHARE = 22.0, 0.75
"""A saturated run of this length is a screw if it is so much of the body it lies in,"""
PART_MM = 30.0
"""and of this length wherever it lies: in a cage of screws and rods, with a head or in cement."""
DULL_MM, DULL_THICKEST_MM = 40.0, 5.0
"""What does not saturate is metal by shape alone, longer and more even than cement is."""
SMALLEST_ML = 0.2
SATURATED_VOXELS = 20
RIM_MM = 2.5
"""Blur makes the tissue around metal bright."""
ON_LINE_MM = 1.5
"""Deepest places of a rod's sections lie so near to its line, or 0.6 of the largest voxel side."""
EVEN, EVEN_SHARE, GAP_STEPS = 0.35, 0.8, 6
"""A run is even where its depth differs by no more than this share of its median; four fifths of its steps are, and no
more than so many are missed in a row."""
STEP_MM = 0.5
POINTS, PAIRS, TRIED, MOST = 160, 2000, 40, 8
"""At most so many places, pairs of them and likely lines are looked at for each of so many runs of one body."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rods:
    """Screws, nails, rods and all that is denser than any cement, and the same `rimmed` with what blur makes bright
    beside it; bool on a scan's grid.
    """

    core: Mask
    rimmed: Mask


def rods_in(hu: Scan, geometry: Geometry) -> Rods:
    """Those of a scan on this grid."""
    found = hu > METAL_HU
    for cut in (SATURATED_HU, DENSE_HU):
        parts = cc3d.connected_components(hu >= cut, connectivity=26)
        for number, box in enumerate(find_objects(parts), start=1):
            if parts[box].size * geometry.voxel_ml < SMALLEST_ML:
                continue
            body = Body(mask=parts[box] == number, hu=hu[box],
                        geometry=geometry.crop([s.start for s in box], [s.stop for s in box]))
            if body.may_hold_a_rod:
                found[box] |= body.rods()
    return Rods(core=found, rimmed=with_rim(found, geometry))


def with_rim(rods: Mask, geometry: Geometry) -> Mask:
    """With all that blur makes bright beside them, and that is the next voxel at least; bool like `rods`."""
    rim: Mask = near_mm(rods, geometry, RIM_MM) <= RIM_MM
    for axis in np.flatnonzero(geometry.spacing_mm > RIM_MM):
        rim = maximum_filter1d(rim, 3, axis=int(axis), mode="nearest")
    return rim


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """A straight even piece of a body: its ends (3,) LPS mm, its radius, and its median HU."""

    start: Points
    end: Points
    radius_mm: float
    hu: float

    @property
    def length_mm(self) -> float:
        """From end to end."""
        return float(np.linalg.norm(self.end - self.start))

    def distance_mm(self, points: Points) -> Distances:
        """Of (n, 3) LPS mm from the line between its ends; (n,)."""
        way = self.end - self.start
        along = np.clip((points - self.start) @ way / max(float(way @ way), 1e-9), 0.0, 1.0)
        return np.asarray(np.linalg.norm(points - self.start - along[:, None] * way, axis=1))

    def is_metal(self, share: float) -> bool:
        """Whether only metal has its shape; `share`: of its body that it is."""
        if self.radius_mm < THINNEST_MM:
            return False
        if self.hu < SATURATED_HU:
            return self.radius_mm <= DULL_THICKEST_MM and self.length_mm >= DULL_MM
        shortest = WHOLE_MM if share >= WHOLE_SHARE else PART_MM
        return self.radius_mm <= THICKEST_MM and self.length_mm >= shortest


@dataclass(frozen=True, kw_only=True, eq=False)
class Body:
    """Connected dense voxels: `mask` and `hu` (i, j, k) on `geometry`, a box around them."""

    mask: Mask
    hu: Scan
    geometry: Geometry

    @property
    def may_hold_a_rod(self) -> bool:
        """Whether it is large and long enough."""
        if np.count_nonzero(self.mask) * self.geometry.voxel_ml < SMALLEST_ML:
            return False
        saturated = np.count_nonzero(self.hu[self.mask] >= SATURATED_HU) >= SATURATED_VOXELS
        diagonal = float(np.linalg.norm(np.array(self.mask.shape) * self.geometry.spacing_mm))
        return diagonal >= (WHOLE_MM if saturated else DULL_MM)

    @cached_property
    def depth(self) -> npt.NDArray[np.float32]:
        """Distance of each voxel's centre from the body's surface, mm, 0 outside."""
        spacing = tuple(float(s) for s in self.geometry.spacing_mm)
        inner = edt.edt(np.pad(self.mask, 1), anisotropy=spacing, parallel=1)[1:-1, 1:-1, 1:-1]
        return np.asarray(np.maximum(inner - min(spacing) / 2, 0.0), dtype=np.float32)

    @cached_property
    def on_line_mm(self) -> float:
        """How near to a line a place counts as on it."""
        return max(ON_LINE_MM, 0.6 * float(self.geometry.spacing_mm.max()))

    def rods(self) -> Mask:
        """Those of its voxels that belong to rods; (i, j, k)."""
        ridge = self.mask & (self.depth >= maximum_filter(self.depth, size=3) - 1e-4)
        left = self.geometry.to_lps(np.argwhere(ridge))
        voxels = np.argwhere(self.mask)
        places = self.geometry.to_lps(voxels)
        out = np.zeros_like(self.mask)
        for _ in range(MOST):
            run = self._longest(left)
            if run is None:
                break
            away = run.distance_mm(left) > max(self.on_line_mm + STEP_MM, run.radius_mm)
            if away.all():
                break
            left = left[away]
            near = run.distance_mm(places) <= (1 + EVEN) * run.radius_mm + float(self.geometry.spacing_mm.max()) / 2
            if run.is_metal(float(near.mean())):
                out[tuple(voxels[near].T)] = True
        return out

    def _longest(self, ridge: Points) -> Run | None:
        """The longest run along lines through two of (n, 3) LPS mm on the body's ridge; the same for the same body."""
        rng = np.random.default_rng(len(ridge))
        some = ridge if len(ridge) <= POINTS else ridge[rng.choice(len(ridge), POINTS, replace=False)]
        one, other = np.triu_indices(len(some), 1)
        far = np.linalg.norm(some[one] - some[other], axis=1) >= WHOLE_MM / 3
        one, other = one[far], other[far]
        if len(one) > PAIRS:
            chosen = rng.choice(len(one), PAIRS, replace=False)
            one, other = one[chosen], other[chosen]
        ways = some[other] - some[one]
        ways /= np.linalg.norm(ways, axis=1, keepdims=True)
        apart = some[None] - some[one][:, None]
        along = np.einsum("pnk,pk->pn", apart, ways)
        on = ((apart**2).sum(-1) - along**2 <= self.on_line_mm**2).sum(axis=1)
        likely = np.argsort(-on, kind="stable")[:TRIED]
        runs = [run for p in likely if (run := self._run(some[one[p]], ways[p], ridge)) is not None]
        return max(runs, key=lambda run: run.length_mm, default=None)

    def _run(self, base: Points, way: Points, ridge: Points) -> Run | None:
        """The longest even run near a line, which is first laid through the places of the ridge that lie on it."""
        for _ in range(2):
            on = self._on(base, way, ridge)
            if len(on) < 3:
                return None
            base = on.mean(axis=0)
            way = np.linalg.svd(on - base, full_matrices=False)[2][0]
        along = (self._on(base, way, ridge) - base) @ way
        if len(along) == 0:
            return None
        line = base + np.arange(along.min() - 4, along.max() + 4, STEP_MM)[:, None] * way
        index = self.geometry.to_index(line).T
        depth = map_coordinates(self.depth, index, order=1, mode="constant", cval=0.0)
        if not (depth > 0).any():
            return None
        radius = float(np.median(depth[depth > 0]))
        uneven = max(EVEN * radius, float(self.geometry.spacing_mm.max()) / 2)
        steps = _longest_stretch(np.flatnonzero((depth > 0) & (np.abs(depth - radius) <= uneven)))
        if len(steps) == 0 or len(steps) < EVEN_SHARE * (steps[-1] - steps[0] + 1):
            return None
        hu = map_coordinates(self.hu, index[:, steps], order=1, mode="nearest", output=np.float32)
        radius = float(np.median(depth[steps]))
        # Half a ball at each end is not as deep as the rest.
        return Run(start=line[steps[0]] - radius * way, end=line[steps[-1]] + radius * way, radius_mm=radius,
                   hu=float(np.median(hu)))

    def _on(self, base: Points, way: Points, ridge: Points) -> Points:
        """Those of the ridge's places that lie on a line."""
        apart = ridge - base
        off = np.linalg.norm(apart - (apart @ way)[:, None] * way, axis=1)
        return np.asarray(ridge[off <= self.on_line_mm])


def _longest_stretch(steps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Of rising numbers, or none, the stretch that reaches farthest without a gap of more than GAP_STEPS."""
    if len(steps) == 0:
        return steps
    cuts = np.flatnonzero(np.diff(steps) > GAP_STEPS) + 1
    return max(np.split(steps, cuts), key=lambda part: part[-1] - part[0])
