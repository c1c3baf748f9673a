"""Ranks that are killed, stopped or slow, by the rows of docs/faults.md. Real processes, real signals."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from collagan_dist.config.load import to_yaml
from collagan_dist.data.shards.manifest import Manifest
from tests.conftest import ROOT
from tests.faults.damages import rounds
from tests.faults.processes import LIMIT, Ranks, records, until
from tests.training.small import small

STEPS, EVERY = 14, 4


def configured(shards: Manifest, folder: Path, **changes: Any) -> Path:
    path = folder / "small.yaml"
    path.write_text(to_yaml(small(shards.folder, **changes)))
    return path


@pytest.mark.timeout(3600)
@rounds(1, 10)
def test_row_19_a_rank_is_killed(shards, tmp_path, rounds, record):
    """torchrun starts all again; at most a checkpoint's interval is done twice, and the run has every step once."""
    config = configured(shards, tmp_path, schedule__steps=STEPS, checkpoint__every=EVERY, log__every=1)
    lost = []
    for number in range(rounds):
        at = random.Random(number)
        run, rank, step = tmp_path / f"{number}", at.randrange(2), at.randrange(2, STEPS - 3)
        reached = killed_and_restarted(config, run, rank, step)
        first, again = (r for r in records(run, "event") if r["event"] in ("start", "resume"))
        assert first["event"] == "start" and again["step"] % EVERY == 0
        lost.append(reached - again["step"])
        assert lost[-1] < 2 * EVERY  # the newest checkpoint may still have been on its way to the disk
        facts = [(line["step"], line["samples"]) for line in records(run, "train")]
        assert facts == [(n, 4 * n) for n in range(1, STEPS + 1)] and (run / f"checkpoints/step-{STEPS:08d}").exists()
    record("19", rounds=rounds, lost_steps=lost, checkpoint_every=EVERY)


def killed_and_restarted(config: Path, run: Path, rank: int, step: int) -> int:
    """Train under torchrun and kill a rank once a step is logged; the last step that was logged before the restart."""
    start = ["-m", "torch.distributed.run", "--standalone", "--max-restarts", "2", "--nproc-per-node", "2", "-m", "--"]
    command = [sys.executable, *start, "collagan_dist", "train", str(config), "--run", str(run)]
    log = run.with_suffix(".log")
    with log.open("w") as out:
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        torchrun = subprocess.Popen(command, stdout=out, stderr=out, env=env, cwd=ROOT)
    try:
        until(lambda: len(records(run)) > step, lambda: torchrun.poll() is None)
        os.kill(json.loads((run / "world.json").read_text())["ranks"][rank]["pid"], signal.SIGKILL)
        time.sleep(0.3)  # the other rank cannot finish a step any more
        reached = records(run, "train")[-1]["step"]
        assert torchrun.wait(timeout=LIMIT) == 0, log.read_text()
    finally:
        torchrun.terminate()  # it takes its ranks along
        torchrun.wait(timeout=LIMIT)
    return int(reached)


def test_rows_23_and_24_a_slow_rank_and_one_that_is_stopped(shards, tmp_path):
    """The slow one is named once, with its host. Rank 0 takes the store with it: the other ends, names it and leaves its stacks."""
    run = tmp_path / "run"
    changes = {"schedule__steps": 1000, "log__every": 1, "runtime__timeout": 6, "runtime__straggler": 3.0}
    train = ["train", configured(shards, tmp_path, **changes), "--run", run]
    commands = [["tests.faults.driver", fault, number, *train] for fault, number in (("stop", 6), ("slow", 400))]
    with Ranks(tmp_path, *commands) as ranks:
        assert ranks.end(1) == [4], ranks.output()
        (event,) = (record for record in records(run, "event") if record["event"] == "straggler")
        assert event["rank"] == 1 and 3 <= event["step"] <= 6 and event["seconds"] > 0.4 > event["median"]
        named = f"step {event['step']}: rank 1 on {event['host']} is a straggler"
        assert ranks.output().count(named) == 1 and named in ranks.output(0)
        said = ranks.output(1)
        name = f"rank 0 (host {socket.gethostname()}, pid {ranks.processes[0].pid})"
        assert f"{name}, which hosts the store" in said and "and rank 1 waits in " in said and " of step 7 for " in said
        stacks = (run / "logs/stacks-rank-1.txt").read_text()
        assert stacks.count("Thread 0x") >= 3 and "loop.py" in stacks
        assert "gloo:" in (run / "logs/collectives-rank-1.json").read_text()
        # It comes back, finds the other one gone and accuses no rank.
        ranks.send(0, signal.SIGCONT)
        assert ranks.end(0) == [4] and "rank 1 (host" not in ranks.output(0), ranks.output()


def test_row_23_a_stopped_rank_is_ended_by_the_one_beside_it(shards, tmp_path):
    """Nobody else ends it: both are children of this process, as they are of a launcher, which would wait for it."""
    config = configured(shards, tmp_path, schedule__steps=1000, runtime__timeout=4)
    train = ["collagan_dist", "train", config, "--run", tmp_path / "run"]
    with Ranks(tmp_path, train, ["tests.faults.driver", "stop", 6, *train[1:]]) as ranks:
        assert ranks.end() == [4, -signal.SIGKILL], ranks.output()
        said = ranks.output(0)
        assert f"rank 1 (host {socket.gethostname()}, pid {ranks.processes[1].pid}) has not come to " in said
        assert "it has not answered for" in said


@pytest.mark.full
def test_row_24_a_rank_with_a_fifth_of_its_core(shards, tmp_path):
    """Stopped and let go, over and over: its whole work is slow, not a place in its code."""
    run = tmp_path / "run"
    config = configured(shards, tmp_path, schedule__steps=100_000, log__every=4, runtime__fail_on_straggler=True)
    command = ["collagan_dist", "train", config, "--run", run]
    with Ranks(tmp_path, command, command) as ranks:
        until(lambda: len(records(run)) > 3, lambda: ranks.processes[0].poll() is None)
        while ranks.processes[1].poll() is None:
            ranks.send(1, signal.SIGSTOP)
            time.sleep(0.4)
            ranks.send(1, signal.SIGCONT)
            time.sleep(0.1)
        assert ranks.end() == [4, 4] and "rank 1 on" in ranks.output(0), ranks.output()
