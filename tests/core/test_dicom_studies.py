"""Studies come out of a walk early, whole, and with little held in memory; what comes late is put right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sacroleak.core import dicom_studies
from sacroleak.core.dicom_header import SliceHeader, read_header
from sacroleak.core.dicom_studies import HOLD_FOLDERS
from sacroleak.core.sources import count_units, discover


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose headers were read, in order."""
    files: list[Path] = []

    def reading(path: Path) -> SliceHeader | None:
        files.append(path)
        return read_header(path)

    monkeypatch.setattr(dicom_studies, "read_header", reading)
    return files


def archive(make_series: Any, make_ct: Any, count: int) -> Path:
    """So many studies, a folder each."""
    folders = [make_series(f"archive/{n:02d}", study=f"s{n}", volume=make_ct(seed=n)) for n in range(count)]
    return Path(folders[0].parent)


def test_a_study_comes_out_long_before_the_walk_ends_and_each_header_is_read_once(
    make_series: Any, make_ct: Any, opened: list[Path],
) -> None:
    root = archive(make_series, make_ct, 2 * HOLD_FOLDERS)
    found = discover([root])
    first = next(found)
    assert first.input_path.name == "00"
    assert len({path.parent for path in opened}) == HOLD_FOLDERS + 1
    rest = list(found)
    assert [source.input_path.name for source in rest] == [f"{n:02d}" for n in range(1, 2 * HOLD_FOLDERS)]
    assert len(opened) == len(set(opened)) == 12 * 2 * HOLD_FOLDERS


def test_series_of_a_study_in_neighbouring_folders_stay_together(make_series: Any, make_ct: Any) -> None:
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        make_series(f"patient/{name}", study="same", series=name, volume=make_ct(seed=seed))
    (source,) = discover([make_series("patient/d", study="other", volume=make_ct(seed=4)).parent / "a"])
    assert len(source.choices) == 1
    sources = list(discover([source.input_path.parent]))
    assert sorted(len(source.choices) for source in sources) == [1, 3]


def test_slices_that_turn_up_far_away_make_the_study_whole_and_replace_its_part(
    make_series: Any, make_ct: Any, slices_of: Any, only: Any,
) -> None:
    root = archive(make_series, make_ct, HOLD_FOLDERS + 2)
    whole = only(root / "00").case_id
    (root / "99").mkdir()
    slices_of(root / "00")[-1].rename(root / "99/late.dcm")
    sources = list(discover([root]))
    part, again = sources[0], sources[-1]
    assert len(part.files) == 11
    assert again.replaces == (part.case_id,)
    assert again.case_id == whole != part.case_id
    assert len(again.files) == 12
    assert [source.replaces for source in sources[:-1]] == [()] * (HOLD_FOLDERS + 2)


def test_a_folder_of_very_many_slices_is_held_as_paths(make_series: Any, make_ct: Any, only: Any,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_series()
    wanted = only(folder)
    monkeypatch.setattr(dicom_studies, "HOLD_HEADERS", 5)
    source = only(folder)
    assert (source.case_id, source.files) == (wanted.case_id, wanted.files)


def test_files_given_one_by_one_are_one_series(make_series: Any, slices_of: Any, only: Any, tmp_path: Path) -> None:
    folder = make_series()
    (tmp_path / "letter.txt").write_text("words")

    def listed() -> Iterator[Path]:
        yield from slices_of(folder)
        yield tmp_path / "letter.txt"

    sources = {source.kind: source for source in discover(listed())}
    assert sources["dicom"].case_id == only(folder).case_id
    assert sources["refused"].reason.startswith("input 13 holds no CT")


def test_position_ends_where_the_count_of_places_says(make_series: Any, make_ct: Any, tmp_path: Path) -> None:
    root = archive(make_series, make_ct, 3)
    (tmp_path / "letter.txt").write_text("words")
    (tmp_path / "scans.csv").write_text("case_id,path\none,archive/00\ntwo,gone\n")
    paths = [root, tmp_path / "scans.csv", tmp_path / "letter.txt"]
    positions = [source.position for source in discover(paths)]
    assert positions == sorted(positions)
    assert positions[-1] == count_units(paths) == 6
