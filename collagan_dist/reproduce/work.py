"""One run trained and scored, by the ordinary commands in processes of their own. What is done already is not done again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collagan_dist.errors import Interrupted
from collagan_dist.reproduce import state
from collagan_dist.reproduce.plan import Run

_POLL = 0.2  # seconds between looks at a child and its log
_PR_SET_PDEATHSIG = 1

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """A run with what its commands need to know."""

    run: Run
    data: str
    manifest: str
    ranks: int
    lock: int | None = None  # a file that stays locked while a child lives


@dataclass(frozen=True)
class Outcome:
    """`reason` says why a run failed, `code` its exit code; None and 0 when all is well."""

    name: str
    reason: str | None = None
    code: int = 0


def do_chain(jobs: Sequence[Job], stop: Any = False, say: Say = print) -> list[Outcome]:
    """Runs in turn, of which each needs the one before it. Raises Interrupted when `stop` becomes true."""
    outcomes: list[Outcome] = []
    for job in jobs:
        if job.run.needs is not None and outcomes and outcomes[0].reason is not None:
            outcomes.append(Outcome(job.run.name, f"needs {job.run.needs}, which failed", outcomes[0].code))
            continue
        outcomes.append(do_run(job, stop, say))
    return outcomes


def do_run(job: Job, stop: Any, say: Say) -> Outcome:
    """Train what is left of a run, then score what is not scored."""
    run = job.run
    if not state.is_trained(run):
        code = _call(job, _train(job), stop, say)
        if not state.is_trained(run):
            if code in (0, Interrupted.exit_code):
                raise Interrupted(
                    f"{run.name} was stopped at step {state.steps_done(run)} of {run.steps}, which is saved"
                )
            return Outcome(run.name, reason(run.log, code), max(code, 1))
    for both, holes in state.unscored(run, job.manifest).items():
        say(f"{run.name}: scoring {', '.join(holes)}{', blended and not' if both else ''}")
        code = _call(job, _evaluate(job, holes, both), stop, lambda line: None)  # its tables are in the log
        if code:
            return Outcome(run.name, reason(run.log, code), max(code, 1))
    if state.unscored(run, job.manifest):
        return Outcome(run.name, f"its evaluation is not of step {run.steps}; see {run.log}", 5)
    return Outcome(run.name)


def train_words(run: Run, data: str) -> list[str]:
    """What follows `collagan train`."""
    return [str(run.config_file), "--data", data, "--run", str(run.folder)]


def start_words(ranks: int) -> list[str]:
    """The start of a command: this Python's collagan, under torchrun for several ranks."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m", "--"]
    return [sys.executable, *(launcher if ranks > 1 else ["-m"]), "collagan_dist"]


def _train(job: Job) -> list[str]:
    return [*start_words(job.ranks), "train", *train_words(job.run, job.data)]


def _evaluate(job: Job, holes: Sequence[str], both: bool) -> list[str]:
    sets = [word for item in state.other_settings(job.run) for word in ("--set", item)]
    blend = "both" if both else "none"
    options = ["--data", job.data, "--split", "test", "--hole", ",".join(holes), "--blend", blend, *sets]
    return [*start_words(job.ranks), "evaluate", str(job.run.folder), *options]


def _call(job: Job, command: Sequence[str], stop: Any, say: Say) -> int:
    """The exit code of a command. Its output goes to the run's log, whose new lines are said.

    Raises Interrupted when `stop` becomes true; the command is asked to end, and waited for.
    """
    log = job.run.log
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out, log.open("rb") as seen:
        seen.seek(0, os.SEEK_END)
        child = start(command, out, job.lock)
        try:
            while child.poll() is None and not stop:
                time.sleep(_POLL)
                _echo(job.run.name, seen, say)
        finally:
            _end(child)
        if stop:  # what launchers have to say of that is in the log
            raise Interrupted(
                f"stopped during {job.run.name}, which is saved at step {state.steps_done(job.run)} of {job.run.steps}"
            )
        _echo(job.run.name, seen, say)
    return child.returncode


def start(command: Sequence[str], out: Any, lock: int | None = None) -> subprocess.Popen:
    """A command in a session of its own, so that a terminal's Ctrl-C reaches it through us alone.

    It is asked to save and end when this process dies, however it dies. `out` is a file, not a pipe: nobody need read it.
    """
    library = ctypes.CDLL(None)
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        pass_fds=() if lock is None else (lock,), env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
    )  # fmt: skip


def _end(child: subprocess.Popen) -> None:
    """Ask a child that still runs to save and end, and wait until it has."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        child.wait()


def _echo(name: str, log: Any, say: Say) -> None:
    """New whole lines of the log."""
    while line := log.readline():
        if not line.endswith(b"\n"):
            log.seek(-len(line), os.SEEK_CUR)
            return
        if text := line.decode(errors="replace").strip():
            say(f"{name}: {text}")


def reason(log: Path, code: int) -> str:
    """Why a command failed: its own message where it left one, else the last line of its log."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    for number in range(len(lines) - 1, max(-1, len(lines) - 200), -1):
        if lines[number].startswith(("collagan train: ", "collagan evaluate: ")):
            return lines[number].split(": ", 1)[1]
    killed = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{killed}; {lines[-1] if lines else 'it said nothing'} (log: {log})"
