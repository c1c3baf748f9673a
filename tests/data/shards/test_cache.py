import fcntl
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.errors import ConfigError
from tests.data.remote_shards import names, output_lines, reading, remote_manifest


def test_who_comes_later_waits_for_who_fetches(server, cache):
    """Two processes at the same file, which the server holds back until both are there."""
    server.faults["train-000000.tar"] = ["slow", ""]
    readers = [reading(server.url, cache, seed=seed) for seed in (1, 2)]
    while server.requests["train-000000.idx"] < 1 or server.requests["train-000000.tar"] < 1:
        time.sleep(0.01)
    time.sleep(0.5)
    server.go_on.set()
    first, second = (output_lines(r) for r in readers)
    assert first == second and len(first) == 144
    assert all(count == 1 for name, count in server.requests.items() if name != "manifest.json")


@pytest.mark.parametrize("waiting", [True, False], ids=["one-waits", "one-comes-later"])
def test_a_killed_download_leaves_nothing_in_the_way(shards, server, cache, waiting):
    slow = shards.shards("train")[0]
    partial = cache / f".{slow.sha256}.tar.{slow.bytes}.partial"
    server.faults[slow.name] = ["slow", ""]
    killed = reading(server.url, cache)
    while not (partial.exists() and partial.stat().st_size):
        time.sleep(0.01)
    other = reading(server.url, cache) if waiting else None
    while waiting and server.requests["manifest.json"] < 2:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert waiting or partial.exists()
    assert len(output_lines(other or reading(server.url, cache))) == 144
    assert server.requests[slow.name] == 2
    assert not [name for name in names(cache) if name.startswith(".")]


def test_a_dead_partial_file_of_another_data_set_gives_its_room_back(server, cache):
    cache.mkdir()
    dead, foreign = cache / f".{'0' * 64}.tar.900000000.partial", cache / "notes.txt"
    dead.write_bytes(b"x" * 1000)
    foreign.write_text("not ours")
    SplitReader(remote_manifest(server.url, cache), "train").read(0)
    assert not dead.exists() and foreign.exists()


def test_the_bound_holds_while_two_processes_read_more_than_it(shards, server, cache):
    """Sizes in the cache, looked at under its lock, while three shards are read at random through room for one."""
    tars = shards.shards("train")
    sizes = [s.bytes for s in tars]
    bound = max(sizes) + 15000  # an index is announced with up to 10 kB
    assert sum(sizes) > bound
    server.faults, server.forever = {s.name: ["pause"] for s in tars}, True
    largest, done = 0, threading.Event()

    def watch() -> None:
        nonlocal largest
        while not done.is_set():
            if (cache / ".lock").exists():
                with (cache / ".lock").open("r+") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    largest = max(largest, sum(p.stat().st_size for p in cache.iterdir()))
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        readers = [reading(server.url, cache, bound / 1e9, seed, times=1) for seed in (1, 2)]
        results = [output_lines(r) for r in readers]
    finally:
        done.set()
        watcher.join()
    assert results[0] == results[1] and len(results[0]) == 48
    assert max(sizes) <= largest <= bound
    assert server.requests["train-000000.tar"] > 1  # it did not all fit


def test_what_was_used_last_is_kept(shards, server, cache):
    tars = shards.shards("train")
    bound = sum(s.bytes for s in tars) - 1
    split = SplitReader(remote_manifest(server.url, cache, (bound + 40000) / 1e9), "train")
    split.read(0)
    split.read(20)
    for moment, shard in enumerate(tars[:2], 1000):
        os.utime(cache / f"{shard.sha256}.tar", (moment, moment))
    split = SplitReader(remote_manifest(server.url, cache, bound / 1e9), "train")
    split.read(0)
    split.read(40)
    kept = [(cache / f"{s.sha256}.tar").exists() for s in tars]
    assert kept == [True, False, True]


def test_a_bound_below_one_shard_is_refused(shards, server, cache):
    with pytest.raises(ConfigError, match=r"data\.cache\.gigabytes: 2e-05 cannot hold one file of 1\d\d\.\d kB"):
        SplitReader(remote_manifest(server.url, cache, 2e-5), "train").read(0)


def test_a_folder_that_is_none(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/cache: cannot be used as cache .*set data\.cache\.folder"):
        SplitReader(remote_manifest(server.url, tmp_path / "file/cache"), "train").read(0)


def test_a_full_disk_is_named(shards, server, tmp_path):
    """A real one: a small tmpfs of the process's own."""
    script = (
        "import sys; from pathlib import Path; from tests.data.remote_shards import remote_manifest\n"
        "from collagan_dist.data.shards.shard_reader import SplitReader; from collagan_dist.errors import DataError\n"
        "try: SplitReader(remote_manifest(sys.argv[1], Path(sys.argv[2])), 'train').read(0)\n"
        "except DataError as error: print(error)\n"
        "print([p.name for p in Path(sys.argv[2]).iterdir() if 'tar' in p.name])\n"
    )
    mount = f'mount -t tmpfs -o size=100k none {tmp_path} && exec {sys.executable} -c "$0" {server.url} {tmp_path}'
    done = subprocess.run(["unshare", "-m", "sh", "-c", mount, script], capture_output=True, text=True)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("mount namespaces need root")
    assert f"{tmp_path}: no space left for a copy of" in done.stdout and " free)" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
