"""With what is computed again: the configuration for another number of ranks, up to the order of sums, and why bits may differ."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from collagan_dist.config.load import differences
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.distributed import versions
from collagan_dist.types import MAX_WORKERS

_NEVER = 10**9  # as checkpoint.every: the last step of a stretch is always saved


class NotComparable(Exception):
    """What was recorded does not determine what a computation here should give; the text says why."""


@dataclass(frozen=True)
class Resources:
    """With what a run is audited: its data set, numbers of ranks, threads (None: the recorded number), a folder for temporary runs."""

    manifest: Manifest
    ranks: Sequence[int]
    threads: int | None
    work: Path

    def set_in(self, tree: dict[str, Any], machine: Mapping[str, Any]) -> None:
        """Put the data set and the number of threads into a plain configuration; `machine` is the recorded one."""
        tree["data"]["shards"] = str(self.manifest.folder)
        threads = str(self.threads or machine.get("threads", ""))
        if threads.isdigit() and int(threads) <= MAX_WORKERS:
            tree["runtime"]["threads"] = int(threads)


def machine_reasons(then: Mapping[str, Any], here: Mapping[str, Any], precision: str) -> Iterator[str]:
    """Yield why bits need not be equal: the machine here is not the recorded one, or gives no promise."""
    yield from differences(dict(then), {key: value for key, value in here.items() if key in then})
    # Older versions did not record all of it.
    yield from (f"{key}: not recorded" for key in here if then and key not in then)
    if precision != "fp32":
        yield f"precision: {precision}"
    if torch.cuda.is_available():
        yield "a GPU computes"


@dataclass(frozen=True)
class HowToTrain:
    """A plain configuration for a number of ranks.

    `statistics` is whether running statistics are those of the same samples as the run's; `changed` says what computes
    in another way than the run did.
    """

    tree: dict[str, Any]
    ranks: int
    statistics: bool
    changed: tuple[str, ...]


def how_to_train(stored: dict[str, Any], recorded: int, ranks: int) -> HowToTrain:
    """Return how `ranks` ranks here do what `recorded` ranks did by the configuration `stored`. Raises NotComparable."""
    tree = copy.deepcopy(stored)
    runtime = tree["runtime"]
    changed: list[str] = []
    statistics = _share_batches(runtime, recorded, ranks, changed)
    if runtime["engine"] == "deepspeed" and (ranks != recorded or not versions.library_version("deepspeed")):
        changed.append("engine: deepspeed -> ddp")
        runtime |= {"engine": "ddp", "zero_stage": 0}
    if runtime["engine"] == "plain" and ranks > 1:
        runtime["engine"] = "ddp"
    if runtime["cuda_graph"] and (ranks > 1 or not torch.cuda.is_available()):
        changed.append("cuda_graph: true -> false")
        runtime["cuda_graph"] = False
    # What follows changes no number of the training.
    runtime |= {"straggler": 0.0, "fail_on_straggler": False}
    tree["data"] |= {"keep": "none"}
    tree["log"] |= {"sinks": [], "grid_every": _NEVER}
    # The place of the run's own copies must neither get the audit's checkpoints nor give it the run's.
    tree["checkpoint"] |= {"every": _NEVER, "keep": 1, "copy_to": None}
    return HowToTrain(tree, ranks, statistics, tuple(changed))


def _share_batches(runtime: dict[str, Any], recorded: int, ranks: int, changed: list[str]) -> bool:
    """Let batch normalization see the same samples together as it did; return whether rank 0's running statistics are equal, too."""
    parts = recorded * runtime["accumulate"]
    if ranks == recorded or (runtime["sync_bn"] and runtime["accumulate"] == 1):
        return True
    # Parts of a batch on fewer ranks learn what more ranks do; but rank 0 alone keeps statistics, which were of its own share.
    if not runtime["sync_bn"] and parts % ranks == 0:
        changed.append(f"accumulate: {runtime['accumulate']} -> {parts // ranks}")
        runtime["accumulate"] = parts // ranks
        return False
    if not runtime["sync_bn"] and parts == 1 and runtime["compile"] != "step":
        changed.append("sync_bn: false -> true")
        runtime["sync_bn"] = True
        return True
    raise NotComparable(
        f"batch normalization saw {parts} parts of a batch apart, which {ranks} ranks cannot share (runtime.accumulate, sync_bn)"
    )
