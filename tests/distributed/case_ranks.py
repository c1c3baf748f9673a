"""Run by test_deepspeed.py under torchrun, or alone: trains in several ways, one after the other in one process group.

For each case rank 0 writes the losses of its steps and the tensors of its checkpoint.
"""

import json
import os
import sys
from pathlib import Path

from safetensors.torch import save_file

from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.distributed.world import detect_world
from collagan_dist.models.networks import Networks
from collagan_dist.models.registry import build_networks
from collagan_dist.setup import build_setup
from tests.distributed.cases import STEPS, WITH_REFERENCES, Case
from tests.distributed.scenarios import SCENARIOS
from tests.distributed.train_cases import flat, learn, settings, with_engine


def scale_twice(networks: Networks) -> None:
    """One rank's loss is a mean over twice the samples: so its float16 gradients are as large as those of two ranks, and as many overflow."""
    for learner in (networks.generator_learner, *networks.discriminator_learners.values()):
        if learner.scale is not None:
            learner.scale.value *= 2


def main(shards: str, out: str, steps: str, *names: str) -> None:
    known = {case.name: case for case in WITH_REFERENCES}
    world, environment = detect_world(), dict(os.environ)
    setup = build_setup(settings(Path(shards), Case("ddp")), world, read_manifest(Path(shards)))
    for name in names:
        if name in SCENARIOS:
            outcome = SCENARIOS[name](setup, Path(out))
            if world.is_rank0:
                Path(out, f"{name}-{world.size}.json").write_text(json.dumps(outcome))
            continue
        config = settings(Path(shards), known[name])
        setup = with_engine(setup, config)
        networks = build_networks(config, setup.engine, setup.tasks)
        if known[name].engine == "plain":
            scale_twice(networks)
        # In fp16 the first steps only find the size of the loss scale.
        found = learn(setup, networks, range(STEPS if config.runtime.precision == "fp16" else int(steps)))
        tensors = flat(networks)
        if world.is_rank0:
            Path(out, f"{name}.json").write_text(json.dumps(found))
            save_file({k: v.contiguous() for k, v in tensors.items()}, Path(out, f"{name}.safetensors"))
    changed = {name for name, _ in set(os.environ.items()) ^ set(environment.items())}
    assert all(name.startswith(("TORCHINDUCTOR", "TORCH_FR")) for name in changed), (
        changed
    )  # torch itself, and our wish for records
    setup.group.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
