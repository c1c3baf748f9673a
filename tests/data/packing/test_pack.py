import fcntl
import gc
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from collagan_dist.data.packing.pack import merge, pack, pack_part
from collagan_dist.data.packing.shard_job import build_shard
from collagan_dist.data.shards.verify import verify
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.types import SPLITS
from tests.data.layouts import samples_of, splits_of
from tests.data.packed import contents, recipe


def test_bytes_do_not_depend_on_workers(drawn, shards, tmp_path):
    assert contents(pack(recipe(drawn, tmp_path), workers=5).folder) == contents(shards.folder)


class _WaitsInAFork:
    """In a cycle, as DALI's pipelines are: whoever collects garbage finalizes it."""

    def __init__(self, made_by):
        self.made_by, self.itself = made_by, self

    def __del__(self):
        if os.getpid() != self.made_by:
            time.sleep(100)


def _collects_then_builds(job):
    gc.collect()
    return build_shard(job)


@pytest.mark.timeout(60)
def test_workers_finalize_nothing_that_they_inherit(drawn, shards, tmp_path, monkeypatch):
    _WaitsInAFork(os.getpid())
    monkeypatch.setattr("collagan_dist.data.packing.pack.build_shard", _collects_then_builds)
    assert contents(pack(recipe(drawn, tmp_path), workers=1).folder) == contents(shards.folder)


def test_every_sample_once_in_its_split(drawn, shards):
    found = {name: sample["split"] for name, sample in samples_of(shards).items()}
    assert found == {name: SPLITS[int(number)] for name, number in splits_of(drawn).items()}


def test_unusable_pictures_are_named_and_left_out(copy_of_drawn, tmp_path):
    pictures = copy_of_drawn / "Img/img_celeba"
    os.truncate(pictures / "000001.jpg", 5000)
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


def test_too_many_unusable_pictures_fail(drawn, shards, copy_of_drawn, tmp_path):
    """The same command accepts them with --max-bad, and takes them once they are repaired."""
    pictures = [f"Img/img_celeba/{number:06d}.jpg" for number in range(1, 13)]
    for name in pictures:
        (copy_of_drawn / name).write_bytes(b"")
    for out in (tmp_path / "accepted", tmp_path / "repaired"):
        with pytest.raises(DataError, match=r"12 of 60 pictures are unusable.*--max-bad"):
            pack(recipe(copy_of_drawn, out), workers=1)
        assert not (out / "manifest.json").exists()
    assert pack(recipe(copy_of_drawn, tmp_path / "accepted"), workers=1, max_bad=0.3).quarantined == 12
    for name in pictures:
        shutil.copy(drawn / name, copy_of_drawn / name)
    assert pack(recipe(copy_of_drawn, tmp_path / "repaired"), workers=1).quarantined == 0
    assert contents(tmp_path / "repaired") == contents(shards.folder)


def test_another_recipe_does_not_touch_finished_shards(drawn, shards, tmp_path):
    out = Path(shutil.copytree(shards.folder, tmp_path / "out"))
    with pytest.raises(DataError, match="another recipe"):
        pack(recipe(drawn, out, store="original"), workers=1)
    assert contents(out) == contents(shards.folder)
    assert pack(recipe(drawn, out), workers=1).hash == shards.hash


def test_a_folder_of_something_else_is_left_alone(drawn, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        pack(recipe(drawn, tmp_path), workers=1)
    assert contents(tmp_path) == {"thesis.tex": b"mine"}


def test_parts_in_any_order_give_the_same_bytes(copy_of_drawn, tmp_path):
    (copy_of_drawn / "Img/img_celeba/000003.jpg").write_bytes(b"")
    pack(recipe(copy_of_drawn, tmp_path / "whole", samples_per_shard=7), workers=1)
    mine = recipe(copy_of_drawn, tmp_path / "parts", samples_per_shard=7)
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
    assert pack_part(mine, 0, 3) is None and merge(mine).quarantined == 1
    (tmp_path / "parts/.parts").mkdir()  # as a packing leaves it that is killed at its very end
    (tmp_path / "parts/.parts/train-000000.json").write_text("{}")
    pack(mine)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_only_one_packing_at_a_time(drawn, tmp_path, monkeypatch):
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


def test_who_waited_while_another_one_finished_finds_it_done(drawn, shards, tmp_path):
    out = tmp_path / "out"
    (out / ".parts").mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        with (out / ".parts/lock").open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            waiting = pool.submit(pack_part, recipe(drawn, out), 0, 2, workers=1)
            time.sleep(1)  # it has read the annotations and waits for the lock
            assert not waiting.done()
            shutil.copytree(shards.folder, out, dirs_exist_ok=True)
            before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
            shutil.rmtree(out / ".parts")
        assert waiting.result(60) is None
    assert contents(out) == contents(shards.folder)
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")} == before


def test_a_finished_folder_says_that_it_was_packed_from_something_else(drawn, copy_of_drawn, tmp_path):
    """Another root, or other annotation: not `packed already`. Without the note of an older program it cannot be told."""
    out = tmp_path / "out"
    manifest = pack(recipe(copy_of_drawn, out), workers=1)
    assert pack(recipe(copy_of_drawn, out), workers=1) == manifest
    # The same place by another way is the same.
    (tmp_path / "link").symlink_to(copy_of_drawn)
    assert pack(recipe(tmp_path / "link", out), workers=1) == manifest
    with pytest.raises(ConfigError, match=rf"{out}: is packed already, from {copy_of_drawn}, not {drawn};"):
        pack(recipe(drawn, out), workers=1)
    path = copy_of_drawn / "Anno/list_landmarks_celeba.txt"
    lines = path.read_text().splitlines()
    lines[2] = " ".join([*lines[2].split()[:-1], "1"])
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(
        ConfigError, match=r"is packed already, from other annotations or pictures than now; give another --out"
    ):
        pack(recipe(copy_of_drawn, out), workers=1)
    (out / ".source.json").unlink()
    assert pack(recipe(copy_of_drawn, out), workers=1) == manifest


def test_files_of_others_stay_and_shards_by_another_way_continue(drawn, shards, tmp_path):
    """What packing removes is of its own names; an interrupted packing continues when its root is written differently."""
    out = tmp_path / "out"
    (tmp_path / "link").symlink_to(drawn)
    pack_part(recipe(drawn, out), 0, 2, workers=1)
    mine = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    others = ["backup.tar", "download.partial", "train-000000.tar.orig", "notes.idx", "my-train-000000.tar"]
    stale = [
        "train-999999.tar",
        "train-999999.idx",
        ".train-000001.tar.0a1b2c3d.partial",
        ".manifest.json.0a1b2c3d.partial",
    ]
    for name in (*others, *stale):
        (out / name).write_bytes(b"x")
    pack(recipe(tmp_path / "link", out), workers=1)
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar") if path.name in mine} == mine
    assert [name for name in (*others, *stale) if (out / name).exists()] == others
    for name in others:
        (out / name).unlink()
    assert contents(out) == contents(shards.folder)
