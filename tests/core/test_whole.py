"""Whole or not at all: files, folders, sparse gzip, and the report that goes into them."""

from __future__ import annotations

import gzip
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sacroleak.core.assessment import (
    Assessment,
    CementVolumes,
    Finding,
    Leak,
    LeakShape,
    Provenance,
    Quality,
    SiteSummary,
)
from sacroleak.core.errors import InputError
from sacroleak.core.gzip_sparse import ZERO_BLOCK, SparseGzip
from sacroleak.core.report import Report, read_report, to_report
from sacroleak.core.structures import Side, Site
from sacroleak.core.whole import remove_leftovers, sha256_of, whole_folder, write_whole


def test_a_file_replaces_the_old_one_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    with pytest.raises(TypeError):
        write_whole(path, 3)  # type: ignore[arg-type]
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    def write(text: str, *, fail: bool = False) -> None:
        with whole_folder(tmp_path / "case") as folder:
            (folder / text).write_text(text)
            if fail:
                raise KeyboardInterrupt

    write("one")
    with pytest.raises(KeyboardInterrupt):
        write("two", fail=True)
    assert [p.name for p in (tmp_path / "case").iterdir()] == ["one"]
    write("three")
    assert [p.name for p in (tmp_path / "case").iterdir()] == ["three"]
    assert [p.name for p in tmp_path.iterdir()] == ["case"]


def test_only_unfinished_work_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".part-x").mkdir()
    (tmp_path / ".part-y.csv").write_text("")
    (tmp_path / "kept").mkdir()
    assert remove_leftovers(tmp_path) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert remove_leftovers(tmp_path / "nowhere") == 0


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


pieces = st.one_of(st.binary(max_size=200), st.integers(0, 3 * ZERO_BLOCK))


@given(st.lists(pieces, max_size=8))
def test_sparse_gzip_unpacks_to_what_went_in(parts: list[bytes | int]) -> None:
    stream, expected = SparseGzip(), b""
    for part in parts:
        if isinstance(part, int):
            stream.add_zeros(part)
            expected += bytes(part)
        else:
            stream.add(part)
            expected += part
    packed = stream.finish()
    assert gzip.decompress(packed) == expected
    assert len(packed) < 3000 + len(expected) / 150, "runs of zeros cost next to nothing"


def assessment(**changes: Any) -> Assessment:
    shape = LeakShape(length_mm=1, thickness_mm=1, elongation=1, straightness=1, depth_outside_mm=1, canal_depth_mm=0,
                      distance_to_cortex_mm=0)
    leak = Leak(number=1, site=Site.OTHER, volume_ml=0.1234567, centroid_lps_mm=(1.23456, -2.0, 3.0), side=Side.LEFT,
                compartments={}, shape=shape, probabilities={Site.OTHER: 0.75}, needs_review=True,
                findings=(Finding(rule="tubular", value=6.1, unit="ratio", limit=3.0, sentence="A tube."),),
                review_reasons=("It is small.",))
    values: dict[str, Any] = {
        "case_id": "one", "status": "assessed", "reasons": (), "leak_present": True, "leak_probability": 1.0000001,
        "cement": CementVolumes(total_ml=5.2, intraosseous_ml=4.9, leaked_ml=0.3, elsewhere_ml=1.5), "leaks": (leak,),
        "sites": dict.fromkeys(Site, SiteSummary(present=False, probability=0.1, volume_ml=0.0)),
        "quality": Quality(usable=True, spacing_mm=(1, 1, 1), sacrum_coverage=1, metal_ml=0, saturated=False),
        "provenance": Provenance(version="1", bundle="b", bundle_digest="d", config_digest="c", input_digest="i",
                                 created=datetime(2026, 1, 1, tzinfo=UTC)),
    }
    return Assessment(**(values | changes))


def test_the_report_has_exactly_the_keys_of_the_contract() -> None:
    report = to_report(assessment(), notes=("A note.",)).model_dump(mode="json")
    assert list(report) == ["case_id", "status", "reasons", "cement", "leak", "sites", "leaks", "quality", "provenance"]
    assert list(report["cement"]) == ["total_ml", "intraosseous_ml", "leaked_ml"]
    assert list(report["sites"]) == [site.value for site in Site]
    assert list(report["leaks"][0]) == ["number", "site", "probabilities", "volume_ml", "side", "centroid_lps_mm",
                                        "needs_review", "findings"]
    assert list(report["leaks"][0]["probabilities"]) == [site.value for site in Site]
    assert [f["rule"] for f in report["leaks"][0]["findings"]] == ["tubular", "needs_review"]
    assert report["leaks"][0]["findings"][1]["sentence"] == "It is small."
    assert report["leak"] == {"present": True, "probability": 1.0}
    assert report["quality"]["cement_elsewhere_ml"] == 1.5
    assert report["quality"]["notes"] == ["A note."]
    assert "Not a medical device" in report["provenance"]["statement"]
    assert "not calibrated" in report["provenance"]["probabilities"]


def test_a_report_is_read_back_as_written(tmp_path: Path) -> None:
    report = to_report(assessment())
    (tmp_path / "report.json").write_text(report.to_json())
    assert read_report(tmp_path / "report.json") == report
    assert report.needs_review


@pytest.mark.parametrize("key", ["extra", "leak"])
def test_a_report_with_other_keys_is_refused(tmp_path: Path, key: str) -> None:
    values = to_report(assessment()).model_dump(mode="json")
    if key == "extra":
        values["extra"] = 1
    else:
        del values[key]
    with pytest.raises(ValidationError):
        Report.model_validate(values)


def test_a_report_that_is_no_number_is_never_written() -> None:
    sites = dict.fromkeys(Site, SiteSummary(present=False, probability=0.1, volume_ml=math.nan))
    with pytest.raises(ValueError, match=r"nan|NaN|greater"):
        to_report(assessment(sites=sites)).to_json()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"case_id": "x"}'])
def test_a_damaged_report_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match="report of"):
        read_report(tmp_path / "report.json")
