"""The command line as a person meets it: exit codes, one line when a call is wrong, pages and tables when it is not."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
from skimage.measure import marching_cubes

from sacroleak.cli.demo import compare
from sacroleak.cli.engine import EngineChoice, open_engine
from sacroleak.cli.main import main
from sacroleak.cli.score import run_plan
from sacroleak.core.nifti_write import write_volume
from sacroleak.core.structures import Site
from sacroleak.core.volume import LabelMap, Volume
from sacroleak.models.bundle import BundleDraft, IntensityWindow, NetworkDraft, load_bundle, write_bundle
from sacroleak.training.labelled_ct import TOTALSEGMENTATOR_V2
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.procedural import procedural_pelvis

PHANTOM = Path(__file__).resolve().parent.parent / "inference/phantom.py"
NAME = "sacroleak_test_phantom"
HERE = ("--workers", "0")
"""Score in the process of the test, where the networks are replaced."""


@pytest.fixture(scope="session")
def phantom() -> ModuleType:
    if NAME not in sys.modules:
        spec = spec_from_file_location(NAME, PHANTOM)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[NAME] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[NAME])
    return sys.modules[NAME]


@pytest.fixture
def bundle(tmp_path: Path, phantom: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release whose networks are replaced by the segmenter that knows the phantom."""
    monkeypatch.setattr("sacroleak.models.networks.load_segmenter",
                        lambda bundle, threads, effort, device: phantom.KnowingSegmenter())
    described = {key: NetworkDraft(file=f"{key}.onnx", spacing_mm=(2, 2, 2), tile=(64, 64, 64), outputs=["sacrum"])
                 for key in ("coarse", "fine")}
    draft = BundleDraft(name="known", version="1", created=datetime(2026, 1, 1, tzinfo=UTC), networks=described,
                        intensity=(IntensityWindow(low_hu=-1000, high_hu=3000),), training={}, training_data=[])
    return write_bundle(tmp_path / "released", draft, networks={"coarse": b"c", "fine": b"f"}, card="# Known card\n",
                        licences="CC0").folder


def test_a_run_without_refusals_is_0_and_tells_each_scan(tmp_path: Path, phantom: ModuleType, bundle: Path,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    scan = phantom.write_scan(tmp_path / "a.nii.gz", phantom.ball(phantom.IN_ALA), phantom.ball(phantom.IN_FRONT))
    out = tmp_path / "out"
    assert main(["score", str(scan), "--out", str(out), "--bundle", str(bundle), *HERE]) == 0
    shown = capsys.readouterr()
    assert "leak: anterior_sacral_space" in shown.out
    assert "1 scored, 0 kept from an earlier run, 0 refused" in shown.out
    assert shown.err == ""
    (case,) = (out / "cases").iterdir()
    assert sorted(p.name for p in case.iterdir()) == ["cement.nii.gz", "labels.nii.gz", "leaks.nii.gz", "preview.png",
                                                      "report.html", "report.json"]
    assert sorted(p.name for p in out.iterdir()) == ["cases", "failures.csv", "index.html", "leaks.csv", "results.csv",
                                                     "results.parquet", "run.json"]
    assert main(["score", str(scan), "--out", str(out), "--bundle", str(bundle), *HERE]) == 0
    assert "kept from an earlier run" in capsys.readouterr().out


def test_a_list_on_standard_input_is_read_as_inputs(tmp_path: Path, phantom: ModuleType, bundle: Path,
                                                    monkeypatch: pytest.MonkeyPatch,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    scans = [phantom.write_scan(tmp_path / f"{n} of two.nii.gz", bone_hu=phantom.BARE_HU, marker=n) for n in (1, 2)]
    monkeypatch.setattr(sys, "stdin", StringIO(f"{scans[0]}\n\n{scans[1]}\n{tmp_path}/gone\n"))
    assert main(["score", "-", "--out", str(tmp_path / "out"), "--bundle", str(bundle), "--mode", "report",
                 *HERE]) == 1
    shown = capsys.readouterr()
    assert "2 scored" in shown.out
    assert "input 3 does not exist" in shown.err


def test_another_model_scores_again_and_says_so(tmp_path: Path, phantom: ModuleType, bundle: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    scan = phantom.write_scan(tmp_path / "a.nii.gz", phantom.ball(phantom.IN_ALA))
    call = ["score", str(scan), "--out", str(tmp_path / "out"), "--mode", "report", *HERE, "--bundle"]
    assert main([*call, str(bundle)]) == 0
    draft = load_bundle(bundle).index.model_copy(update={"version": "2"})
    other = write_bundle(tmp_path / "others", BundleDraft(**draft.model_dump(exclude={"format", "networks", "files"}),
                         networks={key: NetworkDraft(**entry.model_dump(exclude={"sha256"}))
                                   for key, entry in draft.networks.items()}),
                         networks={"coarse": b"c", "fine": b"f"}, card="# Known card\n", licences="CC0").folder
    assert main([*call, str(other)]) == 0
    shown = capsys.readouterr().out
    assert "(scored again: another model)" in shown
    assert "1 of them scored again: another model than that of the result that was there" in shown


def test_processes_of_their_own_score_unless_told_otherwise(tmp_path: Path, phantom: ModuleType, bundle: Path,
                                                            monkeypatch: pytest.MonkeyPatch,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / f"{NAME}.py").symlink_to(PHANTOM)  # the process that is started finds the phantom there
    monkeypatch.syspath_prepend(modules)
    monkeypatch.setattr("sacroleak.inference.released.ReleasedSegmenter",
                        lambda bundle, threads, effort, device: phantom.KnowingSegmenter())
    scans = [str(phantom.write_scan(tmp_path / f"{n}.nii.gz", bone_hu=phantom.BARE_HU, marker=n)) for n in (1, 2)]
    out = tmp_path / "out"
    assert main(["score", *scans, "--out", str(out), "--bundle", str(bundle), "--mode", "report"]) == 0
    assert "2 scored" in capsys.readouterr().out
    assert json.loads((out / "run.json").read_text())["device"]["workers"] >= 1


def test_a_refused_scan_is_1_with_one_line_on_stderr(tmp_path: Path, phantom: ModuleType, bundle: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    good = phantom.write_scan(tmp_path / "a.nii.gz")
    bad = tmp_path / "b.nii.gz"
    bad.write_bytes(b"no image")
    assert main(["score", str(bad), str(good), "--out", str(tmp_path / "out"), "--bundle", str(bundle), "--mode",
                 "report", *HERE]) == 1
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "refused" in shown.err
    assert str(bad) in shown.err
    assert "1 scored" in shown.out
    assert [p.name for p in (tmp_path / "out/cases").glob("*/*.nii.gz")] == []


@pytest.mark.parametrize(("arguments", "mend"), [
    (["score"], "--help"),
    (["score", "{scan}"], "--out"),
    (["scor"], "Did you mean"),
    (["score", "{scan}", "--out", "{tmp}/o", "--unknown"], "--help"),
    (["score", "{tmp}/none", "--out", "{tmp}/o"], "give DICOM folders"),
    (["score", "{scan}", "--out", "{scan}"], "give a folder"),
    (["score", "{tmp}", "--out", "{tmp}/o"], "give a folder outside it"),
    (["score", "{scan}", "--out", "{tmp}/o", "--bundle", "{tmp}/none"], "give the folder of a released model"),
    (["score", "{scan}", "--out", "{tmp}/o", "--bundle", "{bundle}", "--mode", "fast"], "wanted one of full, report"),
    (["score", "{scan}", "--out", "{tmp}/o", "--bundle", "{bundle}", "--threads", "0"], "--help"),
    (["score", "{scan}", "--out", "{tmp}/o", "--device", "cuda:99"], "leave --device out"),
    (["score", "{tmp}/wrong.csv", "--out", "{tmp}/o", "--bundle", "{bundle}"], "wanted case_id, path"),
])
def test_a_wrong_call_is_2_in_one_line_that_says_how_to_mend_it(
    arguments: list[str], mend: str, tmp_path: Path, phantom: ModuleType, bundle: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"tmp": tmp_path, "scan": phantom.write_scan(tmp_path / "a.nii.gz"), "bundle": bundle}
    (tmp_path / "wrong.csv").write_text("name\nx\n")
    assert main([argument.format(**places) for argument in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("sacroleak: ")
    assert mend in shown.err
    assert "Traceback" not in shown.err


def test_an_interrupt_is_130_without_a_traceback(tmp_path: Path, phantom: ModuleType, bundle: Path,
                                                 monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom.KnowingSegmenter, "segment", stop)
    scan = phantom.write_scan(tmp_path / "a.nii.gz")
    assert main(["score", str(scan), "--out", str(tmp_path / "out"), "--bundle", str(bundle), *HERE]) == 130
    assert capsys.readouterr().err == ""
    assert (tmp_path / "out/run.json").is_file()
    assert list((tmp_path / "out/cases").iterdir()) == []


def test_no_preview_writes_none(tmp_path: Path, phantom: ModuleType, bundle: Path) -> None:
    scan = phantom.write_scan(tmp_path / "a.nii.gz")
    assert main(["score", str(scan), "--out", str(tmp_path / "o"), "--bundle", str(bundle), "--no-preview",
                 *HERE]) == 0
    assert list((tmp_path / "o").rglob("preview.png")) == []
    assert len(list((tmp_path / "o").rglob("labels.nii.gz"))) == 1


def test_a_model_is_shown_only_when_it_is_whole(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "show", str(bundle)]) == 0
    assert "# Known card" in capsys.readouterr().out
    (bundle / "fine.onnx").write_bytes(b"other")
    assert main(["model", "show", str(bundle)]) == 2
    assert "fine.onnx is damaged" in capsys.readouterr().err


@dataclass(frozen=True, kw_only=True)
class Made:
    """A labelled scan of the phantom."""

    name: str
    ct: Volume
    anatomy: LabelMap
    cement: LabelMap
    leaks: LabelMap
    leaked_ml: Mapping[Site, float]
    cement_ml: float


def made(phantom: ModuleType, name: str, *places: object, leaked: Mapping[Site, float] | None = None) -> Made:
    ct = phantom.scan(phantom.grid(), *(phantom.ball(place) for place in places))
    cement = ct.hu >= phantom.CEMENT_HU
    return Made(name=name, ct=ct, cement=LabelMap(labels=cement, geometry=ct.geometry), leaked_ml=leaked or {},
                anatomy=LabelMap(labels=phantom.structures_at(phantom.places(ct.geometry)), geometry=ct.geometry),
                leaks=LabelMap(labels=cement.astype(np.uint8), geometry=ct.geometry),
                cement_ml=float(cement.sum()) * ct.geometry.voxel_ml)


def test_the_demonstration_compares_each_scan_with_its_truth(tmp_path: Path, phantom: ModuleType, bundle: Path) -> None:
    scans = [made(phantom, "none"), made(phantom, "inside", phantom.IN_ALA),
             made(phantom, "front", phantom.IN_ALA, phantom.IN_FRONT, leaked={Site.ANTERIOR_SACRAL_SPACE: 0.9}),
             made(phantom, "wrongly-called-clear", phantom.IN_ALA, phantom.IN_FRONT)]
    choice = EngineChoice(bundle=bundle, mode=None, preview=True, debug=True)
    engine, facts = open_engine(choice, [])
    rows, summary = compare(scans, tmp_path / "demo", engine, run_plan(choice, facts=facts))
    assert [(row.name, row.sites_agree) for row in rows] == [("none", True), ("inside", True), ("front", True),
                                                             ("wrongly-called-clear", False)]
    assert summary.failures == []
    page = (tmp_path / "demo/demo.html").read_text()
    for row in rows:
        assert row.picture is not None
        assert f'src="{row.picture}"' in page
        assert (tmp_path / "demo" / row.picture).is_file()
    assert "synthetic" in page


@pytest.fixture
def bones(tmp_path: Path) -> Path:
    """A folder with one coarse procedural pelvis."""
    folder = tmp_path / "bones"
    folder.mkdir()
    procedural_pelvis(np.random.default_rng(3), spacing_mm=4.0).save(folder / "one.npz")
    return folder


def test_a_simulated_cohort_is_told_written_kept_and_can_be_scored(
    tmp_path: Path, bones: Path, bundle: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "sim"
    call = ["simulate", "-n", "2", "--seed", "4", "--out", str(out), "--anatomies", str(bones), "--spacing", "4",
            "--fov", "220", "--workers", "1"]
    assert main(call) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "reference-4-0001: " in shown.out
    assert "2 patients made, 0 kept from an earlier run" in shown.out
    with (out / "truth.csv").open(newline="") as file:
        truth = list(csv.DictReader(file))
    assert [(row["case_id"], row["cohort"], row["synthetic"]) for row in truth] == [
        ("reference-4-0000", "reference", "true"), ("reference-4-0001", "reference", "true")]
    assert main(call) == 0
    assert "0 patients made, 2 kept from an earlier run" in capsys.readouterr().out
    main(["score", str(out / "truth.csv"), "--out", str(tmp_path / "out"), "--bundle", str(bundle), "--mode", "report",
          *HERE])
    assert capsys.readouterr().out.count("reference-4-000") == 2


def test_a_cohort_made_for_learning_says_that_its_rates_mean_nothing(
    tmp_path: Path, bones: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "sim"
    assert main(["simulate", "--cohort", "training", "-n", "1", "--out", str(out), "--anatomies",
                 str(bones / "one.npz"), "--spacing", "5", "--fov", "200", "--workers", "1", "--format", "dicom"]) == 0
    assert "its frequencies mean nothing" in capsys.readouterr().out
    with (out / "truth.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["cohort"] == "training"
    assert row["path"] == "training-1-0000/dicom"
    assert len(list((out / row["path"]).glob("*.dcm"))) == 40


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Anatomy:
    """A coarse pelvis; bones read from elsewhere are as coarse, and completed from few others."""
    for module in ("labelled_ct", "mesh_files"):
        monkeypatch.setattr(f"sacroleak.training.{module}.GRID_MM", 4.0)
    monkeypatch.setattr("sacroleak.training.derived.TEMPLATES", 1)
    return procedural_pelvis(np.random.default_rng(3), spacing_mm=4.0)


def test_cement_is_put_into_a_labelled_ct_that_stays_as_it_is_around_it(tmp_path: Path, tiny: Anatomy) -> None:
    folder, out = tmp_path / "ct", tmp_path / "sim"
    folder.mkdir()
    labels = np.zeros(tiny.geometry.shape, dtype=np.uint8)
    for ours, theirs in (("sacrum", "sacrum"), ("hip_left", "hip_left"), ("hip_right", "hip_right"),
                         ("l5", "vertebrae_L5")):
        labels[tiny.fields[ours] < 0] = TOTALSEGMENTATOR_V2[theirs]
    hu = np.where(labels > 0, 300, 40).astype(np.int16)
    write_volume(folder / "ct.nii.gz", Volume(hu=hu, geometry=tiny.geometry))
    write_volume(folder / "labels.nii.gz", Volume(hu=labels.astype(np.int16), geometry=tiny.geometry))
    assert main(["simulate", "-n", "1", "--seed", "6", "--out", str(out), "--anatomies", str(folder),
                 "--workers", "1"]) == 0
    case = out / "reference-6-0000"
    origin = json.loads((case / "truth.json").read_text())["origin"]
    assert (origin["background"], origin["anatomy"]) == ("real", "real-ct")
    before, after, cement = (np.asanyarray(nib.Nifti1Image.from_filename(path).dataobj).astype(int) for path in (
        folder / "ct.nii.gz", case / "ct.nii.gz", case / "cement.nii.gz"))
    assert after.shape == before.shape
    assert (after - before)[cement > 0].mean() > 300
    changed = np.abs(after - before) > 100
    assert 0 < changed.mean() < 0.1


def test_a_cohort_is_made_from_a_folder_of_surfaces(tmp_path: Path, tiny: Anatomy) -> None:
    folder, out = tmp_path / "bones-of-mine", tmp_path / "sim"
    folder.mkdir()
    for name in ("sacrum", "hip_left", "hip_right"):
        points, faces, *_ = marching_cubes(tiny.fields[name].astype(np.float32), 0.0)
        np.savez(folder / f"{name}.npz", vertices=tiny.geometry.to_lps(points), faces=faces.astype(np.int64))
    assert main(["simulate", "-n", "1", "--seed", "2", "--out", str(out), "--anatomies", str(folder), "--spacing", "4",
                 "--fov", "220", "--workers", "1"]) == 0
    truth = json.loads((out / "reference-2-0000" / "truth.json").read_text())
    assert (truth["origin"]["background"], truth["origin"]["anatomy"]) == ("rendered", "surfaces")
    assert truth["cement_ml"]["intraosseous"] > 1.0


@pytest.mark.parametrize(("arguments", "mend"), [
    (["--cohort", "control"], "wanted one of reference, training"),
    (["--format", "png"], "wanted nifti or dicom"),
    (["--anatomies", "{tmp}/none"], "no prepared anatomy"),
    (["--anatomies", "{tmp}/wrong.npz"], "not a prepared anatomy"),
    (["--spacing", "0.1"], "--help"),
])
def test_a_cohort_that_cannot_be_made_is_refused_before_anything_is_written(
    arguments: list[str], mend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    np.savez(tmp_path / "wrong.npz", vertices=np.zeros(3))
    assert main(["simulate", "--out", str(tmp_path / "o"), *(a.format(tmp=tmp_path) for a in arguments)]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert mend in shown.err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(("setting", "value"), [("OPENBLAS_NUM_THREADS", "1"), ("NUMPY_MADVISE_HUGEPAGE", "0")])
def test_products_run_on_one_thread_and_arrays_ask_for_no_huge_pages(setting: str, value: str) -> None:
    """The settings are read when NumPy is loaded, so that must not have happened before."""
    code = f"""
import os, sys
from sacroleak.cli.main import main
os.environ.pop({setting!r}, None)
loaded = "numpy" in sys.modules
main(["--help"])
print(loaded, os.environ[{setting!r}])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == f"False {value}"


def test_scoring_in_a_process_of_its_own_loads_neither_torch_nor_monai(tmp_path: Path, phantom: ModuleType,
                                                                       bundle: Path) -> None:
    scan = phantom.write_scan(tmp_path / "a.nii.gz", phantom.ball(phantom.IN_ALA))
    code = f"""
import importlib.util, sys, types
spec = importlib.util.spec_from_file_location("phantom", {str(PHANTOM)!r})
sys.modules["phantom"] = phantom = importlib.util.module_from_spec(spec)
spec.loader.exec_module(phantom)
sys.modules["sacroleak.models.networks"] = networks = types.ModuleType("networks")
networks.load_segmenter = lambda bundle, threads, effort, device: phantom.KnowingSegmenter()
from sacroleak.cli.main import main
from sacroleak.cli.score import run_plan
code = main(["score", {str(scan)!r}, "--out", {str(tmp_path / "out")!r}, "--bundle", {str(bundle)!r}, "--workers", "0"])
print("loaded", *[name for name in ("torch", "monai", "sklearn", "matplotlib", "mlflow") if name in sys.modules])
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded"
