"""Packing: the same bytes for any workers, parts and interruptions; what is quarantined; what stops it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from collagan_dist.data.packing.pack import merge, pack, pack_part
from collagan_dist.data.shards import wire_format
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.data.shards.verify import verify
from collagan_dist.errors import DataError
from tests.data.packed import contents, recipe


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


def test_parts_in_any_order_give_the_same_bytes(drawn: Path, tmp_path: Path) -> None:
    small = {"samples_per_shard": 7}
    pack(recipe(drawn, tmp_path / "whole", **small), workers=1)
    mine = recipe(drawn, tmp_path / "parts", **small)
    pack_part(mine, 3, 3)  # counted from 1: the same as 0/3
    with pytest.raises(DataError, match=r"6 of 9 shards are missing .*train-000001.tar, .*run their parts again"):
        merge(mine)
    assert not (tmp_path / "parts/manifest.json").exists()
    assert sum(part.shard.samples for part in pack_part(mine, 2, 3) or []) == 7 + 7 + 6
    pack_part(mine, 1, 3)
    (tmp_path / "parts/train-000004.idx").write_bytes(b"")  # damaged since
    with pytest.raises(DataError, match=r"1 of 9 shards .*train-000004.tar"):
        merge(mine)
    pack_part(mine, 1, 3)
    merge(mine)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert pack_part(mine, 0, 3) is None and merge(mine).hash == pack(mine).hash


def test_only_one_packing_at_a_time(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = recipe(drawn, tmp_path / "out")
    monkeypatch.setattr("collagan_dist.data.packing.pack._LOCK_SECONDS", 0.2)
    pack_part(mine, 0, 2, workers=1)
    with (tmp_path / "out/.parts/lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # as a part holds it
        pack_part(mine, 1, 2, workers=1)
        for work in (pack, merge):
            with pytest.raises(DataError, match="another `collagan pack` is at work"):
                work(mine)
    pack(mine)


def test_quarantined_pictures_survive_parts_and_merge(copy_of_drawn: Path, tmp_path: Path) -> None:
    (copy_of_drawn / "Img/img_celeba/000003.jpg").write_bytes(b"")
    mine = recipe(copy_of_drawn, tmp_path / "parts")
    for number in range(2):
        pack_part(mine, number, 2, workers=1)
    assert merge(mine).quarantined == 1
    pack(recipe(copy_of_drawn, tmp_path / "whole"), workers=1)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_what_a_packing_killed_at_its_very_end_leaves_is_removed(drawn: Path, tmp_path: Path) -> None:
    mine = recipe(drawn, tmp_path / "out")
    pack(mine)
    before = contents(tmp_path / "out")
    (tmp_path / "out/.parts").mkdir()
    (tmp_path / "out/.parts/train-000000.json").write_text("{}")
    pack(mine)
    assert contents(tmp_path / "out") == before


def test_who_waited_while_another_one_finished_finds_it_done(drawn: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    pack(recipe(drawn, whole))
    out = tmp_path / "out"
    (out / ".parts").mkdir(parents=True)
    with (out / ".parts/lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        (tmp_path / "recipe.yaml").write_text(
            f"{{dataset: celeba, root: {drawn}, labels: Label/img_celeba, out: {out}, samples_per_shard: 20, store_size: 88}}"
        )
        command = [sys.executable, "-m", "collagan_dist", "pack", str(tmp_path / "recipe.yaml"), "--part", "0/2"]
        waiting = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        time.sleep(3)  # it has read the annotations and waits for the lock
        for path in whole.iterdir():
            shutil.copy(path, out)
        before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
        shutil.rmtree(out / ".parts")
    assert "is packed and merged already" in waiting.communicate(timeout=60)[0] and waiting.returncode == 0
    assert contents(out) == contents(whole)
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")} == before
