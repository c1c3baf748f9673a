"""slurm/train.sh is asked to stop: it saves once, is requeued, resumes, and ends with the weights of an undisturbed run."""

import os
import sys

import pytest

from tests.faults.damages import rounds
from tests.slurm.test_strangers import stranger
from tests.slurm.training import SMALL_JOB, TRAIN, Training

pytestmark = pytest.mark.slurm


def saved_once_and_resumed(training: Training, total: int) -> int:
    """Return the step of the first stop; each stop saved one additional checkpoint, from which the next start resumed."""
    stops = [step for event, step in training.events() if event == "interrupted"]
    assert stops == [step for event, step in training.events() if event == "resume"]
    assert len(stops) == training.state().restarts == training.notes().count("asked to stop, saved; goes on by itself")
    saved = {int(path.name[5:]) for path in (training.run / "checkpoints").glob("step-*")}
    assert saved == {*range(10, total + 1, 10), *stops}
    assert not (training.run / "requeue").exists()
    return stops[0]


@rounds(1, 10)
@pytest.mark.parametrize("launcher", [pytest.param("srun", marks=pytest.mark.full), "torchrun"])
def test_row_21_warned_of_the_time_limit(cluster, undisturbed, tmp_path, launcher, rounds, record):
    """USR2 to all processes of the step, as Slurm sends it. (That srun's ranks get it, the next test shows.)

    Before, a stranger leaves a pickle in the store of torchrun's agents, which run nothing of it.
    """
    stops = []
    for number in range(rounds):
        training = Training.submit(cluster, undisturbed.config, tmp_path / f"run{number}", COLLAGAN_LAUNCHER=launcher)
        canary = tmp_path / f"canary{number}"
        if launcher == "torchrun":
            stranger(cluster, training, "bomb", f"{training.job}.0", canary)
        training.until_saved(10)
        cluster.signal(training.job, "USR2")
        training.finish()
        assert not canary.exists()
        stops.append(saved_once_and_resumed(training, undisturbed.steps))
        assert undisturbed.equals(training.run, undisturbed.steps)
    record(f"21 {launcher}", rounds=rounds, stops=stops)


@pytest.mark.full
def test_row_21_at_the_time_limit(cluster, undisturbed, tmp_path):
    """Slurm itself warns when ranks have hardly begun, and they stop; a job that is cancelled afterwards stays ended."""
    options = ["--time=2", "--signal=B:USR2@110"]
    training = Training.submit(cluster, undisturbed.config, tmp_path / "run", *options, sets=["schedule.steps=100000"])
    cluster.until(lambda: training.state().restarts == 1, 180, "the job to be requeued", training.job)
    cluster.run("scontrol", "update", f"job={training.job}", "timelimit=30")  # the next warning is far away
    stop = next(step for event, step in training.events() if event == "interrupted")
    training.until_saved(max(undisturbed.steps, stop + 10))
    assert training.notes()[1] == "asked to stop, saved; goes on by itself"
    assert ("resume", stop) in training.events() and (training.run / f"checkpoints/step-{stop:08d}").is_dir()
    assert undisturbed.equals(training.run, undisturbed.steps)
    cluster.cancel(training.job)
    assert cluster.wait(training.job).state == "CANCELLED"
    assert not training.processes()


# Begins to listen after a while, as ranks do that import torch.
LATE = f"""#!{sys.executable}
import os, signal, sys, time
from pathlib import Path

def stop(*_):
    Path("run/requeue").write_text(f"slurm:{{os.environ['SLURM_JOB_ID']}}, start 0")
    sys.exit()

if "--dry-run" in sys.argv:
    Path("checked").touch()
    time.sleep(1)
    print(f"# run: {{os.getcwd()}}/run")
elif "SLURM_RESTART_COUNT" not in os.environ:
    time.sleep(7)
    signal.signal(signal.SIGUSR2, stop)
    time.sleep(60)
"""


def test_a_warning_before_there_are_ranks_is_passed_on(cluster, tmp_path):
    """Once they can take it. It comes once, to the batch script alone, while the command is checked."""
    (tmp_path / "collagan").write_text(LATE)
    (tmp_path / "collagan").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "COLLAGAN_EVALUATE": "0"}
    job = cluster.submit(TRAIN, "demo", "--data=d", options=[*SMALL_JOB, "--nodes=1"], cwd=tmp_path, env=env)
    training = Training(cluster, job, tmp_path / "run")
    cluster.until((tmp_path / "checked").exists, 60, "the check", job)
    cluster.signal(job, "USR2", batch=True)
    done = cluster.wait(job, 120)
    assert (done.state, done.restarts) == ("COMPLETED", 1), training.log()
    assert training.notes()[1] == "asked to stop, saved; goes on by itself" and training.notes()[-1] == "done"


@pytest.mark.full
@pytest.mark.parametrize("launcher", ["srun", "torchrun"])
def test_a_warning_before_there_are_ranks_makes_them_save(cluster, undisturbed, tmp_path, launcher):
    training = Training.submit(
        cluster, undisturbed.config, tmp_path / "run", sets=["schedule.steps=100000"], COLLAGAN_LAUNCHER=launcher
    )
    cluster.until(lambda: any("--dry-run" in line for _, _, line in training.commands()), 60, "the check", training.job)
    cluster.signal(training.job, "USR2", batch=True)
    cluster.until(lambda: training.state().restarts == 1, 120, "the job to be requeued", training.job)
    cluster.cancel(training.job)
    assert training.notes()[1] == "asked to stop, saved; goes on by itself" and training.saved() > 0
    cluster.wait(training.job)


@rounds(1, 10)
def test_row_22_preempted(cluster, undisturbed, tmp_path, rounds, record):
    stops, options = [], ["--partition=urgent", "--nodes=3", "--exclusive", "--wrap=sleep 600"]
    for number in range(rounds):
        training = Training.submit(cluster, undisturbed.config, tmp_path / f"run{number}")
        training.until_saved(10)
        urgent = cluster.submit(None, options=options, cwd=tmp_path)
        cluster.until(lambda urgent=urgent: cluster.job(urgent).state == "RUNNING", 60, "the urgent job to run", urgent)
        assert training.state().state == "PENDING" and not training.ranks()
        cluster.cancel(urgent)
        training.finish()
        stops.append(next(step for event, step in training.events() if event == "interrupted"))
        assert training.state().restarts == 1 and ("resume", stops[-1]) in training.events()
        assert undisturbed.equals(training.run, undisturbed.steps)
    record("22", rounds=rounds, stops=stops)
