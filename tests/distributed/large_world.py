"""Rank 1,023 of 1,024, alone, on torch's fake process group: run as a script, it prints what it found as JSON.

The fake group answers every collective at once, with this rank's own values. So nothing is exchanged, but everything that a rank does in
a large world runs: its share of the order, DDP, verdicts, checkpoints of its state.
"""

import json
import resource
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.distributed import ddp, group
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.models.registry import build_networks, build_step
from collagan_dist.setup import Setup, training_order
from collagan_dist.tasks import build_tasks
from collagan_dist.types import World
from tests.training.small import small

RANK, SIZE = 1023, 1024


class HookedDDP(ddp.DDP):
    """DDP whose reduction is done at once: the fake group's own does not come back to C++."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.register_comm_hook(None, reduced)


def reduced(state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


def main(shards: str) -> None:
    world = World(rank=RANK, size=SIZE, local_rank=RANK % 8, local_size=8)
    dist.init_process_group("fake", store=FakeStore(), rank=RANK, world_size=SIZE)
    Group._init_process_group = lambda self, timeout: None  # type: ignore[method-assign]
    group.HangDetector = lambda *_: None  # type: ignore[assignment,misc]
    ddp.DDP = HookedDDP  # type: ignore[misc]
    config = small(Path(shards), schedule__batch=2 * SIZE, runtime__engine="ddp")
    device = torch.device("cpu")
    joined = Group(world, device)
    engine, tasks = build_engine(config.runtime, joined), build_tasks(config)
    setup = Setup(config, world, device, joined, engine, read_manifest(Path(shards)), tasks)
    order = training_order(config, setup.manifest)
    mine = [order.step(number, world) for number in range(2)]
    whole = [order.step(number, World()) for number in range(2)]
    networks = build_networks(config, engine, tasks)
    step = build_step(config, engine, tasks, networks, 100)
    before = {name: p.clone() for name, p in networks.generator.named_parameters()}
    loader = setup.loader("train", setup.view(training=True), 2)
    finite = [step(batch, number).verdict.read().finite for number, batch in enumerate(loader.batches(iter(mine)))]
    found = {
        "share": [bool((own[0] == all_[0][2 * RANK :]).all()) for own, all_ in zip(mine, whole, strict=True)],
        "finite": finite,
        "moved": all(not torch.equal(p, before[name]) for name, p in networks.generator.named_parameters()),
        "tensors": len(networks.tensors()),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "ids": int(np.concatenate([ids for ids, _ in mine]).size),
    }
    print("FOUND" + json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
