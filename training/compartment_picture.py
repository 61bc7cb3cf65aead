"""The picture of the compartments in the documentation, made from a procedural pelvis and the released limits."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage

from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.structures import Compartment, Side
from sacroleak.core.volume import LabelMap
from sacroleak.models.compartments import Compartments, compartments
from sacroleak.models.foramina import find_foramina
from sacroleak.models.limits import CompartmentLimits, shipped_limits
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.case import LABELLED
from sacroleak.training.simulation.procedural import procedural_pelvis

SEED = 3
BOX_MM = ((-85.0, 85.0), (-75.0, 75.0), (-115.0, 45.0))
"""What is shown, around the middle of the S1 endplate: both joints, and the sacrum from L5 to its tip."""
PIXEL_MM = 0.8
NEEDLE = (0.1, 1.0, 0.0)
"""Towards the skin, of the corridor that is drawn: a posterior approach across the ala, on the axial cut."""
CORRIDOR_MM = 2.5

COLOURS: dict[Compartment, tuple[str, str]] = {
    Compartment.ELSEWHERE: ("#ffffff", "elsewhere"), Compartment.INTRAOSSEOUS_SACRUM: ("#d9d4c7", "in the sacrum"),
    Compartment.VENTRAL_CANAL: ("#d7301f", "ventral canal"), Compartment.DORSAL_CANAL: ("#fc8d59", "dorsal canal"),
    Compartment.FORAMINA_LEFT: ("#1b9e77", "foramina, left"),
    Compartment.FORAMINA_RIGHT: ("#66c2a5", "foramina, right"), Compartment.PRESACRAL: ("#9ecae1", "presacral space"),
    Compartment.DORSAL_SOFT_TISSUE: ("#efedf5", "soft tissue behind"),
    Compartment.SACROILIAC_JOINT: ("#fec44f", "sacroiliac joint"), Compartment.ILIUM: ("#bdb7a4", "ilium"),
    Compartment.L5_S1_DISC: ("#c994c7", "L5/S1 disc"), Compartment.L5: ("#a8a08a", "L5"),
}


def draw_compartments(anatomy: Anatomy, limits: CompartmentLimits, path: Path) -> None:
    """A PNG with an axial cut through the first foramina, one through the midline and one through left foramina."""
    labels = label_map(anatomy)
    corners = np.array(np.meshgrid(*BOX_MM)).reshape(3, -1).T
    spaces = compartments(labels, limits, around_lps=corners)
    first = anatomy.landmarks["anterior_foramina_left"][0]
    level, beside = float(first[2]), float(first[0])
    with mpl.rc_context({"font.size": 7}):
        figure = Figure(figsize=(10.0, 4.3), dpi=110, layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        _panel(left, spaces, anatomy, axis=2, at_mm=level, title="Axial, through the first foramina")
        _panel(middle, spaces, anatomy, axis=0, at_mm=0.0, title="Sagittal, midline")
        _panel(right, spaces, anatomy, axis=0, at_mm=beside, title="Sagittal, through the left foramina")
        _name_foramina(right, labels, spaces)
        figure.legend(handles=[Patch(facecolor=c, edgecolor="#888888", label=name) for c, name in COLOURS.values()],
                      loc="outside lower center", ncols=6, frameon=False)
        figure.savefig(path)


def label_map(anatomy: Anatomy) -> LabelMap:
    """Structure 0-5 of an anatomy on 1 mm, within BOX_MM."""
    low, high = np.array(BOX_MM).T
    a, b, c = (int(n) for n in high - low + 1)
    grid = Geometry.axis_aligned(origin_lps_mm=low, spacing_mm=1.0, shape=(a, b, c))
    own = anatomy.geometry.to_index(grid.to_lps(np.argwhere(np.ones(grid.shape, dtype=np.bool_)))).T
    labels = np.zeros(grid.shape, dtype=np.uint8)
    for name, structure in LABELLED.items():
        field = ndimage.map_coordinates(anatomy.fields[name], own, order=1, mode="nearest", output=np.float32)
        labels[field.reshape(grid.shape) < 0] = structure
    return LabelMap(labels=labels, geometry=grid)


def _panel(place: Axes, spaces: Compartments, anatomy: Anatomy, *, axis: int, at_mm: float, title: str) -> None:
    """One cut across `axis` with its compartments as colours, a needle's corridor, or the canal's centreline."""
    u, v = (n for n in range(3) if n != axis)
    across, down = (np.arange(*BOX_MM[n], PIXEL_MM) for n in (u, v))
    points = np.full((len(down), len(across), 3), at_mm)
    points[..., u], points[..., v] = across[None, :], down[:, None]
    codes = spaces.at(points.reshape(-1, 3))
    picture = codes.reshape(points.shape[:2])
    colours = ListedColormap([COLOURS[Compartment(n)][0] for n in range(len(COLOURS))])
    ends = (across[0], across[-1], down[0], down[-1])
    place.imshow(picture, cmap=colours, vmin=-0.5, vmax=len(COLOURS) - 0.5, origin="lower", extent=ends,
                 interpolation="nearest")
    if axis == 0 and abs(at_mm) < 1.0:
        line = spaces.frame.centreline
        place.plot(line[:, 1], line[:, 2], color="black", linewidth=0.8)
    if axis == 2:
        tip = np.array([*anatomy.landmarks["ala_left"][0, :2], at_mm])
        corridor = _from_needle_mm(points.reshape(-1, 3), tip).reshape(picture.shape)
        place.contour(across, down, corridor, levels=[CORRIDOR_MM], colors="black", linewidths=1.2)
        place.invert_yaxis()
    place.set(title=title, xlim=ends[:2], xticks=[], yticks=[], aspect="equal")


def _from_needle_mm(points: Points, tip: Points) -> npt.NDArray[np.float64]:
    """Distance of (n, 3) LPS mm from a needle that goes from its tip (3,) outwards; (n,) mm."""
    way = np.array(NEEDLE) / np.linalg.norm(NEEDLE)
    offset = points - tip
    along = np.maximum(offset @ way, 0.0)
    return np.asarray(np.linalg.norm(offset - along[:, None] * way, axis=1))


def _name_foramina(place: Axes, labels: LabelMap, spaces: Compartments) -> None:
    for foramen in find_foramina(labels, spaces.frame, spaces.limits):
        if foramen.side is Side.LEFT:
            _, y, z = foramen.points.mean(axis=0)
            place.annotate(foramen.name, (y, z), (y - 12.0, z - 9.0), ha="right", arrowprops={"arrowstyle": "-"})


def main(out: Path) -> None:
    """Write the picture to `out`; the same pelvis every time."""
    draw_compartments(procedural_pelvis(np.random.default_rng(SEED)), shipped_limits().compartments, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/compartments.png"))
    main(parser.parse_args().out)
