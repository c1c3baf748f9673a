"""The page for users of Ray Tune as a program, interrupted and restored; and what a trial goes on from."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import collagan_dist as cd
from collagan_dist.errors import ConfigError
from collagan_dist.runs import checkpoint
from collagan_dist.runs.layout import MANIFEST_FILE, RunPaths
from collagan_dist.sweep.tune_trainable import check_continues, checkpoint_of_tune, continue_from, trial_config
from tests.conftest import ROOT
from tests.sweep.ray_nodes import ENVIRONMENT, power_off
from tests.training.small import equal, small, weights

HERE = Path.cwd()
PAGE = (ROOT / "docs/tune.md").read_text()
SEARCH, RESTORE, RESULTS, PBT, OPTUNA, RANKS = re.findall(r"^```python\n(.*?)^```\n", PAGE, re.MULTILINE | re.DOTALL)
SETTINGS = {
    "schedule.steps": 9, "evaluate.every": 3, "evaluate.samples": 4, "checkpoint.every": 2, "schedule.batch": 4, "data.image_size": 32,
    "model.widths": {"generator": 4, "discriminator": 4}, "runtime.precision": "fp32", "log.grid_every": 100,
}  # fmt: skip
SMALLER = {
    'settings={"schedule.steps": 800, "evaluate.every": 100}': f"settings={SETTINGS}",
    "num_samples=8": "num_samples=2, max_concurrent_trials=1",
    "grace_period=3200, max_t=25600": "grace_period=12, max_t=36, reduction_factor=2",
    "perturbation_interval=100": "perturbation_interval=3",
}
BEGIN = """
import json, os, ray
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False,
         _node_ip_address="127.0.0.1", _temp_dir=os.environ["RAY_FOLDER"])
"""
WRONG = """
try:
    tune.Tuner(trainable, param_space={"optim.generator.rl": 1e-3}).fit()
except Exception as error:
    print("wrong:", error)
"""
FAILING = """
(failed,) = tune.Tuner(trainable, param_space={"data.shards": "nowhere"}, run_config=tune.RunConfig(
    name="failing", storage_path=os.path.abspath("tune"), verbose=0)).fit()
print("failed:", open(os.path.join(failed.path, "error.txt")).read().strip().splitlines()[-1])
"""
END = """
rows = [{"path": one.path, "metrics": one.metrics, "config": one.config, "checkpoint": one.checkpoint.path} for one in results]
open("results.json", "w").write(json.dumps(rows))
"""


def smaller(code: str) -> str:
    for printed, other in SMALLER.items():
        code = code.replace(printed, other)
    return code


def program(
    folder: Path, shards: Path, code: str, end: Callable[[subprocess.Popen], object] | None = None
) -> tuple[str, list[dict[str, Any]]]:
    """Run a user's program, which is ended by `end` at the first result after 3 steps. Return what it printed, and the results.

    There are none after a kill.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "packed").mkdir(exist_ok=True)
    if not (folder / "packed/drawn").exists():
        (folder / "packed/drawn").symlink_to(shards)
    (folder / "program.py").write_text(BEGIN + code + END)
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as ray:  # short: sockets
        process = subprocess.Popen(
            [sys.executable, "program.py"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **ENVIRONMENT, "RAY_FOLDER": ray, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
                 "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
        )  # fmt: skip
        printed = ""
        assert process.stdout is not None
        for line in process.stdout:
            printed += line
            if end and re.match(r"\w+ 3 \d", line):
                end(process)
                end = None
        if process.wait() == -signal.SIGKILL:
            return printed, []
    assert process.returncode == 0, printed
    return printed, json.loads((folder / "results.json").read_text())


def interrupt(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def asha(shards: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict[str, Any]]]:
    """The page's search, interrupted by Ctrl-C and restored."""
    folder = tmp_path_factory.mktemp("asha")
    code = smaller(SEARCH) + "\nprint('interrupted')\n" + RESTORE + RESULTS + WRONG + FAILING
    return program(folder, shards.folder, code, end=interrupt)


def test_a_callback_sees_each_evaluation(asha):
    """Also of a trial that was interrupted; the scheduler stops the second trial where it is worse than the first."""
    printed, rows = asha
    assert "Resume experiment with: Tuner.restore" in printed.partition("interrupted\n")[0], printed
    scores = []
    for row in rows:
        name, steps = row["metrics"]["trial_id"], row["metrics"]["steps"]
        seen = [int(step) for step in re.findall(rf"^{name} (\d+) ", printed, re.MULTILINE)]
        assert sorted(set(seen)) == list(range(3, steps + 1, 3)) and row["metrics"]["samples"] == 4 * steps
        lines = map(json.loads, (Path(row["path"]) / "run/metrics.jsonl").read_text().splitlines())
        # What Tune's own loggers have, too.
        logged = [json.loads(line)["steps"] for line in (Path(row["path"]) / "result.json").read_text().splitlines()]
        with (Path(row["path"]) / "progress.csv").open() as file:
            assert logged == [int(line["steps"]) for line in csv.DictReader(file)] and sorted(set(logged)) == sorted(
                set(seen)
            )
        events = Path(row["path"]).glob("events.out.tfevents.*")  # of each start
        assert b"ray/tune/psnr_hole" in b"".join(one.read_bytes() for one in events)
        scores.append({line["step"]: line["psnr_hole"] for line in lines if line["kind"] == "eval"})
        assert sorted(scores[-1]) == list(range(3, steps + 1, 3)) and scores[-1][steps] == row["metrics"]["psnr_hole"]
    first, second = scores  # one after the other: the second is stopped at the first rung at which it is the worse
    stop = next((step for step in (3, 6) if step in second and second[step] < first[step]), 9)
    assert [max(first), max(second)] == [9, stop]
    # One that the scheduler stops at the very end has five seconds, then Tune ends its process.
    whole = [row for row in rows if row["metrics"]["steps"] == 9]
    assert all(Path(row["path"], "run/lease").read_text().count("state ended") == 1 for row in whole)


def test_a_restored_trial_equals_an_uninterrupted_one(asha, tmp_path):
    """And what Tune has of it is the same: a model by itself."""
    row = asha[1][0]
    steps = row["metrics"]["steps"]
    cd.train(str(Path(row["path"], "run/config.yaml")), tmp_path / "run", settings={"schedule.steps": 9})
    expected = weights(tmp_path / "run", steps)
    assert steps == 9 and equal(weights(Path(row["path"], "run"), steps), expected)
    assert equal(weights(Path(row["checkpoint"]), steps), expected)
    assert cd.Model.load(row["checkpoint"]).size == 32


def test_a_wrong_key_is_one_error(asha):
    (said,) = re.findall(r"^wrong: (.*)", asha[0], re.MULTILINE)
    assert said.startswith(
        "param_space: --set optim.generator.rl=0.001: there is no key optim.generator.rl; valid here: lr"
    )


def test_a_trial_that_fails_says_why(asha):
    (said,) = re.findall(r"^failed: (.*)", asha[0], re.MULTILINE)
    assert "nowhere: no manifest.json" in said, said


# What a trial goes on from, without Ray


@pytest.fixture
def run(shards: Any, tmp_path: Path) -> Iterator[Path]:
    """A run of 7 steps, with checkpoints at each of the last five, evaluated at steps 3, 6 and 7."""
    config = small(shards.folder, checkpoint__every=1, evaluate__every=3, evaluate__samples=4)
    cd.train(config, tmp_path / "run")
    yield tmp_path / "run"


def saved(run: Path) -> list[int]:
    return RunPaths(run).steps_saved()


def test_a_trial_goes_on_from_what_tune_gives(run, tmp_path):
    """Its own later checkpoints count up to the next evaluation that was not reported; another trial's replaces all of its own."""
    given = Path(shutil.copytree(checkpoint_of_tune(run, 3), tmp_path / "given"))
    assert saved(given) == [3] and saved(run) == [3, 4, 5, 6, 7]
    continue_from(run, given)
    assert saved(run) == [3, 4, 5]  # 6 was evaluated, and Tune has not heard of it
    other = Path(shutil.copytree(run, tmp_path / "other"))
    (RunPaths(other).reported).unlink()
    for _ in range(2):  # also where a kill comes after it
        continue_from(other, given)
        assert saved(other) == [3] and checkpoint.load(RunPaths(other).checkpoint(3)).state["step"] == 3
        assert RunPaths(other).reported.read_text() == (RunPaths(given).checkpoint(3) / MANIFEST_FILE).read_text()
    copied = RunPaths(other).checkpoint(3) / "generator.safetensors"
    assert copied.stat().st_ino == (RunPaths(given).checkpoint(3) / copied.name).stat().st_ino  # a link
    continue_from(run, None)
    assert saved(run) == []  # step 3 was evaluated, and Tune knows of nothing


def test_only_losses_and_optimizers_may_change(run, shards):
    config = small(shards.folder, checkpoint__every=1, evaluate__every=3, evaluate__samples=4)
    assert not check_continues(config, run)
    assert check_continues(
        trial_config(config, {"optim.generator.lr": 1e-3, "loss.weights.inpainting.rec": 7.0}, HERE), run
    )
    with pytest.raises(
        ConfigError, match=r"^schedule\.batch: 4 -> 8: cannot change while a trial is trained, as PBT does; only loss"
    ):
        check_continues(trial_config(config, {"schedule.batch": 8}, HERE), run)


def test_a_trial_reports_at_each_checkpoint_where_nothing_else_is_said(shards):
    assert trial_config(small(shards.folder, checkpoint__every=5), {}, HERE).evaluate.every == 5
    with pytest.raises(ConfigError, match=r"^param_space: --set schedule\.batch=\"none\""):
        trial_config(small(shards.folder), {"schedule.batch": "none"}, HERE)
    with pytest.raises(ConfigError, match=r"^worker: give workers, cpus, gpus or spread"):
        cd.sweep.trainable("demo", worker=2)
    with pytest.raises(ConfigError, match=r"^workers=0 is not a whole number above 0$"):
        cd.sweep.trainable("demo", workers=0)
    with pytest.raises(ConfigError, match=r"^data.shards is not set"):
        cd.sweep.trainable("demo")
    with pytest.raises(ConfigError, match=r"^checkpoint.copy_to: Tune copies"):
        cd.sweep.trainable("demo", data=shards.folder, settings={"checkpoint.copy_to": "s3://bucket/runs"})


def test_paths_of_a_trial_are_seen_from_the_program(shards):
    """A trial runs in a folder of its own."""
    paths = {"data.shards": "packed/a", "model.init": "runs/b", "evaluate.features": "lpips.pt"}
    config = trial_config(small(shards.folder, model__init="runs/c"), paths, Path("/here"))
    assert (config.data.shards, config.model.init) == ("/here/packed/a", "/here/runs/b")
    assert config.evaluate.features == "/here/lpips.pt"
    config = trial_config(config, {"data.shards": "s3://bucket/a", "model.init": "/else/b"}, Path("/here"))
    assert (config.data.shards, config.model.init) == ("s3://bucket/a", "/else/b")


# The rest of the page


@pytest.mark.full
def test_pbt_goes_on_from_the_donors_checkpoint(shards, tmp_path):
    """Each exploit is computed again from the donor's checkpoint alone."""
    search, pbt = (
        smaller(SEARCH),
        smaller(PBT).replace("perturbation_interval=3", "perturbation_interval=3, quantile_fraction=0.5, synch=True"),
    )
    head, _, tail = search.partition("tuner = tune.Tuner(")
    tail = re.sub(r"ASHAScheduler\(.*?\)", "pbt", tail).replace("max_concurrent_trials=1", "max_concurrent_trials=2")
    code = head + pbt + "tuner = tune.Tuner(" + tail
    _, rows = program(tmp_path / "program", shards.folder, code.replace("num_to_keep=2", "num_to_keep=None"))
    trials = [Path(row["path"]) for row in rows]

    def reported(trial: Path, step: int) -> Path:
        """Where Tune has the checkpoint that a trial reported after a step."""
        (found,) = trial.glob(f"checkpoint_*/checkpoints/step-{step:08d}")
        return found.parent.parent

    exploits = [
        (trial, line["step"], float(line["changed"][0].rpartition("-> ")[2]))
        for trial in trials
        for line in map(json.loads, (trial / "run/metrics.jsonl").read_text().splitlines())
        if line["kind"] == "event" and line.get("changed") and line["step"] < 9
    ]
    assert exploits
    for number, (member, step, lr) in enumerate(exploits):
        (donor,) = [trial for trial in trials if trial != member]
        again = Path(shutil.copytree(reported(donor, step), tmp_path / f"again-{number}"))
        settings = {"optim.generator.lr": lr, "checkpoint.every": 3, "checkpoint.keep": 3}
        cd.train(str(again / "config.yaml"), again, settings=settings, allow_config_change=True)
        assert equal(weights(again, step + 3), weights(reported(member, step + 3), step + 3))


@pytest.mark.full
def test_a_killed_program_is_restored_by_a_new_one(shards, tmp_path):
    """Of one trial: Tune may not have heard of its last results, and it ends as one that was never stopped."""
    search = smaller(SEARCH).replace("num_samples=2", "num_samples=1")
    program(tmp_path / "program", shards.folder, search, end=power_off)
    head = search.partition("tuner = tune.Tuner(")[0]
    printed, (row,) = program(tmp_path / "program", shards.folder, head + RESTORE)
    run = Path(row["path"]) / "run"
    assert row["metrics"]["steps"] == 9 and re.findall(r"^\w+ (\d) ", printed, re.MULTILINE)[-1] == "9"
    cd.train(str(run / "config.yaml"), tmp_path / "run")
    assert equal(weights(run, 9), weights(tmp_path / "run", 9))


@pytest.mark.full
def test_hyperband_pauses_trials_and_goes_on(shards, tmp_path):
    """A paused trial goes on from its checkpoint; one of full length equals one that was never paused."""
    search = (
        smaller(SEARCH)
        .replace("import ASHAScheduler", "import HyperBandScheduler")
        .replace("num_samples=2", "num_samples=4")
    )
    search = re.sub(
        r"ASHAScheduler\(.*?\)", "HyperBandScheduler(time_attr='steps', max_t=9, reduction_factor=3)", search
    )
    _, rows = program(tmp_path / "program", shards.folder, search)
    ends = [row["metrics"]["steps"] for row in rows]
    assert len(rows) == 4 and max(ends) == 9, ends
    run = Path(rows[ends.index(9)]["path"]) / "run"
    cd.train(str(run / "config.yaml"), tmp_path / "run")
    assert equal(weights(run, 9), weights(tmp_path / "run", 9))


@pytest.mark.full
def test_a_trial_whose_storage_is_no_folder_is_restored(shards, tmp_path):
    """As on a bucket: its run folder is on the node, and only Tune's copies survive. Another file system of pyarrow stands for it."""
    begin = "from pyarrow.fs import LocalFileSystem, SubTreeFileSystem\nplace = SubTreeFileSystem(os.path.abspath('store'), LocalFileSystem())\n"
    storage = 'storage_path=str(Path("tune").absolute()),'
    search = smaller(SEARCH).replace(storage, 'storage_path="bucket", storage_filesystem=place,')
    search = search.replace("num_samples=2", "num_samples=1")
    restore = RESTORE.replace('str(Path("tune/weights").absolute())', '"bucket/weights", storage_filesystem=place')
    results = RESULTS.replace('page = cd.report(Path(best.path, "run"))', "print('width', model.size)")
    (tmp_path / "program/store").mkdir(parents=True)
    printed, (row,) = program(tmp_path / "program", shards.folder, begin + search + restore + results, end=interrupt)
    assert "Resume experiment with" in printed and "width 32" in printed and row["metrics"]["steps"] == 9
    trial = tmp_path / "program/store" / row["path"]
    assert not (trial / "run").exists()
    (found,) = trial.glob("checkpoint_*/checkpoints/step-00000009")
    config = found.parent.parent / "config.yaml"
    cd.train(str(config), tmp_path / "run")
    assert equal(weights(found.parent.parent, 9), weights(tmp_path / "run", 9))


@pytest.mark.full
@pytest.mark.parametrize("bundles", [False, True])
def test_two_ranks_and_optunas_searcher(shards, tmp_path, bundles):
    """Two ranks by `workers`, or by the bundles of a placement group."""
    search = (
        smaller(SEARCH)
        .replace("tune.Tuner(\n    trainable,", "tune.Tuner(\n    ranks,")
        .replace("num_samples=2", "num_samples=1, search_alg=searcher")
    )
    head, _, tail = search.partition("tuner = tune.Tuner(")
    ranks = RANKS.replace('data="packed/drawn"', f'data="packed/drawn", out="runs", settings={SETTINGS}')
    if bundles:
        ranks = ranks.replace("workers=2, ", "")
        ranks += "ranks = tune.with_resources(ranks, tune.PlacementGroupFactory([{'CPU': 1}, {'CPU': 1}]))\n"
    _, (row,) = program(tmp_path / "program", shards.folder, head + OPTUNA + ranks + "tuner = tune.Tuner(" + tail)
    (world,) = (json.loads(path.read_text()) for path in (tmp_path / "program/runs").glob("*/world.json"))
    assert world["world_size"] == 2 and row["metrics"]["steps"] == 9
    assert sorted(row["config"]) == ["loss.weights.inpainting.rec", "optim.generator.lr"]
