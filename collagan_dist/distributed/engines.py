"""Which engine a run trains with: plain, DDP or DeepSpeed."""

from __future__ import annotations

from collagan_dist.config.tree import Runtime
from collagan_dist.distributed.ddp import DDPEngine
from collagan_dist.distributed.engine import Engine
from collagan_dist.distributed.group import Group


def build_engine(runtime: Runtime, group: Group) -> Engine:
    """Return the configured engine. A single process has nothing to average, so DDP on one rank is the plain engine."""
    if runtime.engine == "deepspeed":
        # DeepSpeed is an extra that may be missing, and its module is not needed otherwise.
        from collagan_dist.distributed.deepspeed import DeepSpeedEngine

        return DeepSpeedEngine(runtime, group)
    return (DDPEngine if runtime.engine == "ddp" and group.world.size > 1 else Engine)(runtime, group)
