import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from collagan_dist.commands import train
from collagan_dist.commands.main import COMMANDS, build_parser
from collagan_dist.errors import ClusterError, DataError
from collagan_dist.runs.metrics_log import read_rows
from collagan_dist.types import World
from tests.commands.conftest import SMALL


def test_a_dry_run_prints_configuration_and_plan(collagan, shards, tmp_path, monkeypatch):
    """And the run folder, the same for the same identity keys."""
    monkeypatch.chdir(tmp_path)
    command = ["train", "demo", "--data", shards.folder, *SMALL, "--dry-run"]
    result = collagan(*command)
    assert result.code == 0 and "image_size: 32" in result.out
    assert "2 steps of 8 over 48 samples, 1 rank(s)" in result.out
    folder = result.out.splitlines()[-1]
    assert folder.startswith("# run: runs/demo-M*_isd-") and not (tmp_path / "runs").exists()
    assert collagan(*command, "--set", "checkpoint.every=7").out.splitlines()[-1] == folder
    assert collagan(*command, "--set", "optim.generator.lr=7e-4").out.splitlines()[-1] != folder


def test_a_start_from_other_weights_says_what_it_takes(collagan, shards, trained, tmp_path):
    command = ["train", "demo", "--data", shards.folder, "--run", tmp_path / "run", *SMALL]
    result = collagan(*command, "--init", trained, "--set", "schedule.steps=1")
    taken = rf"model\.init: ({trained}, step 2: (\d+) of \2 tensors \(encoder \d+, decoder \d+, output\w* \d+.*\) of the generator, .*)"
    ((text, count),) = re.findall(taken, result.err)
    assert result.code == 0 and int(count) > 10
    (start,) = (row for row in read_rows(tmp_path / "run") if row.get("event") == "start")
    assert start["init"] == text  # kept with the run


def test_run_is_another_name_of_out():
    words = ["train", "demo", "--data", "shards"]
    first, second = (build_parser().parse_args([*words, option, "here"]) for option in ("--out", "--run"))
    assert first == second and first.run == "here"


def test_torchrun_leaves_our_options_to_us():
    """As people type it, without --. (Where an abbreviation is an error for argparse, --run is one.)"""
    from torch.distributed.run import parse_args

    options = {f"{name} {option}" for name in COMMANDS for option in subparser(name)._option_string_actions}
    refused = set()
    for words in map(str.split, options):
        line = ["--nproc-per-node", "2", "-m", "collagan_dist", *words, "x"]
        try:
            assert parse_args(line).training_script_args == [*words, "x"]
        except SystemExit:
            refused.add(" ".join(words))
    assert refused <= {"train --run"} and {"train --out", "evaluate --hole"} <= options


def subparser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    COMMANDS[name].add_arguments(parser)
    return parser


def test_a_dry_run_says_what_it_costs(collagan, shards, trained, tmp_path):
    """The rate is that of the run's own log; nothing is left to do here."""
    command = ["train", "demo", "--data", shards.folder, *SMALL, "--dry-run"]
    lines = collagan(*command, "--run", tmp_path / "new").out.splitlines()
    assert "# time: unknown, as this run has logged no rate yet" in lines and not (tmp_path / "new").exists()
    assert "# splits: train valid test" in lines
    missing = collagan(*command, "--set", "evaluate.every=1", "--set", "evaluate.split=nope")
    assert missing.code == 3 and "there is no split 'nope'" in missing.err
    changed = lines[lines.index("# differs from demo:") + 1 :][:6]
    assert changed[0] == "#   data.image_size: 64 -> 32" and changed[-1] == "#   schedule.steps: 1600 -> 2"
    weights_of = collagan(*command, "--init", trained).out.splitlines()
    assert f"#   model.init: None -> {trained}" in weights_of
    (parameters,) = [line for line in lines if line.startswith("# parameters: generator ")]
    assert "landmarks discriminator" in parameters
    assert any(
        line.startswith("# memory: ") and "MB a rank for parameters, gradients, moving average and Adam" in line
        for line in lines
    )
    assert any(
        line.startswith("# time: 0 s for 0 more steps, at the ")
        for line in collagan(*command, "--run", trained).out.splitlines()
    )


def test_a_dry_run_of_a_file_that_set_completes(collagan, shards, tmp_path):
    """Alone it would be refused; slurm/train.sh starts with a dry run."""
    (tmp_path / "part.yaml").write_text("evaluate: {size: 32}\n")
    command = ["train", tmp_path / "part.yaml", "--data", shards.folder, "--dry-run"]
    assert collagan(*command).code == 2
    sets = ["--set", "data.image_size=32", "--set", "schedule.batch=8"]
    result = collagan(*command, *sets, "--run", tmp_path / "run")
    assert result.code == 0 and "part.yaml alone is no valid configuration" in result.out


def test_keys_without_effect_are_said_before_torch_is_imported(collagan, shards, tmp_path):
    command = [
        "train",
        "demo",
        "--data",
        shards.folder,
        "--run",
        tmp_path / "run",
        *SMALL,
        "--set",
        "schedule.adv_from=7",
    ]
    said = (
        "warning: schedule.adv_from: the adversarial loss would begin at step 7, and the run has 2 steps: it is no GAN."
    )
    assert f"# {said}" in collagan(*command, "--dry-run", "--set", "model.ce.bottleneck=3").out
    assert (
        "# warning: model.ce.bottleneck: has no effect"
        in collagan(*command, "--dry-run", "--set", "model.ce.bottleneck=3").out
    )
    assert "# warning" not in collagan(*command[:-2], "--dry-run").out
    result = collagan(*command)
    assert result.code == 0 and said in result.err and result.err.index(said) < result.err.index("device: ")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert not any("loss/inpainting/adv" in line for line in lines)


def test_the_first_word_comes_before_torch(shards, tmp_path):
    """Importing torch takes most of a second, torch._dynamo, which a plain training never needs, another one."""
    code = (
        "import logging, sys\n"
        "from collagan_dist.commands import main, train\n"
        "tell = lambda record: print(record.getMessage(), '| torch' if 'torch' in sys.modules else '|')\n"
        "train.logger.addFilter(tell)\n"
        "try: main.main(sys.argv[1:])\n"
        "finally: print('dynamo', 'torch._dynamo' in sys.modules)\n"
    )
    command = ["train", "demo", "--data", shards.folder, "--run", tmp_path / "run", *SMALL]
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"M*_isd: 2 steps of 8 over 48 samples, 1 rank(s), into {tmp_path / 'run'} |\n" in done.stdout
    assert done.stdout.endswith("dynamo False\n")


def test_a_training_ends_with_the_next_commands(collagan, trained, shards, tmp_path):
    """The same command continues: here there is nothing left."""
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    before = sorted((run / "checkpoints").iterdir())
    result = collagan("train", "demo", "--data", shards.folder, "--run", run, *SMALL)
    said = f"{run}: 2 steps done; next: collagan evaluate {run} && collagan report {run}\n"
    assert result[:2] == (0, said) and sorted((run / "checkpoints").iterdir()) == before


def test_stop_at_ends_a_start_early(collagan, trained, shards, tmp_path):
    command = [
        "train",
        "demo",
        "--data",
        shards.folder,
        *SMALL,
        "--set",
        "runtime.threads=1",
        "--out",
        tmp_path / "run",
    ]
    result = collagan(*command, "--stop-at", "1")
    assert result.code == 0 and "run: 1 steps done" in result.out
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000001"]
    result = collagan("train", "demo", "--data", shards.folder, *SMALL, "--out", trained, "--stop-at", "1")
    assert result.code == 2 and "--stop-at 1: " in result.err and "is at step 2 already" in result.err


def test_a_failure_is_recorded(tmp_path):
    """But not one that a restart may mend, nor in a folder that does not exist."""
    with pytest.raises(ClusterError), train._record_failure(tmp_path, World()):
        raise ClusterError("rank 1 is gone")
    assert not (tmp_path / "failed").exists()
    with pytest.raises(DataError), train._record_failure(tmp_path / "none", World()):
        raise DataError("no shards")
    with pytest.raises(DataError), train._record_failure(tmp_path, World(rank=3, size=4)):
        raise DataError("no shards")
    record = json.loads((tmp_path / "failed").read_text())
    assert (record["exit_code"], record["message"], record["rank"]) == (3, "no shards", 3)


def test_the_command_that_continues(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["collagan", "--local_rank=0", "train", "demo", "--run", "my run"])
    found = {launcher: train._continue_command(launcher, 2) for launcher in ("alone", "srun", "torchrun", "mpi")}
    assert found == {
        "alone": "collagan train demo --run 'my run'",
        "srun": "srun collagan train demo --run 'my run'",
        "torchrun": "torchrun --nproc-per-node 2 -m -- collagan_dist train demo --run 'my run'",
        "mpi": "collagan train demo --run 'my run'  # on all ranks, by the launcher that started them",
    }
