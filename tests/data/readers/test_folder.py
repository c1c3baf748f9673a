import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers.folder import key, read_folder
from collagan_dist.data.shards.verify import verify
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.types import Sample
from tests.data.layouts import samples_of, write_folder
from tests.data.packed import folder_recipe, recipe


@pytest.mark.parametrize("store", ["crop", "original"])
def test_the_same_samples_as_through_celeba(copy_of_drawn, tmp_path, store):
    names = sorted(p.name for p in (copy_of_drawn / "Img/img_celeba").iterdir())
    (copy_of_drawn / "Anno/identity_CelebA.txt").write_text("".join(f"{n} {i // 3}\n" for i, n in enumerate(names)))
    write_folder(copy_of_drawn, tmp_path / "set")
    common = {"store": store, "samples_per_shard": 20}
    one = pack(recipe(copy_of_drawn, tmp_path / "a", **common), workers=1)
    other = pack(
        folder_recipe(tmp_path / "set", tmp_path / "b", labels="labels", landmarks="faces.csv", **common), workers=1
    )
    shards, others = ({p.name: p.read_bytes() for p in m.folder.glob("*-*")} for m in (one, other))
    assert shards == others and len(shards) == 10


def test_keys():
    keys = {
        "000001.jpg": "000001",
        "ann/summer/1.png": "ann__summer__1",
        "A-b_(2)+c.jpg": "A-b_(2)+c",
        "a" * 92 + ".jpg": "a" * 92,
        "a" * 93 + ".jpg": "a" * 83 + "-",
        "my face.jpg": "my_face-",
        "my.face.jpg": "my_face-",
        "my\tface.jpg": "my_face-",
        "v1.2/x.jpg": "v1_2__x-",
        "Zoë/straße.jpg": "Zo___stra_e-",
        "\udcff.jpg": "_-",
    }
    for name, expected in keys.items():
        sha256 = hashlib.sha256(name.removesuffix(".jpg").encode(errors="surrogateescape")).hexdigest()
        assert key(name) == expected + (sha256[:8] if expected.endswith("-") else "")
    assert len({key(name) for name in keys}) == len(keys)


def test_any_file_name_is_packed_and_read_back(drawn, tmp_path):
    names = [
        "übung/Zoë 1.jpg",
        "a'b\"c.jpg",
        "x.y.z.jpg",
        "n" * 120 + ".jpg",
        "tab\there.JPEG",
        "плюс.jpg",
        os.fsdecode(b"\xff\xfe.jpg"),
    ]
    pictures = sorted((drawn / "Img/img_celeba").iterdir())
    for name, picture in zip(names, pictures, strict=False):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, tmp_path / "set" / name)
    for ignored in (".hidden.jpg", ".cache/thumb.jpg", "notes.txt"):
        (tmp_path / "set" / ignored).parent.mkdir(exist_ok=True)
        (tmp_path / "set" / ignored).write_bytes(b"no picture")
    manifest = pack(folder_recipe(tmp_path / "set", tmp_path / "out", store="original"), workers=1)
    verify(manifest.folder, deep=True)
    found = {json.loads(s["json"])["source"]: s["jpg"] for s in samples_of(manifest).values()}
    assert found == {name: picture.read_bytes() for name, picture in zip(names, pictures, strict=False)}


def splits(root: Path, **changes: object) -> dict[str, str]:
    return {s.source: s.split for s in read_folder(folder_recipe(root, root / "out", **changes))}


def test_splits_of_the_table(tree):
    lines = (tree / "faces.csv").read_text().splitlines()[1:]
    assert splits(tree, labels="labels", landmarks="faces.csv") == {
        line.split(",")[0]: line.split(",")[-1] for line in lines
    }


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    "places",
    [
        ("train", "val", "test"), ("Train", "Validation", "TEST"), ("training", "valid", "testing"),
        ("images/train", "images/val", "images/test"), ("train/a/b", "val", "test/c"),
    ],
)  # fmt: skip
def test_splits_of_folders(places, tmp_path):
    names = [f"{place}/{number}.jpg" for number, place in enumerate(places)]
    touch(tmp_path, *names)
    assert splits(tmp_path) == dict(zip(names, ("train", "valid", "test"), strict=True))
    assert splits(tmp_path, splits=["test"]) == {names[2]: "test"}


@pytest.mark.parametrize("stray", ["0.jpg", "extra/0.jpg", "train/test/0.jpg"])
def test_pictures_beside_folders_of_splits_are_an_error(stray, tmp_path, capsys):
    touch(tmp_path, "train/1.jpg", "val/2.jpg", "test/3.jpg", stray)
    with pytest.raises(
        DataError, match=rf"3 of 4 pictures lie in folders of splits \(test, train, valid\), {stray} .*split_by: hash"
    ):
        splits(tmp_path)
    assert len(splits(tmp_path, split_by="hash")) == 4
    assert "splits drawn by a hash of the name: " in capsys.readouterr().err
    with pytest.raises(DataError, match="0 of 1 pictures lie in folders of splits"):
        touch(tmp_path / "flat", "1.jpg")
        splits(tmp_path / "flat", split_by="folders")


def test_label_maps_are_not_packed_as_photographs(tmp_path):
    for folder, mode in (("images", "RGB"), ("masks", "L"), ("other", "RGB")):
        (tmp_path / folder).mkdir()
        for name in ("1", "2"):
            Image.new(mode, (40, 40)).save(tmp_path / folder / f"{name}.png")
    with pytest.raises(
        DataError, match=r"masks/1.png and the other files of masks/ look like label maps .* say `labels: masks`"
    ):
        splits(tmp_path)
    assert len(splits(tmp_path, labels="masks")) == 4


def test_grey_photographs_of_equal_names_are_photographs(tmp_path):
    """As in the ORL faces: s1/1.png, s2/1.png, ...; soft masks are not."""
    grey = np.random.default_rng(0).normal(128, 40, (4, 3, 60, 60)).clip(0, 255).astype(np.uint8)
    for person in range(4):
        (tmp_path / f"s{person}").mkdir()
        for number in range(3):
            Image.fromarray(grey[person, number]).save(tmp_path / f"s{person}/{number}.png")
    assert len(splits(tmp_path)) == 12
    soft = Image.fromarray(np.kron(np.eye(2, dtype=np.uint8) * 255, np.ones((4, 4), np.uint8))).resize((60, 60))
    (tmp_path / "soft").mkdir()
    for number in range(3):
        soft.filter(ImageFilter.GaussianBlur(0.3)).save(tmp_path / f"soft/{number}.png")
    with pytest.raises(DataError, match="the other files of soft/ look like"):
        splits(tmp_path)


@pytest.mark.parametrize(
    ("name", "mode"), [("{}_seg", "L"), ("{}-label", "P"), ("{}.mask", "RGB"), ("parts/0000{}_l_eye", "RGB")]
)
def test_label_maps_with_a_word_behind_their_pictures_name(tmp_path, name, mode):
    (tmp_path / "parts").mkdir()
    photograph = np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)
    for number in range(4):
        Image.fromarray(photograph).save(tmp_path / f"{number}.jpg")
        Image.fromarray(photograph).save(tmp_path / f"{number}_again.png")
    assert len(splits(tmp_path)) == 8  # photographs with such names are photographs
    for number in range(4):
        labels = Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40).astype(np.uint8) // 32)
        labels.convert(mode).save(tmp_path / f"{name.format(number)}.png")
    with pytest.raises(DataError, match="look like label maps or masks of pictures of the same names"):
        splits(tmp_path)


def test_splits_by_name_are_stable(tmp_path):
    for number in range(2000):
        (tmp_path / f"{number}.jpg").touch()
    before = splits(tmp_path)
    shares = [list(before.values()).count(s) / 2000 for s in ("train", "valid", "test")]
    assert np.abs(np.array(shares) - (0.8, 0.1, 0.1)).max() < 0.03
    for number in range(2000, 2100):
        (tmp_path / f"{number}.jpg").touch()
    after = splits(tmp_path)
    assert len(after) == 2100 and all(after[name] == split for name, split in before.items())


def test_linked_folders_are_read_once(tmp_path):
    for name in ("set/a/1.jpg", "elsewhere/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "set/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/a/loop").symlink_to(tmp_path / "set")
    assert sorted(splits(tmp_path / "set")) == ["a/1.jpg", "b/2.jpg"]


def test_labels_and_table_may_lie_elsewhere(tree, tmp_path):
    def read(place: str) -> list[Sample]:
        files = {"labels": f"{place}labels", "landmarks": f"{place}faces.csv"}
        return list(read_folder(folder_recipe(tree, tmp_path / "out", **files)))

    inside = read("")
    assert read(f"{tree}/") == inside  # an absolute name below root means the same folder: label maps are no pictures
    for name in ("labels", "faces.csv"):
        (tree / name).rename(tmp_path / name)
    moved = [replace(s, labels=s.labels.replace(str(tree), str(tmp_path))) for s in inside]
    assert read(f"{tmp_path}/") == moved


def test_two_pictures_of_one_key_and_labels_among_pictures_are_refused(tmp_path):
    for name in ("1.png", "1.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"1.png and 1.jpg would both be sample '1'"):
        pack(folder_recipe(tmp_path, tmp_path / "out"), workers=1)
    with pytest.raises(ConfigError, match="is the folder of the pictures"):
        splits(tmp_path, labels=".")
