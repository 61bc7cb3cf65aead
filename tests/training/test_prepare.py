"""Preparing anatomies: each is written once, by its name, from procedural shapes or from surfaces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage.measure import marching_cubes

from sacroleak.core.config import load_config
from sacroleak.core.errors import ConfigError, InputError
from sacroleak.core.geometry import Points
from sacroleak.training import prepare
from sacroleak.training.prepare import PrepareConfig
from sacroleak.training.simulation.anatomy import REQUIRED, Anatomy, DistanceField

CONFIG = PrepareConfig(procedural=0, shapes=0, seed=1, pelvis_surfaces="pelvis.npz", spine_surfaces="spine.npz",
                       own=())


def test_prepared_anatomies_are_whole_and_named_after_their_files(anatomies: Path) -> None:
    files = sorted(anatomies.iterdir())
    assert [file.name for file in files] == ["procedural-000.npz", "procedural-001.npz"]
    for file in files:
        anatomy = Anatomy.load(file)
        assert anatomy.name == file.stem
        assert all((anatomy.fields[name] < 0).any() for name in REQUIRED)


def test_what_is_there_is_kept(anatomies: Path, repository: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in anatomies.iterdir()}
    written = prepare.main(load_config(repository / "configs/smoke/prepare.yaml", PrepareConfig), out=anatomies)
    assert {file: file.stat().st_mtime_ns for file in written} == before


def test_missing_surfaces_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pelvis\.npz: no such file of surfaces"):
        prepare.main(CONFIG, out=tmp_path / "out", surfaces=tmp_path)


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prepare.yaml"
    path.write_text("procedural: 1\nshapes: 0\nseed: 1\npelvis_surfaces: a\nspine_surfaces: b\nown: []\nprocedurl: 2\n")
    with pytest.raises(ConfigError, match="procedurl"):
        load_config(path, PrepareConfig)


def mesh(anatomy: Anatomy, field: DistanceField) -> tuple[Points, np.ndarray]:
    vertices, faces, _, _ = marching_cubes(field.astype(np.float32), 0.0)
    return anatomy.geometry.to_lps(vertices), faces


@pytest.fixture(scope="module")
def surfaces(pelvis: Anatomy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients with corresponding points: the procedural pelvis, its sacrum cut below S3, and a larger one."""
    folder = tmp_path_factory.mktemp("surfaces")
    sacrum = pelvis.fields["sacrum"].copy()
    z = pelvis.geometry.to_lps(np.argwhere(np.ones(sacrum.shape)))[:, 2].reshape(sacrum.shape)
    sacrum[z < pelvis.landmarks["anterior_foramina_left"][2, 2] - 12] = 127
    arrays: dict[str, np.ndarray] = {"subject": np.array([2, 5])}
    for name, field in (("sacrum", sacrum), ("hip_left", pelvis.fields["hip_left"]),
                        ("hip_right", pelvis.fields["hip_right"])):
        vertices, faces = mesh(pelvis, field)
        arrays[f"{name}_vertices"] = np.stack([vertices, 1.05 * vertices + (3, -40, 200)])
        arrays[f"{name}_faces"] = faces
    np.savez(folder / "pelvis.npz", **arrays)  # type: ignore[arg-type]
    spine: dict[str, np.ndarray] = {}
    for name, key in (("sacrum", "sacrum"), ("L5", "l5"), ("L4", "l4")):
        spine[f"{name}_vertices"], spine[f"{name}_faces"] = mesh(pelvis, pelvis.fields[key])
    np.savez(folder / "spine.npz", **spine)  # type: ignore[arg-type]
    return folder


def test_surfaces_become_anatomies(surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sacroleak.training.surfaces.GRID_MM", 4.0)
    written = prepare.main(CONFIG, out=tmp_path, surfaces=surfaces)
    assert [file.stem for file in written] == ["jhu-02", "jhu-05"]
    volumes = []
    for file in written:
        anatomy = Anatomy.load(file)
        inside = {name: field < 0 for name, field in anatomy.fields.items()}
        assert np.max(sum(mask.astype(np.uint8) for mask in inside.values())) == 1, "no voxel lies in two structures"
        centre = {name: anatomy.geometry.to_lps(np.argwhere(mask)).mean(axis=0) for name, mask in inside.items()}
        assert centre["hip_left"][0] > centre["sacrum"][0] + 30 > centre["hip_right"][0] + 60
        assert centre["l5"][2] > centre["disc"][2] > centre["sacrum"][2]
        assert centre["canal"][1] > anatomy.landmarks["s1_endplate_centre"][0, 1], "the canal lies behind the bodies"
        assert inside["canal"].sum() * anatomy.geometry.voxel_ml > 3
        volumes.append(inside["sacrum"].sum() * anatomy.geometry.voxel_ml)
    assert volumes[1] == pytest.approx(volumes[0] * 1.05 ** 3, rel=0.08)
