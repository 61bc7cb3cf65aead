"""Thick slices: averages where the thin ones were, labels that still obey their rules, at the right places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sacroleak.core.errors import InputError
from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Site, Structure
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.training.simulation.case import Case, LeakTruth
from sacroleak.training.simulation.scene import Scene
from sacroleak.training.simulation.slices import Depths, Slices, depths_of, reslice, slices_of

GRID = Geometry.axis_aligned(origin_lps_mm=(-5, 4, -20), spacing_mm=(1, 1, 1), shape=(6, 5, 24))
ALIKE = Depths.alike(GRID.shape)


def random_case(seed: int) -> Case:
    """Sacrum below and background above, cement anywhere, leaks where cement is outside; two leaks."""
    rng = np.random.default_rng(seed)
    anatomy = rng.choice([0, 0, 1, 1, 2, 3], size=GRID.shape).astype(np.uint8)
    cement = rng.random(GRID.shape) < 0.5
    leaks = np.where(cement & np.isin(anatomy, (0, 2)), rng.integers(1, 3, GRID.shape), 0).astype(np.uint8)
    metal = ~cement & (rng.random(GRID.shape) < 0.2)
    truth = tuple(LeakTruth(number=n, site=Site.OTHER, mechanism="disc", volume_ml=float((leaks == n).sum()) / 1000)
                  for n in (1, 2))
    return Case(ct=Volume(hu=rng.integers(-1000, 3000, GRID.shape).astype(np.int16), geometry=GRID),
                anatomy=LabelMap(labels=anatomy, geometry=GRID), cement=LabelMap(labels=cement, geometry=GRID),
                leaks=LabelMap(labels=leaks, geometry=GRID), metal=LabelMap(labels=metal, geometry=GRID), truth=truth)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 6))
def test_labels_obey_their_rules_in_any_slices(seed: int, thick: int, step: int) -> None:
    case = reslice(random_case(seed), Slices(fine_mm=1.0, thick=thick, step=step), ALIKE)
    leaked = case.leaks.labels > 0
    assert case.cement.labels[leaked].all()
    assert (case.anatomy.labels[leaked] != Structure.SACRUM).all()
    assert not (case.cement.labels & case.metal.labels).any()
    outside = case.cement.labels & np.isin(case.anatomy.labels, (0, 2))
    assert (case.leaks.labels[outside] > 0).all(), "the thin slices had no other cement there"
    assert [t.number for t in case.truth] == list(range(1, len(case.truth) + 1))
    assert set(np.unique(case.leaks.labels)) - {0} == {t.number for t in case.truth}
    for leak in case.truth:
        assert case.leaks.volume_ml(leak.number) == pytest.approx(leak.volume_ml)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6))
def test_a_slice_lies_in_the_middle_of_what_it_averages(thick: int, step: int) -> None:
    case = random_case(0)
    height = GRID.to_lps(np.argwhere(np.ones(GRID.shape)))[:, 2].reshape(GRID.shape)
    ramp = Volume(hu=(10 * height).astype(np.float32), geometry=GRID)
    thickened = reslice(replace(case, ct=ramp), Slices(fine_mm=1.0, thick=thick, step=step), ALIKE).ct
    middles = [thickened.geometry.to_lps((0, 0, k))[2] for k in range(thickened.geometry.shape[2])]
    assert thickened.hu[0, 0] == pytest.approx(10 * np.array(middles), abs=0.6)
    assert thickened.geometry.spacing_mm[2] == pytest.approx(step)


def test_a_leak_too_thin_for_the_slices_leaves_the_list_and_the_others_close_up() -> None:
    case = random_case(0)
    cement, leaks = np.zeros(GRID.shape, dtype=bool), np.zeros(GRID.shape, dtype=np.uint8)
    anatomy = np.zeros(GRID.shape, dtype=np.uint8)
    cement[2, 2, 4], leaks[2, 2, 4] = True, 1
    cement[4, 1, 8:16], leaks[4, 1, 8:16] = True, 2
    small = Case(ct=case.ct, anatomy=LabelMap(labels=anatomy, geometry=GRID), truth=case.truth, metal=case.metal,
                 cement=LabelMap(labels=cement, geometry=GRID), leaks=LabelMap(labels=leaks, geometry=GRID))
    (left,) = reslice(small, Slices(fine_mm=1.0, thick=4, step=4), ALIKE).truth
    assert left.number == 1
    assert left.volume_ml == pytest.approx(0.008)


def ball(seed: int) -> tuple[Scene, np.ndarray, Case]:
    """A sacrum that is a ball of 10 mm with a ball of 7 mm of cement in it, anywhere between the voxels: the scene, the
    distance to the cement, and the case.
    """
    grid = Geometry.axis_aligned(origin_lps_mm=(0, 0, 0), spacing_mm=(1, 1, 1), shape=(32, 32, 36))
    x, y, z = np.indices(grid.shape, dtype=np.float32)
    a, b, c = 15 + np.random.default_rng(seed).random(3)
    away = np.sqrt((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2)
    bone, cement = (away - 10).astype(np.float32), (away - 7).astype(np.float32)
    nothing = LabelMap(labels=np.zeros(grid.shape, dtype=np.uint8), geometry=grid)
    case = Case(ct=Volume(hu=np.zeros(grid.shape, dtype=np.int16), geometry=grid), truth=(), leaks=nothing,
                metal=nothing, anatomy=LabelMap(labels=(bone < 0).astype(np.uint8), geometry=grid),
                cement=LabelMap(labels=cement < 0, geometry=grid))
    return Scene(geometry=grid, distance={"sacrum": bone}), cement, case


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([(2, 1), (2, 2), (3, 3), (4, 4)]))
def test_what_fills_a_thick_voxel_by_half_keeps_volumes(seed: int, cut: tuple[int, int]) -> None:
    scene, cement, case = ball(seed)
    thick = reslice(case, Slices(fine_mm=1.0, thick=cut[0], step=cut[1]), depths_of(scene, cement))
    assert thick.cement.volume_ml(1) == pytest.approx(4 / 3 * np.pi * 0.7 ** 3, rel=0.06)
    assert thick.anatomy.volume_ml(Structure.SACRUM) == pytest.approx(4 / 3 * np.pi, rel=0.04)


def test_of_two_fine_slices_the_deeper_one_decides() -> None:
    scene, cement, case = ball(0)
    slices = Slices(fine_mm=1.0, thick=2, step=2)
    thick = reslice(case, slices, depths_of(scene, cement)).cement.labels
    pairs = case.cement.labels.reshape(*thick.shape, 2)
    split = pairs[..., 0] != pairs[..., 1]
    assert 0.4 < thick[split].mean() < 0.6
    assert (thick == pairs[..., 0])[~split].all()


def test_thin_slices_are_left_alone() -> None:
    case = random_case(1)
    assert reslice(case, Slices(fine_mm=1.0, thick=1, step=1), ALIKE) is case


@pytest.mark.parametrize(("thickness", "increment", "pixel", "expected"), [
    (1.0, None, 0.8, (1.0, 1, 1)), (5.0, None, 0.8, (1.25, 4, 4)), (3.0, None, 0.8, (1.5, 2, 2)),
    (3.0, 1.5, 0.8, (1.5, 2, 1)), (2.0, 3.0, 0.8, (1.0, 2, 3)), (3.0, None, 3.0, (3.0, 1, 1)),
    (6.0, None, 2.5, (2.0, 3, 3)), (0.6, None, 0.5, (0.6, 1, 1)), (5.0, 4.0, 0.8, (1.0, 5, 4)),
])
def test_the_fine_grid_divides_thickness_and_increment(thickness: float, increment: float | None, pixel: float,
                                                       expected: tuple[float, int, int]) -> None:
    slices = slices_of(thickness, increment, pixel_mm=pixel)
    assert (slices.fine_mm, slices.thick, slices.step) == pytest.approx(expected)
    assert slices.thickness_mm == pytest.approx(thickness)
    assert slices.increment_mm == pytest.approx(increment or thickness)


def test_slices_without_a_common_part_are_refused() -> None:
    with pytest.raises(InputError, match="no common part"):
        slices_of(3.0, 1.0371)
