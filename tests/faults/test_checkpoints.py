"""Runs that are killed while they save, meet a full disk, change their number of ranks, or are started twice.

By the rows of docs/faults.md; tests/runs has those that need no process of their own.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.errors import ClusterError
from collagan_dist.runs.layout import checkpoint_steps
from collagan_dist.setup import training_order
from collagan_dist.training import loop
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.conftest import ROOT
from tests.faults import seen
from tests.faults.processes import until
from tests.faults.saving import STAGES
from tests.faults.test_packing import private_mounts
from tests.launch import torchrun
from tests.runs.run_folders import KEPT, SAVING, STEPS, checkpoint_names, events, lines, write_config
from tests.training.small import equal, small, weights


@pytest.fixture(scope="module")
def undisturbed(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints at 8 and 9."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    train(small(shards.folder, **SAVING), run, World())
    return run


def driver(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500)


def saving_command(*args: object) -> list[str]:
    return [sys.executable, "-m", "tests.faults.saving", *map(str, args)]


def ended(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    return [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("ended")]


def test_row_27_killed_at_every_stage_of_a_save(shards, undisturbed, tmp_path):
    """kill -9, again and again: the same command ends with the weights of the undisturbed run, and leaves nothing lying about."""
    run = tmp_path / "run"
    done = driver(*saving_command("stages", write_config(small(shards.folder, **SAVING), tmp_path), run))
    assert ended(done) == [*([stage, "-9"] for stage in STAGES), ["undisturbed", "0"]], done.stdout + done.stderr
    assert checkpoint_names(run) == KEPT and not list(run.rglob("*.partial"))
    assert equal(weights(undisturbed, STEPS), weights(run, STEPS))
    assert [line["step"] for line in lines(run, "train")] == [2, 4, 6, 8, 9]
    assert [event["step"] for event in events(run, "resume")] == [4, 4, 4, 4, 6, 8]


@pytest.mark.full
def test_row_27_killed_at_random(shards, undisturbed, tmp_path, record):
    """The same before any call of the writing thread to the file system."""
    rounds = 60
    seeds = [f"random-{number}" for number in range(rounds)]
    done = driver(*saving_command("random", write_config(small(shards.folder, **SAVING), tmp_path), tmp_path, *seeds))
    assert [again for _, _, again in ended(done)] == ["0"] * rounds, done.stderr
    for seed in seeds:
        run = tmp_path / seed
        assert checkpoint_names(run) == KEPT and equal(weights(undisturbed, STEPS), weights(run, STEPS)), seed
    killed = sum(code == "-9" for _, code, _ in ended(done))
    assert killed * 2 > rounds
    record("27", rounds=rounds, killed=killed, equal=rounds)


def test_row_28_a_full_disk(shards, undisturbed, tmp_path):
    """Training goes on, says so, and saves again when there is room; without room it stops with the former checkpoint intact."""
    disk = tmp_path / "disk"
    disk.mkdir()
    one = write_config(small(shards.folder, **SAVING), tmp_path)
    config = small(shards.folder, **SAVING, checkpoint__max_failures=2)
    two = write_config(config, tmp_path / "two")
    script = f"""
        mount -t tmpfs -o size=6m none {disk}
        {" ".join(saving_command("full", one, disk / "room", disk / "filler", 2, 4))}; cp -r {disk}/room {tmp_path}; rm -r {disk}/room
        {" ".join(saving_command("full", two, disk / "none", disk / "filler", 2, 0))}; cp -r {disk}/none {tmp_path}
    """
    done = driver(*private_mounts(script))
    report, room, none = done.stdout + done.stderr, tmp_path / "room", tmp_path / "none"
    assert ended(done) == [["0"], ["5"]] and checkpoint_names(none) == ["step-00000002"], report
    train(config, none, World())
    for run in (room, none):
        assert equal(weights(undisturbed, STEPS), weights(run, STEPS)) and checkpoint_names(run) == KEPT
    failed = events(room, "checkpoint_failed")
    assert [event["step"] for event in failed] == [4, 6]
    assert all(event["needed"] > event["free"] >= 0 and "no space left" in event["reason"] for event in failed)
    assert [line["step"] for line in lines(room, "train")] == [2, 4, 6, 8, 9]
    warning = f"warning: {disk}/room/checkpoints/step-00000004: no space left; it needs {failed[0]['needed']} bytes, {failed[0]['free']} are free"
    assert warning in done.stderr and "inline_container" not in report and "Traceback" not in report
    assert "2 in a row could not be written. Step 6 is not saved, the newest checkpoint is step 2" in done.stderr


def test_row_30_another_number_of_ranks(shards, tmp_path, monkeypatch):
    """Two ranks, then one, with three shards: the global batches of one rank, every sample of two epochs exactly once."""
    assert [shard.samples for shard in shards.shards("train")] == [20, 20, 8]
    config = small(shards.folder, schedule__batch=12)
    path = write_config(config, tmp_path)
    torchrun(2, "-m", "--", "tests.faults.seen", path, tmp_path / "run", 5, tmp_path / "two")
    monkeypatch.setattr(loop, "build_step", loop.build_step)  # which `seen` replaces
    seen.main(str(path), str(tmp_path / "run"), "8", f"{tmp_path}/one")
    batches = defaultdict(list)  # (sample, epoch) of each step, rank after rank
    for part in ("two-0", "two-1", "one-0"):
        for number, epochs, ids in json.loads((tmp_path / f"{part}.json").read_text()):
            batches[number] += zip(ids, epochs, strict=True)
    order = training_order(config, shards)
    for number in range(8):
        assert batches[number] == [*zip(*map(np.ndarray.tolist, order.step(number, World())), strict=True)]
    found = sorted(pair for pairs in batches.values() for pair in pairs)
    assert found == [(sample, epoch) for sample in range(48) for epoch in (0, 1)]
    assert [event["world_size"] for event in lines(tmp_path / "run", "event")] == [2, 1]


def test_row_33_the_command_given_twice_and_a_forgotten_process(shards, undisturbed, tmp_path):
    """The second start on a live run is refused. Suspended and robbed of its lease, the first one writes nothing more."""
    config, run = small(shards.folder, **SAVING), tmp_path / "run"
    slow = write_config(small(shards.folder, **{**SAVING, "schedule__steps": 5000, "log__every": 1}), tmp_path / "slow")
    first = subprocess.Popen(
        [sys.executable, "-m", "collagan_dist", "train", slow, "--run", run], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        until(lambda: checkpoint_steps(run / "checkpoints") != [], lambda: first.poll() is None)
        with pytest.raises(ClusterError, match=f"is being trained by pid {first.pid} on host"):
            train(config, run, World())
        first.send_signal(signal.SIGSTOP)
        os.waitpid(first.pid, os.WUNTRACED)  # until it has stopped
        (run / "lease").unlink()
        shutil.rmtree(run / "checkpoints")
        train(config, run, World())
        before = contents(run)
        assert (run / "lease").read_text().split()[0] == "2"
        first.send_signal(signal.SIGCONT)
        said = first.communicate(timeout=120)[1]
    finally:
        first.kill()
    assert first.returncode == 4 and "start 2 of this run has taken over from this one (start 1)" in said
    assert contents(run) == before and checkpoint_names(run) == KEPT
    assert equal(weights(undisturbed, STEPS), weights(run, STEPS))


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
