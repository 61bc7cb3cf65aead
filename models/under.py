"""Whether bone lies under cement, from the scan with the cement: only there a cortex between two lumps is seen."""

from __future__ import annotations

import numpy as np

from sacroleak.core.structures import Structure
from sacroleak.models.distance import Mask
from sacroleak.models.near import Near
from sacroleak.models.resample import Field

BONES = (Structure.SACRUM, Structure.HIP_LEFT, Structure.HIP_RIGHT, Structure.L5)
SUREST = 0.99
"""No voxel is taken to be surer than this."""
LOOKED_AT = 0.3
"""Less than this of a look's full weight is the rim of its tiles."""
SAY, BIAS = 1.0, -1.3
"""The network calls cement bone too readily, most of it being in bone: SAY times its log odds and BIAS are added to
those of the other looks. From a logistic regression on cement within 4 mm of the bones' surface, in 24 simulated scans
of training patients."""


def odds_of_bone(look: Near | None, hidden: Mask) -> Field | None:
    """By what the odds of bone against none are to be multiplied on the working grid, whose shape `hidden` has: 1 but
    where it is hidden and was looked at; None without a look.
    """
    if look is None:
        return None
    bone = np.sum([look.channel(structure) for structure in BONES], axis=0)
    bone = np.clip(bone, 1 - SUREST, SUREST)
    judged = hidden[look.box] & (look.weight > LOOKED_AT)
    odds = np.ones(hidden.shape, dtype=np.float32)
    odds[look.box][judged] = ((bone / (1 - bone)) ** SAY * np.exp(BIAS))[judged]
    return odds
