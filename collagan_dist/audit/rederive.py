"""Trains a stretch of a run again, in a temporary run folder, with the run's own configuration and data."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from collagan_dist import rng
from collagan_dist.audit.ranks import HowToTrain
from collagan_dist.audit.record import Row, Stretch
from collagan_dist.config.load import to_yaml, validate_config
from collagan_dist.data.shards.quick_check import open_shards
from collagan_dist.errors import CheckpointError, ClusterError, ConfigError, DataError, NumericError
from collagan_dist.models.initial_weights import read_initial_weights
from collagan_dist.models.registry import build_networks
from collagan_dist.reproduce.child_process import collagan_command, run_command
from collagan_dist.runs import checkpoint
from collagan_dist.runs.checkpoint import LoadedCheckpoint
from collagan_dist.runs.checkpoint_state import parse_state
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.metrics_log import read_rows
from collagan_dist.setup import build_setup
from collagan_dist.training.loop import StartOptions, initialize, train
from collagan_dist.types import World

# What is moved by a rounding: the networks, and for evaluations the average. In training the average and Adam's moments follow.
_NETWORKS = ("generator", "discriminators")


@dataclass(frozen=True)
class Rederived:
    """A stretch that was trained again: its last checkpoint, and its train and eval lines.

    `first` is the checkpoint that it went on from, before that was nudged; None for the beginning.
    """

    end: LoadedCheckpoint
    rows: list[Row]
    first: LoadedCheckpoint | None


@dataclass(frozen=True)
class Rederivation:
    """A stretch to train again: `first` is its first checkpoint, None for the beginning; `last` the state at its end."""

    stretch: Stretch
    how: HowToTrain
    first: LoadedCheckpoint | None
    last: dict[str, Any]

    def train(self, work: Path, nudged: int | None = None) -> Rederived:
        """Train it in the folder `work`.

        `nudged` moves every weight by one rounding first, so that the difference shows what roundings grow to; it numbers the choice of
        directions. Raises CollaganError where the training fails.
        """
        if nudged is None:
            return self._run(work, self.first)
        first = self.first or self._beginning()
        return replace(self._run(work, nudge(first, nudged)), first=first)

    def _beginning(self) -> LoadedCheckpoint:
        """Return the state before the first step, as a checkpoint of step 0."""
        tree = copy.deepcopy(self.how.tree)
        tree["runtime"] |= {"engine": "plain", "zero_stage": 0}
        config = validate_config(tree, "the audit's configuration")
        setup = build_setup(config, World(), open_shards(config))
        networks = build_networks(config, setup.engine, setup.tasks)
        initial = None
        if config.model.init is not None:
            initial = read_initial_weights(config, networks.generator, networks.discriminators)
        initialize(setup, networks, initial)
        tensors = {
            file: {name: tensor.detach().cpu().contiguous() for name, tensor in content.items()}
            for file, content in networks.tensors().items()
        }
        state = self.last | {"step": 0, "samples": 0, "skipped_batches": [], "bad_row": []}
        return LoadedCheckpoint(Path("beginning"), tensors, state)

    def _run(self, work: Path, first: LoadedCheckpoint | None) -> Rederived:
        run = work / "run"
        paths = RunPaths(run)
        if first is not None:  # from the beginning a rollback comes by itself
            # A rollback between both checkpoints has left batches out, which the first one could not know.
            known = {key: self.last[key] for key in ("skipped_batches", "machine", "init", "parser")}
            if (machine := self.last["machine"]) and (threads := self.how.tree["runtime"]["threads"]):
                # A deterministic run takes the checkpoint's number of threads; here it takes the audit's.
                known["machine"] = {**machine, "threads": str(threads)}
            state = first.state | known
            checkpoint.save(paths.checkpoints, first.state["step"], first.tensors, state, keep=1)
        config = validate_config(self.how.tree, "the audit's configuration")
        if self.how.ranks == 1:
            with _quiet(work / "train.log"):
                train(config, run, World(), StartOptions(stop_at=self.stretch.end, allow_config_change=True))
        else:
            _train_ranks(self.how.ranks, work, to_yaml(config), self.stretch.end)
        end = checkpoint.load(paths.checkpoint(self.stretch.end))
        end = replace(end, state=parse_state(end.path, end.state))
        return Rederived(end, [row for row in read_rows(run) if row["kind"] in ("train", "eval")], first)


def _train_ranks(ranks: int, work: Path, config: str, stop_at: int) -> None:
    """Train by the ordinary command on several ranks of this machine. Raises the command's own error."""
    work.mkdir(parents=True, exist_ok=True)
    file = work / "config.yaml"
    file.write_text(config)
    arguments = ["train", str(file), "--out", str(work / "run"), "--stop-at", str(stop_at), "--allow-config-change"]
    command = ["env", f"TMPDIR={work}", *collagan_command(ranks), *arguments]  # torchrun leaves a folder there
    ended = run_command(command, work / "train.log", False, lambda line: None)
    if ended.code:
        kinds = {kind.exit_code: kind for kind in (ConfigError, DataError, CheckpointError, NumericError)}
        raise kinds.get(ended.error_code, ClusterError)(ended.reason)


@contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Send what the training says of its run folder to a file: it is no run of the user's."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file, redirect_stderr(file):
        yield


def nudge(found: LoadedCheckpoint, number: int, files: Sequence[str] = _NETWORKS) -> LoadedCheckpoint:
    """Return a checkpoint with each weight of some files moved to the next float32, up or down at random but alike for a `number`."""
    tensors = {
        file: {
            name: _nudged(f"{number} {name}", tensor) if file in files else tensor for name, tensor in content.items()
        }
        for file, content in found.tensors.items()
    }
    return replace(found, tensors=tensors)


def _nudged(key: str, tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor
    up = rng.uniforms(rng.key64("nudge", key), tensor.numel()).reshape(tuple(tensor.shape)) < 0.5
    moved = torch.nextafter(tensor, torch.from_numpy(np.where(up, np.inf, -np.inf)).to(tensor))
    # Variances may not fall below 0.
    return torch.where(tensor == 0, tensor, moved).contiguous()
