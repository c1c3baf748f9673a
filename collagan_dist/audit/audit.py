"""An audit of a run folder: which stretches and evaluations are chosen, on how many ranks, and the result of all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from collagan_dist import files
from collagan_dist.audit.evaluations import audit_evaluation, evaluation_files
from collagan_dist.audit.finding import Finding
from collagan_dist.audit.record import RunRecord, Stretch, configuration
from collagan_dist.audit.stretches import Resources, audit_stretch
from collagan_dist.config.load import config_to_dict, validate_config
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.data.shards.quick_check import open_shards
from collagan_dist.errors import CheckpointError, ConfigError
from collagan_dist.runs.checkpoint_state import read_state


@dataclass(frozen=True)
class AuditRequest:
    """What to audit. `ranks` () and `threads` None are those of the run; `max_steps` None lets a stretch have any length."""

    seed: int
    stretches: int = 1
    evaluations: int = 1
    max_steps: int | None = None
    ranks: tuple[int, ...] = ()
    threads: int | None = None
    data: str | None = None


@dataclass(frozen=True)
class Audit:
    """The result of an audit. `notes` say what was not looked at."""

    run: Path
    seed: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """ "failed" if anything differs, "passed" if something was confirmed and nothing differs, else "nothing confirmed"."""
        if any(finding.failed for finding in self.findings):
            return "failed"
        return "passed" if any(finding.confirmed for finding in self.findings) else "nothing confirmed"

    def as_dict(self) -> dict[str, Any]:
        about = {"run": str(self.run.resolve()), "seed": self.seed, "verdict": self.verdict}
        return {**about, "findings": [asdict(finding) for finding in self.findings], "notes": list(self.notes)}


def audit(folder: Path, request: AuditRequest, tell: Callable[[str], object] = lambda text: None) -> Audit:
    """Audit a run folder, which is only read. `tell` is told what is computed next.

    Raises ConfigError where nothing can be audited, DataError without the run's data set.
    """
    record = RunRecord(folder)
    random = Random(request.seed)
    stretches, notes = _choose(record, request, random)
    evaluations = evaluation_files(record)
    chosen = random.sample(evaluations, min(request.evaluations, len(evaluations)))
    if request.evaluations and not evaluations:
        notes.append("evaluations: the run has none")
    if not stretches and not chosen:
        raise ConfigError(f"{folder}: nothing to audit; {'; '.join(notes)}")
    findings: list[Finding] = []
    with files.temporary_folder("collagan-audit-") as work:
        manifest = _data(record, request.data)
        for stretch, ranks in zip(stretches, _ranks(record, request, len(stretches)), strict=True):
            tell(f"steps {stretch} on {' and '.join(map(str, ranks))} rank(s)")
            findings += audit_stretch(record, stretch, Resources(manifest, ranks, request.threads, work))
        for path in chosen:
            tell(f"evaluation {path.stem}")
            findings.append(audit_evaluation(record, path, manifest, random, work))
    return Audit(folder, request.seed, tuple(findings), tuple(notes))


def _choose(record: RunRecord, request: AuditRequest, random: Random) -> tuple[list[Stretch], list[str]]:
    """Return the stretches to train again, in their order, and notes on those that were out of question."""
    every = record.stretches()
    if request.max_steps is not None:
        fits = [one for one in every if one.steps <= request.max_steps]
        shortest = min(one.steps for one in every)
        notes = (
            []
            if fits or not request.stretches
            else [f"stretches: the shortest has {shortest} steps (--max-steps {request.max_steps})"]
        )
    else:
        # Of a long run the kept checkpoints are near its end, and the way to the first of them is all of it.
        longest = max((one.steps for one in every[1:]), default=every[0].steps)
        fits = [one for one in every if one.steps <= longest]
        notes = []
        if every[0] not in fits:
            notes.append(
                f"steps {every[0]}: longer than the stretches between checkpoints; --max-steps {every[0].steps} lets it be chosen"
            )
    return sorted(random.sample(fits, min(request.stretches, len(fits))), key=lambda one: one.end), notes


def _ranks(record: RunRecord, request: AuditRequest, stretches: int) -> Iterator[Sequence[int]]:
    """Yield the numbers of ranks for each stretch: by default the run's own, and for the first stretch another one too."""
    if request.ranks:
        yield from [request.ranks] * stretches
        return
    own, batch = _recorded(record)
    here = torch.cuda.device_count() or len(os.sched_getaffinity(0))
    other = 1 if own > 1 else 2
    fits = other <= here and batch % other == 0 and batch // other >= 2
    usual = (own,) if own <= here else (1,)
    for number in range(stretches):
        yield (*usual, other) if number == 0 and fits and other not in usual else usual


def _recorded(record: RunRecord) -> tuple[int, int]:
    """Return the number of ranks of the newest checkpoint that can be read, and the global batch; 1 and 1 without one."""
    for step in reversed(record.paths.committed_steps()):
        try:
            state = read_state(record.paths.checkpoint(step))
            return int((state["machine"] or {}).get("ranks", 1)), int(state["config"]["schedule"]["batch"])
        except (OSError, CheckpointError, KeyError, TypeError, ValueError):
            continue  # the audit of its stretch says what is wrong with it
    return 1, 1


def _data(record: RunRecord, shards: str | None) -> Manifest:
    """Open the run's data set, wherever it lies now. Raises ConfigError, DataError."""
    for step in reversed(record.paths.committed_steps()):
        try:
            path = record.paths.checkpoint(step)
            tree = config_to_dict(configuration(read_state(path), path))
        except (OSError, CheckpointError):
            continue
        tree["data"]["shards"] = shards or record.shards() or tree["data"]["shards"]
        return open_shards(validate_config(tree, f"{path}: the stored configuration"))
    raise CheckpointError(f"{record.folder}: no checkpoint says what the run was; it cannot be audited")
