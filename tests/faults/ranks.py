"""Run by test_ranks.py under torchrun: reads as training does, rank by rank in step; rank 0 writes who saw what."""

import json
import sys
from pathlib import Path

import torch

from collagan_dist.config.load import load_config
from collagan_dist.distributed.world import detect_world
from collagan_dist.setup import build_setup, open_shards, training_order


def main(config_file: str, steps: str, out: str) -> None:
    config, world = load_config(config_file), detect_world()
    setup = build_setup(config, world, open_shards(config))
    loader = setup.loader("train", setup.view(training=True), config.schedule.batch // world.size)
    order = training_order(config, setup.manifest)
    seen = []
    for batch in loader.batches(order.step(step, world) for step in range(int(steps))):
        setup.group.all_reduce_mean(torch.ones(1))  # hangs where a rank has fewer steps
        seen += [[int(e), int(i)] for e, i in zip(batch.epoch_B, batch.ids_B, strict=True)]
    everybody = setup.group.all_gather(seen)
    if world.is_rank0:
        Path(out).write_text(json.dumps(everybody))
    setup.group.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
