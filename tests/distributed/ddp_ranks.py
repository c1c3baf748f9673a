"""Run by test_ddp.py, alone and under torchrun: a GAN-like pair of networks trained by an engine; the parameters go to a file."""

from __future__ import annotations

import sys

import torch
from safetensors.torch import save_file
from torch import nn

from collagan_dist.config.tree import Adam, Runtime
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.distributed.world import detect_world


def main(out: str) -> None:
    world = detect_world()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    device = torch.device("cpu")
    group = Group(world, device, 60)
    engine = build_engine(Runtime(), group)
    g, d = engine.prepare_module(nn.Linear(6, 6).double()), engine.prepare_module(nn.Linear(6, 1).double())
    learn_g, learn_d = engine.learner(g, Adam(lr=1e-2)), engine.learner(d, Adam(lr=1e-2))
    for _ in range(4):
        x = torch.randn(8, 6, dtype=torch.float64).chunk(world.size)[world.rank]
        fake = learn_g(x)
        loss = learn_d(fake.detach()).square().mean() - learn_d(x).mean()
        with engine.update("d", [learn_d], 1e-2) as update:
            update.backward([loss])
        loss = -learn_d.call_frozen(fake).mean() + (fake - x).square().mean()
        with engine.update("g", [learn_g], 1e-2) as update:
            update.backward([loss])
    mean = group.all_reduce_mean(torch.tensor([float(world.rank)]))
    save_file(
        {f"{name}{k}": p.detach() for name, m in (("g", g), ("d", d)) for k, p in enumerate(m.parameters())},
        f"{out}.{world.rank}",
    )
    assert mean.item() == (world.size - 1) / 2
    group.close()


if __name__ == "__main__":
    main(sys.argv[1])
