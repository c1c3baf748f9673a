"""What a run folder records of its training, as an audit reads it. Nothing is written there, and no lease is taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from collagan_dist import structured
from collagan_dist.config.load import differences, validate_config
from collagan_dist.config.tree import Config
from collagan_dist.errors import CheckpointError, ConfigError
from collagan_dist.runs import checkpoint, contents
from collagan_dist.runs.checkpoint import LoadedCheckpoint, Unreadable
from collagan_dist.runs.checkpoint_state import parse_state, read_state
from collagan_dist.runs.layout import DataRecord, RunPaths
from collagan_dist.runs.metrics_log import read_rows

Row = dict[str, Any]

_STARTS = ("start", "resume", "rollback")
# Keys outside of the identity keys that move results, though a start may change them.
_RUNTIME = ("engine", "zero_stage", "precision", "accumulate", "sync_bn", "compile", "cuda_graph", "channels_last")


class Removed(CheckpointError):
    """A checkpoint that the run itself has removed since the audit began."""


@dataclass(frozen=True)
class Stretch:
    """A part of a training: from the checkpoint of step `start`, or from the beginning for 0, to that of step `end`."""

    start: int
    end: int

    @property
    def steps(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        return f"{self.start} to {self.end}"


@dataclass(frozen=True)
class LoggedPart:
    """What metrics.jsonl says of a stretch.

    `rows` are the train and eval lines after its first step, `starts` the (step, event) of each start up to its last step that
    was not given up. `begins` has the steps after which a train line's means may begin: of these starts, and of the last line before.
    `known` is whether the log has any start at all. `left_out` are the steps that were left out.
    """

    rows: list[Row]
    starts: list[tuple[int, Row]]
    begins: tuple[int, ...]
    known: bool
    left_out: frozenset[int] = frozenset()

    def covers(self, stretch: Stretch) -> bool:
        """Whether the log has the start that trained the stretch's first step: a file that was lost before does not have its lines."""
        return any(step <= stretch.start for step, _ in self.starts)

    def inside(self, stretch: Stretch) -> list[tuple[int, Row]]:
        """Return the starts between both checkpoints."""
        return [(step, row) for step, row in self.starts if stretch.start < step < stretch.end]


class _NetworksTaken(structured.Record):
    at: structured.Count  # samples
    donor: structured.Count = Field(alias="from")


class _TrialLineage(structured.Record):
    """What an audit needs of a sweep's trial.json."""

    batch: Annotated[structured.Count, Field(ge=1)]
    lineage: tuple[_NetworksTaken, ...] = ()


class RunRecord:
    """A run folder, read only."""

    def __init__(self, folder: Path) -> None:
        """Raise ConfigError where the folder is no run, CheckpointError where it has no checkpoint."""
        self.folder, self.paths = folder, RunPaths(folder)
        if not self.paths.exists() or not self.paths.checkpoints.is_dir():
            raise ConfigError(
                f"{folder}: is no run folder (config.yaml and checkpoints/); give one of `collagan train`"
            )
        if not self.paths.committed_steps():
            raise CheckpointError(f"{folder}: holds no checkpoint yet, so there is nothing to derive again")

    def stretches(self) -> list[Stretch]:
        """Return the stretches between neighbouring checkpoints, the first of them from the beginning of the run."""
        steps = [step for step in self.paths.committed_steps() if step > 0]
        return [Stretch(start, end) for start, end in zip([0, *steps], steps, strict=False)]

    def load(self, step: int) -> LoadedCheckpoint:
        """Return a checkpoint whose every byte was checked, and that its numbers are finite; its state in the present format.

        Raises Removed where the run has pruned it, Unreadable where this user may not read it, CheckpointError that names the file where
        it is damaged.
        """
        path = self.paths.checkpoint(step)
        try:
            found = checkpoint.load(path)
            state = parse_state(path, found.state)
            contents.check_files(found.tensors, state)
            for file, tensors in found.tensors.items():
                contents.check_values(f"{file}.safetensors", tensors)
        except Unreadable:
            raise
        except CheckpointError as error:
            if not path.exists():
                raise Removed(f"{path}: was removed by the run meanwhile (checkpoint.keep)") from None
            raise CheckpointError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
        return replace(found, state=state)

    def states(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield path and state of each checkpoint that can be read, the newest first. The audit of its stretch names a damaged one."""
        for step in reversed(self.paths.committed_steps()):
            path = self.paths.checkpoint(step)
            try:
                yield path, read_state(path)
            except (OSError, CheckpointError):
                continue

    def taken_over(self) -> dict[int, int]:
        """Return at which steps the run went on with another trial's networks (PBT in a sweep), and the number of that trial."""
        found = structured.find(self.folder / "trial.json", _TrialLineage)
        return {-(-one.at // found.batch): one.donor for one in found.lineage} if found else {}

    def shards(self) -> str | None:
        """Return where the run's data set lay, if the folder says so."""
        data = structured.find(self.paths.data, DataRecord)
        return data.shards if data else None

    def world(self) -> dict[str, Any]:
        """Return world.json, {} where it cannot be read."""
        try:
            found = structured.read_json(self.paths.world)
        except (OSError, structured.Malformed):
            return {}
        return found if isinstance(found, dict) else {}

    def log(self, stretch: Stretch) -> LoggedPart:
        """Return what the log says of a stretch."""
        rows: dict[tuple[Any, ...], Row] = {}
        starts: list[tuple[int, Row]] = []
        left_out: set[int] = set()
        known, line = False, 0
        for row in read_rows(self.folder):
            step = row.get("step")
            if type(step) is not int:
                continue
            if row["kind"] == "event" and row.get("event") in _STARTS:
                known = True
                # A start gives up what was logged and started beyond it.
                starts = [one for one in starts if one[0] < step] + [(step, row)]
                rows = {key: one for key, one in rows.items() if one["step"] <= step}
            elif row["kind"] == "event" and row.get("event") == "left_out":
                left_out.add(step)
            elif row["kind"] in ("train", "eval") and stretch.start < step <= stretch.end:
                rows[step, row["kind"], row.get("split"), row.get("hole")] = row
            elif row["kind"] == "train" and step <= stretch.start:
                line = step
        starts = [one for one in starts if one[0] <= stretch.end]
        return LoggedPart(
            list(rows.values()), starts, (line, *(step for step, _ in starts)), known, frozenset(left_out)
        )


def configuration(state: dict[str, Any], where: Path) -> Config:
    """Return the configuration that a checkpoint was made with. Raises CheckpointError."""
    try:
        return validate_config(state["config"], f"{where}: the stored configuration")
    except ConfigError as error:
        raise CheckpointError(f"{error}; it is of another version of collagan_dist") from None


def config_differences(first: dict[str, Any], last: dict[str, Any]) -> Iterator[str]:
    """Yield "key: then -> now" of keys that move results, of two stored configurations."""
    for section in ("model", "loss", "hole", "data", "optim", "schedule", "runtime", "seed", "deterministic"):
        for line in differences({section: first.get(section)}, {section: last.get(section)}):
            key = line.partition(":")[0].split(".")
            free = (section == "runtime" and key[1] not in _RUNTIME) or (
                section == "data" and key[1] in ("shards", "cache", "keep", "threads", "max_damaged")
            )
            if not free:
                yield line
