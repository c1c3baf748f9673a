"""Packing in parts: whoever builds which shard, where and when, the bytes are the same."""

from __future__ import annotations

import fcntl
import multiprocessing
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from collagan_dist.data.packing import shard_job
from collagan_dist.data.packing.pack import merge, pack, pack_part
from collagan_dist.data.readers.registry import READERS
from collagan_dist.errors import ClusterError, DataError
from tests.data.test_pack import contents, recipe


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


def test_a_note_of_other_library_versions_is_not_believed(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = recipe(drawn, tmp_path / "out")
    pack_part(mine, 0, 1, workers=1)
    monkeypatch.setattr(shard_job, "library_versions", lambda: "another node's")
    with pytest.raises(DataError, match=r"5 of 5 shards are missing or were made by .* other library versions"):
        merge(mine)
    with pytest.raises(ClusterError, match="this packing uses another node's"):
        next(spread_here(list(shard_job.plan_jobs(mine, READERS["celeba"](mine)))))


def spread_here(work: list[shard_job.ShardJob]) -> Iterator[shard_job.ShardResult]:
    """Builds as a node with its own tools does."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield from pool.imap(shard_job.build_shard, work)


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
