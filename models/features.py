"""Shape, course, place and density of one leak part, in mm, from voxels of any spacing and orientation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from sacroleak.core.assessment import LeakShape
from sacroleak.core.geometry import Points
from sacroleak.core.structures import Compartment
from sacroleak.core.volume import Volume
from sacroleak.models.compartments import Compartments
from sacroleak.models.course import Course, direction
from sacroleak.models.density import (
    Certainty,
    Density,
    certainty_of,
    contact_mm2,
    counterpart_of,
    density_of,
)
from sacroleak.models.distance import FAR_MM
from sacroleak.models.landmarks import Landmarks, least_mm
from sacroleak.models.leaks import Cement, LeakPart, Rows
from sacroleak.models.needles import Witness, heard_of
from sacroleak.models.segmentation import PerCent
from sacroleak.models.surroundings import BoneAround, Surroundings
from sacroleak.models.tracks import NOTHING_HEARD, Heard, Track

AIM_REACH_MM = 40.0
"""A track is prolonged this far into the bone: the sacrum is about 40 mm deep at S1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Thickness and course along a part.

    `thin_mm`, `thick_mm`: 10th and 90th percentile of the sections' diameters. `taper`: how much thicker the half away
    from the bone is than the half near it, over the mean (-2 to 2). `winding_deg_per_cm`: bends per cm of length.
    `branch_points`, `ends`: of the part's skeleton.
    """

    thin_mm: float
    thick_mm: float
    taper: float
    winding_deg_per_cm: float
    branch_points: int
    ends: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Distances from a part to what surrounds it, mm, FAR_MM for what the scan does not show.

    `foramen`: name of the nearest one, "" if none was found. `track_mm`, `track_deg`, `track_score`: of the best needle
    track that was not read from this part; FAR_MM, 90 and 0 without one. `contact_mm2`: voxel faces shared with cement
    in the bone. `neighbours`: other parts within 5 mm. `mirrored_share`: of its voxels, with something similarly
    dense across the midline, outside all bones; `twin_share`: with something nearly as dense there, be it bone. What is
    known of the needles from elsewhere: `own_heard` of the part's own course, `track_heard` of that track, which leads
    to a named entry if `track_named`.
    """

    canal_mm: float
    foramen_mm: float
    foramen: str
    anterior_mm: float
    skin_mm: float
    track_mm: float
    track_deg: float
    track_score: float
    contact_mm2: float
    neighbours: int
    mirrored_share: float
    twin_share: float = 0.0
    own_heard: Heard = NOTHING_HEARD
    track_heard: Heard = NOTHING_HEARD
    track_named: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanMeasures:
    """What all parts of a scan share: cement in the bone, mL; a voxel's volume, mL, and its longest side, mm; the seen
    share of the sacrum's length.
    """

    intraosseous_ml: float
    voxel_ml: float
    voxel_mm: float
    coverage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCourse:
    """What says of one part whether it is a single course: the way it takes and the spaces it lies in.

    `outward`: mm gained from the bone per mm of length, 0 along the surface, 1 straight away from it. `aim_mm`:
    nearest cement inside the bone to the part's line prolonged inwards (FAR_MM if there is none).
    """

    compartments: Mapping[Compartment, float]
    shape: LeakShape
    outward: float
    aim_mm: float

    def share(self, *compartments: Compartment) -> float:
        """Share of the part's volume in these compartments together, 0 to 1."""
        return float(sum(self.compartments.get(c, 0.0) for c in compartments))


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFeatures(PartCourse):
    """What the rules and the classifier know of one part.

    `flatness`: middle over smallest principal width. `excess_mm`: depth beyond contour noise. `apart_mm`: gap to the
    nearest other cement of the sacrum. `left_mm`: centroid's distance left of the midline. `rim_share`: share of its
    voxels that contour noise alone would explain.
    """

    volume_ml: float
    centroid_lps_mm: tuple[float, float, float]
    left_mm: float
    flatness: float
    excess_mm: float
    apart_mm: float
    rim_share: float
    profile: Profile
    around: BoneAround
    place: Place
    density: Density
    certainty: Certainty
    scan: ScanMeasures

    @property
    def centroid_text(self) -> str:
        """Where it lies, LPS mm, for a reader."""
        return ", ".join(f"{x:.0f}" for x in self.centroid_lps_mm)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredPart:
    """One leak part with its measures, before a site is chosen; what a classifier learns from and scores."""

    part: LeakPart
    features: PartFeatures


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScanView:
    """One scan as its parts are measured in it. `certainty`: as a Segmentation's. `review_reasons`: why a person should
    look at the scan, beside what is said of its parts. `needles`: what is known of them from elsewhere, if anything is.
    """

    cement: Cement
    spaces: Compartments
    ct: Volume
    certainty: PerCent | None
    measures: ScanMeasures
    tracks: tuple[Track, ...] = ()
    review_reasons: tuple[str, ...] = ()
    needles: Witness | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartContext:
    """What a part is beside others: the rows of the whole leak it was divided from, its number among the scan's parts
    (as tracks name their column), and how many of those lie within 5 mm; the scan's landmarks, and its surroundings.
    """

    leak: Rows
    number: int
    neighbours: int
    landmarks: Landmarks
    surroundings: Surroundings


def part_course(part: LeakPart, view: ScanView, course: Course) -> PartCourse:
    """Course and spaces of one part."""
    cement, spaces, rows = view.cement, view.spaces, part.rows
    bone = cement.bone_mm[rows]
    codes, counts = np.unique(part.codes, return_counts=True)
    return PartCourse(
        compartments={Compartment(int(c)): float(n) / len(rows) for c, n in zip(codes, counts, strict=True)},
        shape=LeakShape(
            length_mm=course.length_mm, thickness_mm=course.thickness_mm,
            elongation=course.length_mm / course.thickness_mm, straightness=course.straightness,
            depth_outside_mm=float(max(bone.max(), 0.0)),
            canal_depth_mm=float(spaces.canal_depth_mm(cement.points[rows]).max()),
            distance_to_cortex_mm=float(max(bone.min(), 0.0)),
        ),
        outward=_outward(course, spaces), aim_mm=_aim_mm(course, cement, spaces),
    )


def part_features(part: LeakPart, view: ScanView, context: PartContext, course: Course) -> PartFeatures:
    """All measures of one part with this course."""
    cement, spaces, rows = view.cement, view.spaces, part.rows
    points, own = cement.points[rows], part_course(part, view, course)
    centroid = points.mean(axis=0)
    others = np.ones(len(cement.index), dtype=np.bool_)
    others[context.leak] = False
    others &= ~cement.foreign
    return PartFeatures(
        volume_ml=cement.volume_ml(rows),
        centroid_lps_mm=(float(centroid[0]), float(centroid[1]), float(centroid[2])),
        left_mm=float(spaces.frame.local(centroid[None]).left_mm[0]),
        compartments=own.compartments, shape=own.shape, outward=own.outward, aim_mm=own.aim_mm,
        flatness=_flatness(points), excess_mm=float(cement.excess_mm[rows].max()),
        apart_mm=_gap_mm(points, cement.points[others]), rim_share=float((cement.excess_mm[rows] < 0).mean()),
        profile=_profile(course, spaces), around=context.surroundings.of(points, cement.bone_mm[rows]),
        place=_place(rows, course, view, context),
        density=density_of(rows, cement, view.ct), certainty=certainty_of(rows, cement, view.certainty),
        scan=view.measures,
    )


def _place(rows: Rows, course: Course, view: ScanView, context: PartContext) -> Place:
    cement, marks = view.cement, context.landmarks
    points = cement.points[rows]
    foramen, foramen_mm = marks.nearest_foramen(points)
    track = _best_track(points, view, context.number)
    counterpart = counterpart_of(rows, cement, view.spaces, view.ct, view.certainty)
    return Place(
        canal_mm=least_mm(marks.canal, points), foramen_mm=foramen_mm, foramen="" if foramen is None else foramen.name,
        anterior_mm=least_mm(marks.anterior, points), skin_mm=least_mm(marks.skin, points),
        track_mm=FAR_MM if track is None else float(np.median(track.distance_mm(points))),
        track_deg=90.0 if track is None else track.angle_deg(course.line[-1] - course.line[0]),
        track_score=0.0 if track is None else track.score,
        contact_mm2=contact_mm2(rows, cement, context.leak), neighbours=context.neighbours,
        mirrored_share=counterpart.mirrored_share, twin_share=counterpart.twin_share,
        own_heard=heard_of(course, view.spaces, view.needles),
        track_heard=NOTHING_HEARD if track is None else track.heard, track_named=track is not None and track.named,
    )


def _best_track(points: Points, view: ScanView, number: int) -> Track | None:
    """The track with the best evidence for these points: its own score, less the farther it passes by them.

    A way to a named entry tells only of what lies on it: for all else it must not stand before what the scan shows.
    """
    near_mm = 0.0 if view.needles is None else view.needles.limits.entry_near_mm
    away = [(track, float(np.median(track.distance_mm(points)))) for track in view.tracks if track.column != number]
    others = [(track, mm) for track, mm in away if not track.named or mm <= near_mm]
    return max(others, key=lambda one: one[0].score / (1.0 + one[1] / 5.0), default=(None, 0.0))[0]


def _profile(course: Course, spaces: Compartments) -> Profile:
    widths = course.widths_mm
    if np.subtract(*spaces.bone_distance_mm(course.line[[0, -1]])) > 0:
        widths = widths[::-1]
    # From here the sections run away from the bone.
    half = len(widths) // 2
    taper = float((widths[-half:].mean() - widths[:half].mean()) / max(widths.mean(), 1e-6)) if half else 0.0
    return Profile(thin_mm=float(np.percentile(widths, 10)), thick_mm=float(np.percentile(widths, 90)), taper=taper,
                   winding_deg_per_cm=course.winding_deg_per_cm, branch_points=course.branch_points, ends=course.ends)


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
    ahead = line[-1] + np.outer(np.arange(0.0, AIM_REACH_MM + 1.0), direction(line[-1] - line[0]))
    return float(cKDTree(cement.points[inside]).query(ahead)[0].min())


def _flatness(points: Points) -> float:
    if len(points) < 4:
        return 1.0
    widths = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(points.T)), 1e-2))
    return float(widths[1] / widths[0])


def _gap_mm(points: Points, others: Points) -> float:
    return float(cKDTree(others).query(points)[0].min()) if len(others) else FAR_MM
