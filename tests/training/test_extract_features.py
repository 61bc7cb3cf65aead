"""The stage: parts as a segmenter sees them and as they truly are; kept segmentations; scans with lists of sites."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from sacroleak.core.errors import ManifestError, NotAssessableError
from sacroleak.core.nifti_write import write_volume
from sacroleak.core.structures import Site
from sacroleak.core.volume import Volume
from sacroleak.models.bundle import Bundle, BundleDraft, IntensityWindow, NetworkDraft, write_bundle
from sacroleak.models.classifier import LABELS
from sacroleak.models.segmentation import Segmentation
from sacroleak.training import extract_features
from sacroleak.training.extract_features import PREDICTED, TRUE, ExtractConfig, Places, listed_rows
from sacroleak.training.leak_cases import LeakCasesConfig, kept_case, orders
from sacroleak.training.part_table import load_table
from sacroleak.training.seen_cases import true_segmentation
from sacroleak.training.simulation.case import Case

CONFIG = ExtractConfig(match_share=0.1, cases=(LeakCasesConfig(
    count=3, seed=1, new_procedural=0.0, far=0.0, near_miss_without_leak=0.0, fov_mm=(170.0, 171.0),
    pixel_mm=(2.0, 2.1), slices_mm=(3.0,)),))


class Perfect:
    """Sees the truth of the scans it was told of; refuses others."""

    def __init__(self, cases: list[Case]) -> None:
        self.cases, self.asked = cases, 0

    def segment(self, ct: Volume) -> Segmentation:
        """The truth."""
        self.asked += 1
        for case in self.cases:
            if case.ct.hu.shape == ct.hu.shape and (case.ct.hu == ct.hu).all():
                return true_segmentation(case)
        raise NotAssessableError(("not known",))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    network = {key: NetworkDraft(file=f"{key}.onnx", spacing_mm=(2.0, 2.0, 2.0), tile=(16, 16, 16), outputs=["sacrum"])
               for key in ("coarse", "fine")}
    draft = BundleDraft(name="first", version="1", created=datetime(2026, 1, 1, tzinfo=UTC), networks=network,
                        intensity=(IntensityWindow(low_hu=-1000, high_hu=3000),), training={}, training_data=[])
    return write_bundle(tmp_path / "released", draft, networks={"coarse": b"c", "fine": b"f"}, card="", licences="")


def test_parts_of_a_perfect_segmenter_are_those_of_the_true_masks_and_nothing_is_seen_twice(
        bundle: Bundle, anatomies: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    (out / "scans").mkdir(parents=True)
    cases = [kept_case(order, out / "scans") for order in orders(CONFIG.cases, anatomies=anatomies, manifest=manifest)]
    segmenter = Perfect([item.case for item in cases[:2]])
    monkeypatch.setattr(extract_features, "_segmenter", lambda _: (bundle, segmenter))
    places = Places(anatomies=anatomies, manifest=manifest, out=out)
    extract_features.main(CONFIG, bundle=bundle, places=places, workers=1)

    seen, true = load_table(out / PREDICTED), load_table(out / TRUE)
    assert [case.name for case in seen.cases] == [item.name for item in cases]
    assert [case.sites for case in seen.cases] == [item.sites for item in cases]
    assert [case.assessed for case in seen.cases] == [True, True, False], "the third one is refused"
    own = true.case_of < 2
    assert own.any(), "or nothing is compared"
    np.testing.assert_allclose(seen.matrix, true.matrix[own])
    np.testing.assert_array_equal(seen.truth, true.truth[own])
    for case in set(seen.case_of.tolist()):
        found = {LABELS[n] for n in np.flatnonzero(seen.truth[seen.case_of == case].any(axis=0))}
        assert found - {"not_a_leak"} <= {site.value for site in seen.cases[case].sites}
    assert json.loads((out / "about.json").read_text())["bundle"] == "first 1"

    assert segmenter.asked == 3
    extract_features.main(CONFIG, bundle=bundle, places=places, workers=1)
    assert segmenter.asked == 3


def test_a_scan_with_a_list_has_parts_and_no_truth_of_its_own(
        bundle: Bundle, anatomies: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = orders(CONFIG.cases, anatomies=anatomies, manifest=manifest)[1]
    case = kept_case(order, tmp_path).case
    monkeypatch.setattr(extract_features, "_segmenter", lambda _: (bundle, Perfect([case])))
    write_volume(tmp_path / "ct.nii.gz", case.ct)
    table = tmp_path / "scans.csv"
    table.write_text("case_id,path,sites\nfirst,ct.nii.gz,puncture_path other\nsecond,none.nii.gz,\n")
    known, unread = listed_rows(table, bundle, out=tmp_path)
    assert known[0].listed
    assert known[0].sites == (Site.OTHER, Site.PUNCTURE_PATH)
    assert np.isnan(known[2]).all()
    assert len(known[1]) == len(known[2])
    assert not unread[0].assessed
    assert unread[0].sites == ()


@pytest.mark.parametrize(("text", "message"), [
    ("case_id,path\na,b\n", "columns case_id, path and sites"),
    ("case_id,path,sites\na,b,vein\n", "row 2: unknown site"),
])
def test_a_manifest_that_is_none_is_refused(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str,
                                            message: str) -> None:
    monkeypatch.setattr(extract_features, "_segmenter", lambda _: (bundle, Perfect([])))
    (tmp_path / "scans.csv").write_text(text)
    with pytest.raises(ManifestError, match=message):
        list(listed_rows(tmp_path / "scans.csv", bundle, out=tmp_path))
