"""The measures a classifier learns from: their order, their laws, and shapes whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sacroleak.core.volume import Volume
from sacroleak.models.feature_vector import FEATURE_NAMES, feature_vector
from sacroleak.models.features import PartFeatures
from sacroleak.models.limits import shipped_limits
from sacroleak.models.parts import measure_scan
from sacroleak.models.segmentation import Segmentation
from tests.phantoms import Shape, alar_cement, ball, cement_at, front_y, mirrored, pelvic_vein, tube

LIMITS = shipped_limits()
FRONT = ball((30.0, front_y(20, 30) - 7.0, 20.0), 5.0)


def parts_of(scan: Segmentation) -> list[PartFeatures]:
    found = measure_scan(scan, LIMITS)
    return [] if found is None else [measured.features for measured in found[1]]


def largest(*shapes: Shape) -> PartFeatures:
    return parts_of(cement_at(*shapes))[0]


def painted(scan: Segmentation, *shapes: Shape, hu: int) -> Segmentation:
    """The scan with something dense that is not cement, of these shapes in the phantom's own frame."""
    extra = cement_at(*shapes)
    index = extra.cement.geometry.to_lps(np.argwhere(extra.cement.labels))
    at = np.rint(scan.ct.geometry.to_index(index)).astype(int)
    at = at[((at >= 0) & (at < np.array(scan.ct.geometry.shape))).all(axis=1)]
    values = scan.ct.hu.copy()
    values[tuple(at.T)] = hu
    return replace(scan, ct=Volume(hu=values, geometry=scan.ct.geometry))


def test_the_vector_has_its_names_and_is_finite_for_the_smallest_part() -> None:
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES)
    for shape in (pelvic_vein(), ball((30, front_y(20, 30) - 4, 20), 1.3)):
        features = largest(alar_cement(), shape)
        vector = feature_vector(features)
        assert vector.shape == (len(FEATURE_NAMES),)
        assert np.isfinite(vector).all()
        assert dict(zip(FEATURE_NAMES, vector, strict=True))["length_mm"] == features.shape.length_mm


def test_a_mirrored_patient_has_the_same_vector() -> None:
    scan = cement_at(alar_cement(), pelvic_vein())
    plain, other = parts_of(scan)[0], parts_of(mirrored(scan))[0]
    near = np.maximum(0.08 * np.abs(feature_vector(plain)), 0.6)
    near[FEATURE_NAMES.index("winding_deg_per_cm")] = 12.0
    assert (np.abs(feature_vector(other) - feature_vector(plain)) <= near).all()
    assert "left" in plain.place.foramen
    assert "right" in other.place.foramen


def test_branches_are_counted_and_a_ball_has_none() -> None:
    y = front_y(20, 20)
    stem = [(20.0, y - 6.0, 30.0), (20.0, y - 8.0, -10.0)]
    twigs = tube([(20, y - 6.5, 18), (35, y - 8, 20)], 2.4), tube([(20, y - 7, 5), (6, y - 8, 2)], 2.4)
    forked = largest(alar_cement(), tube(stem, 2.4), *twigs).profile
    assert (forked.branch_points, forked.ends) == (2, 4)
    single = largest(alar_cement(), tube(stem, 2.4)).profile
    assert (single.branch_points, single.ends) == (0, 2)
    assert largest(alar_cement(), FRONT).profile.branch_points == 0


def test_a_winding_course_winds_more_than_a_straight_one() -> None:
    winding = largest(alar_cement(), pelvic_vein(bend=5.0)).profile.winding_deg_per_cm
    straight = largest(alar_cement(), pelvic_vein(bend=0.0)).profile.winding_deg_per_cm
    assert winding > straight + 10.0


def test_a_funnel_tapers_towards_its_thin_end() -> None:
    x, z = 30.0, 10.0
    y = front_y(z, x)
    drops = [ball((x, y - d, z), 1.2 + 0.22 * d) for d in np.arange(0.0, 16.0, 1.0)]
    wide_outside = largest(alar_cement(), *drops).profile
    assert wide_outside.taper > 0.3
    assert wide_outside.thin_mm < wide_outside.thick_mm


def test_contact_is_the_area_where_a_leak_leaves_the_bone() -> None:
    y = front_y(0.0, 32.0)
    neck = tube([(32.0, y + 8.0, 0.0), (32.0, y - 9.0, 0.0)], 6.0)
    # Cut across by the cortex, a rod of 6 mm has 28 mm²; the faces of its slanted end have at most 1.7 times that.
    assert 20.0 < largest(neck).place.contact_mm2 < 50.0
    assert largest(alar_cement(), FRONT).place.contact_mm2 == 0.0


def test_something_as_dense_across_the_midline_is_seen() -> None:
    # With its root in the bone, or something paired is no leak at all.
    root = ball((30.0, front_y(20, 30) + 1.5, 20.0), 4.5)
    scan = cement_at(alar_cement(), root, FRONT, margin_mm=75.0)
    twin = ball((-30.0, front_y(20, 30) - 8.0, 21.0), 5.0)
    assert parts_of(scan)[0].place.mirrored_share == 0.0
    assert parts_of(painted(scan, twin, hu=1900))[0].place.mirrored_share > 0.9
    assert parts_of(painted(scan, twin, hu=300))[0].place.mirrored_share == 0.0
    # Cement put into both alae is no counterpart of a leak before one of them.
    both = cement_at(alar_cement(), alar_cement(-1), ball((36.0, front_y(20, 36) - 4.0, 20.0), 4.0))
    assert parts_of(both)[0].place.mirrored_share < 0.2


def test_bone_as_dense_at_the_same_place_across_the_midline_is_a_twin() -> None:
    leak = ball((20.0, front_y(20, 20) - 3.0, 20.0), 4.0)
    scan = cement_at(alar_cement(), leak, margin_mm=75.0)
    within = ball((-20.0, front_y(20, 20) - 1.0, 20.0), 4.0)
    assert parts_of(scan)[0].place.twin_share == 0.0
    assert parts_of(painted(scan, within, hu=2100))[0].place.twin_share > 0.8
    assert parts_of(painted(scan, within, hu=1500))[0].place.twin_share == 0.0


def test_density_and_certainty_are_those_of_the_part() -> None:
    scan = cement_at(alar_cement(), FRONT)
    per_cent = np.full(scan.cement.labels.shape, 40, dtype=np.uint8)
    per_cent[scan.cement.labels > 0] = 80
    part = parts_of(replace(painted(scan, FRONT, hu=1100), certainty=per_cent))[0]
    assert part.density.mean_hu == pytest.approx(1100.0)
    assert part.density.relative == pytest.approx(0.5)
    assert part.certainty.mean == pytest.approx(0.8)
    assert part.certainty.highest == pytest.approx(0.8)
    assert part.certainty.sure_share == 1.0
    assert parts_of(scan)[0].certainty.mean == 1.0


def test_neighbours_are_other_parts_within_five_millimetres() -> None:
    near = ball((30.0, front_y(10, 30) - 6.0, 10.0), 4.0)
    far = ball((-20.0, front_y(0, 20) - 6.0, -5.0), 3.0)
    assert [part.place.neighbours for part in parts_of(cement_at(alar_cement(), FRONT, near, far))] == [1, 1, 0]


def test_distances_are_those_of_the_phantom() -> None:
    place = largest(alar_cement(), ball((0.0, front_y(15) - 8.0, 15.0), 4.0)).place
    assert place.anterior_mm == pytest.approx(4.0, abs=1.5)
    assert 15.0 < place.canal_mm < 30.0
    assert place.skin_mm > 100.0
