"""Damaged shards in a folder: found before anything starts, named, repaired where that is safe, never read."""

import fcntl
import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import IO, cast

import pytest

from collagan_dist.config.tree import Cache
from collagan_dist.data.shards import wire_format
from collagan_dist.data.shards.manifest import Manifest, read_manifest
from collagan_dist.data.shards.remote import open_location
from collagan_dist.data.shards.shard_files import read_index
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.data.shards.verify import verify
from collagan_dist.errors import DataError
from collagan_dist.log import log_to_stderr
from tests.data.server import serving
from tests.faults.test_bad_input import run


@pytest.fixture
def copy(shards: Manifest, tmp_path: Path) -> Path:
    """A copy of the shards to damage."""
    return Path(shutil.copytree(shards.folder, tmp_path / "copy"))


def test_damaged_tars_are_named_at_once_before_the_start(copy, tmp_path, capsys):
    tar = copy / "train-000001.tar"
    size = tar.stat().st_size
    os.truncate(tar, 5000)
    (copy / "train-000001.idx").unlink()  # no index is made of a tar that is damaged
    (copy / "valid-000000.tar").unlink()
    for command in (["train", "demo", "--data", copy, "--run", tmp_path / "run"], ["verify", copy]):
        code, text = run(capsys, *command)
        assert code == 3 and f"{tar}: has 5000 bytes, the manifest says {size}" in text, text
        assert "valid-000000.tar: is missing" in text and f"remove {copy} and run `collagan pack`" in text
        assert "rebuilt" not in text
    assert not (tmp_path / "run").exists() and not (copy / "train-000001.idx").exists()


def stale(index: Path) -> None:
    rows = index.read_text().splitlines()[1:-2]
    index.write_text("\n".join([f"v1.2 {len(rows)}", *rows, ""]))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "stale": stale,
    "of another tar": lambda index: shutil.copy(index.with_name("train-000000.idx"), index),
    "cut short": lambda index: os.truncate(index, 700),
    "one digit": lambda index: index.write_text(index.read_text().replace(" 512 ", " 513 ", 1)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_index_is_rebuilt_from_its_tar(copy, capsys, damage):
    index = copy / "train-000001.idx"
    undamaged = index.read_bytes()
    for command in (["train", "demo", "--data", copy, "--dry-run"], ["verify", copy]):
        damage(index)
        assert run(capsys, *command) == (0, f"rebuilt {index} from its tar\n")
        assert index.read_bytes() == undamaged and run(capsys, *command) == (0, "")
    assert not [path for path in copy.iterdir() if path.suffix == ".partial"]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_index_damaged_after_the_check_is_not_used(shards, copy, damage):
    split, undamaged = SplitReader(read_manifest(copy), "train"), SplitReader(shards, "train")
    damage(copy / "train-000001.idx")
    for number in range(20, 40):
        mine, expected = split.read(number), undamaged.read(number)
        assert mine.key == expected.key and mine.jpg.tobytes() == expected.jpg.tobytes()


def test_row_10_an_index_is_neither_trusted_nor_made_without_its_hash(copy, tmp_path):
    """Not where the tar is another one, no tar at all, or cut, nor where the manifest counts other samples; a repair is one rename."""
    shard = read_manifest(copy).shards("train")[1]
    index, tar = copy / shard.index_name, copy / shard.name
    undamaged, packed = index.read_bytes(), tar.read_bytes()
    for other in (b"x" + packed[1:], b"no tar" * 1000, packed[:5000], b"", (copy / "train-000000.tar").read_bytes()):
        tar.write_bytes(other)
        for damage in DAMAGES.values():
            index.write_bytes(undamaged)
            damage(index)
            before = index.read_bytes() if index.exists() else None
            with pytest.raises(DataError, match=shard.name):
                read_index(copy, shard)
            assert (index.read_bytes() if index.exists() else None) == before
    tar.write_bytes(packed)
    index.write_bytes(stale_content := undamaged.replace(b" 512 ", b" 513 ", 1))
    with pytest.raises(DataError, match=r"is damaged; `collagan verify"):
        read_index(copy, shard, repair=False)
    assert index.read_bytes() == stale_content
    with index.open("rb") as opened:  # by a reader that began before the repair
        assert len(read_index(copy, shard)) == shard.samples
        assert opened.read() == stale_content and index.read_bytes() == undamaged
    with pytest.raises(
        DataError, match=rf"its index lists {shard.samples} samples, the manifest says {shard.samples + 1}"
    ):
        read_index(copy, replace(shard, samples=shard.samples + 1))


def test_row_10_ranks_that_come_at_once_report_one_repair(copy, capsys):
    log_to_stderr()
    shard = read_manifest(copy).shards("train")[1]
    (copy / shard.index_name).unlink()
    with (copy / shard.name).open("rb") as tar, ThreadPoolExecutor() as pool:
        fcntl.flock(tar, fcntl.LOCK_EX)  # all find it missing, and wait
        found = [pool.submit(read_index, copy, shard) for _ in range(4)]
        time.sleep(0.5)
        fcntl.flock(tar, fcntl.LOCK_UN)
        assert [len(one.result()) for one in found] == [shard.samples] * 4
    assert capsys.readouterr().err == f"rebuilt {copy / shard.index_name} from its tar\n"


def test_row_10_a_damaged_copy_of_an_index_is_fetched_again(copy, tmp_path):
    """The cache has checked what it downloaded, not what became of it."""
    with serving(copy) as server:
        remote = open_location(server.url, Cache(folder=str(tmp_path / "cache")))
        shard = read_manifest(remote).shards("train")[1]
        read_index(remote, shard)
        cached = tmp_path / "cache" / f"{shard.idx_sha256}.idx"
        undamaged = cached.read_bytes()
        cached.write_bytes(undamaged.replace(b" 512 ", b" 513 ", 1))
        assert len(read_index(remote, shard)) == shard.samples and cached.read_bytes() == undamaged


def test_a_folder_that_cannot_be_written_keeps_its_damage(copy):
    """Read-only by mount: permissions do not bind root."""
    (copy / "test-000000.idx").unlink()
    command = (
        f'mount --bind {copy} {copy} && mount -o remount,bind,ro {copy} && exec {sys.executable} -m collagan_dist "$@"'
    )
    words = ["train", "demo", "--data", str(copy), "--run", str(copy.with_name("run"))]
    done = subprocess.run(["unshare", "-m", "sh", "-c", command, "sh", *words], capture_output=True, text=True)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("mount namespaces need root")
    assert done.returncode == 3 and f"{copy}/test-000000.idx: is missing or not the index" in done.stderr, done.stderr
    assert f"run `collagan verify {copy}` where this folder can be written" in done.stderr
    assert verify(copy) and (copy / "test-000000.idx").exists()


class Bomb:
    """Unpickled, it makes a file in the working directory."""

    def __reduce__(self) -> tuple:
        return (os.system, ("touch canary",))


def repack(folder: Path, change: Callable[[dict[str, bytes]], object]) -> str:
    """The first train shard with its third sample changed, and a manifest that says so; the key of that sample."""
    name, samples = "train-000000", defaultdict[str, dict[str, bytes]](dict)
    with tarfile.open(folder / f"{name}.tar") as tar:
        for entry in tar:
            key, _, extension = entry.name.partition(".")
            samples[key][extension] = cast(IO[bytes], tar.extractfile(entry)).read()
    changed = list(samples)[2]
    change(samples[changed])
    writer = wire_format.ShardWriter(content := io.BytesIO())
    for key, files in samples.items():
        writer.add(key, files)
    writer.finish()
    tar_bytes, index = content.getvalue(), writer.index()
    (folder / f"{name}.tar").write_bytes(tar_bytes)
    (folder / f"{name}.idx").write_bytes(index)
    data = json.loads((folder / "manifest.json").read_text())
    data["splits"]["train"]["shards"][0] |= {
        "bytes": len(tar_bytes),
        "sha256": hashlib.sha256(tar_bytes).hexdigest(),
        "idx_sha256": hashlib.sha256(index).hexdigest(),
    }
    (folder / "manifest.json").write_text(json.dumps(data))
    return changed


OTHER_FILES: dict[str, Callable[[dict[str, bytes]], object]] = {
    "no picture": lambda files: files.pop("jpg"),
    "no json": lambda files: files.pop("json"),
    "pickle": lambda files: files.update(pkl=pickle.dumps(Bomb()), pyd=pickle.dumps(Bomb())),
    "png": lambda files: files.update(png=b"x"),
}


@pytest.mark.parametrize("change", OTHER_FILES.values(), ids=OTHER_FILES)
def test_a_sample_of_other_files_is_refused(copy, tmp_path, monkeypatch, capsys, change):
    """In shards whose manifest is right about them, as somebody else's may be."""
    monkeypatch.chdir(tmp_path)
    key = repack(copy, change)
    said = f"{copy}/train-000000.tar: sample {key} has files "
    with pytest.raises(DataError, match=r"a sample is jpg, json and at most seg\.png") as error:
        SplitReader(read_manifest(copy), "train").read(0)
    assert str(error.value).startswith(said)
    for command in (["verify", copy, "--deep"], ["train", "demo", "--data", copy, "--run", "run"]):
        code, text = run(capsys, *command)
        assert code == 3 and said in text and not Path("run").exists()
    assert not Path("canary").exists()


def test_a_sample_without_label_map_is_valid(copy):
    repack(copy, lambda files: files.pop("seg.png"))  # some pictures of a set may lack labels
    assert verify(copy, deep=True)


@pytest.mark.parametrize("name", ["pipe:touch canary", "{a,b}", "x::y", "http:"])
def test_names_of_folders_are_no_commands(shards, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shards.folder, name)
    for folder in (tmp_path / name, f"./{name}"):
        assert run(capsys, "verify", folder, "--deep") == (0, "")
    if ":" in name:
        assert run(capsys, "verify", name, "--deep")[0] == 2
    assert not list(tmp_path.rglob("canary*"))
