"""What a labelled sacrum does not say itself, from procedural pelvises fitted to it: landmarks, canal, coccyx, L5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.ndimage import grey_opening
from scipy.spatial import cKDTree

from sacroleak.core.errors import InputError
from sacroleak.core.geometry import Geometry, Points
from sacroleak.training.simulation import mean_shape
from sacroleak.training.simulation.anatomy import STEP_MM, Anatomy, to_steps
from sacroleak.training.simulation.procedural import procedural_pelvis
from sacroleak.training.simulation.readout import FAR_STEPS, Places, indices_in, read_field
from sacroleak.training.simulation.scene import Scene
from sacroleak.training.simulation.shapes import add_tube, empty
from sacroleak.training.surfaces import (
    CORE_MM,
    JOINT_GAP_MM,
    Distance,
    Similarity,
    disc_between,
    elliptic_tube,
    set_apart,
    similarity,
    with_tail,
)

TEMPLATES = 4
"""Procedural pelvises tried; the one that fits best is used."""
TEMPLATE_MM = 3.0
SURFACE_POINTS = 800
KEPT = 0.85
"""Share of the nearest pairs that the fit follows: a coccyx on one side only must not pull it."""
UPPER_SHARE = 0.62
"""Of a sacrum's height S1-S3, for surfaces that end there: both the whole and this part of a template are tried."""
SHORT_MM = 12.0
"""A sacrum that ends this far above the template's lacks S4 and S5, and is given the template's."""
SOFTNESS_MM = 18.0
"""Reach over which what is left after the fit moves a landmark along."""
WORST_FIT_MM = 8.0
"""A mean distance beyond this is no sacrum, or one that lies on its side. Real ones fit within 2 to 4 mm."""
PIT_MM = 16.0
"""Pits of the pelvic surface narrower than this may be foramina ..."""
NEAR_MM = 9.0
"""... if they lie this near to where the template has one, left-right and up-down."""
SCALES = (0.6, 1.6)
"""Sizes of an adult's sacrum against the template's, generously."""
VOLUMES_ML = (60.0, 600.0)
"""From S1-S3 of a small woman to a large man's sacrum with its canal filled; most have 150 to 350 mL."""
CANAL_SHIFT_MM = 6.0
"""How far the canal's course may move from where the template puts it to where the hollow is."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """A procedural pelvis on a patient's sacrum. `mean_mm`: mean distance of the two surfaces where they match."""

    template: Anatomy
    to_patient: Similarity
    mean_mm: float
    anchors: Points
    shifts: Points

    def carry(self, places: Points) -> Points:
        """Template places (n, 3) to the patient, moved on by what the surface around them was off."""
        moved = self.to_patient(places)
        distance, near = cKDTree(self.anchors).query(moved, k=40)
        weight = np.exp(-0.5 * (distance / SOFTNESS_MM) ** 2) + 1e-9
        weight /= weight.sum(axis=1, keepdims=True)
        carried: Points = moved + (self.shifts[near] * weight[..., None]).sum(axis=1)
        return carried

    def field(self, name: str, scene: Scene) -> Distance:
        """A structure of the template where the fit puts it, mm on the scene's grid."""
        grid = np.stack(np.meshgrid(*scene.axes, indexing="ij")).astype(np.float32)
        back = (grid.reshape(3, -1).T - self.to_patient.shift) @ self.to_patient.rotation.T / self.to_patient.scale
        index = indices_in(self.template.geometry, back.T.reshape(grid.shape).astype(np.float32))
        placed = read_field(self.template.fields[name], Places.of(index), 1 / self.to_patient.scale)
        out: Distance = np.full(scene.geometry.shape, placed.far_mm, dtype=np.float32)
        out[placed.box] = placed.values
        return out


def fit_template(sacrum: Distance, geometry: Geometry) -> Fit:
    """The procedural pelvis whose sacrum lies best on the patient's. Raises InputError if none lies well."""
    volume_ml = float(np.count_nonzero(sacrum < 0)) * geometry.voxel_ml
    if not VOLUMES_ML[0] <= volume_ml <= VOLUMES_ML[1]:
        raise InputError(f"sacrum: {volume_ml:.0f} mL, wanted {VOLUMES_ML[0]:g} to {VOLUMES_ML[1]:g} mL")
    surface = _surface(sacrum < 0, geometry)
    fits = [_fitted(_template(n), surface) for n in range(TEMPLATES)]
    best = min(fits, key=lambda fit: fit.mean_mm)
    scale = best.to_patient.scale
    if best.mean_mm > WORST_FIT_MM or not SCALES[0] <= scale <= SCALES[1]:
        raise InputError(f"sacrum: the best of {TEMPLATES} made-up sacra, {scale:.2f} times its size, is "
                         f"{best.mean_mm:.1f} mm off on average, allowed {WORST_FIT_MM:g} mm and {SCALES[0]:g} to "
                         f"{SCALES[1]:g} times; is it a sacrum, in LPS mm?")
    return best


def complete(name: str, source: str, geometry: Geometry, bones: Mapping[str, Distance],
             soft: Distance | None = None) -> Anatomy:
    """An anatomy from signed distances in mm on `geometry`: sacrum and both hips; l5, l4 and femora if known.

    `soft`: positive where a CT shows no bone, in mm as far as that goes; without it only the sacrum's own hollows tell
    where the canal is. What is missing comes from a procedural pelvis fitted to the sacrum.
    """
    scene = Scene(geometry=geometry, distance={})
    fit = fit_template(bones["sacrum"], geometry)
    fields = {key: value for key, value in bones.items() if key not in ("l4", "l5")}
    fields["l5"] = bones["l5"] if "l5" in bones else fit.field("l5", scene)
    if "l4" in bones or "l5" not in bones:
        fields["l4"] = bones["l4"] if "l4" in bones else fit.field("l4", scene)
    fields["sacrum"] = _lengthened(fields["sacrum"], scene, fit)
    fields["sacrum"], coccyx = _without_coccyx(fields["sacrum"], scene, fit)
    course, halves = _course(fit, fields["sacrum"], scene)
    tube = elliptic_tube(scene, course, halves)
    fields["sacrum"] = _hollowed(fields["sacrum"], tube, soft, scene, course)
    fields = set_apart(fields)
    if soft is None and not (coccyx < 0).any():
        coccyx = np.maximum(fit.field("coccyx", scene), JOINT_GAP_MM - fields["sacrum"])
    fields["coccyx"] = coccyx
    fields["canal"] = np.maximum(tube, -np.minimum(fields["sacrum"], fields["l5"]))
    centre = fit.carry(fit.template.landmarks["s1_endplate_centre"])[0]
    normal = fit.template.landmarks["s1_endplate_normal"][0] @ fit.to_patient.rotation
    fields["disc"] = disc_between(scene, np.stack([centre, centre + 5 * normal]), fields)
    marks = {key: _openings(fit.carry(fit.template.landmarks[key]), fields["sacrum"], geometry)
             for key in ("anterior_foramina_left", "anterior_foramina_right")}
    marks |= {key: _inside(fit.carry(fit.template.landmarks[key]), fields["sacrum"], geometry)
              for key in ("ala_left", "ala_right")}
    marks |= {"canal_centreline": course, "s1_endplate_centre": centre[None], "s1_endplate_normal": normal[None]}
    return Anatomy(name=name, source=source, geometry=geometry, landmarks=marks,
                   fields={key: to_steps(value) for key, value in fields.items()})


@cache
def _template(number: int) -> Anatomy:
    return procedural_pelvis(np.random.default_rng((17, number)), spacing_mm=TEMPLATE_MM)


def _surface(inside: Bools, geometry: Geometry) -> Points:
    """Some of the outermost voxels of a mask, spread evenly; (n, 3) LPS mm."""
    rim = inside.copy()
    core = inside.copy()
    for axis in range(3):
        for step in (-1, 1):
            core &= np.roll(inside, step, axis=axis)
    rim &= ~core
    points = geometry.to_lps(np.argwhere(rim))
    if len(points) < 200:
        raise InputError(f"sacrum: only {len(points)} voxels of surface")
    chosen: Points = points[:: max(1, len(points) // SURFACE_POINTS)]
    return chosen


def _fitted(template: Anatomy, target: Points) -> Fit:
    """Closest points both ways, from two tilts, of all of the template or of its upper part."""
    source = _surface(template.fields["sacrum"] < 0, template.geometry)
    upper = source[source[:, 2] > source[:, 2].max() - UPPER_SHARE * np.ptp(source[:, 2])]
    fits = [(*_closest_points(part, target, tilt), part) for part in (source, upper) for tilt in (-15.0, 15.0)]
    fit, mean_mm, source = min(fits, key=lambda found: found[1])
    moved = fit(source)
    distance, near = cKDTree(target).query(moved)
    close = distance < max(2.5 * mean_mm, 4.0)
    return Fit(template=template, to_patient=fit, mean_mm=mean_mm, anchors=moved[close],
               shifts=(target[near] - moved)[close])


def _closest_points(source: Points, target: Points, tilt_deg: float) -> tuple[Similarity, float]:
    turn = np.radians(tilt_deg)
    rotation = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    turned = source @ rotation
    # The upper ends match, whatever hangs on the lower one.
    shift = (target.max(axis=0) + target.min(axis=0)) / 2 - (turned.max(axis=0) + turned.min(axis=0)) / 2
    shift[2] = target[:, 2].max() - turned[:, 2].max()
    fit, tree = Similarity(scale=1.0, rotation=rotation, shift=shift), cKDTree(target)
    mean_mm = np.inf
    for _ in range(20):
        moved = fit(source)
        there, near = tree.query(moved)
        back, nearest = cKDTree(moved).query(target)
        keep, keep_back = there < np.quantile(there, KEPT), back < np.quantile(back, KEPT)
        mean_mm = float((there[keep].mean() + back[keep_back].mean()) / 2)
        fit = similarity(np.concatenate([source[keep], source[nearest[keep_back]]]),
                         np.concatenate([target[near[keep]], target[keep_back]]))
    return fit, mean_mm


def _without_coccyx(sacrum: Distance, scene: Scene, fit: Fit) -> tuple[Distance, Distance]:
    """Cut where the template's sacrum ends; a label image's sacrum often goes on into the coccyx."""
    bone = fit.template.fields["sacrum"] < 0
    tip = fit.template.geometry.to_lps(np.argwhere(bone))
    ends = fit.to_patient(tip[np.argsort(tip[:, 2])[:12]].mean(axis=0)[None])[0]
    course = fit.carry(fit.template.landmarks["canal_centreline"])
    down = course[-1] - course[-max(2, len(course) // 4)]
    down /= np.linalg.norm(down)
    offset = [axis - at for axis, at in zip(scene.axes, ends, strict=True)]
    beyond = (offset[0][:, None, None] * down[0] + offset[1][None, :, None] * down[1]
              + offset[2][None, None, :] * down[2] - 2.0)
    # The plane is meant for the tail alone: higher up, bone behind it is a crest or a wing.
    beyond = np.where(scene.axes[2][None, None, :] > ends[2] + 15, -FAR_STEPS * STEP_MM, beyond).astype(np.float32)
    return np.maximum(sacrum, beyond), np.maximum(sacrum, JOINT_GAP_MM - beyond)


def _lengthened(sacrum: Distance, scene: Scene, fit: Fit) -> Distance:
    """With the template's S4 and S5, if it ends at S3."""
    bone = scene.geometry.to_lps(np.argwhere(sacrum < 0))
    whole = fit.field("sacrum", scene)
    end = scene.geometry.to_lps(np.argwhere(whole < 0))[:, 2].min()
    return with_tail(sacrum, whole, scene, bone) if end < bone[:, 2].min() - SHORT_MM else sacrum


def _course(fit: Fit, sacrum: Distance, scene: Scene) -> tuple[Points, Points]:
    """The canal's centreline (n, 3), carried and then moved to the middle of the hollow, and its half axes (n, 2)."""
    course = fit.carry(fit.template.landmarks["canal_centreline"])
    share = np.linspace(0, 1, len(mean_shape.CANAL) - 1)
    along = np.linspace(0, 1, len(course))
    halves = np.stack([np.interp(along, share, mean_shape.CANAL[1:, 3 + a]) for a in range(2)], axis=1)
    halves *= fit.to_patient.scale
    shifts = np.zeros_like(course)
    for n, (place, (wide, deep)) in enumerate(zip(course, halves, strict=True)):
        near = [np.flatnonzero(np.abs(axis - at) < reach)
                for axis, at, reach in zip(scene.axes, place, (wide, deep + 3.0, 3.0), strict=True)]
        hollow = np.argwhere(sacrum[np.ix_(*near)] > 0)
        # Where all is bone, or all is not, the hollow says nothing.
        if 0.1 < len(hollow) / max(near[0].size * near[1].size * near[2].size, 1) < 0.8:
            shifts[n, :2] = [scene.axes[a][near[a][hollow[:, a]]].mean() - place[a] for a in range(2)]
    size = np.linalg.norm(shifts, axis=1, keepdims=True)
    shifts *= np.minimum(1, CANAL_SHIFT_MM / np.maximum(size, 1e-9))
    width = max(3, len(course) // 4)
    kernel = np.hanning(width + 2)[1:-1]
    padded = np.pad(shifts, ((width, width), (0, 0)), mode="edge")
    smooth = np.stack([np.convolve(padded[:, a], kernel / kernel.sum(), mode="same") for a in range(3)], axis=1)
    return course + smooth[width:-width], halves


def _hollowed(sacrum: Distance, tube: Distance, soft: Distance | None, scene: Scene, course: Points) -> Distance:
    """Bone without what a CT shows to be none inside the tube, and without the canal's middle."""
    core = empty(scene)
    add_tube(core, scene, course, CORE_MM)
    opened = np.maximum(sacrum, -core)
    if soft is not None:
        opened = np.where(tube < 0, np.maximum(opened, np.minimum(soft, -tube)), opened)
    bone: Distance = opened.astype(np.float32)
    return bone


def _openings(places: Points, sacrum: Distance, geometry: Geometry) -> Points:
    """Each place moved to where the pelvic surface, seen from the front, has a pit nearby: on the surface over it."""
    bone = sacrum < 0
    y = geometry.affine[1, 3] + geometry.affine[1, 1] * np.arange(geometry.shape[1])
    front = np.where(bone.any(axis=1), y[np.argmax(bone, axis=1)], y[-1])
    # Removes what is deeper than its surroundings and narrower than this: foramina are 8 to 14 mm wide.
    bridged = grey_opening(front, size=tuple(int(np.ceil(PIT_MM / geometry.spacing_mm[a])) for a in (0, 2)))
    x, z = (geometry.affine[a, 3] + geometry.affine[a, a] * np.arange(geometry.shape[a]) for a in (0, 2))
    found = []
    for place in places:
        away = np.hypot(x[:, None] - place[0], z[None, :] - place[2])
        score = np.where(bone.any(axis=1) & (away < NEAR_MM), np.clip(front - bridged, 0, 6) - 0.4 * away, -np.inf)
        i, k = np.unravel_index(int(score.argmax()), score.shape)
        found.append((x[i], bridged[i, k], z[k]) if np.isfinite(score[i, k]) else tuple(place))
    return np.array(found, dtype=np.float64)


def _inside(place: Points, sacrum: Distance, geometry: Geometry) -> Points:
    """The deepest bone within 12 mm of a landmark that belongs inside; (1, 3)."""
    index = np.argwhere(sacrum < -1)
    points = geometry.to_lps(index)
    away = np.linalg.norm(points - place, axis=1)
    if away.min(initial=np.inf) > 12:
        return place
    depth = np.where(away <= 12, -sacrum[tuple(index.T)] - 0.2 * away, -np.inf)
    deepest: Points = points[int(depth.argmax())][None]
    return deepest
