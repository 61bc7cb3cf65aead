"""What a manifest says of the needles, weighed beside what the scan shows: evidence, never proof and never needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from sacroleak.core.geometry import Points
from sacroleak.core.needle import Approach, NeedleNote
from sacroleak.models.canal import SacralFrame, Vector
from sacroleak.models.columns import can_come
from sacroleak.models.compartments import Compartments
from sacroleak.models.course import Course, direction
from sacroleak.models.limits import NeedleLimits, TrackLimits
from sacroleak.models.tracks import (
    NOTHING_HEARD,
    Heard,
    Track,
    inside_once,
    logistic,
    outwards,
    spread,
    three,
)

NAMED_UP = 0.8
"""A needle whose entry is named may have come more steeply from above than one that is looked for: over the iliac
fossa, forwards and upwards at once, its way has up to this part along the canal (simulated needles: up to 0.74)."""
MEETS_MM = 2.0
"""The way meets cement whose voxel centres lie this near: half the needle's width, and most of a 1 mm voxel."""
DEEP_MM = 60.0
"""Cement is looked for this far along the way from the sacrum's surface; longer than an ala is wide."""
TELLING = 1.1
"""Odds moved by less than this factor are not spoken of."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Witness:
    """What is known of the needles of one scan, in its sacral frame.

    `entries`: (n, 3) LPS mm, those near enough to be of this sacrum. `notes`: for a reader of the report.
    """

    approach: Approach | None
    entries: Points
    frame: SacralFrame
    limits: NeedleLimits
    notes: tuple[str, ...]

    def hear(self, mouth_lps: Vector, way: Vector) -> Heard:
        """What approach and entries say of a way: from (3,) LPS mm on the sacrum, (3,) unit vector outwards."""
        near, agrees = self._passes(mouth_lps, way), self._agrees(mouth_lps, way)
        return self._heard(self.limits.entry_odds**near, self._approach_odds(agrees))

    def weighed(self, tracks: Sequence[Track]) -> list[Track]:
        """The tracks with their scores as approach and entries let them seem."""
        return [_weighed(track, self.hear(np.array(track.entry_lps_mm), np.array(track.direction)))
                for track in tracks]

    def ways(self, inside: Points, spaces: Compartments, limits: TrackLimits) -> tuple[list[Track], tuple[str, ...]]:
        """Straight ways out to the named entries from (n, 3) LPS mm cement in the bone; and notes on entries that
        have none.

        Several for each entry: where in the cement the tip was cannot be seen, and they spread like a fan.
        """
        found: list[Track] = []
        notes = []
        for entry in self.entries if len(inside) else ():
            fan = [_weighed(track, self._heard(1.0, self._approach_odds(
                self._agrees(np.array(track.entry_lps_mm), np.array(track.direction)))))
                for track in _fan(entry, inside, spaces, (limits, self.limits))]
            found += fan
            if not fan:
                notes.append(f"No straight way that tells of a needle leads from the cement to the manifest's entry at "
                             f"{_place(entry)}.")
        return found, tuple(notes)

    def _passes(self, mouth: Vector, way: Vector) -> float:
        """How near the way passes to an entry: 1 through it, 0 from where it can no longer mean it."""
        if len(self.entries) == 0:
            return 0.0
        offset = self.entries - mouth
        along = np.maximum(offset @ way, 0.0)
        miss = np.linalg.norm(offset - along[:, None] * way, axis=1)
        allowed = self.limits.entry_near_mm + along * np.tan(np.radians(self.limits.entry_near_deg))
        return float(np.clip(1.0 - miss / allowed, 0.0, 1.0).max())

    def _agrees(self, mouth: Vector, way: Vector) -> float:
        """How clearly the way is of the named approach: 1 clearly, -1 clearly not, 0 on the border or unknown."""
        if self.approach is None:
            return 0.0
        low, high = self._window(self.approach)
        bearing = bearing_deg(mouth, way, self.frame)
        return float(np.clip(min(bearing - low, high - bearing) / self.limits.bearing_blur_deg, -1.0, 1.0))

    def _window(self, approach: Approach) -> tuple[float, float]:
        limits = self.limits
        return {
            Approach.POSTERIOR: (limits.posterior_from_deg, limits.posterior_to_deg),
            Approach.TRANSILIAC: (-limits.anterior_from_deg, limits.posterior_from_deg),
            Approach.ANTERIOR_OBLIQUE: (-limits.anterior_to_deg, -limits.anterior_from_deg),
        }[approach]

    def _approach_odds(self, agrees: float) -> float:
        return float(self.limits.approach_odds**agrees if agrees >= 0 else self.limits.against_odds**agrees)

    def _heard(self, by_entry: float, by_approach: float) -> Heard:
        """Both factors and what they mean, in words."""
        entry = "entry" if by_entry > TELLING else ""
        word = f"approach ({self.approach})" if self.approach is not None else ""
        speaking = [w for w in (entry, word if by_approach > TELLING else "") if w]
        sentence = f" The manifest's {' and '.join(speaking)} spoke for it." if speaking else ""
        if by_approach < 1 / TELLING:
            sentence += f" The manifest's {word} spoke against it."
        return Heard(odds=by_entry * by_approach, sentence=sentence)


def witness(note: NeedleNote, spaces: Compartments, limits: NeedleLimits) -> Witness:
    """What a scan's note is worth: entries too far from the sacrum are named in the notes and left out."""
    every: Points = np.array(note.entries_lps_mm, dtype=np.float64).reshape(-1, 3)
    away = spaces.surface.query(every)[0]
    near = away <= limits.entry_reach_mm
    words = [f"the approach ({note.approach})"] if note.approach is not None else []
    if near.any():
        words.append("one entry" if near.sum() == 1 else f"{near.sum()} entries")
    notes = [f"Known of the needles from the manifest, and taken as evidence: {' and '.join(words)}."] if words else []
    notes += [f"The manifest's entry at {_place(entry)} lies {gap:.0f} mm from the sacrum and is not used: is it of "
              "this scan, in LPS mm?" for entry, gap in zip(every[~near], away[~near], strict=True)]
    return Witness(approach=note.approach, entries=every[near], frame=spaces.frame, limits=limits, notes=tuple(notes))


def bearing_deg(mouth_lps: Vector, way: Vector, frame: SacralFrame) -> float:
    """Where a way (3,) from (3,) LPS mm leads across the body: 0 straight to the side it is on, 90 straight back, -90
    straight to the front; the body's front lies midway between the sacrum's own front and its up.
    """
    local = frame.local(mouth_lps[None])
    out = float(way @ frame.left) * (1.0 if local.left_mm[0] >= 0 else -1.0)
    behind = float(way @ (local.back[0] - local.up[0])) / np.sqrt(2.0)
    return float(np.degrees(np.arctan2(behind, out)))


def heard_of(course: Course, spaces: Compartments, about: Witness | None) -> Heard:
    """What is said of a part's own course, from the end that lies nearer to the bone outwards."""
    if about is None or len(course.line) < 2:
        return NOTHING_HEARD
    line, _ = outwards(course, spaces)
    return about.hear(line[0], direction(line[-1] - line[0]))


def _weighed(track: Track, heard: Heard) -> Track:
    return replace(track, score=heard.weigh(track.score), heard=heard)


def _fan(
    entry: Vector, inside: Points, spaces: Compartments, limits: tuple[TrackLimits, NeedleLimits],
) -> list[Track]:
    """Ways from the cement nearest to an entry out to it, by which a needle can have come, scored by what cement they
    meet in the bone.
    """
    tracks, needles = limits
    starts = spread(_lump(entry, inside, needles.entry_lump_mm))
    length = np.linalg.norm(entry - starts, axis=1)
    far = length >= needles.entry_base_mm
    starts, ways = starts[far], (entry - starts[far]) / length[far, None]
    if len(starts) == 0:
        return []
    depth = _depth_mm(starts, ways, spaces)
    ends = starts + depth[:, None] * ways
    fair = (depth <= tracks.hole_reach_mm) & can_come(ends, ways, spaces.frame, up=NAMED_UP)
    fair[fair] = inside_once(ends[fair], ways[fair], spaces, tracks)
    tree, inwards = cKDTree(inside), np.arange(0.0, DEEP_MM)[:, None]
    found = []
    for end, way in zip(ends[fair], ways[fair], strict=True):
        met = float(np.isfinite(tree.query(end - inwards * way, distance_upper_bound=MEETS_MM)[0]).sum())
        score = needles.entry_trust * logistic((met - needles.entry_cement_mm) / (0.3 * needles.entry_cement_mm))
        text = f"A straight way leads from the cement to the manifest's entry at {_place(entry)}."
        found.append(Track(entry_lps_mm=three(end), direction=three(way), score=score, sentence=text, named=True))
    return found


def _lump(entry: Vector, inside: Points, reach_mm: float) -> Points:
    """The cement about the place that is nearest to the entry."""
    nearest = inside[np.argmin(np.linalg.norm(inside - entry, axis=1))]
    return np.asarray(inside[np.linalg.norm(inside - nearest, axis=1) <= reach_mm])


def _depth_mm(starts: Points, ways: Points, spaces: Compartments) -> npt.NDArray[np.float64]:
    """How far (n, 3) places in the bone lie from where (n, 3) ways leave it for good; (n,) mm."""
    steps = np.arange(0.0, DEEP_MM + 1.0)
    bone = spaces.sacrum.at((starts[:, None] + steps[:, None] * ways[:, None]).reshape(-1, 3)) <= 0.0
    last = bone.reshape(len(starts), -1)[:, ::-1].argmax(axis=1)
    return np.asarray(steps[::-1][last])


def _place(entry: Vector) -> str:
    return f"LPS {', '.join(f'{x:.0f}' for x in entry)} mm"
