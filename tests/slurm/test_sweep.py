"""slurm/sweep.sh: a Ray cluster inside an allocation, for its user alone, which ends with the sweep and survives the loss of a node.

In all tests but one `collagan sweep` is a stand-in that inspects the nodes; tests/sweep has those of trials.
"""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.slurm.cluster import Cluster, Job
from tests.slurm.training import Training
from tests.sweep import small
from tests.training.small import equal, weights

pytestmark = pytest.mark.slurm
SWEEP = ROOT / "slurm/sweep.sh"
TRIALS = 8  # of the sweep that really trains
BIN = Path(sys.executable).parent

# Does something on every node again and again, until the file `end` is there or it is asked to stop.
STAND_IN = f"""#!{sys.executable}
import os, sys, time
from pathlib import Path
from collagan_dist.distributed.stop_request import StopRequest
from collagan_dist.distributed.world import start_label
from collagan_dist.sweep.ray_cluster import join_cluster

words = sys.argv[1:]
assert words[0] == "sweep"
out = Path(words[words.index("--out") + 1]).absolute()
if "--dry-run" in words:
    print(f"# out: {{out}}")
    sys.exit(2 if words[1] == "wrong" else 0)
if words[1] == "spent":  # the time budget
    sys.exit(75)
with StopRequest() as stop, join_cluster(words[words.index("--ray") + 1]) as ray:
    (out / "token").write_text(os.environ["RAY_AUTH_TOKEN"])
    (out / "requeue").unlink(missing_ok=True)

    @ray.remote(num_cpus=0, max_retries=0)
    def look():
        return [os.environ[name] for name in ("SLURMD_NODENAME", "SLURM_JOB_ID", "OMP_NUM_THREADS")]

    rounds = 0
    while not stop and not (out / "end").exists():
        alive = [node for node in ray.nodes() if node["Alive"]]
        places = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        try:
            seen = ray.get([look.options(scheduling_strategy=places(node["NodeID"], soft=False)).remote() for node in alive])
        except ray.exceptions.RayError:
            continue
        rounds += 1
        sizes = [node["Resources"].get(kind, 0) for node in alive for kind in ("CPU", "GPU")]
        (out / "seen.tmp").write_text(repr(dict(start=start_label(), rounds=rounds, sizes=sizes, seen=sorted(seen))))
        (out / "seen.tmp").replace(out / "seen")
        time.sleep(0.5)
if stop:
    (out / "requeue").write_text(start_label())
    sys.exit(75)
"""

# Ray's command, which fails as often as the file <node>.fails beside it says.
FAILING_RAY = f"""#!/bin/bash
fails=$(dirname "$0")/$SLURMD_NODENAME.fails
if [ -s "$fails" ]; then sed -i 1d "$fails"; echo "does not start"; exit 1; fi
exec {BIN}/ray "$@"
"""
JOIN = """
import ray, sys
try:
    ray.init(address=sys.argv[1], log_to_driver=False)
    print("joined")
except ConnectionError:
    print("no connection")
"""
OPEN_PORTS = """
import socket, sys
for port in range(1, 32768):
    with socket.socket() as probe:
        if probe.connect_ex((sys.argv[1], port)) == 0:
            print(port)
"""
STATUS = "import sys, urllib.request as u\ntry: u.urlopen(sys.argv[1])\nexcept u.HTTPError as error: print(error.code)"


@dataclass
class Sweep(Training):
    """A job of slurm/sweep.sh whose stand-in for `collagan sweep` looks at its nodes until `end`."""

    def seen(self) -> dict:
        """What was seen last: `start`, how many `rounds` ago it began, CPUs and GPUs of all nodes, what tasks said."""
        path = self.run / "seen"
        return ast.literal_eval(path.read_text()) if path.exists() else {"rounds": 0, "start": "", "seen": []}

    def until_seen(self, start: int, nodes: set[str], timeout: float = 90) -> dict:
        """Wait until tasks of the `start`-th start ran on just these nodes."""

        def there() -> bool:
            assert not self.state().ended, self.log()
            seen = self.seen()
            return seen["start"] == f"slurm:{self.job}, start {start}" and {who[0] for who in seen["seen"]} == nodes

        self.cluster.until(there, timeout, f"tasks on {nodes}", self.job)
        return self.seen()

    def finish(self) -> Job:
        (self.run / "end").touch()
        return self.ended("COMPLETED")

    def ended(self, state: str) -> Job:
        """The job, which must end so and leave neither processes nor folders."""
        job = self.cluster.wait(self.job, 240)
        assert job.state == state, self.log()
        for node in self.cluster.with_power:
            processes = self.cluster.on(node, "ps", "axww", "-o", "args=")
            assert not re.findall(rf".*(?:/ray/|/ray start|ray::|{self.run}).*", processes), processes
            assert "LISTEN" not in self.cluster.on(node, "sh", "-c", "ss -Hltn | grep -v :6818 || true")
        assert not list(Path("/tmp").glob(f"ray-{self.job}.*"))
        return job


@dataclass
class Sweeps:
    cluster: Cluster
    folder: Path
    out: str = "out"

    def submit(self, *options: str, words: tuple[str, ...] = ("small",), **env: str) -> Sweep:
        out = self.folder / self.out
        path = f"{self.folder / 'bin'}:{BIN}:{os.environ['PATH']}"
        small = ["--oversubscribe", "--cpus-per-task=4", "--gpus-per-node=0", "--time=10"]
        job = self.cluster.submit(
            SWEEP, *words, "--out", out, cwd=self.folder, options=[*small, *options],
            env={"PATH": path, "PYTHONPATH": str(ROOT), "COLLAGAN_DATA": "faces", **env},
        )  # fmt: skip
        return Sweep(self.cluster, job, out)

    def ray_fails(self, node: str, times: int) -> None:
        (self.folder / "bin" / f"{node}.fails").write_text("x\n" * times)


def join(cluster: Cluster, node: str, address: str, *env: str) -> str:
    """What a client on a node gets: `joined`, or `refused` for its token."""
    quick = "RAY_NUM_REDIS_GET_RETRIES=1"  # Ray would ask for 20 seconds
    said = cluster.on(node, "sh", "-c", '"$@" 2>&1', "sh", "env", quick, *env, sys.executable, "-c", JOIN, address)
    return "refused" if "Unauthenticated" in said and "no connection" in said else said.split()[-1]


@pytest.fixture
def sweeps(cluster: Cluster, tmp_path: Path) -> Sweeps:
    pytest.importorskip("ray")
    (tmp_path / "bin").mkdir()
    for name, text in (("collagan", STAND_IN), ("ray", FAILING_RAY)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return Sweeps(cluster, tmp_path)


def test_three_nodes_accept_only_their_token(cluster, sweeps):
    """Ray has what the job has on each node, is tried again where it does not start, and lets nobody in without the job's token.

    Cancelled at the end: the sweep has time to save, and the job stays ended.
    """
    sweeps.ray_fails("n2", 1)
    sweep = sweeps.submit("--nodes=3", "--gpus-per-node=2", COLLAGAN_CONTAINER="env COLLAGAN_INSIDE=1")
    seen = sweep.until_seen(0, {"n1", "n2", "n3"})
    assert seen["sizes"] == [4, 2] * 3
    assert seen["seen"] == [[node, sweep.job, "1"] for node in ("n1", "n2", "n3")]
    _, note = sweep.notes()
    address = re.fullmatch(r"Ray on 3 of 3 nodes, at (10\.77\.0\.1:(\d+))", note)
    assert address, note
    token = (sweep.run / "token").read_text()
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert {name: join(cluster, "n3", address[1], *env) for name, env in {
        "with none": ["RAY_AUTH_MODE=disabled"],
        "with another": ["RAY_AUTH_MODE=token", f"RAY_AUTH_TOKEN={'0' * 64}"],
        "with the token": ["RAY_AUTH_MODE=token", f"RAY_AUTH_TOKEN={token}"],
    }.items()} == {"with none": "refused", "with another": "refused", "with the token": "joined"}  # fmt: skip
    first = int(address[2])
    for node, own in (("n1", 0), ("n2", 1)):  # only the head has a GCS
        there = {int(port) for port in cluster.on("n3", sys.executable, "-c", OPEN_PORTS, f"10.77.0.{node[1]}").split()}
        workers = {port for port in there if first + 10 <= port < first + 500}
        assert there - workers == {6818, *range(first + own, first + 4)} and workers
        assert "401" in cluster.on("n3", sys.executable, "-c", STATUS, f"http://10.77.0.{node[1]}:{first + 3}/")
    listening = cluster.on("n1", "sh", "-c", "ss -Hltnp | grep -v -e srun -e slurmd")
    assert all(first <= int(port) < first + 500 for port in re.findall(r":(\d+) +\S+:\*", listening)), listening
    for node in cluster.names:
        assert token not in cluster.on(node, "ps", "axww")
    for folder in Path("/tmp").glob(f"ray-{sweep.job}.*"):  # the batch script's and, where nodes share /tmp, all nodes'
        assert folder.stat().st_mode & 0o777 == 0o700
        assert not subprocess.run(["grep", "-rIl", token, folder], capture_output=True, text=True).stdout
    cluster.cancel(sweep.job)
    assert sweep.ended("CANCELLED").restarts == 0
    assert (sweep.run / "requeue").read_text() == f"slurm:{sweep.job}, start 0"


@pytest.mark.full  # three minutes; tests/sweep/test_tuner.py loses a node of one machine
def test_row_32_a_sweep_on_three_nodes(cluster, sweeps, shards, tmp_path, tmp_path_factory):
    """The real command over three nodes. One loses power, and the job lives on; the driver is killed, which requeues the job; then
    the time limit is near. It ends with the results of an undisturbed sweep on one machine."""
    (tmp_path / "bin/collagan").unlink()
    alone = small.Sweep(tmp_path / "alone", shards.folder, small.LR_SPACE, "--trials", TRIALS)
    alone.run()
    left = small.Sweep(tmp_path, shards.folder, small.LR_SPACE, "--trials", TRIALS)
    words = [str(word) for word in left.words[4:] if word not in ("--out", left.out)]
    # By default Ray misses a node after 40 seconds.
    quick = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "3000"}
    sweep = sweeps.submit("--nodes=3", "--cpus-per-task=1", words=tuple(words), **quick)
    midway = range(4, small.STEPS // 2)

    def until(true: Callable[[], bool], what: str) -> None:
        cluster.until(true, 120, what, sweep.job)

    until(lambda: len(newest(left)) == 3 and left.saved(newest(left)["n3"]) in midway, "trials on all nodes")
    with cluster.without_power("n3"):
        until(lambda: "starts again from its newest checkpoint" in sweep.log(), "a trial to go on")
        until(lambda: small.STEPS in map(left.saved, range(TRIALS)), "a trial to be finished")
    assert sweep.state().restarts == 0  # by --no-kill
    done = {number: left.starts(number) for number in range(TRIALS) if left.saved(number) == small.STEPS}
    (driver,) = cluster.on("n1", "pgrep", "-f", f"python.*collagan sweep .*--out {left.out} ").split()
    cluster.on("n1", "kill", "-9", driver)
    until(lambda: sweep.state().restarts == 1, "the job to be requeued")
    before = sum(map(left.saved, range(TRIALS)))
    until(lambda: sum(map(left.saved, range(TRIALS))) > before, "trials to go on")
    cluster.signal(sweep.job, "USR2", batch=True)
    assert sweep.ended("COMPLETED").restarts == 2
    notes = sweep.notes()
    assert "asked to stop, saved; goes on by itself" in notes and notes[-1] == "done"
    assert (
        len({note.split()[-1] for note in notes if note.startswith("Ray on 3 of 3 nodes")}) == 3
    )  # a port for each start
    assert done and done == {number: left.starts(number) for number in done}  # no finished trial was trained again
    assert [{**row, "restarts": "0"} for row in left.rows()] == alone.rows() and not list(left.out.glob(".stop*"))
    assert all(equal(weights(left.trial(n), small.STEPS), weights(alone.trial(n), small.STEPS)) for n in range(TRIALS))


def newest(left: small.Sweep) -> dict[str, int]:
    worlds = {number: left.trial(number) / "world.json" for number in range(TRIALS)}
    return {json.loads(path.read_text())["ranks"][0]["host"]: n for n, path in worlds.items() if path.exists()}


@pytest.mark.full
def test_two_sweeps_share_a_node(cluster, sweeps, tmp_path):
    """Whose jobs would have the same ports: the second takes others, and each sees its own Ray only. On a node Ray does not start."""
    sweeps.ray_fails("n2", 3)
    first = sweeps.submit("--nodes=2", "--nodelist=n1,n2", "--cpus-per-task=1")
    for _ in range(19):  # ports repeat after 20 jobs
        cluster.cancel(cluster.submit(None, options=["--hold", "--wrap=true"], cwd=tmp_path))
    first.until_seen(0, {"n1"})
    assert "no Ray on n2" in first.log() and "does not start" in first.log()
    second = Sweeps(cluster, tmp_path, "beside").submit("--nodelist=n1", "--cpus-per-task=1")
    assert int(second.job) == int(first.job) + 20
    assert second.until_seen(0, {"n1"})["sizes"] == first.seen()["sizes"] == [1, 0]
    (one, other) = (sweep.notes()[1].split() for sweep in (first, second))
    assert one[:5] == ["Ray", "on", "1", "of", "2"] and one[-1] != other[-1]
    for sweep in (first, second):
        (sweep.run / "end").touch()
        assert cluster.wait(sweep.job).state == "COMPLETED", sweep.log()
    second.ended("COMPLETED")


def test_errors_of_the_command_are_found_before_ray_starts(cluster, sweeps):
    wrong, plan = sweeps.submit(words=("wrong",)), sweeps.submit(words=("small", "--dry-run"))
    assert cluster.wait(wrong.job).exit_code == 2 and cluster.wait(plan.job).exit_code == 0
    assert "# out: " in plan.log() and not wrong.run.exists()


def test_a_time_budget_that_is_used_up_is_no_reason_to_be_queued_again(sweeps):
    sweep = sweeps.submit(words=("spent",))
    done = sweep.ended("FAILED")
    assert (done.exit_code, done.restarts) == (75, 0), sweep.log()
    assert sweep.notes()[-1] == "ended by itself, saved; the same sbatch line continues"


def test_a_node_on_which_ray_fails_twice_is_left_out(cluster, sweeps, tmp_path):
    """The third start is elsewhere, and takes the data set that the first one chose, although packed/ has a second one by then."""

    def pack(name: str) -> None:
        (tmp_path / "packed" / name).mkdir(parents=True)
        (tmp_path / "packed" / name / "manifest.json").write_text("{}")

    pack("one")
    sweeps.ray_fails("n1", 6)
    sweep = sweeps.submit("--exclude=n3", COLLAGAN_DATA="")
    cluster.until(lambda: "sweeps small over lambda" in sweep.log(), 60, "the first start", sweep.job)
    pack("two")
    sweep.until_seen(2, {"n2"}, 240)
    assert "no Ray on n1" in sweep.log() and "does not start" in sweep.log()
    assert "# data: packed/one\n" in (sweep.run / f"logs/slurm-{sweep.job}.txt").read_text()
    assert [note for note in sweep.notes() if "Ray" not in note] == [
        "FAILED with code 4 on n1; restart 1 of at most 3", "FAILED with code 4 on n1; restart 2 of at most 3",
        "excluded from now on, since this job failed there twice: n1",
    ]  # fmt: skip
    assert sweep.finish().restarts == 2


@pytest.mark.full
def test_the_head_node_is_lost(cluster, sweeps):
    """With --no-kill Slurm would let the job live without its batch script; the nodes that are left have it started again."""
    sweep = sweeps.submit("--nodes=2", "--nodelist=n1,n2")
    sweep.until_seen(0, {"n1", "n2"})
    with cluster.without_power("n1"):
        cluster.until(lambda: sweep.state().restarts == 1, 180, "the job to be requeued", sweep.job)
    sweep.until_seen(1, {"n1", "n2"})
    assert sweep.finish().restarts == 1
