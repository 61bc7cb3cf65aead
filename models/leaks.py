"""Cement outside the bone's own surface: told from contour noise, gathered into leaks, divided into parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cc3d
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.structures import Compartment
from sacroleak.models.columns import track_among
from sacroleak.models.compartments import Codes, Compartments
from sacroleak.models.distance import Distances, Indices, Mask, indices_of
from sacroleak.models.limits import LeakLimits

Rows = npt.NDArray[np.int64]
KeepWhole = Callable[[Rows, Codes], bool]

_SPACES = {
    Compartment.FORAMINA_LEFT: Compartment.PRESACRAL,
    Compartment.FORAMINA_RIGHT: Compartment.PRESACRAL,
    Compartment.ILIUM: Compartment.SACROILIAC_JOINT,
    Compartment.L5: Compartment.L5_S1_DISC,
}
"""Spaces taken together when a leak is divided. A vein leaves through a foramen onto the pelvic surface; the borders
of a joint and of a disc are contours of 1 mm noise, and cement soaks into the bone on the far side."""

_VAGUE = (Compartment.SACROILIAC_JOINT, Compartment.L5_S1_DISC, Compartment.ELSEWHERE)
_CANAL = (Compartment.VENTRAL_CANAL, Compartment.DORSAL_CANAL)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cement:
    """Cement voxels and where they lie; arrays have one row per voxel.

    `index`: (n, 3) on `geometry`. `points`: LPS mm. `bone_mm`: signed distance to the sacrum, negative inside;
    `outward`: unit vector (n, 3), LPS, in which it grows. `excess_mm`: distance beyond what contour noise and thick
    voxels explain. Of what lies outside the sacrum, `joint`: between it and a hip; `canal`: in its canal. `foreign`: of
    another treatment.
    """

    geometry: Geometry
    index: Indices
    points: Points
    bone_mm: Distances
    outward: Points
    excess_mm: Distances
    joint: Mask
    canal: Mask
    foreign: Mask
    notes: tuple[str, ...] = ()

    def volume_ml(self, rows: Rows | Mask) -> float:
        """Volume of some rows (numbers or a mask)."""
        count = np.count_nonzero(rows) if rows.dtype == np.bool_ else len(rows)
        return float(count * self.geometry.voxel_ml)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LeakPart:
    """Rows of a Cement that make one part of a leak, with the compartment of each row."""

    rows: Rows
    codes: Codes


class _Bones(NamedTuple):
    """How far the cement's voxels lie from each bone, (n,) mm each; 0 or less in it."""

    sacrum: Distances
    hips: Distances
    l5: Distances


def place_cement(mask: Mask, geometry: Geometry, spaces: Compartments, limits: LeakLimits) -> Cement:
    """Distances of every cement voxel of `mask` [i, j, k] on `geometry` (any orientation), other treatments marked."""
    index = indices_of(mask)
    points = geometry.to_lps(index)
    bones = _Bones(sacrum=spaces.bone_distance_mm(points), hips=spaces.hips.at(points), l5=spaces.l5.at(points))
    foreign, notes = _foreign(index, points, bones=bones, limits=limits, geometry=geometry)
    outward = spaces.sacrum.direction_at(points)
    return Cement(geometry=geometry, index=index, points=points, bone_mm=bones.sacrum, outward=outward, foreign=foreign,
                  joint=spaces.in_joint(bones.sacrum, bones.hips), canal=spaces.canal.at(points) <= 0,
                  excess_mm=bones.sacrum - _noise_mm(outward, geometry, limits), notes=notes)


def find_leaks(cement: Cement, limits: LeakLimits) -> list[Rows]:
    """Rows of each leak; what is left of the cement is inside the bone, a rim of contour noise, or foreign."""
    outside = (cement.bone_mm > 0) & ~cement.foreign
    deep = outside & (cement.excess_mm >= 0)
    least = np.where(cement.joint | cement.canal, limits.narrow_depth_mm, limits.surface_depth_mm)
    bare = outside & (cement.bone_mm >= least) & (cement.canal | ~_backed(cement, limits))
    rows = np.flatnonzero(deep | bare)
    if len(rows) == 0:
        return []
    rim = np.flatnonzero(outside & ~deep & ~bare)
    if len(rim):
        near, _ = cKDTree(cement.points[rows]).query(cement.points[rim], distance_upper_bound=limits.foot_mm)
        rows = np.sort(np.concatenate([rows, rim[np.isfinite(near)]]))
    labels = _linked(cement, rows)
    leaks = [rows[labels == label] for label in range(1, int(labels.max()) + 1)]
    return [leak for leak in leaks if _counts(leak, cement, deep, bare, limits)]


def divide(leak: Rows, cement: Cement, spaces: Compartments, limits: LeakLimits, *, whole: KeepWhole) -> list[LeakPart]:
    """Parts of one leak at the borders of compartments.

    The canal is cut off first. What remains stays in one piece where `whole` says it is one course (a needle track
    or a vein crosses borders without ending there). Parts below the smallest size join the neighbour they touch most,
    and so does the lesser part of a leak that reaches into a disc, a joint or what has no name, or out of it.
    """
    codes = spaces.at(cement.points[leak])
    codes = _outside_only(codes, cement.points[leak])
    space = _one_canal(codes, limits, voxel_ml=cement.geometry.voxel_ml)
    for source, target in _SPACES.items():
        space[codes == source] = target
    in_canal = np.isin(space, _CANAL)
    rest = np.flatnonzero(~in_canal)
    pieces = _linked(cement, leak[rest])
    for label in range(1, int(pieces.max(initial=0)) + 1):
        piece = rest[pieces == label]
        if len(np.unique(space[piece])) > 1 and whole(leak[piece], codes[piece]):
            space[piece] = _main_space(space[piece])
    part = _linked(cement, leak, values=space)
    smallest = limits.part_ml / cement.geometry.voxel_ml

    def joins(own: Mask, other: Mask) -> bool:
        return bool(np.count_nonzero(own) < smallest) or _one_body(space, own, other, limits)

    part = _merged(part, cement.points[leak], joins, reach_mm=bridge_mm(cement.geometry))
    return [LeakPart(rows=leak[part == label], codes=codes[part == label]) for label in np.unique(part)]


def _foreign(
    index: Indices, points: Points, *, bones: _Bones, limits: LeakLimits, geometry: Geometry,
) -> tuple[Mask, tuple[str, ...]]:
    """Which voxels belong to another treatment (in hip or L5, or out of there) or lie too far away.

    A needle's track through the ilium points at the sacrum's cement and is of this treatment.
    """
    voxel_ml, bone = geometry.voxel_ml, bones.sacrum
    filled = _filled_l5(index, bones, limits, voxel_ml=voxel_ml)
    foreign = filled.copy()
    amounts = {"L5": int(filled.sum()), "the ilium": 0}
    notes: list[str] = []
    pieces = _components_of(~filled, index)
    hips, l5 = bones.hips <= 0, bones.l5 <= 0
    # What a needle left on its way through an ilium is of this treatment; none goes through L5.
    tracks = track_among(points, np.where((bone <= 0) | l5, 0, pieces), points[bone <= 0], geometry)
    loose: list[Mask] = []
    for label in range(1, int(pieces.max(initial=0)) + 1):
        piece = pieces == label
        if (bone[piece] <= 0).mean() >= limits.foreign_sacrum_share or tracks[piece].any():
            continue
        in_hip, in_l5 = float(hips[piece].mean()), float(l5[piece].mean())
        if in_hip + in_l5 >= limits.foreign_bone_share:
            amounts["L5" if in_l5 > in_hip else "the ilium"] += int(piece.sum())
        elif bone[piece].min() > limits.reach_mm:
            notes.append(f"Cement of {piece.sum() * voxel_ml:.2f} mL lies {bone[piece].min():.0f} mm from the sacrum "
                         "and is not judged.")
        else:
            loose.append(piece)
            continue
        foreign |= piece
    notes = [f"Cement of {count * voxel_ml:.2f} mL lies in {where}: of another treatment, no leak."
             for where, count in amounts.items() if count] + notes
    out = _out_of_foreign(loose, points, bone=bone, foreign=foreign)
    if out.any():
        notes.append(f"Cement of {out.sum() * voxel_ml:.2f} mL lies nearer to the cement of that treatment than to the "
                     "sacrum, and is counted with it.")
    return foreign | out, tuple(notes)


def _filled_l5(index: Indices, bones: _Bones, limits: LeakLimits, *, voxel_ml: float) -> Mask:
    """Cement of an L5 that was filled itself, though a leak in the disc hangs together with it; (n,)."""
    lump = (bones.l5 <= limits.depth_mm) & (bones.l5 < bones.sacrum)
    numbers = _components_of(lump, index)
    within = np.bincount(numbers[lump & (bones.l5 <= 0)], minlength=int(numbers.max(initial=0)) + 1) * voxel_ml
    return np.asarray((within >= limits.foreign_l5_ml)[numbers])


def _out_of_foreign(pieces: list[Mask], points: Points, *, bone: Distances, foreign: Mask) -> Mask:
    """Pieces outside all bone that lie nearer to cement of another treatment than to the sacrum and its cement."""
    out = np.zeros(len(points), dtype=np.bool_)
    if not pieces or not foreign.any():
        return out
    theirs, inside = cKDTree(points[foreign]), (bone <= 0) & ~foreign
    ours = cKDTree(points[inside]) if inside.any() else None
    for piece in pieces:
        gap = theirs.query(points[piece])[0].min()
        if gap < bone[piece].min() and (ours is None or gap < ours.query(points[piece])[0].min()):
            out |= piece
    return out


def _noise_mm(outward: Points, geometry: Geometry, limits: LeakLimits) -> Distances:
    """Distance outside the bone that contour noise and partly filled thick voxels explain, where the bone is left in
    these directions (n, 3); (n,) mm.
    """
    across = np.abs(outward @ geometry.affine[:3, :3]).max(axis=1)
    return np.asarray(limits.depth_mm + limits.thick_voxel_share * np.maximum(across - 1.0, 0.0))


def _backed(cement: Cement, limits: LeakLimits) -> Mask:
    """Whether cement lies in the bone straight beneath each voxel, as it does under a rim of contour noise."""
    filled = np.zeros(cement.geometry.shape, dtype=np.bool_)
    filled[tuple(cement.index.T)] = True
    backed = np.zeros(len(cement.index), dtype=np.bool_)
    for depth in (limits.beneath_mm, limits.beneath_mm + 1.0):
        probe = cement.points - cement.outward * (cement.bone_mm + depth)[:, None]
        backed |= filled[cement.geometry.nearest_within(probe)]
    return backed


def _counts(leak: Rows, cement: Cement, deep: Mask, bare: Mask, limits: LeakLimits) -> bool:
    """Whether a component is more than noise: enough of it deep, or all of it bare and larger, or tiny but far out."""
    if cement.volume_ml(leak[deep[leak]]) >= limits.volume_ml:
        return True
    if cement.volume_ml(leak[bare[leak]]) >= limits.surface_ml:
        return True
    return cement.volume_ml(leak) >= limits.tiny_ml and bool(cement.bone_mm[leak].max() >= limits.tiny_depth_mm)


def _outside_only(codes: Codes, points: Points) -> Codes:
    """Give the odd voxel that counts as bone (rounding at the surface) the compartment of its nearest neighbour."""
    solid = codes == Compartment.INTRAOSSEOUS_SACRUM
    if not solid.any() or solid.all():
        return np.where(solid, np.uint8(Compartment.ELSEWHERE), codes)
    fixed = codes.copy()
    fixed[solid] = codes[~solid][cKDTree(points[~solid]).query(points[solid])[1]]
    return fixed


def _one_canal(codes: Codes, limits: LeakLimits, *, voxel_ml: float) -> Codes:
    """The codes with all cement in the canal given to one half where the other holds little of it, or to the front one
    where that holds enough of it and the back one not much.
    """
    space = codes.copy()
    front, back = (codes == half for half in _CANAL)
    in_front, behind = int(np.count_nonzero(front)), int(np.count_nonzero(back))
    share = in_front / max(in_front + behind, 1)
    not_much = share > limits.canal_front_share and behind * voxel_ml < limits.canal_back_ml
    if 1 - share < limits.canal_minor_share or not_much:
        space[back] = Compartment.VENTRAL_CANAL
    elif share < limits.canal_minor_share:
        space[front] = Compartment.DORSAL_CANAL
    return space


def bridge_mm(geometry: Geometry) -> float:
    """Gap between voxel centres over which pieces of one course count as joined.

    A thin tube that crosses thick slices at a slant falls apart: where it lies half in one slice and half in the
    next, neither is filled enough. One and a half of the largest voxel side spans that; it is 1.5 mm on thin slices.
    """
    return 1.5 * float(geometry.spacing_mm.max())


def _components(index: Indices, values: Codes | None = None) -> npt.NDArray[np.int64]:
    """Component number, from 1, of each voxel of (n, 3) `index`; 26 neighbours, different `values` stay apart."""
    if len(index) == 0:
        return np.zeros(0, dtype=np.int64)
    first = index.min(axis=0)
    box = np.zeros(index.max(axis=0) - first + 1, dtype=np.uint8)
    at = tuple((index - first).T)
    # Value 0 is a compartment too, but background to the labelling.
    box[at] = 1 if values is None else values + np.uint8(1)
    return np.asarray(cc3d.connected_components(box, connectivity=26)[at], dtype=np.int64)


def _components_of(chosen: Mask, index: Indices) -> npt.NDArray[np.int64]:
    """Component number among the chosen voxels of (n, 3) `index`, 0 for the others; (n,)."""
    numbers = np.zeros(len(index), dtype=np.int64)
    numbers[chosen] = _components(index[chosen])
    return numbers


def _linked(cement: Cement, rows: Rows, values: Codes | None = None) -> npt.NDArray[np.int64]:
    """Like _components for some rows of the cement, with components of equal value joined across small gaps."""
    labels = _components(cement.index[rows], values)
    count = int(labels.max(initial=0))
    reach = bridge_mm(cement.geometry)
    for label in range(1, count):
        own = labels == label
        others = np.flatnonzero((labels > label) & (True if values is None else values == values[np.argmax(own)]))
        if len(others) == 0:
            continue
        gap, _ = cKDTree(cement.points[rows[own]]).query(cement.points[rows[others]], distance_upper_bound=reach)
        touching = labels[others[np.isfinite(gap)]]
        if len(touching):
            # The whole chain takes its last member's number, which is still to be visited.
            labels[np.isin(labels, [label, *np.unique(touching)])] = touching.max()
    return np.unique(labels, return_inverse=True)[1] + 1


def _one_body(space: Codes, own: Mask, other: Mask, limits: LeakLimits) -> bool:
    """Whether a part is the lesser end of another beyond a vague border: what reaches into a disc, a joint or what has
    no name is not confined to it. The canal's border is not vague: what lies in it counts by itself.
    """
    spaces = {_main_space(space[own]), _main_space(space[other])}
    vague = bool(spaces & set(_VAGUE)) and not spaces & set(_CANAL)
    return vague and bool(np.count_nonzero(own) < limits.lesser_share * np.count_nonzero(other))


def _main_space(space: Codes) -> int:
    values, counts = np.unique(space, return_counts=True)
    return int(values[np.argmax(counts)])


def _merged(
    part: npt.NDArray[np.int64], points: Points, joins: Callable[[Mask, Mask], bool], *, reach_mm: float,
) -> npt.NDArray[np.int64]:
    """Part numbers after giving each part, smallest first, to its main neighbour if it `joins` that."""
    merged = part.copy()
    while True:
        labels, counts = np.unique(merged, return_counts=True)
        for _, label in sorted(zip(counts.tolist(), labels.tolist(), strict=True)):
            neighbour = _main_neighbour(merged, points, label=label, reach_mm=reach_mm)
            if neighbour is not None and joins(merged == label, merged == neighbour):
                merged[merged == label] = neighbour
                break
        else:
            return merged


def _main_neighbour(part: npt.NDArray[np.int64], points: Points, *, label: int, reach_mm: float) -> int | None:
    """The other part with most voxels within `reach_mm` of part `label`; None if there is none."""
    own, others = points[part == label], np.flatnonzero(part != label)
    if len(others) == 0:
        return None
    gap, _ = cKDTree(own).query(points[others], distance_upper_bound=reach_mm)
    touching = part[others[np.isfinite(gap)]]
    if len(touching) == 0:
        return None
    labels, counts = np.unique(touching, return_counts=True)
    return int(labels[np.argmax(counts)])
