import pytest
import torch
from torch import nn

from collagan_dist.config.load import load_config
from collagan_dist.errors import ConfigError
from collagan_dist.models.registry import build_discriminators, build_generator, count_parameters, state_bytes
from collagan_dist.tasks import build_tasks
from tests.models.peers import PEERS, peer, smooth, start

# Losses of the last of 20 steps, with networks in float64: rounding of another machine must not grow into a difference.
# A change of these numbers is a change of what is learned: say in the commit why one is meant.
GOLDEN = {
    "ce": {"rec": 0.1829637, "adv": 0.8381967, "disc": 0.6436426},
    "sii": {"adv": 0.4339172, "disc": 0.8214791},
    "gfc": {
        "rec": 0.3537812, "adv_local": 0.69416, "disc_local": 0.6923915, "adv": 0.6931648, "disc": 0.6931463, "parsing": 2.3945723
    }
}  # fmt: skip


@pytest.mark.parametrize("name", PEERS)
def test_golden_losses(shards, parser, name):
    step, networks = start(peer(shards, name, parser))
    for network in (networks.generator, networks.discriminators, networks.ema):
        for layer in network.double().modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                layer.register_forward_pre_hook(lambda _, args: (args[0].double(),))
            elif isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()  # the parser's, which are of decoded pictures
    for number in range(20):
        values = step(smooth(8, 32, seed=number), number).values
    found = {key.removeprefix("loss/inpainting/"): float(v) for key, v in values.items() if key.startswith("loss/inp")}
    assert found == pytest.approx(GOLDEN[name], rel=1e-3)


@pytest.mark.parametrize("name", PEERS)
def test_bf16_agrees_with_fp32(shards, parser, name):
    found = []
    for precision, layout in (("fp32", False), ("bf16", True)):
        step, _ = start(peer(shards, name, parser, runtime__precision=precision, runtime__channels_last=layout))
        found.append(step(smooth(8, 32), 19).values)
    for key, value in found[0].items():
        if key.startswith("loss/"):
            assert found[1][key].dtype == torch.float32
            assert found[1][key].item() == pytest.approx(value.item(), rel=0.05, abs=2e-3), key


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_over_any_configuration(name):
    """Its own losses, rates, kind of holes and, if its preset names one, fill; length, batch and widths of the configuration."""
    own, over, demo = load_config(name), load_config("demo", name.upper()), load_config("demo")
    assert over.model.widths.generator == 24 and over.schedule == demo.schedule
    assert over.loss == own.loss and over.optim == own.optim and over.hole.kind == own.hole.kind
    assert over.hole.fill == {"ce": "mean"}.get(name, demo.hole.fill) and demo.hole.fill == "smooth"
    assert over.evaluate.search == own.evaluate.search and over.model.gfc == own.model.gfc
    assert load_config("stable", name.upper()).data.image_size == (64 if name == "sii" else 128)
    with pytest.raises(ConfigError, match="has the one task inpainting"):
        load_config(name, sets=["model.tasks=[segmentation]", "loss.weights={}"])
    with pytest.raises(ConfigError, match=f"{name} starts as its code does; set it to zero"):
        load_config(name, sets=["model.output_bias=mean"])


@pytest.mark.parametrize("name", ["demo", "ce", "sii", "gfc"])
def test_parameters_are_counted_without_memory(name):
    """As many as the networks have; state is float32 parameters, gradients and two moments."""
    config = load_config(
        name,
        sets=[
            "model.widths.generator=4",
            "model.widths.discriminator=4",
            "model.ce.bottleneck=8",
            "model.gfc.parsing=0",
        ],
    )
    tasks = build_tasks(config)
    counted = count_parameters(config)
    built = [
        sum(p.numel() for p in build(config, tasks).parameters()) for build in (build_generator, build_discriminators)
    ]
    assert [counted["generator"], sum(counted.values()) - counted["generator"]] == built
    names = {"demo": [f"{task} discriminator" for task in tasks], "gfc": ["local discriminator", "whole discriminator"]}
    assert list(counted)[1:] == names.get(name, ["discriminator"])
    average = 4 * built[0] * (name == "demo")
    assert state_bytes(config, counted) == 16 * sum(built) + average
