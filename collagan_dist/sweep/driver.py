"""`collagan sweep`: prepares a sweep, runs its trials on a Ray cluster, and writes the results. The same call resumes it."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from collagan_dist import files
from collagan_dist.config.load import config_to_dict
from collagan_dist.distributed.stop_request import StopRequest
from collagan_dist.distributed.world import job_id, start_label
from collagan_dist.errors import CheckpointError, ClusterError, CollaganError, DataError, Interrupted, NumericError
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.tensorboard import write_hparams
from collagan_dist.sweep import results, schedule
from collagan_dist.sweep.effects import sweep_warnings
from collagan_dist.sweep.new_trial import new_trial, trial_config
from collagan_dist.sweep.nodes import TrialLosses
from collagan_dist.sweep.prepare import (
    PreparedSweep,
    SweepOptions,
    check_owner,
    constant_summary,
    need_of_sweep,
    prepare,
)
from collagan_dist.sweep.ray_cluster import open_cluster
from collagan_dist.sweep.resources import TrialResources
from collagan_dist.sweep.room import Room, open_room
from collagan_dist.sweep.schedule import DONE, WAIT, Segment
from collagan_dist.sweep.segment import SegmentSpec
from collagan_dist.sweep.trial import (
    Trial,
    adopt_checkpoint,
    keep_newest_checkpoint,
    read_trials,
    samples_trained,
    trial_dir,
    undo_interrupted_adoptions,
    with_results,
    without_retryable_failure,
    write_trial,
)  # fmt: skip
from collagan_dist.sweep.tuner import run_tune
from collagan_dist.sweep.worker import WORKER_TAINTED

logger = logging.getLogger(__name__)

# With which a segment ends whose node does not see the shards, or takes no checkpoint, or reads another one than was written.
_OF_NODES = (DataError.exit_code, CheckpointError.exit_code)
_MAX_RESTARTS = 3  # in a row after losses by the cluster, with no checkpoint in between


def run_sweep(
    options: SweepOptions, stop: StopRequest, show: Callable[[SweepController], None] = lambda controller: None
) -> int:
    """Do what is left of a sweep and return the exit code. `show` is called several times a second. Raises Interrupted."""
    prepared = prepare(options)
    with files.command_lock(options.out, "collagan sweep"):
        check_owner(options.out)
        warnings = sweep_warnings(prepared)
        constants = constant_summary(prepared) | {"warnings": warnings}
        for warning in warnings:
            logger.warning(f"warning: {warning}")
        with open_cluster(options.ray, options.dashboard, _imports(options.resources)) as ray:
            room = open_room(ray, options.resources, options.concurrent, own=options.ray is None)
            need_of_sweep(prepared, room.slots).check()
            controller = SweepController(prepared, constants, room, stop, show)
            try:
                run_tune(controller, room, controller.out)
                controller.stop_clock()  # what follows is the end of Ray
            except Exception as error:
                controller.close("interrupted")
                raise _readable(error, ray) from error
        return controller.conclude()


def _imports(resources: TrialResources) -> tuple[str, ...]:
    """Return what processes of a cluster of our own import as it starts: torch takes seconds that the driver has work for."""
    # Ray starts a process for each CPU at once. Where trials take GPUs, or many CPUs each, most of them would not be used.
    gpus = resources.gpus if resources.gpus is not None else any(Path("/dev").glob("nvidia[0-9]*"))
    return () if gpus or resources.cpus > 2 else ("ray.tune", "collagan_dist.training.loop")


class SweepController:
    """The trials of a running sweep: hands out segments and records their outcomes (tuner.SegmentSource).

    Every change of a trial is written to its trial.json before anything is started, so a kill at any moment loses nothing.
    """

    def __init__(
        self, prepared: PreparedSweep, constants: dict[str, Any], room: Room, stop: StopRequest,
        show: Callable[[SweepController], None],
    ) -> None:  # fmt: skip
        self.prepared, self.plan, self.room = prepared, prepared.plan, room
        self._constants, self._stop, self._show = constants, stop, show
        self.out = prepared.options.out.absolute()
        undo_interrupted_adoptions(self.out)
        self.trials = [without_retryable_failure(trial) for trial in read_trials(self.out)]
        for trial in tuple(self.trials):
            if trial.failed or trial.evaluated_at(trial.until):  # a kill came before their checkpoints were removed
                keep_newest_checkpoint(self.out, trial)
            if (judged := self._judged(trial)) != trial:  # or before this was seen
                self._update(judged)
        self.started_at, self._seconds_before = time.monotonic(), float(constants.get("seconds") or 0.0)
        self._stopped_at: float | None = None
        self.samples_before = samples_trained(self.out, self.trials)
        self.messages: list[str] = []  # for people; `show` prints them
        self.finished = False
        self.waiting: Set[int] = frozenset()  # numbers of trials whose segment has no place yet
        self.waiting_reason: str | None = None
        self._losses = TrialLosses()
        self._asked_to_end = False
        # A name of its own for each start: a worker that an earlier start left behind must not take this start's file for its own.
        self._stop_file = self.out / f".stop-{secrets.token_hex(4)}"
        for leftover in (*self.out.glob(".stop-*"), self.out / "requeue", self.out / "failed"):
            leftover.unlink(missing_ok=True)
        self._write_results("running")

    # What Tune asks for and reports

    def next_segment(self) -> tuple[int, SegmentSpec] | str:
        for exploit in schedule.due_exploits(self.plan, self.trials):
            self._carry_out(exploit)
        segment = schedule.next_segment(self.plan, self.trials)
        if segment in (WAIT, DONE):
            return str(segment)
        assert isinstance(segment, Segment)
        if segment.number == len(self.trials):
            self.trials.append(new_trial(self.plan, self.trials))
        self._update(replace(self.trials[segment.number], until=segment.samples, running=True))
        return segment.number, self._spec(self.trials[segment.number])

    def segment_ended(self, number: int, outcome: dict[str, Any], nodes: Sequence[str]) -> None:
        failed = outcome.get("failed")
        if failed and failed[0] in _OF_NODES and not self.room.left_out.keys().isdisjoint(nodes):
            # It was handed out before its node was left out: what fails there is the node's fault.
            self.segment_lost(number, str(failed[1]), nodes)
            return
        # The outcome's step is given along: on network storage the listing of a folder can lag behind what a worker wrote.
        trial = self._ended(self.trials[number], int(outcome.get("steps") or 0))
        self._losses.ended(number)
        if failed:
            code, reason = failed
            trial = replace(trial, failure=(int(code), str(reason)))
        elif not outcome.get("interrupted") and not trial.evaluated_at(trial.until):
            reason = f"its metrics.jsonl has no evaluation at {trial.until} samples; remove its checkpoints to train it again"
            trial = replace(trial, failure=(CollaganError.exit_code, reason))
        else:
            trial = self._judged(trial)
        self._record_result(trial)
        if trial.failure and trial.failure[0] in _OF_NODES:
            self._failed_on(nodes, trial, trial.failure[1])
        else:
            self.room.worked(nodes)

    def segment_lost(self, number: int, reason: str, nodes: Sequence[str]) -> None:
        trial = self._stopped(self.trials[number])
        if reason == WORKER_TAINTED:  # neither this trial nor a machine failed: not counted
            self._update(trial)
            return
        self._failed_on(nodes, trial, reason)
        if self._losses.lost(number, trial.saved) <= _MAX_RESTARTS:
            self.say(f"trial {number} starts again from its newest checkpoint: {reason}")
            self._update(replace(trial, restarts=trial.restarts + 1))
            return
        text = f"{reason}; given up after {_MAX_RESTARTS} restarts, the same command tries it again"
        keep_newest_checkpoint(self.out, trial)
        self._record_result(replace(trial, failure=(ClusterError.exit_code, text)))

    def set_waiting(self, numbers: Set[int], reason: str | None) -> Set[int]:
        self.waiting = numbers
        if reason != self.waiting_reason:
            some = any(trial.running and trial.number not in numbers for trial in self.trials)
            who = "some trials wait" if some else "the sweep waits"
            waits = f"{reason}: {who} for room (what it has is kept, and the same command continues)"
            self.say(waits if reason else "there is room again")
        self.waiting_reason = reason
        if schedule.goal_reached(self.plan, self.trials) is None:
            return frozenset()
        return {number for number in numbers if self.trials[number].role != "confirm"}

    def poll(self) -> bool:
        goal = schedule.goal_reached(self.plan, self.trials)
        over = "asked to stop" if self._stop else "the time budget is used up" if self._is_out_of_time() else None
        searching = any(trial.running and trial.role != "confirm" for trial in self.trials)
        why = over or (f"{self.plan.goal} is reached" if goal is not None and searching else None)
        if bool(why) != self._asked_to_end:
            self._ask_to_end(why)
        self._show(self)
        # With confirming trials to come Tune goes on, and running trials end by themselves.
        return bool(over) or (goal is not None and not self.plan.confirm)

    def _ask_to_end(self, why: str | None) -> None:
        self._asked_to_end = why is not None
        if why is None:
            self._stop_file.unlink(missing_ok=True)
        else:
            self.say(f"{why}: running trials save and end")
            self._stop_file.touch()

    def _is_out_of_time(self) -> bool:
        budget = self.prepared.options.time_budget
        return budget is not None and time.monotonic() - self.started_at >= budget

    def _failed_on(self, nodes: Sequence[str], trial: Trial, reason: str) -> None:
        if (text := self.room.failed(nodes, trial.configuration, reason)) is not None:
            self.say(text)

    # The end

    def stop_clock(self) -> None:
        """Note that the last segment has ended, for the time that the sweep has run."""
        self._stopped_at = time.monotonic()

    def close(self, status: str) -> None:
        """Write the results and remove the stop file; no segment runs any more."""
        self.trials = [self._stopped(trial) if trial.running else trial for trial in self.trials]
        self._write_results(status)
        self._stop_file.unlink(missing_ok=True)

    def conclude(self) -> int:
        """Write results and report; return the exit code. Raises Interrupted if there is more to train."""
        ended = schedule.next_segment(self.plan, [replace(t, running=False) for t in self.trials]) == DONE
        codes = [trial.failure[0] for trial in self.trials if trial.failure]
        goal = schedule.goal_reached(self.plan, self.trials)
        # After a goal no trial of the search is tried again.
        due = [trial for trial in self.trials if goal is None or trial.role == "confirm"]
        retryable = [t.failure[0] for t in due if t.failure and not without_retryable_failure(t).failed]
        self.finished = ended and not retryable
        if goal is not None:
            self.say(f"trial {goal.number} has reached {self.plan.goal}: the search is over")
        self.close("done" if self.finished else "interrupted")
        self._show(self)
        self._write_hparams()
        _write_report(self.out)
        if not ended:
            out = self.prepared.options.out
            kept = f"what was trained is kept in {out}, and the same command continues"
            if not self._stop and self._is_out_of_time():  # a budget that is used up is no reason to be queued again
                raise Interrupted(f"the time budget is used up; {kept} with as much again")
            if job_id():
                files.write_text(self.out / "requeue", f"{start_label()}\n")  # slurm/common.sh requeues the job then
            raise Interrupted(f"stopped; {kept}")
        if retryable:
            return retryable[0]
        # Failed trials are results like others, unless there are no others.
        return codes[0] if codes and len(codes) == len(self.trials) else 0

    def say(self, text: str) -> None:
        self.messages.append(text)

    # Trials

    def _spec(self, trial: Trial) -> SegmentSpec:
        config = trial_config(self.plan, trial, self.room.resources)
        return SegmentSpec(
            name=f"{self.out.name}/{trial.name}", run=str(trial_dir(self.out, trial)), config=config_to_dict(config),
            stop_at_step=trial.steps(trial.until), workers=self.room.resources.workers, gpus=bool(self.room.resources.gpus),
            allow_change=bool(trial.lineage),  # PBT changed values that a resumed run would otherwise refuse
            stop=str(self._stop_file),
        )  # fmt: skip

    def _stopped(self, trial: Trial, saved: int = 0) -> Trial:
        """Return a trial of which no segment runs any more, with the results of its folder."""
        return replace(with_results(self.out, trial, saved), running=False)

    def _ended(self, trial: Trial, saved: int = 0) -> Trial:
        """As `_stopped`, of a trial that is not started again at once: it keeps one checkpoint."""
        trial = self._stopped(trial, saved)
        keep_newest_checkpoint(self.out, trial)
        return trial

    def _judged(self, trial: Trial) -> Trial:
        """Return the trial, failed if a metric that the sweep needs is no number at the end of its segment."""
        metrics = trial.metrics_at(trial.until)
        if trial.failed or metrics is None or not (lost := set(self.plan.needed) - set(metrics)):
            return trial
        reason = f"its {', '.join(sorted(lost))} is no number after {trial.until} samples"
        return replace(trial, failure=(NumericError.exit_code, reason))

    def _carry_out(self, exploit: schedule.Exploit) -> None:
        member, donor = self.trials[exploit.number], self.trials[exploit.donor]
        # Checkpoint first, lineage second: after a kill in between the exploit is due again, and copying again is harmless.
        adopt_checkpoint(trial_dir(self.out, member), trial_dir(self.out, donor), member.steps(exploit.at))
        entry = {"at": exploit.at, "from": exploit.donor, "values": member.values}
        self._update(replace(member, values=exploit.values, lineage=(*member.lineage, entry)))
        self.say(f"trial {exploit.number} takes the networks of trial {exploit.donor} at {exploit.at:,} samples")

    def _update(self, trial: Trial) -> None:
        self.trials[trial.number] = trial
        write_trial(self.out, trial)

    def _record_result(self, trial: Trial) -> None:
        self._update(trial)
        self._write_results("running")
        if trial.failure:
            self.say(f"trial {trial.number} failed: {trial.failure[1]}")
        elif (metrics := trial.metrics_at(trial.until)) is not None:
            scores = ", ".join(f"{name} {metrics[name]:.4g}" for name in self.plan.needed if name in metrics)
            broken = ", ".join(self.plan.broken(trial, trial.until))
            self.say(
                f"trial {trial.number}: {scores} after {trial.until:,} samples{f' (breaks a constraint: {broken})' * bool(broken)}"
            )

    def _write_results(self, status: str) -> None:
        seconds = self._seconds_before + (self._stopped_at or time.monotonic()) - self.started_at
        facts = {**self._constants, "status": status, "seconds": seconds, "left_out": list(self.room.left_out.values())}
        results.write_summary(self.out, self.plan, self.trials, facts)  # first: by it the next start knows the folder
        results.write_csv(self.out, self.plan, self.trials, over=status == "done")
        results.write_best(self.out, self.plan, self.trials)

    def _write_hparams(self) -> None:
        """Write each trial's values and last metrics for TensorBoard's page of hyperparameters."""
        for trial in self.trials:
            folder = trial_dir(self.out, trial)
            if trial.reached and RunPaths(folder).tensorboard.is_dir():
                with suppress(CollaganError, OSError):  # nothing is lost: trials.csv has the same
                    write_hparams(folder, trial.values, trial.results[trial.reached])


def _write_report(out: Path) -> None:
    from collagan_dist.report.page import write_report  # takes a second to import, and is needed at the end alone

    try:
        write_report([out])
    except CollaganError as error:
        logger.warning("warning: %s", error)


def _readable(error: Exception, ray: Any) -> Exception:
    """Return what Ray raises when the cluster is gone as an error for people."""
    if isinstance(error, CollaganError):
        return error
    if isinstance(error, ray.exceptions.RayError | ConnectionError):
        first, *_ = str(error).splitlines() or [""]
        return ClusterError(f"the Ray cluster is gone ({first}); the same command continues")
    return error
