"""Far beyond realism: random clutter, inverted soft tissue, wrong calibration (after SynthSeg, Billot et al. 2023)."""

from __future__ import annotations

import numpy as np

from sacroleak.training.simulation.hardware import Piece, corners, solid
from sacroleak.training.simulation.noise import Field, smooth_noise
from sacroleak.training.simulation.scanner import EXTENDED_HU
from sacroleak.training.simulation.scene import Scene

FAR_FROM_SACRUM_MM = 10.0
"""Clutter as bright as cement stays so far from the sacrum: nearer, nobody could tell it from a leak."""
DIM_HU = 420.0
"""Near the sacrum clutter is no brighter than this, below the thinnest cement."""


def clutter(rng: np.random.Generator, hu: Field, scene: Scene) -> None:
    """Tubes, balls and sheets of any intensity, in place; the bones' own voxels stay as they are."""
    free = np.minimum.reduce([scene.distance[n] for n in ("sacrum", "hip_left", "hip_right", "canal")])
    sacrum = scene.distance["sacrum"]
    for _ in range(int(rng.integers(0, 8))):
        start = rng.uniform(*corners(scene))
        course = start + np.cumsum(rng.normal(0, rng.uniform(3, 14), size=(int(rng.integers(1, 6)), 3)), axis=0)
        radius = float(np.exp(rng.uniform(np.log(1.0), np.log(25))))
        hollow = float(rng.uniform(0.8, 3)) if rng.random() < 0.4 else 0.0
        found = solid(scene, [Piece(points=course, radius_mm=radius, wall_mm=hollow)])
        if found is None:
            continue
        box, distance = found
        value = float(rng.uniform(-900, 2500))
        apart = FAR_FROM_SACRUM_MM if value > DIM_HU else 1.5
        np.maximum(distance, np.float32(apart) - sacrum[box], out=distance)
        np.maximum(distance, np.float32(1.5) - free[box], out=distance)
        target = hu[box]
        edge = np.float32(scene.geometry.spacing_mm.mean())
        target += np.clip(0.5 - distance / edge, 0, 1) * (np.float32(value) - target)


def textures(rng: np.random.Generator, hu: Field, scene: Scene) -> None:
    """Patches of other intensity in soft tissue, their values and grain random, in place."""
    spacing = float(scene.geometry.spacing_mm.min())
    free = np.minimum.reduce([scene.distance[n] for n in ("sacrum", "hip_left", "hip_right", "canal")]) > 1.5
    for _ in range(int(rng.integers(0, 4))):
        field = smooth_noise(rng, hu.shape, rng.uniform(5, 30) / spacing)
        where = (field > rng.uniform(0.6, 1.8)) & free & (hu > -800)
        hu[where] = np.float32(rng.uniform(-900, DIM_HU)) + np.float32(rng.uniform(0, 60)) * field[where]


def invert_soft(hu: Field) -> None:
    """Fat brighter than muscle: what lies between air and bone is mirrored, in place."""
    low, high = -160.0, 140.0
    soft = (hu > low) & (hu < high)
    np.copyto(hu, np.float32(low + high) - hu, where=soft)


def miscalibrate(rng: np.random.Generator, hu: Field) -> None:
    """A wrong scale, offset and curve, and a slow drift over the picture, in place.

    Cement stays brighter than bone: the curve rises everywhere.
    """
    hu += 1000
    np.maximum(hu, 0, out=hu)
    gamma = float(np.exp(rng.normal(0, 0.06)))
    hu /= 1500
    np.power(hu, np.float32(gamma), out=hu)
    hu *= np.float32(1500 * np.exp(rng.normal(0, 0.06)))
    hu += np.float32(rng.normal(0, 25) - 1000)
    if rng.random() < 0.5:
        hu += np.float32(rng.uniform(5, 60)) * smooth_noise(rng, hu.shape, max(hu.shape) / 2)
    np.clip(hu, -1024, EXTENDED_HU, out=hu)
