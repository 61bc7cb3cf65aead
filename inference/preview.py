"""`preview.png`: three cuts through what matters, with outlines, names and a scale."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from sacroleak.core.geometry import Points
from sacroleak.core.report import STATEMENT, LeakReport, Report
from sacroleak.core.structures import Site, Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.inference.planes import EDGES, Orientation, Plane
from sacroleak.models.distance import indices_of
from sacroleak.models.segmentation import Segmentation

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PANEL_PX, GAP_PX, HEAD_PX, FOOT_PX = 520, 12, 62, 78
SMALLEST_MM, LARGEST_MM, MARGIN_MM = 140.0, 200.0, 12.0
OUTLINE_SMOOTH_MM = 0.8
"""Hides the steps of the 1 mm working grid in the anatomy's outlines; cement and leaks are drawn as they are."""

FINE = 2
"""Lines are drawn at this multiple and reduced, which smooths them."""

FOCUS_SHARE = 0.3
"""The focus lies at most this share of the picture's side from its middle."""

ACROSS: dict[Orientation, tuple[int, str, str]] = {"axial": (2, "S", "I"), "sagittal": (0, "L", "R"),
                                                   "coronal": (1, "P", "A")}
"""The LPS axis a cut stands across, and the letters of its two directions."""

TONE_HU = (-250.0, 200.0, 1100.0, 2400.0)
TONE_GREY = (0.0, 96.0, 176.0, 255.0)
"""Grey against HU, three slopes: soft tissue stays readable, cortex (300-1200 HU) is mid grey, cement is near white."""

BACKGROUND: Colour = (13, 17, 23)
INK: Colour = (230, 237, 243)
FAINT: Colour = (139, 148, 158)
WARN: Colour = (255, 196, 84)

STRUCTURE_COLOURS: dict[Structure, Colour] = {
    Structure.SACRUM: (88, 166, 255), Structure.SACRAL_CANAL: (57, 211, 180), Structure.HIP_LEFT: (110, 118, 160),
    Structure.HIP_RIGHT: (110, 118, 160), Structure.L5: (188, 140, 255), Structure.CEMENT: (255, 214, 10),
}
LEAK_COLOUR: Colour = (255, 77, 77)
LEGEND = (("sacrum", STRUCTURE_COLOURS[Structure.SACRUM]), ("sacral canal", STRUCTURE_COLOURS[Structure.SACRAL_CANAL]),
          ("hips", STRUCTURE_COLOURS[Structure.HIP_LEFT]), ("L5", STRUCTURE_COLOURS[Structure.L5]),
          ("cement", STRUCTURE_COLOURS[Structure.CEMENT]), ("leak", LEAK_COLOUR))

SITE_NAMES: dict[Site, str] = {
    Site.SACRAL_VENOUS_PLEXUS: "sacral venous plexus", Site.PUNCTURE_PATH: "puncture path",
    Site.ANTERIOR_EPIDURAL_SPACE: "anterior epidural space", Site.ANTERIOR_SACRAL_SPACE: "anterior sacral space",
    Site.OTHER: "other site",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """Cuts pass through `focus_lps_mm`; within them the picture's middle is `middle_lps_mm`."""

    focus_lps_mm: tuple[float, float, float]
    middle_lps_mm: tuple[float, float, float]
    side_mm: float
    what: str

    def plane(self, orientation: Orientation) -> Plane:
        """The cut of one orientation."""
        across = ACROSS[orientation][0]
        centre = list(self.middle_lps_mm)
        centre[across] = self.focus_lps_mm[across]
        return Plane(orientation=orientation, centre_lps_mm=_point(centre), side_mm=self.side_mm, pixels=PANEL_PX)


def draw_preview(ct: Volume, segmentation: Segmentation | None, leak_numbers: LabelMap | None, report: Report) -> bytes:
    """A PNG of axial, sagittal and coronal cuts through the largest leak, else the cement, else the sacrum.

    Without a segmentation the cuts go through the middle of the scan. The text on it holds the case id and the
    result, nothing else from the scan.
    """
    view = _view(ct, segmentation, leak_numbers, report)
    width = 3 * PANEL_PX + 4 * GAP_PX
    page = Image.new("RGB", (width, HEAD_PX + PANEL_PX + FOOT_PX), BACKGROUND)
    orientations: tuple[Orientation, ...] = ("axial", "sagittal", "coronal")
    for position, orientation in enumerate(orientations):
        plane = view.plane(orientation)
        panel = _panel(plane, ct, segmentation, leak_numbers)
        _write_on_panel(panel, plane, leak_numbers, report)
        page.paste(panel, (GAP_PX + position * (PANEL_PX + GAP_PX), HEAD_PX))
    _write_on_page(page, view, report, has_outlines=segmentation is not None)
    buffer = BytesIO()
    page.save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def _view(ct: Volume, segmentation: Segmentation | None, leak_numbers: LabelMap | None, report: Report) -> _View:
    if segmentation is None:
        spans = np.ptp(ct.geometry.corners_lps_mm(), axis=0)
        middle = _point(ct.geometry.centre_lps_mm)
        return _View(focus_lps_mm=middle, middle_lps_mm=middle, what="middle of the scan",
                     side_mm=float(np.clip(spans.max(), SMALLEST_MM, 450.0)))
    sacrum = _places(segmentation.anatomy, segmentation.anatomy.labels == Structure.SACRUM)
    cement = _places(segmentation.cement, segmentation.cement.labels.astype(bool, copy=False))
    if leak_numbers is not None and report.leaks:
        largest = max(report.leaks, key=lambda leak: leak.volume_ml)
        places = _places(leak_numbers, leak_numbers.labels == largest.number)
        if len(places):
            return _framed(places, np.vstack([sacrum, cement]), f"largest leak (number {largest.number})")
    if len(cement) and report.cement.total_ml > 0:
        return _framed(cement, np.vstack([sacrum, cement]), "cement")
    if len(sacrum):
        return _framed(sacrum, sacrum, "sacrum")
    middle = _point(segmentation.ct.geometry.centre_lps_mm)
    return _View(focus_lps_mm=middle, middle_lps_mm=middle, side_mm=LARGEST_MM, what="region searched")


def _framed(focus: Points, show: Points, what: str) -> _View:
    """Cuts through the voxel of `focus` nearest its middle, wide enough for `show` as far as LARGEST_MM goes.

    The picture's middle is that of `show`, moved only as far as it takes to keep the focus clear of the edge.
    """
    through = focus[np.linalg.norm(focus - focus.mean(axis=0), axis=1).argmin()]
    low, high = show.min(axis=0), show.max(axis=0)
    side = float(np.clip((high - low).max() + 2 * MARGIN_MM, SMALLEST_MM, LARGEST_MM))
    middle = np.clip((low + high) / 2.0, through - FOCUS_SHARE * side, through + FOCUS_SHARE * side)
    return _View(focus_lps_mm=_point(through), middle_lps_mm=_point(middle), side_mm=side, what=what)


def _places(label_map: LabelMap, mask: npt.NDArray[np.bool_]) -> Points:
    """LPS mm of the voxels of `mask`; (n, 3)."""
    return label_map.geometry.to_lps(indices_of(mask))


def _panel(plane: Plane, ct: Volume, segmentation: Segmentation | None, leak_numbers: LabelMap | None) -> Image.Image:
    hu = plane.cut(ct.hu, ct.geometry, outside=-1024.0)
    grey = np.interp(hu, TONE_HU, TONE_GREY).astype(np.uint8)
    panel = Image.fromarray(grey)
    if segmentation is None:
        return panel.convert("RGB")
    large = panel.resize((PANEL_PX * FINE, PANEL_PX * FINE), Image.Resampling.BICUBIC).convert("RGB")
    pen = ImageDraw.Draw(large)
    anatomy = plane.slab(segmentation.anatomy)
    for structure in (Structure.HIP_LEFT, Structure.HIP_RIGHT, Structure.L5, Structure.SACRUM, Structure.SACRAL_CANAL):
        outlines = plane.outlines(anatomy.labels == structure, anatomy.geometry, smooth_mm=OUTLINE_SMOOTH_MM)
        _trace(pen, outlines, STRUCTURE_COLOURS[structure], width=2)
    cement = plane.slab(segmentation.cement)
    _trace(pen, plane.outlines(cement.labels.astype(bool, copy=False), cement.geometry),
           STRUCTURE_COLOURS[Structure.CEMENT], width=2)
    if leak_numbers is not None:
        leaks = plane.slab(leak_numbers)
        _trace(pen, plane.outlines(leaks.labels > 0, leaks.geometry), LEAK_COLOUR, width=4)
    return large.reduce(FINE)


def _trace(pen: ImageDraw.ImageDraw, outlines: list[Points], colour: Colour, *, width: int) -> None:
    for line in outlines:
        points = [(float(x), float(y)) for x, y in line * FINE + FINE / 2.0]
        pen.line(points, fill=colour, width=width, joint="curve")


def _write_on_panel(panel: Image.Image, plane: Plane, leak_numbers: LabelMap | None, report: Report) -> None:
    pen = ImageDraw.Draw(panel)
    left, right, top, bottom = EDGES[plane.orientation]
    middle, far = PANEL_PX / 2, PANEL_PX - 10
    for letter, place, anchor in ((left, (10, middle), "lm"), (right, (far, middle), "rm"), (top, (middle, 8), "ma"),
                                  (bottom, (middle, far), "ms")):
        _text(pen, place, letter, size=19, anchor=anchor, colour=INK)
    axis, plus, minus = ACROSS[plane.orientation]
    value = plane.centre_lps_mm[axis]
    where = f"{plane.orientation}  {plus if value >= 0 else minus} {abs(value):.0f} mm"
    _text(pen, (10, 8), where, size=15, anchor="la", colour=FAINT)
    bar = 20.0 / plane.pixel_mm
    pen.line([(far - bar, far - 6), (far, far - 6)], fill=INK, width=2)
    for end in (far - bar, far):
        pen.line([(end, far - 10), (end, far - 2)], fill=INK, width=2)
    _text(pen, (far - bar / 2, far - 12), "20 mm", size=14, anchor="ms", colour=INK)
    if leak_numbers is not None:
        _name_leaks(pen, plane, leak_numbers, report.leaks)


def _name_leaks(pen: ImageDraw.ImageDraw, plane: Plane, leak_numbers: LabelMap, leaks: list[LeakReport]) -> None:
    """A leader line and the site's name beside every leak that this plane meets; names do not cover each other."""
    taken: list[tuple[float, float, float, float]] = []
    numbers = plane.slab(leak_numbers)
    for leak in sorted(leaks, key=lambda one: -one.volume_ml):
        outlines = plane.outlines(numbers.labels == leak.number, numbers.geometry)
        if not outlines:
            continue
        x, y = max(outlines, key=len).mean(axis=0)
        mark = " ?" if leak.needs_review else ""
        text = f"{leak.number} {SITE_NAMES[leak.site]}{mark}"
        box = _free_place(pen, text, (float(x), float(y)), taken)
        taken.append(box)
        target = (box[0] if x < box[0] else box[2] if x > box[2] else (box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        pen.line([(x, y), target], fill=LEAK_COLOUR, width=1)
        pen.rounded_rectangle(box, radius=5, fill=(30, 12, 14), outline=LEAK_COLOUR, width=1)
        pen.text((box[0] + 7, (box[1] + box[3]) / 2), text, font=_font(15), fill=INK, anchor="lm")


def _free_place(pen: ImageDraw.ImageDraw, text: str, at: tuple[float, float],
                taken: list[tuple[float, float, float, float]]) -> tuple[float, float, float, float]:
    """A box for `text` near `at`, inside the panel, clear of `taken` if any of the places tried is."""
    width, height = pen.textlength(text, font=_font(15)) + 14, 24.0
    box = (0.0, 0.0, width, height)
    for dx, dy in ((48, -58), (48, 58), (-48, -58), (-48, 58), (60, -100), (60, 100), (-60, -100), (-60, 100)):
        x = at[0] + dx if dx > 0 else at[0] + dx - width
        x = min(max(x, 30.0), PANEL_PX - 30.0 - width)
        y = min(max(at[1] + dy - height / 2, 34.0), PANEL_PX - 60.0 - height)
        box = (x, y, x + width, y + height)
        clear = all(box[2] < t[0] or box[0] > t[2] or box[3] < t[1] or box[1] > t[3] for t in taken)
        if clear and not (box[0] - 8 < at[0] < box[2] + 8 and box[1] - 8 < at[1] < box[3] + 8):
            return box
    return box


def _write_on_page(page: Image.Image, view: _View, report: Report, *, has_outlines: bool) -> None:
    pen = ImageDraw.Draw(page)
    width, height = page.size
    pen.text((GAP_PX + 2, 12), report.case_id, font=_font(24), fill=INK)
    colour = WARN if report.needs_review else LEAK_COLOUR if report.leak.present else (86, 211, 100)
    pen.text((width - GAP_PX - 2, 12), _verdict(report), font=_font(20), fill=colour, anchor="ra")
    pen.text((GAP_PX + 2, 40), f"cuts through the {view.what}", font=_font(14), fill=FAINT)
    x, y = float(GAP_PX + 2), height - FOOT_PX + 16
    for name, shade in LEGEND if has_outlines else ():
        pen.rounded_rectangle((x, y + 3, x + 22, y + 9), radius=3, fill=shade)
        pen.text((x + 30, y + 6), name, font=_font(15), fill=INK, anchor="lm")
        x += 30 + pen.textlength(name, font=_font(15)) + 26
    if has_outlines:
        volumes = f"cement {report.cement.total_ml:.2f} mL, leaked {report.cement.leaked_ml:.2f} mL"
        pen.text((width - GAP_PX - 2, y + 6), volumes, font=_font(15), fill=INK, anchor="rm")
    pen.text((GAP_PX + 2, height - 18), STATEMENT, font=_font(14), fill=FAINT, anchor="lm")
    pen.text((width - GAP_PX - 2, height - 18), "radiological view: the patient's left is on the right", font=_font(14),
             fill=FAINT, anchor="rm")


def _verdict(report: Report) -> str:
    if report.status != "assessed":
        return "not assessable"
    review = ", needs review" if report.needs_review else ""
    if not report.leak.present:
        return ("no leak found" if report.cement.total_ml > 0 else "no cement found") + review
    sites = [SITE_NAMES[site] for site, summary in report.sites.items() if summary.present]
    return "leak: " + ", ".join(sites) + review


def _text(pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, *, size: int, anchor: str,
          colour: Colour) -> None:
    """Text with a dark rim, readable on bone and on air."""
    pen.text(at, text, font=_font(size), fill=colour, anchor=anchor, stroke_width=2, stroke_fill=BACKGROUND)


_FONTS: dict[int, Font] = {}


def _font(size: int) -> Font:
    """The font that comes with Pillow, so every machine draws the same."""
    if size not in _FONTS:
        _FONTS[size] = ImageFont.load_default(size)
    return _FONTS[size]


def _point(values: npt.ArrayLike) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in np.asarray(values))
    return x, y, z
