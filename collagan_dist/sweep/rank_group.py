"""A segment on several ranks: rank 0 in Tune's own worker, each other rank as a Ray actor in the same placement group.

Tune has reserved the placement group for the trial, so all ranks are placed together or not at all. Ray Train inside a Tune trial
would reserve its workers a second time, invisible to Tune, and starts ten times as slowly (benchmarks/sweep_workers.py).
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from collagan_dist.distributed import addresses
from collagan_dist.errors import ClusterError
from collagan_dist.sweep.segment import Report, SegmentSpec, rank_variables, train_rank

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 30.0  # for the other ranks to end by themselves after the first error, for the sake of their messages


class RankActor:
    """A rank other than 0, as a Ray actor."""

    def node(self) -> str:
        import ray

        return ray.get_runtime_context().get_node_id()

    def train(self, spec: SegmentSpec, variables: dict[str, str]) -> int:
        return train_rank(spec, variables)


def train_on_ranks(spec: SegmentSpec, report: Report | None = None) -> int:
    """Train on `spec.workers` ranks, of which this process is rank 0; return the number of steps done in all."""
    if spec.workers == 1:
        return train_rank(spec, rank_variables(spec, rank=0, size=1, local_rank=0, local_size=1, node=0), report)
    import ray
    from ray.util import get_node_ip_address

    actors = _start_actors(spec.workers)
    try:
        here = ray.get_runtime_context().get_node_id()
        nodes = _nodes_of(actors, spec)
        # The rendezvous store is rank 0's, so its address and a free port are looked for here.
        rendezvous = {
            "MASTER_ADDR": get_node_ip_address(), "MASTER_PORT": str(addresses.free_port()), "COLLAGAN_RENDEZVOUS_SECRET": secrets.token_hex(32),
        }  # fmt: skip
        worlds = assign_ranks(here, nodes)
        running = [
            actor.train.remote(spec, {**rank_variables(spec, *world), **rendezvous})
            for actor, world in zip(actors, worlds[1:], strict=True)
        ]
        return _train_rank_0(spec, {**rank_variables(spec, *worlds[0]), **rendezvous}, running, report)
    except ray.exceptions.RayActorError as error:
        raise _rank_lost(spec, error) from None
    finally:
        # An actor that waits in a collective would not end by itself, and would keep its part of the placement group.
        for actor in actors:
            ray.kill(actor)


def _start_actors(workers: int) -> list[Any]:
    """Start an actor in every bundle of this trial's placement group but the first, which holds this process."""
    import ray
    from ray.util import get_current_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group: Any = get_current_placement_group()
    # Each actor takes its whole bundle, so that Ray shows it the GPUs that are reserved there.
    bundles = [dict(bundle) for bundle in group.bundle_specs]
    make: Any = ray.remote(RankActor)
    return [
        make.options(
            num_cpus=bundles[index].get("CPU", 0), num_gpus=bundles[index].get("GPU", 0),
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
        ).remote()
        for index in range(1, workers)
    ]  # fmt: skip


def _nodes_of(actors: list[Any], spec: SegmentSpec) -> list[str]:
    """Return the id of each actor's node, once all have started. Raises ClusterError if they do not in time."""
    import ray

    seconds = spec.config["runtime"]["rendezvous_timeout"]
    asked = [actor.node.remote() for actor in actors]
    try:
        return ray.get(asked, timeout=seconds)
    except ray.exceptions.GetTimeoutError:
        silent = len(ray.wait(asked, num_returns=len(asked), timeout=0)[1])
        raise ClusterError(
            f"{silent} of {spec.workers} ranks of trial {spec.name} did not start in {seconds} s (runtime.rendezvous_timeout)"
        ) from None


def _train_rank_0(spec: SegmentSpec, variables: dict[str, str], running: list[Any], report: Report | None) -> int:
    """Train as rank 0 beside the `running` other ranks. Of several errors, raise the one that caused the others."""
    import ray

    with _exit_when_rank_lost(running):
        own_error: Exception | None = None
        steps = 0
        try:
            steps = train_rank(spec, variables, report)
        except Exception as error:
            own_error = error
        done, _ = ray.wait(running, num_returns=len(running), timeout=_GRACE_SECONDS if own_error else None)
    errors = [own_error] if own_error else []
    for rank in done:
        try:
            ray.get(rank)
        except ray.exceptions.RayTaskError as error:
            errors.append(error.cause if isinstance(error.cause, Exception) else error)
        except ray.exceptions.RayActorError as error:
            errors.append(_rank_lost(spec, error))
    if errors:
        # A ClusterError mostly says that another rank has ended; that rank's own error is the cause.
        raise next((error for error in errors if not isinstance(error, ClusterError)), errors[0])
    return steps


def _rank_lost(spec: SegmentSpec, error: Exception) -> ClusterError:
    return ClusterError(f"a rank of trial {spec.name} is gone: {str(error).splitlines()[0]}")


@contextmanager
def _exit_when_rank_lost(running: list[Any]) -> Iterator[None]:
    """End this process if another rank is gone and rank 0 still waits for it after a grace period."""
    import ray

    over = threading.Event()

    def watch() -> None:
        left = list(running)
        while left and not over.wait(1):
            done, left = ray.wait(left, num_returns=1, timeout=0)
            for rank in done:
                try:
                    ray.get(rank)
                except ray.exceptions.RayActorError:
                    if not over.wait(_GRACE_SECONDS):
                        logger.error("a rank of this trial is gone; ending, to be started again")
                        # A collective that waits for a dead rank cannot be interrupted from Python.
                        os._exit(ClusterError.exit_code)
                except Exception:  # an error of training, which _train_rank_0 raises
                    return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def assign_ranks(here: str, nodes: list[str]) -> list[tuple[int, int, int, int, int]]:
    """Return (rank, world size, local rank, local world size, node rank) of this process and of each actor, in their order.

    `here` and `nodes` are node ids. This process becomes rank 0.
    """
    node_ids = list(dict.fromkeys([here, *nodes]))
    # Consecutive ranks on one node: NCCL's and Gloo's rings then cross between nodes least often.
    order = sorted(range(len(nodes)), key=lambda index: (node_ids.index(nodes[index]), index))
    by_rank = [here, *(nodes[index] for index in order)]
    worlds = []
    for rank, node in enumerate(by_rank):
        local = [other for other, node_id in enumerate(by_rank) if node_id == node]
        worlds.append((rank, len(by_rank), local.index(rank), len(local), node_ids.index(node)))
    return [worlds[0], *(worlds[1 + order.index(index)] for index in range(len(nodes)))]
