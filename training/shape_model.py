"""New pelvises between and beyond known ones: mean and modes of corresponding surfaces, of training patients only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import igl
import numpy as np
import numpy.typing as npt

from sacroleak.core.errors import InputError
from sacroleak.core.geometry import Points
from sacroleak.training.surfaces import Faces, Mesh, Pelvis, mean_pose, similarity

BONES = ("sacrum", "hip_left", "hip_right")
LIMIT_SD = 2.5
"""No mode is drawn farther from the mean than this."""
TEMPER = 1.2
"""Modes are drawn this much wider than the patients are spread, so that draws lie beyond them too ..."""
FARTHEST = 1.35
"""... and a draw whose modes are together unlikely (root mean square, in sd) is drawn in to this."""
KEPT_VARIANCE = 0.98
"""Modes beyond this share of the variance are noise of the correspondence, mostly."""
PROBE_MM = 0.7
"""How far outside and inside its surface a mesh is asked whether it crosses itself."""
TOLERANCE = 1.5
"""A draw may be this many times worse than the worst patient."""
TRIES = 20

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShapeModel:
    """points = mean + (coefficients * sd) @ modes. `mean`: (n, 3) LPS mm about the pelvis' middle, bones one after
    another by `counts`; `modes`: (m, 3 n) orthonormal; `sd`: (m,) mm; `explained`: share of the variance, (m,).
    """

    mean: Points
    modes: Array
    sd: Array
    explained: Array
    counts: tuple[int, ...]
    faces: tuple[Faces, ...]

    def __call__(self, coefficients: Array) -> Points:
        """Vertices (n, 3) of the pelvis at up to m coefficients in sd."""
        count = len(coefficients)
        moved = (coefficients * self.sd[:count]) @ self.modes[:count]
        points: Points = self.mean + moved.reshape(-1, 3)
        return points

    def pelvis(self, points: Points, *, name: str, source: str) -> Pelvis:
        """(n, 3) vertices as a pelvis."""
        parts = np.split(points, np.cumsum(self.counts)[:-1])
        bones = {bone: Mesh(vertices=v, faces=f) for bone, v, f in zip(BONES, parts, self.faces, strict=True)}
        return Pelvis(name=name, source=source, **bones)


def build_model(pelvises: Sequence[Pelvis]) -> ShapeModel:
    """Mean and modes of corresponding pelvises, moved and turned onto each other but not scaled: size is a mode too.

    Raises InputError for fewer than three, or if their points do not correspond.
    """
    if len(pelvises) < 3:
        raise InputError(f"shape model: got {len(pelvises)} pelvises, wanted at least 3")
    first = pelvises[0]
    counts = tuple(len(getattr(first, bone).vertices) for bone in BONES)
    if any(tuple(len(getattr(p, bone).vertices) for bone in BONES) != counts for p in pelvises):
        raise InputError("shape model: the pelvises have different numbers of points, so these cannot correspond")
    shapes = np.stack([_stacked(p) for p in pelvises])
    mean = mean_pose(shapes)
    fitted = np.stack([_rigid(s, mean) for s in shapes])
    mean = fitted.mean(axis=0)
    rows = (fitted - mean).reshape(len(shapes), -1)
    _, spread, modes = np.linalg.svd(rows, full_matrices=False)
    kept = len(shapes) - 1
    variance = spread[:kept] ** 2 / kept
    return ShapeModel(mean=mean, modes=modes[:kept], sd=np.sqrt(variance), explained=variance / variance.sum(),
                      counts=counts, faces=tuple(getattr(first, bone).faces for bone in BONES))


def draw_coefficients(rng: np.random.Generator, model: ShapeModel) -> Array:
    """Coefficients in sd of the modes that hold KEPT_VARIANCE, no single one and not all together too far out; (k,)."""
    kept = int(np.searchsorted(np.cumsum(model.explained), KEPT_VARIANCE)) + 1
    drawn = np.clip(rng.normal(0, TEMPER, size=min(kept, len(model.sd))), -LIMIT_SD, LIMIT_SD)
    size = float(np.sqrt(np.mean(drawn ** 2)))
    tempered: Array = drawn * min(1.0, FARTHEST / max(size, 1e-9))
    return tempered


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaws:
    """What may be wrong with a drawn pelvis, all shares of its points or triangles, and its size.

    `crossing`: points just outside the surface that are inside it, or the reverse: the surface crosses itself;
    `turned`: triangles that face another way than on the mean; `overlap`: points of a hip in the sacrum;
    `width_mm`: between the hips' outer ends.
    """

    crossing: float
    turned: float
    overlap: float
    width_mm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The worst that is let through."""

    crossing: float
    turned: float
    overlap: float
    width_mm: tuple[float, float]

    def broken_by(self, flaws: Flaws) -> tuple[str, ...]:
        """Names of the limits that `flaws` breaks; none for a plausible pelvis."""
        worse = tuple(name for name in ("crossing", "turned", "overlap") if getattr(flaws, name) > getattr(self, name))
        return worse if self.width_mm[0] <= flaws.width_mm <= self.width_mm[1] else (*worse, "width_mm")


def flaws_of(model: ShapeModel, pelvis: Pelvis) -> Flaws:
    """Measure one pelvis whose points correspond to the model's."""
    mean = model.pelvis(model.mean, name="mean", source="")
    meshes = [(getattr(pelvis, bone), getattr(mean, bone)) for bone in BONES]
    hips = np.concatenate([pelvis.hip_left.vertices, pelvis.hip_right.vertices])
    return Flaws(crossing=float(np.mean([_crossing(mesh) for mesh, _ in meshes])),
                 turned=float(np.mean([_turned(mesh, like) for mesh, like in meshes])),
                 overlap=float((_winding(pelvis.sacrum, hips) > 0.5).mean()),
                 width_mm=float(np.ptp(hips[:, 0])))


def limits_of(model: ShapeModel, pelvises: Sequence[Pelvis]) -> Limits:
    """TOLERANCE times the worst of the patients themselves; the width may lie 10 % beyond theirs.

    Some flaw is normal: the collection's own surfaces meet in the joint and cross themselves in places.
    """
    seen = [flaws_of(model, p) for p in pelvises]
    worst = {name: TOLERANCE * max(getattr(f, name) for f in seen) for name in ("crossing", "turned", "overlap")}
    widths = [f.width_mm for f in seen]
    return Limits(width_mm=(0.9 * min(widths), 1.1 * max(widths)), **worst)


def draw_pelvis(rng: np.random.Generator, model: ShapeModel, limits: Limits, *, name: str, source: str) -> Pelvis:
    """A plausible pelvis: draws that break a limit are dropped. Raises InputError if TRIES of them did."""
    for _ in range(TRIES):
        pelvis = model.pelvis(model(draw_coefficients(rng, model)), name=name, source=source)
        if not limits.broken_by(flaws_of(model, pelvis)):
            return pelvis
    raise InputError(f"{name}: {TRIES} drawn pelvises in a row were implausible")


def generalisation_mm(pelvises: Sequence[Pelvis]) -> Array:
    """Mean distance in mm between each pelvis' points and the nearest pelvis that the others' model can make; (n,)."""
    left = []
    for n, pelvis in enumerate(pelvises):
        model = build_model([p for m, p in enumerate(pelvises) if m != n])
        shape = _rigid(_stacked(pelvis), model.mean)
        row = (shape - model.mean).reshape(-1)
        rest = (row - (row @ model.modes.T) @ model.modes).reshape(-1, 3)
        left.append(np.linalg.norm(rest, axis=1).mean())
    return np.array(left)


def in_own_frame(pelvis: Pelvis, model: ShapeModel) -> Pelvis:
    """A patient moved and turned onto the mean, as the model sees him."""
    moved = model.pelvis(_rigid(_stacked(pelvis), model.mean), name=pelvis.name, source=pelvis.source)
    return replace(pelvis, sacrum=moved.sacrum, hip_left=moved.hip_left, hip_right=moved.hip_right)


def _stacked(pelvis: Pelvis) -> Points:
    return np.concatenate([getattr(pelvis, bone).vertices for bone in BONES])


def _rigid(points: Points, onto: Points) -> Points:
    """Moved and turned onto corresponding points, at its own size."""
    turn = similarity(points, onto).rotation
    moved: Points = (points - points.mean(axis=0)) @ turn + onto.mean(axis=0)
    return moved


def _winding(mesh: Mesh, points: Points) -> Array:
    inside: Array = igl.fast_winding_number(np.ascontiguousarray(mesh.vertices), mesh.faces, points)
    return inside


def _normals(mesh: Mesh) -> Array:
    a, b, c = (mesh.vertices[mesh.faces[:, n]] for n in range(3))
    normals: Array = np.cross(b - a, c - a)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return normals


def _crossing(mesh: Mesh) -> float:
    middle, normal = mesh.vertices[mesh.faces].mean(axis=1), _normals(mesh)
    outside = _winding(mesh, middle + PROBE_MM * normal)
    inside = _winding(mesh, middle - PROBE_MM * normal)
    return float(((outside > 0.5) | (inside < 0.5) | (inside > 1.5)).mean())


def _turned(mesh: Mesh, like: Mesh) -> float:
    """Against the mean shape, turned as this one is."""
    turn = similarity(like.vertices, mesh.vertices).rotation
    return float(((_normals(mesh) * (_normals(like) @ turn)).sum(axis=1) < 0).mean())
