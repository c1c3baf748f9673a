"""On a GPU: engines, precisions and batch normalization against the plain fp32 step."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist

from collagan_dist.config.load import to_yaml
from collagan_dist.distributed import precision
from collagan_dist.distributed.ddp import DDPEngine
from collagan_dist.distributed.engine import Engine
from collagan_dist.distributed.engines import build_engine
from collagan_dist.models.registry import build_networks, build_step
from collagan_dist.setup import Setup
from collagan_dist.types import Batch
from tests.conftest import ROOT, collagan
from tests.training.one_rank import setup
from tests.training.small import small

pytestmark = pytest.mark.gpu
STEPS = 6


def losses(part: Setup, engine: Engine | None = None) -> list[dict[str, float]]:
    """Losses of a few steps on the same batches."""
    engine = engine or build_engine(part.config.runtime, part.group)
    networks = build_networks(part.config, engine, part.tasks)
    step = build_step(part.config, engine, part.tasks, networks, STEPS)
    batches: list[Batch] = list(
        part.loader("train", part.view(training=True), 4).batches(
            iter([(np.arange(n, n + 4), np.zeros(4, np.int64)) for n in range(0, 4 * STEPS, 4)])
        )
    )
    results = [step(batch, number) for number, batch in enumerate(batches)]
    assert all(result.verdict.read().finite for result in results)
    return [{n: float(v) for n, v in one.values.items() if n.startswith("loss/")} for one in results]


def near(one: list[dict[str, float]], other: list[dict[str, float]], rel: float) -> None:
    for number, (a, b) in enumerate(zip(one, other, strict=True)):
        assert a == pytest.approx(b, rel=rel, abs=1e-3), f"step {number}"


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("changes", "rel"),
    [
        ({"runtime__precision": "bf16"}, 0.05),
        ({"runtime__precision": "fp16"}, 0.02),
        ({"runtime__channels_last": True}, 0.01),
        ({"runtime__compile": True}, 0.01),
        ({"runtime__cuda_graph": True}, 1e-4),
    ],
)
def test_other_arithmetic_learns_nearly_the_same(shards, device, changes, rel, monkeypatch):
    # Otherwise the first steps overflow, are skipped, and say nothing of what fp16 learns.
    monkeypatch.setattr(precision, "_INITIAL_SCALE", 2.0**8)
    near(losses(setup(shards, device, **changes)), losses(setup(shards, device)), rel)


@pytest.mark.parametrize("graph", [False, True])
def test_compile_step_learns_nearly_the_same(shards, device, graph):
    near(
        losses(setup(shards, device, runtime__compile="step", runtime__cuda_graph=graph)),
        losses(setup(shards, device)),
        0.01,
    )


def test_ddp_by_nccl(shards, device, tmp_path):
    """One rank wrapped by DDP: the discriminators run twice in one call, with batch normalization, and nothing was changed in place."""
    dist.init_process_group("nccl", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        part = setup(shards, device)
        near(losses(part, DDPEngine(part.config.runtime, part.group)), losses(part), 1e-3)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_deepspeed(shards, device, stage):
    """In a process of its own: DeepSpeed keeps what it set up."""
    pytest.importorskip("deepspeed")
    code = (
        "import sys, json, torch; from pathlib import Path; from collagan_dist.data.shards.manifest import read_manifest\n"
        "from tests.gpu.test_training import losses; from tests.training.one_rank import setup\n"
        "part = setup(read_manifest(Path(sys.argv[1])), torch.device('cuda', 0), runtime__engine='deepspeed', runtime__zero_stage=int(sys.argv[2]))\n"
        "print('FOUND' + json.dumps(losses(part)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, shards.folder, str(stage)], capture_output=True, text=True, cwd=ROOT, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)}
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    near(json.loads(found.removeprefix("FOUND")), losses(setup(shards, device)), 1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_two_ranks_on_one_gpu(shards, tmp_path, precision):
    """NCCL refuses two ranks on a GPU: they meet by gloo. With batch normalization over both, they learn what one rank does."""
    config = tmp_path / "small.yaml"
    settings = {"runtime__sync_bn": True, "runtime__precision": precision, "log__every": 1, "schedule__batch": 8}
    config.write_text(to_yaml(small(shards.folder, **settings)))
    found = []
    for ranks in (0, 2):
        run = tmp_path / f"run{ranks}"
        collagan("train", config, "--run", run, ranks=ranks)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        found.append([line["loss/inpainting/rec"] for line in lines if line["kind"] == "train"])
    assert found[0] == pytest.approx(found[1], rel=1e-3 if precision == "fp32" else 0.02)
