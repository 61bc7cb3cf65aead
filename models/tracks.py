"""Needle tracks found in the scan: holes drilled through bone to the cement, and straight columns of cement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from sacroleak.core.geometry import Points
from sacroleak.core.volume import Volume
from sacroleak.models.columns import across, can_come
from sacroleak.models.compartments import Compartments
from sacroleak.models.course import Course, direction
from sacroleak.models.distance import DistanceField, Distances
from sacroleak.models.leaks import Cement
from sacroleak.models.limits import TrackLimits

RING_MM = 3.6
"""Bone beside a hole is read this far from its axis: a 13-gauge hole's radius (1.2 mm), its blur, and a voxel."""
STEP_MM = 1.0
BESIDE = 8
OUTWARD_MM = 30.0
"""How far a track is followed outwards, through the ilium: farther, its direction is not known well enough."""
REFINED, SHIFT_MM, TILT_DEG = 12, 1.5, 6.0
"""So many ways are looked at again, shifted and tilted by what mouth and cement leave open."""
MOUTHS, TARGETS = 40, 24
"""So many of the likeliest mouths of a hole are joined with so many points of the cement."""
CLIP_HU = 400.0
"""One voxel of cortex or of cement must not speak louder than the rest of the way."""
HOLE_TRUST = 0.6
"""Highest score of a hole. Vessels and gaps of spongy bone look like one: of 15 needles in simulated scans one was
found, beside 15 ways that no needle took. It is a suspicion, which `track_found_score` keeps from deciding alone."""
SAME_DEG, SAME_MM = 20.0, 8.0
"""Two hypotheses this near to each other are one needle; the better one stays."""
MOST, LEAST_SCORE = 6, 0.25
"""Hypotheses kept: the best few, none that hardly anything speaks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What is known from elsewhere of a way: the factor on the odds that a needle took it, and the words for a reader,
    empty or with a space before them.
    """

    odds: float = 1.0
    sentence: str = ""

    def weigh(self, score: float) -> float:
        """A score from 0 to 1 with its odds multiplied; exactly the same where nothing is known."""
        return score if self.odds == 1.0 else self.odds * score / (1.0 + (self.odds - 1.0) * score)

    def take_back(self, score: float) -> float:
        """The score before it was weighed."""
        return Heard(odds=1.0 / self.odds).weigh(score)


NOTHING_HEARD = Heard()


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One hypothesis of a needle's way.

    `entry_lps_mm`: where it leaves (or, for the needle, enters) the sacrum; `direction`: unit vector outwards, LPS.
    `score`: evidence from 0 to 1, one half at the limit. `column`: number of the part it was read from, or -1 for
    another. `heard`: what the score owes to what is known from elsewhere. `named`: a way to an entry that was named,
    and not one seen in the scan.
    """

    entry_lps_mm: tuple[float, float, float]
    direction: tuple[float, float, float]
    score: float
    sentence: str
    column: int = -1
    heard: Heard = NOTHING_HEARD
    named: bool = False

    def distance_mm(self, points_lps: Points) -> Distances:
        """Distance of (n, 3) LPS mm from the way, 150 mm outwards and 20 mm into the bone; (n,)."""
        offset = points_lps - np.array(self.entry_lps_mm)
        along = np.clip(offset @ np.array(self.direction), -20.0, 150.0)
        return np.asarray(np.linalg.norm(offset - along[:, None] * np.array(self.direction), axis=1))

    def angle_deg(self, way: npt.NDArray[np.float64]) -> float:
        """Angle between the track and a vector (3,), whichever way that points; 0 to 90 degrees."""
        return float(np.degrees(np.arccos(min(1.0, abs(float(direction(way) @ np.array(self.direction)))))))


def find_tracks(
    courses: Sequence[Course], cement: Cement, spaces: Compartments, ct: Volume, limits: TrackLimits, *,
    weigh: Callable[[Sequence[Track]], Sequence[Track]] | None = None,
) -> tuple[Track, ...]:
    """Hypotheses, best first. `courses`: of the parts of leaks, in their order. Nothing but the scan is needed.

    `weigh` changes the scores of all that was found, before the best are kept.
    """
    inside = cement.points[(cement.bone_mm <= 0) & ~cement.foreign]
    if len(inside) == 0:
        return ()
    found = [track for n, course in enumerate(courses) if (track := _column(n, course, inside, spaces, limits))]
    found += _holes(inside, spaces, ct, limits)
    if weigh is not None:
        found = list(weigh(found))
    kept: list[Track] = []
    for track in sorted(found, key=lambda t: (-t.score, t.entry_lps_mm)):
        if len(kept) < MOST and track.score >= LEAST_SCORE and not any(_same(track, other) for other in kept):
            kept.append(track)
    return tuple(kept)


def _same(one: Track, other: Track) -> bool:
    """Whether two hypotheses are one needle; a column never stands in for a hole, which is evidence of its own."""
    near = float(np.linalg.norm(np.subtract(one.entry_lps_mm, other.entry_lps_mm))) < SAME_MM
    kind = (one.column >= 0) == (other.column >= 0)
    return kind and near and one.angle_deg(np.array(other.direction)) < SAME_DEG


def _column(
    number: int, course: Course, inside: Points, spaces: Compartments, limits: TrackLimits,
) -> Track | None:
    """A part that is thin, straight and long, stands on the bone, and whose line meets the cement in it."""
    if not limits.is_column(straightness=course.straightness, thickness_mm=course.thickness_mm,
                            length_mm=course.length_mm):
        return None
    line, bone = outwards(course, spaces)
    way = direction(line[-1] - line[0])
    ahead = line[0] - np.outer(np.arange(0.0, 41.0), way)
    aim = float(cKDTree(inside).query(ahead)[0].min())
    outward = float(abs(bone[1] - bone[0])) / course.length_mm
    score = min(logistic((outward - limits.column_outward) / 0.1),
                logistic((course.straightness - limits.column_straightness) / 0.02),
                logistic((course.length_mm - limits.column_length_mm) / (0.3 * limits.column_length_mm)),
                logistic((limits.column_aim_mm - aim) / (0.3 * limits.column_aim_mm)))
    text = (f"A straight column of cement, {course.length_mm:.0f} mm long and {course.thickness_mm:.1f} mm wide, leads "
            f"{_whither(way, spaces, line[0])} from the cement in the bone.")
    return Track(entry_lps_mm=three(line[0]), direction=three(way), score=score, sentence=text, column=number)


def outwards(course: Course, spaces: Compartments) -> tuple[Points, Distances]:
    """The course's line (n, 3) LPS mm from the end that lies nearer to the bone on, and both ends' distances; (2,)."""
    bone = spaces.bone_distance_mm(course.line[[0, -1]])
    return (course.line, bone) if bone[0] <= bone[1] else (course.line[::-1], bone[::-1])


def _holes(inside: Points, spaces: Compartments, ct: Volume, limits: TrackLimits) -> list[Track]:
    """Straight ways from the cement to the surface along which the bone is less dense than beside them."""
    mouths = _mouths(inside, spaces, ct, limits)
    if len(mouths) == 0:
        return []
    ends, starts = (a.reshape(-1, 3) for a in np.broadcast_arrays(mouths[:, None], spread(inside)[None]))
    ways = ends - starts
    length = np.linalg.norm(ways, axis=1)
    fair = (length >= limits.hole_length_mm) & (length <= limits.hole_reach_mm)
    ends, ways = ends[fair], ways[fair] / length[fair, None]
    fair = can_come(ends, ways, spaces.frame)
    ends, ways = ends[fair], ways[fair]
    if len(ends) == 0:
        return []
    fair = inside_once(ends, ways, spaces, limits)
    ends, ways = ends[fair], ways[fair]
    if len(ends) == 0:
        return []
    # First inside the sacrum only: a way that is not quite right has lost the hole long before the far side of a hip.
    rough, _ = _contrast(ends, ways, inside, spaces, ct, outward_mm=0.0)
    best = np.argsort(-rough, kind="stable")[:REFINED]
    ends, ways = _jittered(ends[best], ways[best])
    contrast, read = _contrast(ends, ways, inside, spaces, ct, outward_mm=OUTWARD_MM)
    tracks = []
    for n in np.argsort(-contrast, kind="stable")[: 12 * MOST]:
        if read[n] < limits.hole_length_mm:
            continue
        beyond = float(contrast[n]) / limits.hole_contrast_hu - 1.0
        score = HOLE_TRUST * logistic(beyond / 0.35)
        text = (f"A straight way of needle width leads {_whither(ways[n], spaces, ends[n])} from the cement through "
                f"the bone, which is {contrast[n]:.0f} HU less dense along it than beside it.")
        tracks.append(Track(entry_lps_mm=three(ends[n]), direction=three(ways[n]), score=score, sentence=text))
    return tracks


def spread(points: Points) -> Points:
    """At most TARGETS of the points, each as far as can be from those before; the first is nearest to their middle.

    It does not matter in which order they are given, unless two are equally far.
    """
    chosen = [int(np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=1)))]
    away = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < TARGETS and away.max() > 1.0:
        chosen.append(int(np.argmax(away)))
        away = np.minimum(away, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return points[chosen]


def _mouths(inside: Points, spaces: Compartments, ct: Volume, limits: TrackLimits) -> Points:
    """Places of the sacrum's surface that look most like the mouth of a hole; (at most MOUTHS, 3) LPS mm."""
    shell: Points = np.asarray(spaces.surface.data, dtype=np.float64)[::2]
    shell = shell[_within(shell, inside, limits.hole_reach_mm)]
    shell = shell[spaces.canal.at(shell) > 3.0]
    if len(shell) == 0:
        return shell
    normal = spaces.sacrum.direction_at(shell)
    drop = np.zeros(len(shell))
    for depth in (0.5, 1.5, 2.5):
        middle, beside = _read(shell - depth * normal, normal, ct)
        drop += np.clip(beside - middle, -CLIP_HU, CLIP_HU) / 3.0
    mouths: list[int] = []
    tree = cKDTree(shell)
    taken = np.zeros(len(shell), dtype=np.bool_)
    for n in np.argsort(-drop, kind="stable"):
        if len(mouths) == MOUTHS or drop[n] < limits.hole_contrast_hu / 2:
            break
        if not taken[n]:
            mouths.append(int(n))
            taken[tree.query_ball_point(shell[n], 2.5)] = True
    return np.asarray(shell[mouths])


def _within(points: Points, others: Points, reach_mm: float) -> npt.NDArray[np.bool_]:
    """Which of (n, 3) lie less than `reach_mm` from any of (m, 3); (n,). A few of the others settle most of them."""
    near = np.zeros(len(points), dtype=np.bool_)
    for some in (others[:: max(1, len(others) // 200)], others):
        left = np.flatnonzero(~near)
        near[left] = np.isfinite(cKDTree(some).query(points[left], distance_upper_bound=reach_mm)[0])
    return near


def inside_once(ends: Points, ways: Points, spaces: Compartments, limits: TrackLimits) -> npt.NDArray[np.bool_]:
    """Ways that run in bone up to their mouth, do not come back to it beyond, and keep clear of the canal; (n,)."""
    inner = np.arange(2.0, limits.hole_length_mm + 0.5, 2.0)
    outer = np.arange(4.0, 30.0, 4.0)

    def along(field: DistanceField, steps: Distances) -> Distances:
        points = ends[:, None] + steps[:, None] * ways[:, None]
        return field.at(points.reshape(-1, 3)).reshape(points.shape[:2])

    before, beyond, clear = (along(spaces.sacrum, -inner), along(spaces.sacrum, outer), along(spaces.canal, outer))
    return np.asarray((before < 0.5).all(axis=1) & (beyond > 0.0).all(axis=1) & (clear > 2.0).all(axis=1))


def _jittered(ends: Points, ways: Points) -> tuple[Points, Points]:
    """Each way with others near it, shifted by up to SHIFT_MM and tilted by up to TILT_DEG; (n * m, 3) each."""
    first, second = across(ways)
    round_it = [np.zeros_like(ways), *(s * axis for axis in (first, second) for s in (-1.0, 1.0))]
    tilts = [np.zeros_like(ways)] + [
        size * (np.cos(turn) * first + np.sin(turn) * second)
        for size in (0.5 * np.tan(np.radians(TILT_DEG)), np.tan(np.radians(TILT_DEG)))
        for turn in np.arange(6) * (np.pi / 3)]
    moved = np.concatenate([ends + SHIFT_MM * shift for shift in round_it for _ in tilts])
    tilted = np.concatenate([ways + tilt for _ in round_it for tilt in tilts])
    return moved, tilted / np.linalg.norm(tilted, axis=1, keepdims=True)


def _contrast(
    ends: Points, ways: Points, inside: Points, spaces: Compartments, ct: Volume, *, outward_mm: float,
) -> tuple[Distances, Distances]:
    """How much denser bone is beside each way than on it, HU, and over how many mm that was read; (n,) each.

    Read from the mouth inwards until the cement begins, and outwards where the way crosses a hip.
    """
    at = np.arange(-40.0, outward_mm + STEP_MM, STEP_MM)
    points = ends[:, None] + at[:, None] * ways[:, None]
    within, beyond = (points[:, some].reshape(-1, 3) for some in (at <= 0, at > 0))
    bone = spaces.sacrum.at(within).reshape(len(ends), -1) < 0.0
    met = np.isfinite(cKDTree(inside).query(within, distance_upper_bound=2.5)[0]).reshape(len(ends), -1)
    # Everything deeper than the first cement met from the mouth inwards is no longer the empty hole.
    reached = np.logical_or.accumulate(met[:, ::-1], axis=1)[:, ::-1]
    hip = spaces.hips.at(beyond).reshape(len(ends), -1) < 0.0
    used = np.concatenate([bone & ~reached, hip], axis=1)
    rows = np.flatnonzero(used)
    drop = np.zeros(used.size)
    middle, beside = _read(points.reshape(-1, 3)[rows], np.repeat(ways, len(at), axis=0)[rows], ct)
    drop[rows] = np.clip(beside - middle, -CLIP_HU, CLIP_HU)
    count = used.sum(axis=1)
    return drop.reshape(used.shape).sum(axis=1) / np.maximum(count, 1), count * STEP_MM


def _read(points: Points, ways: Points, ct: Volume) -> tuple[Distances, Distances]:
    """HU at (n, 3) LPS mm points, and the third lowest of BESIDE places RING_MM away across unit `ways`; (n,) each.

    A hole is darker than nearly all that is round it; along an edge, half of the ring is dark as well.
    """
    first, second = across(ways)
    ring = [_hu_at(points + RING_MM * (np.cos(turn) * first + np.sin(turn) * second), ct)
            for turn in np.arange(BESIDE) * (2 * np.pi / BESIDE)]
    return _hu_at(points, ct), np.asarray(np.partition(ring, 2, axis=0)[2])


def _hu_at(points: Points, ct: Volume) -> Distances:
    index = ct.geometry.to_index(points).T
    return np.asarray(ndimage.map_coordinates(ct.hu, index, order=1, mode="nearest", output=np.float64))


def _whither(way: npt.NDArray[np.float64], spaces: Compartments, at: Points) -> str:
    """Where a way leads, in words."""
    local = spaces.frame.local(at[None])
    behind, aside = float(way @ local.back[0]), abs(float(way @ spaces.frame.left))
    if aside > max(abs(behind), 0.6):
        return "sideways"
    return "backwards" if behind > 0 else "forwards"


def logistic(x: float) -> float:
    """From 0 to 1, one half at 0."""
    return float(1.0 / (1.0 + np.exp(-np.clip(x, -40.0, 40.0))))


def three(vector: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """A vector (3,) as a value that can be compared and kept."""
    x, y, z = vector.tolist()
    return x, y, z
