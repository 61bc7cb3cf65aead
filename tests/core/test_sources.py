"""Whatever is given, each scan is met once, under a name without patient text, and nothing stops the rest."""

from __future__ import annotations

import pickle  # noqa: TID251 - how a source reaches a worker process; only our own bytes are loaded
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sacroleak.core.archive import ZipLimits
from sacroleak.core.errors import InputError, ManifestError, SeriesError
from sacroleak.core.nifti_write import write_volume
from sacroleak.core.read import input_digest, read, read_one
from sacroleak.core.sources import Source, discover
from sacroleak.core.volume import Volume

CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def kinds(*paths: Path) -> list[str]:
    return [source.kind for source in discover(paths)]


def archive_of(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(folder.parent))
    return path


@pytest.fixture
def mixture(tmp_path: Path, make_series: Any, make_ct: Any) -> Path:
    """A folder with a nested series, a NIfTI file, a zip file of a third scan, and things that are no scans."""
    root = tmp_path / "mixture"
    make_series("mixture/SMITH^JOHN/2020/1", study="one", volume=make_ct(seed=1))
    write_volume(root / "SMITH_JOHN.nii.gz", make_ct(seed=2))
    archive_of(make_series("elsewhere", study="three", volume=make_ct(seed=3)), root / "third.zip")
    (root / "readme.txt").write_text("words")
    (root / "picture.png").write_bytes(b"\x89PNG" + bytes(500))
    (root / ".hidden").mkdir()
    write_volume(root / ".hidden" / "no.nii.gz", make_ct(seed=4))
    return root


def test_a_mixture_gives_each_scan_once(mixture: Path, make_ct: Any) -> None:
    found: dict[str, Source] = {}
    digests = set()
    for source in discover([mixture]):
        found[source.case_id] = source
        digests.add(np.sort(read(source).hu, axis=None).tobytes())
    assert sorted(source.kind for source in found.values()) == ["dicom", "dicom", "nifti"]
    assert digests == {np.sort(make_ct(seed=seed).hu, axis=None).tobytes() for seed in (1, 2, 3)}
    assert {source.input_path for source in found.values()} == {
        mixture / "SMITH^JOHN/2020/1", mixture / "SMITH_JOHN.nii.gz", mixture / "third.zip"}


def test_case_ids_carry_a_kind_and_a_digest_and_no_name(mixture: Path) -> None:
    ids = [source.case_id for source in discover([mixture])]
    assert all(re.fullmatch(r"(nifti|dicom)-[0-9a-f]{12}", case_id) for case_id in ids)


def test_folder_and_zip_of_one_series_share_their_case_id(make_series: Any, only: Any, tmp_path: Path) -> None:
    folder = make_series()
    assert only(archive_of(folder, tmp_path / "a.zip")).case_id == only(folder).case_id


def test_the_same_scan_twice_is_refused_the_second_time(make_series: Any, tmp_path: Path, ct: Volume) -> None:
    folder = make_series()
    write_volume(tmp_path / "a.nii.gz", ct)
    shutil.copy(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")
    given = [folder, tmp_path / "a.nii.gz", folder, tmp_path / "b.nii.gz", folder]
    sources = list(discover(given))
    assert [source.kind for source in sources] == ["dicom", "nifti", "refused", "refused", "refused"]
    assert "met before in this run, as dicom-" in sources[2].reason
    assert len({source.case_id for source in sources}) == 5
    assert all(CASE_ID.fullmatch(source.case_id) for source in sources)


def test_what_is_not_there_or_no_scan_is_refused_and_the_rest_goes_on(tmp_path: Path, make_series: Any) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "letter.txt").write_text("words")
    sources = list(discover([tmp_path / "JOHN", tmp_path / "empty", tmp_path / "letter.txt", make_series()]))
    assert [source.kind for source in sources] == ["refused", "refused", "refused", "dicom"]
    assert [source.reason for source in sources[:3]] == [
        "input 1 does not exist", "input 2 holds no CT: neither DICOM, NIfTI nor zip",
        "input 3 holds no CT: neither DICOM, NIfTI nor zip"]
    with pytest.raises(SeriesError, match="input 1 does not exist"):
        read(sources[0])


@pytest.mark.parametrize("content", [b"", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM\x02\0\0\0UL\4\0\xff\xff",
                                     b"no DICOM at all"])
def test_a_damaged_slice_file_is_reported_beside_its_series(content: bytes, make_series: Any, slices_of: Any) -> None:
    folder = make_series()
    slices_of(folder)[-1].write_bytes(content)
    sources = list(discover([folder]))
    assert sorted(source.kind for source in sources) == ["dicom", "refused"]
    (refused,) = (source for source in sources if source.kind == "refused")
    assert refused.reason == "1 DICOM file(s) are damaged or cut short: their headers cannot be read"


def test_a_header_cut_short(make_series: Any, slices_of: Any) -> None:
    folder = make_series()
    for path in slices_of(folder):
        path.write_bytes(path.read_bytes()[:700])
    sources = list(discover([folder]))
    assert all(source.kind == "refused" for source in sources)


def test_zip_folders_live_until_the_next_source(make_series: Any, tmp_path: Path, ct: Volume, make_ct: Any) -> None:
    first = archive_of(make_series("a", study="one"), tmp_path / "a.zip")
    second = archive_of(make_series("b", study="two", volume=make_ct(seed=1)), tmp_path / "b.zip")
    finder = discover([first, second])
    source = next(finder)
    assert np.array_equal(read(source).hu, ct.hu)
    following = next(finder)
    assert not source.files[0].exists()
    assert following.files[0].exists()
    finder.close()  # type: ignore[attr-defined]
    assert not following.files[0].exists()


def test_with_a_scratch_folder_zip_files_stay_readable(make_series: Any, tmp_path: Path, ct: Volume) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (source,) = discover([archive_of(make_series(), tmp_path / "a.zip")], scratch=scratch)
    assert all(scratch in path.parents for path in source.files)
    assert np.array_equal(read(source).hu, ct.hu)


def test_nifti_in_a_zip(tmp_path: Path, ct: Volume) -> None:
    (tmp_path / "inner").mkdir()
    write_volume(tmp_path / "inner" / "SMITH.nii.gz", ct)
    path = archive_of(tmp_path / "inner", tmp_path / "a.zip")
    (found,) = [read(source) for source in discover([path])]
    assert input_digest(found) == input_digest(read_one(tmp_path / "inner" / "SMITH.nii.gz"))


def test_archives_that_cannot_be_used(tmp_path: Path, make_series: Any, only: Any) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    good = archive_of(make_series(), inner / "scan.zip")
    nested = only(archive_of(inner, tmp_path / "nested.zip"))
    assert nested.reason == "an archive inside an archive is not opened"
    assert nested.input_path == tmp_path / "nested.zip"
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4 nothing")
    assert "damaged" in only(tmp_path / "broken.zip").reason
    with zipfile.ZipFile(tmp_path / "words.zip", "w") as archive:
        archive.writestr("a.txt", "words")
    assert "holds no CT" in only(tmp_path / "words.zip").reason
    (large,) = discover([good], limits=ZipLimits(total_bytes=1000))
    assert "unpacks to more than" in large.reason


def test_a_manifest_names_the_cases(tmp_path: Path, make_series: Any, ct: Volume, make_ct: Any) -> None:
    make_series("a", study="one")
    archive_of(make_series("b", study="two", volume=make_ct(seed=5)), tmp_path / "b.zip")
    write_volume(tmp_path / "c.nii.gz", make_ct(seed=6))
    make_series("many/x", study="x")
    make_series("many/y", study="y")
    manifest = tmp_path / "cases.csv"
    manifest.write_text("case_id,path,note\nfirst,a,\nsecond,b.zip,\nthird,c.nii.gz,\nfourth,gone,\nfifth,many,\n")
    read_back, found = {}, {}
    for source in discover([manifest]):
        found[source.case_id] = source
        if source.kind != "refused":
            read_back[source.case_id] = read(source).hu.shape
    assert [source.kind for source in found.values()] == ["dicom", "dicom", "nifti", "refused", "refused"]
    assert list(found) == ["first", "second", "third", "fourth", "fifth"]
    assert list(read_back) == ["first", "second", "third"]
    assert found["fourth"].reason == "manifest, row 5: path does not exist"
    assert found["fifth"].reason == "manifest, row 6: path holds 2 scans, wanted one"


def test_a_wrong_manifest_stops_the_call(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case_id,path\n../up,a\n")
    with pytest.raises(ManifestError, match="row 2"):
        next(discover([tmp_path / "cases.csv"]))


def test_a_link_that_leads_back_up_is_not_followed(make_series: Any) -> None:
    folder = make_series()
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    assert kinds(folder) == ["dicom"]


def test_one_dicom_file_alone_is_too_few_slices(make_series: Any, slices_of: Any, only: Any) -> None:
    assert "has 1 slices" in only(slices_of(make_series())[0]).reason


def test_a_source_can_be_sent_to_another_process(make_series: Any, only: Any, ct: Volume) -> None:
    source = pickle.loads(pickle.dumps(only(make_series())))
    assert np.array_equal(read(source).hu, ct.hu)


def test_read_one_wants_exactly_one(make_series: Any, tmp_path: Path) -> None:
    make_series("two/a", study="a")
    make_series("two/b", study="b")
    with pytest.raises(InputError, match="2 scans found, wanted one"):
        read_one(tmp_path / "two")


def test_a_source_made_by_hand_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(SeriesError, match="take sources from discover"):
        read(Source(kind="dicom", case_id="x", files=(), input_path=tmp_path))
