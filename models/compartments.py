"""In which space a point near the sacrum lies, told from the anatomy alone."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from sacroleak.core.errors import ModelError
from sacroleak.core.geometry import Box, Geometry, Points, box_where
from sacroleak.core.structures import Compartment, Structure
from sacroleak.core.volume import LabelMap
from sacroleak.models.canal import LocalPoints, SacralFrame, sacral_frame
from sacroleak.models.distance import (
    DIRECTION_STEP_MM,
    DistanceField,
    Distances,
    Mask,
    closed,
    indices_of,
    membership,
    near_field,
    outside_distance,
    shell,
    signed_distance,
)
from sacroleak.models.limits import CompartmentLimits
from sacroleak.models.rays import Rays, enclosed

Codes = npt.NDArray[np.uint8]

MARGIN_MM = 20.0
"""Distances are exact up to here around the cement; beyond, bone is searched point by point."""
SMOOTH_MM = 0.8
"""Takes the stairs of a 1 mm label map off the bone's surface; about half of what the contour itself is wrong by."""
CANAL_REACH_MM = 5.0
"""Nothing asks how far from the canal a point lies that is farther from it than this."""
EDGE_FACING = 0.35
"""Where looks do not decide, a point faces a side if the nearest bone's outward way is within 70 degrees of it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compartments:
    """The spaces around one sacrum, ready to be asked at points. Distance fields cover a box around the cement; on the
    same box `solid` is sacrum or canal. Distances to canal, hips and L5 are known as far out as they decide something.
    """

    frame: SacralFrame
    sacrum: DistanceField
    canal: DistanceField
    hips: DistanceField
    l5: DistanceField
    solid: Mask
    bone: LabelMap
    surface: cKDTree
    limits: CompartmentLimits

    def bone_distance_mm(self, points_lps: Points) -> Distances:
        """Signed distance of (n, 3) LPS mm to the sacrum's own surface, negative in bone; (n,) mm.

        Beyond the box around the cement the sign is not known: there it is positive.
        """
        near = self.sacrum.at(points_lps)
        index = self.sacrum.geometry.to_index(points_lps)
        beyond = ((index < 0) | (index > np.array(self.sacrum.geometry.shape) - 1)).any(axis=1)
        far = (near > MARGIN_MM - 2.0) | beyond
        if far.any():
            near[far] = self.surface.query(points_lps[far])[0]
        return near

    def at(self, points_lps: Points) -> Codes:
        """Compartment of each of (n, 3) LPS mm points; (n,) uint8."""
        codes = np.full(len(points_lps), Compartment.ELSEWHERE, dtype=np.uint8)
        if len(points_lps) == 0:
            return codes
        bone = self.bone_distance_mm(points_lps)
        solid = bone <= 0.0
        codes[solid] = Compartment.INTRAOSSEOUS_SACRUM
        codes[~solid] = self._outside(points_lps[~solid], bone[~solid])
        return codes

    def in_joint(self, bone_mm: Distances, hips_mm: Distances) -> Mask:
        """Which points outside the sacrum, (n,) mm from it and from the nearest hip, lie between the two; (n,)."""
        limits = self.limits
        return np.asarray((bone_mm + hips_mm <= limits.joint_gap_mm) & (hips_mm <= limits.joint_side_mm))

    def canal_depth_mm(self, points_lps: Points) -> Distances:
        """How deep inside the canal, or its continuation above the sacrum, points lie; 0 outside it; (n,) mm."""
        depth = -self.canal.at(points_lps)
        local = self.frame.local(points_lps)
        above = self._above_canal(local)
        radial = self.limits.canal_radius_mm - np.hypot(local.left_mm, local.dorsal_mm)
        return np.asarray(np.maximum(np.where(above, np.maximum(depth, radial), depth), 0.0))

    def _outside(self, points: Points, bone: Distances) -> Codes:
        """Compartments of points outside the sacrum; `bone` is their distance to it."""
        local = self.frame.local(points)
        rays = Rays(bone=self.bone, points=points)
        limits = self.limits
        in_front, behind = rays.hits(local.back, limits.shadow_mm), rays.hits(-local.back, limits.shadow_mm)
        outward = self.sacrum.direction_at(points)
        facing = np.einsum("ij,ij->i", outward, local.back)
        near = bone <= limits.presacral_reach_mm
        codes = np.full(len(points), Compartment.ELSEWHERE, dtype=np.uint8)
        # Later lines win: from the loosest description to bone that was segmented as such.
        codes[near & _on_side(behind, in_front, facing)] = Compartment.DORSAL_SOFT_TISSUE
        codes[near & _on_side(in_front, behind, -facing)] = Compartment.PRESACRAL
        codes[near & ~in_front & ~behind & self._before_the_brim(outward, local, facing)] = Compartment.PRESACRAL
        hull = self._in_hull(points)
        hole = self._foramen(local, rays, hull)
        codes[hole & (local.left_mm > 0)] = Compartment.FORAMINA_LEFT
        codes[hole & (local.left_mm <= 0)] = Compartment.FORAMINA_RIGHT
        hips = self.hips.at(points)
        codes[self.in_joint(bone, hips)] = Compartment.SACROILIAC_JOINT
        codes[self._disc(points, local, bone, outward)] = Compartment.L5_S1_DISC
        canal = self._canal(points, local, hull)
        codes[canal & (local.dorsal_mm < 0)] = Compartment.VENTRAL_CANAL
        codes[canal & (local.dorsal_mm >= 0)] = Compartment.DORSAL_CANAL
        codes[hips <= 0] = Compartment.ILIUM
        codes[self.l5.at(points) <= 0] = Compartment.L5
        return codes

    def _before_the_brim(self, outward: Points, local: LocalPoints, facing: Distances) -> Mask:
        """Points that face the upper front edge of the ala, which no look along the level's own axis meets; the bone is
        left `outward` from them.

        The sacrum is tilted by about 45 degrees against the body, whose front lies midway between the canal's own up
        and its own front.
        """
        forward = (local.up - local.back) / np.sqrt(2.0)
        towards = np.einsum("ij,ij->i", outward, forward)
        ala = np.abs(local.left_mm) > self.limits.disc_half_width_mm
        return np.asarray(ala & (towards > self.limits.brim_facing) & (facing <= EDGE_FACING))

    def _canal(self, points: Points, local: LocalPoints, hull: Mask) -> Mask:
        """Inside the canal, or in the thin gap a network leaves between canal and bone, or just above its top."""
        depth = self.canal.at(points)
        gap = (depth <= self.limits.canal_gap_mm) & hull
        return np.asarray((depth <= 0) | gap | self._above_canal(local))

    def _above_canal(self, local: LocalPoints) -> npt.NDArray[np.bool_]:
        """Where the canal goes on above its labelled end; nowhere if the canal itself is hardly seen."""
        top, limits = self.frame.top_mm, self.limits
        above = (local.along_mm > top - limits.canal_gap_mm) & (local.along_mm <= top + limits.canal_above_mm)
        above &= np.hypot(local.left_mm, local.dorsal_mm) <= limits.canal_radius_mm
        return np.asarray(above & self.frame.canal_seen)

    def _in_hull(self, points: Points) -> Mask:
        """Inside the closed hull of sacrum and canal, which is worked out around the points only."""
        grid, radius_mm = self.sacrum.geometry, self.limits.foramen_closing_mm
        seen = grid.to_lps(np.clip(grid.to_index(points), 0, np.array(grid.shape) - 1))
        # What closes a gap lies within a radius of it, and what it grew from within another.
        start, stop = _box(grid, seen, 2.0 * radius_mm + 2.0 * float(grid.spacing_mm.max()))
        part = grid.crop(start, stop)
        hull = closed(self.solid[_window(start, stop)], part, radius_mm)
        return np.asarray(membership(hull, part).at(points) <= 0)

    def _foramen(self, local: LocalPoints, rays: Rays, hull: Mask) -> Mask:
        """Inside the hull with bone (or canal) on the medial, lateral, upper and lower side."""
        hole = hull.copy()
        some = Rays(bone=rays.bone, points=rays.points[hull])
        hole[hull] = enclosed(some, local.only(hull), self.frame, self.limits.foramen_ray_mm)
        return hole

    def _disc(self, points: Points, local: LocalPoints, bone: Distances, outward: Points) -> Mask:
        """In front of the canal, with the sacrum on one side and L5 on the other, and both close.

        Directions to the two bones, not levels, decide: endplates are tilted against the canal, and a point in front
        of the promontory sees both bones on the same side. Without L5 in view it is the space just above the sacrum.
        """
        limits = self.limits
        disc = (local.dorsal_mm < 0) & (np.abs(local.left_mm) <= limits.disc_half_width_mm)
        if np.any(self.bone.labels == Structure.L5):
            disc &= bone + self.l5.at(points) <= limits.disc_height_mm
            opposed = np.einsum("ij,ij->i", outward[disc], self.l5.direction_at(points[disc]))
            disc[disc] = opposed <= -limits.disc_opposed
            return np.asarray(disc)
        rays = Rays(bone=self.bone, points=points)
        disc &= local.along_mm > self.frame.top_mm - limits.disc_height_mm
        disc &= rays.hits(-local.up, limits.disc_height_mm / 2) & ~rays.hits(local.up, limits.disc_height_mm)
        return np.asarray(disc)


def _on_side(
    hit: npt.NDArray[np.bool_], opposite: npt.NDArray[np.bool_], facing: Distances,
) -> npt.NDArray[np.bool_]:
    """Points that see bone only on one side, or on both or neither but face away from the nearest bone that way."""
    return np.asarray((hit & ~opposite) | ((hit == opposite) & (facing > EDGE_FACING)))


def compartments(
    anatomy: LabelMap, limits: CompartmentLimits, *, around_lps: Points, frame: SacralFrame | None = None,
) -> Compartments:
    """The spaces of one anatomy (Structure 0-5, axes along +L +P +S), for questions near `around_lps` (n, 3) mm.

    Raises ModelError if the anatomy has no sacrum.
    """
    labels = anatomy.labels.astype(np.uint8)
    around = box_where(labels == Structure.SACRUM, 1)
    if around is None:
        raise ModelError("anatomy: no sacrum, so nothing to measure a leak against")
    frame = sacral_frame(anatomy) if frame is None else frame
    _fill_holes(labels[around])
    start, stop = _box(anatomy.geometry, around_lps, MARGIN_MM)
    part, grid = labels[_window(start, stop)], anatomy.geometry.crop(start, stop)
    canal = part == Structure.SACRAL_CANAL
    bone = part == Structure.SACRUM
    hips = [near_field(outside_distance, part == hip, grid, limits.joint_side_mm)
            for hip in (Structure.HIP_LEFT, Structure.HIP_RIGHT)]
    surface = indices_of(shell(labels[around] == Structure.SACRUM)) + [side.start for side in around]
    return Compartments(
        frame=frame, limits=limits, bone=LabelMap(labels=labels, geometry=anatomy.geometry),
        sacrum=signed_distance(bone, grid, smooth_mm=SMOOTH_MM),
        canal=near_field(signed_distance, canal, grid, CANAL_REACH_MM),
        hips=DistanceField(values=np.minimum(hips[0].values, hips[1].values), geometry=grid),
        l5=near_field(outside_distance, part == Structure.L5, grid, limits.disc_height_mm + DIRECTION_STEP_MM),
        solid=bone | canal, surface=cKDTree(anatomy.geometry.to_lps(surface)),
    )


def _fill_holes(labels: Codes) -> None:
    """Make every empty hole that the sacrum encloses sacrum, in place, in a box of `labels` one voxel wider than it: a
    network leaves such holes where bone is thin.
    """
    parts = cc3d.connected_components(labels != Structure.SACRUM, connectivity=6)
    faces = [np.take(parts, side, axis=axis) for axis in range(3) for side in (0, -1)]
    open_parts = np.unique(np.concatenate([face.ravel() for face in faces]))
    labels[~np.isin(parts, open_parts) & (labels == Structure.BACKGROUND)] = Structure.SACRUM


def _window(start: list[int], stop: list[int]) -> Box:
    (a, b, c), (d, e, f) = start, stop
    return slice(a, d), slice(b, e), slice(c, f)


def _box(grid: Geometry, points: Points, margin_mm: float) -> tuple[list[int], list[int]]:
    """Index range [start, stop) of the grid that holds the points and a margin; the whole grid without points."""
    if len(points) == 0:
        return [0, 0, 0], list(grid.shape)
    index = grid.to_index(points)
    margin = margin_mm / grid.spacing_mm
    start = np.clip(np.floor(index.min(axis=0) - margin), 0, np.array(grid.shape) - 2).astype(int)
    stop = np.clip(np.ceil(index.max(axis=0) + margin) + 1, start + 2, grid.shape).astype(int)
    return start.tolist(), stop.tolist()
