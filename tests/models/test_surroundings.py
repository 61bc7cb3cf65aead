"""Bone around a part: counted as it lies, compared with the other side, and none of that where nothing is seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from sacroleak.core.geometry import Points
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.compartments import Compartments, compartments
from sacroleak.models.distance import FAR_MM
from sacroleak.models.limits import shipped_limits
from sacroleak.models.surroundings import FARTHEST_MM, NEAR_MM, BoneAround, Surroundings, surroundings
from tests.phantoms import Pose, anatomy, ball, front_y

POSE = Pose(lean=4.0, twist=3.0)
DENT = (33.0, front_y(15.0, 33.0) + 2.0, 15.0)
"""In the front of the left ala, below its surface."""
LEAK = (33.0, front_y(15.0, 33.0) - 4.5, 15.0)
"""As high and as far to the side, in front of it."""
RADIUS = 4.0


def own(labels: LabelMap) -> Points:
    return POSE.to_own(labels.geometry.to_lps(np.argwhere(np.ones(labels.geometry.shape, dtype=bool))))


def within(centre: tuple[float, float, float], labels: LabelMap) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = (ball(centre, RADIUS)(own(labels)) <= 0).reshape(labels.geometry.shape)
    return inside


def spaces_of(labels: LabelMap, cement: Points) -> Compartments:
    return compartments(labels, shipped_limits().compartments, around_lps=cement)


def tissue(labels: LabelMap) -> Volume:
    return Volume(hu=np.full(labels.geometry.shape, 40, dtype=np.int16), geometry=labels.geometry)


def without(labels: LabelMap, mask: npt.NDArray[np.bool_]) -> LabelMap:
    """The same with a dent in its contour."""
    changed = labels.labels.copy()
    changed[mask] = Structure.BACKGROUND
    return replace(labels, labels=changed)


def seen_at(centre: tuple[float, float, float], *, dented: bool = False, ct: Volume | None = None,
            also: Points | None = None) -> tuple[BoneAround, Surroundings]:
    """What surrounds a ball of cement; `also`: more cement that is no part of it."""
    labels = anatomy(POSE)
    mask = within(centre, labels)
    points = labels.geometry.to_lps(np.argwhere(mask))
    labels = without(labels, mask) if dented else labels
    every = points if also is None else np.concatenate([points, also])
    spaces = spaces_of(labels, every)
    around = surroundings(spaces, every, ct or tissue(labels))
    return around.of(points, spaces.bone_distance_mm(points)), around


def test_cement_that_fills_a_dent_lies_amid_bone_that_the_other_side_has() -> None:
    dent, _ = seen_at(DENT, dented=True)
    assert dent.other_mm < -1.0, "across the midline the place lies in the bone"
    assert -0.2 < dent.more_share < -0.1, "and around it there is more, by the ball of 268 of 1,331 mm³ or a part of it"
    assert dent.near_share > 0.3


def test_a_leak_lies_where_the_other_side_has_no_bone_either() -> None:
    leak, around = seen_at(LEAK)
    labels = anatomy(POSE)
    points = labels.geometry.to_lps(np.argwhere(within(LEAK, labels)))
    assert leak.other_mm == pytest.approx(around.spaces.bone_distance_mm(points).mean(), abs=0.8)
    assert abs(leak.more_share) < 0.05
    assert leak.near_share < seen_at(DENT, dented=True)[0].near_share


def test_bone_is_counted_in_a_cube() -> None:
    _, around = seen_at(LEAK)
    labels = around.spaces.bone.labels
    solid = np.pad((labels == Structure.SACRUM) | (labels == Structure.SACRAL_CANAL), int(NEAR_MM))
    rng = np.random.default_rng(1)
    places = np.concatenate([rng.integers(0, labels.shape, (40, 3)), np.argwhere(labels == Structure.SACRUM)[::2000]])
    side = 2 * int(NEAR_MM) + 1
    wanted = [solid[i : i + side, j : j + side, k : k + side].mean() for i, j, k in places]
    assert around._share(around.grid.to_lps(places), NEAR_MM) == pytest.approx(wanted, abs=1e-9)
    assert max(wanted) > 0.9


@pytest.mark.parametrize("why", ["air", "cement"])
def test_a_side_that_is_not_seen_is_taken_to_be_like_this_one(why: str) -> None:
    labels = anatomy(POSE)
    other = (-DENT[0], DENT[1], DENT[2])
    hidden = ball(other, 3 * RADIUS)(own(labels)).reshape(labels.geometry.shape) <= 0
    ct = tissue(labels)
    also = None
    if why == "air":
        ct.hu[hidden] = -1000
    else:
        also = labels.geometry.to_lps(np.argwhere(hidden))
    dent, around = seen_at(DENT, dented=True, ct=ct, also=also)
    assert around.mirror is not None
    assert dent.more_share == 0.0
    points = labels.geometry.to_lps(np.argwhere(within(DENT, labels)))
    bone_mm = around.spaces.bone_distance_mm(points)
    assert dent.other_mm == pytest.approx(np.clip(bone_mm, -FARTHEST_MM, FARTHEST_MM).mean())


def test_a_surface_is_seen_where_no_cement_lies_beside_it() -> None:
    small, _ = seen_at(LEAK)
    labels = anatomy(POSE)
    more = ball(LEAK, 3 * RADIUS)(own(labels)).reshape(labels.geometry.shape) <= 0
    large, _ = seen_at(LEAK, also=labels.geometry.to_lps(np.argwhere(more)))
    assert 3.0 < small.seen_mm < large.seen_mm - 4.0
    everywhere = labels.geometry.to_lps(np.argwhere(np.ones(labels.geometry.shape, dtype=bool)))
    none, around = seen_at(LEAK, also=everywhere)
    assert around.mirror is None
    assert none.seen_mm == FAR_MM


def test_beyond_the_scan_nothing_is_seen() -> None:
    labels = anatomy(POSE)
    left = own(labels)[:, 0].reshape(labels.geometry.shape)
    across = np.argwhere(left < -5.0)
    half = labels.geometry.crop((across[:, 0].max() + 1, 0, 0), labels.geometry.shape)
    ct = Volume(hu=np.full(half.shape, 40, dtype=np.int16), geometry=half)
    dent, _ = seen_at(DENT, dented=True, ct=ct)
    assert dent.more_share == 0.0
