"""Somebody on the cluster's network reaches the port where the ranks of a job meet, and has not the secret of their start."""

import json
import sys
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.training import Training

pytestmark = pytest.mark.slurm
LATE = """
if [ "${SLURM_NODEID:-0}" = 1 ]; then until [ -e "$0.go" ]; do sleep 0.1; done; fi
exec "$@"
"""


def stranger(cluster: Cluster, training: Training, *words: object) -> str:
    """What stranger.py says, on the third node."""
    host, port = meeting(training)
    return cluster.on("n3", sys.executable, Path(__file__).with_name("stranger.py"), host, port, *words).strip()


def meeting(training: Training) -> tuple[str, str]:
    training.cluster.until(lambda: "meeting at" in training.log(), 60, "the plan", training.job)
    host, _, port = training.notes()[-1].rpartition(" ")[2].partition(":")
    return host, port


def listening(cluster: Cluster, port: str) -> list[str]:
    """The addresses where somebody listens at a port of n1."""
    lines = cluster.on("n1", "ss", "-ltnH", f"sport = :{port}").splitlines()
    return [line.split()[3] for line in lines]


@pytest.mark.parametrize("signals", [["HUP"], pytest.param(["INT", "HUP"], marks=pytest.mark.full)])
def test_a_stranger_is_refused_and_signals_of_a_person_save(cluster, undisturbed, tmp_path, signals):
    """Rank 0 listens on the job's interface alone, which doctor shows; a hello without the secret is refused and counted.

    Then the ranks meet and train; a signal makes them save, and the job goes on by itself.
    """
    late = tmp_path / "late"
    late.write_text(LATE)
    sets = ["schedule.steps=100000", "checkpoint.keep=5", "runtime.rendezvous_timeout=200"]
    training = Training.submit(
        cluster, undisturbed.config, tmp_path / "run", "--nodelist=n1,n2", sets=sets, COLLAGAN_CONTAINER=f"bash {late}"
    )
    port = meeting(training)[1]
    cluster.until(lambda: bool(listening(cluster, port)), 90, "rank 0 to listen", training.job)
    assert listening(cluster, port) == [f"10.77.0.1:{port}"]
    assert stranger(cluster, training, "hello", f"{training.job}.0", 1) == "no answer"
    said = json.loads(cluster.on("n1", sys.executable, "-m", "collagan_dist", "doctor", "--net", "--json"))
    (ports,) = [check for check in said["checks"] if check["check"] == "ports"]
    assert ports["state"] == "ok" and f"at port {port} on 10.77.0.1 (who reaches eth0)" in ports["text"], ports
    Path(f"{late}.go").touch()
    training.until_saved(10)
    assert training.log().count("a hello as rank 1 without this start's secret is refused") == 1, training.log()
    for number, name in enumerate(signals, 1):
        cluster.signal(training.job, name)
        training.until_start(number)
        saved = training.saved()
        assert training.events()[-1] == ("interrupted", saved), training.log()
        training.until_saved(saved + 10)
        assert ("resume", saved) in training.events()
    assert training.notes().count("asked to stop, saved; goes on by itself") == len(signals)
    cluster.cancel(training.job)
    assert cluster.wait(training.job).state == "CANCELLED" and not training.processes()
