"""What a scanner does to the truth: hardened rays, slices, kernel, noise with its grain, saturation, padding."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.fft import dctn, idctn
from scipy.ndimage import uniform_filter1d

from sacroleak.core.geometry import Affine, Geometry, Points, Shape
from sacroleak.training.simulation.noise import Field
from sacroleak.training.simulation.projection import Rays, chord_mm, hardening
from sacroleak.training.simulation.scene import Scene

FWHM = 2.3548
"""Full width at half maximum of a Gaussian, in standard deviations."""
SATURATED_HU = 3071.0
"""Highest value of a 12-bit scanner."""
EXTENDED_HU = 30710.0
"""Highest value of scanners with a scale ten times as long."""
EDGE_MM = 1.0
"""Width (sigma) of what an edge-enhancing kernel subtracts: its gain grows up to about 5 line pairs per cm."""
REFERENCE_BLUR_MM = 1.2
"""Noise is stated for a soft kernel of this FWHM, 1 mm slices, and a patient of TYPICAL_MM."""
TYPICAL_MM = (360.0, 230.0)
WATER_PER_MM = 0.0195
"""Attenuation of water at 68 keV (NIST XCOM)."""
MODULATED = 0.5
"""Share of a thick path's noise that tube current modulation takes back; an assumption."""
SLAB = 32
"""Slices transformed at once: a whole scan's spectrum is never held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """One acquisition; every effect can be turned off.

    `blur_mm`: FWHM in the plane; `edge_enhance`: 0 soft to 1.5 bone; `slice_mm`: thickness; `increment_mm`: distance
    of slices, 0 for the grid's own (a larger one is interpolated back to the grid); `pixel_mm`: likewise in the plane,
    as an archive that keeps coarse voxels, `averaged` over their width or read off at points; `noise_hu`: see
    REFERENCE_BLUR_MM;
    `hardening`: 1 physics, 0 off; `starvation`: noise of rays that hardly arrive; `saturates` at 3071 HU; `tilt_deg`:
    of the gantry; `prone`, `table`; `fov_mm`: width of the round field of view around `fov_centre_mm`, None for all;
    `padding_hu`: value beyond it.
    """

    blur_mm: float
    slice_mm: float
    noise_hu: float
    edge_enhance: float = 0.0
    increment_mm: float = 0.0
    pixel_mm: float = 0.0
    averaged: bool = True
    hardening: float = 1.0
    starvation: bool = True
    saturates: bool = True
    tilt_deg: float = 0.0
    prone: bool = True
    table: bool = True
    fov_mm: float | None = None
    fov_centre_mm: tuple[float, float] = (0.0, 0.0)
    padding_hu: float = -1024.0

    def rays(self, body_mm: tuple[float, float], angles: int) -> Rays:
        """How rays are taken: photons follow from the noise, 12 HU being about a million in air at each place."""
        photons = 1e6 * (12.0 / max(self.noise_hu, 4.0)) ** 2 if self.starvation else np.inf
        return Rays(strength=self.hardening, photons=float(photons), body_mm=body_mm, angles=angles)


QUIET = Scanner(blur_mm=0.8, slice_mm=1.0, noise_hu=12.0)
"""A good diagnostic scan right after the procedure, the patient still prone."""


def draw_scanner(rng: np.random.Generator, *, wild: bool, rebinned: bool = False) -> Scanner:
    """Soft to bone kernels, 0.6 to 5 mm slices, low to high dose.

    `rebinned`: slices may lie farther apart than the grid's, as a thick-slice scan that was brought to a finer grid,
    and pixels too: public collections keep voxels of 1.5 mm.
    """
    u = rng.uniform
    thick = u(0.6, 2.0) if rng.random() < 0.55 else u(2.0, 5.5)
    bone = u(0, 1) if rng.random() < 0.45 else 0.0
    apart, pixel, averaged = 0.0, 0.0, True
    if rebinned and rng.random() < 0.6:
        apart = thick * float(rng.choice([0.5, 0.8, 1.0, 1.0, 1.25]))
    if rebinned and rng.random() < 0.4:
        pixel, averaged = u(1.2, 3.0), bool(rng.random() < 0.5)
        apart = max(apart, pixel)
    return Scanner(
        blur_mm=u(0.4, 3.0) if wild else u(0.9, 1.8) * (1 - 0.55 * bone), edge_enhance=bone * u(0.3, 1.6),
        slice_mm=thick, increment_mm=apart, pixel_mm=pixel, averaged=averaged,
        noise_hu=float(np.exp(u(np.log(4), np.log(60 if bone == 0 else 25)))),
        hardening=u(0.6, 1.5) if rng.random() < 0.6 else 0.0, starvation=bool(rng.random() < 0.8),
        saturates=bool(rng.random() < 0.6), prone=bool(rng.random() < 0.6), table=bool(rng.random() < 0.8),
        fov_mm=u(150, 420) if rng.random() < 0.4 else None, fov_centre_mm=(rng.normal(0, 12), rng.normal(-15, 15)),
        padding_hu=float(rng.choice([-1024.0, -1024.0, -1000.0, -2000.0, -3024.0, 0.0])))


def acquire(rng: np.random.Generator, hu: Field, geometry: Geometry, scanner: Scanner,
            body_mm: tuple[float, float] = TYPICAL_MM, *, over: Field | None = None) -> Field:
    """The scan of a true HU field [i, j, k] of a patient `body_mm` wide and deep; float32 on the same grid.

    `over`: a real scan, with its own noise, blur and shadows, that `hu` was painted on: only what differs is blurred
    and casts shadows, and no noise is added. Values end at -1024 and at the scanner's highest; nothing is padded yet.
    """
    spacing, highest = geometry.spacing_mm, SATURATED_HU if scanner.saturates else EXTENDED_HU
    angles = 96 if hu.size < 1_500_000 else 180
    streaks = hardening(rng, hu, spacing, scanner.rays(body_mm, angles), over=over)
    if streaks is not None:
        hu = hu.copy()
        hu[:, :, streaks[1]] += streaks[0]
    if over is not None:
        silent = replace(scanner, noise_hu=0.0)
        real: Field = over + _cut(rng, hu - over, np.zeros(hu.shape[2], np.float32), silent, (spacing, body_mm))
        np.minimum(real, np.float32(max(float(over.max()), highest)), out=real)
        return real
    out = _cut(rng, hu, _lateral_noise(hu, spacing), scanner, (spacing, body_mm))
    np.clip(out, -1024, highest, out=out)
    return out


def _cut(rng: np.random.Generator, hu: Field, level: Field, scanner: Scanner,
         patient: tuple[Points, tuple[float, float]]) -> Field:
    """Into slices, through the kernel, with noise, and back to the grid; `level`: lateral noise by slice."""
    into, back = _rebinned(hu.shape[2], float(patient[0][2]), scanner.slice_mm, scanner.increment_mm)
    stack: Field = hu @ into.T if into is not None else hu.copy()
    _kernel_and_noise(rng, stack, scanner, into @ level if into is not None else level, patient)
    for axis in (0, 1):
        into, there = _rebinned(stack.shape[axis], float(patient[0][axis]), scanner.pixel_mm * scanner.averaged,
                                scanner.pixel_mm)
        if into is not None and there is not None:
            stack = np.moveaxis(np.moveaxis(stack, axis, 2) @ (there @ into).T, 2, axis)
    out: Field = np.ascontiguousarray(stack @ back.T if back is not None else stack)
    return out


def _rebinned(count: int, step_mm: float, thick_mm: float, apart_mm: float) -> tuple[Field | None, Field | None]:
    """Weights (slices, k) of voxels in slices `apart_mm` apart, and (k, slices) back to voxels; None where nothing
    changes."""
    apart = apart_mm if apart_mm > 1.02 * step_mm else step_mm
    number = max(2, int((count - 1) * step_mm / apart + 1e-6) + 1) if count > 1 else 1
    if number == count or apart == step_mm:
        number, apart = count, step_mm
    places = np.arange(count) * step_mm
    middles = (places[-1] - (number - 1) * apart) / 2 + np.arange(number) * apart
    into = None
    if thick_mm > 1.02 * step_mm or number != count:
        half = (max(thick_mm, step_mm) + step_mm) / 2
        near = half - np.abs(places[None, :] - middles[:, None])
        weights = np.clip(near, 0, step_mm)
        into = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    back = None
    if number != count:
        far = np.abs(np.clip(places, middles[0], middles[-1])[:, None] - middles[None, :])
        back = np.clip(1 - far / apart, 0, 1)
        back = (back / back.sum(axis=1, keepdims=True)).astype(np.float32)
    return into, back


def _lateral_noise(hu: Field, spacing: Points) -> Field:
    """How much lateral noise each slice has beyond a body of water: bone and metal between left and right; (k,)."""
    thin = hu[::2, ::2] if hu.shape[0] * hu.shape[1] > 4 else hu
    across = np.maximum(thin, -200).sum(axis=0) * np.float32(2 * spacing[0] * WATER_PER_MM / 1000)
    # The worst tenth of the rows of each slice.
    worst = np.sort(across, axis=0)[-max(1, across.shape[0] // 10):].mean(axis=0)
    level: Field = np.clip(np.exp(0.5 * (1 - MODULATED) * np.clip(worst, 0, 8)) - 1, 0, 4).astype(np.float32)
    return level


def _kernel_and_noise(rng: np.random.Generator, stack: Field, scanner: Scanner, lateral: Field,
                      patient: tuple[Points, tuple[float, float]]) -> None:
    """Filter each slice by the kernel's transfer function and add noise with the same grain, in place.

    A cosine transform mirrors the picture at its edges, so that nothing wraps around.
    """
    spacing, body_mm = patient
    shape = stack.shape
    fx, fy = (np.arange(n)[:, None] / (2 * n * d) for n, d in zip(shape[:2], spacing[:2], strict=True))
    kernel = _transfer(fx, fy.T, spacing, scanner)
    amplitude, sideways = _grain(fx, fy.T, spacing, scanner, body_mm)
    overlap = scanner.slice_mm / max(scanner.increment_mm, float(spacing[2]))
    depth = max(1, round(overlap))
    for start in range(0, shape[2], SLAB):
        part = stack[:, :, start:start + SLAB]
        spectrum = dctn(part, axes=(0, 1), norm="ortho")
        spectrum *= kernel[:, :, None]
        if scanner.noise_hu > 0:
            white = rng.standard_normal((*shape[:2], part.shape[2] + depth - 1), dtype=np.float32)
            if depth > 1:  # slices that overlap share photons
                white = uniform_filter1d(white, depth, axis=2)[:, :, depth // 2:][:, :, :part.shape[2]]
                white *= np.float32(np.sqrt(depth))
            scale = sideways[:, :, None] * lateral[start:start + SLAB]
            scale += amplitude[:, :, None]
            white *= scale
            spectrum += white
        stack[:, :, start:start + SLAB] = idctn(spectrum, axes=(0, 1), norm="ortho", overwrite_x=True)


def _transfer(fx: Points, fy: Points, spacing: Points, scanner: Scanner) -> Field:
    """The kernel's modulation transfer at frequencies in 1/mm: a Gaussian times a boost of fine detail; 1 at 0."""
    # A voxel already averages over its own width, so only the rest of the blur is added.
    sx, sy = np.sqrt(np.maximum(scanner.blur_mm ** 2 - (0.5 * spacing[:2]) ** 2, 0)) / FWHM
    soft = np.exp(-2 * np.pi ** 2 * ((sx * fx) ** 2 + (sy * fy) ** 2))
    boost = 1 + scanner.edge_enhance * (1 - np.exp(-2 * np.pi ** 2 * EDGE_MM ** 2 * (fx ** 2 + fy ** 2)))
    transfer: Field = (soft * boost).astype(np.float32)
    return transfer


def _grain(fx: Points, fy: Points, spacing: Points, scanner: Scanner,
           body_mm: tuple[float, float]) -> tuple[Field, Field]:
    """Amplitude of noise in each coefficient, and of what dense things between left and right add to it.

    The power of noise after filtered back-projection rises with frequency, times the kernel squared; a ray's share in
    it lies along its normal, so that long lateral paths give horizontal streaks.
    """
    f = np.hypot(fx, fy)
    sigma = REFERENCE_BLUR_MM / FWHM
    whole = 2 * np.pi * (np.sqrt(np.pi) / 4) / (2 * np.pi * sigma) ** 3
    blur = np.exp(-2 * np.pi ** 2 * (max(scanner.blur_mm, 0.3) / FWHM) ** 2 * f ** 2)
    boost = 1 + scanner.edge_enhance * (1 - np.exp(-2 * np.pi ** 2 * EDGE_MM ** 2 * f ** 2))
    averaged = np.sinc(fx * spacing[0]) * np.sinc(fy * spacing[1])
    level = scanner.noise_hu / np.sqrt(max(scanner.slice_mm, 0.6))
    power = level ** 2 / whole * (f + 0.02) / (spacing[0] * spacing[1])
    angle = np.arctan2(fy, np.maximum(fx, 1e-9))
    path = chord_mm(angle.ravel(), np.zeros(angle.size), body_mm).reshape(angle.shape)
    thick = np.exp(0.5 * (1 - MODULATED) * WATER_PER_MM * (path - np.mean(TYPICAL_MM)))
    amplitude = np.sqrt(power) * blur * boost * np.abs(averaged) * np.clip(thick, 0.5, 5)
    sideways = amplitude * np.sin(angle) ** 12
    return amplitude.astype(np.float32), sideways.astype(np.float32)


def draw_field_of_view(rng: np.random.Generator, shape: Shape) -> tuple[slice, slice, slice]:
    """What a small or misplaced field of view still sees: three in ten times an axis loses up to 38 %."""
    seen = []
    for sides in shape:
        lost = int(rng.uniform(0.03, 0.38) * sides) if rng.random() < 0.3 else 0
        seen.append(slice(lost, None) if rng.random() < 0.5 else slice(0, sides - lost))
    return seen[0], seen[1], seen[2]


def round_view(scene: Scene, scanner: Scanner) -> npt.NDArray[np.bool_] | None:
    """Bool [i, j, 1]: what the round field of view sees; None where it sees all of the grid."""
    if scanner.fov_mm is None:
        return None
    x, y, _ = scene.axes
    far = np.hypot(x[:, None] - scanner.fov_centre_mm[0], y[None, :] - scanner.fov_centre_mm[1])
    inside: npt.NDArray[np.bool_] = (far < scanner.fov_mm / 2)[:, :, None]
    # A view that would miss nearly everything belongs to another scan.
    return inside if 0.25 < inside.mean() < 1 else None


def tilted_grid(geometry: Geometry, tilt_deg: float) -> Geometry:
    """The grid of a tilted gantry over an upright one: each row j is shifted along the table by its height.

    Rows keep their place along P, so that they lie closer together in the slice by the tilt's cosine.
    """
    slope = np.tan(np.radians(tilt_deg))
    affine: Affine = geometry.affine.copy()
    affine[2, 1] = affine[1, 1] * slope
    affine[2, 3] -= affine[2, 1] * (geometry.shape[1] - 1) / 2
    return Geometry(affine=affine, shape=geometry.shape, frame_of_reference_uid=geometry.frame_of_reference_uid)


def tilted(field: Field, geometry: Geometry, tilt_deg: float, *, beyond: float) -> Field:
    """`field` of an upright grid read out on its tilted_grid, linear along the table; `beyond` where it ends."""
    count = geometry.shape[2]
    shift = np.tan(np.radians(tilt_deg)) * geometry.affine[1, 1] / geometry.affine[2, 2]
    out = np.empty_like(field)
    for j in range(geometry.shape[1]):
        place = np.arange(count) + shift * (j - (geometry.shape[1] - 1) / 2)
        low = np.clip(np.floor(place).astype(int), 0, max(count - 2, 0))
        weight = (place - low).astype(np.float32)
        row = field[:, j]
        out[:, j] = row[:, low] * (1 - weight) + row[:, np.minimum(low + 1, count - 1)] * weight
        out[:, j, (place < -0.5) | (place > count - 0.5)] = beyond
    return out
