"""Damaged shards in a folder: found before anything starts, named, repaired where that is safe, never read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from collagan_dist.data.shards import wire_format
from collagan_dist.data.shards.manifest import Manifest, read_manifest
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.data.shards.verify import verify
from collagan_dist.errors import DataError
from tests.faults.test_bad_input import run


@pytest.fixture
def copy(shards: Manifest, tmp_path: Path) -> Path:
    """A copy of the shards to damage."""
    return Path(shutil.copytree(shards.folder, tmp_path / "copy"))


def member(tar: Path, number: int) -> tarfile.TarInfo:
    with tarfile.open(tar) as file:
        return file.getmembers()[number]


# Where a tar of samples of three files is cut: what a reader that only looks at the tar sees is said beside.
CUTS: dict[str, Callable[[Path], int]] = {
    "payload": lambda tar: member(tar, 4).offset_data + 100,  # an error
    "member": lambda tar: member(tar, 4).offset,  # a sample without its json
    "sample": lambda tar: member(tar, 6).offset,  # two samples and no error
    "header": lambda tar: member(tar, 7).offset + 200,  # a sample without its json
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_tar_cut_short_is_found_before_the_start(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: str
) -> None:
    tar = copy / "train-000001.tar"
    size, kept = tar.stat().st_size, CUTS[cut](tar)
    os.truncate(tar, kept)
    (copy / "train-000001.idx").unlink()  # no index is made of a tar that is damaged
    for command in (["train", "demo", "--data", copy, "--run", tmp_path / "run"], ["verify", copy]):
        code, text = run(capsys, *command)
        assert code == 3 and f"{tar}: has {kept} bytes, the manifest says {size}" in text, text
        assert f"remove {copy} and run `collagan pack`" in text
        assert "rebuilt" not in text
    assert not (tmp_path / "run").exists() and not (copy / "train-000001.idx").exists()


def test_every_damage_is_named_at_once(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.truncate(copy / "train-000000.tar", 5000)
    (copy / "valid-000000.tar").unlink()
    code, text = run(capsys, "verify", copy)
    assert code == 3 and "train-000000.tar: has 5000 bytes" in text and "valid-000000.tar: is missing" in text


def test_a_flipped_bit_is_found_by_deep_verify(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tar = copy / "valid-000000.tar"
    content = bytearray(tar.read_bytes())
    content[member(tar, 0).offset_data + 4000] ^= 4
    tar.write_bytes(content)
    assert run(capsys, "verify", copy)[0] == 0
    code, text = run(capsys, "verify", copy, "--deep")
    assert code == 3 and f"{tar}: its sha256 differs" in text and "run `collagan pack`" in text


def missing(index: Path) -> None:
    index.unlink()


def stale(index: Path) -> None:
    rows = index.read_text().splitlines()[1:-2]
    index.write_text("\n".join([f"v1.2 {len(rows)}", *rows, ""]))


def of_another_tar(index: Path) -> None:
    shutil.copy(index.with_name("train-000000.idx"), index)


def cut_short(index: Path) -> None:
    os.truncate(index, 700)


def one_digit(index: Path) -> None:
    text = index.read_text()
    index.write_text(text.replace(" 512 ", " 513 ", 1))


DAMAGES = [missing, stale, of_another_tar, cut_short, one_digit]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("command", ["verify", "train"])
def test_an_index_is_rebuilt_from_its_tar(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, damage: Callable[[Path], None]
) -> None:
    index = copy / "train-000001.idx"
    undamaged = index.read_bytes()
    damage(index)
    words = ["train", "demo", "--data", copy, "--dry-run"] if command == "train" else ["verify", copy]
    code, text = run(capsys, *words)
    assert code == 0 and text == f"rebuilt {index} from its tar\n"
    assert index.read_bytes() == undamaged
    assert run(capsys, *words) == (0, "")
    assert not [path for path in copy.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_index_damaged_after_the_check_is_not_used(
    shards: Manifest, copy: Path, damage: Callable[[Path], None]
) -> None:
    split, whole = SplitReader(read_manifest(copy), "train"), SplitReader(shards, "train")
    damage(copy / "train-000001.idx")
    for number in range(20, 40):
        mine, expected = split.read(number), whole.read(number)
        assert mine.key == expected.key and mine.jpg.tobytes() == expected.jpg.tobytes()


def test_a_tar_of_the_right_size_that_gives_another_index_is_refused(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tar = copy / "train-000001.tar"
    content = bytearray(tar.read_bytes())
    content[member(tar, 6).offset + 3] ^= 1  # in a header: readers of tars stop here and say nothing
    tar.write_bytes(content)
    (copy / "train-000001.idx").unlink()
    code, text = run(capsys, "verify", copy)
    assert code == 3 and f"{tar}: is not the tar of the manifest" in text
    assert not (copy / "train-000001.idx").exists()


def test_a_folder_that_cannot_be_written_keeps_its_damage(copy: Path) -> None:
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


def repack(folder: Path, change: Callable[[dict[str, bytes]], None]) -> str:
    """The first train shard with its third sample changed, and a manifest that says so; the key of that sample."""
    name = "train-000000"
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(folder / f"{name}.tar") as tar:
        for entry in tar:
            key, _, extension = entry.name.partition(".")
            file = tar.extractfile(entry)
            assert file is not None
            samples.setdefault(key, {})[extension] = file.read()
    changed = list(samples)[2]
    change(samples[changed])
    content = io.BytesIO()
    writer = wire_format.ShardWriter(content)
    for key, files in samples.items():
        writer.add(key, files)
    writer.finish()
    (folder / f"{name}.tar").write_bytes(content.getvalue())
    (folder / f"{name}.idx").write_bytes(writer.index())
    data = json.loads((folder / "manifest.json").read_text())
    data["splits"]["train"]["shards"][0] |= {
        "bytes": len(content.getvalue()),
        "sha256": hashlib.sha256(content.getvalue()).hexdigest(),
        "idx_sha256": hashlib.sha256(writer.index()).hexdigest(),
    }
    (folder / "manifest.json").write_text(json.dumps(data))
    return changed


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("no picture", lambda files: files.pop("jpg")),
        ("no json", lambda files: files.pop("json")),
        ("pyd", lambda files: files.update(pyd=pickle.dumps(Bomb()))),
        ("pth", lambda files: files.update(pth=pickle.dumps(Bomb()))),
        ("pkl", lambda files: files.update(pkl=pickle.dumps(Bomb()))),
        ("png", lambda files: files.update(png=b"x")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_sample_of_other_files_is_refused(
    copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    change: Callable[[dict[str, bytes]], None],
) -> None:
    """In shards whose manifest is right about them, as somebody else's may be."""
    monkeypatch.chdir(tmp_path)
    key = repack(copy, change)
    said = f"{copy}/train-000000.tar: sample {key} has files "
    with pytest.raises(DataError, match=r"a sample is jpg, json and at most seg\.png") as error:
        SplitReader(read_manifest(copy), "train").read(0)
    assert str(error.value).startswith(said)
    code, text = run(capsys, "verify", copy, "--deep")
    assert code == 3 and said in text
    code, text = run(capsys, "train", "demo", "--data", copy, "--run", "run")
    assert code == 3 and said in text and not Path("run").exists()
    assert not Path("canary").exists()


def test_a_sample_without_label_map_is_valid(copy: Path) -> None:
    repack(copy, lambda files: files.pop("seg.png"))  # some pictures of a set may lack labels
    assert verify(copy, deep=True)


@pytest.mark.parametrize("name", ["pipe:touch canary", "{a,b}", "x::y", "http:"])
def test_names_of_folders_are_no_commands(
    shards: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shards.folder, name)
    for folder in (tmp_path / name, f"./{name}"):
        assert run(capsys, "verify", folder, "--deep") == (0, "")
    if ":" in name:
        assert run(capsys, "verify", name, "--deep")[0] == 2
    assert not list(tmp_path.rglob("canary*"))
