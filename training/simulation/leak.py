"""Cement where it should not be: one mechanism for each way out of the bone, cut to the space it leads to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sacroleak.core.geometry import Points
from sacroleak.core.structures import Site
from sacroleak.training.simulation.cement import Treatment
from sacroleak.training.simulation.course import STEP_MM, Gait, beads, calibre, walk
from sacroleak.training.simulation.lesion import Drawn
from sacroleak.training.simulation.needle import NEEDLE_RADIUS_MM, NeedleTrack
from sacroleak.training.simulation.noise import Field
from sacroleak.training.simulation.pool import Pool, nearest_of, pour, shifted_to
from sacroleak.training.simulation.scene import Scene
from sacroleak.training.simulation.shapes import add_tube, empty, gradient_at, whole
from sacroleak.training.simulation.spaces import Spaces

VEIN_RADIUS_MM = (0.5, 1.9)
"""Sacral veins are 1 to 4 mm wide; in BodyParts3D (CC BY-SA, measured only) the lateral sacral veins are 2.4 mm wide
and lie 1 to 9 mm, half of them 4 to 6 mm, in front of the bone; the median one is 1.5 mm wide, within 4 mm of the
midline and 0.7 to 4 mm in front of the bone."""
LONGEST_VEIN_MM = 75.0
"""Length of a lateral sacral vein with its tributaries in BodyParts3D."""
LONGEST_NECK_MM = 25.0
"""The way through the bone is not seen when it is longer."""
ATTEMPTS = 5
TOLERANCE = 0.12
"""A leak whose volume is off by more is tried again elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LeakBody:
    """One leak before it is cut at the bone: its way out, `site` by mechanism, its signed distance in mm.

    Within the bone it holds at most the thin neck by which cement got out.
    """

    site: Site
    mechanism: str
    distance: Field
    drawn: Drawn


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """What a leak comes from: the treatment on `scene`, and the spaces around; `volume_ml` asked for outside bone."""

    scene: Scene
    spaces: Spaces
    treatment: Treatment
    volume_ml: float | None = None

    @cached_property
    def cement_lps_mm(self) -> Points:
        """Up to 300 voxels of the treatment's cement, evenly taken; (n, 3). The needle's tip where there is none."""
        cells = np.argwhere(self.treatment.body.distance[self.spaces.box] < 0)
        if len(cells) == 0:
            return self.treatment.body.tip_lps_mm[None]
        return self.spaces.scene.geometry.to_lps(cells[:: max(1, len(cells) // 300)])

    @property
    def out(self) -> float:
        """1 where the treated side is the left one, else -1."""
        return 1.0 if self.treatment.body.tip_lps_mm[0] >= self.spaces.midline_mm else -1.0

    def ml(self, rng: np.random.Generator, low: float, high: float) -> float:
        """The volume asked for, or one drawn between two, small ones as often as large ones."""
        return self.volume_ml if self.volume_ml is not None else float(np.exp(rng.uniform(np.log(low), np.log(high))))


Mechanism = Callable[[np.random.Generator, Source], LeakBody | None]


def foraminal_vein(rng: np.random.Generator, source: Source) -> LeakBody | None:
    """Out through an anterior foramen, then sideways, up or down over the pelvic surface."""
    spaces = source.spaces
    own = spaces.openings[(spaces.openings[:, 0] - spaces.midline_mm) * source.out > 0]
    if len(own) == 0:
        return None
    mouth = own[nearest_of(rng, own, source.cement_lps_mm, spread_mm=12.0)]
    up, back = spaces.axes
    inside = mouth + back * rng.uniform(1.0, 8.0) + rng.normal(0, 0.6, size=3)
    heading = np.array([source.out, 0, 0]) * rng.uniform(-0.4, 1.0) + up * rng.uniform(-1.0, 0.6)
    return _vein(rng, source, "foraminal_vein", [np.linspace(inside, mouth, 5)], heading, (0.35, 0.12))


def lateral_sacral_vein(rng: np.random.Generator, source: Source) -> LeakBody | None:
    """Down (or up) the pelvic surface, lateral to the anterior foramina."""
    spaces = source.spaces
    own = spaces.openings[(spaces.openings[:, 0] - spaces.midline_mm) * source.out > 0]
    beside = float(np.abs(own[:, 0] - spaces.midline_mm).max()) if len(own) else 22.0
    start = anterior_point(rng, source, beside_mm=(beside + 2.0, beside + 16.0))
    if start is None:
        return None
    up, _ = spaces.axes
    heading = up * (-1.0 if rng.random() < 0.8 else 1.0) - np.array([source.out, 0, 0]) * rng.uniform(0.0, 0.15)
    return _vein(rng, source, "lateral_sacral_vein", [start[None]], heading, (0.28, 0.15))


def median_sacral_vein(rng: np.random.Generator, source: Source) -> LeakBody | None:
    """Along the midline, reached directly or by a vein that crosses from the treated side."""
    spaces = source.spaces
    crossing = bool(rng.random() < 0.4)
    start = anterior_point(rng, source, beside_mm=(8.0, 20.0) if crossing else (0.0, 4.0))
    if start is None:
        return None
    legs = [start[None]]
    if crossing:
        way = np.array([-source.out, 0.0, 0.0])
        gait = Gait(length_mm=float(abs(start[0] - spaces.midline_mm)), lift_mm=2.0, winding=0.2)
        legs = [walk(rng, spaces, start, way, gait=gait)]
    up, _ = spaces.axes
    return _vein(rng, source, "median_sacral_vein", legs, up * (-1.0 if rng.random() < 0.75 else 1.0), (0.14, 0.35))


def needle_track(rng: np.random.Generator, source: Source) -> LeakBody | None:
    """Back along one of the operation's needles, from its hole in the sacrum outwards: straight and needle wide."""
    track = source.treatment.tracks[int(rng.integers(len(source.treatment.tracks)))]
    spaces = source.spaces
    hole, free = way_out_mm(spaces.scene, track)
    if free < 3.0:
        return None
    width = float(rng.uniform(0.75, 1.3))
    reach = float(rng.uniform(6, 40))
    if source.volume_ml is not None:
        reach = source.volume_ml * 1000 / (np.pi * (NEEDLE_RADIUS_MM * width) ** 2)
    reach = float(np.clip(reach, 3.0, free))
    broken = bool(rng.random() < 0.3) and reach > 10
    body = empty(spaces.scene)
    line = track.line(hole - 1.0, min(hole + reach * (1.35 if broken else 1.0), hole + free))
    radii = calibre(rng, len(line), NEEDLE_RADIUS_MM * width)
    for piece in beads(rng, len(line)) if broken else [slice(0, len(line))]:
        add_tube(body, spaces.scene, line[piece], radii[piece])
    room = np.maximum(np.float32(0.1) - spaces.sacrum, np.float32(1.0) - spaces.canal)
    if source.volume_ml is not None:
        body = shifted_to(body, room, source.volume_ml, spaces.scene, most_mm=(-0.7, 0.9))
    shaft = track.line(float(rng.uniform(0.0, hole)), hole + 1.0)
    drawn: Drawn = {"approach": str(track.approach), "reach_mm": reach, "radius_mm": NEEDLE_RADIUS_MM * width,
                    "broken": str(broken), "hole_lps_mm": track.line(hole, hole + 1)[0].tolist()}
    return _finished(source, "needle_track", np.maximum(body, room), (shaft, NEEDLE_RADIUS_MM), drawn)


def epidural(rng: np.random.Generator, source: Source) -> LeakBody | None:
    """Into the ventral canal, in front of the thecal sac: a tongue along its front wall, or a plug."""
    return _in_canal(rng, source, "epidural", source.spaces.ventral_canal)


def dorsal_epidural(rng: np.random.Generator, source: Source) -> LeakBody | None:
    """Into the dorsal half of the canal: none of the four sites."""
    return _in_canal(rng, source, "dorsal_epidural", source.spaces.dorsal_canal)


def cortical_defect(rng: np.random.Generator, source: Source) -> LeakBody | None:
    """Through a cortical defect into the presacral space: a blob or a plate on the anterior cortex."""
    spaces = source.spaces
    start = anterior_point(rng, source, beside_mm=(3.0, 55.0))
    if start is None:
        return None
    plate = bool(rng.random() < 0.45)
    flat = float(rng.uniform(0.2, 0.45) if plate else rng.uniform(0.6, 1.1))
    ml = source.ml(rng, 0.08, 2.5)
    outward = gradient_at(spaces.hull, spaces.scene, start)
    size = float(np.cbrt(ml * 1000 * 3 / (4 * np.pi) / flat))
    centre = start + outward * size * flat * rng.uniform(0.3, 0.8)
    second = np.cross(outward, rng.normal(size=3))
    second /= np.linalg.norm(second)
    shape = Pool(centre_lps_mm=centre, axes=np.stack([outward, second, np.cross(outward, second)]),
                 scale=np.array([flat, rng.uniform(0.8, 1.3), 1.0]), rough=float(rng.uniform(0.06, 0.2)))
    field = pour(rng, spaces.scene, spaces.presacral, shape, ml)
    drawn: Drawn = {"form": "plate" if plate else "blob", "asked_ml": ml, "flatness": flat}
    neck = (_neck(source, start), float(rng.uniform(0.8, 2.5)))
    return _finished(source, "cortical_defect", field, neck, drawn)


def foramen(rng: np.random.Generator, source: Source) -> LeakBody | None:
    """Confined to a sacral foramen."""
    return _fill(rng, source, "foramen", source.spaces.foramina, (0.08, 0.7))


def sacroiliac_joint(rng: np.random.Generator, source: Source) -> LeakBody | None:
    """Into the sacroiliac joint: a thin sheet."""
    return _fill(rng, source, "sacroiliac_joint", source.spaces.joint, (0.08, 1.0))


def disc(rng: np.random.Generator, source: Source) -> LeakBody | None:
    """Through the S1 endplate into the L5/S1 disc."""
    field = source.spaces.scene.distance.get("disc")
    return None if field is None else _fill(rng, source, "disc", field + np.float32(0.4), (0.1, 1.5))


def soft_tissue(rng: np.random.Generator, source: Source) -> LeakBody | None:
    """Into the muscle behind the sacrum, away from any needle's way."""
    spaces = source.spaces
    room = np.maximum(np.maximum(spaces.soft, spaces.behind), spaces.sacrum - np.float32(9.0))
    np.maximum(room, -spaces.foramina, out=room)
    ways = empty(spaces.scene)
    for track in source.treatment.tracks:
        add_tube(ways, spaces.scene, np.array([track.tip_lps_mm, track.skin_lps_mm]), 0.0)
    np.maximum(room, np.float32(4.5) - ways, out=room)
    return _fill(rng, source, "soft_tissue", room, (0.1, 1.0))


MECHANISMS: Mapping[str, Mechanism] = {
    "foraminal_vein": foraminal_vein, "lateral_sacral_vein": lateral_sacral_vein,
    "median_sacral_vein": median_sacral_vein, "needle_track": needle_track, "epidural": epidural,
    "cortical_defect": cortical_defect, "foramen": foramen, "sacroiliac_joint": sacroiliac_joint, "disc": disc,
    "dorsal_epidural": dorsal_epidural, "soft_tissue": soft_tissue,
}
"""Every way out of the bone, by name."""

OF_SITE: Mapping[Site, tuple[str, ...]] = {
    Site.ANTERIOR_EPIDURAL_SPACE: ("epidural",),
    Site.PUNCTURE_PATH: ("needle_track",),
    Site.SACRAL_VENOUS_PLEXUS: ("foraminal_vein", "lateral_sacral_vein", "median_sacral_vein"),
    Site.ANTERIOR_SACRAL_SPACE: ("cortical_defect",),
    Site.OTHER: ("foramen", "sacroiliac_joint", "disc", "dorsal_epidural", "soft_tissue"),
}
"""Mechanisms of each site, in the order of precedence: where two leaks meet, the earlier site keeps the place."""

SITE_OF: Mapping[str, Site] = {name: site for site, names in OF_SITE.items() for name in names}


def anterior_point(rng: np.random.Generator, source: Source, *, beside_mm: tuple[float, float]) -> Points | None:
    """A point on the anterior cortex so far beside the midline on the treated side, rather near the cement; (3,)."""
    spaces = source.spaces
    lateral = (spaces.scene.axes[0] - spaces.midline_mm) * source.out
    if beside_mm[0] < 1.0:
        lateral = np.abs(lateral)
    columns = np.flatnonzero((lateral >= beside_mm[0]) & (lateral <= beside_mm[1]))
    if columns.size == 0:
        return None
    part = slice(int(columns[0]), int(columns[-1]) + 1)
    skin = (spaces.presacral[part] < 0) & (spaces.sacrum[part] < 1.6 * spaces.scene.geometry.spacing_mm.max())
    skin &= (spaces.canal[part] > 4.0) & (spaces.spine[part] > 2.0)
    cells = np.argwhere(skin) + (part.start, 0, 0)
    cells = cells[(np.isin(cells[:, 0], columns))]
    if len(cells) == 0:
        return None
    points = spaces.scene.geometry.to_lps(cells[:: max(1, len(cells) // 500)])
    chosen: Points = points[nearest_of(rng, points, source.cement_lps_mm, spread_mm=8.0)]
    return chosen


def way_out_mm(scene: Scene, track: NeedleTrack) -> tuple[float, float]:
    """How far from its tip a needle leaves the sacrum for good, and how far it then runs to the skin or out of view."""
    length = float(np.linalg.norm(track.skin_lps_mm - track.tip_lps_mm))
    line = track.line(0.0, length, 0.5)
    index = scene.geometry.to_index(line)
    seen = ((index >= 0) & (index <= np.array(scene.geometry.shape) - 1)).all(axis=1)
    last = int(np.argmin(seen)) if not seen.all() else len(line)
    inside = np.flatnonzero(scene.at("sacrum", line[:last]) < 0) if last else np.empty(0, dtype=int)
    if inside.size == 0:
        return 0.0, 0.0
    step = length / (len(line) - 1)
    hole = (int(inside[-1]) + 1) * step
    return hole, max((last - 1) * step - hole, 0.0)


def _vein(rng: np.random.Generator, source: Source, name: str, legs: list[Points], heading: Points,
          manner: tuple[float, float]) -> LeakBody | None:
    """A vein that begins with `legs` and goes on towards `heading`, with `manner`: its winding and its straightening.

    Its length follows from volume and calibre; another course is tried where the room was too short.
    """
    spaces, room = source.spaces, source.spaces.venous
    best: tuple[float, Field, Drawn] | None = None
    for _ in range(ATTEMPTS):
        radius = float(np.exp(rng.uniform(*np.log(VEIN_RADIUS_MM))))
        length = float(rng.uniform(8, LONGEST_VEIN_MM))
        if source.volume_ml is not None:
            length = float(np.clip(source.volume_ml * 1000 / (np.pi * radius**2), 5.0, LONGEST_VEIN_MM))
            radius = float(np.clip(np.sqrt(source.volume_ml * 1000 / np.pi / length), *VEIN_RADIUS_MM))
        body, drawn = _tree(rng, source, (legs, heading), (radius, length), manner)
        if source.volume_ml is not None:
            body = shifted_to(body, room, source.volume_ml, spaces.scene, most_mm=(-0.6 * radius, 2.1 - radius))
        body = np.maximum(body, room)
        ml = float(np.count_nonzero(body < 0)) * spaces.scene.geometry.voxel_ml
        wanted = source.volume_ml if source.volume_ml is not None else max(ml, 0.7 * np.pi * radius**2 * length / 1000)
        off = abs(ml / wanted - 1)
        if ml > 0 and (best is None or off < best[0]):
            best = off, body, drawn
        if best is not None and best[0] <= TOLERANCE:
            break
    if best is None:
        return None
    neck = (_neck(source, legs[0][0]), float(rng.uniform(0.6, 1.4)))
    return _finished(source, name, best[1], neck if rng.random() < 0.75 else None, best[2])


def _tree(rng: np.random.Generator, source: Source, way: tuple[list[Points], Points], size: tuple[float, float],
          manner: tuple[float, float]) -> tuple[Field, Drawn]:
    """Stem and branches of one vein as a signed distance in mm."""
    (legs, heading), (radius, length), spaces = way, size, source.spaces
    branches = int(rng.choice(4, p=[0.4, 0.3, 0.2, 0.1])) if length > 15 else 0
    stem_mm, twig_mm = length / (1 + 0.3 * branches), 0.3 * length / (1 + 0.3 * branches)
    lift = radius + float(rng.uniform(0.2, 2.5))
    before = np.concatenate(legs)
    gait = Gait(length_mm=stem_mm - STEP_MM * (len(before) - 1), lift_mm=lift, winding=manner[0], pull=manner[1])
    stem = np.concatenate([before, walk(rng, spaces, before[-1], heading, gait=gait)[1:]])
    broken = bool(rng.random() < 0.2) and len(stem) > 8
    body = empty(spaces.scene)
    radii = calibre(rng, len(stem), radius)
    for piece in beads(rng, len(stem)) if broken else [slice(0, len(stem))]:
        add_tube(body, spaces.scene, stem[piece], radii[piece])
    for _ in range(branches):
        root = int(rng.integers(len(stem) // 4, len(stem)))
        aside = heading + rng.normal(0, 1.2, size=3) * np.linalg.norm(heading)
        twig = walk(rng, spaces, stem[root], aside, gait=Gait(length_mm=twig_mm, lift_mm=lift, winding=0.4))
        add_tube(body, spaces.scene, twig, calibre(rng, len(twig), 0.75 * radius))
    drawn: Drawn = {"radius_mm": radius, "length_mm": length, "branches": branches, "lift_mm": lift,
                    "broken": str(broken), "start_lps_mm": stem[0].tolist()}
    return body, drawn


def _in_canal(rng: np.random.Generator, source: Source, name: str, room: Field) -> LeakBody | None:
    """A tongue along one wall of the canal, or a plug of one half of it, near the cement's level."""
    spaces = source.spaces
    inside = np.argwhere(room < -0.5)
    if len(inside) == 0:
        return None
    points = spaces.scene.geometry.to_lps(inside)
    near = nearest_of(rng, points, source.cement_lps_mm, spread_mm=5.0)
    tongue = bool(rng.random() < 0.6)
    stretch = float(rng.uniform(2.5, 6.0) if tongue else rng.uniform(0.8, 1.5))
    ml = source.ml(rng, 0.05, 1.0)
    up, back = spaces.axes
    shape = Pool(centre_lps_mm=points[near], axes=np.stack([np.array([1.0, 0, 0]), back, up]),
                 scale=np.array([1.0, 0.6 if tongue else 1.2, stretch]), rough=float(rng.uniform(0.06, 0.2)))
    field = pour(rng, spaces.scene, room, shape, ml, along=spaces.dorsal)
    drawn: Drawn = {"form": "tongue" if tongue else "plug", "stretch": stretch, "asked_ml": ml,
                    "centre_lps_mm": points[near].tolist()}
    neck = (_neck(source, points[near]), float(rng.uniform(0.7, 1.5))) if rng.random() < 0.5 else None
    return _finished(source, name, field, neck, drawn)


def _fill(rng: np.random.Generator, source: Source, name: str, room: Field,
          range_ml: tuple[float, float]) -> LeakBody | None:
    """A pool in a narrow room, rather near the cement."""
    cells = np.argwhere(room < 0)
    if len(cells) == 0:
        return None
    points = source.spaces.scene.geometry.to_lps(cells[:: max(1, len(cells) // 1500)])
    lateral = (points[:, 0] - source.spaces.midline_mm) * source.out
    points = points[lateral > -3.0] if (lateral > -3.0).any() else points
    centre = points[nearest_of(rng, points, source.cement_lps_mm, spread_mm=4.0)]
    ml = source.ml(rng, *range_ml)
    shape = Pool(centre_lps_mm=centre, axes=np.eye(3), scale=rng.uniform(0.7, 1.3, size=3),
                 rough=float(rng.uniform(0.06, 0.2)))
    field = pour(rng, source.spaces.scene, room, shape, ml)
    drawn: Drawn = {"centre_lps_mm": centre.tolist(), "asked_ml": ml}
    neck = (_neck(source, centre), float(rng.uniform(0.7, 1.6))) if rng.random() < 0.6 else None
    return _finished(source, name, field, neck, drawn)


def _neck(source: Source, exit_lps_mm: Points) -> Points:
    """The straight way through the bone from the cement nearest to where it comes out; (n, 3) LPS mm."""
    cement = source.cement_lps_mm
    nearest = cement[int(np.argmin(np.linalg.norm(cement - exit_lps_mm, axis=1)))]
    way: npt.NDArray[np.float64] = np.linspace(nearest, exit_lps_mm, 24)
    return way


def _finished(source: Source, name: str, outside: Field, neck: tuple[Points, float] | None,
              drawn: Drawn) -> LeakBody | None:
    """The leak on the scene's own grid, with its neck where that stays in bone; None without a voxel outside bone."""
    spaces = source.spaces
    inside = int(np.count_nonzero(outside < 0))
    if inside == 0:
        return None
    body = outside
    short = neck is not None and float(np.linalg.norm(neck[0][-1] - neck[0][0])) < LONGEST_NECK_MM
    if neck is not None and (short or name == "needle_track") and spaces.scene.at("canal", neck[0]).min() > -0.5:
        tube = empty(spaces.scene)
        add_tube(tube, spaces.scene, neck[0], neck[1])
        body = np.minimum(outside, np.maximum(tube, spaces.sacrum + np.float32(0.05)))
    drawn = {**drawn, "neck": str(neck is not None), "volume_ml": inside * spaces.scene.geometry.voxel_ml}
    return LeakBody(site=SITE_OF[name], mechanism=name, distance=whole(source.scene, body, spaces.box), drawn=drawn)


