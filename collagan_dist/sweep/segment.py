"""One rank's part of a segment: `train()` in a Ray worker process, with the environment and the log of the segment."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collagan_dist.config.tree import Config
from collagan_dist.distributed.stop_request import StopRequest
from collagan_dist.errors import ClusterError
from collagan_dist.log import log_to_stderr
from collagan_dist.runs.layout import RunPaths

_POLL_SECONDS = 1.0  # between looks for the stop file


@dataclass(frozen=True)
class SegmentSpec:
    """What a worker needs to train a segment; plain data, since it travels between nodes.

    `stop` is the file whose presence asks to save and end; `stop_at_step` None is the end of the run.
    """

    name: str
    run: str
    config: dict[str, Any]
    stop_at_step: int | None
    workers: int
    gpus: bool
    allow_change: bool
    stop: str


class StopFile(StopRequest):
    """True once the stop file exists: it reaches every node without a message to each worker."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path, self._polled_at = path, 0.0

    def __bool__(self) -> bool:
        now = time.monotonic()
        if not self._requested and now - self._polled_at >= _POLL_SECONDS:
            # Listed, not stat'ed: network file systems cache for long that a file does not exist, but list a folder anew.
            self._polled_at, self._requested = now, self._path in self._path.parent.iterdir()
        return self._requested


Report = Callable[[int, dict[str, Any]], bool]  # StartOptions.report of training/loop.py


def train_rank(spec: SegmentSpec, variables: Mapping[str, str], report: Report | None = None) -> int:
    """Train as the rank that the variables describe; return the number of steps done in all. Rank 0 may `report`.

    Raises ClusterError where the segment was given GPUs and CUDA finds none.
    """
    # Imported here: the driver uses SegmentSpec, and needs no torch.
    from collagan_dist.config.load import validate_config
    from collagan_dist.distributed.world import detect_world
    from collagan_dist.training.loop import StartOptions, train

    if spec.gpus:
        _check_cuda()
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides no GPU from a worker that asked for none
    config = validate_config(spec.config, f"trial {spec.name}")
    with _environment(variables), _log_file(Path(spec.run), int(variables["RANK"])):
        stop = StopFile(Path(spec.stop))
        command = "tune.Tuner.restore" if report else "the same `collagan sweep`"
        options = StartOptions(stop, command, spec.allow_change, stop_at=spec.stop_at_step, report=report)
        return train(config, Path(spec.run), detect_world(), options)


def _check_cuda() -> None:
    import torch

    # Training would take the CPU without a word, and hours for minutes.
    if not torch.cuda.is_available():
        raise ClusterError(
            f"a GPU of {socket.gethostname()} was given to this trial, and CUDA finds none there: look at nvidia-smi and "
            "`collagan doctor` on it, or train on CPUs (--gpus 0)"
        )


def worker_settings(config: Config, cpus: float) -> dict[str, Any]:
    """Return the keys of a configuration that a Ray worker needs otherwise: absolute paths, and threads for its CPUs."""
    # Left to themselves, torch and the data pipeline of each trial would take all CPUs of the node.
    threads = max(1, int(cpus))
    return {
        **absolute_paths(config, Path.cwd()),
        **{f"{part}.threads": threads for part in ("runtime", "data") if not getattr(config, part).threads},
    }


def absolute_paths(config: Config, folder: Path) -> dict[str, str]:
    """Return the keys of a configuration that name something on a disk, with their paths as seen from a folder."""
    # Trials run in other folders, on other nodes.
    paths = {
        "data.shards": config.data.shards, "model.gfc.parser": config.model.gfc.parser, "model.init": config.model.init,
        "evaluate.features": config.evaluate.features,
    }  # fmt: skip
    return {key: str(folder / path) for key, path in paths.items() if path and "://" not in path}


def rank_variables(
    spec: SegmentSpec, rank: int, size: int, local_rank: int, local_size: int, node: int
) -> dict[str, str]:
    """Return the environment by which distributed/world.py recognises a rank of a trial."""
    return {
        "COLLAGAN_RAY_TRIAL": spec.name, "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(local_size), "NODE_RANK": str(node),
    }  # fmt: skip


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set the variables for the duration of a segment."""
    # Tune reuses the process: another trial must not find itself with the rank of this one.
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
def _log_file(run: Path, rank: int) -> Iterator[None]:
    """Send what rank 0 prints and logs to the trial's logs/train.txt."""
    log_to_stderr()  # a Ray worker starts with no handler of ours
    if rank:
        yield
        return
    path = RunPaths(run).train_log
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        yield
