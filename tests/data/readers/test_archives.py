import errno
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from PIL import Image

from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers import archives
from collagan_dist.data.readers.label_maps import read_label_map
from collagan_dist.data.readers.picture import read_picture
from collagan_dist.errors import DataError
from collagan_dist.types import ArchiveMember, FileInMemory
from tests.data.forged_tars import FORGED
from tests.data.layouts import archived, write_folder
from tests.data.packed import contents, folder_recipe, overwrite, recipe
from tests.data.peak_memory import grown

ARCHIVED = [("zip", True), ("zip", False), ("tar", True), ("tar", False)]  # in a top folder or not


@pytest.mark.parametrize(("kind", "top"), ARCHIVED)
def test_the_same_shards_as_from_the_folder(copy_of_drawn, tmp_path, kind, top):
    """And the same quarantine, for a picture that is missing."""
    (copy_of_drawn / "Img/img_celeba/000003.jpg").unlink()
    pack(recipe(copy_of_drawn, tmp_path / "a", store="original", samples_per_shard=7), workers=1)
    archived(copy_of_drawn / "Img/img_celeba", kind, top)
    pack(recipe(copy_of_drawn, tmp_path / "b", store="original", samples_per_shard=7), workers=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert "No such file" in (tmp_path / "b/quarantine.jsonl").read_text()


@pytest.mark.parametrize(("kind", "top"), ARCHIVED)
def test_pictures_label_maps_and_table_in_one_archive(drawn, tmp_path, kind, top):
    write_folder(drawn, tmp_path / "set", columns=("split",))
    annotation = {"labels": "labels", "landmarks": "faces.csv"}
    pack(folder_recipe(tmp_path / "set", tmp_path / "a", **annotation), workers=1)
    archived(tmp_path / "set", kind, top)
    pack(folder_recipe(tmp_path / "set", tmp_path / "b", **annotation), workers=1)
    pack(
        folder_recipe(tmp_path / f"set.{kind}", tmp_path / "c", **annotation), workers=1
    )  # or the archive itself is named
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")


REFUSED: dict[str, list[tuple]] = {  # why: kind, name, type and mode of the member
    "points out of the archive": [
        ("tar", "../evil.jpg"), ("tar", "img_celeba/a/../../../evil.jpg"), ("zip", "../evil.jpg"), ("zip", "..\\evil.jpg"),
    ],
    "absolute path": [("tar", "/tmp/evil.jpg"), ("zip", "/tmp/evil.jpg"), ("zip", "C:\\evil.jpg")],
    "is a link": [("tar", "a", tarfile.SYMTYPE), ("tar", "a", tarfile.LNKTYPE), ("zip", "a", stat.S_IFLNK)],
    "is a device": [
        *(("tar", "a", kind) for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)),
        *(("zip", "a", kind) for kind in (stat.S_IFBLK, stat.S_IFIFO)),
    ],
    "is setuid or setgid": [
        *(("tar", "a", tarfile.REGTYPE, mode) for mode in (0o4755, 0o2755)), ("tar", "a", tarfile.DIRTYPE, 0o2755),
        *(("zip", "a", stat.S_IFREG, mode) for mode in (0o4755, 0o2755)),
    ],
    "is there twice": [("tar", "img/1.jpg"), ("tar", "./img//1.jpg"), ("zip", "img/1.jpg"), ("zip", "img\\1.jpg")],
}  # fmt: skip


def add_member(path: Path, name: str, file_type: bytes | int = 0, mode: int = 0o644) -> None:
    if path.suffix == ".tar":
        member = tarfile.TarInfo(name)
        member.type, member.mode = file_type or tarfile.REGTYPE, mode
        with tarfile.open(path, "a") as archive:
            archive.addfile(member)
    else:
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, ((file_type or stat.S_IFREG) | mode) << 16
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(info, b"")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("reason", REFUSED)
def test_an_archive_with_such_a_member_is_refused(tmp_path, reason):
    for number, (kind, name, *how) in enumerate(REFUSED[reason]):
        path = tmp_path / f"{number}.{kind}"
        add_member(path, "img/1.jpg")
        assert list(archives.open_archive(str(path)).members) == ["img/1.jpg"]
        add_member(path, name, *how)
        with pytest.raises(DataError) as refused:
            archives.open_archive(str(path))
        text = str(refused.value)
        assert text.startswith(f"{path}: refused for its member {name!r}") and reason in text


def in_directory(offset: int, value: int) -> Callable[[Path], object]:
    """Change a byte of the first entry of a zip's directory."""
    return lambda path: overwrite(path, path.read_bytes().index(b"PK\x01\x02") + offset, bytes([value]))


def cut_at(share: float) -> Callable[[Path], object]:
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def member_40(path: Path) -> int:
    """Where it begins. tarfile reads a tar that is cut or damaged there without an error."""
    with tarfile.open(path) as archive:
        return archive.getmembers()[40].offset


@pytest.mark.parametrize(
    ("kind", "damage", "text"),
    [
        ("zip", in_directory(8, 1), "is encrypted (img_celeba/000001.jpg)"),
        ("zip", in_directory(10, 9), "is compressed by method 9"),
        ("zip", cut_at(0.5), "is damaged, or no plain zip archive"),
        ("zip", cut_at(0.0), "is damaged, or no plain zip archive"),
        ("zip", lambda path: path.write_bytes(os.urandom(5000)), "is damaged, or no plain zip archive"),
        ("tar", cut_at(0.5), "is damaged"),
        ("tar", cut_at(0.0), "is damaged"),
        ("tar", lambda path: os.truncate(path, member_40(path)), "is damaged or cut short after 40 files"),
        ("tar", lambda path: overwrite(path, member_40(path) + 150, b"\xff"), "is damaged or cut short after 40 files"),
        ("tar", lambda path: path.write_bytes(os.urandom(5000)), "is damaged, or no plain tar archive"),
    ],
)
def test_damaged_and_encrypted_archives(copy_of_drawn, tmp_path, kind, damage, text):
    path = archived(copy_of_drawn / "Img/img_celeba", kind, True)
    damage(path)
    with pytest.raises(DataError) as caught:
        pack(recipe(copy_of_drawn, tmp_path / "out"), workers=1)
    assert str(path) in str(caught.value) and text in str(caught.value)


def test_a_spoiled_picture_in_a_zip_is_quarantined(copy_of_drawn, tmp_path):
    path = archived(copy_of_drawn / "Img/img_celeba", "zip", True)
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("img_celeba/000009.jpg").header_offset + 500
    overwrite(path, at, b"spoiled")
    assert pack(recipe(copy_of_drawn, tmp_path / "out"), workers=1).quarantined == 1
    assert "damaged in its archive" in (tmp_path / "out/quarantine.jsonl").read_text()


def test_an_archive_is_opened_once_until_it_is_replaced(tmp_path):
    path = str(tmp_path / "a.zip")
    for content in (b"first", b"another"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("1.jpg", content)
        assert archives.read_file(ArchiveMember(path, "1.jpg")) == content
        assert archives.open_archive(path) is archives.open_archive(path)


def read_all(path: str) -> bool:
    return all(
        archives.read_file(ArchiveMember(path, f"{n}.jpg")) == str(n).encode() * 999
        for _ in range(5)
        for n in reversed(range(300))
    )


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_workers_share_what_their_parent_opened(tmp_path, kind):
    """Forked workers inherit the open file; were its position shared, they would read each other's bytes."""
    (tmp_path / "n").mkdir()
    for number in range(300):
        (tmp_path / f"n/{number}.jpg").write_bytes(str(number).encode() * 999)
    path = str(archived(tmp_path / "n", kind, False))
    assert read_all(path)
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        assert all(pool.map(read_all, [path] * 3))


def test_a_member_that_is_larger_than_its_archive_says_takes_no_memory(tmp_path):
    """300 MB of zeros in 300 kB, of which the directory says that they are 100 bytes."""
    with zipfile.ZipFile(path := tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.jpg", bytes(300_000_000))
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(content)
    read = "picture.archives.open_archive(sys.argv[1]).read('1.jpg')"
    assert grown(read, "OSError", path) < 50


def test_a_file_in_memory_is_read_like_one_on_disk(drawn):
    path = drawn / "Img/img_celeba/000001.jpg"
    file = FileInMemory("face.jpg", path.read_bytes())
    assert archives.read_file(file) == archives.read_file(str(path))
    assert archives.read_head(file, 20) == archives.read_head(str(path), 20)
    one, other = (read_picture(given, upright=True) for given in (file, str(path)))
    assert (one.pixels_HW3 == other.pixels_HW3).all() and str(file) == "face.jpg" and len(repr(file)) < 100


def test_failing_storage_is_no_damage(tmp_path, monkeypatch):
    """Neither an archive nor a label map is to be made again for a file server that does not answer."""
    path = tmp_path / "a.zip"
    add_member(path, "1.jpg")
    Image.new("L", (9, 9)).save(tmp_path / "label.png")

    def stale(*_: object) -> int:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "open", stale)
    monkeypatch.setattr(zipfile, "ZipFile", stale)
    for read in (lambda: archives.open_archive(str(path)), lambda: read_label_map(str(tmp_path / "label.png"), (9, 9))):
        with pytest.raises(
            DataError, match=r"cannot be read .Stale file handle.; the same command continues when it can"
        ):
            read()


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_tar_is_a_damaged_one(tmp_path, kind):
    (tmp_path / "a.tar").write_bytes(FORGED[kind])
    with pytest.raises(DataError, match=r"a\.tar: is damaged"):
        archives.open_archive(str(tmp_path / "a.tar"))
