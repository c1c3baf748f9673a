"""Audits one stretch of a run: trains it again on each wanted number of ranks, and compares all that it left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from collagan_dist import __version__
from collagan_dist.audit import compare_tensors
from collagan_dist.audit.compare_lines import Expected, LineComparison, Noise, compare_lines, noise_of
from collagan_dist.audit.compare_tensors import Distance, Neighbours
from collagan_dist.audit.finding import AuditFinding, Verdict
from collagan_dist.audit.ranks import HowToTrain, NotComparable, Resources, how_to_train, machine_reasons
from collagan_dist.audit.record import LoggedPart, Removed, RunRecord, Stretch, config_differences, configuration
from collagan_dist.audit.rederive import Rederivation, Rederived
from collagan_dist.config.load import config_to_dict, differences
from collagan_dist.data.loading.order import planned_steps
from collagan_dist.errors import CheckpointError, ClusterError, ConfigError, DataError, NumericError
from collagan_dist.runs.checkpoint import LoadedCheckpoint, Unreadable
from collagan_dist.runs.checkpoint_state import config_changes
from collagan_dist.runs.run_folder import run_identity
from collagan_dist.units import format_things

# Of state.json: what the same training gives again.
_FACTS = ("samples", "seed", "skipped_batches", "bad_row", "manifest", "parser", "init")
# They differ among themselves by a factor of ten where the adversarial losses begin (docs/audit.md).
_TWINS = 4
_OTHER_PICTURES = (
    "pictures were decoded by another library or device, which moves their grey levels by more than roundings"
)
_SHOWN = 3  # of tensors and lines that differ


def audit_stretch(record: RunRecord, stretch: Stretch, given: Resources) -> Iterator[AuditFinding]:
    """Yield a finding for each number of ranks. Raises DataError for another data set, or one that cannot be read."""
    subject = f"steps {stretch}"
    try:
        last = record.load(stretch.end)
        first = record.load(stretch.start) if stretch.start else None
    except (Removed, Unreadable) as error:
        yield AuditFinding(subject, "not comparable", notes=(str(error),))
        return
    except CheckpointError as error:
        yield AuditFinding(subject, "damaged", wrong=(str(error),))
        return
    audit = _StretchAudit(record, stretch, given, first, last)
    for ranks in given.ranks:
        try:
            yield audit.compare(ranks)
        except NotComparable as error:
            yield AuditFinding(subject, "not comparable", format_things(ranks, "rank"), notes=(str(error),))


@dataclass
class _StretchAudit:
    record: RunRecord
    stretch: Stretch
    given: Resources
    first: LoadedCheckpoint | None
    last: LoadedCheckpoint
    # The first training of the stretch here, and its twins, which show what roundings do.
    _plain: tuple[Rederivation, Rederived] | None = field(default=None, init=False)
    _twins: list[Rederived] = field(default_factory=list, init=False)
    _noise: Noise = field(default_factory=dict, init=False)

    @cached_property
    def log(self) -> LoggedPart:
        return self.record.log(self.stretch)

    @cached_property
    def machine(self) -> dict[str, Any]:
        return self.last.state["machine"] or {}

    def compare(self, ranks: int) -> AuditFinding:
        """Train the stretch on `ranks` ranks and compare. Raises NotComparable."""
        wrong = [*self._check_configurations(), *self._left_out_unsaid()]
        how = how_to_train(self._configuration(), int(self.machine.get("ranks", 1)), ranks)
        job = Rederivation(self.stretch, how, self.first, self.last.state)
        finding = AuditFinding(f"steps {self.stretch}", "differs", format_things(ranks, "rank"), wrong=tuple(wrong))
        try:
            found = job.train(self.given.work / f"{self.stretch.end}-{ranks}")
        except (ConfigError, ClusterError) as error:  # of this machine, not of the run
            if wrong:
                return finding
            raise NotComparable(f"it cannot be trained here: {error}") from None
        except (CheckpointError, NumericError) as error:
            return replace(finding, wrong=(*wrong, f"it cannot be trained again: {error}"))
        self._plain = self._plain or (job, found)
        facts = ({key: side.state.get(key) for key in _FACTS} for side in (self.last, found.end))
        wrong += [f"{self.last.path}/state.json: {line}" for line in differences(*facts)]
        threads = found.end.state["machine"]["threads"]
        how_said = f"{format_things(ranks, 'rank')}, {threads} thread{'s' * (threads != '1')}"
        return self._judge(replace(finding, how=how_said, reasons=tuple(self._reasons(how, found))), how, found, wrong)

    def _judge(self, finding: AuditFinding, how: HowToTrain, found: Rederived, wrong: list[str]) -> AuditFinding:
        """Compare bits, and where they need not be equal, or are not, the size of the difference."""
        tensors = compare_tensors.differing(self.last.tensors, found.end.tensors)
        lines = compare_lines(self.log, found.rows, self._expected(how), None)
        count = sum(map(len, self.last.tensors.values()))
        compared = f"{format_things(count, 'tensor')}, {format_things(lines.compared, 'line')}"
        finding = replace(finding, compared=compared, notes=lines.left_out)
        if not (tensors or lines.differing or wrong):
            return replace(finding, verdict="equal")
        if not tensors and not finding.reasons:
            return replace(finding, wrong=(*wrong, *_shown("metrics.jsonl", lines.differing)))
        try:
            distance, lines = self._bounded(how, found, () if tensors else ("train",))
        except (CheckpointError, ClusterError, NumericError) as error:
            return _without_bounds(finding, wrong, "" if finding.reasons else _broken(tensors, count), str(error))
        finding = replace(finding, share=distance.share, bound=distance.bound)
        beyond = [*wrong, *_shown("", distance.beyond), *_shown("metrics.jsonl", lines.differing)]
        if not finding.reasons:
            size = "no larger than roundings make it" if not beyond else "larger than roundings make it"
            said = f"{_broken(tensors, count)}; the difference is {size}"
            return replace(finding, wrong=(*wrong, said, *beyond[len(wrong) :]))
        if not how.statistics:
            finding = replace(
                finding, notes=(*finding.notes, "running statistics: rank 0 kept those of its own share alone")
            )
        if beyond and not wrong and self._other_pictures(found):
            return replace(finding, verdict="undecided", notes=(*finding.notes, _OTHER_PICTURES, *beyond))
        if beyond:
            return replace(finding, wrong=tuple(beyond))
        return replace(finding, verdict="within" if distance.tells else "undecided")

    def _other_pictures(self, found: Rederived) -> bool:
        """Whether another library or device decodes pictures here than what the checkpoint says."""
        here = found.end.state["machine"]["decoder"]
        return bool(self.machine) and self.machine.get("decoder", here) != here

    def _bounded(self, how: HowToTrain, found: Rederived, exact: Sequence[str]) -> tuple[Distance, LineComparison]:
        """Compare within what roundings explain; where that is not enough, by what more twins show that they do.

        Lines of the kinds `exact` are compared exactly: where all tensors are equal, no loss on the way was another.
        """
        for twins in range(1, _TWINS + 1):
            self._train_twins(twins)
            distance = compare_tensors.within(self.last.tensors, found.end.tensors, self._neighbours(), how.statistics)
            lines = compare_lines(self.log, found.rows, self._expected(how), self._noise, exact)
            if not (distance.beyond or lines.differing):
                break
        return distance, lines

    def _train_twins(self, count: int) -> None:
        """Train until there are `count` twins of the first training here, each nudged by roundings at its beginning."""
        assert self._plain is not None
        job, plain = self._plain
        for number in range(len(self._twins), count):
            twin = job.train(self.given.work / f"{self.stretch.end}-nudged-{number}", nudged=number)
            self._twins.append(twin)
            self._noise = noise_of(plain.rows, twin.rows, self._noise)

    def _neighbours(self) -> Neighbours:
        assert self._plain is not None and self._twins[0].first is not None
        twins = [twin.end.tensors for twin in self._twins]
        return Neighbours(self._twins[0].first.tensors, self._plain[1].end.tensors, twins)

    def _configuration(self) -> dict[str, Any]:
        """Return the configuration of the stretch as plain data, with the data set and threads here."""
        tree = config_to_dict(configuration(self.last.state, self.last.path))
        self.given.set_in(tree, self.machine)
        # It may take as long as the stretch, and the last step is always evaluated here.
        due = self.log.covers(self.stretch) and not self.log.inside(self.stretch) and self._due("eval")
        if not due and not any(row["kind"] == "eval" for row in self.log.rows):
            tree["evaluate"]["every"] = 0
        return tree

    def _due(self, kind: str) -> list[int]:
        """Return the steps at which the run had to log a kind of line, by the configuration of the end."""
        config = configuration(self.last.state, self.last.path)
        every = {"train": config.log.every, "eval": config.evaluate.every}[kind]
        total = planned_steps(config.schedule, self.given.manifest.samples(config.data.split))
        steps = range(self.stretch.start + 1, self.stretch.end + 1)
        return [step for step in steps if every and (step % every == 0 or step == total)]

    def _expected(self, how: HowToTrain) -> Expected:
        at_end = frozenset(kind for kind in ("train", "eval") if self.stretch.end in self._due(kind))
        return Expected(self.stretch, how.statistics, at_end)

    def _check_configurations(self) -> list[str]:
        """Return what of the configurations cannot be. Raises NotComparable where the log says that they changed on the way."""
        self._check_identity()
        inside = self.log.inside(self.stretch)
        changed = list(config_differences(self.first.state["config"], self.last.state["config"])) if self.first else []
        changed_inside = [line for _, row in inside for line in row.get("changed", ())]
        if changed_inside or (changed and inside):
            steps = ", ".join(str(step) for step, _ in inside)
            raise NotComparable(
                f"the configuration changed in a start at step {steps}: {'; '.join([*changed, *changed_inside])}"
            )
        started = any(step == self.stretch.start for step, _ in self.log.starts)
        if changed and self.log.known and not started:
            where = f"{self.last.path}/state.json: another configuration than that of step {self.stretch.start}, with no start between them"
            return [f"{where}: {'; '.join(changed)}"]
        return []

    def _left_out_unsaid(self) -> list[str]:
        """Return which batches were left out by the checkpoint alone: whenever training comes to one, it logs that."""
        if not self.log.covers(self.stretch):
            return []  # which a note says
        steps = sorted(step + 1 for step in self.last.state["skipped_batches"])  # there from 0, in the log from 1
        unsaid = [n for n in steps if self.stretch.start < n <= self.stretch.end and n not in self.log.left_out]
        where = f"{self.last.path}/state.json: skipped_batches"
        return [f"{where}: metrics.jsonl does not say that step {', '.join(map(str, unsaid))} was left out"] * bool(
            unsaid
        )

    def _check_identity(self) -> None:
        """Raise NotComparable or DataError where data set, parser or initial weights are others by now."""
        if self.last.state["manifest"] != self.given.manifest.hash:
            where = f"{self.given.manifest.folder}: is another data set than that of {self.last.path}"
            raise DataError(f"{where} (hashes of manifest.json differ); give the run's own by --data")
        try:
            config = configuration(self.last.state, self.last.path)
            # Where a checkpoint is the beginning, the initial weights are of no use, and may be gone.
            init = self.last.state["init"] if self.stretch.start else None
            changes = config_changes(
                self.last.path, self.last.state, run_identity(config, self.given.manifest.hash, init)
            )
        except (ConfigError, CheckpointError) as error:
            raise NotComparable(str(error)) from None
        if changes:
            raise NotComparable(f"other weights than the run's: {'; '.join(changes)}")

    def _reasons(self, how: HowToTrain, found: Rederived) -> Iterator[str]:
        """Yield why bits need not be equal: what computes here is not what computed then, or gives no promise."""
        yield from how.changed
        if not self.machine:
            yield "the checkpoint does not say what computed it"
        yield from differences({"version": self.last.state.get("version")}, {"version": __version__})
        for step, row in self.log.inside(self.stretch):
            yield from (f"from step {step} on {line}" for line in row.get("machine", ()))
        yield from machine_reasons(self.machine, found.end.state["machine"], how.tree["runtime"]["precision"])


def _shown(where: str, texts: Sequence[str]) -> list[str]:
    """Return the first of the texts, and how many more there are."""
    head = f"{where}: " if where else ""
    more = [f"{head}and {len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else []
    return [*(f"{head}{text}" for text in texts[:_SHOWN]), *more]


def _broken(tensors: Sequence[str], count: int) -> str:
    return f"bits differ, first in {tensors[0]}, in {len(tensors)} of {count} tensors, although all that is recorded is equal"


def _without_bounds(finding: AuditFinding, wrong: list[str], broken: str, error: str) -> AuditFinding:
    """Return what is known where a twin cannot be trained: something differs, and nothing says how far it may."""
    if broken:
        return replace(finding, wrong=(*wrong, broken))
    note = f"a training that is moved by roundings fails, so that there is no bound: {error}"
    verdict: Verdict = "differs" if wrong else "undecided"
    return replace(finding, verdict=verdict, wrong=tuple(wrong), notes=(*finding.notes, note))
