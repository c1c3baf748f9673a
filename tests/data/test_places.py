"""Shards behind a URL: a real server, a real cache. What arrives is what was packed, whatever happens on the way."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from collagan_dist import files
from collagan_dist.config.load import identity_keys, to_yaml
from collagan_dist.config.tree import Augment, Cache
from collagan_dist.data.loading.loader import Loader, View
from collagan_dist.data.shards import remote
from collagan_dist.data.shards.manifest import Manifest, read_manifest
from collagan_dist.data.shards.quick_check import quick_check
from collagan_dist.data.shards.shard_reader import SplitReader, StoredSample
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.inference.score import score
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.conftest import collagan
from tests.data.server import Server, serving
from tests.faults.test_bad_input import run
from tests.training.small import equal, small, weights

READ_ALL = """
import sys, random
from collagan_dist.config.tree import Cache
from collagan_dist.data.shards import remote
from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.data.shards.shard_reader import SplitReader
url, folder, gigabytes, seed, times = sys.argv[1:]
split = SplitReader(read_manifest(remote.open_location(url, Cache(folder=folder, gigabytes=float(gigabytes)))), "train")
numbers = list(range(len(split))) * int(times)
random.Random(int(seed)).shuffle(numbers)
for number in numbers:
    sample = split.read(number)
    print(number, sample.key, hash((sample.jpg.tobytes(), sample.labels.tobytes())), flush=True)
"""


@pytest.fixture
def server(shards: Manifest) -> Iterator[Server]:
    with serving(shards.folder) as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(remote, "_RETRY_SECONDS", (0.01, 0.02))
    return tmp_path / "cache"


def remote_manifest(url: str, folder: Path, gigabytes: float = 1.0) -> Manifest:
    return read_manifest(remote.open_location(url, Cache(folder=str(folder), gigabytes=gigabytes)))


def content(sample: StoredSample) -> tuple:
    assert sample.labels is not None
    return sample.key, sample.jpg.tobytes(), sample.labels.tobytes(), sample.landmarks


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def reading(url: str, folder: Path, gigabytes: float = 1.0, seed: int = 0, times: int = 3) -> subprocess.Popen[str]:
    """A process that reads every sample of the train split some times in some order, and prints what it got."""
    arguments = [url, str(folder), str(gigabytes), str(seed), str(times)]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", READ_ALL, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finished(process: subprocess.Popen[str]) -> list[str]:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return sorted(output.splitlines())


def test_training_from_a_url_is_training_from_the_folder(
    shards: Manifest, server: Server, cache: Path, tmp_path: Path
) -> None:
    """Bit for bit; and its run folder names the URL, from which it is evaluated."""
    train(small(shards.folder), tmp_path / "folder", World())
    from_url = small(Path("/"), data__shards=server.url, data__cache={"folder": str(cache)})
    train(from_url, tmp_path / "url", World())
    assert equal(weights(tmp_path / "folder", 7), weights(tmp_path / "url", 7))
    assert json.loads((tmp_path / "url/data.json").read_text())["shards"] == server.url
    scores = [score(tmp_path / name, World())[0][0] for name in ("folder", "url")]
    assert scores[0] == scores[1]
    assert names(cache) == {n for s in shards for n in (f"{s.sha256}.tar", f"{s.idx_sha256}.idx")}
    for shard in shards.shards("train"):
        assert files.sha256(cache / f"{shard.sha256}.tar") == shard.sha256


def test_shards_are_asked_for_before_they_are_read(shards: Manifest, server: Server, cache: Path) -> None:
    """Each once, while the first batches are still being looked at; the batches are those of the folder."""

    def plan() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in range(0, 48, 4):  # twelve batches over three shards
            yield np.arange(first, first + 4), np.zeros(4, np.int64)

    def loader(split: SplitReader) -> Loader:
        return Loader(split, View(32, "block", 0, Augment()), 4, 1, torch.device("cpu"))

    batches = loader(SplitReader(remote_manifest(server.url, cache), "train")).batches(plan())
    first = next(batches)
    wanted = {f"{s.sha256}.tar" for s in shards.shards("train")}
    last = time.monotonic() + 20
    while not wanted <= names(cache) and time.monotonic() < last:
        time.sleep(0.02)
    assert wanted <= names(cache)
    near = list(loader(SplitReader(shards, "train")).batches(plan(), prefetch=True))
    assert all(torch.equal(a.image_B3HW, b.image_B3HW) for a, b in zip([first, *batches], near, strict=True))
    assert all(server.requests[s.name] == 1 for s in shards.shards("train"))


def test_a_shard_of_a_folder_is_read_ahead_whole(shards: Manifest, tmp_path: Path) -> None:
    copy = read_manifest(shutil.copytree(shards.folder, tmp_path / "copy"))
    path = tmp_path / "copy" / copy.shards("train")[0].name

    def resident() -> int:
        lines = subprocess.run(
            ["fincore", "-n", "-r", "-b", "-o", "RES", path], capture_output=True, text=True, check=True
        )
        return int(lines.stdout)

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


def test_where_and_how_large_the_cache_is_does_not_make_another_run(server: Server) -> None:
    one = small(Path("/"), data__shards=server.url)
    other = small(Path("/x"), data__cache={"folder": "/elsewhere", "gigabytes": 1.0})
    assert identity_keys(one) == identity_keys(other)


def test_ranks_fetch_every_file_once(shards: Manifest, server: Server, cache: Path, tmp_path: Path) -> None:
    settings = {"folder": str(cache)}
    path = tmp_path / "small.yaml"
    path.write_text(
        to_yaml(small(Path("/"), data__shards=server.url, data__cache=settings, schedule__batch=12, schedule__steps=5))
    )
    collagan("train", path, "--run", tmp_path / "run", ranks=2)
    fetched = {name: count for name, count in server.requests.items() if name != "manifest.json"}
    assert fetched.keys() >= {name for s in shards.shards("train") for name in (s.name, s.index_name)}
    assert set(fetched.values()) == {1}


def test_who_comes_later_waits_for_who_fetches(server: Server, cache: Path) -> None:
    """Two processes at the same file, which the server holds back until both are there."""
    server.faults["train-000000.tar"] = ["slow", ""]
    readers = [reading(server.url, cache, seed=seed) for seed in (1, 2)]
    while server.requests["train-000000.idx"] < 1 or server.requests["train-000000.tar"] < 1:
        time.sleep(0.01)
    time.sleep(0.5)
    server.go_on.set()
    first, second = (finished(r) for r in readers)
    assert first == second and len(first) == 144
    assert all(count == 1 for name, count in server.requests.items() if name != "manifest.json")


@pytest.mark.parametrize("waiting", [True, False], ids=["one-waits", "one-comes-later"])
def test_a_killed_download_leaves_nothing_in_the_way(
    shards: Manifest, server: Server, cache: Path, waiting: bool
) -> None:
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
    assert len(finished(other or reading(server.url, cache))) == 144
    assert server.requests[slow.name] == 2
    assert not [name for name in names(cache) if name.startswith(".")]


def test_a_dead_partial_file_of_another_data_set_gives_its_room_back(server: Server, cache: Path) -> None:
    cache.mkdir()
    dead, foreign = cache / f".{'0' * 64}.tar.900000000.partial", cache / "notes.txt"
    dead.write_bytes(b"x" * 1000)
    foreign.write_text("not ours")
    SplitReader(remote_manifest(server.url, cache), "train").read(0)
    assert not dead.exists() and foreign.exists()


@pytest.mark.parametrize("room", [1, 2])
def test_the_bound_holds_while_two_processes_read_more_than_it(
    shards: Manifest, server: Server, cache: Path, room: int
) -> None:
    """Sizes in the cache, looked at under its lock, while three shards are read at random through room for fewer."""
    tars = shards.shards("train")
    sizes = [s.bytes for s in tars]
    bound = max(sizes) * room + 15000  # an index is announced with up to 10 kB
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
        results = [finished(r) for r in readers]
    finally:
        done.set()
        watcher.join()
    assert results[0] == results[1] and len(results[0]) == 48
    assert max(sizes) <= largest <= bound
    assert server.requests["train-000000.tar"] > 1  # it did not all fit


def test_what_was_used_last_is_kept(shards: Manifest, server: Server, cache: Path) -> None:
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


def test_a_removed_or_damaged_copy_is_fetched_again(shards: Manifest, server: Server, cache: Path) -> None:
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


@pytest.mark.parametrize("fault", ["short", "drop", "flip", "longer", "503"])
@pytest.mark.parametrize("name", ["train-000000.tar", "train-000000.idx"])
def test_a_transfer_that_fails_is_made_again(
    shards: Manifest, server: Server, cache: Path, name: str, fault: str
) -> None:
    server.faults[name] = [fault, fault, ""]
    split = SplitReader(remote_manifest(server.url, cache), "train")
    assert content(split.read(0)) == content(SplitReader(shards, "train").read(0))
    assert server.requests[name] == 3


@pytest.mark.parametrize(
    ("fault", "tries", "said"),
    [
        ("short", 3, "expected exactly"),
        ("flip", 3, "with sha256"),
        ("longer", 3, "found more than"),
        ("503", 3, "answers 503"),
        ("403", 1, "answers 403"),
    ],
)
def test_what_cannot_be_had_whole_stops_the_training(
    shards: Manifest,
    server: Server,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fault: str,
    tries: int,
    said: str,
) -> None:
    server.faults["train-000001.tar"], server.forever = [fault], True
    path = tmp_path / "small.yaml"
    path.write_text(to_yaml(small(Path("/"), data__shards=server.url, data__cache={"folder": str(cache)})))
    code, text = run(capsys, "train", path, "--run", tmp_path / "run")
    assert code == 3 and f"{server.url}/train-000001.tar" in text and said in text, text
    # Once when it was asked for ahead, which may still be under way, and once when it was to be read.
    assert tries <= server.requests["train-000001.tar"] <= 2 * tries and "Traceback" not in text
    wrong = shards.shards("train")[1]

    def left() -> list[str]:
        return [name for name in names(cache) if name.startswith(".") or wrong.sha256 in name]

    last = time.monotonic() + 60  # another shard may still be under way
    while left() and time.monotonic() < last:
        time.sleep(0.02)
    assert not left()


def test_verify_reads_the_source_and_not_the_cache(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    SplitReader(read_manifest(server.url), "train").read(0)
    assert names(cache / "collagan_dist/shards")
    assert run(capsys, "verify", server.url)[0] == 0
    assert run(capsys, "verify", server.url, "--deep")[0] == 0
    server.faults, server.forever = {"train-000000.tar": ["flip"], "test-000000.idx": ["flip"]}, True
    code, text = run(capsys, "verify", server.url, "--deep")
    assert code == 3
    assert f"{server.url}/train-000000.tar: expected" in text and f"{server.url}/test-000000.idx: expected" in text


def test_verify_asks_a_server_for_sizes(shards: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in shards.folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    os.truncate(copy / "train-000001.tar", 1000)
    (copy / "valid-000000.idx").unlink()
    with serving(copy) as server:
        code, text = run(capsys, "verify", server.url)
        assert code == 3 and f"{server.url}/train-000001.tar: has 1000 bytes, the manifest says" in text
        assert f"{server.url}/valid-000000.idx: is missing" in text


def test_file_systems_that_list_are_checked_at_the_start(shards: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that fsspec brings along, in place of an object store."""
    import fsspec

    monkeypatch.setitem(remote.SCHEMES, "memory", "")
    memory = fsspec.filesystem("memory")
    memory.put(str(shards.folder), "/listed", recursive=True)
    try:
        manifest = read_manifest("memory://listed")
        quick_check(manifest)
        memory.pipe_file("/listed/train-000001.tar", b"short")
        memory.rm_file("/listed/test-000000.idx")
        with pytest.raises(DataError) as error:
            quick_check(manifest)
        assert "memory://listed/train-000001.tar: has 5 bytes, the manifest says" in str(error.value)
        assert "memory://listed/test-000000.idx: is missing" in str(error.value)
    finally:
        memory.rm("/listed", recursive=True)


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("pipe:touch canary", 2, "read from a folder or from file://, http://"),
        ("pipe://touch canary", 2, "read from a folder"),
        ("memory://shards", 2, "read from a folder"),
        ("simplecache::http://x/y", 2, "read from a folder"),
        ("http:///", 2, "read from a folder"),
        ("http://somebody:secret@127.0.0.1/x", 2, "credentials belong in the environment"),
        ("http://127.0.0.1/x?token=secret", 2, "without password, ? or #"),
        ("http://127.0.0.1:1/x", 3, "http://127.0.0.1:1/x/manifest.json: cannot be fetched"),
    ],
)
def test_places_that_are_not_read(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url, code, said
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    for command in (["verify", url], ["train", "demo", "--data", url, "--run", "run"]):
        found, text = run(capsys, *command)
        assert found == code and said in text and "secret" not in text and len(text.splitlines()) == 1, text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gs"), ("abfs", "az")])
def test_a_missing_driver_says_what_to_install(
    scheme: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, package, None)
    code, text = run(capsys, "verify", f"{scheme}://bucket/folder")
    assert code == 2 and f"pip install 'collagan_dist[{extra}]'" in text


def test_no_data_set_behind_a_url(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "verify", f"{server.url}/deeper")
    assert code == 3 and f"{server.url}/deeper/manifest.json: there is no such file there" in text
    assert server.requests["manifest.json"] == 1


def test_a_file_url_is_a_folder(shards: Manifest) -> None:
    assert read_manifest(f"file://{shards.folder}") == shards


def test_a_bound_below_one_shard_is_refused(shards: Manifest, server: Server, cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.cache\.gigabytes: 2e-05 cannot hold one file of 1\d\d\.\d kB"):
        SplitReader(remote_manifest(server.url, cache, 2e-5), "train").read(0)


def test_a_folder_that_is_none(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/cache: cannot be used as cache .*set data\.cache\.folder"):
        SplitReader(remote_manifest(server.url, tmp_path / "file/cache"), "train").read(0)


def test_a_full_disk_is_named(shards: Manifest, server: Server, tmp_path: Path) -> None:
    """A real one: a small tmpfs of the process's own."""
    script = (
        "import sys; from pathlib import Path; from tests.data.test_places import remote_manifest\n"
        "from collagan_dist.data.shards.shard_reader import SplitReader; from collagan_dist.errors import DataError\n"
        "try: SplitReader(remote_manifest(sys.argv[1], Path(sys.argv[2])), 'train').read(0)\n"
        "except DataError as error: print(error)\n"
        "print([p.name for p in Path(sys.argv[2]).iterdir() if 'tar' in p.name])\n"
    )
    mount = f'mount -t tmpfs -o size=100k none {tmp_path} && exec {sys.executable} -c "$0" {server.url} {tmp_path}'
    done = subprocess.run(["unshare", "-m", "sh", "-c", mount, script], capture_output=True, text=True)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("mount namespaces need root")
    assert f"{tmp_path}: no space left for a copy of" in done.stdout and "MB free" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../train-000000.tar"},
        {"name": "pipe:touch canary"},
        {"name": "http://elsewhere/a.tar"},
        {"sha256": "../../x"},
        {"idx_sha256": "0"},
        {"bytes": -1},
        {"samples": 1.5},
    ],
)
def test_a_manifest_names_no_other_places(shards: Manifest, tmp_path: Path, change: dict) -> None:
    data = json.loads((shards.folder / "manifest.json").read_text())
    data["splits"]["train"]["shards"][0] |= change
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match="is not a manifest"):
        read_manifest(tmp_path)
