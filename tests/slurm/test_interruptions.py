"""slurm/train.sh is asked to stop: it saves once, is requeued, resumes, and ends with the weights of an undisturbed run."""

import pytest

from tests.faults.damages import rounds
from tests.slurm.test_strangers import stranger
from tests.slurm.training import Training

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


def test_row_21_at_the_time_limit(cluster, undisturbed, tmp_path):
    """Slurm itself sends the warning, 40 s before the minute is over; a job that is cancelled afterwards stays ended."""
    options = ["--time=1", "--signal=USR2@40"]
    training = Training.submit(cluster, undisturbed.config, tmp_path / "run", *options, sets=["schedule.steps=100000"])
    training.until_start(1)
    stop = next(step for event, step in training.events() if event == "interrupted")
    training.until_saved(max(undisturbed.steps, stop + 10))
    assert "asked to stop, saved; goes on by itself" in training.notes()
    assert ("resume", stop) in training.events() and (training.run / f"checkpoints/step-{stop:08d}").is_dir()
    assert undisturbed.equals(training.run, undisturbed.steps)
    cluster.cancel(training.job)
    assert cluster.wait(training.job).state == "CANCELLED"
    assert not training.processes()


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
