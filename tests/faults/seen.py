"""Run by test_checkpoints.py, alone or under torchrun: trains, and writes down which samples each rank met at each step."""

import json
import sys
from pathlib import Path
from typing import Any

from collagan_dist.config.load import load_config
from collagan_dist.distributed.world import detect_world
from collagan_dist.training import loop


def main(config: str, run: str, steps: str, out: str) -> None:
    world = detect_world()
    build, seen = loop.build_step, []

    def build_step(*args: Any) -> Any:
        step = build(*args)
        call = type(step).__call__

        class Seen(type(step)):  # type: ignore[misc]
            def __call__(self, batch: Any, number: int) -> Any:
                seen.append([number, batch.epoch_B.tolist(), batch.ids_B.tolist()])
                return call(self, batch, number)

        step.__class__ = Seen
        return step

    loop.build_step = build_step
    loop.train(load_config(config, sets=[f"schedule.steps={steps}"]), Path(run), world)
    Path(f"{out}-{world.rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
