"""The run folder: what a start finds there and what it leaves. It is the interface to evaluate, sweep and report."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from collagan_dist import __version__, files
from collagan_dist import config as configuration
from collagan_dist.config import Config
from collagan_dist.errors import CheckpointError, ConfigError
from collagan_dist.runtime import checkpoint
from collagan_dist.runtime.lease import Lease
from collagan_dist.training.build import Setup
from collagan_dist.training.exported import JUDGES, WEIGHTS, is_exported, read_exported
from collagan_dist.training.networks import Networks, Tensors


@dataclass(frozen=True)
class Progress:
    """How far a run has come: steps done, and the numbers of those whose batches are left out."""

    step: int = 0
    skipped: Sequence[int] = ()

    def at(self, step: int) -> Progress:
        return replace(self, step=step)

    def event(self, rollbacks: int) -> tuple[str, ...]:
        """What goes on here."""
        return ("rollback" if rollbacks else "resume" if self.step else "start",)


class RunFolder:
    """A run on disk, as rank 0 of one start sees it. Other ranks only read checkpoints."""

    def __init__(self, path: Path, setup: Setup) -> None:
        self.path, self.setup = path, setup
        self.checkpoints = path / "checkpoints"
        self._lease: Lease | None = None
        self._identity: dict[str, Any] = {}

    def open(self, command: str) -> None:
        """Take the lease and write down what starts here. Collective."""
        self._identity = identity(self.setup.config, self.setup.manifest.hash)
        facts = self.setup.group.gather(_facts(self.setup))
        self.setup.group.on_main(lambda: self._write_start(facts, command))

    def _write_start(self, facts: list[dict[str, Any]], command: str) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lease = Lease(self.path)
        except OSError as error:
            raise ConfigError(
                f"{self.path}: cannot be used as run folder ({error.strerror}); give another --run"
            ) from None
        (self.path / "requeue").unlink(missing_ok=True)
        (self.path / "failed").unlink(missing_ok=True)
        manifest, config = self.setup.manifest, self.setup.config
        files.write_text(self.path / "config.yaml", configuration.to_yaml(config))
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
                "world_size": self.setup.world.size,
                "ranks": facts,
            },
        )

    def resume(self, networks: Networks, allow_change: bool) -> Progress:
        """Put the newest whole checkpoint into the networks; where to go on. Collective.

        Raises CheckpointError when what is learned differs from the checkpoint's and `allow_change` is not given.
        """
        loaded = checkpoint.load_latest(self.checkpoints, _warn)
        found = self.setup.group.gather(loaded.state["step"] if loaded else 0)
        if len(set(found)) > 1:
            raise CheckpointError(
                f"{self.checkpoints}: ranks find different checkpoints (steps {sorted(set(found))}); "
                "the run folder must be on storage that all nodes share"
            )
        if loaded is None:
            return Progress()
        now = identity(self.setup.config, self.setup.manifest.hash)
        changes = configuration.differences(loaded.state["identity"], now)
        if changes and not allow_change:
            raise CheckpointError(
                "\n  ".join([f"{loaded.path} was made by another configuration:", *changes])
                + "\ngive another --run to start anew, or --allow-config-change to go on with the new one"
            )
        networks.restore(loaded.tensors)
        return Progress(int(loaded.state["step"]), loaded.state["skipped_batches"])

    def save(self, networks: Networks, progress: Progress) -> None:
        """Commit a checkpoint. Collective: an error of rank 0 is raised by all."""
        tensors = networks.tensors()
        self.setup.group.on_main(lambda: self._save(tensors, progress))

    def finish(self) -> None:
        """Wait until what was saved is on disk. Collective."""

    def _save(self, tensors: dict[str, Tensors], progress: Progress) -> None:
        assert self._lease is not None
        self._lease.check()
        config, step = self.setup.config, progress.step
        state = {
            "step": step,
            "samples": step * config.schedule.batch,
            "seed": config.seed,
            "world_size": self.setup.world.size,
            "skipped_batches": list(progress.skipped),
            "manifest": self.setup.manifest.hash,
            "identity": self._identity,
            "config": configuration.dump(config),
            "version": __version__,
        }
        checkpoint.save(self.checkpoints, step, tensors, state, config.checkpoint.keep)

    def ask_to_be_requeued(self) -> None:
        if self.setup.world.is_main:
            files.write_text(self.path / "requeue", "")


# Keys that say nothing of what a model learned.
_CHANGEABLE = ("evaluate.", "runtime.", "data.cache.", "data.threads=", "data.max_damaged=")


def identity(config: Config, manifest_hash: str) -> dict[str, Any]:
    """What a run learns, with the sha256 of its parser's weights where it has one (GFC)."""
    parser = config.model.gfc.parser if config.model.name == "gfc" else None
    weights = files.sha256(read_scored(Path(parser)).file) if parser else None
    return configuration.identity(config, manifest_hash, weights)


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
    return configuration.load_config(str(path), sets=sets, shards=shards)


@dataclass(frozen=True)
class Scored:
    """The generator that evaluation uses, the averaged one where there is one, as it lies on disk.

    `judges` are the discriminators' tensors; None where an exported folder has none.
    """

    file: Path
    step: int
    tensors: dict[str, torch.Tensor]
    judges: dict[str, torch.Tensor] | None = None

    @property
    def judges_file(self) -> Path:
        return self.file.with_name(JUDGES)

    def put_into(self, generator: torch.nn.Module) -> None:
        _put(self.file, self.tensors, generator)

    def put_judges_into(self, discriminators: torch.nn.Module) -> None:
        if self.judges is None:
            raise CheckpointError(
                f"{self.judges_file}: is missing, and this model completes with it; export the run again"
            )
        _put(self.judges_file, self.judges, discriminators)


def _put(file: Path, tensors: dict[str, torch.Tensor], network: torch.nn.Module) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"{file}: does not fit the config.yaml of its folder: {str(error).splitlines()[-1].strip()}"
        ) from None


def read_scored(model: Path) -> Scored:
    """The newest networks of a run folder, or those of an exported one; every byte checked. Raises CheckpointError."""
    if is_exported(model):
        manifest, tensors = read_exported(model)
        return Scored(model / WEIGHTS, manifest["step"], tensors[WEIGHTS], tensors.get(JUDGES))
    newest = checkpoint.load_latest(model / "checkpoints", _warn)
    if newest is None:
        raise CheckpointError(
            f"{model}: holds no checkpoint yet; train it first: collagan train {quote(str(model / 'config.yaml'))} --run {quote(str(model))}"
        )
    name = "ema" if "ema" in newest.tensors else "generator"
    file = newest.path / f"{name}.safetensors"
    return Scored(file, int(newest.state["step"]), newest.tensors[name], newest.tensors["discriminators"])


def _warn(text: str) -> None:
    print(f"warning: {text}; taking the checkpoint before it", file=sys.stderr, flush=True)


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
