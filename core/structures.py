"""The label numbers and the words of every output, once."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Structure(IntEnum):
    """What a voxel of `labels.nii.gz` is. Anatomy 0-5 is what the bone was before cement; CEMENT lies over it."""

    BACKGROUND = 0
    SACRUM = 1
    SACRAL_CANAL = 2
    HIP_LEFT = 3
    HIP_RIGHT = 4
    L5 = 5
    CEMENT = 6


class Compartment(IntEnum):
    """Where a voxel lies, for the question whether and where cement leaked."""

    ELSEWHERE = 0
    INTRAOSSEOUS_SACRUM = 1
    VENTRAL_CANAL = 2
    DORSAL_CANAL = 3
    FORAMINA_LEFT = 4
    FORAMINA_RIGHT = 5
    PRESACRAL = 6
    DORSAL_SOFT_TISSUE = 7
    SACROILIAC_JOINT = 8
    ILIUM = 9
    L5_S1_DISC = 10
    L5 = 11


class Site(StrEnum):
    """The five site values of every output."""

    SACRAL_VENOUS_PLEXUS = "sacral_venous_plexus"
    PUNCTURE_PATH = "puncture_path"
    ANTERIOR_EPIDURAL_SPACE = "anterior_epidural_space"
    ANTERIOR_SACRAL_SPACE = "anterior_sacral_space"
    OTHER = "other"


class Side(StrEnum):
    """Side of the patient's own body."""

    LEFT = "left"
    RIGHT = "right"
    MIDLINE = "midline"
