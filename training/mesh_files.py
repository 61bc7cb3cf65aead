"""One patient's bones from a folder of surface files in LPS mm, or in the frame its caller names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import trimesh

from sacroleak.core.errors import InputError
from sacroleak.core.geometry import Geometry
from sacroleak.training.derived import complete
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.surfaces import GRID_MM, MARGIN_MM, Mesh, signed_distance
from sacroleak.training.vtk_files import read_vtk

BONES = ("sacrum", "hip_left", "hip_right", "l5", "l4", "femur_left", "femur_right")
REQUIRED = ("sacrum", "hip_left", "hip_right")
SUFFIXES = (".stl", ".ply", ".obj", ".vtk", ".npz")
SACRUM_HEIGHT_MM = (50.0, 220.0)
"""From S1-S3 of a small woman to a whole sacrum with coccyx of a tall man; outside it the unit is not mm."""
OPEN_SHARE = 0.03
"""Edges with one triangle, of all edges; a surface that ends at S3 has fewer (Han et al.'s 30: about 0.2 %)."""


def read_patient(folder: Path) -> dict[str, Mesh]:
    """Every bone of BONES that `folder` holds as `<bone>.<ending>`, or as `<bone>_vertices` and `<bone>_faces` in one
    .npz of any name; LPS mm. Raises InputError if a required bone is missing or the bones cannot be right.
    """
    if not folder.is_dir():
        raise InputError(f"{folder.name}: no such folder of surfaces")
    bones = {}
    for bone in BONES:
        files = [f for f in sorted(folder.iterdir()) if f.stem.lower() == bone and f.suffix.lower() in SUFFIXES]
        if len(files) > 1:
            raise InputError(f"{folder.name}: {bone} is there {len(files)} times: {', '.join(f.name for f in files)}")
        if files:
            bones[bone] = read_mesh(files[0])
    for file in sorted(folder.glob("*.npz")):
        if file.stem.lower() not in BONES:
            bones |= {name: mesh for name, mesh in _several(file).items() if name not in bones}
    missing = [bone for bone in REQUIRED if bone not in bones]
    if missing:
        raise InputError(f"{folder.name}: no surface of {', '.join(missing)}; wanted files {missing[0]}.stl, .ply, "
                         f".obj, .vtk or .npz")
    check_bones(bones, folder.name)
    return bones


def from_surfaces(bones: Mapping[str, Mesh], *, name: str, source: str) -> Anatomy:
    """The anatomy of one patient's surfaces in LPS mm; what they lack comes from a procedural pelvis fitted to them."""
    every = np.concatenate([bones[bone].vertices for bone in bones if not bone.startswith("femur")])
    low, high = every.min(axis=0) - MARGIN_MM, every.max(axis=0) + MARGIN_MM
    top = float(bones["sacrum"].vertices[:, 2].max())
    high[2] = max(high[2], top + 75)  # L5 and L4
    high[1] += 24  # the tail of a tilted sacrum reaches behind the hips
    low[2] = min(low[2] - 20, top - 150)
    sides = np.ceil((high - low) / GRID_MM).astype(int)
    grid = Geometry.axis_aligned(origin_lps_mm=low, spacing_mm=GRID_MM,
                                 shape=(int(sides[0]), int(sides[1]), int(sides[2])))
    return complete(name, source, grid, {bone: signed_distance(grid, mesh) for bone, mesh in bones.items()})


def read_mesh(path: Path) -> Mesh:
    """One surface; an .npz holds `vertices` and `faces`. Raises InputError if it cannot be read or is no surface."""
    try:
        vertices, faces = _read(path)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - each format's reader raises errors of its own
        raise InputError(f"{path.name}: cannot be read as a surface ({type(error).__name__})") from None
    if len(vertices) < 4 or len(faces) < 4 or not np.isfinite(vertices).all():
        raise InputError(f"{path.name}: {len(vertices)} points and {len(faces)} triangles, or places not finite")
    return _outward(Mesh(vertices=vertices, faces=faces))


def check_bones(bones: Mapping[str, Mesh], name: str) -> None:
    """Raise InputError unless unit, closedness and sides can be right."""
    height = float(np.ptp(bones["sacrum"].vertices, axis=0).max())
    if not SACRUM_HEIGHT_MM[0] <= height <= SACRUM_HEIGHT_MM[1]:
        unit = "metres" if height < 0.5 else "centimetres" if height < 25 else "micrometres" if height > 20000 else ""
        raise InputError(f"{name}: the sacrum is {height:.3g} mm long, wanted {SACRUM_HEIGHT_MM[0]:g} to "
                         f"{SACRUM_HEIGHT_MM[1]:g} mm" + (f"; the file seems to be in {unit}" if unit else ""))
    for bone, mesh in bones.items():
        share = open_share(mesh)
        if share > OPEN_SHARE:
            raise InputError(f"{name}: {bone} is not closed: {100 * share:.1f} % of its edges belong to one triangle, "
                             f"allowed {100 * OPEN_SHARE:g} %")
    middle = {bone: mesh.vertices.mean(axis=0) for bone, mesh in bones.items()}
    for bone in [b for b in bones if b.endswith("_left")]:
        other = bone.replace("left", "right")
        if other in middle and middle[bone][0] <= middle[other][0]:
            raise InputError(f"{name}: {bone} lies to the right of {other}, so left and right are exchanged or the "
                             f"frame is not LPS (x must grow to the patient's left)")
    for above, below in (("l5", "sacrum"), ("l4", "l5")):
        if above in middle and below in middle and middle[above][2] <= middle[below][2]:
            raise InputError(f"{name}: {above} lies below {below}, so the frame is not LPS (z must grow upward)")
    hips = (middle["hip_left"] + middle["hip_right"]) / 2
    if middle["sacrum"][1] <= hips[1] or middle["sacrum"][2] <= hips[2]:
        raise InputError(f"{name}: the sacrum does not lie behind and above the middle of the hips, so the frame is "
                         "not LPS (y must grow backward, z upward)")


def open_share(mesh: Mesh) -> float:
    """Edges that belong to one triangle only, as a share of all."""
    edges = np.sort(np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]), axis=1)
    _, counts = np.unique(edges, axis=0, return_counts=True)
    return float((counts == 1).mean())


def _read(path: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    suffix = path.suffix.lower()
    if suffix == ".vtk":
        return _joined(*read_vtk(path))
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as data:
            if "vertices" not in data.files or "faces" not in data.files:
                raise InputError(f"{path.name}: holds {', '.join(data.files)}, wanted vertices and faces")
            return _joined(data["vertices"].astype(np.float64), data["faces"].astype(np.int64))
    if suffix not in SUFFIXES:
        raise InputError(f"{path.name}: endings are {', '.join(SUFFIXES)}")
    with path.open("rb") as file:
        mesh = trimesh.load(file, file_type=suffix[1:], force="mesh", process=False)
    return _joined(np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64))


def _several(path: Path) -> dict[str, Mesh]:
    """The bones of an .npz with `<bone>_vertices` and `<bone>_faces`; case does not count."""
    with np.load(path, allow_pickle=False) as data:
        names = {name.lower(): name for name in data.files}
        found = {bone: (data[names[f"{bone}_vertices"]], data[names[f"{bone}_faces"]]) for bone in BONES
                 if f"{bone}_vertices" in names and f"{bone}_faces" in names}
    meshes = {}
    for bone, (vertices, faces) in found.items():
        if vertices.ndim != 2 or vertices.shape[1] != 3:
            raise InputError(f"{path.name}: {bone}_vertices is {vertices.shape}, wanted (points, 3) of one patient")
        meshes[bone] = _outward(Mesh(vertices=vertices.astype(np.float64), faces=faces.astype(np.int64)))
    return meshes


def _outward(mesh: Mesh) -> Mesh:
    """The same with its triangles turned, if most face inward: the volume they enclose must be positive."""
    a, b, c = (mesh.vertices[mesh.faces[:, n]] - mesh.vertices.mean(axis=0) for n in range(3))
    if (np.cross(a, b) * c).sum() >= 0:
        return mesh
    return Mesh(vertices=mesh.vertices, faces=np.ascontiguousarray(mesh.faces[:, ::-1]))


def _joined(vertices: npt.NDArray[np.float64],
            faces: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """One point where several lie at one place: STL repeats each corner for every triangle."""
    _, first, where = np.unique(np.round(vertices, 5), axis=0, return_index=True, return_inverse=True)
    joined = where.reshape(-1)[faces]
    real = (joined[:, 0] != joined[:, 1]) & (joined[:, 1] != joined[:, 2]) & (joined[:, 2] != joined[:, 0])
    return vertices[first], joined[real].astype(np.int64)
