"""`runtime.compile: step`: three graphs that learn what the step learns that is not compiled."""

from typing import Any

import numpy as np
import pytest
import torch

from collagan_dist.config.tree import Config
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.errors import ConfigError
from collagan_dist.setup import Setup
from tests.models.peers import PEERS, peer, start
from tests.training.one_rank import setup
from tests.training.small import small

STEPS = 4
WAYS: dict[str, dict[str, Any]] = {
    "collagan": {},
    "accumulate": {"runtime": {"accumulate": 2, "threads": 1}},
    "bf16": {"runtime": {"precision": "bf16", "channels_last": True, "threads": 1}},
    "fp16": {"runtime": {"precision": "fp16", "threads": 1}},
    "shared": {"model": {"widths": {"generator": 4, "discriminator": 4}, "discriminators": "shared"}},
    "smooth": {"hole": {"kind": "pattern", "fill": "smooth"}},
    "ce": {},
    "sii": {},
    "gfc": {},
}


def config_of(way: str, shards: Manifest, **runtime: object) -> Config:
    changes = {**WAYS[way], "schedule__adv_from": 2}
    config = peer(shards, way, **changes) if way in PEERS else small(shards.folder, **changes)
    if way == "gfc":  # of 20 steps: each stage within the first 4
        config = changed(config, "model.gfc", parsing=0.0, stages=(0.05, 0.15))
    return changed(config, "runtime", **runtime)


def changed(section: Any, path: str, **changes: object) -> Any:
    """The section with other values where `path` leads."""
    name, _, rest = path.partition(".")
    inner = getattr(section, name)
    return section.model_copy(
        update={name: changed(inner, rest, **changes) if rest else inner.model_copy(update=changes)}
    )


def learned(part: Setup, config: Config) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The values of a few steps, and the networks after them."""
    step, networks = start(config)
    loader = part.loader("train", part.view(training=True), 4)
    batches = loader.batches(iter([(np.arange(n, n + 4), np.zeros(4, np.int64)) for n in range(0, 4 * STEPS, 4)]))
    values = [{n: float(v) for n, v in step(b, number).values.items()} for number, b in enumerate(batches)]
    return values, {**networks.generator.state_dict(), **networks.discriminators.state_dict()}


def compare(shards: Manifest, way: str) -> None:
    part = setup(shards, hole__kind="block")
    (values, networks), (compiled, compiled_networks) = (
        learned(part, config_of(way, shards, compile=compile_)) for compile_ in (False, "step")
    )
    for one, other in zip(values, compiled, strict=True):
        losses = {name: value for name, value in one.items() if name.startswith("loss/")}
        assert {name: other[name] for name in losses} == pytest.approx(losses, rel=1e-3)
    assert networks.keys() == compiled_networks.keys()
    for name, value in networks.items():
        if "running" in name:
            assert torch.allclose(value, compiled_networks[name], rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize("way", WAYS)
def test_three_graphs_learn_the_same(shards, way, monkeypatch):
    """Without the last part of the compiler, which writes C++ and takes a minute: test_the_whole_compiler has it."""
    made = []
    compile_ = torch.compile

    def without_codegen(function: Any, **options: Any) -> Any:
        made.append(function.__name__)
        return compile_(function, backend="aot_eager", **options)

    monkeypatch.setattr(torch, "compile", without_codegen)
    torch._dynamo.reset()
    compare(shards, way)
    assert made == ["generate", "discriminator_loss", "generator_loss"]


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("way", ["collagan", "bf16"])
def test_the_whole_compiler(shards, way):
    torch._dynamo.reset()
    compare(shards, way)


@pytest.mark.parametrize(("key", "value"), [("engine", "deepspeed"), ("sync_bn", True)])
def test_what_cannot_be_compiled_whole_is_refused(shards, key, value):
    with pytest.raises(ConfigError, match=f"compile: step.*set {key} to"):
        small(shards.folder, runtime={"compile": "step", key: value})
