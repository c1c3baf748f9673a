"""Shards: the same bytes always, readable by everybody, complete, and nothing under a final name that is not whole."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image
from skimage.filters import gaussian
from skimage.transform import AffineTransform, warp

from collagan_dist.data.face_square import square_from_landmarks
from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.shards import wire_format
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.data.shards.verify import verify
from collagan_dist.errors import DataError


def recipe(root: Path, out: Path, **changes: object) -> Recipe:
    known = {
        "dataset": "celeba",
        "root": str(root),
        "labels": "Label/img_celeba",
        "out": str(out),
        "samples_per_shard": 20,
        "store_size": 88,
    }
    return Recipe.model_validate({**known, **changes}, strict=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("store", ["crop", "original"])
def test_bytes_do_not_depend_on_workers(drawn: Path, tmp_path: Path, store: str) -> None:
    for workers in (1, 2, 5):
        pack(recipe(drawn, tmp_path / str(workers), store=store), workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "5")


def test_every_sample_once_in_its_split(drawn: Path, shards: Manifest) -> None:
    lines = (drawn / "Eval/list_eval_partition.txt").read_text().split()
    expected = dict(zip(lines[::2], lines[1::2], strict=True))
    found = {}
    for number, split in enumerate(("train", "valid", "test")):
        for shard in shards.shards(split):
            for row in wire_format.Index((shards.folder / shard.index_name).read_bytes(), shard.bytes):
                offset, size = row.parts["json"]
                with (shards.folder / shard.name).open("rb") as file:
                    file.seek(row.start + offset)
                    found[json.loads(file.read(size))["source"]] = str(number)
    assert found == expected


def test_index_equals_dalis_own(shards: Manifest, tmp_path: Path) -> None:
    shard = shards.shards("train")[0]
    tool = Path(sys.executable).parent / "wds2idx"
    subprocess.run([tool, shards.folder / shard.name, tmp_path / "x.idx"], check=True, capture_output=True)
    assert (tmp_path / "x.idx").read_bytes() == (shards.folder / shard.index_name).read_bytes()


def test_plain_tar_tools_see_fixed_headers(shards: Manifest) -> None:
    import tarfile

    with tarfile.open(shards.folder / shards.shards("train")[0].name) as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.type) for m in members} == {(0, 0, 0, "", tarfile.REGTYPE)}
    assert all(not m.pax_headers for m in members)


def test_crop_keeps_the_margin_square_around_the_face(drawn: Path, shards: Manifest) -> None:
    """Stored landmarks make a face square in the middle, 1/1.3 of the side; the stored pixels are those of the photo."""
    verify(shards.folder, deep=True)
    rows = [line.split() for line in (drawn / "Anno/list_landmarks_celeba.txt").read_text().splitlines()[2:]]
    points = {row[0]: np.array(row[1:], float).reshape(5, 2) for row in rows}
    for sample in _samples(shards, "test"):
        meta = json.loads(sample["json"])
        square = square_from_landmarks(meta["landmarks"])
        assert abs(square.side - 88 / 1.3) < 0.7
        assert max(abs(square.x - 43.5), abs(square.y - 43.5)) < 0.7
        # Where the annotated landmarks went says where every pixel went: scikit-image moves the photo there.
        annotated, stored = np.array(points[meta["source"]]), np.array(meta["landmarks"])
        scale = np.ptp(stored, axis=0).max() / np.ptp(annotated, axis=0).max()
        shift = (stored - scale * annotated).mean(0)
        assert np.abs(scale * annotated + shift - stored).max() < 0.02
        photo = gaussian(
            cv2.imread(str(drawn / "Img/img_celeba" / meta["source"]))[:, :, ::-1] / 255.0, 0.3 / scale, channel_axis=2
        )
        expected = warp(
            photo, AffineTransform(scale=scale, translation=shift).inverse, output_shape=(88, 88), mode="reflect"
        )
        difference = np.abs(expected * 255 - simplejpeg.decode_jpeg(sample["jpg"], "RGB"))
        assert difference.mean() < 2.5
        assert (
            difference.mean()
            < np.abs(np.roll(expected, 1, axis=1) * 255 - simplejpeg.decode_jpeg(sample["jpg"], "RGB")).mean()
        )


def test_original_keeps_the_jpegs_own_bytes(drawn: Path, tmp_path: Path) -> None:
    manifest = pack(recipe(drawn, tmp_path / "o", store="original"), workers=1)
    for sample in _samples(manifest, "test"):
        meta = json.loads(sample["json"])
        assert sample["jpg"] == (drawn / "Img/img_celeba" / meta["source"]).read_bytes()
        assert "reencoded" not in meta


def test_original_writes_anew_what_readers_would_disagree_about(copy_of_drawn: Path, tmp_path: Path) -> None:
    """A grey JPEG and one with an EXIF orientation become plain RGB, and their json says so."""
    pictures = copy_of_drawn / "Img/img_celeba"
    with Image.open(pictures / "000001.jpg") as image:
        turned = image.getexif()
        turned[0x0112] = 6
        image.save(tmp_path / "turned.jpg", exif=turned, quality=95)
        image.convert("L").save(pictures / "000002.jpg", quality=95)
    (tmp_path / "turned.jpg").replace(pictures / "000001.jpg")
    manifest = pack(recipe(copy_of_drawn, tmp_path / "o", store="original"), workers=1)
    metas = {m["source"]: (m, s) for s in _samples(manifest, "train") for m in [json.loads(s["json"])]}
    for name in ("000001.jpg", "000002.jpg"):
        meta, sample = metas[name]
        with Image.open(io.BytesIO(sample["jpg"])) as image:
            assert (
                meta["reencoded"] is True and image.mode == "RGB" and image.size == (360, 440) and not image.getexif()
            )


def test_a_tar_has_the_bytes_of_webdatasets_writer() -> None:
    import webdataset

    mine, theirs = io.BytesIO(), io.BytesIO()
    ours = wire_format.ShardWriter(mine)
    writer = webdataset.TarWriter(theirs, mtime=0, user="", group="", encoder=False)
    for number, size in enumerate([0, 1, 511, 512, 513, 7000, 20000]):
        key, members = f"{number:092d}", {"jpg": os.urandom(size), "json": b"{}", "seg.png": os.urandom(size // 3)}
        ours.add(key, members)
        writer.write({"__key__": key, **members})
    ours.finish()
    writer.close()
    assert mine.getvalue() == theirs.getvalue()


def test_unusable_pictures_are_named_and_left_out(copy_of_drawn: Path, tmp_path: Path) -> None:
    pictures = copy_of_drawn / "Img/img_celeba"
    whole = (pictures / "000001.jpg").read_bytes()
    (pictures / "000001.jpg").write_bytes(whole[: len(whole) // 2])
    (pictures / "000002.jpg").write_bytes(os.urandom(5000))
    (pictures / "000003.jpg").write_bytes(b"")
    (pictures / "000004.jpg").unlink()
    with Image.open(pictures / "000005.jpg") as image:
        image.convert("CMYK").save(pictures / "000005.jpg")
    Image.new("RGB", (12000, 12000)).save(pictures / "000006.jpg", quality=5)
    Image.new("RGB", (16, 16)).save(pictures / "000007.jpg")
    manifest = pack(recipe(copy_of_drawn, tmp_path / "out"), workers=1)
    lines = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == [f"00000{n}" for n in range(1, 8)]
    reasons = [
        "damaged JPEG",
        "damaged, or not",
        "empty file",
        "No such file",
        "CMYK",
        "decompression bomb",
        "smaller than",
    ]
    assert all(part in line["reason"] for part, line in zip(reasons, lines, strict=True))
    assert manifest.quarantined == 7 and manifest.samples("train") == 48 - 7
    verify(tmp_path / "out", deep=True)


def test_too_many_unusable_pictures_fail(copy_of_drawn: Path, tmp_path: Path) -> None:
    for number in range(1, 13):
        (copy_of_drawn / f"Img/img_celeba/{number:06d}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"12 of 60 pictures are unusable.*--max-bad"):
        pack(recipe(copy_of_drawn, tmp_path / "out"), workers=1)
    assert not (tmp_path / "out/manifest.json").exists()
    assert pack(recipe(copy_of_drawn, tmp_path / "out"), workers=1, max_bad=0.3).quarantined == 12


def test_mended_pictures_are_taken_by_the_same_command(drawn: Path, copy_of_drawn: Path, tmp_path: Path) -> None:
    for number in range(1, 13):
        (copy_of_drawn / f"Img/img_celeba/{number:06d}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="unusable"):
        pack(recipe(copy_of_drawn, tmp_path / "out"), workers=1)
    for number in range(1, 13):
        name = f"Img/img_celeba/{number:06d}.jpg"
        (copy_of_drawn / name).write_bytes((drawn / name).read_bytes())
    assert pack(recipe(copy_of_drawn, tmp_path / "out"), workers=1).quarantined == 0
    pack(recipe(drawn, tmp_path / "never-damaged"), workers=1)
    assert contents(tmp_path / "out") == contents(tmp_path / "never-damaged")


def test_another_recipe_does_not_touch_finished_shards(drawn: Path, shards: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(recipe(drawn, out), workers=1)
    before = contents(out)
    with pytest.raises(DataError, match="another recipe"):
        pack(recipe(drawn, out, store="original"), workers=1)
    assert contents(out) == before
    assert pack(recipe(drawn, out), workers=1).hash == shards.hash


def test_a_folder_of_something_else_is_left_alone(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        pack(recipe(drawn, tmp_path), workers=1)
    assert contents(tmp_path) == {"thesis.tex": b"mine"}


def _samples(manifest: Manifest, split: str) -> list[dict]:
    import webdataset

    urls = [str(manifest.folder / s.name) for s in manifest.shards(split)]
    return list(webdataset.WebDataset(urls, shardshuffle=False))
