"""The whole way from label maps to sites, tested by laws."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest

from sacroleak.core.assessment import Leak
from sacroleak.core.structures import Compartment, Side, Site, Structure
from sacroleak.core.volume import LabelMap
from sacroleak.models.attribution import Attribution, attribute
from sacroleak.models.limits import shipped_limits
from sacroleak.models.segmentation import Segmentation
from tests.phantoms import (
    Pose,
    Shape,
    alar_cement,
    anatomy,
    back_y,
    ball,
    canal_y,
    cement_at,
    ellipsoid,
    front_y,
    half_width,
    mirrored,
    pelvic_vein,
    track,
)

LIMITS = shipped_limits()
UPRIGHT, TURNED = Pose(), Pose(nod=5.0, lean=-9.0, twist=14.0, shift=(-40.0, 5.0, -60.0))

CASES: dict[str, tuple[tuple[Shape, ...], Site, Side]] = {
    "vein": ((alar_cement(), pelvic_vein()), Site.SACRAL_VENOUS_PLEXUS, Side.LEFT),
    "vein right": ((alar_cement(-1), pelvic_vein(-1)), Site.SACRAL_VENOUS_PLEXUS, Side.RIGHT),
    "blob in front": ((alar_cement(), ball((30, front_y(20, 30) - 5, 20), 6)), Site.ANTERIOR_SACRAL_SPACE, Side.LEFT),
    "plate in front": ((alar_cement(), ellipsoid((10, front_y(5, 10) - 2.5, 5), (10, 3, 9))),
                       Site.ANTERIOR_SACRAL_SPACE, Side.LEFT),
    "posterior track": ((alar_cement(), track((36, -8, 22), (0.2, 1, 0.2), 45)), Site.PUNCTURE_PATH, Side.LEFT),
    "transiliac track": ((alar_cement(-1), track((-36, -14, 22), (-1, 0.25, 0), 60)), Site.PUNCTURE_PATH, Side.RIGHT),
    "epidural": ((alar_cement(), ball((0, float(canal_y(15)) - 4, 15), 3)), Site.ANTERIOR_EPIDURAL_SPACE,
                 Side.MIDLINE),
    "dorsal epidural": ((alar_cement(), ball((0, float(canal_y(15)) + 4, 15), 2.5)), Site.OTHER, Side.MIDLINE),
    "foramen": ((alar_cement(), ball((22, float(canal_y(28)) - 10, 28), 4.5)), Site.OTHER, Side.LEFT),
    "disc": ((alar_cement(), ellipsoid((8, float(canal_y(50)) - 20, 55.5), (9, 8, 4))), Site.OTHER, Side.LEFT),
    "joint": ((alar_cement(), ellipsoid((float(half_width(10)) + 1.5, float(canal_y(10)) - 10, 10), (1.8, 8, 8))),
              Site.OTHER, Side.LEFT),
    "behind": ((alar_cement(), ball((25, back_y(10, 25) + 6, 10), 6)), Site.OTHER, Side.LEFT),
}
THIN = (0.8, 0.8, 1.0)


@lru_cache(maxsize=64)
def result(name: str, pose: Pose = UPRIGHT, spacing: tuple[float, float, float] = THIN) -> Attribution:
    return attribute(cement_at(*CASES[name][0], pose=pose, spacing=spacing), LIMITS)


def largest(found: Attribution) -> Leak:
    return max(found.leaks, key=lambda leak: leak.volume_ml)


def gist(found: Attribution) -> list[tuple[Site, Side, bool, tuple[str, ...]]]:
    return [(k.site, k.side, k.needs_review, tuple(f.rule for f in k.findings)) for k in found.leaks]


@pytest.mark.parametrize("name", CASES)
def test_each_leak_has_its_site_and_side(name: str) -> None:
    leak = largest(result(name))
    assert (leak.site, leak.side) == CASES[name][1:]
    assert leak.findings


@pytest.mark.parametrize("spacing", [(0.8, 0.8, 3.0), (0.8, 0.8, 5.0)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_thick_slices_give_the_same_site(name: str, spacing: tuple[float, float, float]) -> None:
    leak = largest(result(name, spacing=spacing))
    assert (leak.site, leak.side) == CASES[name][1:]


@pytest.mark.parametrize("name", CASES)
def test_turning_the_patient_changes_nothing(name: str) -> None:
    leak, same = largest(result(name, TURNED)), largest(result(name))
    assert (leak.site, leak.side) == (same.site, same.side)
    assert leak.volume_ml == pytest.approx(same.volume_ml, rel=0.2)
    assert leak.shape.depth_outside_mm == pytest.approx(same.shape.depth_outside_mm, abs=1.2)
    back = UPRIGHT.to_lps(TURNED.to_own(np.array([leak.centroid_lps_mm])))[0]
    assert np.linalg.norm(back - same.centroid_lps_mm) < 1.5


@pytest.mark.parametrize("flip", [(0, 1), (2,)], ids=str)
def test_storing_the_array_the_other_way_round_changes_nothing(flip: tuple[int, ...]) -> None:
    for name in ("vein", "posterior track"):
        plain, turned = result(name), attribute(cement_at(*CASES[name][0], flip=flip), LIMITS)
        assert gist(plain) == gist(turned)
        for a, b in zip(plain.leaks, turned.leaks, strict=True):
            assert a.centroid_lps_mm == pytest.approx(b.centroid_lps_mm, abs=1e-6)
            assert a.shape.depth_outside_mm == pytest.approx(b.shape.depth_outside_mm, abs=1e-6)
            assert a.shape.length_mm == pytest.approx(b.shape.length_mm, rel=0.05)


@pytest.mark.parametrize("name", ["vein", "blob in front", "transiliac track", "epidural", "foramen"])
def test_a_mirrored_patient_has_the_other_side_and_nothing_else(name: str) -> None:
    swap = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT, Side.MIDLINE: Side.MIDLINE}
    plain = result(name)
    other = attribute(mirrored(cement_at(*CASES[name][0])), LIMITS)
    assert [(s, swap[side], r, f) for s, side, r, f in gist(plain)] == gist(other)
    assert other.leak_probability == pytest.approx(plain.leak_probability, abs=0.01)
    assert other.cement.leaked_ml == pytest.approx(plain.cement.leaked_ml, rel=0.02)


def test_cement_inside_the_bone_is_no_leak() -> None:
    found = attribute(cement_at(alar_cement()), LIMITS)
    assert not found.leak_present
    assert found.leaks == ()
    assert found.leak_probability < 0.2
    assert found.cement.leaked_ml == 0.0
    assert not any(s.present or s.probability for s in found.sites.values())


@pytest.mark.parametrize("grow_mm", [-1.0, 1.0])
def test_a_millimetre_of_contour_error_makes_no_sure_leak_of_cement_two_millimetres_deep(grow_mm: float) -> None:
    deep = ball((32.0, front_y(15, 32) + 9.0, 15.0), 7.0)
    found = attribute(cement_at(deep, grow_mm=grow_mm), LIMITS)
    assert all(leak.needs_review for leak in found.leaks)
    assert found.leak_probability < 0.5


@pytest.mark.parametrize("grow_mm", [-1.0, 1.0])
@pytest.mark.parametrize("name", ["vein", "blob in front", "posterior track", "epidural"])
def test_a_millimetre_of_contour_error_keeps_clear_sites(name: str, grow_mm: float) -> None:
    found = attribute(cement_at(*CASES[name][0], grow_mm=grow_mm), LIMITS)
    assert largest(found).site is CASES[name][1]


def test_moving_a_blob_from_the_front_into_the_canal_makes_it_epidural() -> None:
    sites = []
    for y in (front_y(15) - 5.0, float(canal_y(15)) - 4.0, float(canal_y(15)) + 4.0):
        found = attribute(cement_at(alar_cement(), ball((0.0, y, 15.0), 2.8)), LIMITS)
        sites.append(largest(found).site)
    assert sites == [Site.ANTERIOR_SACRAL_SPACE, Site.ANTERIOR_EPIDURAL_SPACE, Site.OTHER]


def test_more_cement_in_the_front_of_the_canal_never_lowers_the_epidural_score() -> None:
    scores = []
    for radius in (1.0, 1.6, 2.2, 2.8, 3.4):
        found = attribute(cement_at(alar_cement(), ball((0.0, float(canal_y(15)) - 3.5, 15.0), radius)), LIMITS)
        scores.append(found.sites[Site.ANTERIOR_EPIDURAL_SPACE].probability)
    assert all(b >= a - 0.01 for a, b in pairwise(scores))
    assert scores[-1] > 0.9


def test_a_longer_vein_is_never_less_venous() -> None:
    scores = [attribute(cement_at(alar_cement(), pelvic_vein(length=length)), LIMITS)
              .sites[Site.SACRAL_VENOUS_PLEXUS].probability for length in (6.0, 12.0, 20.0, 30.0, 40.0)]
    assert all(b >= a - 0.02 for a, b in pairwise(scores))
    assert scores[-1] > 0.9


def test_a_tiny_leak_is_reported_for_review() -> None:
    found = attribute(cement_at(alar_cement(), ball((30, front_y(20, 30) - 4, 20), 1.3)), LIMITS)
    assert len(found.leaks) == 1
    assert found.leaks[0].volume_ml < LIMITS.leaks.volume_ml
    assert found.leaks[0].needs_review
    assert any("small" in reason for reason in found.leaks[0].review_reasons)


@pytest.mark.parametrize(("radius_mm", "asked"), [(2.5, True), (6.0, False)])
def test_a_leak_of_few_voxels_is_reported_for_review(radius_mm: float, asked: bool) -> None:
    at = (30, front_y(20, 30) - 5, 20)
    found = attribute(cement_at(alar_cement(), ball(at, radius_mm), spacing=(3.0, 3.0, 3.0)), LIMITS)
    leak, voxel_ml = largest(found), found.leak_numbers.geometry.voxel_ml
    assert (leak.volume_ml <= LIMITS.review.few_voxels * voxel_ml * 1.01) == asked
    assert any("voxels" in reason for reason in leak.review_reasons) == asked


def test_cement_in_l5_is_another_treatment() -> None:
    found = attribute(cement_at(alar_cement(), ball((5, float(canal_y(72)) - 22, 72), 8)), LIMITS)
    assert not found.leak_present
    assert found.cement.elsewhere_ml == pytest.approx(2.1, abs=0.3)
    assert found.cement.total_ml == pytest.approx(found.cement.intraosseous_ml)
    assert any("L5" in note for note in found.notes)


@pytest.mark.parametrize("name", CASES)
def test_volumes_numbers_and_shares_add_up(name: str) -> None:
    found = result(name)
    volumes, numbers = found.cement, found.leak_numbers
    assert volumes.total_ml == pytest.approx(volumes.intraosseous_ml + volumes.leaked_ml)
    assert volumes.leaked_ml == pytest.approx(sum(leak.volume_ml for leak in found.leaks))
    assert [leak.number for leak in found.leaks] == list(range(1, len(found.leaks) + 1))
    for leak in found.leaks:
        assert numbers.volume_ml(leak.number) == pytest.approx(leak.volume_ml)
        assert sum(leak.probabilities.values()) == pytest.approx(1.0)
        assert sum(leak.compartments.values()) == pytest.approx(1.0)
        assert bool(leak.review_reasons) == leak.needs_review
    for site, summary in found.sites.items():
        assert summary.present == any(leak.site is site for leak in found.leaks)
        assert 0.0 <= summary.probability <= 1.0


def test_little_sacrum_and_a_border_ask_for_review() -> None:
    shapes = CASES["blob in front"][0]
    seen_little = attribute(cement_at(*shapes, coverage=0.4), LIMITS)
    assert any("40%" in reason for reason in largest(seen_little).review_reasons)
    at_border = attribute(_cut_through(cement_at(*shapes)), LIMITS)
    assert any("border" in reason for reason in largest(at_border).review_reasons)


def test_what_the_networks_hardly_take_for_cement_asks_for_review() -> None:
    scan = cement_at(*CASES["posterior track"][0])
    for per_cent, asked in ((90, False), (10, True)):
        unsure = dataclasses.replace(scan, certainty=np.full(scan.cement.labels.shape, per_cent, dtype=np.uint8))
        reasons = largest(attribute(unsure, LIMITS)).review_reasons
        assert any("hardly take it for cement" in reason for reason in reasons) == asked


def _cut_through(scan: Segmentation) -> Segmentation:
    """The scan ended inside the blob in front: drop the rows up to its middle."""
    middle = scan.cement.geometry.to_index(UPRIGHT.to_lps([(30, front_y(20, 30) - 5, 20)]))[0]
    start = [0, int(middle[1]), 0]
    ct = scan.ct.crop(start, scan.cement.geometry.shape)
    labels = np.asarray(scan.cement.labels[:, start[1]:], dtype=np.bool_)
    return dataclasses.replace(scan, ct=ct, cement=LabelMap(labels=labels, geometry=ct.geometry))


def test_no_cement_and_no_sacrum_are_answers_too() -> None:
    nothing = attribute(cement_at(), LIMITS)
    assert nothing.cement.total_ml == 0.0
    assert not nothing.leak_present
    assert nothing.leak_probability == 0.0
    whole = anatomy(UPRIGHT)
    bare = LabelMap(labels=np.where(whole.labels == Structure.SACRUM, np.uint8(0), whole.labels),
                    geometry=whole.geometry)
    lost = attribute(cement_at(alar_cement(), on=bare), LIMITS)
    assert not lost.leak_present
    assert lost.cement.elsewhere_ml > 2.0
    assert any("No sacrum" in note for note in lost.notes)


def test_compartments_of_a_vein_tell_its_way_through_the_foramen() -> None:
    leak = largest(result("vein"))
    assert leak.compartments[Compartment.FORAMINA_LEFT] > 0.05
    assert leak.compartments[Compartment.PRESACRAL] > 0.5
    assert "foramen" in leak.findings[0].sentence
