"""What the batch scripts take where nothing is said: data set, configuration, model, recipe; ranks for all GPUs of a node."""

import argparse
import os
import re
import shutil
from pathlib import Path

import pytest

from collagan_dist.commands.main import build_parser
from collagan_dist.data.loading.order import check_batch
from collagan_dist.errors import ConfigError
from collagan_dist.runs.layout import RunPaths
from collagan_dist.types import World
from tests.conftest import ROOT
from tests.slurm.test_common import bash
from tests.slurm.training import TRAIN

# Says which ranks a start would have, and what each of them is given; runs nothing. MOST: ranks of a node that share the batch.
STAND_IN = """#!/bin/bash
if [ "${LOCAL_WORLD_SIZE:-1}" -gt "${MOST:-9}" ]; then echo "the batch cannot be shared evenly"; exit 2; fi
for word; do
    if [ "$word" = --dry-run ]; then
        echo "$*; $WORLD_SIZE ranks, $LOCAL_WORLD_SIZE a node"
        [ -z "${SPLITS:-}" ] || echo "# splits: $SPLITS"
        echo "# run: $PWD/run"; echo "# out: $PWD/run"; exit
    fi
done
echo "$1: rank ${SLURM_PROCID:-} with GPUs ${CUDA_VISIBLE_DEVICES:-none}: $*"
"""
SHELL = {"PATH": os.environ["PATH"]}


def options_without_value(command: str) -> set[str]:
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {
        option for a in commands.choices[command]._actions if a.nargs == 0 for option in a.option_strings
    }  # fmt: skip


@pytest.mark.parametrize("command", ["train", "evaluate", "sweep", "pack"])
def test_the_scripts_know_which_options_have_no_value(command):
    (flags,) = re.findall(r"^flags='(.*)'$", (ROOT / "slurm/defaults.sh").read_text(), re.MULTILINE)
    assert options_without_value(command) <= set(flags.split())
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    valued = {o for a in commands.choices[command]._actions if a.nargs != 0 for o in a.option_strings}
    assert not valued & set(flags.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "|||||"),
        ("demo", "demo|||||"),
        ("--set a.b=c", "|||||"),
        ("--dry-run demo --data d", "demo|d||||"),
        ("--data=d --run r --space s demo", "demo|d|r|s||"),
        ("--set data.shards=d --strict small.yaml", "small.yaml|d||||"),
        ("celeba --set root=/r --set out=o", "celeba||o||/r|"),
        ("--help", "|||||1"),
        ("--merge --root '/my data'", "||||/my data|"),
        ("--set", "|||||"),
    ],
)
def test_which_words_are_given(words, said):
    flags = re.search("^flags=.*$", (ROOT / "slurm/defaults.sh").read_text(), re.MULTILINE)[0]
    text = f'{flags}\nread_words {words}\necho "$first|$data|$out|$space|$root|$help"'
    assert bash("read_words", text, **SHELL) == (0, f"{said}\n")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{data: {shards: packed/a}}", True),
        ("data:\n  image_size: 64\n  shards: /data/#1\n", True),
        ("data:\n  'shards' :\n    /data\n", True),
        ("data: {\n  shards:\n  /data}\n", True),
        ("data:\n  shards: null  # packed/a\n", False),
        ("data:\n  shards:\n  image_size: 64\n", False),
        ("data:\n  shards:\nseed: 1\n", False),
        ("{data: {shards: }}", False),
        ("{data: {shards: ~, image_size: 64}}", False),
        ("seed: 1  # shards: packed/a\n# shards: b\n", False),
        ("data: {shards_of_another: b}\n", False),
        (None, False),
    ],
)
def test_whether_a_yaml_file_names_a_data_set(tmp_path, text, named):
    if text is not None:
        (tmp_path / "a.yaml").write_text(text)
    assert bash("names_data", f"names_data {tmp_path}/a.yaml && echo yes || true", **SHELL) == (0, "yes\n" * named)


def test_the_newest_run_has_the_newest_checkpoint(tmp_path):
    for seconds, place in enumerate(("a/checkpoints/step-9", "b c/checkpoints/step-1", "a/checkpoints/step-2", "d")):
        (tmp_path / "runs" / place).mkdir(parents=True)
        if place != "d":
            path = tmp_path / "runs" / place / "manifest.json"
            path.touch()
            os.utime(path, (seconds, seconds % 2 + 5))
    assert bash("newest_run", f"cd {tmp_path}; newest_run", **SHELL) == (0, "runs/b c")
    assert bash("newest_run", "cd /; newest_run", **SHELL) == (0, "")


def stand_in(folder: Path, torchrun: str = '#!/bin/bash\necho "torchrun $*"\n') -> dict[str, str]:
    (folder / "bin").mkdir()
    for name, text in (("collagan", STAND_IN), ("torchrun", torchrun)):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


RANKS = [  # sbatch's options; ranks, of a node, GPUs that each sees, whether GPUs stay idle
    ([], 2, 2, "0,1", False),
    (["--nodes=2"], 4, 2, "0,1", False),
    (["--gpus-per-node=1"], 1, 1, "0", True),
    (["--gpus-per-node=0"], 1, 1, "none", True),
    (["--gpus-per-node=0", "--ntasks-per-node=4"], 4, 4, "none", False),
    (["--gres=gpu:1"], 1, 1, "0", True),
    (["--ntasks-per-node=1"], 1, 1, "0,1", True),
    (["--cpus-per-task=3"], 1, 1, "0,1", True),
    (["--oversubscribe", "--gpus-per-node=1"], 1, 1, "0", False),
    (["--oversubscribe", "--gpus-per-node=2", "--ntasks-per-node=2"], 2, 2, "0,1", False),
]


@pytest.mark.slurm
def test_ranks_and_their_gpus(cluster, tmp_path):
    """All GPUs of an exclusive node without further options; what is asked for otherwise."""
    env = {**stand_in(tmp_path), "COLLAGAN_DATA": "/data/faces"}

    def submit(*options: object, **more: str) -> str:
        return cluster.submit(TRAIN, options=["--time=2", *options], cwd=tmp_path, env={**env, **more})

    jobs = [submit(*options) for options, *_ in RANKS]
    torchrun = submit("--ntasks-per-node=1", COLLAGAN_LAUNCHER="torchrun")
    by_chance = submit("--oversubscribe")
    fewer, as_asked = submit("--nodes=2", MOST="1"), submit("--ntasks-per-node=2", MOST="1")
    for job, (options, ranks, of_node, gpus, idle) in zip(jobs, RANKS, strict=True):
        done, log = cluster.wait(job, 120), cluster.log(job)
        assert done.state == "COMPLETED", log
        (record,) = tmp_path.glob(f"run/logs/slurm-{job}.txt")
        assert f"  {ranks} ranks by srun, " in record.read_text(), options
        assert sorted(re.findall("^train: rank (.*?):", log, re.MULTILINE)) == [
            f"{n} with GPUs {gpus}" for n in range(ranks)
        ]
        assert ("so the others stay idle" in log) == idle, log
        nodes = ranks // of_node
        each = 0 if gpus == "none" else len(gpus.split(","))
        where = (
            f"{nodes} node{'s' * (nodes > 1)}{f' with {each} GPU' * bool(each)}{'s' * (each > 1)}{' each' * bool(each)}"
        )
        assert f"slurm: trains stable into {tmp_path}/run, by {ranks} rank{'s' * (ranks > 1)} on {where}\n" in log, log
    assert cluster.wait(torchrun).state == "COMPLETED" and "\ntorchrun --nnodes=1 --nproc-per-node=2 " in cluster.log(
        torchrun
    )
    assert cluster.wait(by_chance).exit_code == 2 and "this job has no GPU on n" in cluster.log(by_chance)
    assert cluster.wait(fewer).state == "COMPLETED" and ", by 2 ranks on 2 nodes with 2 GPUs each\n" in cluster.log(
        fewer
    )
    assert cluster.wait(as_asked).exit_code == 2 and "shared evenly" in cluster.log(as_asked)


@pytest.mark.parametrize(("batch", "ranks"), [(64, 3), (8, 8)])
def test_the_error_of_too_many_ranks_is_known(batch, ranks):
    """Then slurm/train.sh takes fewer, if nobody has asked for so many."""
    (pattern,) = re.findall(r"grep -qE '([^']*)' <<<", TRAIN.read_text())
    with pytest.raises(ConfigError, match=pattern):
        check_batch(1000, batch, World(0, ranks, 0, ranks))


@pytest.fixture
def packed(shards, tmp_path):
    """A submission folder with one data set in packed/."""
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/my faces").symlink_to(shards.folder)
    return tmp_path


@pytest.mark.slurm
@pytest.mark.full
@pytest.mark.parametrize(("batch", "nodes", "ranks"), [(8, 2, 4), (3, 1, 1)])
def test_stable_alone(cluster, packed, batch, nodes, ranks):
    """Up to its plan, on the data set in packed/, by as many ranks as can share the batch; a dry run starts none."""
    words = ["--set", f"schedule.batch={batch}", "--dry-run"]
    job = cluster.submit(TRAIN, *words, options=["--time=2", f"--nodes={nodes}"], cwd=packed)
    done, log = cluster.wait(job, 100), cluster.log(job)
    assert (
        done.exit_code == 0 and f"steps of {batch} over 48 samples, {ranks} rank(s), into runs/stable-M*_isd-" in log
    ), log
    assert (
        "slurm: not given, so chosen: CONFIG stable, --data packed/my faces (the one in packed/); otherwise: sbatch"
        in log
    )
    assert not (packed / "runs").exists()


@pytest.mark.slurm
@pytest.mark.full
def test_pack_train_and_evaluate_alone(cluster, drawn, tmp_path):
    """From pictures to figures, each by its script's name: only label maps, the size of the model and the number of steps are given."""
    small = {
        "schedule.steps": 3,
        "schedule.batch": 4,
        "data.image_size": 32,
        "model.widths.generator": 4,
        "model.widths.discriminator": 4,
    }
    sets = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]

    def done(script: str, *words: str, **env: str) -> str:
        options = ["--time=5", "--oversubscribe", "--gpus-per-node=0", "--cpus-per-task=1"]
        job = cluster.submit(ROOT / f"slurm/{script}.sh", *words, options=options, cwd=tmp_path, env=env)
        ended, log = cluster.wait(job, 240), cluster.log(job)
        assert ended.state == "COMPLETED" and ended.restarts == 0, log
        return log

    done("pack", "--set", "labels=Label/img_celeba", COLLAGAN_ROOT=str(drawn))
    assert "chosen: CONFIG stable, --data packed/celeba (the one in packed/)" in done("train", *sets)
    (run,) = (tmp_path / "runs").glob("stable-M*_isd-*")
    assert RunPaths(run).newest_step() == 3 and (run / "report.html").is_file()
    shutil.rmtree(run / "evaluation")
    done("evaluate")
    assert list((run / "evaluation").glob("test-*.json"))


@pytest.mark.slurm
def test_which_data_set(cluster, packed, shards):
    """COLLAGAN_DATA before packed/, where several are refused."""
    env = stand_in(packed)
    (packed / "packed/other").symlink_to(shards.folder)
    several = cluster.submit(TRAIN, options=["--time=2"], cwd=packed, env=env)
    said = cluster.submit(
        TRAIN, "demo", "--dry-run", options=["--time=2"], cwd=packed, env={**env, "COLLAGAN_DATA": "s3://me:key@host/a"}
    )
    done, log = cluster.wait(several), cluster.log(several)
    assert (done.state, done.exit_code) == ("FAILED", 2) and len(log.splitlines()) == 1, log
    assert f"There are 2 in {packed}: packed/my\\ faces packed/other; submit with --data SHARDS" in log
    assert cluster.wait(said).exit_code == 0
    assert cluster.log(said).splitlines() == [
        "slurm: not given, so chosen: --data s3://host/a (COLLAGAN_DATA); otherwise: sbatch [sbatch options] slurm/train.sh CONFIG --data SHARDS",
        "train demo --dry-run --data s3://me:key@host/a --dry-run; 2 ranks, 2 a node", f"# run: {packed}/run", f"# out: {packed}/run",
    ]  # fmt: skip


@pytest.mark.slurm
@pytest.mark.parametrize(("splits", "evaluates"), [("train test", True), ("train valid", False)])
def test_a_run_without_test_samples_is_not_evaluated(cluster, tmp_path, splits, evaluates):
    """It is trained and has its report, and the job has not failed."""
    env = {**stand_in(tmp_path), "COLLAGAN_DATA": "/data/faces", "SPLITS": splits}
    job = cluster.submit(TRAIN, options=["--time=2"], cwd=tmp_path, env=env)
    assert cluster.wait(job).state == "COMPLETED"
    log = cluster.log(job)
    assert ("\nevaluate: rank 0" in log) == evaluates == ("the data set has no split test" not in log), log
    assert "\nreport: rank" in log


def test_a_restart_takes_what_the_first_start_took(tmp_path):
    """Wherever its record is; that of another job says nothing."""
    for place, data in (("runs/a b", "packed/a"), ("out", "packed/b")):
        (tmp_path / place / "logs").mkdir(parents=True)
        keep = f"run='{tmp_path}/{place}' job=7 restarts=0; keep data {data}; restarts=1; keep data packed/c"
        assert bash("keep", keep, **SHELL) == (0, "")
    for job, out, restarts, data in (
        (7, "", 1, "packed/a\n"),
        (7, "out", 2, "packed/b\n"),
        (7, "", 0, ""),
        (17, "", 1, ""),
    ):
        earlier = f"cd {tmp_path}; job={job} restarts={restarts} out='{out}'; earlier data runs"
        assert bash("earlier", earlier, **SHELL) == (0, data)


@pytest.mark.slurm
def test_evaluate_sweep_and_pack_alone(cluster, packed):
    """The newest run; `stable` over `lambda` into sweeps/; CelebA from COLLAGAN_ROOT, else a usage error."""
    env = {**stand_in(packed), "COLLAGAN_CONTAINER": "env"}
    (packed / "runs/one/checkpoints/step-1").mkdir(parents=True)

    def submit(script: str, *words: object, **more: str) -> str:
        return cluster.submit(
            ROOT / f"slurm/{script}.sh",
            *words,
            options=["--time=2", *(["--cpus-per-task=2"] if script == "pack" else [])],
            cwd=packed,
            env={**env, **more},
        )

    (packed / "own.yaml").write_text("{data: {shards: packed/other}}")
    named = submit("sweep", "own.yaml", "--dry-run", COLLAGAN_DATA="/data/faces")
    none = submit("evaluate")
    assert cluster.wait(none).exit_code == 2 and f"There is no run with a checkpoint in {packed}/runs" in cluster.log(
        none
    )
    (packed / "runs/one/checkpoints/step-1/manifest.json").touch()
    newest, sweep = submit("evaluate", "--split", "valid"), submit("sweep", "--trials", "2", "--dry-run")
    no_root, pack = submit("pack"), submit("pack", "--merge", COLLAGAN_ROOT="/data/Celeb A")
    assert cluster.wait(newest).state == "COMPLETED"
    log = cluster.log(newest)
    assert (
        "chosen: MODEL runs/one (the newest run in runs/); otherwise: sbatch" in log
        and "by 2 ranks on 1 node with 2 GPUs each" in log
    )
    assert "evaluate: rank 0 with GPUs 0,1" in log and "evaluate: rank 1 with GPUs 0,1" in log
    assert "# model: runs/one" in (packed / f"runs/one/logs/slurm-{newest}.txt").read_text().splitlines()
    assert cluster.wait(sweep).exit_code == 0
    words = (
        "sweep stable --trials 2 --dry-run --space lambda --data packed/my faces --out sweeps/stable-lambda --dry-run; "
    )
    assert words in cluster.log(sweep), cluster.log(sweep)
    assert cluster.wait(named).exit_code == 0
    assert "\nsweep own.yaml --dry-run --space lambda --out sweeps/own-lambda --dry-run; " in cluster.log(named)
    assert cluster.wait(no_root).exit_code == 2 and f"CelebA is not in {packed}/data/CelebA" in cluster.log(no_root)
    assert cluster.wait(pack).exit_code == 0
    assert "chosen: RECIPE celeba, from /data/Celeb A into packed/celeba; " in cluster.log(pack)
    assert ": pack --workers 2 celeba --merge --root /data/Celeb A\n" in cluster.log(pack)
