"""The run folder as one start of a training uses it: take the lease, resume, save, record what happens."""

from __future__ import annotations

import logging
import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from collagan_dist import __version__, files, structured
from collagan_dist.config.load import config_to_dict, differences, get_nested, identity_keys, to_yaml
from collagan_dist.config.tree import Config
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.distributed.group import Group
from collagan_dist.distributed.world import job_id, restart_counts, start_label
from collagan_dist.errors import CheckpointError, ClusterError, ConfigError, mark_on_all_ranks
from collagan_dist.runs import checkpoint, contents
from collagan_dist.runs.async_checkpoint import AsyncCheckpointer, Checkpointable, LogEvent
from collagan_dist.runs.checkpoint import LoadedCheckpoint
from collagan_dist.runs.checkpoint_state import config_changes, parse_state
from collagan_dist.runs.copied_run import CopiedRun
from collagan_dist.runs.copies import place_of
from collagan_dist.runs.disk_need import need_of_run
from collagan_dist.runs.layout import MANIFEST_FILE, RunPaths, WorldRecord, checkpoint_dir
from collagan_dist.runs.lease import LOCK_FILE, Lease, LeaseRequest
from collagan_dist.runs.machine import code_commit, machine_state, rank_facts
from collagan_dist.runs.model_folder import read_inference_parameters
from collagan_dist.runs.own_folder import check_own_run

logger = logging.getLogger(__name__)

_POLL_SECONDS = 2.0  # of waiting for the lease, before the other ranks hear again that rank 0 is alive
_VISIBLE_SECONDS = 30.0  # that network storage may take to show a new folder on another node


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    `step` counts the steps done, `left_out` numbers the steps whose batches a rollback left out, `bad_row` those before `step` that
    were skipped in a row. `changed` has the identity keys that are new from here on, as was allowed. `machine` is what computed the
    checkpoint (see `machine_state`), {} where it does not say so. `loaded` is whether there was a checkpoint.
    """

    step: int = 0
    left_out: Sequence[int] = ()
    bad_row: Sequence[int] = ()
    changed: Sequence[str] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    loaded: bool = False

    def at(self, step: int, bad_row: Sequence[int]) -> Progress:
        return replace(self, step=step, bad_row=bad_row)


class RunFolder:
    """A run on disk. Rank 0 of one start writes, the other ranks only read checkpoints; `lease` is None on them."""

    def __init__(self, path: Path, config: Config, manifest: Manifest, group: Group) -> None:
        self.path, self.config, self.manifest, self.group = path, config, manifest, group
        self.paths = RunPaths(path)
        self.lease: Lease | None = None
        self.checkpointer = AsyncCheckpointer(
            self.paths.checkpoints, group, config.checkpoint.keep, config.checkpoint.max_failures
        )
        self._generation = 0  # until `acquire`
        self._made: list[Path] = []  # the run folder and those above it, where this start made them
        self._machine: dict[str, Any] = {}  # until `record_start`
        place = place_of(config.checkpoint.copy_to, path)
        self.copies = CopiedRun(place, self.paths, config.checkpoint.keep, group) if place else None
        if self.copies:
            self.checkpointer.after_commit = self.copies.request
        # Of the weights that the run started from (model.init), once they were read; and what of them this start has taken.
        self.init_sha256: str | None = None
        self.init_taken = ""

    def check_room(self, checkpoint_bytes: int, stop_at: int) -> None:
        """Say what room the checkpoints of a start until step `stop_at` take. Collective; raises DiskFull if there is not enough."""

        def check() -> None:
            with suppress(PermissionError):  # which `acquire` reports
                need_of_run(self.paths, self.config.checkpoint, checkpoint_bytes, stop_at).check()

        self.group.on_rank0(check)

    def acquire(self) -> None:
        """Take the lease, and remove what killed starts left unfinished. Collective.

        Raises ClusterError where another start is alive, ConfigError where the folder cannot be used or is no run's.
        """
        request: LeaseRequest | None = None

        def poll() -> bool:
            nonlocal request
            try:
                if request is None:  # once, since it remembers the heartbeats that it saw
                    check_own_run(self.path)
                    self._made = [path for path in (self.path, *self.path.parents) if not path.exists()]
                    self.path.mkdir(parents=True, exist_ok=True)
                    request = LeaseRequest(self.path, start_label() if job_id() else "", self._recorded_generation())
                self.lease = request.poll(_POLL_SECONDS)
                if self.lease is not None:
                    with self.lease.held():
                        self._remove_unfinished()
            except OSError as error:
                problem = f"cannot be used as run folder ({error.strerror})"
                raise ConfigError(f"{self.path}: {problem}; give another --out") from None
            return self.lease is not None

        # In short rounds: the other ranks wait in a collective, which must not look like a hang.
        while not self.group.on_rank0(poll):
            pass
        self._generation = self.group.broadcast(self.lease.owner.generation if self.lease else 0)

    def _recorded_generation(self) -> int:
        """Return the newest generation by the start's record, for the case that the lease was removed."""
        found = structured.find(self.paths.world, WorldRecord)
        return found.generation if found else 0  # missing, or written by hand: then the lease alone counts

    def _remove_unfinished(self) -> None:
        # Only names that a start writes itself: `collagan evaluate` may be writing others at this moment.
        checkpoint.remove_unfinished(self.paths.checkpoints)
        paths = self.paths
        for path in (paths.lease, paths.copy, paths.config, paths.data, paths.world, paths.metrics_log, paths.requeue):
            for partial in self.path.glob(f".{path.name}.*.partial"):
                partial.unlink(missing_ok=True)
        for partial in paths.grids.glob(".*.partial"):
            partial.unlink(missing_ok=True)

    def record_start(self, command: str) -> None:
        """Write config.yaml, data.json and world.json. Collective."""
        ranks = self.group.all_gather(rank_facts(self.group))
        # The commit on rank 0 only, which alone writes and speaks.
        self._machine = machine_state(ranks, code_commit() if self.group.world.is_rank0 else None)
        self._as_owner(lambda: self._write_start(ranks, command))

    def _write_start(self, ranks: list[dict[str, Any]], command: str) -> None:
        # Marks of the former start: this one will leave its own.
        self.paths.requeue.unlink(missing_ok=True)
        self.paths.failed.unlink(missing_ok=True)
        files.write_text(self.paths.config, to_yaml(self.config))
        data = {
            # Absolute, so that `collagan evaluate` finds them from any folder.
            "shards": str(self.manifest.folder.resolve()),
            "manifest": self.manifest.hash,
            "dataset": self.manifest.dataset,
            "splits": {name: self.manifest.samples(name) for name in self.manifest.splits},
        }
        files.write_json(self.paths.data, data)
        world = {
            "command": command,
            "commit": self._machine.get("commit"),
            "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "generation": self._generation,
            "restarts": restart_counts(),
            "world_size": self.group.world.size,
            "ranks": ranks,
        }
        files.write_json(self.paths.world, world)

    def start_facts(self, progress: Progress) -> dict[str, Any]:
        """Return what the event of a start says beside its name."""
        return {
            "generation": self._generation, "world_size": self.group.world.size,
            **{f"restarts_{launcher}": times for launcher, times in restart_counts().items()},
            **({"init": self.init_taken} if self.init_taken and not progress.loaded else {}),
            **({"changed": list(progress.changed)} if progress.changed else {}),
            **({"machine": changes, "bitwise": False} if (changes := self.machine_changes(progress)) else {}),
        }  # fmt: skip

    def machine_changes(self, progress: Progress) -> list[str]:
        """Return lines "key: then -> now" of what computes in another way than what made the checkpoint did, as far as that says it."""
        return differences(dict(progress.machine), {k: v for k, v in self._machine.items() if k in progress.machine})

    def resume(self, networks: Checkpointable, allow_change: bool, strict: bool = False) -> Progress:
        """Load the newest undamaged checkpoint into the networks, also from the place of copies; return where to go on. Collective.

        Raises CheckpointError where a rank cannot read it, and when identity keys differ from the checkpoint's unless
        `allow_change` is given.
        """
        if self.copies:
            # Without the hashes of weights that it began with: those may be gone here, and the checkpoint's state has them.
            identity = identity_keys(self.config, self.manifest.hash)
            self.copies.open(self.lease, identity, allow_change, strict, self._remove_made)
        loaded = self._load_newest(strict)
        if loaded is None:
            return Progress()
        state = parse_state(loaded.path, loaded.state)
        changed = self.group.on_rank0(lambda: self._config_changes(loaded.path, state, allow_change))
        if changed and not allow_change:
            text = "\n  ".join([f"{loaded.path} was made by another configuration:", *changed])
            hint = "give another --out to start anew, or --allow-config-change to go on with the new one"
            raise mark_on_all_ranks(CheckpointError(f"{text}\n{hint}"))
        # After the comparison: with another configuration the tensors may not fit, with a worse message.
        try:
            contents.check_files(loaded.tensors, state)
            networks.restore(loaded.tensors)
        except CheckpointError as error:  # all ranks have read the same bytes
            raise mark_on_all_ranks(CheckpointError(f"{loaded.path}: {error}")) from None
        step = state["step"]
        self._as_owner(lambda: checkpoint.prune(self.paths.checkpoints, step, self.config.checkpoint.keep))
        return Progress(step, state["skipped_batches"], state["bad_row"], changed, state["machine"] or {}, True)

    def _remove_made(self) -> None:
        """Remove the run folder, and those above it, if this start made them and nothing but a start's first files is there."""
        paths = self.paths
        own = {paths.lease.name, LOCK_FILE, paths.copy.name, paths.checkpoints.name}
        if self.lease is None or not self._made:
            return
        with suppress(OSError, ClusterError), self.lease.held():
            if not paths.steps_saved() and {path.name for path in self.path.iterdir()} <= own:
                shutil.rmtree(self.path)
                for parent in self._made[1:]:
                    parent.rmdir()  # where nobody has put anything there meanwhile

    def _load_newest(self, strict: bool) -> LoadedCheckpoint | None:
        """Return the newest undamaged checkpoint, the same one on all ranks: rank 0 says which. Collective.

        Every rank reads and checks it by itself, so a node whose storage or memory fails is named.
        """
        folder, group = self.paths.checkpoints, self.group
        loaded: LoadedCheckpoint | None = None

        def find() -> int | None:
            nonlocal loaded  # only the step is broadcast: hashing is as fast as reading, broadcasting tensors is not
            loaded = checkpoint.load_latest(folder, strict)
            return None if loaded is None else int(loaded.state["step"])

        step, problem = group.on_rank0(find), None
        if step is None:
            return None
        # Gathered, not raised at once: the other ranks would wait in vain, and all nodes at fault are to be named.
        try:
            loaded = loaded or _load_when_visible(checkpoint_dir(folder, step))
        except CheckpointError as error:
            problem = f"rank {group.world.rank} on {socket.gethostname()}: {error}"
        if problems := [text for text in group.all_gather(problem) if text]:
            text = f"{folder}: step {step} is undamaged on rank 0, but not everywhere; the run folder must be on storage that all nodes share"
            raise mark_on_all_ranks(CheckpointError("\n  ".join([text, *problems])))
        return loaded

    @cached_property
    def _identity(self) -> dict[str, Any]:
        # On rank 0 only, and once: it reads the parser's weights.
        return run_identity(self.config, self.manifest.hash, self.init_sha256)

    def _config_changes(self, path: Path, state: dict[str, Any], allow_change: bool) -> list[str]:
        # The model that a run started from may be gone, or trained further, by now.
        if get_nested(state["config"], "model", "init") == self.config.model.init:
            self.init_sha256 = state["init"]
        try:
            return config_changes(path, state, self._identity)
        except CheckpointError:  # the stored configuration has keys of another version
            if allow_change:
                return []
            raise

    def save(self, networks: Checkpointable, progress: Progress, log_event: LogEvent) -> None:
        """Start to write a checkpoint. Collective; see AsyncCheckpointer.save."""
        # The state is made on rank 0 alone, which knows the parser's hash.
        self.checkpointer.save(networks, progress.step, lambda: self._state(progress), self.lease, log_event)
        if self.copies:
            self.copies.log_failures(log_event)

    def _state(self, progress: Progress) -> dict[str, Any]:
        return {
            "step": progress.step,
            "samples": progress.step * self.config.schedule.batch,
            "seed": self.config.seed,
            "world_size": self.group.world.size,
            "generation": self._generation,
            "skipped_batches": list(progress.left_out),
            "bad_row": list(progress.bad_row),
            "manifest": self.manifest.hash,
            "parser": self._identity["model"]["gfc"]["parser"],
            "init": self._identity["model"]["init"],
            "config": config_to_dict(self.config),
            "machine": self._machine,
            "version": __version__,
        }

    def wait_for_checkpoint(self, log_event: LogEvent, required: bool = True) -> None:
        """Wait until the last checkpoint is on disk. Collective; raises CheckpointError if it is `required` and failed."""
        self.checkpointer.wait(log_event, required)

    def wait_for_copies(self, log_event: LogEvent, interrupted: bool = False) -> None:
        """Wait until the last checkpoint is copied, for a bounded time; then say what is missing. Collective."""
        if self.copies:
            self.copies.wait(log_event, interrupted)

    @property
    def lease_lost(self) -> bool:
        """Whether rank 0 saw that another start took over; then all ranks are to call `check_lease`."""
        return self.lease is not None and self.lease.lost

    def check_lease(self) -> None:
        """Raise ClusterError, on all ranks, if another start has taken over. Collective."""
        self.group.on_rank0(lambda: self.lease.check() if self.lease else None)

    def request_requeue(self) -> None:
        """Leave the mark by which the batch script knows that the run wants to be continued. Collective."""
        self._as_owner(lambda: files.write_text(self.paths.requeue, f"{start_label()}\n"))

    def _as_owner(self, write: Callable[[], object]) -> None:
        """Do `write` on rank 0, with the lease held. Collective."""

        def work() -> None:
            assert self.lease is not None
            with self.lease.held():
                write()

        self.group.on_rank0(work)

    def release(self) -> None:
        """Finish writing, then give up the lease. Not collective: other ranks may be gone."""
        self.checkpointer.close()
        if self.copies:
            self.copies.close()
        if self.lease is not None:
            self.lease.release()


def _load_when_visible(path: Path) -> LoadedCheckpoint:
    """Load a checkpoint that another node sees already."""
    deadline = time.monotonic() + _VISIBLE_SECONDS
    while not (path / MANIFEST_FILE).exists() and time.monotonic() < deadline:
        time.sleep(1)
        list(path.parent.iterdir())  # listing a folder makes NFS refresh its cached entries
    return checkpoint.load(path)


def run_identity(config: Config, manifest_hash: str, init: str | None = None) -> dict[str, Any]:
    """Return the identity keys of a run, with the sha256 of the weights of its parser (GFC) and of the model that it starts from.

    `init` is the latter where it is known; else they are read.
    """
    # Paths may change between starts; weights may not.
    parser = None
    if config.model.name == "gfc" and config.model.gfc.parser:  # of which the generator alone is used
        parser = files.sha256(read_inference_parameters(Path(config.model.gfc.parser)).file)
    if init is None and config.model.init:
        init = read_inference_parameters(Path(config.model.init)).sha256
    return identity_keys(config, manifest_hash, parser, init)
