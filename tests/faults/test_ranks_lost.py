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
from tests.conftest import ROOT, collagan
from tests.faults.damages import rounds
from tests.faults.processes import LIMIT, Ranks, records, until
from tests.training.small import equal, small, weights

STEPS, EVERY = 14, 4


def configured(shards: Manifest, folder: Path, **changes: Any) -> Path:
    path = folder / "small.yaml"
    path.write_text(to_yaml(small(shards.folder, **changes)))
    return path


def with_fault(fault: str, rank: int, number: int, config: Path, run: Path) -> list[list[object]]:
    """The commands of two ranks that train with a fault of driver.py in one of them."""
    faults = [fault if this == rank else "none" for this in range(2)]
    return [["tests.faults.driver", name, number, "train", config, "--run", run] for name in faults]


@pytest.mark.timeout(3600)
@rounds(1, 10)
def test_row_19_a_rank_is_killed(shards, tmp_path, rounds, record):
    """torchrun starts all again; at most a checkpoint's interval is done twice, and the run ends as if nothing had been."""
    config = configured(shards, tmp_path, schedule__steps=STEPS, checkpoint__every=EVERY, log__every=1)
    collagan("train", config, "--run", tmp_path / "whole", ranks=2)
    lost = []
    for number in range(rounds):
        at = random.Random(number)
        run, rank, step = tmp_path / f"{number}", at.randrange(2), at.randrange(2, STEPS - 3)
        reached = killed_and_restarted(config, run, rank, step)
        assert equal(weights(tmp_path / "whole", STEPS), weights(run, STEPS))
        first, again = (r for r in records(run, "event") if r["event"] in ("start", "resume"))
        assert first["event"] == "start" and again["step"] % EVERY == 0
        lost.append(reached - again["step"])
        assert reached - again["step"] < 2 * EVERY  # the newest checkpoint may still have been on its way to the disk
        facts = [
            [(line["step"], line["samples"], line["loss/total"]) for line in records(folder, "train")]
            for folder in (tmp_path / "whole", run)
        ]
        assert facts[0] == facts[1] and [fact[:2] for fact in facts[0]] == [(n, 4 * n) for n in range(1, STEPS + 1)]
    record("19", rounds=rounds, equal=rounds, lost_steps=lost, checkpoint_every=EVERY)


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


def test_row_23_rank_0_is_stopped(shards, tmp_path):
    """It takes the store with it: the other one ends, names it and leaves its own stacks."""
    run, config = tmp_path / "run", configured(shards, tmp_path, schedule__steps=1000, runtime__timeout=6)
    with Ranks(tmp_path, *with_fault("stop", 0, 1, config, run)) as ranks:
        assert ranks.end(1) == [4], ranks.output()
        said = ranks.output(1)
        name = f"rank 0 (host {socket.gethostname()}, pid {ranks.processes[0].pid})"
        assert f"{name}, which hosts the store" in said and "and rank 1 waits in " in said and " of step 2 for " in said
        stacks = (run / "logs/stacks-rank-1.txt").read_text()
        assert stacks.count("Thread 0x") >= 3 and "loop.py" in stacks
        assert "gloo:" in (run / "logs/collectives-rank-1.json").read_text()
        # It comes back, finds the other one gone and accuses nobody.
        ranks.send(0, signal.SIGCONT)
        assert ranks.end(0) == [4] and "rank 1 (host" not in ranks.output(0), ranks.output()


def test_row_24_a_slow_rank(shards, tmp_path):
    """Named once with its host, and all ranks go on."""
    run = tmp_path / "run"
    config = configured(shards, tmp_path, schedule__steps=6, log__every=1, runtime__straggler=3.0)
    with Ranks(tmp_path, *with_fault("slow", 1, 400, config, run)) as ranks:
        assert ranks.end() == [0, 0], ranks.output()
        (event,) = (record for record in records(run, "event") if record["event"] == "straggler")
        assert event["rank"] == 1 and 3 <= event["step"] <= 6 and event["seconds"] > 0.4 > event["median"]
        told = f"step {event['step']}: rank 1 on {event['host']} is a straggler"
        assert ranks.output().count(told) == 1 and told in ranks.output(0)


@pytest.mark.full
def test_row_24_a_rank_with_a_fifth_of_its_core(shards, tmp_path):
    """Stopped and let go, over and over: its whole work is slow, not a place in its code."""
    run = tmp_path / "run"
    config = configured(shards, tmp_path, schedule__steps=100_000, log__every=4, runtime__fail_on_straggler=True)
    with Ranks(tmp_path, *with_fault("none", 0, 0, config, run)) as ranks:
        until(lambda: len(records(run)) > 3, lambda: ranks.processes[0].poll() is None)
        while ranks.processes[1].poll() is None:
            ranks.send(1, signal.SIGSTOP)
            time.sleep(0.4)
            ranks.send(1, signal.SIGCONT)
            time.sleep(0.1)
        assert ranks.end() == [4, 4] and "rank 1 on" in ranks.output(0), ranks.output()
