"""Contact sheets for docs/: every site and every distractor in three planes, with the truth drawn as lines."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from rich.progress import track
from scipy.ndimage import binary_erosion, zoom

from sacroleak.core.structures import Side, Structure
from sacroleak.core.whole import write_whole
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.case import Case
from sacroleak.training.simulation.cases import CaseRequest, make_case
from sacroleak.training.simulation.cohort import shipped_cohorts
from sacroleak.training.simulation.plan import Approach, Injection, LeakPlan, LesionKind, Patient, Plan
from sacroleak.training.simulation.scanner import QUIET, Scanner
from sacroleak.training.simulation.sources import anatomy_of, find_anatomies

Rgb = npt.NDArray[np.uint8]
Plane = npt.NDArray[Any]

WINDOW_HU = (-200.0, 1000.0)
TILE_PX = 190
CAPTION_PX = 14
SIZE_MM = (230.0, 190.0, 200.0)
WIDE_MM = (440.0, 300.0, 120.0)
"""For what lies beside or under the patient."""
PIXEL_MM = 1.25
GREYS = 64
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "sacrum": (80, 200, 255), "canal": (255, 230, 60), "hips": (120, 140, 255), "l5": (120, 220, 120),
    "cement": (255, 140, 0), "leak": (255, 40, 90), "metal": (200, 120, 255)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One scan of a sheet: what it shows, the plan that makes it, how much is seen, and by what (None: drawn)."""

    caption: str
    plan: Plan
    size_mm: tuple[float, float, float] = SIZE_MM
    scanner: Scanner | None = None


def plan_with(*, leaks: Sequence[LeakPlan] = (), lesion: LesionKind | None = LesionKind.LYTIC,
              approach: Approach = Approach.POSTERIOR_LONG_AXIS) -> Plan:
    """An ordinary patient, treated on the left with 4.5 mL."""
    patient = Patient(age=62, male=False, primary="lung", density=0.75, subcutaneous_mm=25)
    injection = Injection(side=Side.LEFT, approach=approach, needles=1, volume_ml=4.5, lesion=lesion)
    return Plan(injections=(injection,), leaks=tuple(leaks), clutter=("gas", "table"), patient=patient)


def site_rows() -> Iterator[Row]:
    """Each way out of the bone, by site."""
    for site, names in shipped_cohorts().mechanisms.items():
        for name in names:
            yield Row(caption=f"{_words(site)}: {_words(name)}", plan=plan_with(leaks=[LeakPlan(mechanism=name)]))


def distractor_rows() -> Iterator[Row]:
    """Each kind of lesion, metal, calcium, clutter, other cement, near-miss, and a fracture."""
    cohort = shipped_cohorts().cohort("training")
    plain = plan_with(lesion=None)
    for kind in LesionKind:
        yield Row(caption=f"{kind} metastasis", plan=plan_with(lesion=kind))
    for name in cohort.near_misses:
        yield Row(caption=f"near-miss: {_words(name)}", plan=replace(plan_with(), near_misses=(name,)))
    for name in cohort.hardware:
        yield Row(caption=_words(name), plan=replace(plain, hardware=(name,)), scanner=QUIET)
    for name in cohort.calcium:
        yield Row(caption=_words(name), plan=replace(plain, calcium=(name,)))
    for name in cohort.clutter:
        yield Row(caption=_words(name), plan=replace(plain, clutter=(name,)), size_mm=WIDE_MM, scanner=QUIET)
    for name in cohort.other_cement:
        yield Row(caption=f"cement in {_words(name)}", plan=replace(plain, other_cement=(name,)))
    yield Row(caption="fracture", plan=replace(plain, fracture=True))


def sheet(rows: Sequence[Row], anatomies: Sequence[Path], *, seed: int, columns: int = 2) -> bytes:
    """A PNG with one row of three planes for each scan, `columns` beside each other."""
    strips = [strip(_scan(row, anatomies, seed, number), row.caption)
              for number, row in enumerate(track(rows, description="contact sheet"))]
    height, width = (max(part.shape[a] for part in strips) for a in (0, 1))
    down = -(-len(strips) // columns)
    page = np.zeros((down * height, columns * width, 3), dtype=np.uint8)
    for number, part in enumerate(strips):
        top, left = (number % down) * height, (number // down) * width
        page[top:top + part.shape[0], left:left + part.shape[1]] = part
    stream = BytesIO()
    # Greys and the colours of the lines, no others: small files, and no line takes another one's colour.
    Image.fromarray(page).quantize(palette=_palette(), dither=Image.Dither.NONE).save(stream, format="PNG",
                                                                                     optimize=True)
    return stream.getvalue()


def _palette() -> Image.Image:
    greys = [level for n in range(GREYS) for level in (round(255 * n / (GREYS - 1)),) * 3]
    image = Image.new("P", (1, 1))
    image.putpalette(greys + [level for colour in COLOURS.values() for level in colour])
    return image


def strip(case: Case, caption: str) -> Rgb:
    """Axial, sagittal and coronal plane through what matters most, side by side, with a caption above."""
    focus = focus_of(case)
    tiles = [_tile(case, axis, focus[axis]) for axis in (2, 0, 1)]
    height = max(tile.shape[0] for tile in tiles)
    page = np.zeros((height + CAPTION_PX, sum(tile.shape[1] for tile in tiles), 3), dtype=np.uint8)
    left = 0
    for tile in tiles:
        page[CAPTION_PX:CAPTION_PX + tile.shape[0], left:left + tile.shape[1]] = tile
        left += tile.shape[1]
    image = Image.fromarray(page)
    ImageDraw.Draw(image).text((3, 1), caption, fill=(255, 255, 255))
    return np.asarray(image)


def focus_of(case: Case) -> tuple[int, int, int]:
    """Index within the first dense object; without any, of the middle of leaks, of cement in other bones, of metal, of
    the cement, or of the sacrum.
    """
    for item in objects_of(case):
        i, j, k = np.rint(case.ct.geometry.to_index(np.array(item["inside_lps_mm"]))).astype(int).tolist()
        return i, j, k
    elsewhere = case.cement.labels.astype(bool) & (case.anatomy.labels != Structure.SACRUM) & (case.leaks.labels == 0)
    for mask in (case.leaks.labels > 0, elsewhere, case.metal.labels.astype(bool), case.cement.labels.astype(bool),
                 case.anatomy.labels == Structure.SACRUM):
        index = np.argwhere(mask)
        if len(index):
            # The voxel nearest to the middle: the middle of a bent thing may lie beside it.
            i, j, k = index[np.argmin(np.linalg.norm(index - index.mean(axis=0), axis=1))].tolist()
            return i, j, k
    i, j, k = (n // 2 for n in case.ct.hu.shape)
    return i, j, k


def objects_of(case: Case) -> list[dict[str, Any]]:
    """The metal, calcium and contrast that were put in, with what was drawn for each."""
    found = case.drawn.get("objects", [])
    return list(found) if isinstance(found, list) else []


def _scan(row: Row, anatomies: Sequence[Path], seed: int, number: int) -> Case:
    rng = np.random.default_rng((seed, number))
    anatomy: Anatomy = anatomy_of(tuple(anatomies), number, rng)
    return make_case(rng, anatomy, row.plan, CaseRequest(size_mm=row.size_mm, pixel_mm=PIXEL_MM, thickness_mm=PIXEL_MM,
                                                          scanner=row.scanner))


def _tile(case: Case, axis: int, index: int) -> Rgb:
    """One plane in grey, square pixels, seen as a radiologist does: right of the patient at the left, head up."""
    low, high = WINDOW_HU
    grey = np.clip((_plane(case.ct.hu, axis, index).astype(np.float32) - low) / (high - low), 0, 1) * 255
    spacing = [float(s) for a, s in enumerate(case.ct.geometry.spacing_mm) if a != axis]
    scale = TILE_PX / max(n * s for n, s in zip(grey.shape, spacing, strict=True))
    factors = (spacing[0] * scale, spacing[1] * scale)
    picture = np.repeat(np.clip(zoom(grey, factors, order=1), 0, 255).astype(np.uint8)[..., None], 3, axis=-1)
    for name, mask in _masks(case, axis, index):
        large = zoom(mask.astype(np.uint8), factors, order=0).astype(bool)
        picture[large & ~binary_erosion(large)] = COLOURS[name]
    return _as_seen(picture, axis)


def _masks(case: Case, axis: int, index: int) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Later ones are drawn over earlier ones."""
    anatomy = _plane(case.anatomy.labels, axis, index)
    yield "sacrum", anatomy == Structure.SACRUM
    yield "canal", anatomy == Structure.SACRAL_CANAL
    yield "hips", np.isin(anatomy, (Structure.HIP_LEFT, Structure.HIP_RIGHT))
    yield "l5", anatomy == Structure.L5
    yield "metal", _plane(case.metal.labels, axis, index) > 0
    yield "cement", _plane(case.cement.labels, axis, index) > 0
    yield "leak", _plane(case.leaks.labels, axis, index) > 0


def _plane(values: Plane, axis: int, index: int) -> Plane:
    plane: Plane = np.take(values, index, axis=axis)
    return plane


def _as_seen(picture: Rgb, axis: int) -> Rgb:
    """[first axis, second axis] of an LPS grid to rows and columns: +L to the right, +P and -S down; a sagittal plane
    is seen from the left, the front at its left.
    """
    turned: Rgb = picture.transpose(1, 0, 2)
    return turned if axis == 2 else turned[::-1]


def _words(name: str) -> str:
    return str(name).replace("_", " ")


def main(out: Path, *, anatomies: tuple[Path, ...], seed: int) -> list[Path]:
    """Write both sheets into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, rows in (("simulated_sites.png", list(site_rows())), ("simulated_distractors.png",
                                                                    list(distractor_rows()))):
        write_whole(out / name, sheet(rows, anatomies, seed=seed))
        written.append(out / name)
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--anatomies", type=Path, help="prepared anatomies; procedural pelvises if not given")
    parser.add_argument("--seed", type=int, default=2020)
    given = parser.parse_args()
    main(given.out, anatomies=find_anatomies(given.anatomies), seed=given.seed)
