import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from collagan_dist.audit.audit import AuditRequest, audit
from collagan_dist.errors import ClusterError
from collagan_dist.sweep.growth import Growth, NodeType
from collagan_dist.sweep.nodes import MAX_LOSSES
from collagan_dist.sweep.resources import TrialResources
from collagan_dist.sweep.room import Room
from tests.sweep.ray_nodes import descendants, growing_nodes, ray_nodes
from tests.sweep.small import LR_SPACE, STEPS, Sweep

COUNT = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level=40); print(sum(n['Alive'] for n in ray.nodes()))"


SHRUNK = (
    COUNT.partition("; print")[0].replace("sys;", "sys, time;")
    + """
while sum(n['Alive'] for n in ray.nodes()) > 1: time.sleep(0.5)
"""
)


def growth(most: int) -> Growth:
    return Growth((NodeType("worker", {"CPU": 2.0}, most),), most)


@pytest.mark.parametrize(
    ("nodes", "grows", "concurrent", "slots"),
    [
        (3, None, None, 3),
        (3, None, 2, 2),
        (3, None, 9, 3),
        (1, growth(4), None, 4),
        (1, growth(4), 2, 2),
        (1, growth(4), 9, 4),  # a segment that waits for ever would have been chosen without the results of the others
        (1, growth(40), None, 16),
        (20, growth(40), None, 20),
        (1, growth(40), 30, 30),
        (1, Growth(), None, 16),
        (1, Growth(), 30, 30),  # it may grow as far as the user says
    ],
)  # fmt: skip
def test_how_many_segments_are_handed_out(nodes, grows, concurrent, slots):
    facts = {"Alive": True, "NodeManagerHostname": "n", "NodeManagerAddress": "a", "Resources": {"CPU": 2.0}}
    ray = SimpleNamespace(nodes=lambda: [{**facts, "NodeID": str(number)} for number in range(nodes)])
    assert Room(ray, TrialResources(cpus=2), grows, concurrent).slots == slots


GROWTH = COUNT.partition("print")[0] + "from collagan_dist.sweep.growth import read_growth; print(read_growth(ray))"
LEAVES_OUT = (
    COUNT.partition("print")[0]
    + """
from collagan_dist.sweep.nodes import living_nodes
from collagan_dist.sweep.resources import TrialResources

left_out = []
for _ in range(3):
    placed = TrialResources(cpus=2, gpus=0).placement(left_out).to_placement_group()
    ray.get(placed.ready(), timeout=60)
    ray.util.remove_placement_group(placed)
    left_out = [node.id for node in living_nodes(ray) if not node.is_head]
    print(len(left_out))
"""
)
HEAD, WORKER = {"CPU": 2.0, "node:__internal_head__": 1.0}, {"CPU": 2.0}


def cluster(**resources: dict[str, float]) -> SimpleNamespace:
    """Ray with living nodes of these ids and resources."""
    facts = {"Alive": True, "NodeManagerHostname": "n", "NodeManagerAddress": "a"}
    return SimpleNamespace(nodes=lambda: [{**facts, "NodeID": one, "Resources": has} for one, has in resources.items()])


@pytest.mark.parametrize(
    ("nodes", "grows", "is_left_out", "slots"),
    [
        ({"a": WORKER}, growth(1), False, 1),
        ({"head": {**HEAD, "CPU": 0.0}, "a": WORKER}, growth(1), False, 1),
        ({"head": {**HEAD, "CPU": 0.0}, "a": WORKER}, Growth((NodeType("w", None, 1),), 1), False, 1),
        ({"head": HEAD, "a": WORKER}, growth(1), True, 1),
        ({"a": WORKER, "b": WORKER, "c": WORKER}, growth(3), True, 2),  # its place is taken, nothing is started for it
        ({"a": WORKER, "b": WORKER}, growth(4), True, 3),
        ({"a": WORKER, "b": {"CPU": 1.0}}, growth(2), True, 1),  # b is of no use: it ends, and one of use starts
        ({"a": WORKER}, Growth((*growth(1).types, NodeType("gpu", {"CPU": 2.0, "GPU": 1.0}, 9)), 9), True, 8),
        ({"a": WORKER, "b": WORKER}, Growth((*growth(1).types, *growth(3).types), 9), True, 3),
        ({"a": WORKER, "b": WORKER}, None, True, 1),
        ({"a": WORKER}, None, False, 1),
    ],
)  # fmt: skip
def test_a_node_is_left_out_while_others_have_room(nodes, grows, is_left_out, slots):
    """Those that live, or that may still be started beside it: it keeps its place among those of the autoscaler."""
    room = Room(cluster(**nodes), TrialResources(cpus=2, gpus=0), grows)
    *before, said = [room.failed(["a"], number, "of a bad disk") for number in range(MAX_LOSSES)]
    assert before == [None] * len(before)
    assert (" is left out: " in said, " is used all the same" in said) == (is_left_out, not is_left_out)
    assert (list(room.left_out), room.slots) == (["a"] * is_left_out, slots)


@pytest.mark.parametrize(
    ("nodes", "grows", "said"),
    [
        (1, growth(4), "the cluster starts nodes (`ray status`"),
        (4, growth(4), "others use what the cluster has"),
        (1, Growth((NodeType("w", None, 4),), 4), "the cluster has to start nodes, if it has a type that is large"),
        (1, Growth((*growth(1).types, NodeType("small", {"CPU": 1.0}, 9)), 9), "others use what the cluster has"),
        (1, None, "others use what the cluster has"),
    ],
)
def test_why_segments_wait(nodes, grows, said):
    """Of the types that hold a worker; said once some have waited for a while."""
    room = Room(cluster(**{str(number): WORKER for number in range(nodes)}), TrialResources(cpus=2, gpus=0), grows)
    room.ray.util = SimpleNamespace(placement_group_table=lambda: {"a": {"state": "PENDING"}})
    room._polled_at -= 100
    assert room.waiting_reason() is None
    room._polled_at, room.waits_since = 0, 0
    assert room.waiting_reason().startswith(said)


def test_a_trial_takes_a_gpu_where_a_node_type_has_one():
    """Also where other types hold more trials, and enough of them to reach the cluster's limit."""
    types = NodeType("cpu", {"CPU": 64.0}, 10), NodeType("gpu", {"CPU": 8.0, "GPU": 1.0}, 10)
    room = Room(cluster(head=HEAD), TrialResources(), Growth(types, 10))
    assert (room.resources.gpus, room.slots) == (1.0, 10)


def test_a_trial_that_fails_on_two_nodes_costs_neither():
    """What it costs before that is known comes back. A node on which others fail, too, stays left out."""
    for others in ([], [8]):
        room = Room(cluster(a=WORKER, b=WORKER), TrialResources(cpus=2))
        said = [room.failed(["a"], number, "of memory") for number in [*others, *[7] * MAX_LOSSES]]
        assert "is left out: " in "".join(filter(None, said)) and room.slots == 1
        assert room.failed(["b"], 7, "of memory") == (
            None if others else "node n (a, a) is used again: what failed there fails on another node, too"
        )
        assert room.slots == (1 if others else 2)


def test_a_trial_that_no_node_type_holds_is_refused():
    ray = SimpleNamespace(nodes=lambda: [])
    with pytest.raises(ClusterError, match=r"can never place it; (?s:.*)\n  worker: 2 CPUs, 0 GPUs, up to 4 of them\n"):
        Room(ray, TrialResources(cpus=3), growth(4)).check()


def alive(address: str) -> int:
    return int(subprocess.check_output([sys.executable, "-c", COUNT, address], text=True, timeout=120).split()[-1])


def test_a_cluster_grows_for_trials_and_shrinks(shards, tmp_path):
    """The head node holds no trial. What a trial takes is known from the node type, also where the cluster is joined by a host's name."""
    with growing_nodes(cpus=2, most=1) as (address, _):
        by_name = f"{socket.gethostname()}:{address.rpartition(':')[2]}"
        said = subprocess.check_output([sys.executable, "-c", GROWTH, by_name], text=True, timeout=120)
        assert "NodeType(name='worker', resources={'CPU': 2.0" in said
        sweep = Sweep(
            tmp_path, shards.folder, LR_SPACE, "--trials", 1, "--ray", address, "--cpus", 2, schedule__steps=4
        )
        sweep.run()
        assert [row["status"] for row in sweep.rows()] == ["done"]
        found = audit(sweep.out, AuditRequest(0, stretches=1, evaluations=0, ranks=(1,)))
        assert [(one.subject, one.verdict) for one in found.findings] == [
            ("t000: steps 0 to 4", "equal"),
            ("t000: row of trials.csv", "equal"),
        ]
        subprocess.run([sys.executable, "-c", SHRUNK, address], check=True, timeout=120)


@pytest.mark.full
def test_a_cluster_grows_for_trials_that_leave_nodes_out():
    """Its autoscaler knows the label by which they are avoided: of one node, and of two."""
    with growing_nodes(cpus=2, most=3) as (address, _):
        said = subprocess.check_output([sys.executable, "-c", LEAVES_OUT, address], text=True, timeout=300)
        assert said.split()[-3:] == ["1", "2", "3"]


@pytest.mark.full
def test_a_sweep_says_that_it_waits_for_the_cluster_to_grow(shards, tmp_path):
    """With its reason, while the autoscaler has not looked yet."""
    with growing_nodes(cpus=2, most=1, every=40) as (address, _):
        words = ("--trials", 1, "--ray", address, "--cpus", 2)
        sweep = Sweep(tmp_path, shards.folder, LR_SPACE, *words, schedule__steps=4)
        sweep.run()
        said = sweep.log.read_text()
        assert "1 of 1 trials begun: 1 waiting for room; waits for room: the cluster starts nodes" in said, said
        assert [row["status"] for row in sweep.rows()] == ["done"]


@pytest.mark.full
def test_four_trials_at_a_time_grow_a_cluster_and_survive_a_spot_node(shards, tmp_path):
    """Each has a node of its own. A node that the cloud takes back is an ordinary loss, and is replaced."""
    with growing_nodes(cpus=2, most=4) as (address, head):
        sweep = Sweep(
            tmp_path,
            shards.folder,
            LR_SPACE,
            "--trials",
            5,
            "--ray",
            address,
            "--cpus",
            2,
            "--concurrent",
            4,
            schedule__steps=150,
        )
        with sweep.started() as process:
            sweep.until(process, lambda: all(sweep.saved(number) for number in range(4)), 400)
            assert alive(address) == 5
            power_off_a_worker(head.pid)
            assert process.wait(500) == 0, sweep.log.read_text()
        assert [row["status"] for row in sweep.rows()] == ["done"] * 5
        assert sorted(row["restarts"] for row in sweep.rows()) == ["0"] * 4 + ["1"], sweep.log.read_text()
        assert "is left out" not in sweep.log.read_text()
        sweep.words[sweep.words.index("--cpus") + 1] = 3
        assert re.search(r"can never place it; .*\n(.*\n)*  worker: 2 CPUs, 0 GPUs, up to 4 of them", sweep.run(4))


@pytest.mark.full
def test_a_node_on_which_trials_are_lost_in_a_row_is_left_out(shards, tmp_path):
    """One of two nodes ends every process that trains there. All trials are done on the other one."""
    with ray_nodes(2) as (address, nodes):
        # Long beside the start of a process: Tune gives what waits for one to the next process that is free.
        sweep = Sweep(tmp_path, shards.folder, LR_SPACE, "--trials", 6, "--ray", address, schedule__steps=200)
        over = threading.Event()
        thread = threading.Thread(target=end_what_trains, args=(sweep, nodes[1].pid, over))
        thread.start()
        try:
            said = sweep.run()
        finally:
            over.set()
            thread.join()
    (name,) = re.findall(
        r"node (.*) is left out: 3 segments in a row failed there, the last one because its process was killed", said
    )
    assert [row["status"] for row in sweep.rows()] == ["done"] * 6
    assert f"node {name} is left out" in (sweep.out / "sweep.json").read_text()
    assert f"node {name} is left out" in (sweep.out / "report.html").read_text()


@pytest.mark.full
def test_a_time_budget_and_a_goal(shards, tmp_path):
    """Stopped by its budget a sweep continues; at the goal it is done, and the trials that ran are not trained on."""
    sweep = Sweep(
        tmp_path, shards.folder, LR_SPACE, "--trials", 9, "--cpus", len(os.sched_getaffinity(0)), "--time-budget", "1s"
    )
    said = sweep.run(75)
    assert "the time budget is used up: running trials save and end" in said
    assert "the same command continues with as much again" in said
    assert not any(row["status"] == "done" for row in sweep.rows()) and not (sweep.out / "requeue").exists()
    sweep.words[-2:] = ["--stop-at", "psnr_hole>=1"]
    assert "trial 0 has reached psnr_hole>=1: the search is over" in sweep.run()
    assert [row["status"] for row in sweep.rows()] == ["done"] and sweep.saved(0) == STEPS
    assert "trial 0 has reached" in sweep.run() and len(sweep.rows()) == 1
    assert "until a trial reaches psnr_hole&gt;=1" in (sweep.out / "report.html").read_text()
    del sweep.words[-2:]
    sweep.words += ["--stop-at", "psnr_hole>=99", "--time-budget", "1s"]
    sweep.run(75)


def power_off_a_worker(head: int) -> None:
    """End a node that the autoscaler started, at once, with all that runs on it."""
    for pid in descendants(head):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"raylet/raylet" in command and any(b"ray::Implicit" in name for name in names(pid)):
            for process in descendants(pid):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            return
    raise AssertionError("no node of the autoscaler trains")


def names(process: int) -> list[bytes]:
    found = []
    for pid in descendants(process):
        with suppress(OSError):
            found.append(Path(f"/proc/{pid}/cmdline").read_bytes())
    return found


def end_what_trains(sweep: Sweep, node: int, over: threading.Event) -> None:
    """End every process below a node in which a trial trains. (One that is ended before, while Ray makes it, is made again by Ray.)"""
    while not over.wait(0.2):
        family = descendants(node)
        for world in sweep.out.glob("trials/*/world.json"):
            with suppress(OSError, ValueError):
                if (pid := json.loads(world.read_text())["ranks"][0]["pid"]) in family:
                    os.kill(pid, signal.SIGKILL)
