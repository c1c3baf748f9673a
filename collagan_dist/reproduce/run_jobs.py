"""One run trained and scored, by the ordinary commands in processes of their own. What is done already is not done again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collagan_dist.errors import CheckpointError, ClusterError, ConfigError, DataError, Interrupted, NumericError
from collagan_dist.reproduce import run_status
from collagan_dist.reproduce.plan import PlannedRun

_POLL = 0.2  # seconds between looks at a child and its log
_PR_SET_PDEATHSIG = 1

# Codes that say what went wrong. Launchers end with 1 or a signal whatever it was, and write down the code of a rank.
_TELLING = {kind.exit_code for kind in (ConfigError, DataError, ClusterError, CheckpointError, NumericError)}
_RANK = re.compile(r"^ *exitcode *: (\d+)", re.MULTILINE)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """A run with what its commands need to know."""

    run: PlannedRun
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


@dataclass(frozen=True)
class Ended:
    """A command that has ended, with what it wrote."""

    code: int
    text: str

    def failure(self, run: PlannedRun) -> Outcome:
        return Outcome(run.name, reason(self.text, self.code, run.log), contract_code(self.text, self.code))


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
    failed = None if run_status.is_trained(run) else _learn(job, stop, say)
    failed = failed or _score(job, stop, say)
    if failed is None and run_status.scored_before(run, job.manifest):
        say(f"{run.name}: its last checkpoint is damaged, the one before it was scored; training the rest again")
        failed = _learn(job, stop, say) or _score(job, stop, say)
    if failed is None and run_status.unscored(run, job.manifest):
        return Outcome(run.name, f"its evaluation is not of step {run.steps}; see {run.log}", CheckpointError.exit_code)
    return failed or Outcome(run.name)


def _learn(job: Job, stop: Any, say: Say) -> Outcome | None:
    """Train to the last step; what failed, or None. Raises Interrupted when the training ends early without an error."""
    run = job.run
    ended = _call(job, _train(job), stop, say)
    if ended.code in (0, Interrupted.exit_code) and not run_status.is_trained(run):
        raise Interrupted(f"{run.name} was stopped at step {run_status.steps_done(run)} of {run.steps}, which is saved")
    return None if run_status.is_trained(run) else ended.failure(run)


def _score(job: Job, stop: Any, say: Say) -> Outcome | None:
    """Score what is not scored; what failed, or None."""
    run = job.run
    for both, holes in run_status.unscored(run, job.manifest).items():
        say(f"{run.name}: scoring {', '.join(holes)}{', blended and not' if both else ''}")
        ended = _call(job, _evaluate(job, holes, both), stop, lambda line: None)  # its tables are in the log
        if ended.code:
            return ended.failure(run)
    return None


def train_words(run: PlannedRun, data: str) -> list[str]:
    """What follows `collagan train`."""
    return [str(run.config_file), "--data", data, "--run", str(run.folder)]


def start_words(ranks: int) -> list[str]:
    """The start of a command: this Python's collagan, under torchrun for several ranks."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m", "--"]
    return [sys.executable, *(launcher if ranks > 1 else ["-m"]), "collagan_dist"]


def _train(job: Job) -> list[str]:
    return [*start_words(job.ranks), "train", *train_words(job.run, job.data)]


def _evaluate(job: Job, holes: Sequence[str], both: bool) -> list[str]:
    sets = [word for item in run_status.other_settings(job.run) for word in ("--set", item)]
    blend = "both" if both else "none"
    options = ["--data", job.data, "--split", "test", "--hole", ",".join(holes), "--blend", blend, *sets]
    return [*start_words(job.ranks), "evaluate", str(job.run.folder), *options]


def _call(job: Job, command: Sequence[str], stop: Any, say: Say) -> Ended:
    """Run a command to its end. Its output goes to the run's log, whose new lines are said.

    Raises Interrupted when `stop` becomes true; the command is asked to end, and waited for.
    """
    log = job.run.log
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out, log.open("rb") as seen:
        begin = seen.seek(0, os.SEEK_END)
        child = start(command, out, job.lock)
        try:
            while child.poll() is None and not stop:
                time.sleep(_POLL)
                _echo(job.run.name, seen, say)
        finally:
            _end(child)
        if stop:  # what launchers have to say of that is in the log
            raise Interrupted(
                f"stopped during {job.run.name}, which is saved at step {run_status.steps_done(job.run)} of {job.run.steps}"
            )
        _echo(job.run.name, seen, say)
        seen.seek(begin)
        return Ended(child.returncode, seen.read().decode(errors="replace"))


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


def reason(text: str, code: int, log: Path) -> str:
    """Why a command that wrote `text` into a log failed: its own message where it left one, else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for number in range(len(lines) - 1, max(-1, len(lines) - 200), -1):
        if lines[number].startswith(("collagan train: ", "collagan evaluate: ")):
            return lines[number].split(": ", 1)[1]
    killed = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{killed}; {lines[-1] if lines else 'it said nothing'} (log: {log})"


def contract_code(text: str, code: int) -> int:
    """The exit code of a failed command, or of its rank where a launcher wrote `text`; that of the cluster where neither tells."""
    codes = [code, *map(int, reversed(_RANK.findall(text)))]  # the launcher's root cause comes last
    return next((one for one in codes if one in _TELLING), ClusterError.exit_code)
