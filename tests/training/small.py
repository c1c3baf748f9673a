"""A training small enough for tests: narrow networks, 32x32 pictures, few steps."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from collagan_dist.config.load import validate_config
from collagan_dist.config.tree import Config

SMALL: dict[str, Any] = {
    "model": {"widths": {"generator": 4, "discriminator": 4}},
    "data": {"image_size": 32, "threads": 1},
    "schedule": {"steps": 7, "batch": 4},
    "optim": {"ema": 0.9},
    "runtime": {"threads": 1},
    "checkpoint": {"every": 100, "keep": 5},
    "log": {"every": 2, "grid_every": 100},
}


def small(shards: Path, **changes: Any) -> Config:
    tree = {key: dict(value) for key, value in SMALL.items()}
    tree["data"]["shards"] = str(shards)
    for path, value in changes.items():
        section, _, key = path.partition("__")
        tree.setdefault(section, {})
        if key:
            tree[section][key] = value
        else:
            tree[section] = value
    return validate_config(tree, "test")


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints" / f"step-{step:08d}"
    return {f"{p.stem}/{name}": t for p in sorted(folder.glob("*.safetensors")) for name, t in load_file(p).items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
