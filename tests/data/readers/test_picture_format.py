import os
import zipfile

import pytest

from collagan_dist.data.readers.archives import FolderOrArchive, open_folder_or_archive
from collagan_dist.data.readers.picture_format import is_grey_png, masked_name, picture_format, split_masks

JPEG, GIF = b"\xff\xd8\xff\xe0" + bytes(40), b"GIF89a" + bytes(40)


@pytest.mark.parametrize(
    ("head", "form"),
    [
        (JPEG, "JPEG"), (GIF, "GIF"), (b"\0\0\0\x18ftypheic", "HEIF"), (b"\0\0\0\x20ftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x18ftypmp42", None), (b"RIFF\0\0\0\0WEBPVP8 ", "WEBP"), (b"RIFF\0\0\0\0WAVEfmt ", None), (b"\xff\x0a", "JPEG XL"),
        (b"II*\0", "TIFF"), (b"MM\0+", "BigTIFF"), (b"8BPS", "Photoshop"), (b"#!/bin/sh", None), (b"", None),
    ],
)  # fmt: skip
def test_formats_by_content(head, form):
    assert picture_format(head) == form


def test_grey_pngs():
    for kind, expected in ((0, True), (2, False), (3, False), (6, False)):
        assert is_grey_png(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(8) + bytes([8, kind]) + bytes(6)) is expected


def test_masks_lie_beside_the_picture_that_they_name():
    names = [
        "a.jpg",
        "a_mask.png",
        "a_mask001.png",
        "b_mask.png",
        "sub/a_mask.png",
        "sub/c.jpg",
        "sub/c_mask1.png",
        "a_masked.jpg",
    ]
    assert split_masks(names) == (
        ["a.jpg", "b_mask.png", "sub/a_mask.png", "sub/c.jpg", "a_masked.jpg"],
        ["a_mask.png", "a_mask001.png", "sub/c_mask1.png"],
    )
    assert masked_name("x/y_mask12.png") == "x/y" and masked_name("mask.png") is None


FILES = {
    "a.JPG": JPEG, "b": JPEG, "c.dat": GIF, "d.heic": JPEG, "e.jfif": JPEG, "f.avif": b"no picture",
    "notes.txt": JPEG, "readme": b"text", "sub/g.png": b"", "h.cr2": b"raw",
    "Thumbs.db": JPEG, "@eaDir/a.jpg": JPEG, "__MACOSX/a.jpg": JPEG, ".hidden.jpg": JPEG, "#recycle/a.jpg": JPEG, ".AppleDouble/a.jpg": JPEG,
}  # fmt: skip


@pytest.mark.parametrize("store", ["folder", "zip"])
def test_pictures_of_a_folder_are_found_by_content(store, tmp_path):
    """Names that are pictures by their suffix are taken unread: reading them says what is wrong. Files of systems are none."""
    for name, content in FILES.items():
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if store == "zip":
        with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
            for name in FILES:
                archive.write(tmp_path / "set" / name, name.replace("/", "\\") if name == "sub/g.png" else name)
    else:
        (tmp_path / "set").rename(tmp_path / "packed")
    found = open_folder_or_archive(tmp_path / "packed").list_pictures()
    assert found == ["a.JPG", "b", "c.dat", "d.heic", "e.jfif", "f.avif", "sub/g.png"]


def test_pipes_and_links_are_followed_or_refused_without_waiting(tmp_path, capsys):
    (tmp_path / "set").mkdir()
    (tmp_path / "real").write_bytes(JPEG)
    (tmp_path / "set/link").symlink_to(tmp_path / "real")
    (tmp_path / "set/nowhere").symlink_to(tmp_path / "none")
    os.mkfifo(tmp_path / "set/pipe")
    os.mkfifo(tmp_path / "set/pipe.jpg")
    assert FolderOrArchive(str(tmp_path / "set")).list_pictures() == ["link", "pipe.jpg"]
    assert "1 of 2 pictures are links, which are followed" in capsys.readouterr().err
