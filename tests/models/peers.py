"""CE, SII and GFC, small: their presets with narrow networks and 32x32 images."""

from importlib import resources
from typing import Any

import cv2
import numpy as np
import torch

from collagan_dist import rng
from collagan_dist.config import strict_yaml
from collagan_dist.config.tree import Config
from collagan_dist.data.loading import holes
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.distributed.engine import Engine
from collagan_dist.distributed.group import Group
from collagan_dist.models.networks import Networks
from collagan_dist.models.registry import build_networks, build_step
from collagan_dist.models.step import Step
from collagan_dist.tasks import build_tasks
from collagan_dist.types import Batch, World
from tests.training.small import small

PEERS = ("ce", "sii", "gfc")
CPU = torch.device("cpu")


def peer(manifest: Manifest, name: str, parser: object = None, **changes: Any) -> Config:
    """Return the preset `name`, small; keyword arguments as for `small`."""
    tree, _ = strict_yaml.load(resources.files("collagan_dist.presets").joinpath(f"{name}.yaml").read_text(), name)
    model = {**tree["model"], "widths": {"generator": 4, "discriminator": 4}, "ce": {"bottleneck": 16}}
    model["sii"] = {"z": 8}
    if name == "gfc":
        model["gfc"] = {**tree["model"]["gfc"], "parser": str(parser) if parser else None}
    search = {"hole": "block", "search": {"steps": 20, "lr": 0.05}}
    sections = {"model": model, "evaluate": {**tree.get("evaluate", {}), **(search if name == "sii" else {})}}
    sections |= {key: tree[key] for key in ("loss", "hole", "optim") if key in tree}
    sections["optim"] = {**sections["optim"], "ema": 0.9}
    return small(manifest.folder, **{**sections, **changes})


def train_parser(manifest: Manifest, size: int = 32) -> Config:
    """Return the configuration of a parsing network that learns nothing, so that its weights are equal on every machine."""
    model: dict[str, Any] = {
        "tasks": ["segmentation"],
        "concentrated": False,
        "widths": {"generator": 4, "discriminator": 4},
    }
    model["output_bias"] = "zero"
    still = {"generator": {"lr": 1e-12}, "discriminators": {"lr": 1e-12}}
    return small(
        manifest.folder, model=model, hole={"kind": "none"}, optim=still, schedule__steps=3, data__image_size=size
    )


def start(config: Config) -> tuple[Step, Networks]:
    """Return the step and networks of a run of 20 steps at its start."""
    engine, tasks = Engine(config.runtime, Group(World(), CPU)), build_tasks(config)
    networks = build_networks(config, engine, tasks)
    return build_step(config, engine, tasks, networks, 20), networks


def smooth(count: int, size: int, kind: str = "block", seed: int = 0) -> Batch:
    """Return a batch of smooth images that no decoder made: the same on every machine."""
    low = rng.uniforms(rng.key64(seed, np.arange(count)), 5 * 5 * 3).reshape(count, 5, 5, 3)
    pixels = np.stack([cv2.resize(x, (size, size), interpolation=cv2.INTER_LINEAR) for x in low])
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().mul(2).sub(1).contiguous()
    ids = np.arange(count)
    keys = torch.from_numpy(rng.sample_keys(seed, 0, ids))
    hole = holes.HOLES[kind](keys, size)
    filled = torch.where(hole, torch.zeros(()), image)
    return Batch(image, filled, hole, None, None, ids, np.zeros(count, np.int64), keys)


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


class StopAfter:
    """A stop request that comes true in the given step."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left <= 0


WORLD = World()
