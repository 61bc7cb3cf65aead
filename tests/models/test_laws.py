"""Laws that hold for every leak, on drawn places and sizes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sacroleak.core.structures import Side, Site
from sacroleak.models.attribution import Attribution, attribute
from sacroleak.models.limits import shipped_limits
from tests.phantoms import Shape, alar_cement, ball, canal_y, cement_at, front_y, mirrored, pelvic_vein, track

LIMITS = shipped_limits()
OTHER_SIDE = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT, Side.MIDLINE: Side.MIDLINE}
few = settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

levels = st.integers(-10, 35).map(float)
sides = st.sampled_from((-1, 1))


@st.composite
def leaks(draw: st.DrawFn) -> Shape:
    """A vein, a blob in front, or a needle's track, on either side and at some level."""
    side, z = draw(sides), draw(st.integers(5, 25).map(float))
    kind = draw(st.sampled_from(("vein", "blob", "track")))
    if kind == "vein":
        return pelvic_vein(side, length=draw(st.integers(18, 34)), diameter=draw(st.sampled_from((2.4, 3.0, 3.6))))
    if kind == "blob":
        return ball((side * 26.0, front_y(z, 26.0) - 6.0, z), draw(st.sampled_from((4.0, 5.0, 6.0))))
    return track((side * 36.0, -8.0, z), (side * 0.2, 1.0, 0.2), 45.0)


def gist(found: Attribution) -> list[tuple[Site, Side, bool, tuple[str, ...]]]:
    return [(k.site, k.side, k.needs_review, tuple(f.rule for f in k.findings)) for k in found.leaks]


@few
@given(leaks())
def test_mirroring_the_patient_mirrors_the_side_and_nothing_else(shape: Shape) -> None:
    scan = cement_at(alar_cement(), shape)
    plain, other = attribute(scan, LIMITS), attribute(mirrored(scan), LIMITS)
    assert [(s, OTHER_SIDE[side], r, f) for s, side, r, f in gist(plain)] == gist(other)
    assert other.cement.leaked_ml == pytest.approx(plain.cement.leaked_ml, rel=0.02)
    for site, summary in plain.sites.items():
        assert other.sites[site].probability == pytest.approx(summary.probability, abs=0.08)


@few
@given(leaks())
def test_a_prone_scan_says_the_same(shape: Shape) -> None:
    # A prone patient's rows and columns both run the other way; LPS stays the patient's own.
    plain = attribute(cement_at(alar_cement(), shape), LIMITS)
    prone = attribute(cement_at(alar_cement(), shape, flip=(0, 1)), LIMITS)
    assert gist(prone) == gist(plain)
    assert prone.leak_probability == pytest.approx(plain.leak_probability)
    for a, b in zip(prone.leaks, plain.leaks, strict=True):
        assert a.centroid_lps_mm == pytest.approx(b.centroid_lps_mm, abs=1e-6)


@few
@given(levels, st.sampled_from((2.4, 2.8, 3.2)))
def test_moving_a_leak_into_the_canal_makes_it_epidural(z: float, radius: float) -> None:
    def site_at(y: float) -> Site:
        found = attribute(cement_at(alar_cement(), ball((0.0, y, z), radius)), LIMITS)
        return max(found.leaks, key=lambda leak: leak.volume_ml).site

    assert site_at(front_y(z) - 5.0) is Site.ANTERIOR_SACRAL_SPACE
    assert site_at(float(canal_y(z)) - 3.5) is Site.ANTERIOR_EPIDURAL_SPACE


@few
@given(sides, st.sampled_from((2.2, 2.8, 3.4)))
def test_lengthening_a_tube_never_makes_it_less_venous(side: int, diameter: float) -> None:
    scores = [attribute(cement_at(alar_cement(), pelvic_vein(side, length=length, diameter=diameter)), LIMITS)
              .sites[Site.SACRAL_VENOUS_PLEXUS].probability for length in (8.0, 18.0, 32.0)]
    assert all(b >= a - 0.03 for a, b in pairwise(scores))


@pytest.mark.parametrize("radius", [0.6, 0.9, 1.3, 1.7, 2.2])
def test_however_small_a_leak_is_it_is_reported_or_named(radius: float) -> None:
    scan = cement_at(alar_cement(), ball((30.0, front_y(20, 30) - 5.0, 20.0), radius))
    alone = cement_at(alar_cement())
    extra_ml = (np.count_nonzero(scan.cement.labels) - np.count_nonzero(alone.cement.labels)) * 0.00064
    found = attribute(scan, LIMITS)
    assert extra_ml > 0
    if found.leaks:
        assert found.leaks[0].volume_ml == pytest.approx(extra_ml, rel=0.05)
        assert found.leaks[0].needs_review == (found.leaks[0].volume_ml < LIMITS.review.small_ml)
    else:
        assert any("specks" in note for note in found.notes)


def test_a_leak_below_every_limit_keeps_its_volume_in_the_notes() -> None:
    none = dict.fromkeys(("tiny_ml", "volume_ml", "surface_ml"), 1.0)
    strict = LIMITS.model_copy(update={"leaks": LIMITS.leaks.model_copy(update=none)})
    scan = cement_at(alar_cement(), ball((30.0, front_y(20, 30) - 5.0, 20.0), 2.2))
    found = attribute(scan, strict)
    assert found.leaks == ()
    assert any("too little to be called a leak" in note for note in found.notes)
