import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from collagan_dist.config.load import load_config, to_yaml
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.errors import Interrupted
from collagan_dist.reproduce.plan import PlannedRun
from collagan_dist.reproduce.run_jobs import Outcome, RunJob, do_job, do_jobs


@pytest.fixture
def job(undisturbed: Path, shards: Manifest, tmp_path: Path) -> RunJob:
    """A copy of M_d, trained and evaluated."""
    shutil.copytree(undisturbed / "runs/M_d", tmp_path / "runs/M_d")
    shutil.copytree(undisturbed / "configs", tmp_path / "configs")
    run = PlannedRun("M_d", "M_d", load_config(str(tmp_path / "configs/M_d.yaml")), tmp_path, 3, {"block": False})
    return RunJob(run, str(shards.folder), shards.hash, 1)


def test_what_is_done_is_not_started(job):
    assert do_jobs([job], False, lambda line: pytest.fail(f"done already, but: {line}")) == [Outcome("M_d")]


def test_a_run_waits_for_the_one_it_needs(job, tmp_path):
    broken = replace(job.run, name="parser", base="parser", holes={})
    broken.config_file.write_text(to_yaml(broken.config).replace("schedule:", "schedul:"))
    needs = replace(job.run, name="GFC", base="GFC", needs="parser")
    first, second = do_jobs([replace(job, run=broken), replace(job, run=needs)], False, lambda line: None)
    assert first.code == 2 and "did you mean schedule?" in str(first.reason)
    assert second == Outcome("GFC", "needs parser, which failed", 2) and not needs.log.exists()


def test_a_stop_leaves_the_rest(job):
    (job.run.folder / "evaluation/test-block.json").unlink()
    with pytest.raises(Interrupted, match="saved at step 3 of 3"):
        do_job(job, True, lambda line: None)
