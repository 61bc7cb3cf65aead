"""Shape, course and place of one leak part, in mm, from voxels of any spacing and orientation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from sacroleak.core.assessment import LeakShape
from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.structures import Compartment
from sacroleak.models.compartments import Compartments
from sacroleak.models.distance import FAR_MM
from sacroleak.models.leaks import Cement, Indices, LeakPart, Rows

AIM_REACH_MM = 40.0
"""A track is prolonged this far into the bone: the sacrum is about 40 mm deep at S1."""

_HALF_NEIGHBOURS = np.array([step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)])


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFeatures:
    """What the rules and the classifier know of one part.

    `outward`: mm gained from the bone per mm of length, 0 along the surface, 1 straight away from it. `aim_mm`:
    nearest cement inside the bone to the part's line prolonged inwards (FAR_MM if there is none). `flatness`: middle
    over smallest principal width. `excess_mm`: depth beyond contour noise. `apart_mm`: gap to the nearest other
    cement of the sacrum. `left_mm`: centroid's distance left of the midline.
    """

    volume_ml: float
    centroid_lps_mm: tuple[float, float, float]
    left_mm: float
    compartments: Mapping[Compartment, float]
    shape: LeakShape
    outward: float
    aim_mm: float
    flatness: float
    excess_mm: float
    apart_mm: float

    def share(self, *compartments: Compartment) -> float:
        """Share of the part's volume in these compartments together, 0 to 1."""
        return float(sum(self.compartments.get(c, 0.0) for c in compartments))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Course:
    """The longest way through a part: `line` (m, 3) LPS mm from end to end, `length_mm`, and `thickness_mm`."""

    line: Points
    length_mm: float
    thickness_mm: float

    @property
    def straightness(self) -> float:
        """End-to-end distance over the line's length, 1 for a single point."""
        arc = float(np.linalg.norm(np.diff(self.line, axis=0), axis=1).sum())
        return 1.0 if arc < 1e-6 else min(1.0, float(np.linalg.norm(self.line[-1] - self.line[0])) / arc)


def part_features(part: LeakPart, cement: Cement, spaces: Compartments, *, leak: Rows | None = None) -> PartFeatures:
    """All measures of one part of `cement`; `leak` holds the rows of the whole leak it was divided from."""
    rows = part.rows
    points, bone = cement.points[rows], cement.bone_mm[rows]
    course = measure_course(cement.index[rows], cement.geometry)
    centroid = points.mean(axis=0)
    codes, counts = np.unique(part.codes, return_counts=True)
    others = np.ones(len(cement.index), dtype=np.bool_)
    others[rows if leak is None else leak] = False
    others &= ~cement.foreign
    return PartFeatures(
        volume_ml=cement.volume_ml(rows),
        centroid_lps_mm=(float(centroid[0]), float(centroid[1]), float(centroid[2])),
        left_mm=float(spaces.frame.local(centroid[None]).left_mm[0]),
        compartments={Compartment(int(c)): float(n) / len(rows) for c, n in zip(codes, counts, strict=True)},
        shape=LeakShape(
            length_mm=course.length_mm, thickness_mm=course.thickness_mm,
            elongation=course.length_mm / course.thickness_mm, straightness=course.straightness,
            depth_outside_mm=float(max(bone.max(), 0.0)),
            canal_depth_mm=float(spaces.canal_depth_mm(points).max()),
            distance_to_cortex_mm=float(max(bone.min(), 0.0)),
        ),
        outward=_outward(course, spaces), aim_mm=_aim_mm(course, cement, spaces), flatness=_flatness(points),
        excess_mm=float(cement.excess_mm[rows].max()), apart_mm=_gap_mm(points, cement.points[others]),
    )


def measure_course(index: Indices, geometry: Geometry) -> Course:
    """Length and thickness of the connected voxels `index` (n, 3) on `geometry`.

    The line is the longest of the shortest ways between voxels (two sweeps), smoothed. The thickness is the median
    over the line of the cross-section's diameter; branches swell few sections and leave the median alone. A section
    less than one voxel wide across the thickest voxel side is measured by its other width, so that a thin tube in
    thick slices does not look thick.
    """
    points = geometry.to_lps(index)
    sides = geometry.affine[:3, :3]
    line = _smooth(points[_longest_way(index, geometry)], 0.75 * float(geometry.spacing_mm.max()))
    chord = _direction(line[-1] - line[0])
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    length = float(arc[-1]) + float(np.abs(chord @ sides).max() if arc[-1] > 0 else geometry.spacing_mm.min())
    bins = max(1, int(length / max(2.0, 1.5 * float(geometry.spacing_mm.max()))))
    edges = np.linspace(0.0, arc[-1], bins + 1)
    middles = np.stack([np.interp((edges[1:] + edges[:-1]) / 2, arc, line[:, axis]) for axis in range(3)], axis=1)
    ends = np.stack([np.interp(edges, arc, line[:, axis]) for axis in range(3)], axis=1)
    counts = np.bincount(cKDTree(middles).query(points)[1], minlength=bins)
    area = counts * abs(np.linalg.det(sides)) * bins / length
    widths = [_diameter(a, end - start, sides) for a, start, end in zip(area, ends[:-1], ends[1:], strict=True)]
    return Course(line=line, length_mm=length, thickness_mm=float(np.median(widths)))


def _diameter(area_mm2: float, along: npt.NDArray[np.float64], sides: Points) -> float:
    """Diameter of a section of this area across `along`, on voxels with these `sides` (columns, mm)."""
    t = _direction(along)
    across = float(np.linalg.norm(sides - np.outer(t, t @ sides), axis=0).max())
    return area_mm2 / across if area_mm2 < across**2 else 2.0 * float(np.sqrt(area_mm2 / np.pi))


def _longest_way(index: Indices, geometry: Geometry) -> npt.NDArray[np.int64]:
    """Rows of `index` along the longest shortest way, by two sweeps over the graph of touching voxels."""
    graph = _graph(index, geometry)
    points = geometry.to_lps(index)
    start = int(np.argmax(np.linalg.norm(points - points.mean(axis=0), axis=1)))
    end = _farthest(dijkstra(graph, directed=False, indices=start))
    distances, before = dijkstra(graph, directed=False, indices=end, return_predecessors=True)
    way = [_farthest(distances)]
    while way[-1] != end:
        way.append(int(before[way[-1]]))
    return np.array(way, dtype=np.int64)


def _farthest(distances: npt.NDArray[np.float64]) -> int:
    return int(np.argmax(np.where(np.isfinite(distances), distances, -1.0)))


def _graph(index: Indices, geometry: Geometry) -> csr_matrix:
    """Touching voxels (26 neighbours) joined by their distance in mm; each pair once."""
    n = len(index)
    first = index.min(axis=0) - 1
    number = np.full(index.max(axis=0) - first + 2, -1, dtype=np.int64)
    at = index - first
    number[tuple(at.T)] = np.arange(n)
    rows, columns, weights = [], [], []
    for step in _HALF_NEIGHBOURS:
        neighbour = number[tuple((at + step).T)]
        row = np.flatnonzero(neighbour >= 0)
        rows.append(row)
        columns.append(neighbour[row])
        weights.append(np.full(len(row), np.linalg.norm(geometry.affine[:3, :3] @ step)))
    data = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    return _joined(coo_matrix(data, shape=(n, n)).tocsr(), geometry.to_lps(index))


def _joined(graph: csr_matrix, points: Points) -> csr_matrix:
    """The graph with its separate pieces (fragments of one course) joined over their smallest gaps."""
    joined = graph
    while True:
        count, piece = connected_components(joined, directed=False)
        if count == 1:
            return joined
        own, others = np.flatnonzero(piece == 0), np.flatnonzero(piece != 0)
        gap, nearest = cKDTree(points[own]).query(points[others])
        best = int(np.argmin(gap))
        bridge = ([float(gap[best])], ([own[nearest[best]]], [others[best]]))
        joined = joined + coo_matrix(bridge, shape=graph.shape).tocsr()


def _smooth(line: Points, sigma_mm: float) -> Points:
    """The line at 1 mm steps without the stairs of its voxels; both ends stay in place."""
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    if arc[-1] < 2.0:
        return line
    even = np.linspace(0.0, arc[-1], int(arc[-1]) + 1)
    dense = np.stack([np.interp(even, arc, line[:, axis]) for axis in range(3)], axis=1)
    sigma = max(1.5, sigma_mm)
    pad = min(len(dense) - 1, int(4 * sigma))
    # Mirroring each end through its own point keeps it there; plain smoothing would shorten the line.
    head, tail = 2 * dense[0] - dense[pad:0:-1], 2 * dense[-1] - dense[-2:-pad - 2:-1]
    smooth = ndimage.gaussian_filter1d(np.concatenate([head, dense, tail]), sigma, axis=0, mode="nearest")
    return np.asarray(smooth[pad:pad + len(dense)])


def _outward(course: Course, spaces: Compartments) -> float:
    """Distance from the bone gained from one end of the line to the other, per mm of length."""
    bone = spaces.bone_distance_mm(course.line[[0, -1]])
    return float(abs(bone[1] - bone[0]) / max(course.length_mm, 1e-6))


def _aim_mm(course: Course, cement: Cement, spaces: Compartments) -> float:
    """Distance from cement inside the bone to the line prolonged inwards from its end nearer to the bone."""
    inside = (cement.bone_mm <= 0) & ~cement.foreign
    if not inside.any() or len(course.line) < 2:
        return FAR_MM
    line = course.line
    if np.subtract(*spaces.bone_distance_mm(line[[0, -1]])) < 0:
        line = line[::-1]
    # From here the line runs towards the bone.
    ahead = line[-1] + np.outer(np.arange(0.0, AIM_REACH_MM + 1.0), _direction(line[-1] - line[0]))
    return float(cKDTree(ahead).query(cement.points[inside])[0].min())


def _flatness(points: Points) -> float:
    if len(points) < 4:
        return 1.0
    widths = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(points.T)), 1e-2))
    return float(widths[1] / widths[0])


def _gap_mm(points: Points, others: Points) -> float:
    return float(cKDTree(others).query(points)[0].min()) if len(others) else FAR_MM


def _direction(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1e-9 else np.array([0.0, 0.0, 1.0])
