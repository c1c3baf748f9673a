"""What a CUDA graph is refused for; tests/virtual/cases.py captures and replays steps."""

import pytest
import torch
from torch import nn

from collagan_dist.config.tree import Adam, Runtime
from collagan_dist.distributed.ddp import DDPEngine
from collagan_dist.distributed.engine import Engine
from collagan_dist.distributed.group import Group
from collagan_dist.errors import ConfigError
from collagan_dist.types import World
from tests.training.small import small


@pytest.mark.parametrize(("ranks", "device", "reason"), [(1, "cpu", "needs a CUDA device"), (2, "cuda", "the 2 ranks")])
def test_what_cannot_be_captured_is_refused(ranks, device, reason):
    """With the networks, so before the run folder is touched."""
    group = Group(World(), torch.device("cpu"))
    group.world, group.device = World(size=ranks), torch.device(device)
    engine = (Engine if ranks == 1 else DDPEngine)(Runtime(cuda_graph=True), group)
    with pytest.raises(ConfigError, match=f"runtime.cuda_graph: .*{reason}.*set it to false"):
        engine.learner(nn.Linear(1, 1), Adam())


def test_deepspeed_is_refused_where_the_key_stands(shards):
    with pytest.raises(ConfigError, match="cuda_graph: DeepSpeed's step waits"):
        small(shards.folder, runtime={"cuda_graph": True, "engine": "deepspeed"})
