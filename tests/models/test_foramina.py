"""Each anterior foramen with its level and side."""

from __future__ import annotations

import numpy as np
import pytest

from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap
from sacroleak.models.canal import sacral_frame
from sacroleak.models.foramina import Foramen, find_foramina
from sacroleak.models.limits import shipped_limits
from tests.phantoms import FORAMEN_LEVELS, Pose, anatomy, canal_y

LIMITS = shipped_limits().compartments
POSES = [Pose(), Pose(nod=5.0, lean=-9.0, twist=14.0, shift=(-40.0, 5.0, -60.0))]
WORDS = ("first", "second", "third", "fourth")


def found_in(bone: LabelMap) -> dict[str, Foramen]:
    return {foramen.name: foramen for foramen in find_foramina(bone, sacral_frame(bone), LIMITS)}


@pytest.mark.parametrize("pose", POSES, ids=["upright", "turned"])
@pytest.mark.parametrize("grow_mm", [-1.0, 0.0, 1.0])
def test_every_foramen_has_its_level_and_side(pose: Pose, grow_mm: float) -> None:
    found = found_in(anatomy(pose, grow_mm))
    # The smallest, 7 mm wide, may close where the contour is a millimetre too large.
    wanted = 3 if grow_mm > 0 else 4
    for word, (z, x, _) in list(zip(WORDS, FORAMEN_LEVELS, strict=True))[:wanted]:
        for side, sign in (("left", 1), ("right", -1)):
            centre = pose.to_own(found[f"{word} {side} foramen"].points).mean(axis=0)
            assert abs(centre[2] - z) < 4.0
            assert abs(centre[0] - sign * x) < 5.0


def test_a_closed_foramen_leaves_its_level_out() -> None:
    whole = anatomy(POSES[0])
    index = np.argwhere(whole.labels == Structure.BACKGROUND)
    own = POSES[0].to_own(whole.geometry.to_lps(index))
    z, _, radius = FORAMEN_LEVELS[1]
    filled = (np.abs(own[:, 2] - z) < radius + 1) & (np.abs(own[:, 0]) < 27) & (own[:, 1] > canal_y(z) - 30)
    labels = whole.labels.copy()
    labels[tuple(index[filled & (own[:, 1] < canal_y(z) + 12)].T)] = Structure.SACRUM
    names = set(found_in(LabelMap(labels=labels, geometry=whole.geometry)))
    assert {"first left foramen", "third left foramen"} <= names
    assert "second left foramen" not in names


def test_without_the_top_of_the_sacrum_no_level_is_claimed() -> None:
    whole = anatomy(POSES[0])
    top = int(np.flatnonzero((whole.labels == Structure.SACRUM).any(axis=(0, 1)))[-1]) - 30
    cut = LabelMap(labels=np.ascontiguousarray(whole.labels[:, :, :top], dtype=np.uint8),
                   geometry=whole.geometry.crop((0, 0, 0), (*whole.geometry.shape[:2], top)))
    names = set(found_in(cut))
    assert names == {"left foramen", "right foramen"}
