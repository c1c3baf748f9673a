"""Where the batch scripts find their checkout, however they were submitted; nothing of the submission folder is sourced."""

import re
import shutil

import pytest

from collagan_dist.config.project_files import copy_project
from tests.conftest import ROOT
from tests.slurm.training import SMALL_JOB, TRAIN, write_config

ONE = [*SMALL_JOB, "--nodes=1"]
SAID = "slurm: no slurm/common.sh beside the submitted script"


@pytest.fixture
def config(shards, tmp_path):
    return write_config(tmp_path, shards.folder, schedule__steps=2)


def strange(folder):
    """A submission folder with files of the names that the scripts source."""
    for name in ("common.sh", "cluster/env.sh", "env.sh"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("echo stranger\nexit 0\n")
    return folder


def submit(cluster, script, config, folder, *words, run="run", stdin=False, **env):
    """(how the job ended, its log); the job stops after the plan unless `words` say otherwise."""
    words = ["--run", folder / run, *(words or ["--dry-run"])]
    env = {"COLLAGAN_EVALUATE": "0"} | env
    if stdin:
        command = ["bash", "-c", 'exec sbatch --parsable "${@:2}" <"$1"', "bash", script, *ONE]
        job = cluster.run(*command, cwd=folder, env=env).strip()
    else:
        job = cluster.submit(script, config, *words, options=ONE, cwd=folder, env=env)
    return cluster.wait(job, 100), cluster.log(job)


def test_the_scripts_find_their_checkout_in_one_way():
    blocks = {
        path.name: re.search(r"# Slurm runs a spool copy.*?\nfi\n\. .*?\n", path.read_text(), re.DOTALL)
        for path in (ROOT / "slurm").glob("*.sh")
        if "#SBATCH" in path.read_text()
    }
    assert len(blocks) == 5 and None not in blocks.values()
    assert len({block[0] for block in blocks.values()}) == 1


@pytest.mark.slurm
def test_a_checkout_whose_path_has_blanks_trains(cluster, config, tmp_path):
    """Also with a newline in an argument that looks like Slurm's own text, and a run folder with all that shells know."""
    copy_project(tmp_path / "my  jobs/collagan")  # as `collagan init` does
    words = ["--set", f"seed=1 #\n#   Command={tmp_path}/slurm/train.sh WorkDir=/"]
    name = "-r\nun\t\\n 'q' \"q\" $(touch a) `touch b` * ; \u00e4 --dry-run  \n"
    script = "my  jobs/collagan/slurm/train.sh"
    done, log = submit(cluster, script, config, strange(tmp_path), *words, run=name, COLLAGAN_EVALUATE="1")
    assert (done.state, done.exit_code) == ("COMPLETED", 0) and "2 steps done" in log and "stranger" not in log, log
    assert (tmp_path / name / "metrics.json").exists() and (tmp_path / name / "report.html").exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        name, "my  jobs", "small.yaml", "common.sh", "cluster", "env.sh", done.out.name,
    }  # fmt: skip


@pytest.mark.slurm
def test_a_symbolic_link_leads_to_its_checkout(cluster, config, tmp_path):
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool/train.sh").symlink_to(TRAIN)
    done, log = submit(cluster, "spool/train.sh", config, strange(tmp_path))
    assert done.state == "COMPLETED" and f"# run: {tmp_path}/run" in log and "stranger" not in log, log


@pytest.mark.slurm
@pytest.mark.parametrize("stdin", [False, True])
def test_a_copy_and_standard_input_say_what_they_need(cluster, config, tmp_path, stdin):
    copy = strange(tmp_path) / "train.sh"
    shutil.copy(TRAIN, copy)
    done, log = submit(cluster, copy, config, tmp_path, stdin=stdin)
    assert (done.state, done.exit_code) == ("FAILED", 2) and len(log.splitlines()) == 1, log
    assert log.startswith(SAID) and "COLLAGAN_PROJECT=<checkout>" in log and (stdin or str(copy) in log)
    done, log = submit(cluster, copy, config, tmp_path, stdin=stdin, COLLAGAN_PROJECT=str(ROOT))
    assert "stranger" not in log and SAID not in log
    if stdin:  # without arguments, and no data set is here
        assert (done.state, done.exit_code) == ("FAILED", 2) and len(log.splitlines()) == 1, log
        assert log.startswith(f"slurm: no data set: there is none in {tmp_path}/packed; "), log
    else:
        assert done.state == "COMPLETED" and f"# run: {tmp_path}/run" in log, log
