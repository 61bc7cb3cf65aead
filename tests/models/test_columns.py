"""A needle's track that no network sees: found by where it points, and nothing else that is thin and bright."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from sacroleak.core.geometry import Points
from sacroleak.core.structures import Site
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.attribution import attribute
from sacroleak.models.cement import Bright, delineate
from sacroleak.models.limits import shipped_limits
from sacroleak.models.rods import rods_in
from sacroleak.models.segmentation import Segmentation
from tests.phantoms import ALA_LEFT, Pose, Shape, alar_cement, anatomy, cement_at, mirrored, tube

Mask = npt.NDArray[np.bool_]
POSE = Pose()
SOFT_HU, CEMENT_HU, COLUMN_HU, NEEDLE_HU = 50.0, 2200.0, 1500.0, 3071.0
BACKWARDS, SIDEWAYS = (0.1, 1.0, 0.1), (1.0, 0.1, 0.0)


def unit(way: tuple[float, float, float]) -> Points:
    return np.asarray(np.array(way) / np.linalg.norm(way))


def column(way: tuple[float, float, float], start_mm: float, stop_mm: float, *, aside_deg: float = 0.0) -> Shape:
    """Along a way from the middle of the cement, its own direction turned off that way about its middle."""
    middle = np.array(ALA_LEFT) + unit(way) * (start_mm + stop_mm) / 2
    across = np.cross(unit(way), (0.0, 0.0, 1.0))
    angle = np.radians(aside_deg)
    own = np.cos(angle) * unit(way) + np.sin(angle) * across / np.linalg.norm(across)
    half = own * (stop_mm - start_mm) / 2
    return tube([middle - half, middle + half], 2.6)


def scan_of(*columns: Shape, hu: float = COLUMN_HU, spacing: tuple[float, float, float] = (0.8, 0.8, 1.0),
            marrow_hu: float = SOFT_HU) -> tuple[Segmentation, Bright, Mask]:
    """Cement in the left ala that the networks are sure of, and columns they see nothing of; where these are."""
    scan = cement_at(alar_cement(), *columns, spacing=spacing, margin_mm=14.0)
    grid = scan.ct.geometry
    own = POSE.to_own(grid.to_lps(np.argwhere(np.ones(grid.shape, dtype=np.bool_))))
    filled = scan.cement.labels.astype(bool)
    body = (alar_cement()(own) <= 1.0).reshape(grid.shape) & filled
    bones = np.isin(_labels_on(scan), (1, 3, 4))
    values = np.where(scan.cement.labels, hu, np.where(bones, marrow_hu, SOFT_HU)).astype(np.float32)
    values[body] = CEMENT_HU
    ct = Volume(hu=values.astype(np.int16), geometry=grid)
    where = np.flatnonzero(values > 350)
    sure = body.reshape(-1)[where]
    nothing = np.zeros(len(where), dtype=np.float32)
    bright = Bright(where=where, hu=values.reshape(-1)[where], points=grid.to_lps(_index(where, grid.shape)),
                    cement=np.where(sure, np.float32(0.95), nothing), metal=nothing, agreed=sure, suspected=sure,
                    rods=rods_in(values, grid).rimmed)
    return replace(scan, ct=ct), bright, filled & ~body


def _index(where: npt.NDArray[np.int64], shape: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    return np.stack(np.unravel_index(where, shape), axis=-1)


def _labels_on(scan: Segmentation) -> npt.NDArray[np.uint8]:
    grid, bones = scan.ct.geometry, anatomy(POSE)
    index = np.rint(bones.geometry.to_index(grid.to_lps(np.argwhere(np.ones(grid.shape, dtype=np.bool_)))))
    at = np.clip(index.astype(int), 0, np.array(bones.labels.shape) - 1)
    return np.asarray(bones.labels[tuple(at.T)].reshape(grid.shape))


def found(case: tuple[Segmentation, Bright, Mask]) -> float:
    """How much of the columns is called cement."""
    scan, bright, columns = case
    cement, _ = delineate(scan.ct, scan.anatomy, bright)
    return float(cement[columns].mean())


@pytest.mark.parametrize("spacing", [(0.8, 0.8, 1.0), (1.0, 1.0, 3.0)])
def test_a_column_behind_the_bone_that_points_at_the_cement_is_found(spacing: tuple[float, float, float]) -> None:
    assert found(scan_of(column(BACKWARDS, 30, 50), spacing=spacing)) > 0.8


def test_its_pieces_are_found_with_it() -> None:
    assert found(scan_of(column(BACKWARDS, 30, 42), column(BACKWARDS, 45, 48), column(BACKWARDS, 51, 54))) > 0.8


def test_a_column_that_points_past_the_cement_is_left() -> None:
    assert found(scan_of(column(BACKWARDS, 30, 50, aside_deg=60))) == 0.0


def test_no_needle_comes_from_the_front_or_from_above() -> None:
    assert found(scan_of(column((-0.3, -1.0, 0.0), 40, 60))) == 0.0
    assert found(scan_of(column((0.0, 0.1, 1.0), 34, 54))) == 0.0


def test_faint_things_and_those_in_dense_surroundings_are_left() -> None:
    assert found(scan_of(column(BACKWARDS, 30, 50), hu=700.0)) == 0.0
    assert found(scan_of(column(SIDEWAYS, 24, 34), marrow_hu=900.0)) == 0.0


def test_a_needle_that_was_left_is_metal_and_no_cement() -> None:
    scan, bright, needle = scan_of(column(BACKWARDS, 30, 52), hu=NEEDLE_HU)
    cement, metal = delineate(scan.ct, scan.anatomy, bright)
    assert not cement[needle].any()
    assert metal[needle].all()


def test_even_a_network_that_calls_the_needle_cement_is_not_believed() -> None:
    scan, bright, needle = scan_of(column(BACKWARDS, 30, 52), hu=NEEDLE_HU)
    sure = needle.reshape(-1)[bright.where]
    believed = replace(bright, cement=np.where(sure, np.float32(0.9), bright.cement), agreed=bright.agreed | sure)
    cement, _ = delineate(scan.ct, scan.anatomy, believed)
    assert not cement[needle].any()
    assert cement[scan.ct.hu == CEMENT_HU].all()


def test_a_track_through_the_ilium_is_of_this_treatment_and_a_puncture_path() -> None:
    scan, bright, _ = scan_of(column(SIDEWAYS, 25, 36), column(SIDEWAYS, 40, 55))
    cement, _ = delineate(scan.ct, scan.anatomy, bright)
    answer = attribute(replace(scan, cement=LabelMap(labels=cement, geometry=scan.ct.geometry)), shipped_limits())
    assert answer.cement.elsewhere_ml == 0.0
    assert {leak.site for leak in answer.leaks} == {Site.PUNCTURE_PATH}


def test_a_patient_seen_in_a_mirror_has_the_same_column() -> None:
    scan, bright, _ = scan_of(column(BACKWARDS, 30, 50))
    other = mirrored(scan)
    turned = replace(bright, points=other.ct.geometry.to_lps(_index(bright.where, scan.ct.hu.shape)))
    assert np.array_equal(delineate(scan.ct, scan.anatomy, bright)[0], delineate(other.ct, other.anatomy, turned)[0])


@pytest.mark.parametrize("seed", range(4))
def test_no_scattered_bodies_are_too_odd_to_be_judged(seed: int) -> None:
    """Strings of voxels of any size and density about the cement."""
    rng = np.random.default_rng(seed)
    scan, bright, _ = scan_of(column(BACKWARDS, 30, 50))
    grid = scan.ct.geometry
    hu = scan.ct.hu.copy()
    for start in rng.uniform(2, np.array(grid.shape) - 3, size=(150, 3)):
        steps = np.cumsum(rng.normal(size=(int(rng.integers(1, 25)), 3)), axis=0) * 0.6
        at = np.clip(np.rint(start + steps), 0, np.array(grid.shape) - 1).astype(int)
        hu[tuple(at.T)] = np.maximum(hu[tuple(at.T)], int(rng.uniform(400, 3071)))
    where = np.flatnonzero(hu > 350)
    sure = np.isin(where, bright.where[bright.agreed])
    nothing = np.zeros(len(where), dtype=np.float32)
    points = grid.to_lps(_index(where, grid.shape))
    odd = Bright(where=where, hu=hu.reshape(-1)[where].astype(np.float32), points=points,
                 cement=np.where(sure, np.float32(0.95), nothing), metal=nothing, agreed=sure, suspected=sure,
                 rods=rods_in(hu, grid).rimmed)
    cement, metal = delineate(Volume(hu=hu, geometry=grid), scan.anatomy, odd)
    assert cement.reshape(-1)[where[sure]].mean() > 0.95
    assert not (cement & metal).any()
