"""Nothing in a zip file decides where it is written, how much, or under which name."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from sacroleak.core.archive import ZipLimits, unpack
from sacroleak.core.errors import InputError


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "in" / "target"
    folder.mkdir(parents=True)
    return folder


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_members_get_numbers_for_names(tmp_path: Path, target: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"SMITH/": b"", "SMITH/JOHN/IM1": b"one", "SMITH/ct.NII.GZ": b"two",
                                          "SMITH/.DS_Store": b"x", "b/c.dcm": b"four"})
    paths = unpack(archive, target)
    assert [path.name for path in paths] == ["000000", "000001.nii.gz", "000002.hidden", "000003.dcm"]
    assert paths[0].read_bytes() == b"one"
    assert everything_below(target) == {path.name for path in paths}


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "C:/evil"])
def test_members_that_would_leave_are_refused(name: str, tmp_path: Path, target: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"good": b"1", name: b"2"})
    before = everything_below(tmp_path)
    with pytest.raises(InputError, match="would leave its folder"):
        unpack(archive, target)
    assert everything_below(tmp_path) == before


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(kind: int, tmp_path: Path, target: Path) -> None:
    member = zipfile.ZipInfo("scan.nii")
    member.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(InputError, match="link or a device"):
        unpack(tmp_path / "a.zip", target)
    assert everything_below(target) == set()


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, target: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"a": bytes(1 << 22), "b": bytes(1 << 22)})
    assert archive.stat().st_size < 1 << 15
    with pytest.raises(InputError, match="unpacks to more than"):
        unpack(archive, target, ZipLimits(total_bytes=(1 << 22) + 1))
    assert everything_below(target) == set()


def test_a_bomb_that_lies_about_its_size_is_stopped(tmp_path: Path, target: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"a": bytes(1 << 22)})
    true_size = (1 << 22).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(true_size, (100).to_bytes(4, "little")))
    with pytest.raises(InputError, match="damaged"):
        unpack(archive, target, ZipLimits(total_bytes=1 << 20))
    assert sum(path.stat().st_size for path in target.iterdir()) <= 1 << 20


def test_too_many_members(tmp_path: Path, target: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {str(n): b"" for n in range(6)})
    with pytest.raises(InputError, match="holds 6 files, allowed 5"):
        unpack(archive, target, ZipLimits(members=5))


def test_an_encrypted_archive(tmp_path: Path, target: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"a": b"data"})
    raw = bytearray(archive.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    archive.write_bytes(raw)
    with pytest.raises(InputError, match="encrypted"):
        unpack(archive, target)


@pytest.mark.parametrize("keep", [0, 30, -30])
def test_a_damaged_archive(keep: int, tmp_path: Path, target: Path) -> None:
    archive = zipped(tmp_path / "SMITH.zip", {"a": bytes(range(256)) * 40})
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(InputError, match="damaged") as caught:
        unpack(archive, target)
    assert "SMITH" not in str(caught.value)


def test_a_member_that_fails_its_checksum(tmp_path: Path, target: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a", b"payload-payload")
    path = tmp_path / "a.zip"
    path.write_bytes(path.read_bytes().replace(b"payload-payload", b"payload-PAYLOAD"))
    with pytest.raises(InputError, match="damaged"):
        unpack(path, target)
