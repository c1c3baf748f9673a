"""A whole sweep: what it is checked, begun or continued, done on a Ray cluster, and told. The same call continues."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from collagan_dist import files
from collagan_dist.config.load import config_to_dict
from collagan_dist.config.tree import Config
from collagan_dist.distributed.stop_request import StopRequest
from collagan_dist.distributed.world import job_id, start_label
from collagan_dist.errors import ClusterError, CollaganError, Interrupted
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.tensorboard import write_hparams
from collagan_dist.sweep import results, schedule, search
from collagan_dist.sweep.prepare import PreparedSweep, SweepOptions, check_owner, continued, prepare
from collagan_dist.sweep.ray_cluster import open_cluster
from collagan_dist.sweep.schedule import DONE, WAIT, Plan, Segment
from collagan_dist.sweep.segment import WORKER_TAINTED, SegmentSpec
from collagan_dist.sweep.trial import (
    Trial,
    read_trials,
    retryable,
    samples_trained,
    trial_dir,
    with_results,
    write_trial,
)
from collagan_dist.sweep.tuner import TrialResources, check_resources, execute

_MAX_RESTARTS = 3  # of a segment, by what the cluster did to it


def run_sweep(
    options: SweepOptions, stop: StopRequest, show: Callable[[SweepController], None] = lambda sweep: None
) -> int:
    """Do what is left of a sweep; the exit code. `show` is called several times a second. Raises Interrupted."""
    prepared = prepare(options)
    with files.command_lock(options.out, "collagan sweep"):
        check_owner(options.out)
        fixed = continued(prepared)
        with open_cluster(options.ray) as ray:
            resources = options.resources.on(ray)
            check_resources(ray, resources)
            current = SweepController(prepared, fixed, resources, stop, show)
            try:
                execute(current, ray, resources, current.out)
            except Exception as error:
                current.close("interrupted")
                raise _in_our_words(error, ray) from error
        return current.conclude()


class SweepController:
    """The trials of a sweep while it runs. Its methods are called by Tune's loop, one at a time (tuner.Source)."""

    def __init__(
        self,
        prepared: PreparedSweep,
        fixed: dict[str, Any],
        resources: TrialResources,
        stop: StopRequest,
        show: Callable[[SweepController], None],
    ) -> None:
        self.prepared, self.fixed, self.resources, self.stop, self._show = prepared, fixed, resources, stop, show
        self.out = prepared.options.out.absolute()
        self.plan = prepared.plan
        recover(self.out)
        self.trials = [retryable(trial) for trial in read_trials(self.out)]
        self.began, self.before = time.monotonic(), float(fixed.get("seconds") or 0.0)
        self.samples_before = self.samples()
        self.log: list[str] = []
        self.over = False
        self.held_up: str | None = None  # what keeps all segments from beginning
        self._tries: dict[int, int] = {}  # restarts of a trial since its last segment that went well
        self._mark = self.out / f".stop-{secrets.token_hex(4)}"
        for old in self.out.glob(".stop-*"):
            old.unlink(missing_ok=True)
        for name in ("requeue", "failed"):
            (self.out / name).unlink(missing_ok=True)
        self._write("running")

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def samples(self) -> int:
        """Trained and saved, over all trials."""
        return samples_trained(self.out, self.trials)

    def next(self) -> tuple[int, SegmentSpec] | str:
        for exchange in schedule.exchanges(self.plan, self.trials):
            self._exchange(exchange)
        segment = schedule.next_segment(self.plan, self.trials)
        if segment in (WAIT, DONE):
            return str(segment)
        assert isinstance(segment, Segment)
        if segment.number == len(self.trials):
            self.trials.append(new_trial(self.plan, self.trials))
        self._put(replace(self.trials[segment.number], until=segment.samples, running=True))
        return segment.number, self._work(self.trials[segment.number])

    def ended(self, number: int, outcome: dict[str, Any]) -> None:
        trial = self._stands(self.trials[number], int(outcome.get("steps") or 0))
        self._tries.pop(number, None)
        if outcome.get("failed"):
            code, reason = outcome["failed"]
            trial = replace(trial, failure=(int(code), str(reason)))
        elif not outcome.get("interrupted") and not trial.has(trial.until):
            trial = replace(trial, failure=(CollaganError.exit_code, f"trained to {trial.until} samples, but no evaluation of that step is in its "
                                            "metrics.jsonl; remove its checkpoints to train it again"))  # fmt: skip
        elif not outcome.get("interrupted") and self.plan.metric not in (trial.at(trial.until) or {}):
            trial = replace(trial, failure=(6, f"its {self.plan.metric} is no number after {trial.until} samples"))
        self._settle(trial)

    def lost(self, number: int, reason: str) -> None:
        trial = self._stands(self.trials[number])
        if reason == WORKER_TAINTED:  # no fault of this trial, nor of a machine
            self._put(trial)
            return
        self._tries[number] = self._tries.get(number, 0) + 1
        if self._tries[number] <= _MAX_RESTARTS:
            self.say(f"trial {number} starts again from its newest checkpoint: {reason}")
            self._put(replace(trial, restarts=trial.restarts + 1))
            return
        text = f"{reason}; given up after {_MAX_RESTARTS} restarts, the same command tries it again"
        self._settle(replace(trial, failure=(ClusterError.exit_code, text)))

    def tick(self) -> bool:
        if self.stop and not self._mark.exists():
            self.say("asked to stop: running trials save and end")
            self._mark.touch()
        self._show(self)
        return bool(self.stop)

    def waits(self, why: str | None) -> None:
        if why != self.held_up:
            self.say(
                f"{why}: the sweep waits for room (what it has is kept, and the same command continues)"
                if why
                else "there is room again"
            )
        self.held_up = why

    def say(self, text: str) -> None:
        """A line for people, which `show` brings out."""
        self.log.append(text)

    def close(self, state: str) -> None:
        self.trials = [self._stands(trial) if trial.running else trial for trial in self.trials]
        self._write(state)
        self._mark.unlink(missing_ok=True)

    def conclude(self) -> int:
        """Write what the sweep came to; the exit code. Raises Interrupted."""
        ended = schedule.next_segment(self.plan, [replace(trial, running=False) for trial in self.trials]) == DONE
        to_try_again = [t.failure[0] for t in self.trials if t.failure and retryable(t).failure is None]
        self.over = ended and not to_try_again
        self.close("done" if self.over else "interrupted")
        self._show(self)
        self._tell_tensorboard()
        _report(self.out)
        if not ended:
            if job_id():
                files.write_text(self.out / "requeue", f"{start_label()}\n")
            raise Interrupted(
                f"stopped; what was trained is kept in {self.prepared.options.out}, and the same command continues"
            )
        codes = to_try_again or [trial.failure[0] for trial in self.trials if trial.failure]
        return codes[0] if codes and (to_try_again or len(codes) == len(self.trials)) else 0

    def _tell_tensorboard(self) -> None:
        """Each trial's values beside its last metrics, for TensorBoard's page of hyperparameters."""
        for trial in self.trials:
            place = trial_dir(self.out, trial)
            if trial.reached and RunPaths(place).tensorboard.is_dir():
                with suppress(CollaganError, OSError):  # pictures of what is written elsewhere too
                    write_hparams(place, trial.values, trial.results[trial.reached])

    def _work(self, trial: Trial) -> SegmentSpec:
        config = trial_config(self.prepared, trial, self.resources)
        place = trial_dir(self.out, trial)
        return SegmentSpec(
            name=f"{self.out.name}/{trial.name}", run=str(place), config=config_to_dict(config), until=trial.steps(trial.until),
            workers=self.resources.workers, gpus=bool(self.resources.gpus), allow_change=bool(trial.lineage), stop=str(self._mark),
        )  # fmt: skip

    def _stands(self, trial: Trial, saved: int = 0) -> Trial:
        """A trial of which no segment runs any more, as its folder has it; see trial.with_results."""
        return replace(with_results(self.out, trial, saved), running=False)

    def _exchange(self, exchange: schedule.Exchange) -> None:
        member, donor = self.trials[exchange.number], self.trials[exchange.donor]
        step = member.steps(exchange.at)
        adopt(trial_dir(self.out, member), trial_dir(self.out, donor), step)
        entry = {"at": exchange.at, "from": exchange.donor, "values": member.values}
        self._put(replace(member, values=exchange.values, lineage=(*member.lineage, entry)))
        self.say(f"trial {exchange.number} takes the networks of trial {exchange.donor} at {exchange.at:,} samples")

    def _settle(self, trial: Trial) -> None:
        self._put(trial)
        self._write("running")
        if trial.failure:
            self.say(f"trial {trial.number} failed: {trial.failure[1]}")
        elif (scores := trial.at(trial.until)) is not None:
            told = ", ".join(f"{name} {scores[name]:.4g}" for name in self.plan.space.metrics if name in scores)
            self.say(f"trial {trial.number}: {told} after {trial.until:,} samples")

    def _put(self, trial: Trial) -> None:
        self.trials[trial.number] = trial
        write_trial(self.out, trial)

    def _write(self, state: str) -> None:
        results.write_csv(self.out, self.plan, self.trials, over=state == "done")
        results.write_summary(self.out, self.plan, self.trials, self.fixed, state, self.seconds)
        results.write_best(self.out, self.plan, self.trials)


def new_trial(plan: Plan, trials: Sequence[Trial]) -> Trial:
    """The next new trial: the paper's λ and the base configuration first, then what the search proposes, at last those that confirm.

    What a sweep grew by comes after those that confirmed what it had found before.
    """
    starts, searched = plan.space.starts(), sum(trial.role != "confirm" for trial in trials)
    seed = plan.seed
    notes: dict[str, Any] = {}
    if searched >= plan.trials:
        role, (values, seed) = "confirm", schedule.unconfirmed(plan, trials)[0]
    elif searched < len(starts):
        role, values = starts[searched]
    else:
        role, number = "search", searched - len(starts)
        values, notes = search.propose(plan.space, plan.seed, number, plan.trials, results.observations(plan, trials))
    return Trial(len(trials), role, values, seed, plan.space.config(values).schedule.batch, notes)


def trial_config(prepared: PreparedSweep, trial: Trial, resources: TrialResources) -> Config:
    """What a trial trains: the base configuration with its values, as long as every other one, evaluated where it ends."""
    base = prepared.base
    threads = max(1, int(resources.cpus))
    steps = trial.steps(prepared.plan.total)
    more: dict[str, Any] = {"seed": trial.seed, "schedule.steps": steps, "evaluate.every": base.evaluate.every or steps}
    if base.model.gfc.parser:
        more["model.gfc.parser"] = str(Path(base.model.gfc.parser).absolute())
    if find_spec("tensorboardX"):
        more["log.sinks"] = list(dict.fromkeys([*base.log.sinks, "tensorboard"]))
    more |= {f"{part}.threads": threads for part in ("runtime", "data") if not getattr(base, part).threads}
    return prepared.plan.space.config(trial.values, **more)


def adopt(member: Path, donor: Path, step: int) -> None:
    """Give a run another's checkpoint of a step in place of its own: links where the file system has them."""
    target = RunPaths(member).checkpoint(step)
    beside, own = target.with_name(f".{target.name}.adopted"), target.with_name(f".{target.name}.own")
    for old in (beside, own):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(RunPaths(donor).checkpoint(step), beside, copy_function=_link)
    if target.exists():
        target.rename(own)
    beside.rename(target)
    files.fsync_folder(target.parent)
    shutil.rmtree(own, ignore_errors=True)


def recover(out: Path) -> None:
    """Put back what a kill in the middle of `adopt` left aside."""
    for own in out.glob("trials/t*/checkpoints/.step-*.own"):
        target = own.with_name(own.name.removeprefix(".").removesuffix(".own"))
        if not target.exists():
            own.rename(target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _report(out: Path) -> None:
    from collagan_dist.report.page import write_report

    try:
        write_report([out])
    except CollaganError as error:
        print(f"warning: {error}", file=sys.stderr, flush=True)


def _in_our_words(error: Exception, ray: Any) -> Exception:
    """What Ray says when the cluster is gone, as an error for people."""
    if isinstance(error, CollaganError):
        return error
    if isinstance(error, ray.exceptions.RayError | ConnectionError):
        return ClusterError(
            f"the Ray cluster is gone ({(str(error).splitlines() or [''])[0]}); the same command continues"
        )
    return error
