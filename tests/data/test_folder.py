"""A folder of pictures: with the same annotation it gives the same samples as CelebA's layout, and any name can be packed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers.folder import key, read_folder
from collagan_dist.data.readers.recipe import Recipe, load_recipe
from collagan_dist.data.shards.verify import verify
from collagan_dist.errors import ConfigError, DataError
from tests.data.layouts import COLUMNS, samples_of, write_folder


def recipe(root: Path, out: Path, **changes: object) -> Recipe:
    known = {"dataset": "folder", "root": str(root), "out": str(out), "store_size": 88}
    return Recipe.model_validate({**known, **changes}, strict=False)


@pytest.fixture
def tree(copy_of_drawn: Path, tmp_path: Path) -> Path:
    write_folder(copy_of_drawn, tmp_path / "set", columns=("split",))
    return tmp_path / "set"


@pytest.mark.parametrize("store", ["crop", "original"])
def test_the_same_samples_as_through_celeba(copy_of_drawn: Path, tmp_path: Path, store: str) -> None:
    names = sorted(p.name for p in (copy_of_drawn / "Img/img_celeba").iterdir())
    (copy_of_drawn / "Anno/identity_CelebA.txt").write_text("".join(f"{n} {i // 3}\n" for i, n in enumerate(names)))
    write_folder(copy_of_drawn, tmp_path / "set")
    common = {"store": store, "samples_per_shard": 20}
    one = pack(recipe(copy_of_drawn, tmp_path / "a", dataset="celeba", labels="Label/img_celeba", **common), workers=1)
    other = pack(recipe(tmp_path / "set", tmp_path / "b", labels="labels", landmarks="faces.csv", **common), workers=1)
    shards = sorted(p.name for p in one.folder.glob("*.*") if p.suffix in (".tar", ".idx"))
    assert len(shards) == 10
    for name in shards:
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()


@pytest.mark.parametrize("kind", ["celeba", "align_celeba"])
def test_photographs_as_through_celeba(faces: Path, tmp_path: Path, kind: str) -> None:
    write_folder(faces, tmp_path / "set", kind, columns=("split",))
    reader = "celeba" if kind == "celeba" else "celeba_aligned"
    one = pack(recipe(faces, tmp_path / "a", dataset=reader, labels=f"Label/img_{kind}"), workers=1)
    other = pack(recipe(tmp_path / "set", tmp_path / "b", labels="labels", landmarks="faces.csv"), workers=1)
    assert one.quarantined == other.quarantined == 0 and sum(map(one.samples, one.splits)) == 102
    for shard in one:
        assert (one.folder / shard.name).read_bytes() == (other.folder / shard.name).read_bytes()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("000001.jpg", "000001"),
        ("ann/summer/1.png", "ann__summer__1"),
        ("A-b_(2)+c.jpg", "A-b_(2)+c"),
        ("a" * 92 + ".jpg", "a" * 92),
        ("a" * 93 + ".jpg", "a" * 83 + "-" + hashlib.sha256(b"a" * 93).hexdigest()[:8]),
        ("my face.jpg", "my_face-"),
        ("v1.2/x.jpg", "v1_2__x-"),
        ("Zoë/straße.jpg", "Zo___stra_e-"),
        ("\udcff.jpg", "_-"),
        ("a\nb.jpg", "a_b-"),
    ],
)
def test_keys(given: str, expected: str) -> None:
    got = key(given)
    if expected.endswith("-"):
        assert got.startswith(expected) and len(got) == len(expected) + 8
    else:
        assert got == expected
    assert got.isascii() and "." not in got and " " not in got and len(got) <= 92


def test_names_that_look_alike_have_different_keys() -> None:
    assert len({key(n) for n in ("a b.jpg", "a.b.jpg", "a\tb.jpg", "ä b.jpg")}) == 4


def test_any_file_name_is_packed_and_read_back(drawn: Path, tmp_path: Path) -> None:
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
    manifest = pack(recipe(tmp_path / "set", tmp_path / "out", store="original"), workers=1)
    verify(manifest.folder, deep=True)
    found = {json.loads(s["json"])["source"]: s["jpg"] for s in samples_of(manifest).values()}
    assert found == {name: picture.read_bytes() for name, picture in zip(names, pictures, strict=False)}


def splits(root: Path, **changes: object) -> dict[str, str]:
    return {s.source: s.split for s in read_folder(recipe(root, root / "out", **changes))}


def test_splits_of_the_table(tree: Path) -> None:
    lines = (tree / "faces.csv").read_text().splitlines()[1:]
    assert splits(tree, labels="labels", landmarks="faces.csv") == {
        line.split(",")[0]: line.split(",")[-1] for line in lines
    }


def test_splits_of_folders(drawn: Path, tmp_path: Path) -> None:
    picture = drawn / "Img/img_celeba/000001.jpg"
    for name in ("train/a/1.jpg", "val/2.jpg", "test/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(picture, tmp_path / name)
    assert splits(tmp_path) == {"train/a/1.jpg": "train", "val/2.jpg": "valid", "test/3.jpg": "test"}
    assert splits(tmp_path, splits=["test"]) == {"test/3.jpg": "test"}
    shutil.copy(picture, tmp_path / "0.jpg")  # one picture outside: folders are no splits then
    drawn_lots = splits(tmp_path)
    assert len(drawn_lots) == 4


def test_splits_by_name_are_stable(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number}.jpg").touch()
    before = splits(tmp_path)
    shares = [list(before.values()).count(s) / 2000 for s in ("train", "valid", "test")]
    assert np.abs(np.array(shares) - (0.8, 0.1, 0.1)).max() < 0.03
    for number in range(2000, 2100):
        (tmp_path / f"{number}.jpg").touch()
    after = splits(tmp_path)
    assert len(after) == 2100 and all(after[name] == split for name, split in before.items())


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "set/a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set/a/1.jpg").touch()
    (tmp_path / "elsewhere/2.jpg").touch()
    (tmp_path / "set/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/a/loop").symlink_to(tmp_path / "set")
    assert sorted(splits(tmp_path / "set")) == ["a/1.jpg", "b/2.jpg"]


def test_labels_and_table_may_lie_elsewhere(tree: Path, tmp_path: Path) -> None:
    inside = samples_of(pack(recipe(tree, tmp_path / "a", labels="labels", landmarks="faces.csv"), workers=1))
    (tree / "labels").rename(tmp_path / "maps")
    (tree / "faces.csv").rename(tmp_path / "faces.csv")
    absolute = {"labels": str(tmp_path / "maps"), "landmarks": str(tmp_path / "faces.csv")}
    outside = samples_of(pack(recipe(tree, tmp_path / "b", **absolute), workers=1))
    plain = ("__key__", "jpg", "json", "seg.png", "split")
    assert {k: [s[p] for p in plain] for k, s in inside.items()} == {
        k: [s[p] for p in plain] for k, s in outside.items()
    }
    # An absolute name below root means the same folder: its label maps are no pictures.
    (tmp_path / "maps").rename(tree / "labels")
    assert len(read_folder(recipe(tree, tmp_path / "c", labels=str(tree / "labels")))) == 60


def test_floats_and_order_of_columns(tree: Path, tmp_path: Path) -> None:
    columns = ["right_mouth_y", *COLUMNS[:-1]]
    rows = [line.split(",")[:11] for line in (tree / "faces.csv").read_text().splitlines()[1:]]
    lines = [",".join([f"{float(r[10]) + 0.25}", *r[:10]]) for r in rows]
    (tree / "faces.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([",".join(columns), *lines]).encode())
    first = read_folder(recipe(tree, tmp_path / "o", labels="labels", landmarks="faces.csv"))[0]
    assert first.landmarks == tuple(
        (float(rows[0][i]), float(rows[0][i + 1]) + 0.25 * (i == 9)) for i in range(1, 11, 2)
    )


def change(number: int, line: str):  # type: ignore[no-untyped-def]
    def edit(root: Path) -> None:
        lines = (root / "faces.csv").read_text().splitlines()
        lines[number - 1] = line
        (root / "faces.csv").write_text("\n".join(lines))

    return edit


def swap_eyes(root: Path) -> None:
    lines = (root / "faces.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    (root / "faces.csv").write_text("\n".join([lines[0], *(",".join([r[0], *r[3:5], *r[1:3], *r[5:]]) for r in rows)]))


NUMBERS = "1,2,3,2,2,3,1,4,3,4"


@pytest.mark.parametrize(
    ("edit", "parts"),
    [
        (lambda root: (root / "faces.csv").unlink(), ["faces.csv: this table of landmarks is missing"]),
        (change(1, "file,x"), ["faces.csv:1", "'left_eye_x' is missing"]),
        (change(1, ",".join([*COLUMNS, "smile"])), ["faces.csv:1", "'smile' is unknown"]),
        (change(1, ",".join([*COLUMNS, "file"])), ["faces.csv:1", "'file' is there twice"]),
        (change(5, f"000004.jpg,{NUMBERS}"), ["faces.csv:5: has 11 fields, the header 12"]),
        (change(5, f"000004.jpg,{NUMBERS[:-1]}four,train"), ["faces.csv:5: right_mouth_y must be a number", "'four'"]),
        (change(5, f"000004.jpg,{NUMBERS[:-1]}nan,train"), ["faces.csv:5: right_mouth_y must be a number"]),
        (change(5, f"000004.jpg,{NUMBERS},dev"), ["faces.csv:5: split must be train, valid or test, found 'dev'"]),
        (change(5, f"000003.jpg,{NUMBERS},train"), ["faces.csv:5: 000003.jpg is listed for the second time"]),
        (change(5, f"nobody.jpg,{NUMBERS},train"), ["faces.csv:5: nobody.jpg is no picture below", "set"]),
        (change(5, ""), ["faces.csv: has no row for 000004.jpg of", "set"]),
        (lambda root: (root / "000004.jpg").unlink(), ["faces.csv:5: 000004.jpg is no picture below"]),
        (change(5, '000004.jpg,"1'), ["faces.csv:", "is no CSV"]),
        (lambda root: (root / "faces.csv").write_bytes(b"\xff\xfe"), ["faces.csv: cannot be read as text"]),
        (swap_eyes, ["60 of 60 rows the left eye lies right of the right eye"]),
        (lambda root: (root / "labels/000004.png").unlink(), ["labels/000004.png: the label map is missing"]),
        (lambda root: shutil.copy(root / "000004.jpg", root / "000004.png"), ["no row for 000004.png"]),
        (lambda root: [p.unlink() for p in root.glob("*.jpg")], ["set: holds no picture (.jpg, .jpeg"]),
        (shutil.rmtree, ["set: no such folder, and no set.zip or .tar there"]),
    ],
)
def test_malformed(tree: Path, tmp_path: Path, edit, parts: list[str]) -> None:  # type: ignore[no-untyped-def]
    edit(tree)
    with pytest.raises(DataError) as caught:
        pack(recipe(tree, tmp_path / "out", labels="labels", landmarks="faces.csv"), workers=1)
    assert all(part in str(caught.value) for part in parts), caught.value
    assert not (tmp_path / "out/manifest.json").exists()


def test_two_pictures_of_one_name(tree: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tree / "000004.png"), cv2.imread(str(tree / "000004.jpg")))
    with pytest.raises(DataError, match=r"000004.png and 000004.jpg would both be sample '000004'"):
        pack(recipe(tree, tmp_path / "out"), workers=1)


def test_label_maps_need_a_folder_of_their_own(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is the folder of the pictures"):
        pack(recipe(tree, tmp_path / "out", labels="."), workers=1)


@pytest.mark.parametrize(
    ("dataset", "line", "text"),
    [
        ("celeba", "landmarks: faces.csv", "celeba has landmarks of its own"),
        ("celeba_aligned", "landmarks: faces.csv", "celeba_aligned has landmarks of its own"),
        ("celebamask_hq", "landmarks: faces.csv", "celebamask_hq has no landmarks"),
        ("celebamask_hq", "labels: Label", "celebamask_hq has label maps of its own"),
    ],
)
def test_keys_without_a_meaning_are_refused(tmp_path: Path, dataset: str, line: str, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"dataset: {dataset}\nroot: x\nout: y\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(path))
    assert f"r.yaml:4: {line.split(':')[0]}: {text}" in str(caught.value)
    path.write_text(f"dataset: {dataset}\nroot: x\nout: y\n{line.split(':')[0]}: null\n")
    load_recipe(str(path))


def test_recipes_that_come_with_the_project() -> None:
    from tests.conftest import ROOT

    for path in (ROOT / "shards").glob("*.yaml"):
        assert load_recipe(str(path)).dataset in (path.stem, "celeba")
