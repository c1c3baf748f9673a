"""Interrupted and continued equals uninterrupted, bit for bit; and the same command does it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collagan_dist.config.load import to_yaml
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.errors import CheckpointError
from collagan_dist.runs.layout import checkpoint_steps
from collagan_dist.training.loop import StartOptions, train
from collagan_dist.types import World
from tests.conftest import collagan
from tests.training.small import equal, small, weights


@pytest.mark.parametrize("model", [{}, {"model__tasks": ["inpainting"], "schedule__adv_from": 3}])
def test_continued_equals_uninterrupted(shards: Manifest, tmp_path: Path, model: dict) -> None:
    train(small(shards.folder, **model), tmp_path / "whole", World())
    for steps in (1, 4, 7):
        train(small(shards.folder, **model, schedule__steps=steps), tmp_path / "parts", World())
    assert equal(weights(tmp_path / "whole", 7), weights(tmp_path / "parts", 7))
    files = {name.split("/")[0] for name in weights(tmp_path / "whole", 7)}
    assert files == {"generator", "discriminators", "optimizer", "ema"}
    assert _train_lines(tmp_path / "whole")[-1]["loss/total"] == _train_lines(tmp_path / "parts")[-1]["loss/total"]


def test_another_seed_is_another_run(shards: Manifest, tmp_path: Path) -> None:
    train(small(shards.folder), tmp_path / "a", World())
    train(small(shards.folder, seed=1), tmp_path / "b", World())
    assert not equal(weights(tmp_path / "a", 7), weights(tmp_path / "b", 7))


@pytest.mark.parametrize(("ranks", "number", "code"), [(0, signal.SIGINT, 75), (2, signal.SIGTERM, None)])
def test_a_signal_saves_and_the_same_command_continues(
    shards: Manifest, tmp_path: Path, ranks: int, number: int, code: int | None
) -> None:
    """Alone and under torchrun: stopped by a signal in the middle, run again, equal to a run that nobody stopped."""
    config = tmp_path / "small.yaml"
    config.write_text(to_yaml(small(shards.folder, schedule__steps=60)))
    collagan("train", config, "--run", tmp_path / "whole", ranks=ranks)
    start = [
        sys.executable,
        "-m",
        *(["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"] if ranks else []),
    ]
    command = [*start, "collagan_dist", "train", str(config), "--run", str(tmp_path / "run")]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    metrics = tmp_path / "run/metrics.jsonl"
    while child.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) > 3):
        time.sleep(0.02)
    child.send_signal(number)
    output = child.communicate(timeout=120)[0]
    stopped = checkpoint_steps(tmp_path / "run/checkpoints")
    assert stopped and 4 <= stopped[-1] < 60, output
    assert f"stopped at step {stopped[-1]} of 60" in output and f"--run {tmp_path / 'run'}" in output
    assert "Traceback" not in output or ranks  # torchrun's own agent prints one when it gets a signal
    assert (tmp_path / "run/requeue").exists()
    if code is not None:
        assert child.returncode == code
    collagan("train", config, "--run", tmp_path / "run", ranks=ranks)
    assert equal(weights(tmp_path / "whole", 60), weights(tmp_path / "run", 60))
    assert not (tmp_path / "run/requeue").exists()


def test_a_damaged_checkpoint_is_named_and_the_former_one_taken(
    shards: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(small(shards.folder), tmp_path / "whole", World())
    train(small(shards.folder, checkpoint__every=2, schedule__steps=6), tmp_path / "run", World())
    newest = tmp_path / "run/checkpoints/step-00000006/generator.safetensors"
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.write_bytes(content)
    train(small(shards.folder), tmp_path / "run", World())
    assert "step-00000006: generator.safetensors is damaged" in capsys.readouterr().err
    assert equal(weights(tmp_path / "whole", 7), weights(tmp_path / "run", 7))


def test_another_configuration_is_refused_with_the_difference(shards: Manifest, tmp_path: Path) -> None:
    train(small(shards.folder, schedule__steps=2), tmp_path, World())
    other = small(
        shards.folder, schedule__steps=3, loss__weights={"inpainting": {"adv": 0.8, "rec": 50.0}}, log__every=1
    )
    with pytest.raises(CheckpointError, match=r"loss.weights.inpainting.rec: 100.0 -> 50.0\ngive another --run"):
        train(other, tmp_path, World())
    assert train(other, tmp_path, World(), StartOptions(allow_config_change=True)) == 3


def test_adversarial_losses_that_begin_inside_a_window_are_means_over_their_own_steps(
    shards: Manifest, tmp_path: Path
) -> None:
    train(small(shards.folder, schedule__adv_from=3, schedule__steps=4, log__every=4), tmp_path / "window", World())
    train(small(shards.folder, schedule__adv_from=3, schedule__steps=4, log__every=1), tmp_path / "single", World())
    name = "loss/inpainting/disc"
    assert _train_lines(tmp_path / "window")[-1][name] == _train_lines(tmp_path / "single")[-1][name]


def test_a_run_is_evaluated_from_any_folder(shards: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from collagan_dist.inference.score import score

    monkeypatch.chdir(shards.folder.parent)
    train(small(Path(shards.folder.name), schedule__steps=1), tmp_path / "run", World())
    monkeypatch.chdir(tmp_path)
    ((metrics, _),) = score(Path("run"), World())
    assert metrics["manifest"] == shards.hash and (tmp_path / "run/metrics.json").exists()


def test_no_space_left_keeps_the_former_checkpoint(shards: Manifest, tmp_path: Path) -> None:
    """A real full disk: a small tmpfs of this process's own."""
    script = (
        "import sys, ctypes, torch; from pathlib import Path; from collagan_dist.runs import checkpoint\n"
        "from collagan_dist.errors import CheckpointError\n"
        "folder = Path(sys.argv[1])\n"
        "checkpoint.save(folder, 1, {'generator': {'a': torch.zeros(1000)}}, {'step': 1}, 3)\n"
        "try: checkpoint.save(folder, 2, {'generator': {'a': torch.zeros(10**6)}}, {'step': 2}, 3)\n"
        "except CheckpointError as error: print(error)\n"
        "print(sorted(p.name for p in folder.iterdir()), checkpoint.load_latest(folder).state['step'])\n"
    )
    mount = f'mount -t tmpfs -o size=2m none {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}'
    done = subprocess.run(["unshare", "-m", "sh", "-c", mount, script], capture_output=True, text=True)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("mount namespaces need root")
    assert "no space left" in done.stdout and "['step-00000001'] 1" in done.stdout, done.stdout + done.stderr


def test_keep_and_leftovers(shards: Manifest, tmp_path: Path) -> None:
    for leftover in (".step-00000003", ".step-00000005-0a1b2c3d", ".old-00000002"):
        (tmp_path / "checkpoints" / leftover).mkdir(parents=True)
    (tmp_path / ".metrics.jsonl.0a1b2c3d.partial").touch()
    train(small(shards.folder, checkpoint__every=1, checkpoint__keep=2), tmp_path, World())
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000006", "step-00000007"]
    assert not list(tmp_path.glob("*.partial"))


def test_the_log_of_a_continued_run_has_every_step_once(shards: Manifest, tmp_path: Path) -> None:
    train(small(shards.folder, schedule__steps=4), tmp_path, World())
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 6, "loss/total": 1.0}\n{"kind": "train", "st')
    train(small(shards.folder), tmp_path, World())
    assert [line["step"] for line in _train_lines(tmp_path)] == [2, 4, 6, 7]
    assert all("NaN" not in line for line in (tmp_path / "metrics.jsonl").read_text().splitlines())


def _train_lines(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "train"]
