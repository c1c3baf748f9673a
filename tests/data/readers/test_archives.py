import io
import os
import stat
import struct
import tarfile
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers import archives
from collagan_dist.errors import DataError
from collagan_dist.types import ArchiveMember
from tests.data.layouts import archived, write_folder
from tests.data.packed import contents, folder_recipe, recipe


def snapshot(folder: Path) -> dict[str, tuple]:
    """Every name below a folder with what would show that it was touched."""
    return {
        str(p.relative_to(folder)): (s.st_mode, s.st_size, s.st_mtime_ns)
        for p in folder.rglob("*")
        for s in [p.lstat()]
    }


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("top", [True, False])
def test_the_same_shards_as_from_the_folder(copy_of_drawn, tmp_path, kind, top):
    """And the same quarantine, for a picture that is missing."""
    (copy_of_drawn / "Img/img_celeba/000003.jpg").unlink()
    pack(recipe(copy_of_drawn, tmp_path / "a", store="original", samples_per_shard=7), workers=1)
    archived(copy_of_drawn / "Img/img_celeba", kind, top)
    before = snapshot(copy_of_drawn)
    pack(recipe(copy_of_drawn, tmp_path / "b", store="original", samples_per_shard=7), workers=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert snapshot(copy_of_drawn) == before and "No such file" in (tmp_path / "b/quarantine.jsonl").read_text()


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("top", [True, False])
def test_a_whole_folder_set_in_an_archive(drawn, tmp_path, kind, top):
    """Pictures, label maps and table all inside."""
    write_folder(drawn, tmp_path / "set", columns=("split",))
    annotation = {"labels": "labels", "landmarks": "faces.csv"}
    pack(folder_recipe(tmp_path / "set", tmp_path / "a", **annotation), workers=1)
    archived(tmp_path / "set", kind, top)
    pack(folder_recipe(tmp_path / "set", tmp_path / "b", **annotation), workers=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def tar_member(name: str, **changes: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in changes.items():
        setattr(info, key, value)
    return info


def zip_member(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


TARS = {
    "parent": (tar_member("../evil.jpg"), "points out of the archive"),
    "deep parent": (tar_member("img_celeba/a/../../../evil.jpg"), "points out of the archive"),
    "absolute": (tar_member("/tmp/evil.jpg"), "absolute path"),
    "symlink": (tar_member("evil.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link"),
    "hard link": (tar_member("evil.jpg", type=tarfile.LNKTYPE, linkname="000001.jpg"), "is a link"),
    "character device": (tar_member("evil.jpg", type=tarfile.CHRTYPE), "is a device"),
    "block device": (tar_member("evil.jpg", type=tarfile.BLKTYPE), "is a device"),
    "pipe": (tar_member("evil.jpg", type=tarfile.FIFOTYPE), "is a device"),
    "setuid": (tar_member("evil.jpg", mode=0o4755), "is setuid"),
    "setgid": (tar_member("evil.jpg", mode=0o2755), "is setuid or setgid"),
    "setgid folder": (tar_member("evil", mode=0o2755, type=tarfile.DIRTYPE), "is setuid or setgid"),
    "twice": (tar_member("img_celeba/000001.jpg"), "is there twice"),
    "twice, spelled otherwise": (tar_member("./img_celeba//000001.jpg"), "is there twice"),
}
ZIPS = {
    "parent": (zip_member("../evil.jpg"), "points out of the archive"),
    "backslashed parent": (zip_member("..\\evil.jpg"), "points out of the archive"),
    "absolute": (zip_member("/tmp/evil.jpg"), "absolute path"),
    "drive": (zip_member("C:\\evil.jpg"), "absolute path"),
    "symlink": (zip_member("evil.jpg", stat.S_IFLNK | 0o777), "is a link"),
    "device": (zip_member("evil.jpg", stat.S_IFBLK | 0o600), "is a device"),
    "pipe": (zip_member("evil.jpg", stat.S_IFIFO | 0o600), "is a device"),
    "setuid": (zip_member("evil.jpg", stat.S_IFREG | 0o4755), "is setuid"),
    "setgid": (zip_member("evil.jpg", stat.S_IFREG | 0o2755), "is setuid or setgid"),
    "twice": (zip_member("img_celeba/000001.jpg"), "is there twice"),
}


@pytest.mark.parametrize(("kind", "case"), [("tar", c) for c in TARS] + [("zip", c) for c in ZIPS])
def test_an_archive_with_such_a_member_is_refused_whole(copy_of_drawn, tmp_path, kind, case):
    path = archived(copy_of_drawn / "Img/img_celeba", kind, True)
    if kind == "tar":
        member, why = TARS[case]
        with tarfile.open(path, "a") as archive:
            archive.addfile(member, io.BytesIO())
    else:
        member, why = ZIPS[case]
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(member, b"evil")
    name = member.name if kind == "tar" else member.filename
    before = snapshot(tmp_path)
    with pytest.raises(DataError) as caught:
        pack(recipe(copy_of_drawn, tmp_path / "out"), workers=1)
    text = str(caught.value)
    assert str(path) in text and repr(name) in text and why in text
    assert snapshot(tmp_path) == before


def encrypt(path: Path) -> None:
    """Set the bit that says so, in the first entry of the central directory."""
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    path.write_bytes(content)


def deflate64(path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 10 : at + 12] = struct.pack("<H", 9)
    path.write_bytes(content)


def cut_at(share: float):  # type: ignore[no-untyped-def]
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def cut_between_members(path: Path) -> None:
    """tarfile reads such a tar to its end without a word."""
    with tarfile.open(path) as archive:
        member = archive.getmembers()[40]
    os.truncate(path, member.offset)


def spoil_a_header(path: Path) -> None:
    """Likewise."""
    with tarfile.open(path) as archive:
        member = archive.getmembers()[40]
    with path.open("r+b") as file:
        file.seek(member.offset + 150)
        file.write(b"\xff")


@pytest.mark.parametrize(
    ("kind", "damage", "text"),
    [
        ("zip", encrypt, "is encrypted (img_celeba/000001.jpg)"),
        ("zip", deflate64, "is compressed by method 9"),
        ("zip", cut_at(0.5), "is damaged, or no plain zip archive"),
        ("zip", cut_at(0.0), "is damaged, or no plain zip archive"),
        ("zip", lambda path: path.write_bytes(os.urandom(5000)), "is damaged, or no plain zip archive"),
        ("tar", cut_at(0.5), "is damaged"),
        ("tar", cut_at(0.0), "is damaged"),
        ("tar", cut_between_members, "is damaged or cut short after 40 files"),
        ("tar", spoil_a_header, "is damaged or cut short after 40 files"),
        ("tar", lambda path: path.write_bytes(os.urandom(5000)), "is damaged, or no plain tar archive"),
    ],
)
def test_damaged_and_encrypted_archives(copy_of_drawn, tmp_path, kind, damage, text):  # type: ignore[no-untyped-def]
    path = archived(copy_of_drawn / "Img/img_celeba", kind, True)
    damage(path)
    with pytest.raises(DataError) as caught:
        pack(recipe(copy_of_drawn, tmp_path / "out"), workers=1)
    assert str(path) in str(caught.value) and text in str(caught.value)


def test_a_spoiled_picture_in_a_zip_is_quarantined(copy_of_drawn, tmp_path):
    path = archived(copy_of_drawn / "Img/img_celeba", "zip", True)
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("img_celeba/000009.jpg").header_offset + 500
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"spoiled")
    assert pack(recipe(copy_of_drawn, tmp_path / "out"), workers=1).quarantined == 1
    assert "damaged in its archive" in (tmp_path / "out/quarantine.jsonl").read_text()


def test_an_archive_that_was_replaced_is_read_anew(tmp_path):
    path = tmp_path / "a.zip"
    for content in (b"first", b"another"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("1.jpg", content)
        assert archives.read_file(ArchiveMember(str(path), "1.jpg")) == content


def test_an_archive_is_opened_once_a_process(tmp_path):
    path = archived_numbers(tmp_path, "zip")
    assert archives.open_archive(path) is archives.open_archive(path)


def archived_numbers(tmp_path: Path, kind: str) -> str:
    folder = tmp_path / "n"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number}.jpg").write_bytes(str(number).encode() * 999)
    return str(archived(folder, kind, False))


def read_all(path: str) -> bool:
    return all(
        archives.read_file(ArchiveMember(path, f"{n}.jpg")) == str(n).encode() * 999
        for _ in range(5)
        for n in reversed(range(300))
    )


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_workers_share_what_their_parent_opened(tmp_path, kind):
    """Forked workers inherit the open file; were its position shared, they would read each other's bytes."""
    path = archived_numbers(tmp_path, kind)
    assert read_all(path)
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        assert all(pool.map(read_all, [path] * 3))
