"""Result against truth, one scan at a time: overlap, surfaces, and which leak is which. Masks are bool [i, j, k]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import edt
import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion

from sacroleak.core.geometry import box_where
from sacroleak.core.structures import Site, Structure

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[Any]


def dice(found: Mask, truth: Mask) -> float | None:
    """Twice the common volume over the sum of both, 0 to 1; None where both are empty."""
    total = int(np.count_nonzero(found)) + int(np.count_nonzero(truth))
    return None if total == 0 else 2.0 * int(np.count_nonzero(found & truth)) / total


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceScores:
    """`dice`: share of both surfaces that lies within the tolerance of the other (Nikolov et al. 2018); `hd95_mm`: the
    larger of both directions' 95th percentile of surface distances.
    """

    dice: float | None
    hd95_mm: float | None


def surface_scores(found: Mask, truth: Mask, *, spacing_mm: Sequence[float], tolerance_mm: float) -> SurfaceScores:
    """Both surface measures of one structure, by surface voxels: on slices thicker than the tolerance they are hard.

    Surfaces are the outermost voxels of each mask; where the array cuts a structure is no surface. `dice` is None where
    both are empty and 0 where one is, `hd95_mm` None where either is.
    """
    if not found.any() or not truth.any():
        return SurfaceScores(dice=None if found.any() == truth.any() else 0.0, hd95_mm=None)
    away = _surface_distances(found, truth, spacing_mm)
    if not all(len(part) for part in away):
        return SurfaceScores(dice=None, hd95_mm=None)
    both = np.concatenate(away)
    return SurfaceScores(dice=float(np.count_nonzero(both <= tolerance_mm)) / len(both),
                         hd95_mm=max(float(np.percentile(part, 95)) for part in away))


def contour_errors(found: Mask, truth: Mask, *, beside: Mask, within_mm: float,
                   spacing_mm: Sequence[float]) -> npt.NDArray[np.float64]:
    """How far the true surface lies from the found one, mm, at each true surface voxel within `within_mm` of `beside`.

    Empty where nothing of the surface lies beside it, or nothing was found.
    """
    if not found.any() or not truth.any() or not beside.any():
        return np.empty(0)
    box = box_where(found | truth | beside, 1)
    found, truth, beside = (np.ascontiguousarray(mask[box]) for mask in (found, truth, beside))
    close = edt.edt(~beside, anisotropy=tuple(spacing_mm), black_border=False) <= within_mm
    skin = truth & ~_core(truth) & close
    away = edt.edt(~(found & ~_core(found)), anisotropy=tuple(spacing_mm), black_border=False)
    return np.asarray(away[skin], dtype=np.float64)


def volume_error_pct(found_ml: float, true_ml: float) -> float | None:
    """Absolute error of a volume in per cent of the truth; None where there is nothing."""
    return None if true_ml <= 0 else 100.0 * abs(found_ml - true_ml) / true_ml


def sides_exchanged(found: Labels, truth: Labels) -> bool | None:
    """Whether more of the true hips is called by the other side's name than by its own; None without any hip."""
    left, right = truth == Structure.HIP_LEFT, truth == Structure.HIP_RIGHT
    if not (left.any() or right.any()):
        return None
    own = np.count_nonzero(found[left] == Structure.HIP_LEFT) + np.count_nonzero(found[right] == Structure.HIP_RIGHT)
    other = np.count_nonzero(found[left] == Structure.HIP_RIGHT) + np.count_nonzero(found[right] == Structure.HIP_LEFT)
    return bool(other > own)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakMatch:
    """One true leak: the site of the found leak that covers most of it, None if none covers enough."""

    number: int
    covered: float
    site: Site | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """All true leaks of a scan, and the sites of found leaks that lie on none of them."""

    matches: tuple[LeakMatch, ...]
    false_sites: tuple[Site, ...]


def match_leaks(found: Labels, sites: Mapping[int, Site], truth: Labels, *, share: float) -> Matching:
    """Match found leaks to true ones by overlap; both maps hold 0 or a leak's number, on one grid.

    A true leak is found if found leaks cover at least `share` of its voxels; the one that covers most gives the site.
    A found leak is false if less than `share` of it lies on true leaks.
    """
    both = (found > 0) & (truth > 0)
    values, counts = np.unique(np.stack([found[both], truth[both]]).astype(np.int64), axis=1, return_counts=True)
    pairs = {(f, t): count for (f, t), count in zip(values.T.tolist(), counts.tolist(), strict=True)}
    sizes = [dict(zip(*(part.tolist() for part in np.unique(m[m > 0], return_counts=True)), strict=True))
             for m in (found, truth)]
    matches = tuple(_match(t, size, pairs, sites, share) for t, size in sizes[1].items())
    false_sites = tuple(site for number, site in sorted(sites.items())
                        if _common(pairs, found=number) < share * sizes[0].get(number, 0) or number not in sizes[0])
    return Matching(matches=matches, false_sites=false_sites)


def _match(number: int, size: int, pairs: Mapping[tuple[int, int], int], sites: Mapping[int, Site],
           share: float) -> LeakMatch:
    own = {f: count for (f, t), count in pairs.items() if t == number}
    covered = sum(own.values()) / size
    best = max(own, key=lambda f: own[f]) if own and covered >= share else None
    return LeakMatch(number=number, covered=covered, site=None if best is None else sites[best])


def _common(pairs: Mapping[tuple[int, int], int], *, found: int) -> int:
    return sum(count for (f, _), count in pairs.items() if f == found)


def f1(truth: Sequence[bool], found: Sequence[bool]) -> float | None:
    """Harmonic mean of precision and recall; None where neither has a positive."""
    both = sum(a and b for a, b in zip(truth, found, strict=True))
    total = sum(truth) + sum(found)
    return None if total == 0 else 2.0 * both / total


def kappa(truth: Sequence[bool], found: Sequence[bool]) -> float | None:
    """Cohen's kappa of yes and no; None where chance alone would agree always."""
    n = len(truth)
    if n == 0:
        return None
    agree = sum(a == b for a, b in zip(truth, found, strict=True)) / n
    p, q = sum(truth) / n, sum(found) / n
    chance = p * q + (1 - p) * (1 - q)
    return None if chance >= 1.0 else (agree - chance) / (1.0 - chance)


def calibration_error(truth: Sequence[bool], probability: Sequence[float], *, bins: int = 10) -> float | None:
    """Expected calibration error: mean distance of stated from observed share over equal bins, weighted by size."""
    if not truth:
        return None
    stated, seen = np.asarray(probability, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    bin_of = np.minimum((stated * bins).astype(np.int64), bins - 1)
    total = sum(abs(float(stated[bin_of == b].sum() - seen[bin_of == b].sum())) for b in range(bins))
    return total / len(truth)


def _surface_distances(found: Mask, truth: Mask, spacing_mm: Sequence[float]) -> list[npt.NDArray[np.floating[Any]]]:
    """From each surface voxel of one mask to the other's nearest, mm: found to truth, then truth to found."""
    box = box_where(found | truth, 1)
    skins = [mask & ~_core(mask) for mask in (np.ascontiguousarray(m[box]) for m in (found, truth))]
    return [edt.edt(~other, anisotropy=tuple(spacing_mm), black_border=False)[skin]
            for skin, other in (skins, skins[::-1])]


def _core(mask: Mask) -> Mask:
    """The mask without its surface; a structure that the array cuts goes on beyond it."""
    core: Mask = binary_erosion(mask, border_value=1)
    return core
