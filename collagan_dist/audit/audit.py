"""An audit of a run folder: which stretches and evaluations are chosen, on how many ranks, and the result of all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from collagan_dist import files
from collagan_dist.audit.evaluations import audit_evaluation, evaluation_files, ranks_of_evaluation
from collagan_dist.audit.finding import AuditFinding
from collagan_dist.audit.folder_files import audit_config, audit_headline, audit_log
from collagan_dist.audit.ranks import Resources
from collagan_dist.audit.record import RunRecord, Stretch, configuration
from collagan_dist.audit.stretches import audit_stretch
from collagan_dist.audit.table_cells import audit_cells, audit_rows
from collagan_dist.config.load import config_to_dict, validate_config
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.data.shards.quick_check import open_shards
from collagan_dist.errors import CheckpointError, ConfigError, DataError
from collagan_dist.runs.checkpoint_state import read_state
from collagan_dist.runs.layout import RunPaths


@dataclass(frozen=True)
class AuditRequest:
    """What to audit. `ranks` () and `threads` None are those of the run; `max_steps` None lets a stretch have any length.

    `runs` is the number of runs of a sweep or a reproduction.
    """

    seed: int
    stretches: int = 1
    evaluations: int = 1
    max_steps: int | None = None
    ranks: tuple[int, ...] = ()
    threads: int | None = None
    data: str | None = None
    runs: int = 1


@dataclass(frozen=True)
class Audit:
    """The result of an audit. `notes` say what was not looked at."""

    run: Path
    seed: int
    findings: tuple[AuditFinding, ...]
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
    """Audit a run folder, or random runs of a sweep or a reproduction. They are only read. `tell` is told what is computed next.

    Raises ConfigError where nothing can be audited, DataError without the run's data set.
    """
    random = Random(request.seed)
    findings: list[AuditFinding] = []
    notes: list[str] = []
    runs = _runs(folder, request.runs, random)
    with files.temporary_folder("collagan-audit-") as work:
        for run in runs:
            name = "" if run == folder else f"{run.name}: "
            one = _RunAudit(RunRecord(run), request, random, work / run.name)
            findings += [replace(found, subject=name + found.subject) for found in one.findings(_naming(name, tell))]
            notes += [name + note for note in one.notes]
            if run != folder:
                cells = [audit_cells(folder, run, path) for path in one.evaluations]
                findings += [found for found in cells if found is not None]
    findings += audit_rows(folder, runs)
    if not findings:
        why = "; ".join(notes) or "--stretches and --evaluations are 0"
        raise ConfigError(f"{folder}: nothing to audit; {why}")
    return Audit(folder, request.seed, tuple(findings), tuple(notes))


def _naming(name: str, tell: Callable[[str], object]) -> Callable[[str], object]:
    return lambda text: tell(name + text)


def _runs(folder: Path, count: int, random: Random) -> list[Path]:
    """Return the folder of a run; of a sweep or a reproduction those of some runs that have a checkpoint. Raises ConfigError."""
    if RunPaths(folder).exists():
        return [folder]
    inside = [path for part in ("trials", "runs") for path in sorted(folder.glob(f"{part}/[!.]*"))]
    trained = [path for path in inside if RunPaths(path).exists() and RunPaths(path).committed_steps()]
    if not trained:
        raise ConfigError(
            f"{folder}: is no run folder (no config.yaml), and no sweep or reproduction with runs that have checkpoints"
        )
    return random.sample(trained, min(count, len(trained)))


class _RunAudit:
    """The audit of one run: what is chosen of it, and notes on what is not."""

    def __init__(self, record: RunRecord, request: AuditRequest, random: Random, work: Path) -> None:
        self.record, self.request, self.random, self.work = record, request, random, work
        self.stretches, self.notes = _choose(record, request, random)
        every = evaluation_files(record)
        self.evaluations = random.sample(every, min(request.evaluations, len(every)))
        beside = [
            audit_config(record),
            audit_log(record),
            audit_headline(record, every) if request.evaluations else None,
        ]
        self.beside = [found for found in beside if found]
        if request.evaluations and not every:
            self.notes.append("evaluations: the run has none")

    def findings(self, tell: Callable[[str], object]) -> Iterator[AuditFinding]:
        """Yield what is found, one comparison after the other. Raises DataError."""
        yield from self.beside
        if not self.stretches and not self.evaluations:
            return
        manifest = _data(self.record, self.request.data)
        for number, stretch in enumerate(self.stretches):
            ranks = _ranks(self.record, self.request, stretch, first=number == 0)
            tell(f"steps {stretch} on {' and '.join(map(str, ranks))} rank(s)")
            yield from audit_stretch(self.record, stretch, Resources(manifest, ranks, self.request.threads, self.work))
        for number, path in enumerate(self.evaluations):
            ranks = self.request.ranks or ranks_of_evaluation(path, other=number == 0)
            tell(f"evaluation {path.stem} on {' and '.join(map(str, ranks))} rank(s)")
            given = Resources(manifest, ranks, self.request.threads, self.work)
            yield from audit_evaluation(self.record, path, given, self.random)


def _choose(record: RunRecord, request: AuditRequest, random: Random) -> tuple[list[Stretch], list[str]]:
    """Return the stretches to train again, in their order, and notes on those that were out of question."""
    notes: list[str] = []
    every: list[Stretch] = []
    taken = record.taken_over()
    for stretch in record.stretches():
        if donors := [f"trial {taken[step]} at step {step}" for step in taken if stretch.start < step <= stretch.end]:
            notes.append(f"steps {stretch}: its networks were taken from {', '.join(donors)}")
        else:
            every.append(stretch)
    if not every:
        return [], notes
    if request.max_steps is not None:
        fits = [one for one in every if one.steps <= request.max_steps]
        shortest = min(one.steps for one in every)
        if request.stretches and not fits:
            notes.append(f"stretches: the shortest has {shortest} steps (--max-steps {request.max_steps})")
    else:
        # Of a long run the kept checkpoints are near its end, and the way to the first of them is all of it.
        longest = max((one.steps for one in every[1:]), default=every[0].steps)
        fits = [one for one in every if one.steps <= longest]
        if every[0] not in fits:
            notes.append(
                f"steps {every[0]}: longer than the stretches between checkpoints; --max-steps {every[0].steps} lets it be chosen"
            )
    return sorted(random.sample(fits, min(request.stretches, len(fits))), key=lambda one: one.end), notes


def _ranks(record: RunRecord, request: AuditRequest, stretch: Stretch, first: bool) -> Sequence[int]:
    """Return the numbers of ranks for a stretch: by default those that trained it, and for the first stretch another one too."""
    if request.ranks:
        return request.ranks
    own, batch = _recorded(record, stretch)
    here = torch.cuda.device_count() or len(os.sched_getaffinity(0))
    other = 1 if own > 1 else 2
    fits = other <= here and batch % other == 0 and batch // other >= 2
    usual = (own,) if own <= here else (1,)
    return (*usual, other) if first and fits and other not in usual else usual


def _recorded(record: RunRecord, stretch: Stretch) -> tuple[int, int]:
    """Return the number of ranks that trained a stretch, and the global batch; 1 and 1 where its checkpoint cannot be read."""
    with suppress(OSError, CheckpointError, KeyError, TypeError, ValueError):
        state = read_state(record.paths.checkpoint(stretch.end))
        return int((state["machine"] or {}).get("ranks", 1)), int(state["config"]["schedule"]["batch"])
    return 1, 1


def _data(record: RunRecord, shards: str | None) -> Manifest:
    """Open the run's data set, wherever it lies now. Raises ConfigError, DataError."""
    for path, state in record.states():
        try:
            tree = config_to_dict(configuration(state, path))
        except CheckpointError:
            continue
        tree["data"]["shards"] = shards or record.shards() or tree["data"]["shards"]
        try:
            return open_shards(validate_config(tree, f"{path}: the stored configuration"))
        except DataError as error:
            hint = "; if the run's data set was moved, give its folder by --data" if shards is None else ""
            raise DataError(f"{error}{hint}") from None
    raise CheckpointError(f"{record.folder}: no checkpoint says what the run was; it cannot be audited")
