"""Needle tracks from what the scan shows: a hole in bone, a column of cement, and neither."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sacroleak.core.geometry import Points
from sacroleak.core.structures import Site, Structure
from sacroleak.core.volume import Volume
from sacroleak.models.attribution import attribute
from sacroleak.models.label_grids import labels_on
from sacroleak.models.limits import shipped_limits
from sacroleak.models.parts import measure_scan
from sacroleak.models.segmentation import Segmentation
from sacroleak.models.tracks import Track
from tests.phantoms import ALA_LEFT, Pose, Shape, alar_cement, back_y, ball, cement_at, front_y, track, tube

LIMITS = shipped_limits()
POSE = Pose()


def tracks_of(scan: Segmentation) -> tuple[Track, ...]:
    found = measure_scan(scan, LIMITS)
    assert found is not None
    return found[0].tracks


def with_bone(scan: Segmentation, *holes: Shape) -> Segmentation:
    """The scan with noisy bone of 250 HU, its cortex denser, and blood in `holes`."""
    grid = scan.ct.geometry
    bones = np.isin(labels_on(scan.anatomy, grid).labels, (Structure.SACRUM, Structure.HIP_LEFT, Structure.HIP_RIGHT))
    hu = np.where(bones, 250.0, 50.0) + np.random.default_rng(7).normal(0.0, 20.0, grid.shape)
    own = POSE.to_own(grid.to_lps(np.argwhere(bones)))
    for hole in holes:
        drilled = np.zeros(grid.shape, dtype=np.bool_)
        drilled[bones] = hole(own) <= 0
        hu[drilled] = 45.0
    whole = np.where(scan.cement.labels, 2200.0, hu).astype(np.int16)
    return replace(scan, ct=Volume(hu=whole, geometry=grid))


def own_way(towards: tuple[float, float, float]) -> Points:
    way = POSE.matrix() @ np.array(towards)
    return np.asarray(way / np.linalg.norm(way))


@pytest.mark.parametrize("towards", [(0.1, 1.0, 0.1), (0.3, 0.9, -0.3), (1.0, 0.35, 0.0)])
def test_a_hole_through_the_bone_is_found_where_it_was_drilled(towards: tuple[float, float, float]) -> None:
    scan = cement_at(alar_cement(radius=4.0), margin_mm=34.0)
    drilled = with_bone(scan, track(ALA_LEFT, towards, 80.0, 2.8))
    best = tracks_of(drilled)[0]
    assert best.score > 0.4
    assert best.angle_deg(own_way(towards)) < 12.0
    off = best.distance_mm(POSE.to_lps([ALA_LEFT]) + np.arange(10.0, 30.0, 5.0)[:, None] * own_way(towards))
    assert off.max() < 5.0


def test_whole_bone_shows_no_hole() -> None:
    scan = cement_at(alar_cement(radius=7.0), margin_mm=38.0)
    assert all(found.score < 0.5 for found in tracks_of(with_bone(scan)))


def test_a_straight_column_is_a_track_and_no_evidence_for_itself() -> None:
    scan = cement_at(alar_cement(), track((36, back_y(22, 36) - 5, 22), (0.2, 1, 0.2), 30))
    found = measure_scan(scan, LIMITS)
    assert found is not None
    view, parts = found
    assert [t.column >= 0 for t in view.tracks] == [True]
    assert view.tracks[0].angle_deg(own_way((0.2, 1.0, 0.2))) < 8.0
    assert "backwards" in view.tracks[0].sentence
    assert parts[0].features.place.track_score == 0.0


def test_a_drop_on_the_way_of_a_column_lies_on_that_track() -> None:
    column = track((36, back_y(22, 36) - 5, 22), (0.0, 1, 0.0), 22)
    drop = ball((36.0, back_y(22, 36) + 24.0, 22.0), 2.5)
    found = measure_scan(cement_at(alar_cement(), column, drop), LIMITS)
    assert found is not None
    smallest = found[1][-1].features
    assert smallest.place.track_mm < 3.0
    assert smallest.place.track_score > 0.5


def test_a_winding_vein_and_cement_elsewhere_make_no_track() -> None:
    bent = tube([(20, front_y(20, 20) - 4, 20), (30, front_y(8, 30) - 5, 8), (22, front_y(-6, 22) - 4, -6)], 2.6)
    assert tracks_of(cement_at(alar_cement(), bent)) == ()
    assert tracks_of(cement_at(track((36, back_y(22, 36) + 6, 22), (0, 1, 0), 22))) == ()


def test_pieces_of_a_straight_vein_are_no_track_of_each_other() -> None:
    line = [(20.0, front_y(z, 20.0) - 4.0, z) for z in np.arange(30.0, -22.0, -2.0)]
    upper, lower = tube(line[:11], 2.4), tube(line[15:], 2.4)
    found = attribute(cement_at(alar_cement(), upper, lower), LIMITS)
    assert {leak.site for leak in found.leaks} == {Site.SACRAL_VENOUS_PLEXUS}
