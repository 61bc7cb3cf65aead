"""A labelled CT becomes an anatomy where its bones lie, whatever way the scan is stored and its labels are numbered."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sacroleak.core.errors import GeometryError, InputError
from sacroleak.core.geometry import Geometry
from sacroleak.core.volume import Volume
from sacroleak.training import derived, labelled_ct
from sacroleak.training.labelled_ct import TOTALSEGMENTATOR_V2, from_labels, read_labelled_ct, read_names
from sacroleak.training.simulation.anatomy import Anatomy

OURS = {"sacrum": "sacrum", "hip_left": "hip_left", "hip_right": "hip_right", "l5": "vertebrae_L5",
        "l4": "vertebrae_L4", "femur_left": "femur_left"}


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled_ct, "GRID_MM", 3.0)
    monkeypatch.setattr(derived, "TEMPLATES", 1)


def scan(anatomy: Anatomy, *, fill_canal: bool = False) -> tuple[Volume, np.ndarray]:
    """HU and TotalSegmentator's numbers on the anatomy's own grid; S1 split off the sacrum, as v2 does."""
    labels = np.zeros(anatomy.geometry.shape, dtype=np.uint8)
    for name, theirs in OURS.items():
        labels[anatomy.fields[name] < 0] = TOTALSEGMENTATOR_V2[theirs]
    hu = np.where(labels > 0, 350, 30).astype(np.int16)
    if fill_canal:
        labels[anatomy.fields["canal"] < 0] = TOTALSEGMENTATOR_V2["sacrum"]
    index = np.argwhere(labels == TOTALSEGMENTATOR_V2["sacrum"])
    upper = index[index[:, 2] > index[:, 2].max() - 9]
    labels[tuple(upper.T)] = TOTALSEGMENTATOR_V2["vertebrae_S1"]
    return Volume(hu=hu, geometry=anatomy.geometry), labels


def overlap(anatomy: Anatomy, known: Anatomy, name: str) -> float:
    """Dice of one structure, read on the known anatomy's grid."""
    index = np.argwhere(np.ones(known.geometry.shape, dtype=bool))
    own = np.rint(anatomy.geometry.to_index(known.geometry.to_lps(index))).astype(int)
    inside = ((own >= 0) & (own < anatomy.geometry.shape)).all(axis=1)
    mine = np.zeros(len(index), dtype=bool)
    mine[inside] = (anatomy.fields[name] < 0)[tuple(own[inside].T)]
    theirs = (known.fields[name] < 0).reshape(-1)
    return float(2 * (mine & theirs).sum() / (mine.sum() + theirs.sum()))


@pytest.mark.parametrize("fill_canal", [False, True])
def test_bones_and_canal_lie_where_they_were(pelvis: Anatomy, fill_canal: bool) -> None:
    ct, labels = scan(pelvis, fill_canal=fill_canal)
    anatomy = from_labels(ct, labels, TOTALSEGMENTATOR_V2, name="real-1", source="a test")
    for name in ("sacrum", "hip_left", "hip_right", "l5"):
        assert overlap(anatomy, pelvis, name) > 0.85, name
    assert overlap(anatomy, pelvis, "canal") > 0.6
    assert np.max(sum((field < 0).astype(np.uint8) for field in anatomy.fields.values())) == 1
    assert anatomy.background is not None
    for name in ("ala_left", "s1_endplate_centre"):
        assert np.linalg.norm(anatomy.landmarks[name] - pelvis.landmarks[name]) < 15, name


def test_the_way_a_scan_is_stored_changes_nothing(pelvis: Anatomy, tmp_path: Path) -> None:
    ct, labels = scan(pelvis)
    ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    stored = {"plain": (ct.hu, labels, np.eye(4))}
    flip = np.eye(4)
    flip[0, 0], flip[0, 3] = -1, ct.geometry.shape[0] - 1
    turn = np.eye(4)[[2, 1, 0, 3]]
    stored["turned"] = (ct.hu[::-1].transpose(2, 1, 0), labels[::-1].transpose(2, 1, 0), flip @ turn)
    made = {}
    for name, (hu, numbers, step) in stored.items():
        for file, values in (("ct", hu), ("labels", numbers.astype(np.int16))):
            image = nib.Nifti1Image(np.ascontiguousarray(values), ras @ ct.geometry.affine @ step)
            image.header.set_xyzt_units("mm")
            nib.save(image, tmp_path / f"{name}_{file}.nii.gz")
        made[name] = read_labelled_ct(tmp_path / f"{name}_ct.nii.gz", tmp_path / f"{name}_labels.nii.gz", name=name,
                                      source="a test")
    for field, steps in made["plain"].fields.items():
        assert np.array_equal(steps, made["turned"].fields[field]), field
    first, second = made["plain"].background, made["turned"].background
    assert first is not None
    assert second is not None
    assert np.array_equal(first.hu, second.hu)
    first.geometry.require_same_grid(second.geometry, "backgrounds")


def test_a_table_of_names_is_followed(pelvis: Anatomy, tmp_path: Path) -> None:
    ct, labels = scan(pelvis)
    table = tmp_path / "labels.tsv"
    table.write_text("number\tname\n" + "".join(f"{n + 100}\t{name}\n" for name, n in TOTALSEGMENTATOR_V2.items()))
    names = read_names(table)
    assert names["sacrum"] == 125
    other = from_labels(ct, np.where(labels > 0, labels + 100, 0), names, name="a", source="a test")
    assert (other.fields["sacrum"] < 0).any()
    table.write_text("1\tsacrum\nfour\tvertebrae_L5\n")
    with pytest.raises(InputError, match="line 2 is not a number and a name"):
        read_names(table)


def test_a_missing_bone_is_named(pelvis: Anatomy) -> None:
    ct, labels = scan(pelvis)
    labels[labels == TOTALSEGMENTATOR_V2["vertebrae_L5"]] = 0
    with pytest.raises(InputError, match="the labels hold no vertebrae_L5"):
        from_labels(ct, labels, TOTALSEGMENTATOR_V2, name="a", source="a test")


def test_exchanged_sides_are_refused(pelvis: Anatomy) -> None:
    ct, labels = scan(pelvis)
    numbers = TOTALSEGMENTATOR_V2 | {"hip_left": 78, "hip_right": 77}
    with pytest.raises(InputError, match="left and right are exchanged"):
        from_labels(ct, labels, numbers, name="a", source="a test")


def test_labels_that_are_no_sacrum_are_refused(pelvis: Anatomy) -> None:
    ct, labels = scan(pelvis)
    labels[np.isin(labels, (25, 26))] = 0
    middle = np.array(labels.shape) // 2
    labels[middle[0] - 25:middle[0] + 25, middle[1] - 2:middle[1] + 2, middle[2] - 2:middle[2] + 2] = 25
    with pytest.raises(InputError, match=r"sacrum: \d+ mL, wanted 60 to 600 mL"):
        from_labels(ct, labels, TOTALSEGMENTATOR_V2, name="a", source="a test")


def test_slanted_scans_and_foreign_grids_are_refused(pelvis: Anatomy, tmp_path: Path) -> None:
    ct, labels = scan(pelvis)
    turn = np.eye(4)
    turn[:2, :2] = [[0.9, -0.436], [0.436, 0.9]]
    slanted = Volume(hu=ct.hu, geometry=Geometry(affine=turn @ ct.geometry.affine, shape=ct.geometry.shape))
    with pytest.raises(InputError, match="slanted"):
        from_labels(slanted, labels, TOTALSEGMENTATOR_V2, name="a", source="a test")
    for file, shift in (("ct", 0.0), ("labels", 5.0)):
        affine = np.diag([-3.0, -3.0, 3.0, 1.0])
        affine[0, 3] = shift
        nib.save(nib.Nifti1Image(labels.astype(np.int16), affine), tmp_path / f"{file}.nii.gz")
    with pytest.raises(GeometryError, match=r"labels: corners are 5\.00 mm apart"):
        read_labelled_ct(tmp_path / "ct.nii.gz", tmp_path / "labels.nii.gz", name="a", source="a test")
