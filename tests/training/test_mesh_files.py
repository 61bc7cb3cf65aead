"""Surfaces in every format are the same bones; what cannot be right is refused with the reason."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from skimage.measure import marching_cubes

from sacroleak.core.errors import InputError
from sacroleak.training.mesh_files import check_bones, from_surfaces, open_share, read_mesh, read_patient
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.surfaces import Mesh
from sacroleak.training.vtk_files import read_vtk

BOX = trimesh.creation.box(extents=(60, 50, 90))


def box(centre: tuple[float, float, float] = (0, 0, 0), scale: float = 1.0) -> Mesh:
    return Mesh(vertices=np.asarray(BOX.vertices) * scale + centre, faces=np.asarray(BOX.faces, dtype=np.int64))


def bones(**changes: Mesh) -> dict[str, Mesh]:
    return {"sacrum": box((0, 40, 40)), "hip_left": box((80, 0, 0)), "hip_right": box((-80, 0, 0)),
            "l5": box((0, 30, 120)), **changes}


def ascii_vtk(mesh: Mesh) -> bytes:
    lines = ["# vtk DataFile Version 3.0", "", "ASCII", "DATASET POLYDATA", f"POINTS {len(mesh.vertices)} float"]
    lines += [" ".join(f"{c:.6f}" for c in point) for point in mesh.vertices]
    lines += [f"POLYGONS {len(mesh.faces)} {4 * len(mesh.faces)}", *(f"3 {a} {b} {c}" for a, b, c in mesh.faces)]
    return ("\n".join(lines) + "\nPOINT_DATA 8\nSCALARS s float\n").encode()


def binary_vtk(mesh: Mesh, *, modern: bool) -> bytes:
    version = b"5.1" if modern else b"4.2"
    out = b"# vtk DataFile Version " + version + b"\na title\nBINARY\nDATASET POLYDATA\n"
    out += b"POINTS %d double\n" % len(mesh.vertices) + mesh.vertices.astype(">f8").tobytes() + b"\n"
    count = len(mesh.faces)
    if modern:
        out += b"POLYGONS %d %d\nOFFSETS vtktypeint64\n" % (count + 1, 3 * count)
        out += (3 * np.arange(count + 1)).astype(">i8").tobytes() + b"\nCONNECTIVITY vtktypeint64\n"
        return out + mesh.faces.astype(">i8").tobytes() + b"\n"
    rows = np.concatenate([np.full((count, 1), 3), mesh.faces], axis=1)
    return out + b"POLYGONS %d %d\n" % (count, 4 * count) + rows.astype(">i4").tobytes() + b"\n"


def same_box(mesh: Mesh) -> bool:
    whole = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    return bool(len(mesh.vertices) == 8 and whole.is_watertight and np.isclose(whole.volume, BOX.volume, rtol=1e-5))


@pytest.mark.parametrize("ending", ["stl", "ply", "obj", "npz"])
def test_each_format_gives_the_same_closed_surface(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"sacrum.{ending}"
    if ending == "npz":
        np.savez(path, vertices=BOX.vertices, faces=BOX.faces)
    else:
        BOX.export(path)
    assert same_box(read_mesh(path))


@pytest.mark.parametrize("data", [ascii_vtk(box()), binary_vtk(box(), modern=False), binary_vtk(box(), modern=True)],
                         ids=["ascii", "binary", "5.1"])
def test_each_kind_of_vtk_gives_the_same_closed_surface(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "sacrum.vtk"
    path.write_bytes(data)
    assert same_box(read_mesh(path))


def test_polygons_are_cut_into_triangles(tmp_path: Path) -> None:
    path = tmp_path / "a.vtk"
    path.write_text("# vtk DataFile Version 2.0\nt\nASCII\nDATASET POLYDATA\nPOINTS 4 float\n0 0 0 1 0 0 1 1 0\n0 1 0\n"
                    "POLYGONS 1 5\n4 0 1 2 3\n")
    assert read_vtk(path)[1].tolist() == [[0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize(("data", "reason"), [
    (b"solid", "not a legacy VTK file"),
    (b"# vtk DataFile Version 3.0\nt\nASCII\nDATASET STRUCTURED_POINTS\n", "holds structured_points, wanted POLYDATA"),
    (ascii_vtk(box())[:200], "cut short|no number"),
    (binary_vtk(box(), modern=False)[:150], "cut short"),
    (ascii_vtk(box()).replace(b"3 1 3 0", b"3 1 3 99"), "names point 99 of 8"),
    (b"# vtk DataFile Version 3.0\nt\nASCII\nDATASET POLYDATA\nPOINTS 1 half\n", "numbers of type half"),
    (struct.pack(">40i", *range(40)), "not a legacy VTK file"),
])
def test_a_damaged_vtk_file_is_refused_with_the_reason(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "sacrum.vtk"
    path.write_bytes(data)
    with pytest.raises(InputError, match=reason):
        read_mesh(path)


def test_triangles_that_face_inward_are_turned(tmp_path: Path) -> None:
    path = tmp_path / "sacrum.npz"
    np.savez(path, vertices=BOX.vertices, faces=np.asarray(BOX.faces)[:, ::-1])
    assert same_box(read_mesh(path))


def test_bones_that_can_be_right_are_let_through() -> None:
    check_bones(bones(), "p")


def exchanged() -> dict[str, Mesh]:
    right = bones()
    return bones(hip_left=right["hip_right"], hip_right=right["hip_left"])


def scaled(factor: float) -> dict[str, Mesh]:
    return {k: Mesh(vertices=m.vertices * factor, faces=m.faces) for k, m in bones().items()}


def upside_down() -> dict[str, Mesh]:
    return {k: Mesh(vertices=m.vertices * (1, 1, -1), faces=m.faces) for k, m in bones().items()}


def back_to_front() -> dict[str, Mesh]:
    return {k: Mesh(vertices=m.vertices * (1, -1, 1), faces=m.faces) for k, m in bones().items()}


@pytest.mark.parametrize(("given", "reason"), [
    (scaled(0.001), "0.09 mm long, wanted 50 to 220 mm; the file seems to be in metres"),
    (scaled(0.1), "seems to be in centimetres"),
    (exchanged(), "left and right are exchanged"),
    (upside_down(), "l5 lies below sacrum"),
    (back_to_front(), "does not lie behind"),
    (bones(hip_left=Mesh(vertices=box((80, 0, 0)).vertices, faces=box().faces[2:])), "hip_left is not closed"),
])
def test_bones_that_cannot_be_right_are_refused_with_the_reason(given: dict[str, Mesh], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check_bones(given, "p")


def test_open_edges_are_counted() -> None:
    assert open_share(box()) == 0
    assert open_share(Mesh(vertices=box().vertices, faces=box().faces[1:])) == pytest.approx(3 / 18)


def test_a_missing_bone_and_one_that_is_there_twice_are_named(tmp_path: Path) -> None:
    BOX.export(tmp_path / "sacrum.stl")
    BOX.export(tmp_path / "hip_left.stl")
    with pytest.raises(InputError, match="no surface of hip_right"):
        read_patient(tmp_path)
    BOX.export(tmp_path / "sacrum.ply")
    with pytest.raises(InputError, match="sacrum is there 2 times"):
        read_patient(tmp_path)


def mesh_of(anatomy: Anatomy, name: str, above_mm: float = -np.inf) -> Mesh:
    values = anatomy.fields[name].astype(np.float32)
    z = anatomy.geometry.affine[2, 3] + anatomy.geometry.affine[2, 2] * np.arange(values.shape[2])
    values[:, :, z < above_mm] = 127
    vertices, faces, _, _ = marching_cubes(values, 0.0)
    return Mesh(vertices=anatomy.geometry.to_lps(vertices), faces=faces.astype(np.int64))


def test_a_patient_of_three_surfaces_gets_what_they_lack(pelvis: Anatomy, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sacroleak.training.mesh_files.GRID_MM", 3.0)
    monkeypatch.setattr("sacroleak.training.derived.TEMPLATES", 1)
    cut = float(pelvis.landmarks["anterior_foramina_left"][2, 2]) - 12
    arrays: dict[str, Any] = {}
    for name in ("sacrum", "hip_left", "hip_right"):
        mesh = mesh_of(pelvis, name, cut if name == "sacrum" else -np.inf)
        arrays |= {f"{name}_vertices": mesh.vertices, f"{name}_faces": mesh.faces[:, ::-1]}
    np.savez(tmp_path / "all.npz", **arrays)
    anatomy = from_surfaces(read_patient(tmp_path), name="own-1", source="a test")
    inside = {name: field < 0 for name, field in anatomy.fields.items()}
    assert np.max(sum(mask.astype(np.uint8) for mask in inside.values())) == 1, "no voxel lies in two structures"
    low = {a.name: a.geometry.to_lps(np.argwhere(a.fields["sacrum"] < 0))[:, 2].min() for a in (anatomy, pelvis)}
    assert low["own-1"] < cut - 12, "S4 and S5 are added"
    z = {name: anatomy.geometry.to_lps(np.argwhere(mask))[:, 2].mean() for name, mask in inside.items() if mask.any()}
    assert z["l4"] > z["l5"] > z["disc"] > z["sacrum"] > z["coccyx"]
    ala = anatomy.landmarks["ala_left"][0]
    assert np.linalg.norm(ala - pelvis.landmarks["ala_left"][0]) < 15
    for mine, known in zip(anatomy.landmarks["anterior_foramina_left"][:2],
                           pelvis.landmarks["anterior_foramina_left"][:2], strict=True):
        assert np.linalg.norm(mine - known) < 10
