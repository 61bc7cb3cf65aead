"""Both passes over one scan: find the sacrum, then look closely around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
import numpy.typing as npt

from sacroleak.core.errors import ModelError, NotAssessableError
from sacroleak.core.geometry import Box, Geometry, Points, box_where
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.bundle import Bundle
from sacroleak.models.cement import CEMENT, FARTHEST_MM, METAL, SOFT_HU, Region, bright_in, delineate
from sacroleak.models.distance import grown, indices_of, marked, near_mm
from sacroleak.models.effort import Effort, mean_of, precision_of, with_effort
from sacroleak.models.graphics import Pooled, TorchNetwork
from sacroleak.models.guessed import without_guesses
from sacroleak.models.intensity import WINDOWS_HU, erase, to_channels
from sacroleak.models.locate import locate_sacrum
from sacroleak.models.metal import metal_in, past_metal, screws_in, without_metal
from sacroleak.models.near import (
    AROUND_MM,
    BRIGHT_HU,
    DENSE_HU,
    FOLLOWED_MM,
    FOLLOWED_PROBABILITY,
    SUSPECT_PROBABILITY,
    Follow,
    Near,
    NearNetwork,
    around,
    holding,
    look_near,
    repeated,
    stretched,
    without_specks,
)
from sacroleak.models.resample import Field, to_aligned_grid
from sacroleak.models.rods import rods_in
from sacroleak.models.runtime import CPU, Network, OpenVinoNetwork
from sacroleak.models.segmentation import Segmentation
from sacroleak.models.under import odds_of_bone

BONES, ALL = slice(int(Structure.SACRUM), CEMENT), slice(int(Structure.SACRUM), METAL + 1)
"""Channels of the networks."""
WORKING_MM = 1.0
"""Voxel of the working grid: bone contours from interpolated 2 mm probabilities lose 0.6 % Dice at 1 mm."""
FAINT = 0.02
"""A structure less probable than this cannot win against five others and the background."""
SCREW_PER_CENT = 30.0
"""A voxel of a network's grid is a screw's if so much of it is."""
COVERED_PER_CENT, GROWN_VOXELS = 20.0, 1
"""A working voxel is hidden if so much of it is cement or metal, with a rim of one voxel, because blur makes the bone
beside it bright."""
HIDDEN_REACH_MM = 10.0
"""This near to hidden cement the bones are those of the look that did not see it; farther off both looks count."""
AGAIN_MM = 26.0
"""So far from what was found to be cement the near network looks again at bones behind what is hidden."""
NEAR_REACH_MM = 6.0
"""The near network sees too little of the pelvis to be asked about bones farther from hidden cement."""
L5_SEEN = 0.3
RECENTRE_MM = 12.0
"""If the sacrum lies farther than this from the middle of the region, the fine pass is run again around it."""
SMALLEST_SACRUM_ML = 25.0
SACRUM_LENGTH_MM = 105.0
"""S1 endplate to the tip of S5 along the curve's chord; adults measure about 95 to 120 mm."""
SMALLEST_COVERAGE = 0.4
"""Below this share of its length too little of the sacrum is seen to say that cement did not leak."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dense:
    """What hides bone, bool on the scan's grid `geometry`: cement, all that may be some, and metal."""

    cement: npt.NDArray[np.bool_]
    suspects: npt.NDArray[np.bool_]
    metal: npt.NDArray[np.bool_]
    geometry: Geometry


class TwoPassSegmenter:
    """A coarse network finds the sacrum anywhere; a fine one sees only the region around it."""

    def __init__(self, *, coarse: Network, fine: Network, coarse_mm: float, fine_mm: float,  # noqa: PLR0913 - a network each
                 patch: tuple[int, int, int], near: NearNetwork | None = None,
                 under: NearNetwork | None = None) -> None:
        self._coarse, self._fine, self._near, self._under = coarse, fine, near, under
        self._coarse_mm, self._fine_mm, self._patch = coarse_mm, fine_mm, patch

    def segment(self, ct: Volume) -> Segmentation:
        """Bone as before cement, and cement. Raises NotAssessableError if too little of the sacrum is shown."""
        centre = locate_sacrum(ct, self._coarse, self._coarse_mm)
        region, seen = self._look(ct, centre)
        found = _sacrum_centre(region)
        if found is not None and np.abs(found - centre).max() > RECENTRE_MM:
            region, seen = self._look(ct, found)
        start, stop = _box_in(ct.geometry, region.geometry)
        part = _side_by_side(ct.crop(start, stop))
        working = working_grid(region.geometry)
        hu = to_aligned_grid(ct, working)
        rods = rods_in(part.hu, part.geometry)
        screws = LabelMap(labels=screws_in(rods, part, region), geometry=part.geometry)
        region, hidden = self._past_metal(region, seen, screws)
        first = seen_anatomy(region)
        coverage = _require_sacrum(first, ct.geometry)
        near = self._closer(hu, hidden, region)
        bright = bright_in(part, region, near, rods, working)
        cement, metal = delineate(part, first, bright)
        if cement.any():
            dense = Dense(cement=cement, suspects=bright.suspects(), metal=metal, geometry=part.geometry)
            bones = self._behind(dense, region, seen, hu, near)
            cement, metal = delineate(part, bones, bright)
        else:
            bones = first_bones(region, near)
        return Segmentation(
            anatomy=bones, cement=LabelMap(labels=cement, geometry=part.geometry), ct=part,
            start=(int(start[0]), int(start[1]), int(start[2])),
            metal_ml=float(np.count_nonzero(metal)) * part.geometry.voxel_ml, sacrum_coverage=coverage,
            certainty=bright.certainty())

    def _past_metal(self, region: Region, seen: Field, screws: LabelMap) -> tuple[Region, npt.NDArray[np.bool_]]:
        """The fine pass without the metal that hides cement from it, and where that lies on the working grid; nowhere
        if none does. `seen`: the scan on the fine network's grid; `screws`: on the scan's own.
        """
        working = working_grid(region.geometry)
        nowhere = np.zeros(working.shape, dtype=bool)
        metal = metal_in(region, seen, _per_cent(screws, region.geometry) > SCREW_PER_CENT)
        if not metal.any():
            return region, nowhere
        found = past_metal(region, self._fine(to_channels(without_metal(seen, metal))), seen, metal)
        if found is None:
            return region, nowhere
        here = repeated(metal, _finer(region.geometry), working.shape)
        return found, here | (_per_cent(screws, working) > SCREW_PER_CENT)

    def _closer(self, hu: Field, metal: npt.NDArray[np.bool_], region: Region) -> Near | None:
        """The third look, around all that may be cement; None without such a network or where nothing is suspect.

        `hu`: on the working grid. `metal`: what is kept from the network there, and left to the fine pass.
        """
        if self._near is None:
            return None
        hu = without_metal(hu, metal) if metal.any() else hu
        everywhere = (slice(0, hu.shape[0]), slice(0, hu.shape[1]), slice(0, hu.shape[2]))
        cement = stretched(region.probabilities[CEMENT], region.geometry, everywhere, WORKING_MM)
        sacrum = region.probabilities[:CEMENT].argmax(axis=0) == Structure.SACRUM
        within = around(repeated(sacrum, _finer(region.geometry), hu.shape), WORKING_MM, FARTHEST_MM)
        bright = (hu > BRIGHT_HU) & within
        suspect = without_specks(((hu > DENSE_HU) & within) | ((cement > SUSPECT_PROBABILITY) & bright))

        def follow(near: Near) -> npt.NDArray[np.bool_]:
            found = np.zeros(hu.shape, dtype=bool)
            taken = (near.channel(CEMENT) > FOLLOWED_PROBABILITY) & bright[near.box]
            found[near.box] = holding(taken, suspect[near.box])
            return bright & around(found, WORKING_MM, FOLLOWED_MM)

        wanted = bright & around(suspect, WORKING_MM, AROUND_MM)
        near = look_near(hu, wanted, self._near, ALL, follow=Follow(channel=CEMENT, wanted=follow))
        return near.only(~metal[near.box]) if near is not None and metal.any() else near

    def _behind(self, dense: Dense, region: Region, seen: Field, hu: Field, near: Near | None) -> LabelMap:
        """The bones, on the working grid, seen once more with all that is `dense` hidden.

        `seen`, `hu`: the scan on the fine network's grid and on the working grid; `near`: what the near network saw
        with nothing hidden.

        A network that sees bright cement lie on bone takes it for bone, and what it sees around a screw for none. To
        the fine network both are once made soft tissue, so that cement in the bone looks like a lytic lesion and a leak
        like what it lies in; once they are hidden behind a mark, as from the near network, and the contour is drawn
        through that from what lies around. With the mark too much becomes bone, with soft tissue too little. Bones far
        from what is hidden are left to the fine network, and wherever nothing is hidden what the near one saw at first
        counts too: it sees more than can be guessed. Behind the mark a cortex between two lumps of cement is lost; so
        the network `under` is shown the cement, and what it takes for bone there changes the odds.
        """
        working = working_grid(region.geometry)
        unsure = _covered(dense.cement | dense.suspects, dense.geometry, working)
        hidden = unsure | _covered(dense.metal, dense.geometry, working) if dense.metal.any() else unsure
        factor = _finer(region.geometry)
        beside = grown(hidden, factor // 2)[::factor, ::factor, ::factor]
        behind = to_channels(seen)
        erase(behind, beside)
        again = mean_of(self._fine, to_channels(np.where(beside, np.float32(SOFT_HU), seen)), behind)
        away = near_mm(beside, region.geometry, HIDDEN_REACH_MM)
        weight = np.where(away < HIDDEN_REACH_MM, np.float32(1.0), np.float32(0.5))
        mixed = region.probabilities.copy()
        mixed[: Structure.CEMENT] += weight * (again - mixed)[: Structure.CEMENT]
        mixed_region = Region(probabilities=mixed, geometry=region.geometry)
        looks, odds = [], None
        asked = hidden & around(marked(dense.geometry.to_lps(indices_of(dense.cement)), working), WORKING_MM, AGAIN_MM)
        if self._near is not None:
            behind_mark = look_near(hu, asked, self._near, BONES, erased=hidden)
            looks = [*_of_bones(behind_mark, mixed_region, near_mm(asked, working, NEAR_REACH_MM) < NEAR_REACH_MM),
                     *_of_bones(near, mixed_region, ~hidden, silent_on=Structure.SACRAL_CANAL)]
        if self._under is not None:
            odds = odds_of_bone(look_near(hu, asked & unsure, self._under, BONES), unsure)
        bones = working_bones(mixed_region, looks, odds)
        return without_guesses(bones, hidden, hu, voxel_mm=float(dense.geometry.spacing_mm.max()), odds=odds)

    def _look(self, ct: Volume, centre: Points) -> tuple[Region, Field]:
        """The fine network's answer around `centre`, and the HU it was given."""
        origin = centre - (np.array(self._patch) - 1) / 2 * self._fine_mm
        grid = Geometry.axis_aligned(origin_lps_mm=origin, spacing_mm=self._fine_mm, shape=self._patch)
        hu = to_aligned_grid(ct, grid)
        return Region(probabilities=self._fine(to_channels(hu)), geometry=grid), hu


def _finer(region: Geometry) -> int:
    """How many working voxels lie along one of the region's."""
    return round(float(region.spacing_mm[0]) / WORKING_MM)


def _per_cent(mask: LabelMap, grid: Geometry) -> Field:
    """About how much of each voxel of `grid` a mask fills; much less than 0 far from it."""
    margin = np.ceil(2 * grid.spacing_mm.max() / mask.geometry.spacing_mm) + 1
    box = box_where(mask.labels > 0, margin)
    if box is None:
        return np.zeros(grid.shape, dtype=np.float32)
    part = mask.geometry.crop([s.start for s in box], [s.stop for s in box])
    return to_aligned_grid(Volume(hu=mask.labels[box].astype(np.int16) * np.int16(100), geometry=part), grid)


def _covered(mask: npt.NDArray[np.bool_], geometry: Geometry, working: Geometry) -> npt.NDArray[np.bool_]:
    """The voxels of the working grid in which a mask on another grid lies, and their neighbours."""
    part = LabelMap(labels=mask, geometry=geometry)
    return grown(_per_cent(part, working) > COVERED_PER_CENT, GROWN_VOXELS)


def _of_bones(near: Near | None, region: Region, where: npt.NDArray[np.bool_] | None = None, *,
              silent_on: Structure | None = None) -> list[Near]:
    """A close look as far as it may speak of bones, in a list; none without it. `where`: on the working grid.

    It has not learned to tell L5 from the sacrum, so it is silent where the fine pass sees L5. With nothing hidden it
    knows the canal less well than the fine pass does.
    """
    if near is None:
        return []
    lumbar = stretched(region.probabilities[Structure.L5], region.geometry, near.box, WORKING_MM) > L5_SEEN
    return [near.only(~lumbar if where is None else where[near.box] & ~lumbar, silent_on=silent_on)]


def _require_sacrum(anatomy: LabelMap, scan: Geometry) -> float:
    """The share of the sacrum that is shown. Raises NotAssessableError if it is too little to say that none leaked."""
    if anatomy.volume_ml(Structure.SACRUM) < SMALLEST_SACRUM_ML:
        raise NotAssessableError(("too little of a sacrum was found in the scan",))
    coverage = sacrum_coverage(anatomy, scan)
    if coverage < SMALLEST_COVERAGE:
        seen, wanted = round(100 * coverage), round(100 * SMALLEST_COVERAGE)
        raise NotAssessableError((f"the field of view shows about {seen} % of the sacrum, wanted {wanted} %",))
    return coverage


def load_segmenter(
    bundle: Bundle, *, threads: int, effort: Effort = Effort.STANDARD, device: str = CPU,
) -> TwoPassSegmenter:
    """The networks of a release, ready on the CPU or on a graphics card (`cuda`, `cuda:1`), where `segment` may be
    called from several threads at once. Raises ModelError if they expect other input than is made.
    """
    windows = tuple((w.low_hu, w.high_hu) for w in bundle.index.intensity)
    if windows != WINDOWS_HU:
        raise ModelError(f"bundle {bundle.index.name}: expects intensity windows {windows}, this version makes "
                         f"{WINDOWS_HU}")

    precision = precision_of(effort, device)

    def network(name: str) -> Network:
        path = bundle.network_path(name)
        if device == CPU:
            return OpenVinoNetwork(path, threads=threads, precision=precision)
        return Pooled(TorchNetwork(path, device=device, precision=precision))

    def close(name: str) -> NearNetwork | None:
        if name not in bundle.index.networks:
            return None
        return NearNetwork(network=with_effort(network(name), effort, sided=False),
                           patch=bundle.index.networks[name].tile)

    coarse, fine = bundle.index.networks["coarse"], bundle.index.networks["fine"]
    return TwoPassSegmenter(
        near=close("near"), under=close("under"),
        coarse=network("coarse"), fine=with_effort(network("fine"), effort, sided=True),
        coarse_mm=coarse.spacing_mm[0], fine_mm=fine.spacing_mm[0], patch=fine.tile)


def seen_anatomy(region: Region) -> LabelMap:
    """Structures 0-5 on the fine network's own grid; stray pieces of each structure are dropped."""
    labels = region.probabilities[:CEMENT].argmax(axis=0).astype(np.uint8)
    _drop_strays(labels)
    return LabelMap(labels=labels, geometry=region.geometry)


def first_bones(region: Region, near: Near | None) -> LabelMap:
    """The bones on the working grid as the networks see them with nothing hidden."""
    return working_bones(region, _of_bones(near, region, silent_on=Structure.SACRAL_CANAL))


def working_bones(region: Region, looks: Sequence[Near] = (), odds: Field | None = None) -> LabelMap:
    """The region's bones on the 1 mm working grid, with what close looks say of them, stray pieces of each structure
    dropped. `odds`: on the working grid, by what those of any bone against none are multiplied.

    Probabilities are stretched, not labels, and each only within the box where its structure can win.
    """
    geometry = working_grid(region.geometry)
    factor = float(region.geometry.spacing_mm[0]) / WORKING_MM
    sides = geometry.shape
    best, total = np.zeros(sides, dtype=np.float32), np.zeros(sides, dtype=np.float32)
    labels = np.zeros(sides, dtype=np.uint8)
    for structure in list(Structure)[BONES]:
        probability = region.probabilities[structure]
        box = _stretched_box(probability > FAINT, factor, sides)
        if box is None:
            continue
        fine = stretched(probability, region.geometry, box, WORKING_MM)
        for near in looks:
            near.mix(structure, fine, box)
        total[box] += fine
        if odds is not None and structure is not Structure.SACRAL_CANAL:
            fine = fine * odds[box]
        np.copyto(labels[box], np.uint8(structure), where=fine > best[box])
        np.maximum(best[box], fine, out=best[box])
    labels[best <= 1.0 - total] = Structure.BACKGROUND
    _drop_strays(labels)
    return LabelMap(labels=labels, geometry=geometry)


def working_grid(region: Geometry) -> Geometry:
    """The working grid of a region: the same corners, WORKING_MM apart."""
    i, j, k = (round((n - 1) * float(s) / WORKING_MM) + 1 for n, s in zip(region.shape, region.spacing_mm, strict=True))
    return Geometry.axis_aligned(origin_lps_mm=region.affine[:3, 3], spacing_mm=WORKING_MM, shape=(i, j, k))


def _stretched_box(mask: npt.NDArray[np.bool_], factor: float, sides: tuple[int, ...]) -> Box | None:
    """Box of the working grid around a mask of the network's grid, a voxel wider on each side; None if empty."""
    box = box_where(mask)
    if box is None:
        return None
    i, j, k = (slice(max(int((s.start - 1) * factor), 0), min(int(s.stop * factor) + 1, side))
               for s, side in zip(box, sides, strict=True))
    return i, j, k


def sacrum_coverage(anatomy: LabelMap, scan: Geometry) -> float:
    """Share of the sacrum's length that the scan shows: 1 unless it runs into the edge of the field of view."""
    inside = indices_of(anatomy.labels == Structure.SACRUM)
    points = anatomy.geometry.to_lps(inside)
    index = scan.to_index(points)
    edge = 2.0 / scan.spacing_mm
    cut = (index < edge) | (index > np.array(scan.shape) - 1 - edge)
    # A few voxels at the edge are a coccyx or a corner; a face of them is a cut bone.
    if np.count_nonzero(cut.any(axis=1)) * anatomy.geometry.voxel_ml < 0.8:
        return 1.0
    return float(min(1.0, np.ptp(points[:, 2]) / SACRUM_LENGTH_MM))


def _sacrum_centre(region: Region) -> Points | None:
    inside = indices_of(region.probabilities[: Structure.CEMENT].argmax(axis=0) == Structure.SACRUM)
    if len(inside) < 500:
        return None
    low, high = np.percentile(inside, (1, 99), axis=0)
    return region.geometry.to_lps((low + high) / 2)


def _drop_strays(labels: npt.NDArray[np.uint8]) -> None:
    for structure in (Structure.SACRUM, Structure.SACRAL_CANAL, Structure.L5):
        _keep_largest(labels, structure)


def _keep_largest(labels: npt.NDArray[np.uint8], structure: Structure) -> None:
    box = box_where(labels == structure)
    if box is None:
        return
    own = labels[box]
    mask = own == structure
    parts = cc3d.connected_components(mask, connectivity=6)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    own[mask & (parts != sizes.argmax())] = Structure.BACKGROUND


def _side_by_side(ct: Volume) -> Volume:
    """The same with its voxels next to each other in memory, where a crop's are strewn over the whole scan's."""
    return Volume(hu=ct.hu.copy(order="C"), geometry=ct.geometry)


def _box_in(scan: Geometry, region: Geometry) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Index box [start, stop) of the scan that holds the region."""
    corners = scan.to_index(region.corners_lps_mm())
    start = np.clip(np.floor(corners.min(axis=0)), 0, np.array(scan.shape) - 1).astype(np.int64)
    stop = np.clip(np.ceil(corners.max(axis=0)) + 1, start + 1, scan.shape).astype(np.int64)
    return start, stop
