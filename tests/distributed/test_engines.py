import pytest
import torch

from collagan_dist.config.tree import Runtime
from collagan_dist.distributed.ddp import DDPEngine
from collagan_dist.distributed.deepspeed import DeepSpeedEngine
from collagan_dist.distributed.engine import Engine
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.types import World


@pytest.mark.parametrize(
    ("name", "ranks", "expected"),
    [("plain", 1, Engine), ("ddp", 1, Engine), ("ddp", 2, DDPEngine), ("deepspeed", 1, DeepSpeedEngine), ("deepspeed", 2, DeepSpeedEngine)]
)  # fmt: skip
def test_engine_of_a_configuration(name, ranks, expected):
    group = Group(World(), torch.device("cpu"))
    group.world = World(size=ranks)  # without the other ranks' processes: to build an engine needs none
    assert type(build_engine(Runtime(engine=name), group)) is expected
