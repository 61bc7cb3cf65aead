from __future__ import annotations

from pathlib import Path

import pytest

from sacroleak.core.errors import ManifestError
from sacroleak.core.manifest import read_manifest
from sacroleak.core.needle import Approach, NeedleNote


def written(folder: Path, text: str) -> Path:
    path = folder / "cases.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_name_a_case_and_a_place_beside_the_manifest(tmp_path: Path) -> None:
    rows = read_manifest(written(tmp_path, "case_id,site,path\nA-1,Bern,scans/a.nii.gz\nb.2,,/data/b\n"))
    assert [(row.row, row.case_id, row.path) for row in rows] == [
        (2, "A-1", tmp_path / "scans/a.nii.gz"), (3, "b.2", Path("/data/b"))]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    assert read_manifest(written(tmp_path, "\ufeffcase_id,path\na,b\n"))[0].case_id == "a"


@pytest.mark.parametrize("case_id", ["", "../a", "a/b", "..", ".hidden", "Müller", "a b", "x" * 65, "-rf"])
def test_case_ids_that_cannot_be_folders(case_id: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="row 3: case_id must be") as caught:
        read_manifest(written(tmp_path, f"case_id,path\nok,a\n{case_id},b\n"))
    assert not case_id or case_id not in str(caught.value).replace("A-Z a-z 0-9 . _ -", "")


@pytest.mark.parametrize(("text", "match"), [
    ("", "column case_id and path missing"),
    ("case_id,file\na,b\n", "column path missing"),
    ("case_id,path\n", "has no rows"),
    ("case_id,path\na,\n", "row 2: path is empty"),
    ("case_id,path\na\n", "row 2: path is empty"),
    ("case_id,path\nA,x\nb,y\na,z\n", "row 4: case_id is the same as in row 2"),
])
def test_manifests_that_cannot_be_used(text: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=match):
        read_manifest(written(tmp_path, text))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_bytes(b"\xff\xfe\x00\x81" * 20)
    with pytest.raises(ManifestError, match="UTF-8"):
        read_manifest(tmp_path / "cases.csv")


@pytest.mark.parametrize(("columns", "row", "note"), [
    ("approach", "posterior", NeedleNote(approach=Approach.POSTERIOR)),
    ("approach", "Trans-Iliac", NeedleNote(approach=Approach.TRANSILIAC)),
    ("approach", " ANTERIOR oblique ", NeedleNote(approach=Approach.ANTERIOR_OBLIQUE)),
    ("entry_lps_mm", "10 -20.5 +3e1", NeedleNote(entries_lps_mm=((10.0, -20.5, 30.0),))),
    ("entry_lps_mm,approach", "9 0 0; 1 2 3;9 0 0,anterior_oblique",
     NeedleNote(approach=Approach.ANTERIOR_OBLIQUE, entries_lps_mm=((1.0, 2.0, 3.0), (9.0, 0.0, 0.0)))),
    ("approach,entry_lps_mm", " ,", None),
    ("Approach,entry,site", "by hand,1;2,posterior", None),
])
def test_what_is_known_of_the_needles(columns: str, row: str, note: NeedleNote | None, tmp_path: Path) -> None:
    (found,) = read_manifest(written(tmp_path, f"case_id,path,{columns}\na,b,{row}\n"))
    assert found.needles == note


@pytest.mark.parametrize(("column", "cell"), [
    ("approach", "SMITH"), ("approach", "posterior and transiliac"), ("approach", "posterior_short_axis"),
    *(("entry_lps_mm", cell) for cell in ("1 2", "1 2 3 4", "1 2 3;", "nan 1 2", "1 2 inf", "1e999 0 0", "1e7 0 0",
                                          "SMITH 2 3", "1_0 2 3", "1;2;3")),
])
def test_what_cannot_be_known_of_the_needles(column: str, cell: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=f"row 3: {column} must be empty or") as caught:
        read_manifest(written(tmp_path, f"case_id,path,{column}\na,b,\nc,d,{cell}\n"))
    assert cell not in str(caught.value)
    assert caught.value.__cause__ is None
