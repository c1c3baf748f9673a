import json
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from collagan_dist.sweep.tuner import TuneAdapter, _loss_reason
from tests.conftest import collagan
from tests.sweep.ray_nodes import descendants, power_off, ray_nodes, start_node, wait_for
from tests.sweep.small import HALVING, LR_SPACE, STEPS, Sweep
from tests.training.small import equal, weights


def test_row_32_a_ray_node_is_lost(shards, tmp_path):
    """One of three nodes loses power: its trial continues elsewhere from its checkpoint, and ends as an ordinary run."""
    with ray_nodes(3) as (address, nodes):
        sweep = Sweep(tmp_path, shards.folder, LR_SPACE, "--trials", 3, "--ray", address)
        with sweep.started() as process:
            sweep.until(process, lambda: midway(sweep, nodes[2].pid))
            power_off(nodes[2])
            assert process.wait(450) == 0, sweep.log.read_text()
    reason = "its (node is gone|node does not answer|process was killed)"
    assert re.search(rf"trial \d+ starts again from its newest checkpoint: {reason}", sweep.log.read_text())
    rows = sweep.rows()
    assert [row["status"] for row in rows] == ["done"] * 3
    (lost,) = [number for number, row in enumerate(rows) if row["restarts"] != "0"]
    (start, _), (resume, step) = sweep.starts(lost)
    assert (start, resume, rows[lost]["restarts"]) == ("start", "resume", "1") and 8 <= step < STEPS
    collagan("train", sweep.trial(lost) / "config.yaml", "--run", tmp_path / "run")
    assert equal(weights(tmp_path / "run", STEPS), weights(sweep.trial(lost), STEPS))


HOLDER = """
import ray, sys, time
ray.init(address=sys.argv[1], log_to_driver=False)
hold = ray.remote(num_cpus=1)(lambda file: open(file, "w").close() or time.sleep(600))
ray.get(hold.remote(sys.argv[2]))
"""


@pytest.mark.full
def test_a_sweep_that_waits_for_resources_can_be_interrupted(shards, tmp_path):
    """Another program has the cluster: nothing runs that would have to save."""
    with (
        ray_nodes(1) as (address, _),
        subprocess.Popen([sys.executable, "-c", HOLDER, address, tmp_path / "held"]) as holder,
    ):
        try:
            sweep = Sweep(tmp_path, shards.folder, LR_SPACE, "--trials", 2, "--ray", address, schedule__steps=4)
            sweep.words[sweep.words.index(shards.folder)] = os.path.relpath(
                str(shards.folder)
            )  # nodes have another folder
            sweep.log.touch()
            sweep.until(holder, (tmp_path / "held").exists)
            with sweep.started() as process:
                sweep.until(
                    process, lambda: "others use what the cluster has: the sweep waits" in sweep.log.read_text()
                )
                process.send_signal(signal.SIGINT)
                assert process.wait(40) == 75, sweep.log.read_text()
            assert "1 of 2 trials begun: 1 waiting for room; waits for room: others use" in sweep.log.read_text()
            assert not (sweep.trial(0) / "checkpoints").exists()
        finally:
            holder.kill()
        sweep.run()
    assert [row["status"] for row in sweep.rows()] == ["done"] * 2


@pytest.mark.full
def test_a_sweep_whose_last_node_is_lost_waits_for_another(shards, tmp_path):
    with ray_nodes(1, cpus=0) as (address, nodes):
        nodes.append(start_node(1, f"--address={address}"))
        wait_for(address, 2)
        sweep = Sweep(tmp_path, shards.folder, LR_SPACE, "--trials", 2, "--ray", address)
        with sweep.started() as process:
            sweep.until(process, lambda: sweep.saved(0) >= 2)
            power_off(nodes.pop())
            sweep.until(process, lambda: "has what a trial takes: the sweep waits" in sweep.log.read_text())
            nodes.append(start_node(1, f"--address={address}"))
            assert process.wait(200) == 0, sweep.log.read_text()
    assert re.search(r"(?s)has what a trial takes: the sweep waits.*there is room again", sweep.log.read_text())
    assert [row["status"] for row in sweep.rows()] == ["done"] * 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Failure # 1\nThe actor died because its node has died.", "its node is gone"),
        ("Failure # 1\nTask was killed: memory usage threshold", "its node ran short of memory, and Ray ended its process"),
        ("Failure # 1\nnode has died\nFailure # 2\nThe actor died unexpectedly", "its process was killed: .*"),
        ("Failure # 1\ncollagan_dist.errors.ClusterError: a rank of trial t001 is gone\nnode has died", "a rank of trial t001 is gone"),
        ("Failure # 1\nOddError: 3\n", "OddError: 3"),
        (None, "its process is gone"),
    ],
)  # fmt: skip
def test_the_reason_of_a_loss(text, reason, tmp_path):
    """Of the last failure: our own words first, else what Ray's mean, else Ray's last line."""
    (tmp_path / "error.txt").write_text(text or "")
    assert re.fullmatch(reason, _loss_reason(SimpleNamespace(error_file=tmp_path / "error.txt" if text else None)))


@pytest.mark.full
def test_segments_that_wait_are_taken_back_at_the_goal(shards, tmp_path):
    """Another program has one of two CPUs: the second trial waits until the first one has reached the goal, and never starts."""
    space = {**HALVING, "scheduler": "none"}
    with (
        ray_nodes(1, cpus=2) as (address, _),
        subprocess.Popen([sys.executable, "-c", HOLDER, address, tmp_path / "held"]) as holder,
    ):
        try:
            sweep = Sweep(tmp_path, shards.folder, space, "--trials", 3, "--seeds", 1, "--ray", address)
            sweep.words += ["--stop-at", "psnr_hole>=1"]
            sweep.log.touch()
            sweep.until(holder, (tmp_path / "held").exists)
            assert "trial 0 has reached psnr_hole>=1: the search is over" in sweep.run()
        finally:
            holder.kill()
    assert [row["steps"] for row in sweep.rows()] == [str(STEPS), "0"]
    assert not (sweep.trial(1) / "checkpoints").exists() and not (sweep.trial(1) / "logs").exists()


def test_segments_without_a_place_are_told_while_others_run():
    told: list[tuple[set[int], str | None]] = []
    source = SimpleNamespace(poll=lambda: False, set_waiting=lambda *facts: told.append((set(facts[0]), facts[1])))
    adapter = TuneAdapter(source, SimpleNamespace(waiting_reason=lambda: "the cluster starts nodes"))
    adapter._numbers = {"a": 5, "b": 6, "c": 7}
    trials = [
        SimpleNamespace(trial_id=one, status="PENDING", temporary_state=SimpleNamespace(ray_actor=None))
        for one in "abcd"
    ]
    adapter.step(trials)
    trials[1].status = "RUNNING"
    adapter.step(trials)
    assert (
        told == [({5, 6, 7}, "the cluster starts nodes"), ({5, 7}, "the cluster starts nodes")]
        and adapter.error is None
    )


def test_a_segment_that_waits_is_taken_back():
    """It ends as one that was interrupted, and Tune's trial is stopped; the others go on waiting."""
    ended: list[tuple[object, ...]] = []
    source = SimpleNamespace(
        poll=lambda: False, set_waiting=lambda numbers, reason: numbers & {6, 9}, segment_ended=lambda *facts: ended.append(facts)
    )  # fmt: skip
    adapter = TuneAdapter(source, SimpleNamespace(waiting_reason=lambda: None))
    adapter._numbers, stopped = {"a": 5, "b": 6}, []
    adapter.stop_trial = stopped.append
    trials = [SimpleNamespace(trial_id=one, status="PENDING") for one in "ab"]
    adapter.step(trials)
    assert stopped == [trials[1]] and ended == [(6, {"interrupted": True}, ())]
    assert adapter._numbers == {"a": 5} and adapter.error is None


def midway(sweep: Sweep, node: int) -> bool:
    """Whether a trial on a node is between its first checkpoints and its end; it is stopped there."""
    family = descendants(node)
    for number in range(3):
        world = sweep.trial(number) / "world.json"
        pid = json.loads(world.read_text())["ranks"][0]["pid"] if world.exists() else None
        if pid in family and sweep.saved(number) >= 8:
            os.kill(pid, signal.SIGSTOP)
            if sweep.saved(number) < STEPS:
                return True
            os.kill(pid, signal.SIGCONT)
    return False
