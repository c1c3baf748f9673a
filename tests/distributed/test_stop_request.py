import os
import signal
import sys
import threading
import time

import pytest

from collagan_dist.distributed.stop_request import StopRequest


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
def test_row_22_the_second_signal(signals, codes, by_launcher, monkeypatch):
    """Alone it ends at once; under a launcher, which kills what does not leave, what is being saved goes on."""
    monkeypatch.setattr(os, "_exit", sys.exit)
    code = 0
    try:
        with StopRequest(by_launcher):
            for second, name in signals:
                monkeypatch.setattr(time, "monotonic", lambda second=second: second)
                signal.raise_signal(signal.Signals[name])
    except SystemExit as end:
        code = end.code
    assert code == codes[by_launcher]


def test_handlers_are_restored():
    before = signal.getsignal(signal.SIGUSR2)
    with StopRequest() as stop:
        assert not stop
        signal.raise_signal(signal.SIGUSR2)
        assert stop
    assert signal.getsignal(signal.SIGUSR2) == before


def test_signals_are_left_alone_outside_the_main_thread():
    """A Ray worker runs its function in a thread, where Python does not allow signal handlers."""
    values = []

    def work() -> None:
        with StopRequest() as stop:
            values.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert values == [False]
