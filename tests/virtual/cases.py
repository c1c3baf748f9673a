"""What runs on the virtual device, in a process that has it: test_virtual.py starts pytest on this file and on tests/gpu."""

import copy
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from collagan_dist.config.tree import Config
from collagan_dist.data.loading.dali_pipeline import DaliPipeline
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.errors import ClusterError
from collagan_dist.inference.complete import CompleteOptions, complete
from collagan_dist.inference.score import ScoreRequest, score
from collagan_dist.models.step import Step
from collagan_dist.runs.async_checkpoint import HostCopy
from collagan_dist.training.loop import train
from collagan_dist.types import Batch, World
from tests.models.peers import peer, train_parser
from tests.training.small import equal, small, weights
from tests.virtual import device
from tests.virtual.counting import count_step

STEPS = {"schedule": {"steps": 8, "batch": 4}, "log": {"every": 100, "grid_every": 100}}
READ = "distributed/update.py"


def on_gpu(manifest: Manifest, **changes: Any) -> Config:
    """A small configuration in bf16 and channels_last; keyword arguments as for `small`."""
    runtime = {"runtime": {"precision": "bf16", "channels_last": True, "threads": 1}}
    return small(manifest.folder, **{**runtime, **copy.deepcopy(changes)})


def waits_of_steps(config: Config, run: Path, monkeypatch: pytest.MonkeyPatch) -> list[Counter[tuple[str, str]]]:
    """The waits of the main thread in each step of a training, from the end of the step before on."""
    found: list[Counter[tuple[str, str]]] = []
    step = Step.__call__

    def counted(self: Step, batch: Batch, number: int) -> Any:
        found.append(device.RECORD.waits[threading.main_thread().ident].copy())
        device.RECORD.clear()
        return step(self, batch, number)

    monkeypatch.setattr(Step, "__call__", counted)
    train(config, run, World())
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hole": {"kind": "pattern"}},
        {"hole": {"kind": "block", "fill": "mean"}},
        {"hole": {"kind": "block", "fill": "smooth"}},
        {"runtime__precision": "fp16"},
        {"runtime__accumulate": 2},
        {"optim": {"generator": {"clip": 1.0}, "discriminators": {"clip": 1.0}}},
        {"model": {"widths": {"generator": 4, "discriminator": 4}, "discriminators": "shared", "mask_channel": True}},
    ],
)
def test_a_step_waits_for_its_verdict_of_a_step_before_alone(shards, tmp_path, monkeypatch, changes):
    config = on_gpu(shards, **STEPS, **changes)
    steps = waits_of_steps(config, tmp_path, monkeypatch)[3:-1]  # the first ones make tensors that are kept
    assert len(steps) == 4
    for waits in steps:
        assert [(kind, line.partition(":")[0]) for kind, line in waits.elements()] == [("event.synchronize", READ)]


def test_a_run_goes_on_as_on_the_cpu(shards, tmp_path):
    """Training with evaluations, grids and checkpoints; a continued run is the whole one; then evaluate and complete."""
    often: dict[str, Any] = {"evaluate": {"every": 4, "split": "valid"}, "checkpoint": {"every": 3, "keep": 5}}
    often |= {"log": {"every": 2, "grid_every": 3}}
    for name, stops in (("whole", (9,)), ("parts", (5, 9))):
        for steps in stops:
            train(on_gpu(shards, **often, schedule={"steps": steps, "batch": 4}), tmp_path / name, World())
    assert equal(weights(tmp_path / "whole", 9), weights(tmp_path / "parts", 9))
    wanted = ScoreRequest(holes=("block", "O1"), blends=("none", "poisson"))
    done = score(tmp_path / "whole", World(), wanted)
    assert len(done) == 4 and all(np.isfinite(metrics["psnr_hole"]) for metrics, _ in done)
    picture = tmp_path / "face.jpg"
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(picture)
    complete(tmp_path / "whole", picture, tmp_path / "completed", None, CompleteOptions("poisson"))
    assert list((tmp_path / "completed").iterdir())


@pytest.mark.parametrize("name", ["ce", "sii", "gfc"])
def test_peers(shards, tmp_path, name):
    parser = None
    if name == "gfc":
        train(train_parser(shards), tmp_path / "parser", World())
        parser = tmp_path / "parser"
    config = peer(shards, name, parser, runtime__precision="bf16", schedule={"steps": 4, "batch": 4})
    assert train(config, tmp_path / name, World()) == 4


@pytest.mark.parametrize("way", ["fp16", "gfc"])
def test_a_captured_step_is_the_step(shards, tmp_path, monkeypatch, way):
    """Bit by bit, with another stage, another learning rate in each step, and a return to the checkpoint; it launches one graph."""
    operations: list[int] = []
    step = Step.__call__

    def counted(self: Step, batch: Batch, number: int) -> Any:
        device.RECORD.clear()
        # Three such steps in a row: the run goes back to step 8, and leaves them out.
        bad = replace(batch, input_B3HW=batch.input_B3HW * torch.nan) if number in (9, 10, 11) else batch
        result = step(self, bad, number)
        operations.append(device.RECORD.kernels.operations.total())
        return result

    monkeypatch.setattr(Step, "__call__", counted)
    for graph in (False, True):
        operations.clear()
        assert train(_captured(shards, way, graph), tmp_path / str(graph), World()) == 16
    assert equal(weights(tmp_path / "False", 16), weights(tmp_path / "True", 16))
    # With those of the loader. Three steps of a stage come before its graph.
    assert max(operations[4], operations[9]) < 150 < 200 < min(operations[2], operations[6]), operations


def _captured(shards: Manifest, way: str, graph: bool) -> Config:
    changes: dict[str, Any] = {
        "schedule": {"steps": 16, "batch": 4, "adv_from": 5},
        "log": {"every": 100, "grid_every": 100},
        "checkpoint": {"every": 2, "keep": 9},
    }
    runtime: dict[str, Any] = {"precision": "bf16", "threads": 1, "cuda_graph": graph}
    if way == "gfc":
        return peer(shards, way, **changes, model__gfc={"parsing": 0.0, "stages": [0.3, 0.7]}, runtime=runtime)
    optim = {"generator": {"decay_from": 0.2, "clip": 0.5}, "discriminators": {"clip": 0.5}, "ema": 0.9}
    return small(shards.folder, **changes, optim=optim, runtime={**runtime, "precision": "fp16", "channels_last": True})


@pytest.mark.parametrize("keep", ["host", "device"])
def test_kept_canvases_are_those_that_were_decoded(shards, tmp_path, monkeypatch, keep):
    """With no wait in a step of a later epoch either."""
    long = {"schedule": {"steps": 16, "batch": 8}, "log": {"every": 100, "grid_every": 100}}
    train(on_gpu(shards, **long), tmp_path / "none", World())
    waits = waits_of_steps(on_gpu(shards, **long, data__keep=keep), tmp_path / "kept", monkeypatch)
    assert equal(weights(tmp_path / "none", 16), weights(tmp_path / "kept", 16))
    assert all(w.total() == 1 for w in waits[9:-1])


def test_a_gpu_that_leaves_pictures_out_is_named(shards, tmp_path, monkeypatch):
    decode = DaliPipeline.__call__
    monkeypatch.setattr(DaliPipeline, "__call__", lambda self, *inputs: [t.zero_() for t in decode(self, *inputs)])
    with pytest.raises(ClusterError, match="grey levels away from the CPU"):
        train(on_gpu(shards, data__image_size=64), tmp_path, World())


# Controls: each takes out what a rule of a real device asks for, and the virtual one must notice.


def test_a_checkpoint_that_does_not_wait_is_rubbish(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    copies = HostCopy()
    values = {"file": {"name": torch.full((3,), 5.0, device="cuda")}}
    assert copies.copy(values)["file"]["name"].tolist() != [5.0] * 3
    device.wait("at last")
    assert copies.copy(values)["file"]["name"].shape == (3,)


def test_a_tensor_left_on_the_cpu_is_an_error(shards, tmp_path, monkeypatch):
    step = Step.__call__
    monkeypatch.setattr(
        Step, "__call__", lambda self, b, number: step(self, replace(b, keys_B2=b.keys_B2.cpu()), number)
    )
    with pytest.raises(RuntimeError, match="same device"):
        train(on_gpu(shards), tmp_path, World())


def test_a_missing_wait_between_streams_is_a_race(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(device.Stream, "wait_event", lambda self, event: None)
    with pytest.raises(device.Race, match="possible data race"):
        train(on_gpu(shards), tmp_path, World())


def test_a_pinned_buffer_that_changes_too_soon_is_a_race():
    pinned = torch.zeros(4, pin_memory=True)
    copied = pinned.to("cuda", non_blocking=True)
    pinned.add_(1)
    with pytest.raises(device.Race, match="pinned source"):
        copied.tolist()


def test_waits_are_counted():
    device.RECORD.clear()
    value = torch.ones(3, device="cuda")
    bool(value.sum() > 0), value.nonzero(), value.cpu(), torch.zeros(3).to("cuda"), value[value > 0]
    assert sum(device.RECORD.waits[threading.main_thread().ident].values()) == 5


# Ceilings of a step at full width, batch 256, bf16: they only fall. benchmarks/virtual.json has the figures.
OPERATIONS, GIGABYTES = 581, 56.7


def test_a_step_at_full_width_asks_no_more_of_a_gpu():
    found = count_step(256)
    assert found.waits == 0  # the verdict is read by the loop
    assert found.operations.total() <= OPERATIONS
    assert sum(found.bytes.values()) / 1e9 <= GIGABYTES
