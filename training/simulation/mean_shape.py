"""What is defined once, by hand, on the mean of corresponding pelvis surfaces, and carried to each patient.

The frame: LPS mm about the centroid of the mean S1-S3 sacrum of the 30 patients of Han et al. (Phys Med Biol 2019,
10.1088/1361-6560/ab1456). Every number was read off cross-sections of that mean shape.
"""

from __future__ import annotations

import numpy as np

CANAL = np.array([
    # x, y, z, half width, half depth; from above the S1 endplate down to the hiatus
    (0.0, -22.0, 40.0, 14.0, 10.0), (0.0, -14.0, 30.0, 15.0, 10.0), (0.0, -7.0, 22.0, 15.0, 10.0),
    (0.0, 3.3, 11.5, 13.5, 8.0), (0.0, 11.2, 1.3, 12.0, 6.5), (0.0, 21.1, -8.8, 10.0, 5.5),
    (0.0, 30.7, -19.2, 8.5, 5.0), (0.0, 40.0, -32.0, 6.5, 3.5), (0.0, 46.0, -42.0, 5.0, 2.5),
])
"""Centreline and half axes of the sacral canal; bone cuts it to its true cross-section."""
FORAMINA_LEFT = np.array([(20.0, -15.0, -8.5), (17.0, 3.0, -20.0), (15.0, 17.0, -34.0)])
"""Where S1, S2 and S3 open on the pelvic surface, patient's left."""
ALA_LEFT = np.array([(36.0, -4.0, 4.0)])
"""Inside the lateral mass of S1-S2, between foramina and joint."""
ENDPLATE = np.array([(0.0, -30.0, 16.0)])
"""Middle of the S1 endplate."""
ENDPLATE_NORMAL = np.array([0.0, -0.555, 0.832])
"""Unit, out of the bone."""
ENDPLATE_HALF_MM = (25.0, 15.5)
"""Half width and half depth of the endplate."""
FEMORAL_HEAD_LEFT = np.array([83.0, -55.0, -87.0])
"""Middle of the left acetabulum; the right one mirrors it."""
FEMORAL_HEAD_MM = 24.0
"""Its radius."""


def mirrored(points: np.ndarray) -> np.ndarray:
    """The same on the other side of the body; (n, 3) or (3,)."""
    other: np.ndarray = points * np.array([-1.0, 1.0, 1.0])
    return other
