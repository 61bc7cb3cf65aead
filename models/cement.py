"""Where exactly cement ends: the network says where to look, the scan's own voxels say where it stops."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cc3d
import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree
from scipy.special import expit, logit

from sacroleak.core.geometry import Box, Geometry, box_where
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.canal import sacral_frame
from sacroleak.models.columns import Origin, columns_in, needles_in
from sacroleak.models.distance import DistanceField, Distances, indices_of, near_mm, signed_near
from sacroleak.models.faint import FAINT_MM, WEAK_HU, faint_in
from sacroleak.models.label_grids import box_on
from sacroleak.models.near import Near
from sacroleak.models.resample import Field, sample_points
from sacroleak.models.rods import METAL_HU, SATURATED_HU, Rods

Mask = npt.NDArray[np.bool_]

CEMENT = 6
"""Channel of the fine network."""
METAL = 7
FAINTEST_HU = 350.0
"""Below this nothing is called cement: soft tissue with contrast, and noise, end about here."""
CEMENT_SAY, METAL_SAY = (0.5, 0.8), (0.5, 0.5)
"""Weights of the close look's log odds and of the fine pass's. The close look sees thin leaks and takes very dense bone
for cement; the fine pass sees what the dense thing is part of. Chosen on 27 simulated scans of training anatomies."""
SUREST = 1e-3
"""No look is believed to be surer than this."""
SEED_PROBABILITY, SEED_HU = 0.65, 600.0
GROW_PROBABILITY = 0.25
"""Near a bone's surface cement may only grow where a network thinks it possible, or cortex would be swallowed,"""
RIM_SHARE, DENSEST_BONE_HU = 0.6, 1150.0
"""unless the place has this share of the cement's level, and in any case more than what most cortex reaches (single
facets of S1 reach 1,500 HU)."""
CORTEX_MM = 2.0
"""So far from the surface of a bone cortex reaches inwards, together with the contour's error."""
NEAR_PROBABILITY = 0.35
"""Outside bone thin cement is a network's to see, down to FREE_SHARE of the level: a vein fills its voxels in part."""
BODY_VOTE = 0.2
"""Voxels of one dense body vote: it is cement if its mean probability is so high, and that of metal is not higher."""
METAL_SHARE, METAL_DOUBT = 1.5, 0.3
"""What is denser than so many times the level, and may be metal, is: a screw through cement."""
BODY_SHARE = 0.65
"""Only those of at least this share of the cement's level vote: rims are as bright as bone."""
FREE_MM = 0.8
"""What lies so far outside every bone and hangs together with a body of cement, as dense, is cement too."""
CLOSE_SUSPICION, FINE_SUSPICION, SUSPECT_HU = 0.3, 0.2, 500.0
"""What either look takes for cement with more than this is hidden when the bones are looked at again: a leak that stays
in sight is taken for bone, and a bit of bone that is hidden is drawn from what lies around it."""
AGREED_PROBABILITY = 0.5
SURE_VOXELS = 20
"""The level of cement is read off the sacrum where both looks agree, if there are so many voxels of that, else of what
is taken for cement in the sacrum, else of all that is: contrast in the bowel has another level."""
CLEAR_MM = 1.2
"""Farther outside the bone than this no cortex is in a voxel."""
BONE_SHARE, FREE_SHARE = 0.6, 0.4
"""Cement that only the close look sees has this share of the level at least: beside bone, whose cortex has up to 0.6
of it, and in soft tissue, where a vein fills its voxels in part.
"""
LEVEL_PERCENTILE = 65.0
MARROW_HU = 250.0
RING_MM, RING_VOXELS, DENSEST_MARROW = (2.5, 9.0), 50, 0.6
"""What surrounds cement inside bone is read off the sacrum so far away from it, if so many voxels of that are seen, up
to this share of the cement's level: lytic bone has 50 HU, sclerotic bone 600. Else it is taken for MARROW_HU."""
SOFT_HU = 50.0
"""Soft tissue, and what a lytic lesion is filled with."""
PEAK_MM = 2.0
"""Cement outside bone ends half way from soft tissue to its densest voxel within this reach: a vein that fills its
voxels in part stays thin, and one whose level is the cement's ends where that does. On 66 simulated scans of training
anatomies leaks have a Dice of 0.85 so, and 0.84 if they go on down to FREE_SHARE of the level."""
DENSE_SHARE = 0.5
"""Outside bone a dense body ends at this share of the cement's level."""
AIM_STRIDE = 3
"""Of the cement's voxels in the sacrum every third is aimed at: enough, and less work."""
BRIGHT_METAL_HU = 1500.0
"""What metal makes bright around it is not counted as metal below this: half of a 12-bit scanner's end."""
ROD_OF_CEMENT = 0.65
"""What has a rod's shape is cement if the mean probability of that is higher: of 10 simulated scans of training
anatomies, cement's runs had 0.78 to 0.97, those of screws, rods and nails 0.08 to 0.53. In 295 other scans 24 of 306
of metal had more,"""
ONE_BONE_SHARE = 0.92
"""and if so much of it lies in one bone: 22 of those 24 had 0.49 to 0.90 there, two 0.95 and 0.96; of 26 runs of cement
there 24 had 0.96 and more, a straight leak 0.68 and one in a hip 0.71,"""
SPECK_ML = 0.05
"""or if it is no run at all, but so little denser than METAL_HU: grains of opacifier, and what sharp kernels add;"""
ROD_DENSER = 2.0
"""and if it has less than so many times the level of the rest: beside weak cement screws are taken for some. On
simulated scans of validation and training anatomies cement's runs had up to 1.5 times that level, two such screws 3.4
and 3.7."""
CERTAIN_BESIDE_METAL, BEYOND_SHARE = 0.75, 0.25
"""Blur and cement look alike beside a screw: what the networks give more is cement, if it hangs together with so many
times as much beyond the screw's rim. On 30 scans of another maker cement there has medians of 0.91 to 0.98 and lowest
deciles of 0.49 to 0.78 (n 6), what is none medians of 0.02 to 0.40 and highest deciles of 0.18 to 0.97 (n 30)."""
MARROW_MM, MARROW_SHARE = 2.5, 0.48
"""A column in another bone lies so deep, where no cortex is, and has this share of the cement's level."""
FARTHEST_MM = 42.0
"""Cement leaves the sacrum by less than this; what lies farther and in no labelled bone belongs to something else."""
SMALLEST_VOXELS, SMALLEST_ML = 4, 0.05
"""Fewer voxels are noise, unless they hold as much as this and there is other cement: of thick slices two may be a
leak, but they alone are no cement."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Region:
    """Probabilities (8, i, j, k) of the fine pass on an aligned grid."""

    probabilities: Field
    geometry: Geometry


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bright:
    """What is bright enough to be cement or metal: flat indices into the scan, HU, LPS mm, both probabilities, and
    whether the fine pass alone takes it for cement, and whether either look `suspected` it; (n,) or (n, 3) each.
    `rods`: screws and nails with their rim, bool on the scan's grid.
    """

    where: npt.NDArray[np.int64]
    hu: Field
    points: npt.NDArray[np.float64]
    cement: Field
    metal: Field
    agreed: Mask
    suspected: Mask
    rods: Mask

    def paint(self, chosen: Mask) -> Mask:
        """The scan's grid, True where `chosen`, (n,), is."""
        out = np.zeros(self.rods.size, dtype=bool)
        out[self.where[chosen]] = True
        return out.reshape(self.rods.shape)

    def pieces(self, chosen: Mask) -> npt.NDArray[np.int64]:
        """Number of the connected piece (26 neighbours) of `chosen`, (n,), that each lies in, 0 for none; (n,)."""
        numbers = cc3d.connected_components(self.paint(chosen), connectivity=26)
        return np.asarray(numbers.reshape(-1)[self.where], dtype=np.int64)

    def suspects(self) -> Mask:
        """All that may be cement, bool on the scan's grid; rods are not."""
        return self.paint(self.suspected & (self.hu > SUSPECT_HU)) & ~self.rods

    def certainty(self) -> npt.NDArray[np.uint8]:
        """Per cent of cement on the scan's grid, 0 where nothing is bright."""
        out = np.zeros(self.rods.size, dtype=np.uint8)
        out[self.where] = np.rint(100 * np.clip(self.cement, 0, 1))
        return out.reshape(self.rods.shape)


def bright_in(ct: Volume, region: Region, near: Near | None, rods: Rods, working: Geometry) -> Bright:
    """All that `delineate` has to judge; `near`, on the `working` grid, has a say where it looked. `rods`: what has the
    shape of a screw or a nail, on the grid of `ct`.
    """
    where = np.flatnonzero(ct.hu.reshape(-1) > FAINTEST_HU)
    points = ct.geometry.to_lps(np.stack(np.unravel_index(where, ct.hu.shape), axis=-1))
    index = region.geometry.to_index(points)
    cement, metal = (sample_points(region.probabilities[c], index) for c in (CEMENT, METAL))
    agreed, suspected = cement > AGREED_PROBABILITY, cement > FINE_SUSPICION
    if near is not None:
        (close_cement, close_metal), weight = near.at((CEMENT, METAL), working.to_index(points))
        suspected |= weight * close_cement > CLOSE_SUSPICION
        for close, values, say in ((close_cement, cement, CEMENT_SAY), (close_metal, metal, METAL_SAY)):
            values += weight * (_together(close, values, say) - values)
    hu = ct.hu.reshape(-1)[where].astype(np.float32)
    bright = Bright(where=where, hu=hu, points=points, cement=cement, metal=metal, agreed=agreed, suspected=suspected,
                    rods=rods.rimmed)
    if rods.core.any():
        bright = replace(bright, rods=rods.rimmed & ~surely_cement(rods, ct, region, where, cement))
        bright = replace(bright, rods=bright.rods & ~_cement_beside(bright, rods.core))
    return bright


def surely_cement(rods: Rods, ct: Volume, region: Region, where: npt.NDArray[np.int64], cement: Field) -> Mask:
    """Which connected pieces of the rimmed `rods`, on the grid of `ct`, are cement all the same: thick cement can be as
    straight, as even and as bright as a screw. It is where the networks are sure of it and it lies in one bone, which a
    screw leaves, or is but a speck; unless it is far denser than the rest of the cement, which is one mixture, or than
    any. `where` (n,): flat indices of what is bright, with the probability of `cement`.
    """
    pieces = cc3d.connected_components(rods.rimmed, connectivity=26)
    own, hu = pieces.reshape(-1)[where], ct.hu.reshape(-1)[where].astype(np.float32)
    body, rest = (own > 0) & (hu > BRIGHT_METAL_HU), (own == 0) & (cement > AGREED_PROBABILITY) & (hu > SEED_HU)
    count = np.bincount(own[body], minlength=int(pieces.max()) + 1)
    mean, density = (np.bincount(own[body], weights=values[body], minlength=len(count)) / np.maximum(count, 1)
                     for values in (cement, hu))
    sure = (mean > ROD_OF_CEMENT) & (density < METAL_HU)
    sure[0] = False
    if sure.any():
        speck = np.bincount(pieces[rods.core], minlength=len(count)) * ct.geometry.voxel_ml < SPECK_ML
        sure &= speck | (_most_in_one_bone(own[body], where[body], ct.geometry, region) >= ONE_BONE_SHARE * count)
    if sure.any() and np.count_nonzero(rest) >= SURE_VOXELS:
        sure &= density < ROD_DENSER * np.percentile(hu[rest], LEVEL_PERCENTILE)
    return np.asarray(sure[pieces]) if sure.any() else np.zeros_like(rods.rimmed)


def _most_in_one_bone(pieces: npt.NDArray[np.integer], where: npt.NDArray[np.int64], grid: Geometry,
                      region: Region) -> npt.NDArray[np.int64]:
    """How many voxels of each piece, numbers (n,) at flat indices (n,) of `grid`, lie in the bone that holds most of
    it, as the fine pass sees bones with cement in view; the canal counts with the sacrum.
    """
    at = region.geometry.nearest_within(grid.to_lps(np.stack(np.unravel_index(where, grid.shape), axis=-1)))
    bone = region.probabilities[:CEMENT].argmax(axis=0)[at]
    bone[bone == Structure.SACRAL_CANAL] = Structure.SACRUM
    held = np.bincount(pieces * CEMENT + bone, minlength=CEMENT * (int(pieces.max(initial=0)) + 1))
    return np.asarray(held.reshape(-1, CEMENT)[:, Structure.SACRUM:].max(axis=1))


def _cement_beside(bright: Bright, core: Mask) -> Mask:
    """What of the rim around the `core` of rods is cement that a screw was put through: the networks are all but
    certain of it, and it hangs together with cement beyond the rim. Both on the scan's grid.
    """
    metal, near = (of.reshape(-1)[bright.where] for of in (core, bright.rods))
    beside = near & ~metal & (bright.cement > CERTAIN_BESIDE_METAL)
    beyond = ~near & (bright.cement > SEED_PROBABILITY) & (bright.hu > SEED_HU)
    pieces = bright.pieces(beside | beyond)
    within, outside = (np.bincount(pieces[of], minlength=int(pieces.max(initial=0)) + 1) for of in (beside, beyond))
    return bright.paint(beside & (outside >= BEYOND_SHARE * within)[pieces])


def _together(near: Field, fine: Field, say: tuple[float, float]) -> Field:
    """The probability, (n,), whose log odds are the sum of those of two looks, weighted by `say`."""
    odds = sum(np.float32(share) * logit(np.clip(p, SUREST, 1 - SUREST))
               for share, p in zip(say, (near, fine), strict=True))
    return np.asarray(expit(odds), dtype=np.float32)


def delineate(ct: Volume, anatomy: LabelMap, bright: Bright) -> tuple[Mask, Mask]:
    """(cement, metal), bool on the grid of `ct`.

    An edge lies about half way between the cement's own level and what surrounds it, so that volumes are right at any
    thickness. Whether a dense body is cement its voxels decide together; thin cement is followed by connection.
    """
    hu, values, cement_p, metal_p = ct.hu, bright.hu, bright.cement, bright.metal
    from_bone = _bone_distance(anatomy)
    distance = from_bone.at(bright.points)
    bone = distance <= 0
    rods = bright.rods.reshape(-1)[bright.where]
    seeds = (cement_p > SEED_PROBABILITY) & (values > SEED_HU) & (cement_p > metal_p) & ~rods
    needles = _needles(ct, bright, rods)
    if not (seeds & ~needles).any() or np.percentile(values[seeds & ~needles], 90) < SATURATED_HU:
        rods |= needles
        seeds &= ~needles
    metal = bright.paint((rods | ((metal_p > 0.5) & (metal_p > cement_p))) & (values > BRIGHT_METAL_HU))
    if not seeds.any():
        return np.zeros(hu.shape, dtype=bool), metal
    level = _level(values, seeds, bright.agreed, _in_sacrum(anatomy, bright.points, seeds))
    edge_bone, edge_soft = _edge_in_bone(level, ct, anatomy, bright), max(FREE_SHARE * level, FAINTEST_HU)
    # Cement of one patient is one mixture: what only the close look takes for it, and is far less dense, is cortex.
    seeds &= bright.agreed | (values > np.where(distance < CLEAR_MM, BONE_SHARE, FREE_SHARE) * level)
    # The level is read off them; what they add to the cement ends at its edge like all else.
    seeds &= values > np.where(bone, edge_bone, edge_soft)
    if not seeds.any():
        return np.zeros(hu.shape, dtype=bool), metal
    dense = (values > np.where(bone, edge_bone, max(DENSE_SHARE * level, SEED_HU))) & ~rods
    bodies = _bodies(bright, dense, dense & (values > BODY_SHARE * level))
    clear = (distance > FREE_MM) | (distance < -CORTEX_MM)
    denser = (values > DENSEST_BONE_HU) & (clear | (values > RIM_SHARE * level))
    bodies &= denser | (cement_p > GROW_PROBABILITY)
    # Saturated cement looks like metal too: where a network takes a place for both, shape decides, by `rods`.
    no_metal = (metal_p <= np.maximum(cement_p, METAL_DOUBT)) | (cement_p > AGREED_PROBABILITY)
    within = bone & (cement_p > GROW_PROBABILITY) & (values > edge_bone) & no_metal
    thin = ~bone & (cement_p > NEAR_PROBABILITY) & (values > edge_soft) & no_metal
    screw = (values > METAL_SHARE * level) & (metal_p > METAL_DOUBT)
    # No cortex reaches so deep: what hangs together with a seed is cement there, however weak, whatever networks say.
    deep = (distance < -MARROW_MM) & (values > edge_bone) & no_metal
    grown = (bodies | within | thin | deep) & ~rods & ~screw
    parts = bright.pieces(grown)
    found = _seeded(parts, seeds & grown, voxel_ml=ct.geometry.voxel_ml)
    found &= _within_reach(np.where(found, parts, 0), bright.points, distance, anatomy)
    loose = ((distance > FREE_MM) & (values > edge_soft)) | (
        (distance < -MARROW_MM) & (values > max(MARROW_SHARE * level, SUSPECT_HU)))
    no_metal = (metal_p <= METAL_DOUBT) | (metal_p <= cement_p)
    found |= _columns(ct, anatomy, bright, found, loose & no_metal & ~rods & ~screw, level)
    if level <= WEAK_HU:
        body = bright.pieces((distance > FAINT_MM) & ~found & ~rods)
        found |= faint_in(bright.points, cement_p, body, level=level, anatomy=anatomy, ct=ct)
    found &= bone | _upper_half(bright, found, level, ct.geometry)
    cement = bright.paint(found)
    return cement, metal & ~cement


def _upper_half(bright: Bright, found: Mask, level: float, grid: Geometry) -> Mask:
    """Which of the `found` voxels, (n,), are denser than half way from soft tissue to the densest found one near by, at
    most the level: a thin vein fills its voxels in part, and is no wider for it.
    """
    mask = bright.paint(found)
    box = box_where(mask)
    upper = np.zeros_like(found)
    if box is None:
        return upper
    values = np.minimum(bright.hu[found], np.float32(level))
    peaks = np.zeros(mask[box].shape, dtype=np.float32)
    peaks[mask[box]] = values
    size = [2 * max(1, round(PEAK_MM / float(s))) + 1 for s in grid.spacing_mm]
    upper[found] = values > (maximum_filter(peaks, size=size)[mask[box]] + SOFT_HU) / 2
    return upper


def _level(values: Field, seeds: Mask, agreed: Mask, sacral: Mask) -> float:
    """HU of full cement, from `values` (n,) at `seeds` (n,), of which at least one is there.

    Half-filled voxels at the rim are seeds too, more of them the smaller the cement; the upper ones are full.
    """
    wanted = next((sure for sure in (seeds & agreed & sacral, seeds & sacral, seeds & agreed)
                   if np.count_nonzero(sure) >= SURE_VOXELS), seeds)
    return float(np.percentile(values[wanted], LEVEL_PERCENTILE))


def _edge_in_bone(level: float, ct: Volume, anatomy: LabelMap, bright: Bright) -> float:
    """HU at which cement of this level ends inside bone."""
    return (_marrow_hu(level, ct, anatomy, bright) + level) / 2


def _marrow_hu(level: float, ct: Volume, anatomy: LabelMap, bright: Bright) -> float:
    """Median HU of the sacrum around the cement of this level, that far off that it is not blurred into it."""
    grid, dense = ct.geometry, (level + MARROW_HU) / 2
    body = bright.paint((bright.cement > GROW_PROBABILITY) & (bright.hu > dense))
    box = _beside_sacrum(body, anatomy, grid)
    if box is None:
        return MARROW_HU
    away = near_mm(body[box], grid, RING_MM[1])
    nearest = max(RING_MM[0], 1.2 * float(grid.spacing_mm.max()))
    around = indices_of((away > nearest) & (away < RING_MM[1]) & (ct.hu[box] < dense)) + [s.start for s in box]
    sacral = _in_sacrum(anatomy, grid.to_lps(around), np.ones(len(around), dtype=bool))
    values = ct.hu[tuple(around[sacral].T)]
    return float(np.clip(np.median(values), 0.0, DENSEST_MARROW * level)) if len(values) >= RING_VOXELS else MARROW_HU


def _beside_sacrum(body: Mask, anatomy: LabelMap, grid: Geometry) -> Box | None:
    """The box of `grid` that holds all of the sacrum that may lie within the ring around the body, and all of the body
    that may be so near to the sacrum; None if there is none.
    """
    sacrum = box_where(anatomy.labels == Structure.SACRUM)
    if sacrum is None:
        return None
    margin = np.ceil(RING_MM[1] / grid.spacing_mm) + 1
    first, last = box_on(grid, anatomy.geometry, sacrum)
    low = np.maximum(first - margin, 0).astype(np.int64)
    high = np.minimum(last + margin, grid.shape).astype(np.int64)
    near = box_where(body[low[0]:high[0], low[1]:high[1], low[2]:high[2]], margin)
    if near is None:
        return None
    i, j, k = (slice(int(a) + s.start, int(a) + s.stop) for a, s in zip(low, near, strict=True))
    return i, j, k


def _in_sacrum(anatomy: LabelMap, points: npt.NDArray[np.float64], wanted: Mask) -> Mask:
    """Which of the `wanted` (n,) of (n, 3) LPS mm lie in the sacrum; (n,)."""
    sacral = np.zeros(len(points), dtype=bool)
    sacral[wanted] = anatomy.labels[anatomy.geometry.nearest_within(points[wanted])] == Structure.SACRUM
    return sacral


def _needles(ct: Volume, bright: Bright, rods: Mask) -> Mask:
    """What is straight, saturated and as thin as a needle, with what it makes bright beside it; (n,)."""
    if not ((bright.hu >= SATURATED_HU) & ~rods).any():
        return np.zeros(len(bright.hu), dtype=bool)
    body = bright.pieces((bright.hu >= SATURATED_HU / 2) & ~rods)
    return needles_in(bright.points, bright.hu, body, ct=ct)


def _columns(ct: Volume, anatomy: LabelMap, bright: Bright, found: Mask, loose: Mask, level: float) -> Mask:
    """What a needle left behind it, among `loose` voxels, of which those in the sacrum do not count, beside the `found`
    cement; (n,) each.
    """
    sacrum = _in_sacrum(anatomy, bright.points, found | loose)
    aims = bright.points[found & sacrum][::AIM_STRIDE]
    if len(aims) == 0:
        return np.zeros_like(found)
    body = bright.pieces(loose & ~found & ~sacrum)
    origin = Origin(aims=aims, level=level, frame=sacral_frame(anatomy))
    return columns_in(bright.points, bright.hu, body, origin=origin, ct=ct)


def _bodies(bright: Bright, dense: Mask, voting: Mask) -> Mask:
    """Which of the `dense` voxels, (n,), lie in connected bodies (26 neighbours) that are cement by the mean of those
    `voting`.
    """
    parts = bright.pieces(dense)
    count = int(parts.max(initial=0)) + 1
    voters = np.bincount(parts[voting], minlength=count)
    for_cement, for_metal = (np.bincount(parts[voting], weights=p[voting], minlength=count) / np.maximum(voters, 1)
                             for p in (bright.cement, bright.metal))
    chosen = (voters >= SMALLEST_VOXELS) & (for_cement > BODY_VOTE) & (for_cement > for_metal)
    chosen[0] = False
    return np.asarray(chosen[parts] & dense)


def _seeded(parts: npt.NDArray[np.int64], seeds: Mask, *, voxel_ml: float) -> Mask:
    """Which voxels lie in a part, (n,), 0 for none, that holds a seed and is larger than noise: see SMALLEST_VOXELS."""
    sizes = np.bincount(parts)
    seeded = np.bincount(parts[seeds], minlength=len(sizes)) > 0
    seeded[0] = False
    keep = seeded & (sizes >= SMALLEST_VOXELS)
    if keep.any():
        keep |= seeded & (sizes * voxel_ml >= SMALLEST_ML)
    return np.asarray(keep[parts])


def _within_reach(parts: npt.NDArray[np.int64], points: npt.NDArray[np.float64], distance: Distances,
                  anatomy: LabelMap) -> Mask:
    """Which of (n, 3) LPS mm do not lie in a part, (n,), that is far from the sacrum and, by its `distance` from the
    bones, in none of them: hardware of hips and femora.
    """
    keep = np.ones(int(parts.max(initial=0)) + 1, dtype=bool)
    sacrum = indices_of(anatomy.labels == Structure.SACRUM)[::16]
    if len(sacrum):
        tree = cKDTree(anatomy.geometry.to_lps(sacrum))
        for number in np.unique(parts[parts > 0]):
            rows = np.flatnonzero(parts == number)
            near = tree.query(points[rows[:: max(1, len(rows) // 500)]])[0].min() <= FARTHEST_MM
            keep[number] = near or (distance[rows] <= 0).mean() > 0.5
    return np.asarray(keep[parts])


def _bone_distance(anatomy: LabelMap) -> DistanceField:
    """Distance to the nearest bone's surface on the anatomy's grid, as far as MARROW_MM; the canal is no bone."""
    bone = (anatomy.labels != Structure.BACKGROUND) & (anatomy.labels != Structure.SACRAL_CANAL)
    return signed_near(bone, anatomy.geometry, MARROW_MM)
