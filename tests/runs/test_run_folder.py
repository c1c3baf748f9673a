import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from collagan_dist.config.tree import Config
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.distributed.group import Group
from collagan_dist.distributed.stop_request import STOP_SIGNALS
from collagan_dist.errors import CheckpointError, ClusterError, ConfigError
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.lease import parse_owner
from collagan_dist.runs.run_folder import Progress, RunFolder
from collagan_dist.training.loop import StartOptions, train
from collagan_dist.types import World
from tests.conftest import ROOT
from tests.data.packed import overwrite
from tests.faults.test_bad_input import run as run_command
from tests.runs.run_folders import KEPT, SAVING, STEPS, checkpoint_names, events, lines, rewrite_state, write_config
from tests.runs.test_async_checkpoint import Counter, Events
from tests.training.small import equal, small, weights


def test_continued_equals_uninterrupted(shards, finished, tmp_path):
    """Bit for bit, with fewer sinks and without evaluations; the adversarial losses begin in the second part."""
    run = tmp_path / "run"
    for steps in (1, 5, STEPS):
        train(small(shards.folder, **{**SAVING, "schedule__steps": steps}), run, World())
    assert equal(weights(finished, STEPS), weights(run, STEPS))
    files = {name.split("/")[0] for name in weights(run, STEPS)}
    assert files == {"generator", "discriminators", "optimizer", "ema"}
    assert lines(finished, "train")[-1]["loss/total"] == lines(run, "train")[-1]["loss/total"]
    assert [line["step"] for line in lines(run, "train")] == [1, 2, 4, 5, 6, 8, 9]
    assert not (run / "tensorboard").exists()
    train(small(shards.folder, **{**SAVING, "schedule__steps": 1}, seed=1), tmp_path / "other", World())
    train(small(shards.folder, **{**SAVING, "schedule__steps": 1}), tmp_path / "same", World())
    assert not equal(weights(tmp_path / "other", 1), weights(tmp_path / "same", 1))


@pytest.mark.parametrize("deterministic", [False, True])
def test_another_number_of_threads_is_said_or_not_taken(shards, tmp_path, capsys, deterministic, request):
    """It changes the last bits: an event says so, and `deterministic` keeps the number of the checkpoint."""
    request.addfinalizer(lambda: torch.use_deterministic_algorithms(False))  # a setting of the whole process
    settings = {"deterministic": deterministic, "data__image_size": 64}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for run, stops in ((whole, ((6, 1),)), (parts, ((3, 1), (6, 2)))):
        for steps, threads in stops:
            train(small(shards.folder, **settings, schedule__steps=steps, runtime__threads=threads), run, World())
    world = json.loads((parts / "world.json").read_text())
    assert world["ranks"][0]["threads"] == (1 if deterministic else 2)
    said = {"machine": ["threads: 1 -> 2"]} if not deterministic else {}
    (event,) = events(parts, "resume")
    assert {key: event[key] for key in event if key == "machine"} == said
    assert ("need not equal an uninterrupted one bit for bit: threads: 1 -> 2" in capsys.readouterr().err) == bool(said)
    if deterministic:
        assert equal(weights(whole, 6), weights(parts, 6))


@pytest.mark.parametrize(
    ("number", "prefix"), [(signal.SIGTERM, []), (signal.SIGINT, []), (signal.SIGHUP, []), (signal.SIGHUP, ["nohup"])]
)
def test_a_signal_to_torchrun_saves_and_the_same_command_continues(shards, tmp_path, number, prefix):
    """All ranks save the same step. torchrun passes a hangup on even under nohup."""
    run, config = tmp_path / "run", write_config(small(shards.folder, schedule__steps=40), tmp_path / "config")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "collagan_dist"]
    child = subprocess.Popen(
        [*prefix, sys.executable, *launcher, "train", str(config), "--out", str(run)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    while child.poll() is None and not ((run / "metrics.jsonl").exists() and len(lines(run, "train")) > 1):
        time.sleep(0.02)
    child.send_signal(number)
    output = child.communicate(timeout=120)[0]
    stopped = RunPaths(run).newest_step()
    assert (
        4 <= stopped < 40
        and f"stopped at step {stopped} of 40" in output
        and f"-m collagan_dist train {config} --out {run}" in output
    ), output
    assert (run / "requeue").exists() and events(run, "interrupted")[0]["step"] == stopped
    assert train(small(shards.folder, schedule__steps=stopped + 1), run, World()) == stopped + 1
    assert not (run / "requeue").exists()


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_signal_saves_and_exits_with_75(shards, tmp_path, capsys, number, no_nohup):
    config = write_config(small(shards.folder, schedule__steps=2000), tmp_path / "config")

    def interrupt() -> None:
        while not (tmp_path / "run/metrics.jsonl").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    code, text = run_command(capsys, "train", config, "--run", tmp_path / "run")
    stopped = RunPaths(tmp_path / "run").newest_step()
    assert code == 75 and "Traceback" not in text and 0 < stopped < 2000
    assert f"stopped at step {stopped} of 2000" in text and "this continues:\n" in text
    assert (tmp_path / "run/requeue").exists() and events(tmp_path / "run", "interrupted")[0]["step"] == stopped


def test_a_damaged_checkpoint_is_named_and_the_former_one_taken(shards, finished, run, capsys):
    """With --strict it is refused."""
    overwrite(run / "checkpoints/step-00000009/optimizer.safetensors", 3000, b"damage")
    config = small(shards.folder, **SAVING)
    with pytest.raises(CheckpointError, match=r"optimizer.safetensors is damaged .*--strict"):
        train(config, run, World(), StartOptions(strict=True))
    train(config, run, World())
    assert "step-00000009: optimizer.safetensors is damaged" in capsys.readouterr().err
    assert equal(weights(finished, STEPS), weights(run, STEPS)) and checkpoint_names(run) == KEPT
    assert [event["step"] for event in events(run, "resume")] == [8]


def test_another_configuration_is_refused_with_the_difference(shards, run):
    other = small(shards.folder, **SAVING, loss__weights={"inpainting": {"adv": 0.8, "rec": 50.0}}, log__every=1)
    with pytest.raises(CheckpointError, match=r"loss.weights.inpainting.rec: 100.0 -> 50.0\ngive another --out"):
        train(other, run, World())
    assert train(other, run, World(), StartOptions(allow_config_change=True)) == STEPS
    (event,) = events(run, "resume")
    assert event["changed"] == ["loss.weights.inpainting.rec: 100.0 -> 50.0"] and event["generation"] == 3


def test_another_data_set_and_a_newer_program_are_refused(shards, run):
    config, path = small(shards.folder, **SAVING), run / "checkpoints/step-00000009"
    rewrite_state(path, lambda state: state.update(manifest="0" * 64))
    with pytest.raises(CheckpointError, match=rf"manifest: 0+ -> {shards.hash}"):
        train(config, run, World())
    rewrite_state(path, lambda state: state.update(manifest=shards.hash))
    rewrite_state(path, lambda state: state["config"]["optim"].update(warm_up=5))
    with pytest.raises(CheckpointError, match=r"unknown key optim.warm_up(.|\n)*another version of collagan_dist"):
        train(config, run, World())
    assert train(config, run, World(), StartOptions(allow_config_change=True)) == STEPS
    rewrite_state(path, lambda state: state.update(format=3))
    with pytest.raises(CheckpointError, match=r"is of format 3, this program reads formats 1 to 2; use the version"):
        train(config, run, World())
    owner = parse_owner((run / "lease").read_text())
    assert owner.generation == 5 and owner.ended  # also a refused start takes a number, and says that it ended


def acquired(run: Path, config: Config, manifest: Manifest) -> RunFolder:
    folder = RunFolder(run, config, manifest, Group(World(), torch.device("cpu")))
    folder.acquire()
    return folder


def test_what_killed_starts_left_is_removed(shards, tmp_path):
    for leftover in (".step-00000003", ".step-00000005-0a1b2c3d", ".old-00000002", "step-00000001"):
        (tmp_path / "checkpoints" / leftover).mkdir(parents=True)
    (tmp_path / "grids").mkdir()
    (tmp_path / "lease").write_text("1 token\nstate ended\n")
    for name in ("metrics.jsonl", "lease", "config.yaml", "data.json", "world.json", "requeue", "grids/step-1.png"):
        (tmp_path / name).with_name(f".{Path(name).name}.0a1b2c3d.partial").touch()
    acquired(tmp_path, small(shards.folder), shards).release()
    assert checkpoint_names(tmp_path) == ["step-00000001"] and not list(tmp_path.rglob("*.partial"))


def test_what_a_start_writes(shards, tmp_path):
    """Its records; the marks of the former start are removed, and its own left; a second start is the next generation."""
    for mark in ("requeue", "failed"):
        (tmp_path / mark).touch()
    config = small(shards.folder)
    for generation in (1, 2):
        folder = acquired(tmp_path, config, shards)
        folder.record_start("collagan train small")
        assert not (tmp_path / "requeue").exists() and not (tmp_path / "failed").exists()
        folder.request_requeue()
        folder.release()
        assert folder.start_facts(Progress()) == {"generation": generation, "world_size": 1}
    (tmp_path / "lease").unlink()  # the number is known from world.json, too
    folder = acquired(tmp_path, config, shards)
    assert folder.start_facts(Progress(changed=["a: 1 -> 2"])) == {
        "generation": 3, "world_size": 1, "changed": ["a: 1 -> 2"],
    }  # fmt: skip
    folder.release()
    world, data = (json.loads((tmp_path / name).read_bytes()) for name in ("world.json", "data.json"))
    assert world.keys() == {"command", "commit", "started", "generation", "restarts", "world_size", "ranks"}
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert (
        world["commit"] is None if head.returncode else head.stdout.startswith(world["commit"].removesuffix("-dirty"))
    )
    assert world["command"] == "collagan train small" and world["ranks"][0]["pid"] == os.getpid()
    assert data["shards"] == str(shards.folder) and data["splits"] == {s: shards.samples(s) for s in shards.splits}
    assert (tmp_path / "requeue").read_text() == "no job, start 0\n"


def test_progress_is_saved_and_resumed(shards, tmp_path):
    config, networks, log_event = small(shards.folder), Counter(), Events()
    folder = acquired(tmp_path, config, shards)
    assert folder.resume(networks, False) == Progress()
    networks.value += 6
    folder.save(networks, Progress(6, [2, 3], [4, 5]), log_event)
    folder.wait_for_checkpoint(log_event)
    folder.release()
    again, restored = acquired(tmp_path, config, shards), Counter()
    assert again.resume(restored, False) == Progress(6, [2, 3], [4, 5], [], loaded=True) and torch.equal(
        restored.value, networks.value
    )
    state = json.loads((tmp_path / "checkpoints/step-00000006/state.json").read_bytes())
    facts = {
        "samples": 24,
        "seed": 0,
        "world_size": 1,
        "generation": 1,
        "manifest": shards.hash,
        "parser": None,
        "init": None,
    }
    assert state.items() >= facts.items()
    assert not folder.lease_lost
    with pytest.raises(ClusterError, match="has taken over"):
        folder.check_lease()
    assert folder.lease_lost
    again.release()


def test_the_last_checkpoint_may_not_fail(shards, tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    (tmp_path / "lease").write_text("1 token\nstate ended\n")
    with pytest.raises(CheckpointError, match="Step 1 is not saved, there is no checkpoint yet; make room, then run"):
        train(small(shards.folder, schedule__steps=1), tmp_path, World())


def test_a_folder_that_cannot_be_used_is_named(shards, tmp_path):
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(ConfigError, match=r"run: cannot be used as run folder \(.*\); give another --out"):
        acquired(tmp_path / "run", small(shards.folder), shards)
