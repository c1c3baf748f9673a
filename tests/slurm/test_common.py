import os
import subprocess
import time
from threading import Event, Thread

import pytest

from collagan_dist import files
from tests.conftest import ROOT


def bash(names, text, **env):
    """(exit code, output) of a script that has some functions of those that batch scripts share."""
    whole = "\n".join((ROOT / f"slurm/{file}.sh").read_text() for file in ("common", "defaults", "failures"))
    functions = ""
    for name in names.split():
        begin = whole.index(f"\n{name}() {{\n")
        functions += whole[begin : whole.index("\n}\n", begin) + 3]
    done = subprocess.run(["bash", "-c", f"set -euo pipefail{functions}{text}"], env=env, capture_output=True)
    return done.returncode, done.stdout.decode(errors="surrogateescape") + done.stderr.decode()


LEASE = "3 token\nhost n1\njob {job}\nstate {state}\n"


@pytest.mark.parametrize(
    ("job", "state", "beats", "code"),
    [
        ("slurm:8, start 0", "running", True, 0),
        ("slurm:71, start 0", "running", True, 0),
        ("", "running", True, 0),  # by hand
        ("slurm:7, start 1", "running", True, 1),  # this one's
        ("slurm:8, start 0", "ended", True, 1),
        ("slurm:8, start 0", "running", False, 1),  # its node died: a restart would take the run over
    ],
)
def test_whether_another_start_trains_there(tmp_path, job, state, beats, code):
    (tmp_path / "lease").write_text(LEASE.format(job=job, state=state))
    end = Event()

    def beat() -> None:
        while beats and not end.wait(1.5):
            (tmp_path / "lease").touch()

    thread = Thread(target=beat)
    thread.start()
    began = time.monotonic()
    assert bash("elsewhere", "elsewhere", run=str(tmp_path), SLURM_JOB_ID="7") == (code, "")
    assert beats or time.monotonic() - began >= 15  # three heartbeats
    end.set()
    thread.join()
    (tmp_path / "lease").unlink()
    assert bash("elsewhere", "elsewhere", run=str(tmp_path), SLURM_JOB_ID="7") == (1, "")


@pytest.mark.parametrize(
    "name", ["run", "a\nb", "a\\nb", "\n# run: c\n", "'\"$(touch x)`touch x`\t\\", "-p", "\u00e4\udcff"]
)
def test_the_folder_of_a_plan_is_read_as_it_is(tmp_path, name):
    plan = f"a: 1\n# 4 steps into {name}\n# run: {files.one_line(name)}"
    command = f'cd {tmp_path}; planned run --set x --dry-run=no; printf %s "$run"'
    env = {"PATH": "/usr/bin:/bin", "plan": plan.encode(errors="surrogateescape")}
    assert bash("planned", command, **env) == (0, f"./{name}" if name.startswith("-") else name)
    assert [path.name for path in tmp_path.iterdir()] == [name.split("/")[0]] and (tmp_path / name / "logs").is_dir()


@pytest.mark.parametrize(("plan", "words"), [("# run: r", "--set a --dry-run"), ("an error", "")])
def test_a_plan_without_a_run_is_shown(tmp_path, plan, words):
    assert bash("planned", f"cd {tmp_path}; planned run {words}; echo more", plan=plan) == (0, f"{plan}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("gpus", "ranks", "said"), [(8, 1, "holds 8 GPUs of each node and has 1 rank(s)"), (2, 2, ""), (0, 4, "")]
)
def test_gpus_that_no_rank_uses(gpus, ranks, said):
    code, text = bash("warn_of_idle_gpus", f"warn_of_idle_gpus {gpus} {ranks}", PATH=os.environ["PATH"])
    assert code == 0 and said in text and bool(text) == bool(said)


SRUN, STEPD = "srun: error: ", "slurmstepd-n1: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-11-30T03:19:09 ***\n"
HANG = "collagan: rank 1 (host {}, pid 7) has not come to all_reduce of step 9 in 20 s (runtime.timeout is 20); it has not answered\n"


@pytest.mark.parametrize(
    ("said", "launcher", "node"),
    [
        (
            f"{SRUN}n2: task 2: Killed\n{STEPD}{SRUN}n2: task 3: Terminated\n{SRUN}n1: tasks 0-1: Terminated\n",
            "srun",
            "n2",
        ),
        (f"{SRUN}n2: tasks 2-3: Segmentation fault\n{STEPD}{SRUN}n1: task 0: Exited with exit code 4\n", "srun", "n2"),
        (f"{SRUN}n1: task 0: Exited with exit code 4\n{SRUN}n2: task 2: Bus error (core dumped)\n", "srun", "n2"),
        (f"{SRUN}n2: task 1: Out Of Memory\n", "torchrun", "n2"),
        (f"{SRUN}n1: task 0: Exited with exit code 1\n{STEPD}{SRUN}n2: task 2: Exited with exit code 1\n", "srun", ""),
        (f"{SRUN}n1: task 0: Exited with exit code 1\n", "srun", "n1"),
        (f"{SRUN}n1: task 0: Exited with exit code 1\n", "torchrun", ""),
        (f"{SRUN}n1: task 0: Exited with exit code 4\n{STEPD}{SRUN}n2: task 2: Killed\n", "srun", ""),
        (
            f"{SRUN}n1: task 0: Exited with exit code 4\n{STEPD}{HANG.format('n2')}{SRUN}n2: task 2: Killed\n",
            "srun",
            "n2",
        ),
        (f"{HANG.format('n2')}{HANG.format('n1')}", "srun", ""),
        (HANG.format("elsewhere"), "srun", ""),
        (f"{SRUN}Node failure on n2\n{SRUN}n1: task 0: Killed\n", "srun", "n2"),
        (f"{SRUN}Task launch for StepId=7.0 failed on node n2: Communication connection failure\n", "srun", "n2"),
        ("n2 is mentioned\n", "srun", ""),
    ],
)
def test_the_node_that_failed_is_named_only_if_it_is_known(tmp_path, said, launcher, node):
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$3" | tr , "\\n"\n')  # without brackets in what is said
    (tmp_path / "scontrol").chmod(0o755)
    (tmp_path / "log").write_text(f"{SRUN}n3: task 9: Killed\n")
    text = """exec 2>>log; log_begin=$(log_size); printf %s "$said" >&2; blamed"""
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "COLLAGAN_NODES": "n1 n2 ", "launcher": launcher, "said": said}
    code, out = bash("log_size said_of_the_end lost blamed", f"cd {tmp_path}; {text}", **env)
    assert (code, out) == (0, f"{node}\n" if node else "")


RECORD = """# Starts of job 7: when, number, nodes, what happened. After MAX_REQUEUE failures it stays ended.
2026-11-30 03:00:00  start 0  n[1-2]  2 ranks by srun, meeting at n1:20070
{}"""
ENDED = "2026-11-30 03:09:00  start 0  n[1-2]  ended by Slurm (PENDING) with the loss of n1\n"


@pytest.mark.parametrize(
    ("more", "restarts", "down", "said"),
    [
        ("", 1, "n1", "the start before ended with the loss of n1"),
        ("", 1, "n2 n1", "the start before ended with the loss of n1,n2"),
        ("", 1, "", ""),  # it was lost in another way
        ("", 2, "n1", ""),  # of the start before nothing is known
        (ENDED, 1, "n1", ""),  # it has said so itself
        (None, 1, "n1", ""),
    ],
)
def test_nodes_that_were_lost_with_their_batch_script(tmp_path, more, restarts, down, said):
    """Are noted by the next start, once, and count as failed."""
    (tmp_path / "sinfo").write_text(
        f'#!/bin/sh\n[ "$*" = "-hN -n n[1-2] -t down,no_respond,fail -o %N" ] && printf "%s\\n" {down}\n'
    )
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$3" | tr , "\\n"\n')
    for program in ("sinfo", "scontrol"):
        (tmp_path / program).chmod(0o755)
    (tmp_path / "logs").mkdir()
    if more is not None:
        (tmp_path / "logs/slurm-7.txt").write_text(RECORD.format(more))
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "run": str(tmp_path), "job": "7", "SLURM_JOB_NODELIST": "n3"}
    code, out = bash("note lost_before", f"restarts={restarts}; lost_before", **env)
    assert code == 0 and out.partition(f"  start {restarts}  n3  ")[2].strip() == said
    code, nodes = bash("failed_nodes", "failed_nodes", **env)
    assert code == 0 and nodes.split() == (sorted(down.split()) if said else ["n1"] if more else [])


JOB = """JobId=7 JobName=collagan
   OverSubscribe={share} Contiguous=0 Licenses=(null) Network=(null)
   JOB_GRES=gpu:2
{nodes}
   {tres}
"""
NODE = "     Nodes={} CPU_IDs=0-3 Mem=0 GRES={}"
TYPED = "gpu:a100:4(IDX:0-3)"


@pytest.mark.parametrize(
    ("nodes", "tres", "env", "said"),
    [
        ([("n1", "gpu:8(IDX:0-7)")], "", {}, "8 8 --gpus-per-node=8"),
        ([("n1,n2", TYPED), ("n3", "gpu:a100:2(IDX:0,3),gpu:v100:1(IDX:4)")], "", {}, "3 3 --gpus-per-node=3"),
        ([("n1", TYPED), ("n2", "")], "", {}, "0 0 "),
        ([("n1", TYPED)], "TresPerNode=gres:gpu:a100:2", {}, "2 4 "),
        ([("n1", TYPED)], "TresPerNode=gres/gpu:1", {}, "1 4 "),
        ([("n1", TYPED)], "TresPerNode=gres:gpu", {}, "1 4 "),
        ([("n1", TYPED)], "TresPerNode=gres:gpu:0", {}, "0 4 "),
        ([("n1,n2", TYPED)], "TresPerJob=gres:gpu:4", {"SLURM_GPUS": "4"}, "2 4 "),
        ([("n1", TYPED)], "TresPerTask=gres:gpu:1", {}, "4 4 "),
        ([("n1", "")], "", {"known": "(null)"}, "3 3 "),  # a cluster without GRES: what nvidia-smi lists
        ([("n1", "")], "", {"known": "gpu:4"}, "0 0 "),
        ([("n1", "")], "", {"known": "(null)", "share": "OK"}, "0 0 "),
    ],
)
def test_how_many_gpus_a_job_has(tmp_path, nodes, tres, env, said):
    """By what Slurm says of it, in the words of several of its versions; other programs' words stand in for those of a cluster."""
    text = JOB.format(nodes="\n".join(NODE.format(*node) for node in nodes), tres=tres, share=env.get("share", "NO"))
    programs = {
        "scontrol": 'if [ "$2" = hostnames ]; then echo "$3" | tr , "\\n"; else cat "$0.job"; fi',
        "sinfo": 'echo "$known"',
        "nvidia-smi": "for i in 0 1 2; do echo GPU $i: NVIDIA; done",
    }
    for name, line in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "scontrol.job").write_text(text)
    held = {"SLURM_GPUS_ON_NODE": "8" if "8(" in text else "4"} if "IDX" in text else {}
    begin = f"declare -A gpus_on; step_gpus=(); job=7 SLURM_NNODES={1 + (',' in nodes[0][0])}"
    end = 'find_gpus; echo "$gpus $held_gpus ${step_gpus[*]-}"'
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "known": "gpu:4", **held, **env}
    assert bash("find_gpus", f"{begin}; {end}", **env) == (0, f"{said}\n")
