"""From label maps to the parts of leaks, each with all its measures and before any site is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from sacroleak.core.geometry import Points
from sacroleak.core.needle import NeedleNote
from sacroleak.core.structures import Compartment, Structure
from sacroleak.models.compartments import Codes, compartments
from sacroleak.models.course import Course, measure_course
from sacroleak.models.features import MeasuredPart, PartContext, ScanMeasures, ScanView, part_features
from sacroleak.models.landmarks import find_landmarks
from sacroleak.models.leaks import LeakPart, Rows, divide, find_leaks, place_cement
from sacroleak.models.limits import RuleLimits
from sacroleak.models.needles import witness
from sacroleak.models.rules import track_evidence, tube_evidence
from sacroleak.models.segmentation import Segmentation
from sacroleak.models.sourceless import without_source
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
    """Cement, spaces and landmarks of one scan, tracks not looked for yet. None without cement or sacrum."""
    grid = segmentation.cement.geometry
    mask = np.asarray(segmentation.cement.labels, dtype=np.bool_)
    if not mask.any() or not np.any(segmentation.anatomy.labels == Structure.SACRUM):
        return None
    spaces = compartments(segmentation.anatomy, limits.compartments, around_lps=_near_sacrum(segmentation, limits))
    cement = place_cement(mask, grid, spaces, limits.leaks)
    measures = ScanMeasures(intraosseous_ml=cement.volume_ml((cement.bone_mm <= 0) & ~cement.foreign),
                            voxel_ml=grid.voxel_ml, voxel_mm=float(grid.spacing_mm.max()),
                            coverage=segmentation.sacrum_coverage)
    return ScanView(cement=cement, spaces=spaces, ct=segmentation.ct, certainty=segmentation.certainty,
                    landmarks=find_landmarks(spaces, segmentation.ct), measures=measures)


def measure_parts(view: ScanView, limits: RuleLimits) -> tuple[ScanView, list[MeasuredPart]]:
    """The view with the needle tracks found in it, and every leak part with its measures, largest first."""
    cement, spaces = view.cement, view.spaces

    def one_course(rows: Rows, codes: Codes) -> bool:
        features = part_features(LeakPart(rows=rows, codes=codes), view, PartContext(leak=rows))
        return max(track_evidence(features, limits), tube_evidence(features, limits)) > 0.5

    found = [(part, leak) for leak in find_leaks(cement, spaces, limits.leaks)
             for part in divide(leak, cement, spaces, limits.leaks, whole=one_course)]
    found = _mended(found, view, limits)
    courses = [measure_course(cement.index[part.rows], cement.geometry) for part, _ in found]
    view = _with_tracks(view, courses, limits)
    near = _neighbours([cement.points[part.rows] for part, _ in found])
    measured = [
        MeasuredPart(part=part, features=part_features(
            part, view, PartContext(leak=leak, number=n, neighbours=near[n]), course=courses[n]))
        for n, (part, leak) in enumerate(found)
    ]
    # The order must not depend on how the array is stored, so ties go by place in the patient.
    return view, sorted(measured, key=_rank)


def _with_tracks(view: ScanView, courses: Sequence[Course], limits: RuleLimits) -> ScanView:
    """The view with the tracks found in it, and with the ways to entries that are known from elsewhere."""
    cement, spaces, about = view.cement, view.spaces, view.needles
    if about is None:
        return replace(view, tracks=find_tracks(courses, cement, spaces, view.ct, limits.tracks))
    tracks = find_tracks(courses, cement, spaces, view.ct, limits.tracks, weigh=about.weighed)
    ways, notes = about.ways(cement.points[(cement.bone_mm <= 0) & ~cement.foreign], spaces, limits.tracks)
    return replace(view, tracks=(*tracks, *ways), needles=replace(about, notes=(*about.notes, *notes)))


def _mended(
    found: list[tuple[LeakPart, Rows]], view: ScanView, limits: RuleLimits,
) -> list[tuple[LeakPart, Rows]]:
    """The parts, with the pieces of one broken vein put together: thin ones, near each other, that make a tube.

    A vein of 1 to 2 mm falls apart where it is thinner than a voxel shows.
    """
    parts, points = list(found), view.cement.points
    refused: set[tuple[int, int]] = set()
    while True:
        thin = [n for n, (part, _) in enumerate(parts) if _thin(part, view, limits)]
        trees = {n: cKDTree(points[parts[n][0].rows]) for n in thin}
        gaps = sorted((float(trees[a].query(points[parts[b][0].rows])[0].min()), a, b)
                      for a in thin for b in thin if a < b and _key(parts, a, b) not in refused)
        for gap, a, b in gaps:
            if gap > limits.leaks.vein_gap_mm:
                return parts
            part, leak = _together(parts[a], parts[b])
            features = part_features(part, view, PartContext(leak=leak))
            if tube_evidence(features, limits) > 0.5 >= track_evidence(features, limits):
                parts = [one for n, one in enumerate(parts) if n not in (a, b)] + [(part, leak)]
                break
            refused.add(_key(parts, a, b))
        else:
            return parts


def _key(parts: list[tuple[LeakPart, Rows]], a: int, b: int) -> tuple[int, int]:
    """Two parts by their first rows, which no other part has."""
    first, second = sorted((int(parts[a][0].rows.min()), int(parts[b][0].rows.min())))
    return first, second


def _thin(part: LeakPart, view: ScanView, limits: RuleLimits) -> bool:
    """Whether a part can be a piece of a vein: no thicker than one, and not in the canal."""
    if np.isin(part.codes, (Compartment.VENTRAL_CANAL, Compartment.DORSAL_CANAL)).mean() >= 0.5:
        return False
    course = measure_course(view.cement.index[part.rows], view.cement.geometry)
    return course.thickness_mm <= limits.sites.tube_thickness_mm


def _together(one: tuple[LeakPart, Rows], other: tuple[LeakPart, Rows]) -> tuple[LeakPart, Rows]:
    rows = np.concatenate([one[0].rows, other[0].rows])
    codes = np.concatenate([one[0].codes, other[0].codes])
    order = np.argsort(rows)
    return LeakPart(rows=rows[order], codes=codes[order]), np.union1d(one[1], other[1])


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


def _near_sacrum(segmentation: Segmentation, limits: RuleLimits) -> Points:
    """Cement near enough to the sacrum's bounding box to be judged; (n, 3) LPS mm, at least one point."""
    anatomy = segmentation.anatomy
    sacrum = np.argwhere(anatomy.labels == Structure.SACRUM)
    low = anatomy.geometry.to_lps(sacrum.min(axis=0)) - limits.leaks.reach_mm
    high = anatomy.geometry.to_lps(sacrum.max(axis=0)) + limits.leaks.reach_mm
    points = segmentation.cement.geometry.to_lps(np.argwhere(segmentation.cement.labels))
    near = points[((points >= low) & (points <= high)).all(axis=1)]
    return near if len(near) else np.array([(low + high) / 2.0])
