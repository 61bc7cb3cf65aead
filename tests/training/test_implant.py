"""Cement put into a scan: its volume, its place, its edge, on any grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sacroleak.core.errors import InputError
from sacroleak.core.geometry import Geometry
from sacroleak.core.structures import Side
from sacroleak.core.volume import Volume
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.implant import Blob, Place, blob_at, implant

BLOB = Blob(centre_lps_mm=(1.3, -2.1, 0.4), radii_mm=(8.0, 6.0, 7.0), hu=2000.0)


def empty_scan(spacing_mm: tuple[float, float, float], flip: int = 1) -> Volume:
    shape = tuple(round(60 / s) for s in spacing_mm)
    affine = np.diag([*(s * f for s, f in zip(spacing_mm, (flip, flip, 1), strict=True)), 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    geometry = Geometry(affine=affine, shape=(shape[0], shape[1], shape[2]))
    return Volume(hu=np.zeros(geometry.shape, dtype=np.int16), geometry=geometry)


@settings(max_examples=12)
@given(st.tuples(*[st.sampled_from([0.7, 1.0, 2.0, 3.0])] * 3), st.sampled_from([-1, 1]))
def test_the_density_added_holds_the_volume_and_the_place_at_any_voxel_size(
    spacing: tuple[float, float, float], flip: int,
) -> None:
    scan = empty_scan(spacing, flip)
    hu = implant(scan, [BLOB]).ct.hu.astype(np.float64)
    assert hu.sum() / BLOB.hu * scan.geometry.voxel_ml == pytest.approx(BLOB.volume_ml, rel=0.03)
    places = scan.geometry.to_lps(np.argwhere(hu > 0))
    centre = np.average(places, axis=0, weights=hu[hu > 0])
    assert np.abs(centre - BLOB.centre_lps_mm).max() < 0.1


def test_edges_are_mixed_and_denser_tissue_is_never_thinned() -> None:
    scan = empty_scan((3.0, 3.0, 3.0))
    mixed = implant(scan, [BLOB]).ct.hu
    assert ((mixed > 0) & (mixed < BLOB.hu)).any()
    metal = Volume(hu=np.full_like(scan.hu, 3000), geometry=scan.geometry)
    assert (implant(metal, [BLOB]).ct.hu == 3000).all()


def test_the_label_is_what_is_cement_by_more_than_half() -> None:
    done = implant(empty_scan((1.0, 1.0, 1.0)), [BLOB])
    assert (np.asarray(done.cement.labels, dtype=bool) == (done.ct.hu > BLOB.hu / 2)).all()


def sacrum_of(anatomy: Anatomy) -> np.ndarray:
    return np.asarray(anatomy.fields["sacrum"] < 0)


@pytest.mark.parametrize("side", [Side.LEFT, Side.RIGHT])
@pytest.mark.parametrize("place", ["ala", "front"])
def test_places_lie_where_their_names_say(pelvis: Anatomy, place: Place, side: Side) -> None:
    sacrum, grid = sacrum_of(pelvis), pelvis.geometry
    blob = blob_at(place, side, sacrum, grid, radius_mm=6.0)
    middle = float(np.median(grid.to_lps(np.argwhere(sacrum))[:, 0]))
    assert (blob.centre_lps_mm[0] > middle) == (side is Side.LEFT)
    field = pelvis.fields["sacrum"]
    at_centre = field[tuple(np.rint(grid.to_index(blob.centre_lps_mm)).astype(int))] * 0.1
    assert (at_centre < -2.0) if place == "ala" else (at_centre > 1.0)


def test_a_flipped_grid_changes_no_place(pelvis: Anatomy) -> None:
    sacrum, grid = sacrum_of(pelvis), pelvis.geometry
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_lps((grid.shape[0] - 1, 0, 0))
    affine[:3, 0] *= -1
    turned = Geometry(affine=affine, shape=grid.shape)
    one, other = (blob_at("front", Side.LEFT, mask, g, radius_mm=6.0)
                  for mask, g in ((sacrum, grid), (sacrum[::-1], turned)))
    assert np.abs(np.subtract(one.centre_lps_mm, other.centre_lps_mm)).max() < 1e-6


def test_without_a_sacrum_or_a_side_there_is_no_place(pelvis: Anatomy) -> None:
    nothing = np.zeros(pelvis.geometry.shape, dtype=bool)
    with pytest.raises(InputError, match="no sacrum"):
        blob_at("ala", Side.LEFT, nothing, pelvis.geometry, radius_mm=5.0)
    with pytest.raises(InputError, match="left or the right"):
        blob_at("ala", Side.MIDLINE, sacrum_of(pelvis), pelvis.geometry, radius_mm=5.0)


