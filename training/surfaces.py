"""Anatomies from triangle surfaces of real pelvises with corresponding points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import igl
import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_fill_holes, label
from scipy.spatial import cKDTree

from sacroleak.core.geometry import Geometry, Points
from sacroleak.training.simulation import mean_shape
from sacroleak.training.simulation.anatomy import Anatomy, to_steps
from sacroleak.training.simulation.scene import Scene
from sacroleak.training.simulation.shapes import add_ball, add_tube, empty

Faces = npt.NDArray[np.int64]
Distance = npt.NDArray[np.float32]

GRID_MM = 2.0
MARGIN_MM = 16.0
JOINT_GAP_MM = 1.0
"""The least gap kept between bones that meet or overlap in the surfaces."""
FAR_MM = 12.7
CORE_MM = 2.5
"""Half width of the canal's middle, which bone never closes; as narrow as its lower end (`mean_shape.CANAL`)."""
HOLE_MM = 13.0
"""A hole this near to the carried S3 foramen is taken to be it; the next foramen is about 17 mm away."""
SACROCOCCYGEAL_Z_MM = -91.0
"""Height, in the donor's own frame, where its sacrum ends and its coccyx begins (narrowest between S5 and Co1)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mesh:
    """Vertices (n, 3) LPS mm and triangles (m, 3); may be open at its lower end."""

    vertices: Points
    faces: Faces


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pelvis:
    """One patient: sacrum (S1-S3) and both hip bones, corresponding point by point to the mean pelvis."""

    name: str
    source: str
    sacrum: Mesh
    hip_left: Mesh
    hip_right: Mesh


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Donor:
    """One whole lumbosacral spine, for what the pelvises lack: S4-S5, L5 and L4."""

    sacrum: Mesh
    l5: Mesh
    l4: Mesh


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Similarity:
    """points -> scale * points @ rotation + shift."""

    scale: float
    rotation: Points
    shift: Points

    def __call__(self, points: Points) -> Points:
        """Move (n, 3) points."""
        moved: Points = self.scale * points @ self.rotation + self.shift
        return moved


def similarity(source: Points, target: Points) -> Similarity:
    """Least squares over corresponding (n, 3) points (Umeyama 1991)."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    u, s, vt = np.linalg.svd(a.T @ b)
    flip = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * flip) @ vt
    scale = float((s * flip).sum() / (a ** 2).sum())
    shift = target.mean(axis=0) - scale * source.mean(axis=0) @ rotation
    return Similarity(scale=scale, rotation=rotation, shift=shift)


def mean_sacrum(sacra: npt.NDArray[np.float64]) -> Points:
    """Mean of (patients, n, 3) corresponding sacra at their mean size and mean orientation, about its centroid."""
    return mean_pose(sacra)


def mean_pose(shapes: npt.NDArray[np.float64]) -> Points:
    """Mean of (patients, n, 3) corresponding shapes at their mean size and mean orientation, about its centroid."""
    mean = shapes[0] - shapes[0].mean(axis=0)
    size = np.mean([np.linalg.norm(s - s.mean(axis=0)) for s in shapes])
    for _ in range(6):
        mean = np.mean([similarity(s, mean)(s) for s in shapes], axis=0)
        mean = (mean - mean.mean(axis=0)) * size / np.linalg.norm(mean - mean.mean(axis=0))
    turns = np.sum([similarity(mean, s).rotation for s in shapes], axis=0)
    u, _, vt = np.linalg.svd(turns)
    turned: Points = mean @ (u @ vt)
    return turned


def build_anatomy(pelvis: Pelvis, mean: Points, donor: Donor, rng: np.random.Generator) -> Anatomy:
    """Distance fields of one patient. `mean` corresponds to the patient's sacrum; the donor varies a little."""
    carry = _Carrier(mean, pelvis.sacrum.vertices)
    geometry = _grid(pelvis)
    scene = Scene(geometry=geometry, distance={})
    to_patient = _fit_donor(donor.sacrum.vertices, pelvis.sacrum.vertices)
    canal = elliptic_tube(scene, carry(mean_shape.CANAL[:, :3]), mean_shape.CANAL[:, 3:])
    whole = signed_distance(geometry, Mesh(vertices=to_patient(donor.sacrum.vertices), faces=donor.sacrum.faces))
    sacrum = with_tail(signed_distance(geometry, pelvis.sacrum), whole, scene, pelvis.sacrum.vertices)
    lift = mean_shape.ENDPLATE_NORMAL @ similarity(mean, pelvis.sacrum.vertices).rotation * rng.uniform(-1.5, 4.0)
    l5, l4 = (signed_distance(geometry, Mesh(vertices=_varied(to_patient(m.vertices), rng) + lift, faces=m.faces))
              for m in (donor.l5, donor.l4))
    lower = carry(mean_shape.CANAL[-3:-2, :3])[0]
    _, _, z = scene.axes
    below = z[None, None, :] < lower[2]
    sacrum = np.where(below, np.maximum(sacrum, -canal), sacrum)
    core = empty(scene)
    add_tube(core, scene, carry(mean_shape.CANAL[:, :3]), CORE_MM)
    sacrum, l5 = np.maximum(sacrum, -core), np.maximum(l5, -core)
    sacrum, coccyx = _without_coccyx(sacrum, scene, to_patient)
    fields = set_apart({"sacrum": sacrum, "hip_left": signed_distance(geometry, pelvis.hip_left),
                     "hip_right": signed_distance(geometry, pelvis.hip_right), "l5": l5, "l4": l4})
    fields["coccyx"] = coccyx
    fields["canal"] = np.maximum(canal, -np.minimum(fields["sacrum"], fields["l5"]))
    endplate = carry(np.concatenate([mean_shape.ENDPLATE, mean_shape.ENDPLATE + 5 * mean_shape.ENDPLATE_NORMAL]))
    fields["disc"] = disc_between(scene, endplate, fields)
    fields |= _femurs(scene, pelvis, mean, fields)
    marks = {
        "canal_centreline": carry(mean_shape.CANAL[:, :3]), "s1_endplate_centre": carry(mean_shape.ENDPLATE),
        "anterior_foramina_left": _third_seen(carry(mean_shape.FORAMINA_LEFT), fields["sacrum"], scene),
        "anterior_foramina_right": _third_seen(carry(mean_shape.mirrored(mean_shape.FORAMINA_LEFT)), fields["sacrum"],
                                               scene),
        "ala_left": carry(mean_shape.ALA_LEFT), "ala_right": carry(mean_shape.mirrored(mean_shape.ALA_LEFT)),
    }
    return Anatomy(name=pelvis.name, source=pelvis.source, geometry=geometry, landmarks=marks,
                   fields={name: to_steps(values) for name, values in fields.items()})


class _Carrier:
    """Takes places on the mean shape to one patient, by the points that correspond around each place."""

    def __init__(self, mean: Points, patient: Points) -> None:
        self._fit = similarity(mean, patient)
        self._tree = cKDTree(mean)
        self._shift = patient - self._fit(mean)

    def __call__(self, places: Points) -> Points:
        distance, near = self._tree.query(places, k=60)
        weight = 1 / (distance + 2.0) ** 2
        weight /= weight.sum(axis=1, keepdims=True)
        carried: Points = self._fit(places) + (self._shift[near] * weight[..., None]).sum(axis=1)
        return carried


def _fit_donor(donor: Points, patient: Points) -> Similarity:
    """Iterative closest points from the patient's S1-S3 to the donor's whole sacrum, the worst 15 % left out."""
    turn = np.radians(10.0)
    rotation = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    shift = patient.mean(axis=0) - donor.mean(axis=0) @ rotation
    shift[2] = patient[:, 2].max() - (donor @ rotation)[:, 2].max()
    fit = Similarity(scale=1.0, rotation=rotation, shift=shift)
    thinned = patient[::5]
    for _ in range(60):
        distance, near = cKDTree(fit(donor)).query(thinned)
        keep = distance < np.quantile(distance, 0.85)
        fit = similarity(donor[near[keep]], thinned[keep])
    return fit


def _varied(points: Points, rng: np.random.Generator) -> Points:
    """A vertebra of another size, seen from its own middle."""
    middle = points.mean(axis=0)
    varied: Points = (points - middle) * rng.uniform(0.93, 1.07, size=3) + middle
    return varied


def _grid(pelvis: Pelvis) -> Geometry:
    every = np.concatenate([pelvis.sacrum.vertices, pelvis.hip_left.vertices, pelvis.hip_right.vertices])
    low, high = every.min(axis=0) - MARGIN_MM, every.max(axis=0) + MARGIN_MM
    high[2] = max(high[2], pelvis.sacrum.vertices[:, 2].max() + 75)
    high[1] += 24  # the tail of a tilted sacrum reaches behind the hips
    low[2] -= 20
    sides = np.ceil((high - low) / GRID_MM).astype(int)
    shape = (int(sides[0]), int(sides[1]), int(sides[2]))
    return Geometry.axis_aligned(origin_lps_mm=low, spacing_mm=GRID_MM, shape=shape)


def signed_distance(geometry: Geometry, mesh: Mesh) -> Distance:
    """Signed distance on the grid, exact near the surface, FAR_MM beyond; the sign is the winding number's."""
    out = np.full(geometry.shape, FAR_MM, dtype=np.float32)
    low = np.floor(geometry.to_index(mesh.vertices.min(axis=0) - FAR_MM)).astype(int).clip(0)
    high = np.minimum(np.ceil(geometry.to_index(mesh.vertices.max(axis=0) + FAR_MM)).astype(int) + 1, geometry.shape)
    if (high <= low).any():
        return out
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    index = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing="ij"), axis=-1).reshape(-1, 3)
    points = geometry.to_lps(index)
    vertices, faces = mesh.vertices.astype(np.float64), mesh.faces.astype(np.int64)
    distance = np.full(len(points), FAR_MM)
    # Vertices lie a few millimetres apart, so a point farther than this from all of them is farther than FAR_MM.
    near = np.isfinite(cKDTree(vertices).query(points, distance_upper_bound=FAR_MM + 4.0)[0])
    distance[near] = np.sqrt(igl.point_mesh_squared_distance(points[near], vertices, faces)[0])
    distance[igl.fast_winding_number(vertices, faces, points) > 0.5] *= -1
    out[box] = np.clip(distance, -FAR_MM, FAR_MM).reshape(out[box].shape)
    return out


def with_tail(upper: Distance, whole: Distance, scene: Scene, vertices: Points) -> Distance:
    """S1-S3 of the patient, then the donor's S4-S5, blended over a few millimetres where the surface ends."""
    low = float(vertices[:, 2].min())
    end = vertices[vertices[:, 2] < low + 12].mean(axis=0)
    across = np.array([0.0, 0.75, -0.66])
    _, y, z = scene.axes
    beyond = ((y - end[1])[None, :, None] * across[1] + (z - end[2])[None, None, :] * across[2] + 4.0)
    tail = np.maximum(whole, (-beyond).astype(np.float32))
    k = 2.0
    h = np.clip(0.5 + 0.5 * (tail - upper) / k, 0, 1)
    blended: Distance = (tail * (1 - h) + upper * h - k * h * (1 - h)).astype(np.float32)
    return blended


def _without_coccyx(sacrum: Distance, scene: Scene, to_patient: Similarity) -> tuple[Distance, Distance]:
    """The donor's tail, cut by a plane where S5 ends; the rest is coccyx, a joint's gap away."""
    foot = to_patient(np.array([[0.0, 0.0, SACROCOCCYGEAL_Z_MM], [0.0, 0.0, SACROCOCCYGEAL_Z_MM - 1.0]]))
    down = (foot[1] - foot[0]) / np.linalg.norm(foot[1] - foot[0])
    offset = [axis - at for axis, at in zip(scene.axes, foot[0], strict=True)]
    beyond = (offset[0][:, None, None] * down[0] + offset[1][None, :, None] * down[1]
              + offset[2][None, None, :] * down[2])
    return (np.maximum(sacrum, beyond).astype(np.float32),
            np.maximum(sacrum, JOINT_GAP_MM - beyond).astype(np.float32))


def elliptic_tube(scene: Scene, course: Points, halves: Points) -> Distance:
    """Distance in mm to a tube along (n, 3) LPS mm with (n, 2) half axes, sideways and front to back; flat ends."""
    fine = np.linspace(0, len(course) - 1, 60)
    points = np.stack([np.interp(fine, range(len(course)), course[:, a]) for a in range(3)], axis=1)
    wide, deep = (np.interp(fine, range(len(course)), halves[:, a]) for a in range(2))
    along = np.gradient(points, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.array([1.0, 0.0, 0.0]) - along * along[:, :1]
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    front = np.cross(along, side)
    out = empty(scene)
    grid = np.stack(np.meshgrid(*scene.axes, indexing="ij"), axis=-1)
    reach = 30.0
    near = np.flatnonzero(((grid > points.min(axis=0) - reach) & (grid < points.max(axis=0) + reach)).all(axis=-1))
    where = grid.reshape(-1, 3)[near]
    _, station = cKDTree(points).query(where)
    offset = where - points[station]
    u = (offset * side[station]).sum(axis=1) / wide[station]
    v = (offset * front[station]).sum(axis=1) / deep[station]
    ahead = (offset * along[station]).sum(axis=1)
    # Only the two ends are flat; a limit along the course would keep the inside from being deeper than itself.
    beyond = np.select([station == 0, station == len(points) - 1], [-ahead, ahead], default=-FAR_MM)
    radial = (np.hypot(u, v) - 1) * np.minimum(wide, deep)[station]
    out.reshape(-1)[near] = np.clip(np.maximum(radial, beyond), -FAR_MM, FAR_MM)
    return out


def _third_seen(foramina: Points, sacrum: Distance, scene: Scene) -> Points:
    """The carried foramina, but the third where light falls through: its lower rim is the donor's, not carried."""
    bone = sacrum < 0
    outline = bone.any(axis=1)
    holes, count = label(binary_fill_holes(outline) & ~outline)
    x, y, z = scene.axes
    middles = [(x[i].mean(), z[k].mean()) for i, k in (np.nonzero(holes == n + 1) for n in range(count))]
    away = [float(np.hypot(a - foramina[2, 0], b - foramina[2, 2])) for a, b in middles]
    if not away or min(away) > HOLE_MM:
        return foramina
    a, b = middles[int(np.argmin(away))]
    near = (np.abs(x - a) < 8)[:, None, None] & (np.abs(z - b) < 8)[None, None, :] & bone
    front = y[np.argmax(near, axis=1)][near.any(axis=1)]
    seen = foramina.copy()
    seen[2] = a, np.median(front), b
    return seen


def disc_between(scene: Scene, endplate: Points, fields: Mapping[str, Distance]) -> Distance:
    """What lies between L5 and the S1 endplate, within its outline. `endplate`: its middle, and a place above it."""
    centre, tip = endplate
    normal = (tip - centre) / np.linalg.norm(tip - centre)
    side = np.array([1.0, 0, 0]) - normal * normal[0]
    side /= np.linalg.norm(side)
    front = np.cross(normal, side)
    x, y, z = scene.axes
    offset = np.stack(np.meshgrid(x - centre[0], y - centre[1], z - centre[2], indexing="ij"), axis=-1)
    wide, deep = mean_shape.ENDPLATE_HALF_MM
    radial = (np.hypot(offset @ side / wide, offset @ front / deep) - 1) * deep
    height = np.abs(offset @ normal - 4.0) - 11.0
    bones = np.minimum(fields["sacrum"], fields["l5"])
    disc = np.maximum.reduce([radial, height, 0.3 - bones, -fields["canal"]])
    lens: Distance = np.clip(disc, -FAR_MM, FAR_MM).astype(np.float32)
    return lens


def _femurs(scene: Scene, pelvis: Pelvis, mean: Points, fields: dict[str, Distance]) -> dict[str, Distance]:
    """Heads in the sockets, necks and shafts; kept 1.5 mm from the hip bones by the sockets' own shape."""
    fit = similarity(mean, pelvis.sacrum.vertices)
    out = {}
    for name, hip, sign in (("femur_left", pelvis.hip_left, 1.0), ("femur_right", pelvis.hip_right, -1.0)):
        start = fit((mean_shape.FEMORAL_HEAD_LEFT * (sign, 1, 1))[None])[0]
        centre, radius = _socket(hip.vertices, start, mean_shape.FEMORAL_HEAD_MM * fit.scale)
        bone = empty(scene)
        add_ball(bone, scene, centre, radius)
        hinge = centre + np.array([sign * 38.0, 8.0, -28.0])
        add_tube(bone, scene, np.stack([centre, hinge]), np.array([radius * 0.65, 15.0]))
        add_tube(bone, scene, np.stack([hinge, hinge + (-sign * 8.0, 0.0, -120.0)]), 15.0)
        out[name] = np.maximum(bone, 1.5 - fields[name.replace("femur", "hip")])
    return out


def _socket(vertices: Points, start: Points, radius: float) -> tuple[Points, float]:
    """Sphere through the socket's wall, from a first guess; (centre, radius of the head)."""
    centre, wall = np.array(start), radius + 1.5
    for _ in range(25):
        offset = vertices - centre
        size = np.linalg.norm(offset, axis=1)
        near = (np.abs(size - wall) < 4.0)
        if near.sum() < 40:
            break
        rows = np.concatenate([2 * vertices[near], np.ones((int(near.sum()), 1))], axis=1)
        solved = np.linalg.lstsq(rows, (vertices[near] ** 2).sum(axis=1), rcond=None)[0]
        if np.linalg.norm(solved[:3] - start) > 15:
            break
        centre = 0.5 * centre + 0.5 * solved[:3]
        wall = float(np.clip(np.sqrt(max(solved[3] + solved[:3] @ solved[:3], 1.0)), 18, 32))
    return centre, max(wall - 2.0, 16.0)


def set_apart(fields: dict[str, Distance]) -> dict[str, Distance]:
    """Where two bones meet or overlap, the sacrum keeps its place and the other gives way by a joint's gap."""
    out = dict(fields)
    for name in ("hip_left", "hip_right", "l5"):
        out[name] = np.maximum(fields[name], JOINT_GAP_MM - fields["sacrum"])
    if "l4" in out:
        out["l4"] = np.maximum(fields["l4"], JOINT_GAP_MM - out["l5"])
    return out
