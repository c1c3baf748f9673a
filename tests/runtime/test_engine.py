"""Engines and groups over real processes: gradients of the global batch, errors that reach every rank."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from collagan_dist.config.tree import Adam, Runtime
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.errors import ConfigError
from collagan_dist.types import World
from tests.conftest import ROOT


def torchrun(ranks: int, *args: object) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(ranks),
        *map(str, args),
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=env)


def test_ranks_take_the_steps_of_the_global_batch(tmp_path: Path) -> None:
    """Two networks, D called twice a step, G's loss through the frozen D: 2 and 4 ranks end where 1 rank ends, in float64."""
    script = Path(__file__).with_name("ddp_ranks.py")
    for ranks in (1, 2, 4):
        done = torchrun(ranks, script, tmp_path / str(ranks))
        assert done.returncode == 0, done.stderr
    alone = load_file(tmp_path / "1.0")
    for ranks in (2, 4):
        for rank in range(ranks):
            other = load_file(tmp_path / f"{ranks}.{rank}")
            assert all(torch.allclose(alone[name], other[name], rtol=1e-9, atol=1e-12) for name in alone)


def test_ranks_without_an_engine_that_joins_them_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"this run has 2; set runtime\.engine to ddp"):
        group = Group(World(), torch.device("cpu"))
        group.world = World(size=2)
        build_engine(Runtime(engine="plain"), group).learner(torch.nn.Linear(1, 1), Adam())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_clipping_shortens_a_gradient_to_its_length_and_leaves_a_shorter_one(precision: str) -> None:
    """What Adam gets, whatever the loss was scaled by; the norm that is told is the gradient's own."""
    engine = build_engine(Runtime(precision=precision), Group(World(), torch.device("cpu")))
    for clip, factor in ((0.0, 1.0), (2.5, 0.5), (50.0, 1.0)):
        learner = engine.learner(torch.nn.Linear(1, 2, bias=False), Adam(clip=clip))
        slope = torch.tensor([[3.0], [4.0]])
        with engine.update("it", [learner], lr=1e-3) as update:
            update.backward([(learner.module.weight * slope).sum()])
        assert update.verdict.finite and update.values["gradient/it"].item() == pytest.approx(5.0)
        assert learner.parameters[0].grad.flatten().tolist() == pytest.approx([3 * factor, 4 * factor], rel=1e-5)
