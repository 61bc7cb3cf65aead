"""The clinical table: what is read, what is refused with row and column, and that no message repeats a cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from sacroleak.core.errors import InputError
from sacroleak.inference.cohort_clinical import ClinicalTable, read_clinical


def table(folder: Path, text: str) -> ClinicalTable:
    (folder / "clinic.csv").write_text(text, encoding="utf-8")
    return read_clinical(folder / "clinic.csv")


def test_a_row_is_read_with_its_gaps(tmp_path: Path) -> None:
    read = table(tmp_path, "\ufeffcase_id,patient,approach,age,sex,primary_tumour,lesions,needles,"
                           "vas_12mo,vas_3d,vas_0,remark\n"
                           "a,p1,Anterior-Oblique,61.5,F,lung,2,3,2,NA,7.5,x\n,,,,,,,,,,,\nb,,,,,,,,,,n/a,\n")
    first, second = read.rows
    assert (first.row, first.case_id, first.patient, first.approach) == (2, "a", "p1", "anterior oblique")
    assert (first.age, first.sex, first.primary_tumour, first.lesions, first.needles) == (61.5, "female", "lung", 2, 3)
    assert dict(first.scores) == {("vas", "12mo"): 2.0, ("vas", "0"): 7.5}
    assert (second.row, second.patient, second.age, dict(second.scores)) == (4, None, None, {})
    assert [time.label for time in read.times["vas"]] == ["before", "day 3", "12 months"]
    assert set(read.times) == {"vas"}
    assert read.ignored == ("remark",)


@pytest.mark.parametrize(("text", "message"), [
    ("case_id,vas_3d\na,1\nb,secret", "row 3, column vas_3d: wanted a number from 0 to 10"),
    ("case_id,vas_3d\na,nan", "row 2, column vas_3d"),
    ("case_id,vas_0\na,72", "row 2, column vas_0: wanted a number from 0 to 10"),
    ("case_id,odi_0\na,-1", "row 2, column odi_0: wanted a number from 0 to 100"),
    ("case_id,age\na,secret", "row 2, column age"),
    ("case_id,lesions\na,1.5", "row 2, column lesions: wanted a whole number"),
    ("case_id,lesions\na,0", "row 2, column lesions"),
    ("case_id,sex\na,secret", "row 2, column sex: wanted f, m or other"),
    ("case_id,approach\na,=secret()", "row 2, column approach"),
    ("case_id,vas_0\na,3,5", "row 2: has 3 cells, the header 2"),
    ("case_id;vas_0\na;3", "column case_id missing"),
    ("case_id,vas_day3\na,3", "column vas_day3: wanted vas_0"),
    ("case_id,vas_0,vas_0\na,3,4", "column vas_0 is there twice"),
    ("case_id,age\na,3\nA,4", "row 3, column case_id: the same as in row 2"),
    ("case_id,age\nsecret name,3", "row 2, column case_id"),
    ("case_id,age\n", "no rows"),
    ("", "column case_id missing"),
])
def test_what_is_wrong_is_named_by_row_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        table(tmp_path, text)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clinic.csv").write_bytes(b"case_id\n\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        read_clinical(tmp_path / "clinic.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_clinical(tmp_path / "nowhere.csv")
