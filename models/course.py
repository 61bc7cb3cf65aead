"""The way through a part: length, thickness along it, bends and branches, in mm, on voxels of any shape."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from sacroleak.core.geometry import Geometry, Points
from sacroleak.models.distance import Indices

_HALF_NEIGHBOURS = np.array([step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)])


BEND_STEP_MM = 3.0
"""Bends are read between pieces of this length: shorter ones show the voxels' stairs."""
TWIG_MM = 4.0
"""A side branch counts from this length on, and from one and a half times the stem's thickness: less is roughness."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Course:
    """The longest way through a part.

    `line`: (m, 3) LPS mm from end to end; `length_mm`; `thickness_mm`: median diameter; `widths_mm`: (n,) diameters of
    sections from the line's first end to its last; `branch_points` where the part divides; `ends`: how many it has.
    """

    line: Points
    length_mm: float
    thickness_mm: float
    widths_mm: npt.NDArray[np.float64]
    branch_points: int
    ends: int

    @property
    def straightness(self) -> float:
        """End-to-end distance over the line's length, 1 for a single point."""
        arc = float(np.linalg.norm(np.diff(self.line, axis=0), axis=1).sum())
        return 1.0 if arc < 1e-6 else min(1.0, float(np.linalg.norm(self.line[-1] - self.line[0])) / arc)

    @property
    def winding_deg_per_cm(self) -> float:
        """How much the line turns, all bends added up, for each cm of its length; 0 for a straight or short one."""
        arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(self.line, axis=0), axis=1))])
        pieces = int(arc[-1] / BEND_STEP_MM)
        if pieces < 2:
            return 0.0
        at = np.linspace(0.0, arc[-1], pieces + 1)
        steps = np.diff(np.stack([np.interp(at, arc, self.line[:, axis]) for axis in range(3)], axis=1), axis=0)
        steps /= np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-9)
        turns = np.degrees(np.arccos(np.clip(np.einsum("ij,ij->i", steps[1:], steps[:-1]), -1.0, 1.0)))
        return float(turns.sum() / (arc[-1] / 10.0))


def measure_course(index: Indices, geometry: Geometry) -> Course:
    """Length and thickness of the connected voxels `index` (n, 3) on `geometry`.

    The line is the longest of the shortest ways between voxels (two sweeps), smoothed. The thickness is the median
    over the line of the cross-section's diameter; branches swell few sections and leave the median alone. A section
    less than one voxel wide across the thickest voxel side is measured by its other width, so that a thin tube in
    thick slices does not look thick.
    """
    points = geometry.to_lps(index)
    sides = geometry.affine[:3, :3]
    graph = _graph(index, geometry)
    way, reached = _longest_way(graph, points)
    line = _smooth(points[way], 0.75 * float(geometry.spacing_mm.max()))
    chord = direction(line[-1] - line[0])
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    length = float(arc[-1]) + float(np.abs(chord @ sides).max() if arc[-1] > 0 else geometry.spacing_mm.min())
    bins = max(1, int(length / max(2.0, 1.5 * float(geometry.spacing_mm.max()))))
    edges = np.linspace(0.0, arc[-1], bins + 1)
    middles = np.stack([np.interp((edges[1:] + edges[:-1]) / 2, arc, line[:, axis]) for axis in range(3)], axis=1)
    cuts = np.stack([np.interp(edges, arc, line[:, axis]) for axis in range(3)], axis=1)
    counts = np.bincount(cKDTree(middles).query(points)[1], minlength=bins)
    area = counts * abs(np.linalg.det(sides)) * bins / length
    widths = [_diameter(a, end - start, sides) for a, start, end in zip(area, cuts[:-1], cuts[1:], strict=True)]
    thickness = float(np.median(widths))
    branch_points, ends = _branching(graph, reached, step_mm=max(2.0, 1.5 * float(geometry.spacing_mm.max())),
                                     least_mm=max(TWIG_MM, 1.5 * thickness))
    return Course(line=line, length_mm=length, thickness_mm=thickness, widths_mm=np.array(widths),
                  branch_points=branch_points, ends=ends)


def _diameter(area_mm2: float, along: npt.NDArray[np.float64], sides: Points) -> float:
    """Diameter of a section of this area across `along`, on voxels with these `sides` (columns, mm)."""
    t = direction(along)
    across = float(np.linalg.norm(sides - np.outer(t, t @ sides), axis=0).max())
    return area_mm2 / across if area_mm2 < across**2 else 2.0 * float(np.sqrt(area_mm2 / np.pi))


def _longest_way(graph: csr_matrix, points: Points) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Rows of (n, 3) `points` along the longest shortest way, by two sweeps over the graph of touching voxels; and how
    far each row lies from one end of it, (n,) mm.
    """
    start = int(np.argmax(np.linalg.norm(points - points.mean(axis=0), axis=1)))
    end = _farthest(dijkstra(graph, directed=False, indices=start))
    distances, before = dijkstra(graph, directed=False, indices=end, return_predecessors=True)
    way = [_farthest(distances)]
    while way[-1] != end:
        way.append(int(before[way[-1]]))
    return np.array(way, dtype=np.int64), distances


def _branching(
    graph: csr_matrix, reached: npt.NDArray[np.float64], *, step_mm: float, least_mm: float,
) -> tuple[int, int]:
    """(places where the part divides, its ends), from pieces of one distance `reached` from one end.

    Voxels of one step and one piece are a node; nodes that touch are joined. It is a skeleton that thick slices do not
    break. Twigs shorter than `least_mm` are cut, shortest first.
    """
    level = (reached / step_mm).astype(np.int64)
    edges = graph.tocoo()
    same = level[edges.row] == level[edges.col]
    flat = coo_matrix((edges.data[same], (edges.row[same], edges.col[same])), shape=graph.shape)
    count, node = connected_components(flat, directed=False)
    height = np.zeros(count, dtype=np.int64)
    height[node] = level
    pairs = np.stack([node[edges.row[~same]], node[edges.col[~same]]], axis=1)
    pairs = np.unique(np.where((height[pairs[:, :1]] > height[pairs[:, 1:]]), pairs[:, ::-1], pairs), axis=0)
    after: dict[int, set[int]] = {n: set() for n in range(count)}
    before: dict[int, set[int]] = {n: set() for n in range(count)}
    for low, high in pairs.tolist():
        after[low].add(high)
        before[high].add(low)
    _cut_twigs(after, before, max(1, round(least_mm / step_mm)))
    leaves = sum(1 for n in after if not after[n])
    return sum(1 for n in after if len(after[n]) > 1), leaves + 1


def _cut_twigs(after: dict[int, set[int]], before: dict[int, set[int]], least: int) -> None:
    """Take away every branch of fewer than `least` levels, in place; the shortest goes first."""
    while True:
        twigs = sorted((len(twig), twig) for leaf in after if not after[leaf] if (twig := _twig(leaf, after, before)))
        if not twigs or twigs[0][0] >= least:
            return
        for n in twigs[0][1]:
            for low in before.pop(n):
                after[low].discard(n)
            after.pop(n)


def _twig(leaf: int, after: dict[int, set[int]], before: dict[int, set[int]]) -> list[int]:
    """Nodes from a leaf down to where another branch leaves, that one not included; empty for the stem itself."""
    twig = [leaf]
    while before[twig[-1]]:
        low = min(before[twig[-1]])
        if len(before[twig[-1]]) > 1 or len(after[low]) > 1:
            return twig
        twig.append(low)
    return []


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


def direction(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The vector (3,) at length 1; up for a vector of no length."""
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1e-9 else np.array([0.0, 0.0, 1.0])
