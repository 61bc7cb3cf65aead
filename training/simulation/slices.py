"""Thick slices from thin ones: a scan is made on a fine grid and averaged along its axis, as a scanner averages."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sacroleak.core.errors import InputError
from sacroleak.core.geometry import Geometry, Shape
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.training.simulation.case import LABELLED, Case
from sacroleak.training.simulation.readout import Field
from sacroleak.training.simulation.scanner import tilted
from sacroleak.training.simulation.scene import FAR_MM, Scene
from sacroleak.training.simulation.shapes import near

Mask = npt.NDArray[np.bool_]
Votes = npt.NDArray[np.uint8]

FINEST_MM = 1.5
"""Thicker slices are averaged from some no thicker than this; thin leaks would slip between coarser ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """How a scan is cut: `fine_mm` apart when it is made, each kept slice averaged over `thick` of those, and the next
    one `step` of those farther on. `step` < `thick` overlaps, `step` > `thick` leaves gaps.
    """

    fine_mm: float
    thick: int
    step: int

    def __post_init__(self) -> None:
        if self.fine_mm <= 0 or self.thick < 1 or self.step < 1:
            raise InputError(f"slices: {self.thick} of {self.fine_mm} mm every {self.step}, wanted positive numbers")

    @property
    def as_made(self) -> bool:
        """Whether the scan's own slices are kept as they are."""
        return self.thick == self.step == 1

    @property
    def thickness_mm(self) -> float:
        """Of one kept slice."""
        return self.fine_mm * self.thick

    @property
    def increment_mm(self) -> float:
        """From one kept slice to the next."""
        return self.fine_mm * self.step


def slices_of(thickness_mm: float, increment_mm: float | None = None, *, pixel_mm: float = 0.0) -> Slices:
    """The coarsest fine grid, at most FINEST_MM or a pixel, of which both are whole multiples (to a micrometre).

    Raises InputError if there is none of at least 0.2 mm.
    """
    finest = max(FINEST_MM, pixel_mm)
    increment = thickness_mm if increment_mm is None else increment_mm
    for parts in range(int(np.ceil(thickness_mm / finest - 1e-9)), int(thickness_mm / 0.2) + 2):
        fine = thickness_mm / parts
        step = increment / fine
        if abs(step - round(step)) * fine < 1e-3 and round(step) >= 1:
            return Slices(fine_mm=fine, thick=parts, step=round(step))
    raise InputError(f"slices of {thickness_mm:g} mm every {increment:g} mm have no common part of at least 0.2 mm")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Depths:
    """How deep each fine voxel lies in what its labels say, for anatomy and cement: 255 for half a fine slice and more
    from the nearest surface, 1 at one. What fills most of a thick voxel follows from both: of two fine slices one often
    holds a structure and the other does not, and by their number alone either all of those voxels would be its or none.
    """

    anatomy: Votes
    cement: Votes

    @classmethod
    def alike(cls, shape: Shape) -> Depths:
        """All voxels equally deep."""
        deep = np.full(shape, 255, dtype=np.uint8)
        return cls(anatomy=deep, cement=deep)


def depths_of(scene: Scene, cement: Field, *, tilt_deg: float = 0.0) -> Depths:
    """Depths of a scan of the scene; `cement`: signed distance in mm on the scene's grid; `tilt_deg`: the gantry's."""
    half_mm = np.float32(scene.geometry.spacing_mm[2] / 2)
    apart = np.full(scene.geometry.shape, half_mm, dtype=np.float32)
    for name in LABELLED:
        found = near(scene, name, float(half_mm)) if name in scene.distance else None
        if found is not None:
            box, distance = found
            np.minimum(apart[box], np.abs(distance), out=apart[box])

    def votes(distance: Field) -> Votes:
        if tilt_deg:
            distance = tilted(distance, scene.geometry, tilt_deg, beyond=FAR_MM)
        share: Field = np.minimum(np.abs(distance) / half_mm, np.float32(1))
        return np.rint(1 + 254 * share).astype(np.uint8)

    return Depths(anatomy=votes(apart), cement=votes(cement))


def reslice(case: Case, slices: Slices, depths: Depths) -> Case:
    """The scan in thick slices. HU are averaged; a voxel is cement if most of it is, metal if at least half of its fine
    slices are. What fills most of it gives its anatomy, what fills most of its cement where it is cement, so that a
    leak is never bone.

    Leaks that no voxel shows any more are taken from the list; numbers and volumes are counted anew.
    """
    if slices.as_made:
        return case
    starts = np.arange(0, case.ct.hu.shape[2] - slices.thick + 1, slices.step)
    geometry = _geometry(case.ct.geometry, slices, len(starts))
    filled = case.cement.labels.astype(bool)
    cement = _votes(filled, depths.cement, starts, slices) > _votes(~filled, depths.cement, starts, slices)
    anatomy = _anatomy(case, cement, depths, starts, slices)
    numbers = _numbers(case, cement, anatomy, starts, slices)
    seen = [t for t in case.truth if (numbers == t.number).any()]
    renumber = np.zeros(256, dtype=np.uint8)
    renumber[[t.number for t in seen]] = np.arange(1, len(seen) + 1)
    numbers = renumber[numbers]
    counts = np.bincount(numbers.ravel(), minlength=len(seen) + 1)
    truth = tuple(replace(t, number=n, volume_ml=float(counts[n]) * geometry.voxel_ml)
                  for n, t in enumerate(seen, start=1))
    metal = (2 * _count(case.metal.labels.astype(bool), starts, slices).astype(np.int16) >= slices.thick) & ~cement
    return replace(case, ct=Volume(hu=_mean(case.ct.hu, starts, slices), geometry=geometry), truth=truth,
                   anatomy=LabelMap(labels=anatomy, geometry=geometry),
                   cement=LabelMap(labels=cement, geometry=geometry),
                   leaks=LabelMap(labels=numbers, geometry=geometry),
                   metal=LabelMap(labels=metal, geometry=geometry))


def _anatomy(case: Case, cement: Mask, depths: Depths, starts: npt.NDArray[np.int64],
             slices: Slices) -> npt.NDArray[np.uint8]:
    fine, filled = case.anatomy.labels, case.cement.labels.astype(bool)
    anatomy = np.zeros(cement.shape, dtype=np.uint8)
    most = np.zeros(cement.shape, dtype=np.uint16)
    for structure in range(Structure.L5 + 1):
        here = _votes(fine == structure, depths.anatomy, starts, slices)
        here[cement] = _votes((fine == structure) & filled, depths.anatomy, starts, slices)[cement]
        better = here > most
        anatomy[better] = structure
        most[better] = here[better]
    return anatomy


def _numbers(case: Case, cement: Mask, anatomy: npt.NDArray[np.uint8],
             starts: npt.NDArray[np.int64], slices: Slices) -> npt.NDArray[np.uint8]:
    """The leak that fills most of a cement voxel outside the sacrum; 0 where cement of another treatment fills more."""
    numbers = np.zeros(cement.shape, dtype=np.uint8)
    other = case.cement.labels.astype(bool) & (case.leaks.labels == 0)
    boneless = (Structure.BACKGROUND, Structure.SACRAL_CANAL)
    beside = np.isin(case.anatomy.labels, boneless)
    most = np.where(np.isin(anatomy, boneless), _count(other & beside, starts, slices),
                    _count(other & ~beside & (case.anatomy.labels != Structure.SACRUM), starts, slices))
    outside = cement & (anatomy != Structure.SACRUM)
    for leak in case.truth:
        here = _count(case.leaks.labels == leak.number, starts, slices)
        better = outside & (here > most)
        numbers[better] = leak.number
        most[better] = here[better]
    return numbers


def _count(mask: Mask, starts: npt.NDArray[np.int64], slices: Slices) -> npt.NDArray[np.uint8]:
    """How many of the fine slices of each thick one hold the mask."""
    total = np.zeros((*mask.shape[:2], len(starts)), dtype=np.uint8)
    for offset in range(slices.thick):
        total += mask[:, :, starts + offset]
    return total


def _votes(mask: Mask, depth: Votes, starts: npt.NDArray[np.int64], slices: Slices) -> npt.NDArray[np.uint16]:
    """Sum of the depths of the fine voxels of each thick one that hold the mask."""
    total = np.zeros((*mask.shape[:2], len(starts)), dtype=np.uint16)
    for offset in range(slices.thick):
        total += mask[:, :, starts + offset] * depth[:, :, starts + offset]
    return total


def _mean(hu: npt.NDArray[np.int16] | npt.NDArray[np.float32], starts: npt.NDArray[np.int64],
          slices: Slices) -> npt.NDArray[np.int16]:
    total = np.zeros((*hu.shape[:2], len(starts)), dtype=np.int32)
    for offset in range(slices.thick):
        total += np.rint(hu[:, :, starts + offset]).astype(np.int32)
    return np.rint(total / slices.thick).astype(np.int16)


def _geometry(fine: Geometry, slices: Slices, count: int) -> Geometry:
    """Centres of the thick slices; a tilted grid stays tilted."""
    affine = fine.affine.copy()
    affine[:3, 3] += fine.affine[:3, 2] * (slices.thick - 1) / 2
    affine[:3, 2] *= slices.step
    return Geometry(affine=affine, shape=(fine.shape[0], fine.shape[1], count),
                    frame_of_reference_uid=fine.frame_of_reference_uid)
