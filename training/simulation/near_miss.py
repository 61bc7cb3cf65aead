"""Cement that nearly leaks: up to the bone's own surface from inside, and not beyond it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from sacroleak.core.geometry import Points
from sacroleak.training.simulation.cement import CementBody, Treatment, meet_volume
from sacroleak.training.simulation.leak import Source, anterior_point, way_out_mm
from sacroleak.training.simulation.needle import NEEDLE_RADIUS_MM
from sacroleak.training.simulation.noise import Field
from sacroleak.training.simulation.plan import LesionKind
from sacroleak.training.simulation.pool import Pool, nearest_of, pour
from sacroleak.training.simulation.shapes import add_tube, empty

NearMiss = Callable[[np.random.Generator, Source], Field | None]

WITHIN_MM = 0.05
"""A near-miss ends so little inside the surface that no voxel's middle lies outside."""
MOST_SHARE = 0.35
"""Of a treatment's cement, at most this much goes to a near-miss."""


def front_cortex(rng: np.random.Generator, source: Source) -> Field | None:
    """Against the anterior cortex from inside: the shape of a presacral leak's root, without the leak."""
    place = anterior_point(rng, source, beside_mm=(8.0, 50.0))
    return None if place is None else _against(rng, source, place)


def canal_wall(rng: np.random.Generator, source: Source) -> Field | None:
    """Against the canal's wall from inside the bone."""
    spaces = source.spaces
    return _beside(rng, source, (spaces.canal > 0) & (spaces.canal < 2.0))


def foramen_wall(rng: np.random.Generator, source: Source) -> Field | None:
    """Against a foramen from inside the bone."""
    spaces = source.spaces
    if len(spaces.openings) == 0:
        return None
    own = spaces.openings[(spaces.openings[:, 0] - spaces.midline_mm) * source.out > 0]
    if len(own) == 0:
        return None
    mouth = own[nearest_of(rng, own, source.cement_lps_mm, spread_mm=12.0)]
    return _against(rng, source, mouth + np.array([source.out * 6.0, 0.0, 0.0]))


def joint_plate(rng: np.random.Generator, source: Source) -> Field | None:
    """Against the subchondral plate of the sacroiliac joint."""
    spaces = source.spaces
    return _beside(rng, source, (spaces.hips > 0) & (spaces.hips + np.abs(spaces.sacrum) < 6.0))


def eroded_lesion(rng: np.random.Generator, source: Source) -> Field | None:
    """In an eroded lytic lesion up to the former contour: outside the bone that is left, inside the one there was."""
    lesion = source.treatment.lesion
    if lesion is None or not lesion.eroded or lesion.kind is LesionKind.SCLEROTIC:
        return None
    spaces = source.spaces
    tumour = lesion.distance[spaces.box]
    edge = np.argwhere((tumour < 0) & (spaces.sacrum < 0) & (spaces.sacrum > -2.0))
    if len(edge) == 0:
        return None
    points = spaces.scene.geometry.to_lps(edge)
    place = points[nearest_of(rng, points, source.cement_lps_mm, spread_mm=5.0)]
    return _against(rng, source, place, room=np.maximum(tumour, spaces.sacrum + np.float32(WITHIN_MM)))


def needle_hole(rng: np.random.Generator, source: Source) -> Field | None:
    """The needle's hole filled from the cement to the cortex, and no farther."""
    spaces = source.spaces
    track = source.treatment.tracks[int(rng.integers(len(source.treatment.tracks)))]
    hole, free = way_out_mm(spaces.scene, track)
    if hole < 3.0 or free <= 0:
        return None
    tube = empty(spaces.scene)
    add_tube(tube, spaces.scene, track.line(0.0, hole), NEEDLE_RADIUS_MM * float(rng.uniform(0.9, 1.2)))
    filled: Field = np.maximum(tube, spaces.sacrum + np.float32(WITHIN_MM))
    return filled


NEAR_MISSES: Mapping[str, NearMiss] = {
    "front_cortex": front_cortex, "canal_wall": canal_wall, "foramen_wall": foramen_wall, "joint_plate": joint_plate,
    "eroded_lesion": eroded_lesion, "needle_hole": needle_hole,
}
"""Every way of nearly leaking, by name."""


def nearly_leaked(rng: np.random.Generator, source: Source, name: str) -> Treatment | None:
    """The treatment with some of its cement brought to the bone's surface, its volume as before; None without room."""
    extra, body = NEAR_MISSES[name](rng, source), source.treatment.body
    if extra is None:
        return None
    spaces, box = source.spaces, source.spaces.box
    voxel_ml = spaces.scene.geometry.voxel_ml
    ml = float(np.count_nonzero(extra < 0)) * voxel_ml
    if ml == 0 or ml > MOST_SHARE * body.volume_ml:
        return None
    # The rest of the body shrinks by what the near-miss takes.
    field = meet_volume(body.distance[box], np.maximum(spaces.sacrum, body.distance[box]), body.volume_ml,
                        spaces.scene.geometry, fixed=extra)
    distance = body.distance.copy()
    distance[box] = field
    inside = float(np.count_nonzero(field < 0)) * voxel_ml
    drawn = {**body.drawn, "near_miss": name, "near_miss_ml": ml, "volume_ml": inside}
    return replace(source.treatment, body=CementBody(distance=distance, tip_lps_mm=body.tip_lps_mm, volume_ml=inside,
                                                     drawn=drawn))


def _beside(rng: np.random.Generator, source: Source, wall: np.ndarray) -> Field | None:
    """Against one of a wall's voxels on the treated side, rather near the cement."""
    spaces = source.spaces
    points = spaces.scene.geometry.to_lps(np.argwhere(wall & (np.abs(spaces.sacrum) < 2.5)))
    points = points[(points[:, 0] - spaces.midline_mm) * source.out > 0] if len(points) else points
    if len(points) == 0:
        return None
    points = points[:: max(1, len(points) // 500)]
    return _against(rng, source, points[nearest_of(rng, points, source.cement_lps_mm, spread_mm=5.0)])


def _against(rng: np.random.Generator, source: Source, place: Points, *, room: Field | None = None) -> Field:
    """A pool inside the bone that touches its surface at `place`, and a way to it from the cement."""
    spaces = source.spaces
    inside = spaces.sacrum + np.float32(WITHIN_MM) if room is None else room
    volume = source.treatment.body.volume_ml * float(rng.uniform(0.05, 0.2))
    pool = Pool(centre_lps_mm=place, axes=np.eye(3), scale=rng.uniform(0.7, 1.3, size=3), rough=0.15)
    field = pour(rng, spaces.scene, inside, pool, volume)
    cement = source.cement_lps_mm
    nearest = cement[int(np.argmin(np.linalg.norm(cement - place, axis=1)))]
    way = empty(spaces.scene)
    add_tube(way, spaces.scene, np.stack([nearest, place]), float(rng.uniform(1.0, 2.5)))
    joined: Field = np.minimum(field, np.maximum(way, spaces.sacrum + np.float32(0.4)))
    return joined
