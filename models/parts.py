"""From label maps to the parts of leaks, each with all its measures and before any site is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from sacroleak.core.geometry import Box, Points, box_where
from sacroleak.core.needle import NeedleNote
from sacroleak.core.structures import Compartment, Structure
from sacroleak.models.compartments import Codes, compartments
from sacroleak.models.course import Course, measure_course
from sacroleak.models.distance import indices_of
from sacroleak.models.features import (
    MeasuredPart,
    PartContext,
    ScanMeasures,
    ScanView,
    part_course,
    part_features,
)
from sacroleak.models.landmarks import find_landmarks
from sacroleak.models.leaks import LeakPart, Rows, divide, find_leaks, place_cement
from sacroleak.models.limits import RuleLimits
from sacroleak.models.needles import heard_of, witness
from sacroleak.models.rules import own_evidence, tube_evidence
from sacroleak.models.segmentation import Segmentation
from sacroleak.models.sourceless import without_source
from sacroleak.models.surroundings import surroundings
from sacroleak.models.tracks import find_tracks

NEIGHBOUR_MM = 5.0
"""Parts with a smaller gap are neighbours: drops of one leak lie a few mm from each other."""


def measure_scan(
    segmentation: Segmentation, limits: RuleLimits, *, needles: NeedleNote | None = None,
) -> tuple[ScanView, list[MeasuredPart]] | None:
    """The scan as its parts are measured in it, and every part that may be a leak, largest first.

    None without cement or sacrum. `needles`: what is known of them from elsewhere. Takes about a second for a region
    of 200 mm.
    """
    view = view_scan(segmentation, limits)
    if view is not None and needles is not None:
        view = replace(view, needles=witness(needles, view.spaces, limits.needles))
    return None if view is None else without_source(*measure_parts(view, limits), limits)


def view_scan(segmentation: Segmentation, limits: RuleLimits) -> ScanView | None:
    """Cement and spaces of one scan, tracks not looked for yet. None without cement or sacrum."""
    grid = segmentation.cement.geometry
    mask = np.asarray(segmentation.cement.labels, dtype=np.bool_)
    box = box_where(segmentation.anatomy.labels == Structure.SACRUM) if mask.any() else None
    if box is None:
        return None
    around = _near_sacrum(segmentation, box, limits)
    spaces = compartments(segmentation.anatomy, limits.compartments, around_lps=around)
    cement = place_cement(mask, grid, spaces, limits.leaks)
    measures = ScanMeasures(intraosseous_ml=cement.volume_ml((cement.bone_mm <= 0) & ~cement.foreign),
                            voxel_ml=grid.voxel_ml, voxel_mm=float(grid.spacing_mm.max()),
                            coverage=segmentation.sacrum_coverage)
    return ScanView(cement=cement, spaces=spaces, ct=segmentation.ct, certainty=segmentation.certainty,
                    measures=measures)


def measure_parts(view: ScanView, limits: RuleLimits) -> tuple[ScanView, list[MeasuredPart]]:
    """The view with the needle tracks found in it, and every leak part with its measures, largest first."""
    cement, spaces = view.cement, view.spaces

    def one_course(rows: Rows, codes: Codes) -> bool:
        return max(_found(LeakPart(rows=rows, codes=codes), rows, view).evidence(view, limits)) > 0.5

    found = [_found(part, leak, view) for leak in find_leaks(cement, limits.leaks)
             for part in divide(leak, cement, spaces, limits.leaks, whole=one_course)]
    found = _mended(found, view, limits)
    view = _with_tracks(view, [one.course for one in found], limits)
    if not found:
        return view, []
    near, landmarks = _neighbours([cement.points[one.part.rows] for one in found]), find_landmarks(spaces, view.ct)
    around = surroundings(spaces, cement.points, view.ct)
    measured = [
        MeasuredPart(part=one.part, features=part_features(
            one.part, view, PartContext(leak=one.leak, number=n, neighbours=near[n], landmarks=landmarks,
                                        surroundings=around), one.course))
        for n, one in enumerate(found)
    ]
    # The order must not depend on how the array is stored, so ties go by place in the patient.
    return view, sorted(measured, key=_rank)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    """A part, the rows of the whole leak it was divided from, and its course."""

    part: LeakPart
    leak: Rows
    course: Course

    def evidence(self, view: ScanView, limits: RuleLimits) -> tuple[float, float]:
        """How clearly the part by itself is one needle's track, and how clearly one vein."""
        own = part_course(self.part, view, self.course)
        return own_evidence(own, heard_of(self.course, view.spaces, view.needles), limits), tube_evidence(own, limits)

    def thin(self, limits: RuleLimits) -> bool:
        """Whether the part can be a piece of a vein: no thicker than one, and not in the canal."""
        in_canal = np.isin(self.part.codes, (Compartment.VENTRAL_CANAL, Compartment.DORSAL_CANAL)).mean() >= 0.5
        return not in_canal and self.course.thickness_mm <= limits.sites.tube_thickness_mm


def _found(part: LeakPart, leak: Rows, view: ScanView) -> _Found:
    return _Found(part=part, leak=leak, course=measure_course(view.cement.index[part.rows], view.cement.geometry))


def _with_tracks(view: ScanView, courses: Sequence[Course], limits: RuleLimits) -> ScanView:
    """The view with the tracks found in it, and with the ways to entries that are known from elsewhere."""
    cement, spaces, about = view.cement, view.spaces, view.needles
    if about is None:
        return replace(view, tracks=find_tracks(courses, cement, spaces, view.ct, limits.tracks))
    tracks = find_tracks(courses, cement, spaces, view.ct, limits.tracks, weigh=about.weighed)
    ways, notes = about.ways(cement.points[(cement.bone_mm <= 0) & ~cement.foreign], spaces, limits.tracks)
    return replace(view, tracks=(*tracks, *ways), needles=replace(about, notes=(*about.notes, *notes)))


def _mended(found: list[_Found], view: ScanView, limits: RuleLimits) -> list[_Found]:
    """The parts, with the pieces of one broken vein put together: thin ones, near each other, that make a tube.

    A vein of 1 to 2 mm falls apart where it is thinner than a voxel shows.
    """
    parts, points = list(found), view.cement.points
    refused: set[tuple[int, int]] = set()
    while True:
        thin = [n for n, one in enumerate(parts) if one.thin(limits)]
        trees = {n: cKDTree(points[parts[n].part.rows]) for n in thin}
        gaps = sorted((float(trees[a].query(points[parts[b].part.rows])[0].min()), a, b)
                      for a in thin for b in thin if a < b and _key(parts, a, b) not in refused)
        for gap, a, b in gaps:
            if gap > limits.leaks.vein_gap_mm:
                return parts
            mended = _together(parts[a], parts[b], view)
            track, tube = mended.evidence(view, limits)
            if tube > 0.5 >= track:
                parts = [one for n, one in enumerate(parts) if n not in (a, b)] + [mended]
                break
            refused.add(_key(parts, a, b))
        else:
            return parts


def _key(parts: list[_Found], a: int, b: int) -> tuple[int, int]:
    """Two parts by their first rows, which no other part has."""
    first, second = sorted((int(parts[a].part.rows.min()), int(parts[b].part.rows.min())))
    return first, second


def _together(one: _Found, other: _Found, view: ScanView) -> _Found:
    rows = np.concatenate([one.part.rows, other.part.rows])
    codes = np.concatenate([one.part.codes, other.part.codes])
    order = np.argsort(rows)
    return _found(LeakPart(rows=rows[order], codes=codes[order]), np.union1d(one.leak, other.leak), view)


def _rank(measured: MeasuredPart) -> tuple[float, ...]:
    features = measured.features
    return (-round(features.volume_ml, 6), *(round(x, 3) for x in features.centroid_lps_mm))


def _neighbours(parts: Sequence[Points]) -> list[int]:
    """How many other parts lie within NEIGHBOUR_MM of each."""
    trees = [cKDTree(points) for points in parts]
    counts = [0] * len(parts)
    for a, tree in enumerate(trees):
        for b in range(a + 1, len(trees)):
            if np.isfinite(tree.query(parts[b], distance_upper_bound=NEIGHBOUR_MM)[0]).any():
                counts[a] += 1
                counts[b] += 1
    return counts


def _near_sacrum(segmentation: Segmentation, sacrum: Box, limits: RuleLimits) -> Points:
    """Cement near enough to the sacrum's box in the anatomy to be judged; (n, 3) LPS mm, at least one point."""
    grid = segmentation.anatomy.geometry
    low = grid.to_lps([side.start for side in sacrum]) - limits.leaks.reach_mm
    high = grid.to_lps([side.stop - 1 for side in sacrum]) + limits.leaks.reach_mm
    points = segmentation.cement.geometry.to_lps(indices_of(np.asarray(segmentation.cement.labels, dtype=np.bool_)))
    near = points[((points >= low) & (points <= high)).all(axis=1)]
    return near if len(near) else np.array([(low + high) / 2.0])
