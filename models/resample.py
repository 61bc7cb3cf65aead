"""Resampling between a scan's own grid and grids that run along +L, +P, +S."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import affine_transform, map_coordinates

from sacroleak.core.geometry import Geometry, Shape
from sacroleak.core.volume import Volume

Field = npt.NDArray[np.float32]

AXIS_TOLERANCE = 1e-3
"""Direction cosines this close to an axis count as along it: under 0.5 mm over a 500 mm scan."""

BAND = 16
"""Rows of a product that are worked out together."""

OUTSIDE_HU = -1024.0
"""What lies beyond the scan is read as air, as scanners pad."""


def resize_linear(field: npt.NDArray[np.float32], shape: Shape) -> Field:
    """Stretch [i, j, k] (or [i, j, k, c]) linearly so that corners stay corners; float32 of `shape`."""
    for axis, count in enumerate(shape):
        field = _lerp(field, np.linspace(0, field.shape[axis] - 1, count), axis)
    return field


def sample_separable(field: npt.NDArray[np.float32], indices: tuple[npt.NDArray[np.float64], ...]) -> Field:
    """Linear samples of `field` at the outer product of three index vectors, clamped at the edges."""
    for axis, index in enumerate(indices):
        field = _lerp(field, index, axis)
    return field


def sample_points(field: npt.NDArray[np.float32], index: npt.NDArray[np.float64]) -> Field:
    """Linear samples of `field` at (n, 3) fractional indices, clamped at the edges; (n,)."""
    values: Field = map_coordinates(field, index.T, order=1, mode="nearest", output=np.float32)
    return values


def _lerp(field: npt.NDArray[np.float32], index: npt.NDArray[np.float64], axis: int) -> Field:
    last = field.shape[axis] - 1
    index = np.clip(index, 0, last)
    low = np.minimum(index.astype(np.int64), max(last - 1, 0))
    weight = (index - low).astype(np.float32)
    weight = weight.reshape([-1 if a == axis else 1 for a in range(field.ndim)])
    below = np.take(field, low, axis=axis)
    above = np.take(field, np.minimum(low + 1, last), axis=axis)
    above -= below
    above *= weight
    above += below
    result: Field = above
    return result


def aligned_axes(geometry: Geometry) -> tuple[tuple[int, int, int], tuple[int, int, int]] | None:
    """(order, sign) if the grid runs along L, P, S up to order and direction, else None.

    `order[a]` is the array axis that runs along LPS axis a; `sign[a]` is +1 or -1.
    """
    directions = geometry.affine[:3, :3] / geometry.spacing_mm
    order = np.abs(directions).argmax(axis=1)
    if len(set(order.tolist())) != 3:
        return None
    along = directions[np.arange(3), order]
    if (np.abs(np.abs(along) - 1) > AXIS_TOLERANCE).any():
        return None
    if np.abs(directions).sum() > 3 + 10 * AXIS_TOLERANCE:
        return None
    i, j, k = (int(axis) for axis in order)
    x, y, z = (int(sign) for sign in np.sign(along))
    return (i, j, k), (x, y, z)


def to_aligned_grid(ct: Volume, target: Geometry) -> Field:
    """HU of `ct` on `target` (axes +L +P +S), averaged over the target's voxels; float32 of target.shape.

    Voxels beyond the scan are OUTSIDE_HU.
    """
    if aligned_axes(ct.geometry) is None:
        return _oblique(ct, target)
    order, _ = aligned_axes(ct.geometry) or ((0, 1, 2), (1, 1, 1))
    matrices = [_averaging_matrix(ct.geometry, target, lps, order[lps]) for lps in range(3)]
    spans = [_span(m) for m in matrices]
    if any(b <= a for a, b in spans):
        return np.full(target.shape, OUTSIDE_HU, dtype=np.float32)
    native = np.transpose(ct.hu, order)[tuple(slice(a, b) for a, b in spans)]
    small = [m[:, a:b] for m, (a, b) in zip(matrices, spans, strict=True)]
    covered = [m.sum(axis=1) for m in small]
    values = _apply(native, small)
    inside = covered[0][:, None, None] * covered[1][None, :, None] * covered[2][None, None, :]
    padded: Field = np.add(values, np.float32(OUTSIDE_HU) * (1 - inside), order="C")
    return padded


def _averaging_matrix(source: Geometry, target: Geometry, lps: int, axis: int) -> Field:
    """Weights (target n, source n) of a triangle as wide as the coarser of both voxels; rows sum to 1 or 0."""
    step = source.affine[lps, axis]
    places = source.affine[lps, 3] + step * np.arange(source.shape[axis])
    wanted = target.affine[lps, 3] + target.affine[lps, lps] * np.arange(target.shape[lps])
    reach = max(abs(step), target.affine[lps, lps])
    weights = np.maximum(0.0, 1.0 - np.abs(places[None, :] - wanted[:, None]) / reach)
    # A slice whose centre lies just beyond the edge still belongs to the voxel that holds it.
    full = reach / abs(step)
    total = weights.sum(axis=1, keepdims=True)
    share = np.where(total > 0.45 * full, np.minimum(total / full, 1.0), 0.0)
    share = np.where(share > 0.45, 1.0, 0.0)
    matrix: Field = (weights / np.maximum(total, 1e-9) * share).astype(np.float32)
    return matrix


def _span(matrix: Field) -> tuple[int, int]:
    used = np.flatnonzero(matrix.any(axis=0))
    return (int(used[0]), int(used[-1]) + 1) if used.size else (0, 0)


def _apply(native: npt.NDArray[np.generic], matrices: list[Field]) -> Field:
    """Three matrix products by bands, first along the axis along which memory runs, so that nothing is rearranged."""
    if abs(native.strides[0]) < abs(native.strides[-1]):
        return _apply(native.T, matrices[::-1]).T
    outer, middle, inner = (_bands(matrix) for matrix in matrices)
    i, j, k = (len(matrix) for matrix in matrices)
    whole = np.empty(native.shape[1:], dtype=np.float32)
    half = np.empty((len(whole), k), dtype=np.float32)
    partial = np.empty((len(native), j, k), dtype=np.float32)
    for plane, small in zip(native, partial, strict=True):  # one by one, so that float32 copies stay small
        np.copyto(whole, plane)
        for rows, used, weights in inner:
            np.matmul(whole[:, used], weights.T, out=half[:, rows])
        for rows, used, weights in middle:
            np.matmul(weights, half[used], out=small[rows])
    product = np.empty((i, j, k), dtype=np.float32)
    for rows, used, weights in outer:
        product[rows] = np.tensordot(weights, partial[used], axes=1)
    return product


def _bands(matrix: Field) -> list[tuple[slice, slice, Field]]:
    """BAND rows of a matrix at a time, with the columns that any of them uses: all but a few of a row are 0."""
    bands = []
    for first in range(0, len(matrix), BAND):
        rows = slice(first, min(first + BAND, len(matrix)))
        used = slice(*_span(matrix[rows]))
        bands.append((rows, used, np.ascontiguousarray(matrix[rows, used])))
    return bands


def _oblique(ct: Volume, target: Geometry) -> Field:
    """For slanted grids: average in whole voxels first, then interpolate."""
    factors = np.maximum(1, np.floor(target.spacing_mm.min() / ct.geometry.spacing_mm + 0.25).astype(int))
    reduced, geometry = _block_mean(ct, factors)
    matrix = np.linalg.inv(geometry.affine) @ target.affine
    values: Field = affine_transform(reduced, matrix[:3, :3], offset=matrix[:3, 3], output_shape=target.shape,
                                     order=1, mode="constant", cval=OUTSIDE_HU)
    return values


def _block_mean(ct: Volume, factors: npt.NDArray[np.int_]) -> tuple[Field, Geometry]:
    f = [int(x) for x in factors]
    counts = [n // x for n, x in zip(ct.geometry.shape, f, strict=True)]
    trimmed = ct.hu[: counts[0] * f[0], : counts[1] * f[1], : counts[2] * f[2]]
    shape6 = (counts[0], f[0], counts[1], f[1], counts[2], f[2])
    mean = trimmed.reshape(shape6).mean(axis=(1, 3, 5), dtype=np.float32)
    affine = ct.geometry.affine.copy()
    affine[:3, 3] = ct.geometry.to_lps((np.array(f) - 1) / 2.0)
    affine[:3, :3] = affine[:3, :3] * np.array(f)
    return mean, Geometry(affine=affine, shape=mean.shape)
