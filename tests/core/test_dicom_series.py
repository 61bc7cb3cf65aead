"""Of every study one series is scored, the choice is told, and no refusal carries patient text."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from sacroleak.core.dicom_header import quiet, read_header
from sacroleak.core.dicom_series import RULES, choose, digest
from sacroleak.core.errors import SeriesError
from sacroleak.core.geometry import Geometry
from sacroleak.core.read import read
from sacroleak.core.sources import discover
from sacroleak.core.volume import Volume

SECRET = "VERTRAULICH^PATIENT"


@pytest.mark.parametrize(("tags", "expected"), [
    ({"Modality": "MR"}, "is not CT"),
    ({"Modality": None}, "is not CT"),
    ({"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67"}, "is a report, such as a dose report"),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67"}, "is a report"),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "is a secondary capture"),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1"}, "is an enhanced multi-frame CT, which is not supported"),
    ({"NumberOfFrames": 12}, "is an enhanced multi-frame CT"),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"}, "is not made of CT images"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "is a localizer (scout)"),
    ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "is a reformat"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "REFORMATTED"]}, "is a reformat"),
    ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "is derived from another series"),
    ({"ImageType": ["ORIGINAL", "SECONDARY", "AXIAL"]}, "is derived from another series"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "VNC"]}, "is a material map"),
    ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "is not a grey-value image"),
    ({"PhotometricInterpretation": "MONOCHROME1"}, "is not a grey-value image"),
    ({"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "does not store its pixels in 16 bits"),
    ({"HighBit": 11}, "does not store its pixels in 16 bits"),
    ({"RescaleSlope": None}, "has no rescale slope and intercept"),
    ({"RescaleIntercept": None}, "has no rescale slope and intercept"),
    ({"RescaleSlope": 0}, "has no rescale slope and intercept"),
    ({"RescaleType": "EDW"}, "is not in Hounsfield units"),
    ({"MultienergyCTAcquisition": "YES", "RescaleType": None}, "is multi-energy, not in Hounsfield units"),
    ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "is not axial"),
    ({"PixelData": None}, "has a slice without pixels"),
])
def test_each_rule_refuses_in_its_own_words(tags: dict[str, Any], expected: str, make_series: Any, only: Any,
                                            edit: Any, slices_of: Any) -> None:
    folder = make_series()
    edit(slices_of(folder), **tags)
    source = only(folder)
    assert source.kind == "refused"
    assert expected in source.reason
    assert source.choices[0].series in source.reason
    with pytest.raises(SeriesError, match="series"):
        read(source)


def test_one_slice_that_breaks_a_rule_is_enough(make_series: Any, only: Any, edit: Any, slices_of: Any) -> None:
    folder = make_series()
    edit(slices_of(folder)[7:8], RescaleSlope=None)
    assert "no rescale" in only(folder).reason


@pytest.mark.parametrize("image_type", [None, ["ORIGINAL", "PRIMARY"], ["ORIGINAL", "PRIMARY", "AXIAL", "HELIX"]])
def test_an_original_series_is_accepted_with_any_further_words(image_type: Any, make_series: Any, only: Any) -> None:
    assert only(make_series(tags={"ImageType": image_type})).kind == "dicom"


def thick(ct: Volume) -> Volume:
    """The same patient in slices 4 mm apart, as many of them."""
    affine = ct.geometry.affine.copy()
    affine[2, 2] *= 2
    return Volume(hu=ct.hu, geometry=Geometry(affine=affine, shape=ct.geometry.shape))


def fewer(ct: Volume, count: int) -> Volume:
    return ct.crop((0, 0, 0), (*ct.hu.shape[:2], count))


def longer(ct: Volume) -> Volume:
    hu = np.concatenate([ct.hu, ct.hu], axis=2)
    return Volume(hu=hu, geometry=Geometry(affine=ct.geometry.affine, shape=(36, 32, 24)))


def chosen(folder: Path) -> tuple[int, dict[str, str]]:
    """Series number of the study's chosen series, and all reasons."""
    (source,) = discover([folder])
    assert [choice.accepted for choice in source.choices].count(True) == (source.kind == "dicom")
    number = source.slices[0].series_number if source.slices else 0
    return number, {choice.series: choice.reason for choice in source.choices}


@pytest.mark.parametrize(("first", "second"), [
    ({}, {"tags": {"ContrastBolusAgent": "given"}}),
    ({}, {"tags": {"BodyPartExamined": "CHEST"}}),
    ({"tags": {"BodyPartExamined": "PELVIS"}}, {"tags": {"BodyPartExamined": "HEADNECK"}}),
    ({"tags": {"AcquisitionDate": "20200102", "AcquisitionTime": "101500"}},
     {"tags": {"AcquisitionDate": "20200102", "AcquisitionTime": "094500"}}),
    ({"tags": {"AcquisitionDateTime": "20200103080000"}}, {"tags": {"AcquisitionDateTime": "20200102230000"}}),
    ({"series_number": 1}, {"series_number": 2}),
])
@pytest.mark.parametrize("swap", [False, True])
def test_of_two_good_series_the_rules_choose(first: dict[str, Any], second: dict[str, Any], swap: bool,
                                             make_series: Any, tmp_path: Path) -> None:
    names = ("b", "a") if swap else ("a", "b")
    make_series(f"study/{names[0]}", series="one", **{"series_number": 1, **first})
    make_series(f"study/{names[1]}", series="two", **{"series_number": 2, **second})
    number, reasons = chosen(tmp_path / "study")
    assert number == 1
    assert sorted(reason.split(":")[0] for reason in reasons.values()) == [
        "chosen", "could be used, but another series comes first"]


def test_thin_slices_come_before_thick_ones(ct: Volume, make_series: Any, tmp_path: Path) -> None:
    make_series("study/a", volume=thick(ct), series="thick", series_number=1)
    make_series("study/b", volume=fewer(ct, 10), series="thin", series_number=2)
    assert chosen(tmp_path / "study")[0] == 2


def test_a_later_but_short_guidance_series_does_not_win(ct: Volume, make_series: Any, tmp_path: Path) -> None:
    make_series("study/a", volume=longer(ct), series="full", series_number=1,
                tags={"AcquisitionDateTime": "20200102090000"})
    make_series("study/b", volume=fewer(ct, 12), series="guidance", series_number=2,
                tags={"AcquisitionDateTime": "20200102100000"})
    assert chosen(tmp_path / "study")[0] == 1


def test_a_study_with_scout_report_and_reformat_still_gives_its_scan(make_series: Any, tmp_path: Path, edit: Any,
                                                                     slices_of: Any) -> None:
    make_series("study/scan", series="scan", series_number=3)
    scout = make_series("study/scout", series="scout")
    for path in slices_of(scout)[1:]:
        path.unlink()
    edit(slices_of(scout), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    edit(slices_of(make_series("study/mpr", series="mpr")), ImageType=["DERIVED", "SECONDARY", "MPR"])
    report = make_series("study/report", series="report")
    edit(slices_of(report), Modality="SR", PixelData=None, ImagePositionPatient=None, Rows=None)
    number, reasons = chosen(tmp_path / "study")
    assert number == 3
    assert set(reasons.values()) == {"chosen: 12 axial slices, 2.00 mm apart", "is a localizer (scout)",
                                     "is a reformat of another series", "is a report, such as a dose report"}


def test_when_the_best_series_is_broken_the_next_is_taken_and_told(ct: Volume, make_series: Any, tmp_path: Path,
                                                                   slices_of: Any) -> None:
    broken = make_series("study/a", volume=longer(ct), series="broken", series_number=1)
    slices_of(broken)[5].unlink()
    make_series("study/b", series="whole", series_number=2)
    number, reasons = chosen(tmp_path / "study")
    assert number == 2
    assert any("slice 6 of 24 is missing" in reason for reason in reasons.values())


def test_studies_are_scored_apart(ct: Volume, make_ct: Any, make_series: Any, tmp_path: Path) -> None:
    make_series("all/a", study="one")
    make_series("all/b", study="two", volume=make_ct(seed=1))
    sources = list(discover([tmp_path / "all"]))
    assert [source.kind for source in sources] == ["dicom", "dicom"]
    assert len({source.case_id for source in sources}) == 2


def test_series_digests_are_short_and_hide_the_uid() -> None:
    assert digest("1.2.3") != digest("1.2.4")
    assert len(digest("1.2.3")) == 12
    assert digest("b", "a") == digest("a", "b")


def test_nothing_to_choose_from_is_no_choice() -> None:
    assert choose([]) == (None, ())
    assert all(RULES)


def test_patient_text_reaches_neither_log_warning_nor_message(make_series: Any, edit: Any, slices_of: Any, only: Any,
                                                              caplog: pytest.LogCaptureFixture,
                                                              capfd: pytest.CaptureFixture[str]) -> None:
    folder = make_series()
    edit(slices_of(folder), PatientName=SECRET, PatientID=SECRET, SeriesDescription=SECRET, StudyDescription=SECRET)
    for path in slices_of(folder):  # the secret also where a number, a UID and a code belong
        raw = path.read_bytes().replace(b"AXIAL", SECRET[:5].encode())
        path.write_bytes(raw.replace(b"MONOCHROME2 ", SECRET[:12].encode()))
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        source = only(folder)
    assert source.kind == "refused"
    told = " ".join([caplog.text, *capfd.readouterr(), *(str(w.message) for w in caught), source.reason, source.case_id,
                     *(choice.reason for choice in source.choices)])
    assert "VERTR" not in told


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "PixelSpacing", "RescaleSlope", "SeriesNumber"])
def test_text_where_a_number_belongs_is_no_crash(keyword: str, make_series: Any, only: Any, slices_of: Any,
                                                 capfd: pytest.CaptureFixture[str]) -> None:
    folder = make_series()
    with quiet():
        for path in slices_of(folder):
            data = pydicom.dcmread(path)
            element = data[keyword]
            data[keyword] = pydicom.dataelem.DataElement(element.tag, "LO", "SMITH^A\\B\\C")
            data.save_as(path)
    source = only(folder)
    assert source.kind == ("dicom" if keyword == "SeriesNumber" else "refused")
    assert "SMITH" not in source.reason + "".join(capfd.readouterr())


def test_quiet_puts_everything_back_as_it_was() -> None:
    logger, settings = logging.getLogger("pydicom"), pydicom.config.settings
    before = (logger.propagate, list(logger.handlers), settings.reading_validation_mode)
    with quiet():
        assert not logger.propagate
        assert settings.reading_validation_mode == pydicom.config.IGNORE
    assert (logger.propagate, list(logger.handlers), settings.reading_validation_mode) == before


def test_headers_of_other_files(tmp_path: Path, make_series: Any, slices_of: Any) -> None:
    text = tmp_path / "notes"
    text.write_text("not an image " * 40)
    assert read_header(text) is None
    directory = tmp_path / "DICOMDIR"
    data = pydicom.dcmread(slices_of(make_series())[0])
    data.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    data.SOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    data.save_as(directory)
    assert read_header(directory) is None


def test_a_series_exported_without_preamble_is_read(ct: Volume, make_series: Any, only: Any, slices_of: Any) -> None:
    folder = make_series(transfer_syntax=pydicom.uid.ImplicitVRLittleEndian)
    for path in slices_of(folder):
        data = pydicom.dcmread(path)
        data.preamble, data.file_meta = None, pydicom.dataset.FileMetaDataset()
        data.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[:2] == b"\x08\x00"
    assert np.array_equal(read(only(folder)).hu, ct.hu)
