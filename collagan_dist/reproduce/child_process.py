"""`collagan` commands as child processes: started, followed through their log, stopped, and judged by how they ended."""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collagan_dist.distributed import addresses
from collagan_dist.errors import CheckpointError, ClusterError, ConfigError, DataError, NumericError

_POLL_SECONDS = 0.2  # between looks at a child and its log
_PR_SET_PDEATHSIG = 1  # of Linux's prctl
_REASON_LINES = 200  # at the end of a log, in which the message of an error is searched

# Exit codes that say what went wrong. Launchers end with 1 or a signal for any error, and print the code of a rank.
_ERROR_CODES = {kind.exit_code for kind in (ConfigError, DataError, ClusterError, CheckpointError, NumericError)}
_TORCHRUN_EXIT_CODE = re.compile(r"^ *exitcode *: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class EndedProcess:
    """How a command ended, and what it wrote into its log."""

    code: int
    output: str
    log: Path

    @property
    def reason(self) -> str:
        """Why it failed: its own error message if it wrote one, else its last line."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        for line in reversed(lines[-_REASON_LINES:]):
            if line.startswith(("collagan train: ", "collagan evaluate: ")):
                return line.split(": ", 1)[1]
        end = f"killed by signal {-self.code}" if self.code < 0 else f"exit code {self.code}"
        return f"{end}; {lines[-1] if lines else 'it wrote nothing'} (log: {self.log})"

    @property
    def error_code(self) -> int:
        """The exit code of the error: that of the rank which failed first; the cluster's if no rank's is known."""
        # torchrun lists the root cause last.
        codes = [self.code, *map(int, reversed(_TORCHRUN_EXIT_CODE.findall(self.output)))]
        return next((code for code in codes if code in _ERROR_CODES), ClusterError.exit_code)


def collagan_command(ranks: int) -> list[str]:
    """Return the words that start `collagan` with this Python, under torchrun for several ranks."""
    # Not --standalone: its agent listens to everybody, and unpickles what it is told.
    where = ["--master-addr", "127.0.0.1", "--master-port", str(addresses.free_port())]
    launcher = ["-m", "torch.distributed.run", *where, "--nproc-per-node", str(ranks), "-m", "--"]
    return [sys.executable, *(launcher if ranks > 1 else ["-m"]), "collagan_dist"]


def run_command(
    command: Sequence[str], log: Path, stop: Any, echo: Callable[[str], None], lock: int | None = None
) -> EndedProcess:
    """Run a command to its end, or until `stop` is true: then it is asked to save and end, and waited for.

    Its output is appended to `log`, whose new lines are passed to `echo`. It inherits the open file `lock`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out, log.open("rb") as new_output:
        # The log is continued; an older message in it is not this command's.
        begin = new_output.seek(0, os.SEEK_END)
        child = start(command, out, lock)
        try:
            while child.poll() is None and not stop:
                time.sleep(_POLL_SECONDS)
                _echo_lines(new_output, echo)
        finally:
            # It saves on TERM; nothing is sent to a process that has ended.
            child.terminate()
            child.wait()
        if not stop:  # what launchers write when they are stopped is of no interest
            _echo_lines(new_output, echo)
        new_output.seek(begin)
        return EndedProcess(child.returncode, new_output.read().decode(errors="replace"), log)


def start(command: Sequence[str], out: Any, lock: int | None = None) -> subprocess.Popen:
    """Start a command that is asked to save and end when this process dies, however it dies."""
    library = ctypes.CDLL(None)
    return subprocess.Popen(
        # A file, not a pipe: it goes on when nobody reads.
        command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
        # Ctrl-C in a terminal reaches every process of the session: this one alone decides what it means for the child.
        start_new_session=True,
        # The lock on the reproduction's folder lasts as long as any process that holds the file.
        pass_fds=() if lock is None else (lock,), env={**os.environ, "PYTHONUNBUFFERED": "1", "COLLAGAN_RENDEZVOUS_SECRET": secrets.token_hex(32)},
        preexec_fn=lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
    )  # fmt: skip


def _echo_lines(log: Any, echo: Callable[[str], None]) -> None:
    """Pass on the new complete lines of the log."""
    while line := log.readline():
        if not line.endswith(b"\n"):
            # Still being written: read again next time.
            log.seek(-len(line), os.SEEK_CUR)
            return
        if text := line.decode(errors="replace").strip():
            echo(text)
