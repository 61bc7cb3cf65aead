"""An anatomy placed in a scene: nothing moves by itself, what is turned or mirrored is turned or mirrored wholly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from sacroleak.core.geometry import Geometry
from sacroleak.training.simulation.anatomy import STEP_MM, Anatomy
from sacroleak.training.simulation.case import centred_grid
from sacroleak.training.simulation.scene import FAR_MM, Scene, draw_warp, place, sacrum_centre_mm, still

GRID = centred_grid((230.0, 175.0, 195.0), (5.0, 5.0, 5.0))


def placed(anatomy: Anatomy, grid: Geometry = GRID, **changes: object) -> Scene:
    return place(anatomy, grid, replace(still(anatomy), **changes), np.random.default_rng(5))  # type: ignore[arg-type]


def volume_ml(scene: Scene, name: str) -> float:
    return float(np.count_nonzero(scene.distance[name] < 0)) * scene.geometry.voxel_ml


def test_a_still_patient_is_read_out_as_he_was_stored(pelvis: Anatomy) -> None:
    own = pelvis.geometry
    moved = Geometry(affine=own.affine - np.array([[0, 0, 0, c] for c in [*sacrum_centre_mm(pelvis), 0.0]]),
                     shape=own.shape)
    scene = placed(pelvis, moved)
    for name, values in pelvis.fields.items():
        assert np.abs(scene.distance[name] - values * STEP_MM).max() < 1e-3, name


def test_between_voxels_distances_are_trilinear(pelvis: Anatomy) -> None:
    scene = placed(pelvis, bend_mm=0.0)
    points = GRID.to_lps(np.argwhere(np.ones(GRID.shape))[::17]) + sacrum_centre_mm(pelvis)
    index = pelvis.geometry.to_index(points)
    inside = ((index >= 0) & (index <= np.array(pelvis.geometry.shape) - 1)).all(axis=1)
    for name in ("sacrum", "hip_left", "canal"):
        wanted = map_coordinates(pelvis.fields[name].astype(np.float64), index.T, order=1) * STEP_MM
        got = scene.distance[name].reshape(-1)[::17]
        assert np.abs(got - wanted)[inside].max() < 1e-2
        assert (got[~inside] == pytest.approx(FAR_MM))


def test_the_origin_is_the_middle_of_the_sacrum(pelvis: Anatomy) -> None:
    scene = placed(pelvis)
    inside = scene.geometry.to_lps(np.argwhere(scene.distance["sacrum"] < 0))
    assert np.abs((inside.min(axis=0) + inside.max(axis=0)) / 2).max() < 5.1


def test_a_mirrored_patient_exchanges_left_and_right(pelvis: Anatomy) -> None:
    plain, mirrored = placed(pelvis), placed(pelvis, mirrored=True)
    assert mirrored.mirrored
    for name, other in (("hip_left", "hip_right"), ("femur_right", "femur_left"), ("sacrum", "sacrum"), ("l5", "l5")):
        assert np.abs(mirrored.distance[name] - plain.distance[other][::-1]).max() < 1e-3, name


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_left_hip_lies_on_the_left(pelvis: Anatomy, mirrored: bool) -> None:
    scene = placed(pelvis, mirrored=mirrored)
    x = {name: GRID.to_lps(np.argwhere(scene.distance[name] < 0))[:, 0].mean() for name in ("hip_left", "hip_right")}
    assert x["hip_left"] > 20
    assert x["hip_right"] < -20


def test_a_larger_patient_has_larger_bones_and_true_distances(pelvis: Anatomy) -> None:
    small = placed(pelvis, matrix=np.eye(3) * 1.25)
    large = placed(pelvis, matrix=np.eye(3) / 1.1)
    assert volume_ml(large, "sacrum") / volume_ml(small, "sacrum") == pytest.approx((1.25 * 1.1) ** 3, rel=0.05)
    for scene in (small, large):
        field = scene.distance["sacrum"]
        slope = np.sqrt(sum(g ** 2 for g in np.gradient(field, 5.0)))
        assert np.percentile(slope[(field > 3) & (field < 8)], 75) == pytest.approx(1.0, abs=0.1)


def test_a_bend_moves_surfaces_by_millimetres_only(pelvis: Anatomy) -> None:
    plain, bent = placed(pelvis), placed(pelvis, bend_mm=3.0)
    change = np.abs(plain.distance["sacrum"] - bent.distance["sacrum"])
    assert 0.5 < change.max() < 3.0 * 5 * np.sqrt(3)
    assert volume_ml(bent, "sacrum") == pytest.approx(volume_ml(plain, "sacrum"), rel=0.15)


def test_the_same_seed_gives_the_same_bytes(pelvis: Anatomy) -> None:
    def once(seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        scene = place(pelvis, GRID, draw_warp(rng, pelvis), rng)
        return b"".join(values.tobytes() for values in scene.distance.values())

    assert once(4) == once(4)
    assert once(4) != once(6)


def test_a_scene_answers_at_points(scene: Scene) -> None:
    index = np.array([[30, 20, 10], [40, 30, 30]])
    wanted = [scene.distance["sacrum"][tuple(i)] for i in index]
    assert scene.at("sacrum", scene.geometry.to_lps(index)).tolist() == pytest.approx(wanted)
    assert scene.at("sacrum", np.array([[9999.0, 0, 0]])).shape == (1,)


def test_the_pelvic_surface_bridges_the_canal(scene: Scene) -> None:
    deep = scene.distance["canal"] < -4
    assert deep.any()
    assert (scene.pelvic_surface[deep] < 0).mean() > 0.9
