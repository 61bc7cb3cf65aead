"""Weak cement that the networks hardly see: taken where the other side has nothing, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.cement import Bright, delineate
from sacroleak.models.faint import faint_in
from sacroleak.models.segmentation import Segmentation
from tests.phantoms import Pose, Shape, alar_cement, anatomy, ball, front_y, mirrored, tube

POSE = Pose()
SOFT_HU, LEVEL_HU, FAINT_HU = 50.0, 850.0, 600.0
HALF_WIDTH_MM, Z_MM = 24.0, 6.0


def before_the_bone(left_mm: float, *, gap_mm: float = 1.5, radius_mm: float = 2.5) -> Shape:
    """A ball so far in front of the sacrum."""
    return ball((left_mm, front_y(Z_MM, left_mm) - gap_mm - radius_mm, Z_MM), radius_mm)


def scan_of(*balls: Shape, hu: float = FAINT_HU) -> tuple[LabelMap, Volume, list[np.ndarray]]:
    """Bones, a scan on their grid with the balls, and where these are."""
    bones = anatomy(POSE)
    grid = bones.geometry
    own = POSE.to_own(grid.to_lps(np.argwhere(np.ones(grid.shape, dtype=np.bool_))))
    inside = [(shape(own) <= 0).reshape(grid.shape) for shape in balls]
    values = np.full(grid.shape, SOFT_HU, dtype=np.int16)
    for mask in inside:
        values[mask] = hu
    return bones, Volume(hu=values, geometry=grid), inside


def share_taken(*balls: Shape, likely: float = 0.1, level: float = LEVEL_HU, hu: float = FAINT_HU,
                seen: slice = slice(None)) -> float:
    """How much of the first ball is called cement; of a scan that ends where `seen` does along the first axis."""
    bones, ct, inside = scan_of(*balls, hu=hu)
    start, stop, _ = seen.indices(ct.hu.shape[0])
    part = ct.crop((start, 0, 0), (stop, *ct.hu.shape[1:]))
    mask = inside[0][start:stop]
    assert mask.any()
    return float(taken(mask, bones, part, likely=likely, level=level).mean())


def taken(mask: np.ndarray, bones: LabelMap, ct: Volume, *, likely: float = 0.1, level: float = LEVEL_HU) -> np.ndarray:
    """Which voxels of `mask`, one body, are called cement; (n,)."""
    index = np.argwhere(mask)
    return faint_in(ct.geometry.to_lps(index), np.full(len(index), likely, dtype=np.float32),
                    np.ones(len(index), dtype=np.int64), level=level, anatomy=bones, ct=ct)


def test_it_is_taken_where_the_other_side_has_nothing() -> None:
    assert share_taken(before_the_bone(HALF_WIDTH_MM)) == 1.0
    assert share_taken(before_the_bone(-HALF_WIDTH_MM)) == 1.0


def test_what_comes_in_a_pair_is_left() -> None:
    assert share_taken(before_the_bone(HALF_WIDTH_MM), before_the_bone(-HALF_WIDTH_MM)) == 0.0


def test_what_the_networks_exclude_is_left() -> None:
    assert share_taken(before_the_bone(HALF_WIDTH_MM), likely=0.03) == 0.0


def test_what_is_thin_is_left_however_long() -> None:
    ends = [(x, front_y(Z_MM, x) - 3.0, Z_MM) for x in (14.0, 38.0)]
    assert share_taken(tube(ends, 5.0)) == 1.0
    assert share_taken(tube([(x, front_y(Z_MM, 14.0) - 3.0, Z_MM) for x in (14.0, 54.0)], 1.2)) == 0.0


def test_what_is_far_off_small_or_denser_than_the_cement_is_left() -> None:
    assert share_taken(before_the_bone(HALF_WIDTH_MM, gap_mm=4.0)) == 0.0
    assert share_taken(before_the_bone(HALF_WIDTH_MM, radius_mm=1.0)) == 0.0
    assert share_taken(before_the_bone(HALF_WIDTH_MM), hu=1.0 + 2 * LEVEL_HU) == 0.0


def test_where_the_other_side_is_not_in_the_scan_it_is_left() -> None:
    _, ct, inside = scan_of(before_the_bone(HALF_WIDTH_MM))
    side = int(np.argwhere(inside[0])[:, 0].min()) - 8
    left_is_high = ct.geometry.affine[0, 0] > 0
    assert share_taken(before_the_bone(HALF_WIDTH_MM),
                       seen=slice(side, None) if left_is_high else slice(None, -side)) == 0.0


@pytest.mark.parametrize(("level", "expected"), [(850.0, True), (1500.0, False)])
def test_only_beside_weak_cement(level: float, expected: bool) -> None:
    bones, ct, (leak,) = scan_of(before_the_bone(HALF_WIDTH_MM))
    own = POSE.to_own(ct.geometry.to_lps(np.argwhere(np.ones(ct.hu.shape, dtype=np.bool_))))
    body = (alar_cement()(own) <= 0).reshape(ct.hu.shape)
    hu = ct.hu.copy()
    hu[body] = level
    where = np.flatnonzero(hu > 350)
    sure = body.reshape(-1)[where]
    index = np.stack(np.unravel_index(where, hu.shape), axis=-1)
    bright = Bright(where=where, hu=hu.reshape(-1)[where].astype(np.float32), points=ct.geometry.to_lps(index),
                    cement=np.where(sure, np.float32(0.95), np.float32(0.1)), metal=np.zeros(len(where), np.float32),
                    agreed=sure, suspected=sure, rods=np.zeros(hu.shape, dtype=bool))
    cement, _ = delineate(replace(ct, hu=hu), bones, bright)
    assert bool(cement[leak].mean() > 0.8) is expected
    assert cement[body].mean() > 0.8


def test_a_patient_seen_in_a_mirror_has_the_same_leak() -> None:
    bones, ct, (leak,) = scan_of(before_the_bone(HALF_WIDTH_MM))
    other = mirrored(Segmentation(anatomy=bones, cement=LabelMap(labels=leak, geometry=ct.geometry), ct=ct,
                                  start=(0, 0, 0), metal_ml=0.0, sacrum_coverage=1.0))
    assert taken(leak, other.anatomy, other.ct).all()
