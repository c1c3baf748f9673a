"""Train and evaluate one run after the other by the ordinary commands. What is done already is not done again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from collagan_dist.errors import CheckpointError, Interrupted
from collagan_dist.reproduce import run_status
from collagan_dist.reproduce.child_process import EndedProcess, collagan_command, run_command
from collagan_dist.reproduce.plan import PlannedRun

Echo = Callable[[str], None]


@dataclass(frozen=True)
class RunJob:
    """A run with what its commands need. `lock` is an open file that stays locked while a child process lives."""

    run: PlannedRun
    data: str
    manifest: str
    ranks: int
    lock: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended: why it failed and the exit code for that, or None and 0."""

    name: str
    reason: str | None = None
    code: int = 0


def do_jobs(jobs: Sequence[RunJob], stop: Any = False, echo: Echo = print) -> list[Outcome]:
    """Do runs one after the other, of which the later ones need the first. Raises Interrupted when `stop` becomes true."""
    outcomes: list[Outcome] = []
    for job in jobs:
        if job.run.needs is not None and outcomes and outcomes[0].reason is not None:
            outcomes.append(Outcome(job.run.name, f"needs {job.run.needs}, which failed", outcomes[0].code))
            continue
        outcomes.append(do_job(job, stop, echo))
    return outcomes


def do_job(job: RunJob, stop: Any, echo: Echo) -> Outcome:
    """Train what is left of a run, then make the evaluations that are missing."""
    run = job.run
    failed = None if run_status.is_trained(run) else _train(job, stop, echo)
    failed = failed or _evaluate(job, stop, echo)
    # A damaged checkpoint is noticed when it is read, and `collagan evaluate` then takes the one before it.
    if failed is None and run_status.evaluated_earlier_step(run, job.manifest):
        echo(f"{run.name}: its last checkpoint is damaged, the one before it was evaluated; training the rest again")
        failed = _train(job, stop, echo) or _evaluate(job, stop, echo)
    if failed is None and run_status.not_evaluated(run, job.manifest):
        return Outcome(run.name, f"its evaluation is not of step {run.steps}; see {run.log}", CheckpointError.exit_code)
    return failed or Outcome(run.name)


def _train(job: RunJob, stop: Any, echo: Echo) -> Outcome | None:
    """Train to the last step; return what failed. Raises Interrupted when the training ends early without an error."""
    run = job.run
    ended = _run_command(job, ["train", *train_arguments(run, job.data)], stop, echo)
    if run_status.is_trained(run):
        return None
    # Under a launcher an interrupted training ends with 0.
    if ended.code in (0, Interrupted.exit_code):
        raise Interrupted(f"{run.name} was stopped at step {run_status.steps_done(run)} of {run.steps}, which is saved")
    return _failure(run, ended)


def _evaluate(job: RunJob, stop: Any, echo: Echo) -> Outcome | None:
    """Make the evaluations that are missing; return what failed."""
    run = job.run
    for both, holes in run_status.not_evaluated(run, job.manifest).items():
        echo(f"{run.name}: evaluating {', '.join(holes)}{', blended and not' if both else ''}")
        sets = [word for item in run_status.changed_evaluation_settings(run) for word in ("--set", item)]
        blend = "both" if both else "none"
        # One command for all holes: it loads the model once.
        options = ["--data", job.data, "--split", "test", "--hole", ",".join(holes), "--blend", blend, *sets]
        # Its tables are in the log.
        ended = _run_command(job, ["evaluate", str(run.folder), *options], stop, lambda line: None)
        if ended.code:
            return _failure(run, ended)
    return None


def train_arguments(run: PlannedRun, data: str) -> list[str]:
    """Return the arguments of `collagan train`."""
    return [str(run.config_file), "--data", data, "--out", str(run.folder)]


def _run_command(job: RunJob, arguments: Sequence[str], stop: Any, echo: Echo) -> EndedProcess:
    """Run a command of a run to its end. Raises Interrupted when `stop` becomes true."""
    run, command = job.run, [*collagan_command(job.ranks), *arguments]
    # A process of its own for each: a training that crashes or leaks takes nothing else with it.
    ended = run_command(command, run.log, stop, lambda line: echo(f"{run.name}: {line}"), job.lock)
    if stop:
        done = f"step {run_status.steps_done(run)} of {run.steps}"
        raise Interrupted(f"stopped during {run.name}, which is saved at {done}")
    return ended


def _failure(run: PlannedRun, ended: EndedProcess) -> Outcome:
    return Outcome(run.name, ended.reason, ended.error_code)
