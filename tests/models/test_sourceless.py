"""A sacrum without cement leaks nothing; what is dense beside it is named all the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sacroleak.core.structures import Site
from sacroleak.core.volume import Volume
from sacroleak.models.attribution import attribute
from sacroleak.models.limits import shipped_limits
from tests.phantoms import alar_cement, ball, canal_y, cement_at, front_y, tube

LIMITS = shipped_limits()
SPOTS = tuple(ball((x, front_y(5, 17) - 7.0, 5.0), 3.6) for x in (-17.0, 17.0))


def test_paired_dense_spots_before_a_bone_without_cement_are_no_leak() -> None:
    found = attribute(cement_at(*SPOTS), LIMITS)
    assert not found.leak_present
    assert found.leaks == ()
    assert found.cement.leaked_ml == found.cement.total_ml == 0.0
    assert found.cement.elsewhere_ml == pytest.approx(0.39, abs=0.06)
    assert sum("across the midline" in note and "in front of it" in note for note in found.notes) == 2
    assert len(found.review_reasons) == 1


@pytest.mark.parametrize("place", [(0.0, float(canal_y(15)) - 4.0, 15.0), (0.0, front_y(10) - 12.0, 10.0)])
def test_nothing_sourceless_is_passed_over(place: tuple[float, float, float]) -> None:
    found = attribute(cement_at(ball(place, 3.0)), LIMITS)
    assert not found.leak_present
    assert any("0.1" in note and "mL of dense material" in note for note in found.notes)


def test_paired_spots_apart_from_the_cement_of_a_treated_bone_are_no_leak() -> None:
    found = attribute(cement_at(*SPOTS, alar_cement()), LIMITS)
    assert found.leaks == ()
    assert sum("apart from the cement and paired" in note for note in found.notes) == 2
    assert len(found.review_reasons) == 1
    assert found.cement.elsewhere_ml == pytest.approx(0.39, abs=0.06)


@pytest.mark.parametrize(("certainty", "hu", "leak"), [(40, 2100, False), (40, 900, True), (90, 2100, True)])
def test_doubtful_and_as_dense_as_the_other_side_is_bone(certainty: int, hu: int, leak: bool) -> None:
    """A small body at the front of the bone, with dense bone at the same place on the other side."""
    own = ball((20.0, front_y(20, 20) - 2.0, 20.0), 3.4)
    scan = cement_at(alar_cement(), own, margin_mm=75.0)
    other = cement_at(ball((-20.0, front_y(20, 20) + 1.0, 20.0), 4.5))
    at = np.rint(scan.ct.geometry.to_index(other.cement.geometry.to_lps(np.argwhere(other.cement.labels)))).astype(int)
    values = scan.ct.hu.copy()
    values[tuple(at.T)] = hu
    doubted = replace(scan, ct=Volume(hu=values, geometry=scan.ct.geometry),
                      certainty=np.where(scan.cement.labels, np.uint8(certainty), np.uint8(0)))
    found = attribute(doubted, LIMITS)
    assert found.leak_present is leak
    if not leak:
        assert any("taken for bone" in note for note in found.notes)
        assert found.review_reasons == (), "dense facets are common"


def test_where_the_sacrum_is_cut_off_pairs_are_no_leak_either() -> None:
    found = attribute(cement_at(*SPOTS, alar_cement(), coverage=0.9), LIMITS)
    assert found.leaks == ()
    assert sum("apart from the cement and paired" in note for note in found.notes) == 2


def test_cement_of_the_other_side_makes_no_bone_of_a_leak() -> None:
    """As dense as the leak and at its mirrored place; only how sure the networks are of it differs."""
    own = ball((20.0, front_y(20, 20) - 2.0, 20.0), 3.4)
    scan = cement_at(alar_cement(), own, ball((-20.0, front_y(20, 20) + 3.0, 20.0), 4.5), margin_mm=75.0)
    shape = scan.cement.labels.shape
    left_mm = scan.cement.geometry.to_lps(np.argwhere(np.ones(shape)))[:, 0].reshape(shape)
    told = [np.where(left_mm < 0, np.uint8(other), np.uint8(60)) for other in (60, 90)]
    leaks = [attribute(replace(scan, certainty=certainty), LIMITS).leak_present for certainty in told]
    assert leaks == [False, True]


def test_one_of_them_alone_is_a_leak() -> None:
    found = attribute(cement_at(SPOTS[1], alar_cement()), LIMITS)
    assert len(found.leaks) == 1
    assert found.review_reasons == ()


def test_what_lies_far_from_bone_and_cement_is_named_and_no_leak() -> None:
    y = front_y(5, 17)
    far, near = (attribute(cement_at(ball((17.0, y - away, 5.0), 4.0), alar_cement(), margin_mm=30.0), LIMITS)
                 for away in (18.0, 8.0))
    assert far.leaks == ()
    assert sum("far from the bone and from all other cement" in note for note in far.notes) == 1
    assert len(far.review_reasons) == 1
    assert len(near.leaks) == 1


def test_a_thin_leak_with_a_little_cement_at_its_root_stays_for_review() -> None:
    line = [(30.0, front_y(z, 30.0) - 4.0, z) for z in (20.0, 12.0, 4.0, -4.0)]
    root = tube([(30.0, front_y(20, 30) + 3.2, 20.0), line[0]], 2.4)
    found = attribute(cement_at(root, tube(line, 2.4)), LIMITS)
    assert found.cement.intraosseous_ml < LIMITS.leaks.source_ml
    assert [leak.site for leak in found.leaks] == [Site.SACRAL_VENOUS_PLEXUS]
    assert any("Hardly any cement" in reason for reason in found.leaks[0].review_reasons)


def test_where_the_sacrum_is_cut_off_the_thing_stays_a_leak_for_review() -> None:
    found = attribute(cement_at(SPOTS[1], coverage=0.9), LIMITS)
    assert len(found.leaks) == 1
    assert any("Hardly any cement" in reason for reason in found.leaks[0].review_reasons)
