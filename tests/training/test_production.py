"""A cohort on disk: same seed, same bytes, whatever the workers; a run that was ended goes on; the truth is whole."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sacroleak.core.manifest import read_manifest
from sacroleak.core.read import read_one
from sacroleak.core.structures import Structure
from sacroleak.training.simulation import production
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.cohort import shipped_cohorts
from sacroleak.training.simulation.plan import LeakPlan, Plan
from sacroleak.training.simulation.production import Finished, Run, digest, kept_truth, produce
from sacroleak.training.simulation.truth import Truth, missing_leaks, plain

FILES = ["anatomy.nii.gz", "cement.nii.gz", "ct.nii.gz", "leaks.nii.gz", "metal.nii.gz", "truth.json"]


@pytest.fixture(scope="module")
def bones(pelvis: Anatomy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bones") / "pelvis.npz"
    pelvis.save(path)
    return path


@pytest.fixture(scope="module")
def run(bones: Path) -> Run:
    return Run(cohort="training", seed=7, anatomies=(bones,), spacing_mm=4.0, fov_mm=220, config=shipped_cohorts())


@pytest.fixture(scope="module")
def made(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients by one process."""
    out = tmp_path_factory.mktemp("cohort")
    list(produce(run, 4, out))
    return out


def labels_in(path: Path) -> np.ndarray:
    return np.asanyarray(nib.Nifti1Image.from_filename(path).dataobj)


def bytes_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def test_any_number_of_workers_writes_the_same_bytes(run: Run, made: Path, tmp_path: Path) -> None:
    finished = list(produce(run, 4, tmp_path, workers=2))
    assert sorted(patient.number for patient in finished) == [0, 1, 2, 3]
    assert bytes_of(tmp_path) == bytes_of(made)
    assert len(bytes_of(made)) == 4 * len(FILES)


def test_a_patient_depends_on_seed_and_number_alone(run: Run, made: Path, tmp_path: Path) -> None:
    (patient,) = produce(run.model_copy(update={"seed": 8}), 1, tmp_path)
    other = Truth.model_validate_json((made / run.case_id(0) / "truth.json").read_bytes())
    assert patient.truth.plan != other.plan
    case, truth = production.make(run, 2)
    kept = nib.Nifti1Image.from_filename(made / run.case_id(2) / "ct.nii.gz")
    assert (np.asanyarray(kept.dataobj) == case.ct.hu).all()
    assert truth == kept_truth(run, 2, made)


def test_a_run_that_was_ended_goes_on_and_mends_what_is_not_its_own(run: Run, made: Path, tmp_path: Path) -> None:
    list(produce(run, 2, tmp_path))
    (tmp_path / run.case_id(1) / "truth.json").write_text("{")
    (tmp_path / ".part-old").mkdir()
    finished = {patient.number: patient for patient in produce(run, 3, tmp_path)}
    assert [finished[n].kept for n in range(3)] == [True, False, False]
    assert bytes_of(tmp_path) == {name: value for name, value in bytes_of(made).items()
                                  if not name.startswith(run.case_id(3))}


@pytest.mark.parametrize("change", [{"seed": 8}, {"cohort": "reference"}, {"spacing_mm": 5.0}, {"fov_mm": 230.0},
                                    {"format": "dicom"}, {"anatomies": ()}])
def test_everything_that_decides_a_patient_is_in_the_digest(run: Run, change: dict[str, object]) -> None:
    assert digest(run, 0) != digest(run.model_copy(update=change), 0)
    assert digest(run, 0) != digest(run, 1)
    assert digest(run, 0) == digest(run.model_copy(), 0)


def test_a_change_inside_the_cohort_is_noticed(run: Run) -> None:
    cohort = run.drawn_from.model_copy(update={"leak": 0.5})
    config = run.config.model_copy(update={"cohorts": {**run.config.cohorts, "training": cohort}})
    assert digest(run.model_copy(update={"config": config}), 0) != digest(run, 0)


def test_the_truth_says_what_the_maps_show(run: Run, made: Path) -> None:
    leaks = 0
    for number in range(4):
        folder = made / run.case_id(number)
        assert sorted(path.name for path in folder.iterdir()) == FILES
        truth = kept_truth(run, number, made)
        assert truth is not None
        anatomy, cement, numbers, metal = (labels_in(folder / f"{name}.nii.gz")
                                           for name in ("anatomy", "cement", "leaks", "metal"))
        ml = float(np.prod(truth.spacing_mm)) / 1000
        assert truth.shape == anatomy.shape
        assert truth.cement_ml.intraosseous == pytest.approx(
            ((cement > 0) & (anatomy == Structure.SACRUM)).sum() * ml, abs=1e-4)
        assert truth.cement_ml.leaked == pytest.approx((numbers > 0).sum() * ml, abs=1e-4)
        assert {leak.number for leak in truth.leaks} == set(np.unique(numbers)) - {0}
        assert sum(leak.volume_ml for leak in truth.leaks) == pytest.approx(truth.cement_ml.leaked, abs=1e-4)
        assert len(truth.leaks) + len(truth.missing) == len(truth.plan.leaks)
        assert not (metal.astype(bool) & (cement > 0)).any()
        leaks += len(truth.leaks)
    assert leaks > 0


def test_the_file_names_its_cohort_its_bones_and_that_it_is_synthetic(run: Run, made: Path) -> None:
    content = json.loads((made / run.case_id(0) / "truth.json").read_text())
    assert content["synthetic"] is True
    assert content["format"] == 1
    assert content["origin"]["cohort"] == "training"
    assert content["origin"]["for_rates"] is False
    assert content["origin"]["background"] == "rendered"
    assert set(content["plan"]) == {field.name for field in fields(Plan)}


def test_dicom_holds_the_same_scan_as_nifti(run: Run, made: Path, tmp_path: Path) -> None:
    list(produce(run.model_copy(update={"format": "dicom"}), 1, tmp_path))
    folder = tmp_path / run.case_id(0)
    assert not (folder / "ct.nii.gz").exists()
    nifti, dicom = read_one(made / run.case_id(0) / "ct.nii.gz"), read_one(folder / "dicom")
    places = nifti.geometry.to_lps(np.argwhere(np.ones(nifti.hu.shape, dtype=bool))[::101])
    index = np.rint(dicom.geometry.to_index(places)).astype(int)
    assert np.abs(dicom.geometry.to_lps(index) - places).max() < 1e-3
    assert (dicom.hu[tuple(index.T)] == nifti.hu.ravel()[::101]).all()
    list(produce(run.model_copy(update={"format": "dicom"}), 1, tmp_path / "again"))
    assert bytes_of(folder / "dicom") == bytes_of(tmp_path / "again" / run.case_id(0) / "dicom")


def test_the_folder_of_each_patient_is_a_valid_case_id(run: Run, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"case_id,path\n{run.case_id(12)},x\n")
    assert read_manifest(tmp_path / "list.csv")[0].case_id == "training-7-0012"


def test_finished_is_what_a_worker_sends_back(run: Run, made: Path) -> None:
    (patient, *_) = produce(run, 1, made)
    assert isinstance(patient, Finished)
    assert patient.kept


def test_each_missing_leak_is_named_once() -> None:
    vein, disc = LeakPlan(mechanism="foraminal_vein"), LeakPlan(mechanism="disc")
    assert missing_leaks((vein, disc), ["disc"]) == (vein,)
    assert missing_leaks((disc, disc), ["disc"]) == (disc,)
    assert missing_leaks((disc,), ["disc", "foramen"]) == ()


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(-5, 5), st.text(max_size=3)),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner)))
def test_plain_values_survive_json(value: object) -> None:
    made = plain(value)
    assert json.loads(json.dumps(made)) == made


def test_arrays_and_words_become_plain_and_other_things_are_refused() -> None:
    given = {"at": np.array([1.5, 2]), "what": Structure.L5, "n": np.int64(3)}
    assert plain(given) == {"at": [1.5, 2.0], "what": 5, "n": 3}
    assert plain(float("inf")) is None
    with pytest.raises(TypeError, match="object"):
        plain(object())
