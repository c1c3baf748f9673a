"""Ranks that are killed, hang, fail or are slow, by the rows of docs/faults.md. Real processes, real signals."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collagan_dist.config.load import to_yaml
from collagan_dist.data.shards.manifest import Manifest
from tests.conftest import collagan
from tests.faults.damages import rounds
from tests.faults.processes import LIMIT, Ranks, lines, until
from tests.training.small import equal, small, weights

STEPS, EVERY = 30, 7


def configured(shards: Manifest, folder: Path, **changes: Any) -> Path:
    path = folder / "small.yaml"
    path.write_text(to_yaml(small(shards.folder, **changes)))
    return path


def records(run: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record for record in found if record["kind"] == kind]


# Row 19


@pytest.mark.timeout(3600)
@rounds(1, 10)
def test_row_19_a_rank_is_killed(shards: Manifest, tmp_path: Path, rounds: int, record: Callable[..., None]) -> None:
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
        told = records(run, "train")
        assert [(line["step"], line["samples"]) for line in told] == [(n, 4 * n) for n in range(1, STEPS + 1)]
        assert [line["loss/total"] for line in told] == [
            line["loss/total"] for line in records(tmp_path / "whole", "train")
        ]
    record("19", rounds=rounds, equal=rounds, lost_steps=lost, checkpoint_every=EVERY)


def killed_and_restarted(config: Path, run: Path, rank: int, step: int) -> int:
    """Train under torchrun and kill a rank once a step is logged; the last step that was logged before the restart."""
    start = ["-m", "torch.distributed.run", "--standalone", "--max-restarts", "2", "--nproc-per-node", "2", "-m", "--"]
    command = [sys.executable, *start, "collagan_dist", "train", str(config), "--run", str(run)]
    log = run.with_suffix(".log")
    with log.open("w") as out:
        torchrun = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        until(lambda: lines(run) > step, lambda: torchrun.poll() is None)
        os.kill(json.loads((run / "world.json").read_text())["ranks"][rank]["pid"], signal.SIGKILL)
        time.sleep(0.3)  # the other rank cannot finish a step any more
        reached = records(run, "train")[-1]["step"]
        assert torchrun.wait(timeout=LIMIT) == 0, log.read_text()
    finally:
        torchrun.terminate()  # it takes its ranks along
        torchrun.wait(timeout=LIMIT)
    return int(reached)


# Row 23

HUNG = {"schedule__steps": 100_000, "schedule__batch": 6, "runtime__timeout": 8}


@pytest.mark.parametrize("stopped", [1, 0])
def test_row_23_a_rank_is_stopped(shards: Manifest, tmp_path: Path, stopped: int) -> None:
    """The other one ends, names it and leaves its own stacks; rank 0 takes the store with it."""
    run, other = tmp_path / "run", 1 - stopped
    config = configured(shards, tmp_path, **HUNG)
    with Ranks(tmp_path, "tests.faults.driver", "stop", stopped, 1, "train", config, "--run", run) as ranks:
        assert ranks.ends(other) == [4], ranks.all_said()
        said = ranks.said(other)
        pid = ranks.processes[stopped].pid
        assert f"rank {stopped} (host " in said and f"pid {pid})" in said, said
        assert ("its process is stopped" if stopped else "hosts the store of the ranks at 127.0.0.1:") in said
        assert stacks(run, other).count("Thread 0x") >= 3 and "loop.py" in stacks(run, other)
        assert "gloo:" in (run / f"logs/collectives-rank-{other}.json").read_text()
        # The stopped one comes back: it is told, or finds the others gone.
        ranks.send(stopped, signal.SIGCONT)
        assert ranks.ends(stopped) == [4], ranks.all_said()
        assert f"rank {other} (host" not in ranks.said(stopped)


def test_ranks_that_come_back_in_time(shards: Manifest, tmp_path: Path) -> None:
    """Each in turn is stopped for half of the timeout: no rank ends, and nothing is different."""
    run, config = tmp_path / "run", configured(shards, tmp_path, **HUNG | {"schedule__steps": 60, "log__every": 1})
    with Ranks(tmp_path, "collagan_dist", "train", config, "--run", run) as ranks:
        for stopped in (1, 0):
            logged = lines(run)
            until(lambda: lines(run) > logged + 3, lambda: ranks.processes[0].poll() is None)  # noqa: B023
            ranks.send(stopped, signal.SIGSTOP)
            time.sleep(HUNG["runtime__timeout"] / 2)
            ranks.send(stopped, signal.SIGCONT)
        assert ranks.ends(0, 1) == [0, 0], ranks.all_said()
    assert [line["step"] for line in records(run, "train")] == list(range(1, 61)) and not (run / "logs").exists()


def stacks(run: Path, rank: int) -> str:
    return (run / f"logs/stacks-rank-{rank}.txt").read_text()


def test_row_23_a_rank_hangs_in_its_own_code(shards: Manifest, tmp_path: Path) -> None:
    """All end; the message says where it is, and its stack is kept."""
    hung, size = 0, 2
    run, config = tmp_path / "run", configured(shards, tmp_path, **HUNG)
    with Ranks(tmp_path, "tests.faults.driver", "hang", hung, 3, "train", config, "--run", run, size=size) as ranks:
        assert ranks.ends(*range(size)) == [4] * size, ranks.all_said()
        said = ranks.all_said()
        assert f"rank {hung} (host " in said and "has not come to the gradient of the discriminators of step 4" in said
        assert "busy or stuck in its own work" in said and f"rank {hung} is at:\n" in said
        assert said.count("all ranks end;") == 1 and "in stuck_for_ever" in said
        assert "stuck_for_ever" in stacks(run, hung) and "own work" in stacks(run, hung)
        assert all("waits in the gradient of the discriminators" in stacks(run, r) for r in range(size) if r != hung)


def test_a_rank_that_fails_tells_the_others_why(shards: Manifest, tmp_path: Path) -> None:
    """Rank 0, which takes the store along when it ends."""
    run, config = tmp_path / "run", configured(shards, tmp_path, schedule__steps=100_000)
    with Ranks(tmp_path, "tests.faults.driver", "fail", 0, 3, "train", config, "--run", run) as ranks:
        assert ranks.ends(0, 1) == [1, 4], ranks.all_said()
        assert "another rank is gone" in ranks.said(1)
        assert "rank 0 on " in ranks.said(1) and "ended: ValueError: a fault of this rank's own" in ranks.said(1)


# Row 24


@pytest.mark.parametrize("fails", [False, True])
def test_row_24_a_slow_rank(shards: Manifest, tmp_path: Path, fails: bool) -> None:
    """Named once with its host; with `runtime.fail_on_straggler` all ranks stop."""
    run = tmp_path / "run"
    config = configured(
        shards, tmp_path, schedule__steps=8, log__every=1, runtime__straggler=3.0, runtime__fail_on_straggler=fails
    )
    with Ranks(tmp_path, "tests.faults.driver", "slow", 1, 400, "train", config, "--run", run) as ranks:
        assert ranks.ends(0, 1) == ([4, 4] if fails else [0, 0]), ranks.all_said()
        (event,) = (record for record in records(run, "event") if record["event"] == "straggler")
        assert event["rank"] == 1 and 3 <= event["step"] <= 7 and event["seconds"] > 0.4 > event["median"]
        told = f"step {event['step']}: rank 1 on {event['host']} is a straggler"
        assert ranks.all_said().count(told) == 1 and told in ranks.said(0)


@pytest.mark.full
def test_row_24_a_rank_with_a_fifth_of_its_core(shards: Manifest, tmp_path: Path) -> None:
    """Stopped and let go, over and over: its whole work is slow, not a place in its code."""
    run = tmp_path / "run"
    config = configured(shards, tmp_path, schedule__steps=100_000, log__every=4, runtime__fail_on_straggler=True)
    with Ranks(tmp_path, "collagan_dist", "train", config, "--run", run) as ranks:
        until(lambda: lines(run) > 3, lambda: ranks.processes[0].poll() is None)
        while ranks.processes[1].poll() is None:
            ranks.send(1, signal.SIGSTOP)
            time.sleep(0.4)
            ranks.send(1, signal.SIGCONT)
            time.sleep(0.1)
        assert ranks.ends(0, 1) == [4, 4] and "rank 1 on" in ranks.said(0), ranks.all_said()
