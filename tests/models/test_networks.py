"""Both passes together, with networks that read coded scans: place, side, coverage and refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from sacroleak.core.errors import NotAssessableError
from sacroleak.core.structures import Structure
from sacroleak.core.volume import LabelMap
from sacroleak.models import networks
from sacroleak.models.near import NearNetwork
from sacroleak.models.networks import SACRUM_LENGTH_MM, TwoPassSegmenter, sacrum_coverage
from sacroleak.models.segmentation import Segmentation
from tests.models.coded_scan import HALF_MM, CodedNetwork, Scan

SACRUM_ML = float(4 / 3 * np.pi * HALF_MM.prod() / 1000)
STORED = [((0, 1, 2), (1, 1, 1)), ((0, 1, 2), (-1, -1, 1)), ((2, 0, 1), (1, 1, -1)), ((1, 2, 0), (-1, -1, -1))]


def segment(scan: Scan, *, fine: CodedNetwork | None = None, near: CodedNetwork | None = None) -> Segmentation:
    """5 mm and 3 mm networks; the fine one sees 144 x 96 x 132 mm."""
    closer = None if near is None else NearNetwork(network=near, patch=(48, 48, 48))
    return TwoPassSegmenter(coarse=CodedNetwork(), fine=fine or CodedNetwork(), coarse_mm=5.0, fine_mm=3.0,
                            patch=(48, 32, 44), near=closer).segment(scan.volume())


class Denies(CodedNetwork):
    """Sees no bone on the left of cement or metal in view, and what all others see where they are hidden."""

    def __call__(self, channels: np.ndarray) -> np.ndarray:
        out = super().__call__(channels)
        dense = np.argwhere(out[Structure.CEMENT:].max(axis=0) > 0.5)
        if len(dense):
            out[: Structure.CEMENT, dense[:, 0].min():] = 0
            out[Structure.BACKGROUND, dense[:, 0].min():] = 1
        return out


class Dazzled(CodedNetwork):
    """Sees no cement while metal is in view."""

    def __call__(self, channels: np.ndarray) -> np.ndarray:
        out = super().__call__(channels)
        if (out[7] > 0.5).any():
            out[6] = 0.01
        return out


def centre_mm(labels: LabelMap, label: int) -> np.ndarray:
    centre: np.ndarray = labels.geometry.to_lps(np.argwhere(labels.labels == label).mean(axis=0))
    return centre


@pytest.mark.parametrize(("order", "signs"), STORED)
def test_every_structure_lies_where_it_is_however_the_scan_is_stored(order: tuple[int, int, int],
                                                                      signs: tuple[int, int, int]) -> None:
    scan = Scan(centre=(12.0, -8.0, 20.0), order=order, signs=signs, cement_ml=3.0)
    found = segment(scan)
    # The code's border between soft tissue and sacrum lies above half way, which takes half a millimetre off it.
    assert found.anatomy.volume_ml(Structure.SACRUM) == pytest.approx(SACRUM_ML, rel=0.08)
    assert np.abs(centre_mm(found.anatomy, Structure.SACRUM) - scan.centre).max() < 1.5
    assert centre_mm(found.anatomy, Structure.HIP_LEFT)[0] > scan.centre[0] + 30
    assert centre_mm(found.anatomy, Structure.HIP_RIGHT)[0] < scan.centre[0] - 30
    assert found.cement.labels.sum() * found.ct.geometry.voxel_ml == pytest.approx(3.0, rel=0.15)
    assert np.abs(centre_mm(found.cement, 1) - (30.0, -8.0, 20.0)).max() < 1.5
    assert found.metal_ml == 0
    assert found.sacrum_coverage == 1.0


def test_certainty_is_high_in_cement_and_none_in_soft_tissue() -> None:
    found = segment(Scan(cement_ml=3.0))
    assert found.certainty is not None
    assert np.median(found.certainty[found.cement.labels > 0]) > 60
    assert found.certainty[found.ct.hu < 200].max() == 0


def test_metal_is_measured() -> None:
    """3 mL of it, whose rim the coded network takes for less dense things."""
    assert 0.5 < segment(Scan(metal=True)).metal_ml < 3.0


def test_cement_is_found_though_metal_dazzles_the_network() -> None:
    found = segment(Scan(cement_ml=3.0, metal=True), fine=Dazzled())
    assert found.cement.labels.sum() * found.ct.geometry.voxel_ml == pytest.approx(3.0, rel=0.15)
    assert 0.5 < found.metal_ml < 3.0


def test_both_networks_are_shown_the_scan_without_the_metal_that_dazzles_them() -> None:
    found = segment(Scan(cement_ml=3.0, metal=True), fine=Dazzled(), near=Dazzled())
    assert found.cement.labels.sum() * found.ct.geometry.voxel_ml == pytest.approx(3.0, rel=0.15)


def test_cement_changes_no_bone() -> None:
    with_cement, without = segment(Scan(cement_ml=3.0)), segment(Scan())
    assert np.array_equal(with_cement.anatomy.labels, without.anatomy.labels)
    assert not without.cement.labels.any()
    assert without.metal_ml == 0


def test_a_screw_takes_no_bone_away() -> None:
    with_screw, without = segment(Scan(cement_ml=3.0, screw=True)), segment(Scan(cement_ml=3.0))
    assert with_screw.metal_ml > 1.0
    sacrum = without.anatomy.labels == Structure.SACRUM
    assert (with_screw.anatomy.labels == Structure.SACRUM)[sacrum].mean() > 0.995


def test_a_close_look_at_the_scan_as_it_is_says_of_bones_where_nothing_is_hidden() -> None:
    scan = Scan(cement_ml=3.0)
    plain, denied = segment(scan, near=CodedNetwork()), segment(scan, near=Denies())
    grid = plain.anatomy.geometry
    bone, gone = (plain.anatomy.labels == Structure.SACRUM), (denied.anatomy.labels != Structure.SACRUM)
    cement = LabelMap(labels=plain.cement.labels, geometry=plain.cement.geometry)
    points, dense = grid.to_lps(np.argwhere(bone)), cement.geometry.to_lps(np.argwhere(cement.labels))
    away, _ = cKDTree(dense).query(points)
    assert not gone[bone][away < 0.5].any()
    left = (points[:, 0] > dense[:, 0].max()) & (away > 5) & (away < 10)
    assert gone[bone][left].mean() > 0.7  # not all: some of it lies in the core of a tile that shows no cement


def test_without_cement_a_close_look_at_what_is_dense_says_of_bones_too() -> None:
    scan = Scan(metal=True)
    denied, plain = segment(scan, near=Denies()), segment(scan)
    assert denied.metal_ml > 0
    assert denied.anatomy.volume_ml(Structure.HIP_RIGHT) < 0.9 * plain.anatomy.volume_ml(Structure.HIP_RIGHT)


def test_the_crop_is_a_part_of_the_scan() -> None:
    scan = Scan(centre=(20.0, 10.0, -30.0), cement_ml=3.0)
    whole, found = scan.volume(), segment(scan)
    start = found.start
    box = tuple(slice(a, a + n) for a, n in zip(start, found.ct.geometry.shape, strict=True))
    assert np.array_equal(whole.hu[box], found.ct.hu)
    assert found.ct.geometry.to_lps((0, 0, 0)) == pytest.approx(whole.geometry.to_lps(start))


def test_the_working_grid_is_one_millimetre_along_the_patient() -> None:
    geometry = segment(Scan(order=(2, 0, 1), signs=(-1, 1, -1))).anatomy.geometry
    assert np.allclose(geometry.affine[:3, :3], np.eye(3))


def test_a_region_off_the_sacrum_is_looked_at_again() -> None:
    """The coarse pass sees only the upper half here, so the first region lies too high."""
    scan = Scan(size_mm=(230.0, 140.0, 300.0))

    class Upper(CodedNetwork):
        def __call__(self, channels: np.ndarray) -> np.ndarray:
            out = super().__call__(channels)
            out[Structure.SACRUM][:, :, : out.shape[3] // 2 + 3] = 0
            return out

    fine = CodedNetwork()
    found = TwoPassSegmenter(coarse=Upper(), fine=fine, coarse_mm=5.0, fine_mm=3.0,
                             patch=(48, 32, 44)).segment(scan.volume())
    assert np.abs(centre_mm(found.anatomy, Structure.SACRUM) - scan.centre).max() < 1.5
    seen_once = CodedNetwork()
    segment(scan, fine=seen_once)
    assert fine.asked == 2 * seen_once.asked


def test_a_cut_sacrum_is_covered_in_part() -> None:
    """48 mm of it above and 14 below the middle of the scan's lower edge."""
    cut = Scan(size_mm=(230.0, 140.0, 150.0), centre=(0.0, 0.0, -61.0))
    shown = segment(cut).sacrum_coverage
    assert shown == pytest.approx((48 + 14) / SACRUM_LENGTH_MM, abs=0.05)


def test_too_little_of_a_sacrum_is_not_assessable() -> None:
    with pytest.raises(NotAssessableError, match=r"about \d+ % of the sacrum, wanted 40 %"):
        segment(Scan(size_mm=(230.0, 140.0, 150.0), centre=(0.0, 0.0, -89.0)))


def test_no_sacrum_is_not_assessable() -> None:
    with pytest.raises(NotAssessableError, match="no sacrum"):
        segment(Scan(size_mm=(230.0, 140.0, 120.0), centre=(0.0, 0.0, -150.0)))


def test_a_sacrum_that_only_the_coarse_pass_sees_is_not_assessable() -> None:
    class Blind(CodedNetwork):
        def __call__(self, channels: np.ndarray) -> np.ndarray:
            out = super().__call__(channels)
            out[Structure.SACRUM] = 0
            return out

    with pytest.raises(NotAssessableError, match="too little of a sacrum"):
        segment(Scan(), fine=Blind())


def test_stray_pieces_are_dropped() -> None:
    class Stray(CodedNetwork):
        def __call__(self, channels: np.ndarray) -> np.ndarray:
            out = super().__call__(channels)
            for x in (2, -4):  # on both sides, since the network is asked about the mirror image too
                out[Structure.SACRUM][x:x + 2, 2:4, 2:4] = 0.9
                out[Structure.BACKGROUND][x:x + 2, 2:4, 2:4] = 0.01
            return out

    stray, plain = segment(Scan(), fine=Stray()), segment(Scan())
    assert stray.anatomy.volume_ml(Structure.SACRUM) == plain.anatomy.volume_ml(Structure.SACRUM)


def test_a_sacrum_within_the_scan_is_covered_wholly() -> None:
    found = segment(Scan())
    assert sacrum_coverage(found.anatomy, Scan().geometry()) == 1.0
    short = replace(Scan(), size_mm=(230.0, 140.0, 60.0)).geometry()
    assert sacrum_coverage(found.anatomy, short) < 0.95


class Suspicious(CodedNetwork):
    """Takes the hips for cement too, so far as they are bright."""

    def __call__(self, channels: np.ndarray) -> np.ndarray:
        out = super().__call__(channels)
        out[6][(out[Structure.HIP_LEFT] > 0.5) | (out[Structure.HIP_RIGHT] > 0.5)] = 0.5
        return out


def test_what_is_suspect_far_from_the_sacrum_takes_no_closer_look(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for reach_mm in (42.0, 4.0):
        monkeypatch.setattr(networks, "FARTHEST_MM", reach_mm)
        near = CodedNetwork()
        segment(Scan(cement_ml=3.0), fine=Suspicious(), near=near)
        asked.append(near.asked)
    assert 0 < asked[1] < asked[0]
