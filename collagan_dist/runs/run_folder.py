"""The run folder: what a start finds there and what it leaves. It is the interface to evaluate, sweep and report."""

from __future__ import annotations

import json
import os
import platform
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from collagan_dist import __version__, files
from collagan_dist.config.load import config_to_dict, identity_keys, load_config, to_yaml
from collagan_dist.config.tree import Config
from collagan_dist.distributed.world import job_id, restart_counts, start_label
from collagan_dist.errors import CheckpointError, ConfigError, on_all_ranks
from collagan_dist.models.networks import Networks
from collagan_dist.runs import checkpoint
from collagan_dist.runs.async_checkpoint import Saves, Tell
from collagan_dist.runs.checkpoint_state import changes, read_state
from collagan_dist.runs.exported import DISCRIMINATORS_FILE, WEIGHTS, is_exported, read_exported
from collagan_dist.runs.lease import Claim, Lease
from collagan_dist.runs.resume import newest, warn
from collagan_dist.setup import Setup

_LOOK = 2.0  # seconds of looking for a former start's signs of life, between words to the other ranks


@dataclass(frozen=True)
class Progress:
    """How far a run has come: steps done, the numbers of those whose batches are left out, and what is learned otherwise from here on."""

    step: int = 0
    skipped: Sequence[int] = ()
    changed: Sequence[str] = ()

    def at(self, step: int) -> Progress:
        return replace(self, step=step)

    def event(self, rollbacks: int) -> str:
        """What goes on here."""
        return "rollback" if rollbacks else "resume" if self.step else "start"

    def facts(self) -> dict[str, Any]:
        """What an event tells of a change of what is learned, which was allowed."""
        return {"changed": list(self.changed)} if self.changed else {}


class RunFolder:
    """A run on disk, as rank 0 of one start sees it. Other ranks only read checkpoints. `lease` is None on them."""

    def __init__(self, path: Path, setup: Setup) -> None:
        self.path, self.setup = path, setup
        self.checkpoints = path / "checkpoints"
        self.lease: Lease | None = None
        keep = setup.config.checkpoint
        self.saves = Saves(self.checkpoints, setup.group, keep.keep, keep.max_failures)
        self._generation = 0

    def take(self) -> None:
        """Become the one start that writes here, and sweep up after killed ones. Collective.

        Raises ClusterError where another start is alive, ConfigError where the folder cannot be used.
        """
        claim: list[Claim] = []
        while not self.setup.group.on_rank0(lambda: self._take(claim)):
            pass
        self._generation = self.setup.group.broadcast(self.lease.generation if self.lease else 0)

    def _take(self, claims: list[Claim]) -> bool:
        try:
            if not claims:
                self.path.mkdir(parents=True, exist_ok=True)
                claims.append(Claim(self.path, start_label() if job_id() else "", _generation(self.path)))
            self.lease = claims[0].poll(_LOOK)
            if self.lease is None:
                return False
            with self.lease.held():
                _sweep(self.path)
        except OSError as error:
            raise ConfigError(
                f"{self.path}: cannot be used as run folder ({error.strerror}); give another --run"
            ) from None
        return True

    def open(self, command: str) -> None:
        """Write down what starts here. Collective."""
        facts = self.setup.group.all_gather(_facts(self.setup))
        self.setup.group.on_rank0(lambda: self._write_start(facts, command))

    def _write_start(self, facts: list[dict[str, Any]], command: str) -> None:
        assert self.lease is not None
        manifest, config = self.setup.manifest, self.setup.config
        with self.lease.held():
            for mark in ("requeue", "failed"):
                (self.path / mark).unlink(missing_ok=True)
            files.write_text(self.path / "config.yaml", to_yaml(config))
            files.write_json(
                self.path / "data.json",
                {
                    "shards": str(manifest.folder.resolve()),
                    "manifest": manifest.hash,
                    "dataset": manifest.dataset,
                    "splits": {name: manifest.samples(name) for name in manifest.splits},
                },
            )
            files.write_json(
                self.path / "world.json",
                {
                    "command": command,
                    "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
                    "generation": self._generation,
                    "restarts": restart_counts(),
                    "world_size": self.setup.world.size,
                    "ranks": facts,
                },
            )

    def started(self) -> dict[str, Any]:
        """What an event of a start tells."""
        return {
            "generation": self._generation, "world_size": self.setup.world.size,
            **{f"restarts_{launcher}": times for launcher, times in restart_counts().items()},
        }  # fmt: skip

    def resume(self, networks: Networks, allow_change: bool, strict: bool = False) -> Progress:
        """Put the newest whole checkpoint into the networks; where to go on. Collective.

        Raises CheckpointError where a rank cannot, and when what is learned differs from the checkpoint's and `allow_change` is not given.
        """
        group = self.setup.group
        loaded = newest(self.checkpoints, group, strict)
        if loaded is None:
            return Progress()
        done, skipped, state = read_state(loaded.path, loaded.state)
        changed = group.on_rank0(lambda: self._changes(loaded.path, state, allow_change))
        if changed and not allow_change:
            text = "\n  ".join([f"{loaded.path} was made by another configuration:", *changed])
            hint = "give another --run to start anew, or --allow-config-change to go on with the new one"
            raise on_all_ranks(CheckpointError(f"{text}\n{hint}"))
        networks.restore(loaded.tensors)
        group.on_rank0(lambda: self._keep_to(done))
        return Progress(done, skipped, changed)

    @cached_property
    def _learned(self) -> dict[str, Any]:
        """The identity keys; rank 0's, which reads the parser's weights once."""
        return identity(self.setup.config, self.setup.manifest.hash)

    def _changes(self, path: Path, state: dict[str, Any], allow_change: bool) -> list[str]:
        try:
            return changes(path, state, self._learned)
        except CheckpointError:
            if allow_change:
                return []
            raise

    def _keep_to(self, step: int) -> None:
        assert self.lease is not None
        with self.lease.held():
            checkpoint.prune(self.checkpoints, step, self.setup.config.checkpoint.keep)

    def save(self, networks: Networks, progress: Progress, tell: Tell) -> None:
        """Commit a checkpoint, while training goes on. Collective; see Saves.save."""
        self.saves.save(networks, progress.step, lambda: self._state(progress), self.lease, tell)

    def finish(self, tell: Tell, must: bool = True) -> None:
        """Wait until what was saved is on disk. Collective; raises CheckpointError where it `must` be there and is not."""
        self.saves.settle(tell, must)

    def _state(self, progress: Progress) -> dict[str, Any]:
        config, step = self.setup.config, progress.step
        return {
            "step": step,
            "samples": step * config.schedule.batch,
            "seed": config.seed,
            "world_size": self.setup.world.size,
            "generation": self._generation,
            "skipped_batches": list(progress.skipped),
            "manifest": self.setup.manifest.hash,
            "parser": self._learned["model"]["gfc"]["parser"],
            "config": config_to_dict(config),
            "version": __version__,
        }

    @property
    def lost(self) -> bool:
        """Whether rank 0 saw that another start took over; then all are to call `check`."""
        return self.lease is not None and not self.lease.mine()

    def check(self) -> None:
        """Raises ClusterError, on all ranks, when another start has taken over. Collective."""
        self.setup.group.on_rank0(self._check)

    def _check(self) -> None:
        if self.lease is not None:
            self.lease.check()

    def ask_to_be_requeued(self) -> None:
        """Leave the marker. Collective."""
        self.setup.group.on_rank0(self._ask)

    def _ask(self) -> None:
        assert self.lease is not None
        with self.lease.held():
            files.write_text(self.path / "requeue", f"{start_label()}\n")

    def close(self) -> None:
        """Let this start's writing end, then let others know that it has."""
        self.saves.close()
        if self.lease is not None:
            self.lease.release()


# Keys that say nothing of what a model learned.
_CHANGEABLE = ("evaluate.", "runtime.", "data.cache.", "data.threads=", "data.max_damaged=")


def identity(config: Config, manifest_hash: str) -> dict[str, Any]:
    """What a run learns, with the sha256 of its parser's weights where it has one (GFC)."""
    parser = config.model.gfc.parser if config.model.name == "gfc" else None
    weights = files.sha256(read_inference_weights(Path(parser)).file) if parser else None
    return identity_keys(config, manifest_hash, weights)


def read_config(model: Path, shards: str | None = None, sets: Iterable[str] = ()) -> Config:
    """The configuration of a run folder or an exported one; a run's shards are found from any folder.

    `sets` change how the model is looked at; what it learned cannot be changed. Raises ConfigError.
    """
    for item in sets:
        if not item.startswith(_CHANGEABLE):
            raise ConfigError(f"--set {item}: only how a model is looked at can be changed here: evaluate.*, runtime.*")
    path = model / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{model}: is no run folder (no config.yaml); give a folder that `collagan train` or `collagan export` wrote"
        )
    with suppress(OSError, ValueError, KeyError):
        shards = shards or json.loads((model / "data.json").read_bytes())["shards"]
    return load_config(str(path), sets=sets, shards=shards)


@dataclass(frozen=True)
class InferenceWeights:
    """The generator that evaluation uses, the averaged one where there is one, as it lies on disk.

    `discriminators` are the discriminators' tensors; None where an exported folder has none.
    """

    file: Path
    step: int
    tensors: dict[str, torch.Tensor]
    discriminators: dict[str, torch.Tensor] | None = None

    @property
    def discriminators_file(self) -> Path:
        return self.file.with_name(DISCRIMINATORS_FILE)

    def put_into(self, generator: torch.nn.Module) -> None:
        _put(self.file, self.tensors, generator)

    def put_discriminators_into(self, discriminators: torch.nn.Module) -> None:
        if self.discriminators is None:
            raise CheckpointError(
                f"{self.discriminators_file}: is missing, and this model completes with it; export the run again"
            )
        _put(self.discriminators_file, self.discriminators, discriminators)


def _put(file: Path, tensors: dict[str, torch.Tensor], network: torch.nn.Module) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"{file}: does not fit the config.yaml of its folder: {str(error).splitlines()[-1].strip()}"
        ) from None


def read_inference_weights(model: Path) -> InferenceWeights:
    """The newest networks of a run folder, or those of an exported one; every byte checked. Raises CheckpointError."""
    if is_exported(model):
        manifest, tensors = read_exported(model)
        return InferenceWeights(model / WEIGHTS, manifest["step"], tensors[WEIGHTS], tensors.get(DISCRIMINATORS_FILE))
    found = checkpoint.load_latest(model / "checkpoints", warn)
    if found is None:
        raise CheckpointError(
            f"{model}: holds no checkpoint yet; train it first: collagan train {quote(str(model / 'config.yaml'))} --run {quote(str(model))}"
        )
    name = "ema" if "ema" in found.tensors else "generator"
    file = found.path / f"{name}.safetensors"
    return InferenceWeights(file, int(found.state["step"]), found.tensors[name], found.tensors["discriminators"])


def _generation(run: Path) -> int:
    """The newest start that the folder knows of besides its lease."""
    try:
        return int(json.loads((run / "world.json").read_bytes())["generation"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _sweep(run: Path) -> None:
    """Remove what killed starts left unfinished."""
    checkpoint.clean(run / "checkpoints")
    names = ("lease", "config.yaml", "data.json", "world.json", "metrics.jsonl", "requeue")
    unfinished = [path for name in names for path in run.glob(f".{name}.*.partial")]
    for path in (*unfinished, *(run / "grids").glob(".*.partial")):
        path.unlink(missing_ok=True)


def _facts(setup: Setup) -> dict[str, Any]:
    gpu = (
        torch.cuda.get_device_name(setup.device)
        if setup.device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        "host": socket.gethostname(), "pid": os.getpid(), "device": str(setup.device), "name": gpu, "launcher": setup.world.launcher,
        "python": platform.python_version(), "torch": torch.__version__, "collagan_dist": __version__,
    }  # fmt: skip
