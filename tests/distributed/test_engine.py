import pytest
import torch

from collagan_dist.config.tree import Adam, Runtime
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.errors import ConfigError
from collagan_dist.types import World


def test_ranks_without_an_engine_that_joins_them_are_refused():
    with pytest.raises(ConfigError, match=r"this run has 2; set runtime\.engine to ddp"):
        group = Group(World(), torch.device("cpu"))
        group.world = World(size=2)
        build_engine(Runtime(engine="plain"), group).learner(torch.nn.Linear(1, 1), Adam())
