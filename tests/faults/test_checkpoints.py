"""Checkpoints that are interrupted, damaged, foreign or fought over, by the rows of docs/faults.md."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file

import collagan_dist
from collagan_dist.config.load import to_yaml
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.errors import CheckpointError, ClusterError
from collagan_dist.runs import checkpoint, lease, owner, tensor_file
from collagan_dist.runs.layout import checkpoint_steps
from collagan_dist.runs.lease import Lease, LeaseRequest
from collagan_dist.setup import training_order
from collagan_dist.training.logger import TrainingLogger
from collagan_dist.training.loop import StartOptions, train
from collagan_dist.types import World
from tests.conftest import ROOT, collagan
from tests.faults.saving import STAGES
from tests.faults.test_packing import private_mounts
from tests.faults.test_rounds import DAMAGES, damage, rounds
from tests.training.small import equal, small, weights

STEPS = 9
SAVING = {"checkpoint__every": 2, "checkpoint__keep": 2, "schedule__steps": STEPS}


@pytest.fixture(scope="module")
def whole(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed, with checkpoints at 8 and 9."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(small(shards.folder, **SAVING), run, World())
    return run


def written(config: object, folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text(to_yaml(config))
    return path


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def driver(*args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(saving_command(*args), capture_output=True, text=True, cwd=ROOT, timeout=500, **options)


def saving_command(*args: object) -> list[str]:
    return [sys.executable, "-m", "tests.faults.saving", *map(str, args)]


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


def events(run: Path, name: str) -> list[dict[str, Any]]:
    return [line for line in lines(run, "event") if line["event"] == name]


KEPT = ["step-00000008", "step-00000009"]


def test_row_27_killed_at_every_stage_of_a_save(shards: Manifest, whole: Path, tmp_path: Path) -> None:
    """kill -9 in the third save: the same command ends with the weights of the undisturbed run, and nothing is left lying about."""
    done = driver("killed", written(small(shards.folder, **SAVING), tmp_path), tmp_path, *STAGES)
    ended = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("ended")]
    assert ended == [[stage, "-9", "0"] for stage in STAGES], done.stdout + done.stderr
    went_on = {}
    for stage in STAGES:
        run = tmp_path / stage
        assert names(run) == KEPT and not list(run.rglob("*.partial")), stage
        assert equal(weights(whole, STEPS), weights(run, STEPS)), stage
        assert [line["step"] for line in lines(run, "train")] == [2, 4, 6, 8, 9], stage
        went_on[stage] = events(run, "resume")[0]["step"]
    assert went_on == {**dict.fromkeys(STAGES, 4), "after-rename": 6, "while-removing": 6}


@rounds(1, 60)
def test_row_27_killed_at_random(
    shards: Manifest, whole: Path, tmp_path: Path, rounds: int, record: Callable[..., None]
) -> None:
    """The same before any call of the writing thread to the file system."""
    stages = [f"random-{number}" for number in range(rounds)]
    done = driver("killed", written(small(shards.folder, **SAVING), tmp_path), tmp_path, *stages)
    ended = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("ended")]
    assert [(stage, again) for stage, _, again in ended] == [(stage, "0") for stage in stages], done.stderr
    killed = sum(code == "-9" for _, code, _ in ended)
    for stage in stages:
        assert names(tmp_path / stage) == KEPT and equal(weights(whole, STEPS), weights(tmp_path / stage, STEPS)), stage
    assert killed * 2 > rounds
    record("27", rounds=rounds, killed=killed, equal=rounds)


def test_row_28_a_full_disk(shards: Manifest, whole: Path, tmp_path: Path) -> None:
    """Training goes on, says so, and saves again when there is room; without room it stops with the former checkpoint intact."""
    disk = made(tmp_path / "disk")
    config = written(small(shards.folder, **SAVING, checkpoint__max_failures=3), tmp_path)
    two = written(small(shards.folder, **SAVING, checkpoint__max_failures=2), made(tmp_path / "two"))
    four = written(small(shards.folder, **{**SAVING, "schedule__steps": 4}), made(tmp_path / "four"))

    def command(config: Path, run: str, begin: int, end: int) -> str:
        return " ".join(saving_command("full", config, disk / run, disk / "filler", begin, end))

    script = f"""
        mount -t tmpfs -o size=6m none {disk}; mkdir {tmp_path}/copy
        {command(config, "room", 2, 4)}; cp -r {disk}/room {tmp_path}/copy; rm -r {disk}/room
        {command(two, "none", 2, 0)}; ls -A {disk}/none/checkpoints; rm {disk}/filler
        {command(two, "none", 99, 0)}; cp -r {disk}/none {tmp_path}/copy; rm -r {disk}/none
        {command(four, "last", 2, 0)}
    """
    done = subprocess.run(private_mounts(script), capture_output=True, text=True, cwd=ROOT, timeout=500)
    report = done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith(("ended", "step"))]
    assert told == ["ended 0", "ended 5", "step-00000002", "ended 0", "ended 5"], report
    room, none = tmp_path / "copy/room", tmp_path / "copy/none"
    for run in (room, none):
        assert equal(weights(whole, STEPS), weights(run, STEPS)) and names(run) == KEPT
    failed = events(room, "checkpoint_failed")
    assert [event["step"] for event in failed] == [4, 6]
    assert all(event["needed"] > event["free"] >= 0 and "no space left" in event["reason"] for event in failed)
    assert [line["step"] for line in lines(room, "train")] == [2, 4, 6, 8, 9]
    warning = f"warning: {disk}/room/checkpoints/step-00000004: no space left; it needs {failed[0]['needed']} bytes, {failed[0]['free']} are free"
    assert warning in done.stderr and "inline_container" not in report and "Traceback" not in report
    assert "2 in a row could not be written. Step 6 is not saved, the newest checkpoint is step 2" in done.stderr
    assert "Step 4 is not saved, the newest checkpoint is step 2; make room, then run the same command" in done.stderr


def test_row_28_a_write_that_fails_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grows too large for its limit, which no look at the free space foretells: nothing half-written stays."""
    code = (
        "import resource, sys, torch; from pathlib import Path; from collagan_dist.runs import checkpoint\n"
        "folder, big = Path(sys.argv[1]), {'generator': {'a': torch.zeros(10**6)}}\n"
        "checkpoint.save(folder, 1, big, {'step': 1}, 3)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))\n"
        "try: checkpoint.save(folder, 2, big, {'step': 2}, 3)\n"
        "except checkpoint.WriteFailed as error: print(error.needed > 4 * 10**6, error)\n"
        "print(sorted(p.name for p in folder.iterdir()), checkpoint.load_latest(folder).state['step'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, cwd=ROOT)
    first, second = done.stdout.splitlines()
    assert first.startswith(f"True {tmp_path}/step-00000002: no space left") and second == "['step-00000001'] 1", done


def test_training_goes_on_while_a_checkpoint_is_written(
    shards: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of step 2, of which nothing is written before step 3 is done, holds what step 2 had learned."""
    train(small(shards.folder, schedule__steps=2), tmp_path / "short", World())
    steps, moved = [], threading.Event()
    add, fill = TrainingLogger.add, checkpoint._write_files

    def adding(self: TrainingLogger, values: Any) -> None:
        add(self, values)
        steps.append(1)
        if len(steps) == 3:
            moved.set()

    def filling(partial: Path, step: int, *content: Any) -> None:
        assert step != 2 or moved.wait(60)
        fill(partial, step, *content)

    monkeypatch.setattr(TrainingLogger, "add", adding)
    monkeypatch.setattr(checkpoint, "_write_files", filling)
    train(small(shards.folder, schedule__steps=3, checkpoint__every=2), tmp_path / "long", World())
    assert equal(weights(tmp_path / "short", 2), weights(tmp_path / "long", 2))
    assert not equal(weights(tmp_path / "long", 2), weights(tmp_path / "long", 3))


def test_the_file_is_the_librarys(tmp_path: Path) -> None:
    """Every kind of tensor, read back by safetensors itself; the size is known before."""
    kinds = [
        torch.float64,
        torch.float32,
        torch.bfloat16,
        torch.float16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    ]
    tensors = {f"{kind}": torch.arange(3).to(kind) for kind in kinds}
    tensors |= {
        "truth": torch.tensor([True, False]),
        "scalar": torch.tensor(7),
        "none": torch.zeros(0, 3),
        "ü": torch.ones(2, 1, 3),
    }
    content = b"".join(bytes(piece) for piece in tensor_file.pieces(tensors))
    assert len(content) == tensor_file.size(tensors)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    sizes = {name: tensor.element_size() for name, tensor in tensors.items()}
    assert all(entry["data_offsets"][0] % sizes[name] == 0 for name, entry in header.items())  # readers may map it
    again = load(content)
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype and torch.equal(again[name], tensor), name


@rounds(12, 400)
def test_row_29_damaged_checkpoints(
    whole: Path, tmp_path: Path, rounds: int, record: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever changes in any file: it is named, and the former checkpoint taken; never another number loaded."""
    folder = Path(shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints"))
    newest = folder / "step-00000009"
    true = checkpoint.load(newest).tensors
    found: Counter[str] = Counter()
    for number in range(rounds):
        at = random.Random(number)
        file = at.choice(sorted(newest.iterdir()))
        if number % 6 == 5:
            file.unlink()
        else:
            damage(file, DAMAGES[number % 6], at)
        loaded = checkpoint.load_latest(folder)
        told = caplog.messages
        caplog.clear()
        assert loaded is not None
        if loaded.path == newest:  # a changed blank of manifest.json changes nothing
            assert file.name == "manifest.json"
            assert all(equal(loaded.tensors[name], true[name]) for name in true)
            found["harmless"] += 1
        else:
            assert loaded.path.name == "step-00000008" and len(told) == 1 and str(newest) in told[0]
            assert file.name == "manifest.json" or file.name in told[0], told
            with pytest.raises(CheckpointError, match=r"run without --strict"):
                checkpoint.load_latest(folder, strict=True)
            found["former taken"] += 1
        shutil.rmtree(newest)
        shutil.copytree(whole / "checkpoints/step-00000009", newest)
    assert found["former taken"] >= 0.9 * rounds
    record("29", rounds=rounds, **found)


def test_row_29_strict_refuses(shards: Manifest, whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    newest = run / "checkpoints/step-00000009/optimizer.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    config = written(small(shards.folder, **SAVING), tmp_path)
    refused = collagan("train", config, "--run", run, "--strict", check=False)
    assert (
        refused.returncode == 5
        and "optimizer.safetensors is damaged" in refused.stderr
        and "--strict" in refused.stderr
    )
    collagan("train", config, "--run", run)
    assert equal(weights(whole, STEPS), weights(run, STEPS)) and names(run) == KEPT


def test_a_damaged_later_checkpoint_does_not_push_out_whole_ones(tmp_path: Path) -> None:
    tensors = {"generator": {"a": torch.ones(1)}}
    for step in (2, 4):
        checkpoint.save(tmp_path, step, tensors, {"step": step}, keep=2)
    (tmp_path / "step-00000004/state.json").write_text("{")
    checkpoint.save(tmp_path, 3, tensors, {"step": 3}, keep=1)
    assert checkpoint_steps(tmp_path) == [3, 4]
    loaded = checkpoint.load_latest(tmp_path)
    assert loaded is not None and loaded.state["step"] == 3


def test_row_30_another_number_of_ranks(shards: Manifest, tmp_path: Path) -> None:
    """1, 2, 4, 1 ranks: the global batches of one rank, every sample of two epochs exactly once."""
    config = written(small(shards.folder, schedule__batch=12), tmp_path)
    parts = [(1, 2), (2, 4), (4, 6), (1, 8)]
    batches: dict[int, tuple[list[int], list[int]]] = {}
    for ranks, until in parts:
        out = tmp_path / f"seen{until}"
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
        command = [sys.executable, *start, "-m", "tests.faults.seen", config, tmp_path / "run", str(until), out]
        subprocess.run(command, check=True, cwd=ROOT, timeout=400, env={**os.environ, "OMP_NUM_THREADS": "1"})
        for rank in range(ranks):
            for number, epochs, ids in json.loads(Path(f"{out}-{rank}.json").read_text()):
                known = batches.setdefault(number, ([], []))
                known[0].extend(epochs)
                known[1].extend(ids)
    order = training_order(small(shards.folder, schedule__batch=12), shards)
    for number in range(8):
        ids, epochs = order.step(number, World())
        assert (np.array(batches[number][0]) == epochs).all() and (np.array(batches[number][1]) == ids).all()
    for epoch in (0, 1):
        assert sorted(i for e, ids in batches.values() for i, n in zip(ids, e, strict=True) if n == epoch) == list(
            range(48)
        )
    assert [event["world_size"] for event in lines(tmp_path / "run", "event")] == [1, 2, 4, 1]


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change state.json of a checkpoint as its writer would have, hash and all."""
    state, manifest = (json.loads((path / name).read_bytes()) for name in ("state.json", "manifest.json"))
    change(state)
    (path / "state.json").write_text(json.dumps(state))
    manifest["sha256"]["state.json"] = hashlib.sha256((path / "state.json").read_bytes()).hexdigest()
    manifest["step"] = state["step"]
    (path / "manifest.json").write_text(json.dumps(manifest))


def from_version_1(run: Path, shards: Manifest) -> Path:
    """A run with the stored checkpoint that the program wrote before formats had a 2; its data set drawn as here."""
    path = Path(shutil.copytree(Path(__file__).parent / "checkpoint_v1", run / "checkpoints/step-00000002"))
    edited(path, lambda state: state.update(manifest=shards.hash))
    (run / "lease").write_text("1 89ab\n")
    return path


VERSION_1 = {
    "model": {"widths": {"generator": 1, "discriminator": 1}, "tasks": ["inpainting"]},
    "optim": {},
    "log__every": 1,
    "checkpoint__keep": 2,
}


def test_row_30_an_older_format_is_read(shards: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Format 1 goes on as if it had been written today, keys that it did not know at their defaults; what changes is still found."""
    path = from_version_1(tmp_path / "old", shards)
    former = {name: load_file(path / name) for name in ("generator.safetensors", "optimizer.safetensors")}
    assert json.loads((path / "state.json").read_bytes())["format"] == 1
    train(small(shards.folder, **VERSION_1, schedule__steps=2), tmp_path / "old", World())
    assert {name: load_file(path / name) for name in former}.keys() == former.keys() and capsys.readouterr().err == ""

    copy = Path(shutil.copytree(tmp_path / "old", tmp_path / "new"))

    def as_today(state: dict[str, Any]) -> None:
        del state["identity"]
        state.update(format=2, parser=None, generation=1)

    edited(copy / "checkpoints/step-00000002", as_today)
    for run in ("old", "new"):
        train(small(shards.folder, **VERSION_1, schedule__steps=4), tmp_path / run, World())
        assert [event["step"] for event in events(tmp_path / run, "resume")] == [2, 2]
    assert equal(weights(tmp_path / "old", 4), weights(tmp_path / "new", 4))
    assert json.loads((tmp_path / "old/checkpoints/step-00000004/state.json").read_bytes())["format"] == 2
    with pytest.raises(CheckpointError, match=r"optim.generator.clip: 0.0 -> 1.0"):
        changed = {**VERSION_1, "optim": {"generator": {"clip": 1.0}}}
        shutil.rmtree(tmp_path / "new/checkpoints/step-00000004")
        train(small(shards.folder, **changed), tmp_path / "new", World())


def test_row_30_another_data_set_and_a_newer_program_are_refused(shards: Manifest, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = small(shards.folder, schedule__steps=1)
    train(config, run, World())
    path = run / "checkpoints/step-00000001"
    edited(path, lambda state: state.update(manifest="0" * 64))
    with pytest.raises(CheckpointError, match=rf"manifest: 0+ -> {shards.hash}"):
        train(config, run, World())
    edited(path, lambda state: state.update(manifest=shards.hash))
    edited(path, lambda state: state["config"]["optim"].update(warm_up=5))
    with pytest.raises(CheckpointError, match=r"unknown key optim.warm_up(.|\n)*another version of collagan_dist"):
        train(config, run, World())
    assert train(config, run, World(), StartOptions(allow_config_change=True)) == 1
    edited(path, lambda state: state.update(format=3))
    with pytest.raises(CheckpointError, match=r"is of format 3, this program reads formats 1 to 2; use the version"):
        train(config, run, World())
    assert lease._read(run)[0].startswith("5 ") and owner.parse_owner(lease._read(run)[0]).ended


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.canary}",)


def test_row_31_nothing_foreign_is_run_or_followed(whole: Path, tmp_path: Path) -> None:
    """A checkpoint made to harm: pickles of all makes, sizes and names that are lies, links and pipes. Each is refused by name."""
    import pickle

    canary = tmp_path / "canary"
    bomb = pickle.dumps(Bomb(canary))
    secret = tmp_path / "secret.safetensors"
    shutil.copy(whole / "checkpoints/step-00000009/generator.safetensors", secret)

    def listed(path: Path, name: str, content: bytes | None = None, sha256: str | None = None) -> None:
        manifest = json.loads((path / "manifest.json").read_bytes())
        if content is not None:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        manifest["sha256"][name] = sha256 or hashlib.sha256(content or b"").hexdigest()
        (path / "manifest.json").write_text(json.dumps(manifest))

    def linked(path: Path) -> None:
        (path / "generator.safetensors").unlink()
        (path / "generator.safetensors").symlink_to(secret)

    def piped(path: Path) -> None:
        (path / "generator.safetensors").unlink()
        os.mkfifo(path / "generator.safetensors")

    huge = (1 << 62).to_bytes(8, "little") + b"{}"
    deep = b'{"step": 9, "format": 2, "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    hash_of = hashlib.sha256(secret.read_bytes()).hexdigest()
    cases: dict[str, Callable[[Path], None]] = {
        "generator.pt": lambda path: listed(path, "generator.pt", bomb),
        ".metadata": lambda path: listed(path, ".metadata", bomb),
        "zero_pp_rank_0_mp_rank_00_optim_states.pt": lambda path: listed(path, "zero_pp_rank_0_mp_rank_00_optim_states.pt", bomb),
        "damaged": lambda path: listed(path, "generator.safetensors", bomb),
        "is damaged": lambda path: listed(path, "generator.safetensors", huge),
        "recursion": lambda path: listed(path, "state.json", deep),
        "../secret.safetensors": lambda path: listed(path, "../secret.safetensors", sha256=hash_of),
        str(secret): lambda path: listed(path, str(secret), sha256=hash_of),
        "generator.safetensors is no plain file": linked,
        "safetensors is no plain file": piped,
        "are too many": lambda path: os.truncate(path / "manifest.json", 1 << 40),
        "no object": lambda path: (path / "manifest.json").write_text("[]") and None,
        "does not name state.json": lambda path: (path / "manifest.json").write_text('{"sha256": {}, "step": 9}') and None,
        "different steps": lambda path: edited(path, lambda state: state.update(step=7)),
        "no format": lambda path: edited(path, lambda state: state.update(format="../2")),
    }  # fmt: skip
    for number, (says, harm) in enumerate(cases.items()):
        path = Path(shutil.copytree(whole / "checkpoints/step-00000009", tmp_path / f"{number}/step-00000009"))
        harm(path)
        with pytest.raises(CheckpointError) as refused:
            checkpoint.load(path)
        assert says in str(refused.value) and str(path) in str(refused.value), (says, str(refused.value))
    assert not canary.exists()


def test_row_31_nothing_in_the_package_can_unpickle() -> None:
    """No torch.load, pickle, weights_only=False, yaml.load, extractall or distributed checkpoints anywhere."""
    found = []
    for path in Path(collagan_dist.__file__).parent.rglob("*.py"):
        found += [f"{path}:{line}: {what}" for line, what in unsafe(path.read_text())]
    assert not found, "\n".join(found)
    for text in ("torch.load(x)", "import pickle", "f(weights_only=False)", "yaml.load(x)", "tar.extractall()", "dcp.load(x)",
                 "from torch.distributed import checkpoint", "from pickle import loads", "from torch import load"):  # fmt: skip
        assert list(unsafe(text)), text


def unsafe(text: str) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            whose = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if (whose, node.func.attr) in {
                ("torch", "load"),
                ("yaml", "load"),
                ("dcp", "load"),
            } or node.func.attr == "extractall":
                found.append((node.lineno, f"{whose}.{node.func.attr}"))
        if isinstance(node, ast.keyword) and node.arg == "weights_only":
            found.append((node.value.lineno, "weights_only"))
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        banned = ("pickle", "dill", "marshal", "shelve", "joblib", "torch.distributed.checkpoint", "torch.load")
        found += [(node.lineno, name) for name in modules if name.startswith(banned)]
    return found


def take(run: Path, job: str = "", seconds: float = 30) -> Lease:
    taken = LeaseRequest(run, job).poll(seconds)
    assert taken is not None
    return taken


def elsewhere(run: Path, **changes: Any) -> owner.Owner:
    """A lease of a process on another host, alive by its own word."""
    text = {"host": "node7", "machine": "another", "heartbeat_seconds": 0.2, **changes}
    other = replace(owner.this_process(4, "cafe", "slurm:12, start 0", 1.0), **text)
    (run / "lease").write_text(other.text())
    return other


def test_row_33_the_newest_start_owns_the_run(tmp_path: Path) -> None:
    """Another start in this process: the first one stops before it writes, and its end does not disturb the second."""
    first = take(tmp_path)
    second = take(tmp_path)
    assert (tmp_path / "lease").read_text().split()[0] == "2" and second.generation == 2
    with second.held():
        pass
    with pytest.raises(ClusterError, match=r"start 2 of this run has taken over from this one \(start 1\)"):
        first.check()
    with pytest.raises(ClusterError, match="has taken over"), first.held():
        pass
    first.release()
    assert not first.is_current() and second.is_current(recheck=True)
    second.release()
    assert owner.parse_owner((tmp_path / "lease").read_text()).ended


def test_row_33_a_former_start_on_another_host(tmp_path: Path) -> None:
    """Its signs of life decide, not its clock; a start of the same job need not wait for them."""
    alive = elsewhere(tmp_path)
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(0.05):
            os.utime(tmp_path / "lease", (time.time(), 0))  # any change is a sign: its clock may be decades off
            os.utime(tmp_path / "lease")

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(
            ClusterError, match=rf"is being trained by pid {os.getpid()} on host node7 since {alive.since[:4]}"
        ) as said:
            take(tmp_path)
        assert f"remove {tmp_path / 'lease'} to take the run over" in str(said.value)
        with pytest.raises(ClusterError, match="is being trained by"):  # another step of the same life of the job
            take(tmp_path, alive.job)
        take(tmp_path, "slurm:12, start 1").release()
    finally:
        ended.set()
        thread.join()
    elsewhere(tmp_path)
    assert LeaseRequest(tmp_path).poll(0.1) is None  # not before it has been silent for long enough
    taken = take(tmp_path)
    assert taken.generation == 5
    taken.release()
    elsewhere(tmp_path, state="ended")
    at_once = LeaseRequest(tmp_path).poll(0)
    assert at_once is not None
    at_once.release()
    (tmp_path / "lease").unlink()
    after = LeaseRequest(tmp_path, known=9).poll(0)
    assert after is not None and after.generation == 10  # numbers grow though the file was removed
    after.release()


def test_row_33_a_former_start_on_this_host(tmp_path: Path) -> None:
    """Its process decides: alive, dead but not yet buried, or another one under the same number."""
    child = subprocess.Popen(["sleep", "60"])
    process_start = owner.process_start_time(child.pid)
    elsewhere(tmp_path, machine=owner.machine_id(), pid=child.pid, process_start=process_start, job="")
    with pytest.raises(ClusterError, match=f"is being trained by pid {child.pid}"):
        take(tmp_path)
    elsewhere(tmp_path, machine=owner.machine_id(), pid=child.pid, process_start="1", job="")
    take(tmp_path).release()
    elsewhere(tmp_path, machine=owner.machine_id(), pid=child.pid, process_start=process_start, job="")
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    take(tmp_path).release()
    child.wait()


def test_row_33_the_command_given_twice_and_a_forgotten_process(shards: Manifest, whole: Path, tmp_path: Path) -> None:
    """The second start on a live run is refused; stopped, forgotten and robbed of its lease, the first one writes nothing more."""
    config = written(small(shards.folder, **SAVING), tmp_path)
    run = tmp_path / "run"
    slow = written(
        small(shards.folder, **{**SAVING, "schedule__steps": 5000, "log__every": 1}), made(tmp_path / "slow")
    )
    first = subprocess.Popen(
        [sys.executable, "-m", "collagan_dist", "train", slow, "--run", run], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        wait_for(lambda: checkpoint_steps(run / "checkpoints"), first)
        refused = collagan("train", config, "--run", run, check=False)
        assert refused.returncode == 4 and f"is being trained by pid {first.pid} on host" in refused.stderr, (
            refused.stderr
        )
        first.send_signal(signal.SIGSTOP)
        (run / "lease").unlink()
        shutil.rmtree(run / "checkpoints")
        collagan("train", config, "--run", run)
        before = contents(run)
        assert (run / "lease").read_text().split()[0] == "2"
        first.send_signal(signal.SIGCONT)
        said = first.communicate(timeout=120)[1]
    finally:
        first.kill()
    assert first.returncode == 4 and "start 2 of this run has taken over from this one (start 1)" in said
    assert contents(run) == before and equal(weights(whole, STEPS), weights(run, STEPS)) and names(run) == KEPT


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    last = time.monotonic() + 120
    while not condition():
        assert process.poll() is None and time.monotonic() < last
        time.sleep(0.02)


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
