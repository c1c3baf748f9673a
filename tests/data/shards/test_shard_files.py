import fcntl
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.data.shards.shard_files import read_index
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.errors import DataError
from tests.data.remote_shards import content, remote_manifest


def test_a_shard_of_a_folder_is_read_ahead_whole(shards, tmp_path):
    copy = read_manifest(shutil.copytree(shards.folder, tmp_path / "copy"))
    path = tmp_path / "copy" / copy.shards("train")[0].name

    def resident() -> int:
        return int(subprocess.check_output(["fincore", "-n", "-r", "-b", "-o", "RES", path]))

    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident():
        pytest.skip("this file system keeps its pages")
    SplitReader(copy, "train").prefetch(0)
    last = time.monotonic() + 10
    while resident() < path.stat().st_size and time.monotonic() < last:
        time.sleep(0.02)
    assert resident() >= path.stat().st_size


def test_an_index_that_another_rank_rebuilds_meanwhile_is_reported_once(shards, tmp_path, caplog):
    folder = Path(shutil.copytree(shards.folder, tmp_path / "copy"))
    tar, index = (folder / name for name in ("train-000001.tar", "train-000001.idx"))
    undamaged = index.read_bytes()
    index.unlink()
    with ThreadPoolExecutor() as pool, caplog.at_level("INFO"), tar.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = pool.submit(read_index, folder, shards.shards("train")[1])
        time.sleep(0.5)  # it has seen that there is no index, and waits for the lock
        assert not waiting.done()
        index.write_bytes(undamaged)
        fcntl.flock(other, fcntl.LOCK_UN)
        assert len(waiting.result(60)) == 20
    assert "rebuilt" not in caplog.text


def test_an_index_that_is_a_pipe_or_without_end(shards, tmp_path):
    """Nothing is waited for, and no more is read than an index may have."""
    folder = Path(shutil.copytree(shards.folder, tmp_path / "copy"))
    index, shard = folder / "train-000001.idx", shards.shards("train")[1]
    os.truncate(index, 1 << 40)
    assert len(read_index(folder, shard)) == 20 and index.stat().st_size < 10_000
    index.unlink()
    os.mkfifo(index)
    with pytest.raises(DataError, match=r"train-000001.idx: cannot be read"):
        read_index(folder, shard)


def test_a_removed_or_damaged_copy_is_fetched_again(shards, server, cache):
    local, split = SplitReader(shards, "train"), SplitReader(remote_manifest(server.url, cache), "train")
    tar = cache / f"{shards.shards('train')[0].sha256}.tar"
    index = cache / f"{shards.shards('train')[0].idx_sha256}.idx"
    assert content(split.read(3)) == content(local.read(3))
    tar.unlink()
    assert content(split.read(4)) == content(local.read(4))
    os.truncate(tar, 700)
    assert content(split.read(5)) == content(local.read(5))
    index.write_bytes(index.read_bytes()[:-1])
    again = SplitReader(remote_manifest(server.url, cache), "train")
    assert content(again.read(6)) == content(local.read(6))
    assert server.requests["train-000000.tar"] == 3 and server.requests["train-000000.idx"] == 2
    targets = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert not [name for name in targets if name.startswith(str(cache))]
