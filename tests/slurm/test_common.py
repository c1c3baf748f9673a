import os
import subprocess
import time
from threading import Event, Thread

import pytest

from collagan_dist import files
from tests.conftest import ROOT


def bash(name, text, **env):
    """(exit code, output) of a script that has one function of common.sh."""
    whole = (ROOT / "slurm/common.sh").read_text()
    begin = whole.index(f"\n{name}() {{\n")
    function = whole[begin : whole.index("\n}\n", begin) + 3]
    done = subprocess.run(["bash", "-c", f"set -euo pipefail{function}{text}"], env=env, capture_output=True)
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
    ("gpus", "ranks", "said"), [("8", 1, "8 GPUs on each node but 1 rank(s)"), ("2", 2, ""), (None, 4, "")]
)
def test_gpus_that_no_rank_uses(gpus, ranks, said):
    """`sbatch --gpus-per-node=8` without --ntasks-per-node trains on one of eight."""
    env = {"PATH": os.environ["PATH"], **({"SLURM_GPUS_ON_NODE": gpus} if gpus else {})}
    code, text = bash("warn_of_idle_gpus", f"warn_of_idle_gpus {ranks}", **env)
    assert code == 0 and said in text and bool(text) == bool(said)
