"""Signals: the first sets a flag; a second one ends the process only if no launcher would end it anyway."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest

from collagan_dist.distributed.stop_request import StopRequest

# Prints `ready`, then after each line on stdin whether a stop was requested. The line sets the clock.
PROGRAM = """
import sys, time
from collagan_dist.distributed import stop_request
now = 0.0
stop_request.time = type("Clock", (), {"monotonic": staticmethod(lambda: now)})
with stop_request.StopRequest(by_launcher=sys.argv[1] == "True") as stop:
    print("ready", flush=True)
    for line in sys.stdin:
        now = float(line)
        print(bool(stop), flush=True)
"""


def exit_code_after(signals: Sequence[tuple[float, str]], by_launcher: bool) -> int:
    """The exit code of a process that gets these signals at these seconds, then is left alone."""
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(by_launcher)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin and child.stdout and child.stdout.readline() == "ready\n"
    for second, name in signals:
        child.stdin.write(f"{second}\n")
        child.stdin.flush()
        if not child.stdout.readline():
            break
        child.send_signal(signal.Signals[name])
    child.stdin.close() if child.poll() is None else None
    return child.wait(timeout=30)


@pytest.mark.parametrize("by_launcher", [False, True])
@pytest.mark.parametrize(
    ("signals", "codes"),
    [
        ([(0, "SIGUSR2")], (0, 0)),
        ([(0, "SIGUSR2"), (60, "SIGUSR2"), (119, "SIGCONT"), (120, "SIGTERM")], (0, 0)),  # warning, then the time limit
        ([(0, "SIGTERM"), (1, "SIGTERM"), (2, "SIGINT")], (0, 0)),  # one event, by a terminal and a launcher
        ([(0, "SIGCONT"), (0, "SIGTERM"), (30, "SIGCONT"), (30, "SIGTERM")], (143, 0)),  # preemption, end of its grace
        ([(0, "SIGUSR2"), (60, "SIGTERM"), (90, "SIGTERM")], (143, 0)),
        ([(0, "SIGINT"), (10, "SIGINT")], (130, 130)),  # a person who wants it to end
        ([(0, "SIGTERM"), (10, "SIGINT")], (130, 130)),
    ],
)
def test_row_22_the_second_signal(
    signals: Sequence[tuple[float, str]], codes: tuple[int, int], by_launcher: bool
) -> None:
    """Alone it ends at once; under a launcher, which kills what does not leave, what is being saved goes on."""
    assert exit_code_after(signals, by_launcher) == codes[by_launcher]


def test_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGUSR2)
    with StopRequest() as stop:
        assert not stop
        signal.raise_signal(signal.SIGUSR2)
        assert stop
    assert signal.getsignal(signal.SIGUSR2) == before


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    """A Ray worker runs its function in a thread, where Python does not allow signal handlers."""
    values = []

    def work() -> None:
        with StopRequest() as stop:
            values.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert values == [False]
