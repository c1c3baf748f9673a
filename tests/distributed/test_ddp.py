"""DDP over real processes: gradients are those of the global batch."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.distributed import ddp_ranks
from tests.launch import torchrun


def test_ranks_take_the_steps_of_the_global_batch(tmp_path: Path) -> None:
    """Two networks, D called twice a step, G's loss through the frozen D: 2 ranks end where 1 rank ends, in float64."""
    ddp_ranks.main(str(tmp_path / "1"))
    done = torchrun(2, "-m", "--", "tests.distributed.ddp_ranks", tmp_path / "2")
    assert done.returncode == 0, done.stderr
    alone = load_file(tmp_path / "1.0")
    for rank in range(2):
        other = load_file(tmp_path / f"2.{rank}")
        assert all(torch.allclose(alone[name], other[name], rtol=1e-9, atol=1e-12) for name in alone)
