"""What a CUDA graph is refused for; tests/virtual/cases.py captures and replays steps."""

import pytest
import torch

from collagan_dist.errors import ConfigError
from collagan_dist.models.step_graph import check_cuda_graph
from collagan_dist.types import World
from tests.training.small import small

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("world", "device", "engine", "reason"),
    [
        (World(), CPU, "ddp", "needs a CUDA device"),
        (World(size=2), GPU, "ddp", "the 2 ranks"),
        (World(), GPU, "deepspeed", "DeepSpeed"),
    ],
)
def test_what_cannot_be_captured_is_refused(shards, world, device, engine, reason):
    config = small(shards.folder, runtime={"cuda_graph": True, "engine": engine})
    with pytest.raises(ConfigError, match=f"runtime.cuda_graph: .*{reason}.*set it to false"):
        check_cuda_graph(config, world, device)


def test_one_gpu_captures(shards):
    check_cuda_graph(small(shards.folder, runtime={"cuda_graph": True}), World(), GPU)
