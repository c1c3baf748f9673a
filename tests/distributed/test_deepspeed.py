import importlib.util

import pytest
import torch

from collagan_dist.config.tree import Adam, Runtime
from collagan_dist.distributed import deepspeed
from collagan_dist.distributed.group import Group
from collagan_dist.errors import ConfigError
from collagan_dist.types import World


def test_a_missing_installation_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    engine = deepspeed.DeepSpeedEngine(Runtime(engine="deepspeed"), Group(World(), torch.device("cpu")))
    with pytest.raises(ConfigError, match=r"pip install 'collagan_dist\[deepspeed\]'"):
        engine.learner(torch.nn.Linear(1, 1), Adam())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_settings_that_would_differ_from_ours_are_off(precision):
    config = deepspeed.deepspeed_config(Runtime(engine="deepspeed", zero_stage=2, precision=precision), 100)
    assert config["gradient_clipping"] == 0 and config["gradient_accumulation_steps"] == 1
    assert not {"fp16", "bf16"} & set(config)  # its own scaling and its own low precision
    assert config.get("torch_autocast", {}).get("lower_precision_safe_modules", []) == []
    assert ("torch_autocast" in config) == (precision != "fp32")
