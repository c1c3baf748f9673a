"""A segment of a trial, where Ray has placed it: `train()` on one rank in this process, or on several, each an actor of its own.

All ranks lie in the one placement group that Tune reserved for the trial: they are placed together or not at all, and Tune knows
all that a trial takes. (Ray Train inside a Tune trial reserves its workers a second time, out of Tune's sight, and takes ten times as
long to begin: benchmarks/sweep_workers.py.)
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collagan_dist.distributed.stop_request import StopRequest
from collagan_dist.errors import ClusterError, CollaganError, DataError, Interrupted
from collagan_dist.log import log_to_stderr
from collagan_dist.runs.layout import RunPaths

_LOOK = 1.0  # seconds between looks at the mark that asks to stop
_OTHERS = 30.0  # seconds for the other ranks to end after rank 0's error, for their words
WORKER_TAINTED = "its process met an error in another trial"
_worker_tainted = False  # whether this process has met an error that may have left something behind


@dataclass(frozen=True)
class SegmentSpec:
    """What a segment is to do; plain data, since it travels. `until` is in steps, `stop` the file that asks to save and end."""

    name: str
    run: str
    config: dict[str, Any]
    until: int
    workers: int
    gpus: bool
    allow_change: bool
    stop: str


class StopFile(StopRequest):
    """True once the sweep's driver has left its mark: the one word that reaches every node without a round."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self._mark, self._looked = mark, 0.0

    def __bool__(self) -> bool:
        now = time.monotonic()
        if not self._asked and now - self._looked >= _LOOK:
            # A folder is listed anew on network storage, which remembers for long that a file was not there.
            self._looked, self._asked = now, self._mark in self._mark.parent.iterdir()
        return self._asked


def segment(config: dict[str, Any]) -> None:
    """The function that Tune runs. It raises what another try elsewhere may mend, and reports all else."""
    from ray import tune

    if _worker_tainted:
        raise ClusterError(WORKER_TAINTED)
    tune.report(perform(SegmentSpec(**config["work"])))


def perform(work: SegmentSpec) -> dict[str, Any]:
    """Train on all ranks; {"steps"}, {"interrupted"} or {"failed": [exit code, reason]}. Raises ClusterError."""
    try:
        return {"steps": _alone(work) if work.workers == 1 else _together(work)}
    except Interrupted:
        return {"interrupted": True}
    except ClusterError:
        raise
    except CollaganError as error:
        return {"failed": [error.exit_code, str(error)]}
    except OSError as error:  # a disk, a mount
        return {"failed": [DataError.exit_code, f"{error.filename or work.run}: {error.strerror or error}"]}
    except Exception as error:  # memory, CUDA, our own mistakes
        return _unexpected(work, error)
    finally:
        _let_go()


def _unexpected(work: SegmentSpec, error: Exception) -> dict[str, Any]:
    """The same again elsewhere, as a rule, but not what CUDA says of its device. This process is not trusted with another trial."""
    global _worker_tainted
    _worker_tainted = True
    paths = RunPaths(Path(work.run))
    paths.logs.mkdir(parents=True, exist_ok=True)
    with paths.train_log.open("a") as log:
        traceback.print_exception(error, file=log)
    text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if "CUDA error" in str(error):
        raise ClusterError(f"on {socket.gethostname()}: {text}") from None
    return {"failed": [CollaganError.exit_code, text]}


def _let_go() -> None:
    """Give memory back before the next trial, or who shares the GPU, wants it."""
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def train_rank(work: SegmentSpec, variables: Mapping[str, str]) -> int:
    """`train()` as the rank that the variables name; the number of steps done in all."""
    from collagan_dist.config.load import validate_config
    from collagan_dist.distributed.world import detect_world
    from collagan_dist.training.loop import train

    if not work.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides nothing from who asked for none
    config = validate_config(work.config, f"trial {work.name}")
    with _environment(variables), _log(Path(work.run), int(variables["RANK"])):
        return train(
            config, Path(work.run), detect_world(), StopFile(Path(work.stop)), "the same `collagan sweep`", work.allow_change,
            until=work.until,
        )  # fmt: skip


def _alone(work: SegmentSpec) -> int:
    return train_rank(work, _variables(work, rank=0, size=1, local_rank=0, local_size=1, node=0))


class Rank:
    """Another rank of a trial, as an actor in its placement group."""

    def node(self) -> str:
        import ray

        return ray.get_runtime_context().get_node_id()

    def train(self, work: SegmentSpec, variables: dict[str, str]) -> int:
        return train_rank(work, variables)


def _together(work: SegmentSpec) -> int:
    """Rank 0 here, the others in the other bundles of the placement group, numbered node by node."""
    import ray
    from ray.util import get_current_placement_group, get_node_ip_address
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group: Any = get_current_placement_group()
    resources = [dict(bundle) for bundle in group.bundle_specs]
    make: Any = ray.remote(Rank)
    actors = [
        make.options(
            num_cpus=resources[index].get("CPU", 0), num_gpus=resources[index].get("GPU", 0),
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
        ).remote()
        for index in range(1, work.workers)
    ]  # fmt: skip
    try:
        here = ray.get_runtime_context().get_node_id()
        places = ray.get([actor.node.remote() for actor in actors])
        meeting = {"MASTER_ADDR": get_node_ip_address(), "MASTER_PORT": str(_free_port())}
        worlds = _worlds(here, places)
        running = [
            actor.train.remote(work, {**_variables(work, *world), **meeting})
            for actor, world in zip(actors, worlds[1:], strict=True)
        ]
        return _first_rank(work, {**_variables(work, *worlds[0]), **meeting}, running)
    except ray.exceptions.RayActorError as error:
        raise ClusterError(f"a rank of trial {work.name} is gone: {str(error).splitlines()[0]}") from None
    finally:
        for actor in actors:
            ray.kill(actor)


def _first_rank(work: SegmentSpec, variables: dict[str, str], running: list[Any]) -> int:
    """Train as rank 0; of several errors, the one that is not about the others."""
    import ray

    with _left_alone(running):
        mine: Exception | None = None
        steps = 0
        try:
            steps = train_rank(work, variables)
        except Exception as error:
            mine = error
        done, _ = ray.wait(running, num_returns=len(running), timeout=_OTHERS if mine else None)
    errors = [mine] if mine else []
    for one in done:
        try:
            ray.get(one)
        except ray.exceptions.RayTaskError as error:
            errors.append(error.cause if isinstance(error.cause, Exception) else error)
        except ray.exceptions.RayActorError as error:
            errors.append(ClusterError(f"a rank of trial {work.name} is gone: {str(error).splitlines()[0]}"))
    if errors:
        raise next((error for error in errors if not isinstance(error, ClusterError)), errors[0])
    return steps


@contextmanager
def _left_alone(running: list[Any]) -> Iterator[None]:
    """End this process when a rank's node is gone and this one still waits for it: a wait for a dead rank cannot be broken off."""
    import threading

    import ray

    over = threading.Event()

    def watch() -> None:
        left = list(running)
        while left and not over.wait(1):
            done, left = ray.wait(left, num_returns=1, timeout=0)
            for one in done:
                try:
                    ray.get(one)
                except ray.exceptions.RayActorError:
                    if not over.wait(_OTHERS):
                        print("a rank of this trial is gone; ending, to be started again", file=sys.stderr, flush=True)
                        os._exit(ClusterError.exit_code)
                except Exception:  # said by _first_rank
                    return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _worlds(here: str, places: list[str]) -> list[tuple[int, int, int, int, int]]:
    """(rank, size, local rank, ranks of its node, node) of rank 0 on node `here` and of the others on `places`, in their order.

    Ranks of a node have consecutive numbers, which is what rings and trees between nodes like.
    """
    nodes = list(dict.fromkeys([here, *places]))
    order = sorted(range(len(places)), key=lambda index: (nodes.index(places[index]), index))
    ranks = {index: rank for rank, index in enumerate(order, 1)}
    everywhere = [here, *(places[index] for index in order)]
    worlds = {}
    for rank, node in enumerate(everywhere):
        mates = [other for other, place in enumerate(everywhere) if place == node]
        worlds[rank] = (rank, len(everywhere), mates.index(rank), len(mates), nodes.index(node))
    return [worlds[0], *(worlds[ranks[index]] for index in range(len(places)))]


def _variables(work: SegmentSpec, rank: int, size: int, local_rank: int, local_size: int, node: int) -> dict[str, str]:
    """What distributed/world.py reads of a Ray trial."""
    return {
        "COLLAGAN_RAY_TRIAL": work.name, "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(local_size), "NODE_RANK": str(node),
    }  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The variables, as long as the segment lasts: Tune may use this process for another trial afterwards."""
    former = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _log(run: Path, rank: int) -> Iterator[None]:
    """What training says goes into the trial's own folder."""
    log_to_stderr()  # a worker of Ray has not passed commands/main.py
    if rank:
        yield
        return
    paths = RunPaths(run)
    paths.logs.mkdir(parents=True, exist_ok=True)
    with paths.train_log.open("a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        yield
