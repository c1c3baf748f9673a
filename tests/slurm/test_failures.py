"""A rank, a node or the network is lost under slurm/train.sh: the job is requeued and ends with the weights of an undisturbed run."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.damages import rounds
from tests.slurm.cluster import Cluster
from tests.slurm.training import TRAIN, Training

pytestmark = pytest.mark.slurm


@rounds(1, 10)
@pytest.mark.full
@pytest.mark.parametrize("launcher", ["srun", "torchrun"])
def test_row_19_a_rank_is_killed(cluster, undisturbed, tmp_path, launcher, rounds, record):
    """srun: the job is requeued by its script. torchrun starts all ranks again in the same job."""
    lost = []
    for number in range(rounds):
        run = tmp_path / f"run{number}"
        training = Training.submit(cluster, undisturbed.config, run, COLLAGAN_LAUNCHER=launcher)
        training.until_saved(20)
        training.kill_rank("n2" if number % 2 == 0 else "n1")
        lost.append(training.lost_steps())
        training.finish()
        assert undisturbed.equals(run, undisturbed.steps)
        failures = [note for note in training.notes() if "FAILED" in note]
        assert len(failures) == training.state().restarts == (1 if launcher == "srun" else 0)
    assert max(lost) <= 10
    record(f"19 {launcher}", rounds=rounds, lost_steps=lost)


@pytest.mark.full
def test_row_19_failures_are_counted_and_the_same_command_resumes(cluster, undisturbed, tmp_path):
    """A rank is killed, and the script requeues the job. After MAX_REQUEUE failures it stays ended, with its reasons on file."""
    run = tmp_path / "run"
    training = Training.submit(cluster, undisturbed.config, run, MAX_REQUEUE="1")
    for step in (10, 30):
        training.until_saved(step)
        training.kill_rank("n2" if step == 10 else "n1")
        assert training.lost_steps() <= 10  # a checkpoint comes every 10 steps
        cluster.until(lambda step=step: len(training.notes()) == (2 if step == 10 else 4), 60, "the note", training.job)
    done = cluster.wait(training.job)
    assert (done.state, done.restarts) == ("FAILED", 1) and done.exit_code > 0
    first, _, last = training.notes()[1:]
    assert re.fullmatch(r"FAILED with code \d+ on n2; restart 1 of at most 1", first)
    assert last.startswith(f"FAILED with code {done.exit_code} on n1: the last of MAX_REQUEUE=1 restarts")
    Training.submit(cluster, undisturbed.config, run).finish()
    assert undisturbed.equals(run, undisturbed.steps)


def test_errors_that_a_restart_cannot_repair_end_the_job(cluster, undisturbed, tmp_path):
    """A batch that ranks cannot share: exit 2 before ranks start. A checkpoint of another configuration: 5, which srun may not tell."""
    shared = Training.submit(cluster, undisturbed.config, tmp_path / "none", sets=["schedule.batch=5"])
    run = shutil.copytree(undisturbed.run, tmp_path / "run")
    other = Training.submit(cluster, undisturbed.config, run, sets=["seed=1"])
    done = cluster.wait(shared.job)
    assert (done.state, done.exit_code, done.restarts) == ("FAILED", 2, 0) and not shared.run.exists()
    assert "schedule.batch" in shared.log()
    done = cluster.wait(other.job, 120)
    assert (done.state, done.exit_code, done.restarts) == ("FAILED", 5, 0), other.log()
    assert other.notes()[1:] == ["ended with code 5, which a restart does not mend"]
    failed = json.loads((other.run / "failed").read_text())
    assert (failed["exit_code"], failed["host"]) == (5, f"n{failed['rank'] + 1}") and "seed: 0 -> 1" in failed[
        "message"
    ]


# Its ranks die on one node, and end well elsewhere.
BAD_NODE = """#!/bin/bash
if [[ " $* " == *" --dry-run "* ]]; then echo "# run: $PWD/$4"; exit; fi
if [ "$SLURMD_NODENAME" = n1 ] && [ -n "${SLURM_STEP_ID:-}" ] && [ "$1" = train ]; then kill -9 $$; fi
[ "$SLURM_NNODES" = 1 ] || sleep 60
"""


def test_a_node_that_fails_twice_is_left_out(cluster, tmp_path):
    """Beside those that were excluded from the start, and said; but not where too few nodes would be left."""
    (tmp_path / "collagan").write_text(BAD_NODE)
    (tmp_path / "collagan").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "MAX_REQUEUE": "2"}

    def submit(run: str, *options: str) -> Training:
        options = ("--oversubscribe", "--gpus-per-node=0", "--ntasks-per-node=1", "--time=5", *options)
        job = cluster.submit(TRAIN, "demo", "--out", run, "--data=d", options=options, cwd=tmp_path, env=env)
        return Training(cluster, job, tmp_path / run)

    one, all_nodes = submit("one", "--exclude=n3"), submit("all", "--nodes=3")
    done = cluster.wait(one.job, 120)
    assert (done.state, done.restarts, done.nodes) == ("COMPLETED", 2, "n2"), one.log()
    assert [note for note in one.notes() if "meeting" not in note] == [
        "FAILED with code 137 on n1; restart 1 of at most 2", "FAILED with code 137 on n1; restart 2 of at most 2",
        "excluded from now on, since this job failed there twice: n1", "done",
    ]  # fmt: skip
    assert re.search(r"ExcNodeList=(n3,n1|n\[3,1\]|n\[1,3\])\n", cluster.run("scontrol", "show", "job", one.job))
    done = cluster.wait(all_nodes.job, 120)
    assert (done.state, done.restarts, done.nodes) == ("FAILED", 2, "n[1-3]"), all_nodes.log()
    assert [note.split(";")[0] for note in all_nodes.notes() if "meeting" not in note][:2] == [
        "FAILED with code 143 on n1"
    ] * 2
    assert "ExcNodeList=(null)" in cluster.run("scontrol", "show", "job", all_nodes.job)


@pytest.mark.full
def test_tasks_of_an_array_that_share_a_run_folder(cluster, undisturbed, tmp_path):
    """One trains on. The others, on its node and on another, end with one line and spend no restart."""
    options, run = ["--array=0-2", "--nodes=1", "--cpus-per-task=2"], tmp_path / "run"
    array = Training.submit(cluster, undisturbed.config, run, *options, sets=["schedule.steps=100000"])
    tasks = [f"{array.job}_{number}" for number in range(3)]
    cluster.until(lambda: sum(cluster.job(task).ended for task in tasks) >= 2, 180, "two tasks to end", array.job)
    (winner,) = [task for task in tasks if not cluster.job(task).ended]
    for task in set(tasks) - {winner}:
        done = cluster.job(task)
        assert (done.state, done.exit_code, done.restarts) == ("FAILED", 4, 0), cluster.log(task)
        last = (run / f"logs/slurm-{task}.txt").read_text().splitlines()[-1]
        assert last.endswith("another start trains in this folder: this one ends, no restart"), cluster.log(task)
        assert last in cluster.log(task) and f"{run} is being trained by pid" in cluster.log(task)
    saved = array.saved()
    cluster.until(lambda: array.saved() > saved, 60, "the winner to train on", winner)
    assert (cluster.job(winner).state, cluster.job(winner).restarts) == ("RUNNING", 0)
    cluster.cancel(winner)
    assert cluster.wait(winner).state == "CANCELLED"


@pytest.mark.parametrize("node", ["n2", pytest.param("n1", marks=pytest.mark.full)])
@rounds(1, 5)
def test_row_20_a_node_loses_power(cluster, undisturbed, tmp_path, node, rounds, record):
    """Slurm requeues the job, on the nodes that are left; n1 is the one with the batch script and rank 0."""
    for number in range(rounds):
        training = Training.submit(cluster, undisturbed.config, tmp_path / f"run{number}")
        training.until_saved(20)
        with cluster.without_power(node):
            done = training.finish()
        assert done.restarts == 1 and node not in cluster.run("scontrol", "show", "hostnames", done.nodes)
        assert undisturbed.equals(training.run, undisturbed.steps)
        # The script on n2's side lives to say so; the one that is lost with n1 leaves it to the next start.
        (lost,) = [note for note in training.notes() if f"with the loss of {node}" in note]
        assert lost == "the start before ended with the loss of n1" or node == "n2"
    record(f"20 {node}", rounds=rounds)


@contextmanager
def cut_off(cluster: Cluster, node: str) -> Iterator[None]:
    cluster.cut(node)
    try:
        yield
    finally:
        cluster.heal(node)
        if cluster.states()[node] not in ("idle", "mixed", "allocated"):  # Slurm would look again half a minute later
            cluster.kill_node(node)
            cluster.start_node(node)


@pytest.mark.full
def test_row_25_the_network_is_away_for_a_while(cluster, undisturbed, tmp_path):
    training = Training.submit(cluster, undisturbed.config, tmp_path / "run")
    training.until_saved(20)
    with cut_off(cluster, "n2"):
        time.sleep(5)
        assert training.saved() < undisturbed.steps
    assert training.finish().restarts == 0
    assert [event for event, _ in training.events() if event in ("start", "resume")] == ["start"]
    assert undisturbed.equals(training.run, undisturbed.steps)


@pytest.mark.full
@pytest.mark.parametrize("node", ["n2", "n1"])
def test_row_25_the_network_does_not_come_back(cluster, undisturbed, tmp_path, node, record):
    """By the ranks' own limit or by Slurm's (whichever is shorter) the job ends, and goes on elsewhere."""
    training = Training.submit(cluster, undisturbed.config, tmp_path / "run", sets=["runtime.timeout=15"])
    training.until_saved(20)
    with cut_off(cluster, node):
        since = time.monotonic()
        training.until_start(1)
        seconds = round(time.monotonic() - since)
        done = training.finish()
    assert done.restarts >= 1 and node not in cluster.run("scontrol", "show", "hostnames", done.nodes)
    assert undisturbed.equals(training.run, undisturbed.steps)
    record(f"25 {node}", seconds_to_restart=seconds)


@pytest.mark.full
def test_row_23_a_rank_is_stopped_under_torchrun(cluster, undisturbed, tmp_path):
    """Its own agent does not notice; the other ranks do, and when their restarts are used up the job is requeued."""
    sets = ["runtime.timeout=15", "runtime.rendezvous_timeout=15"]
    variables = {"COLLAGAN_LAUNCHER": "torchrun", "COLLAGAN_MAX_RESTARTS": "1"}
    training = Training.submit(
        cluster, undisturbed.config, tmp_path / "run", "--nodelist=n1,n2", sets=sets, **variables
    )
    training.until_saved(20)
    ((_, process),) = [rank for rank in training.ranks() if rank[0] == "n2"]
    cluster.on("n2", "kill", "-STOP", process)
    training.until_start(1)
    assert training.finish().restarts == 1 and "rank 1 (host n2" in training.log()
    assert undisturbed.equals(training.run, undisturbed.steps)


def test_row_33_a_start_that_was_cut_off_writes_no_more(cluster, undisturbed, tmp_path):
    """Both ranks on one node train on while Slurm, which sees only silence, starts the job again on another one."""
    options = ["--nodes=1", "--ntasks-per-node=2"]
    training = Training.submit(cluster, undisturbed.config, tmp_path / "run", *options)
    training.until_saved(20)
    older = training.ranks()
    with cut_off(cluster, older[0][0]):
        for node, process in older:  # or they would end their work before there is another start
            cluster.on(node, "kill", "-STOP", process)
        cluster.declare_down(older[0][0])
        training.until_start(1)
        cluster.until(lambda: len(training.events()) > 1, 120, "the next start to write", training.job)
        for node, process in older:
            cluster.on(node, "kill", "-CONT", process)
        cluster.until(lambda: not set(older) & set(training.ranks()), 120, "the older start to end", training.job)
    # The older srun, healed, may end the newer step, whose number is the same: then there is one more start.
    assert training.finish().restarts >= 1
    assert "start 2 of this run has taken over from this one (start 1); nothing was written" in training.log()
    (notes,) = (training.run / "logs").glob("slurm-*.txt")
    assert notes.read_text().count("  start 0  ") == 1  # nor does the older batch script write of its end
    assert training.steps() == list(range(10, undisturbed.steps + 1, 10))
    assert undisturbed.equals(training.run, undisturbed.steps)
