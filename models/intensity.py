"""Hounsfield units as the networks see them; the same numbers in training and in scoring."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BONE_WINDOW_HU = (-250.0, 650.0)
"""Soft tissue to cancellous bone: contours of organs, canal and osteoporotic bone."""
DENSE_WINDOW_HU = (-1000.0, 3000.0)
"""Air to cement and metal."""
WINDOWS_HU = (BONE_WINDOW_HU, DENSE_WINDOW_HU)
CHANNELS = len(WINDOWS_HU)


def to_channels(hu: npt.NDArray[np.floating] | npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """HU [i, j, k] to (2, i, j, k) float32: both windows, each mapped to -1..1 and clipped."""
    out = np.empty((CHANNELS, *hu.shape), dtype=np.float32)
    for channel, (low, high) in zip(out, WINDOWS_HU, strict=True):
        np.clip(hu, low, high, out=channel, casting="unsafe")
        channel -= (low + high) / 2
        channel /= (high - low) / 2
    return out


def erase(channels: npt.NDArray[np.float32], where: npt.NDArray[np.bool_]) -> None:
    """Hide part of (2, i, j, k) channels, in place, behind a mark no tissue has: darker than fat and denser than metal.

    Seen through cement, everything looks like bone. Behind the mark a network can only go by what lies around it.
    """
    channels[0][where] = -1.0
    channels[1][where] = 1.0
