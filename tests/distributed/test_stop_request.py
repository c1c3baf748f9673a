import os
import re
import signal
import sys
import threading
import time

import pytest

from collagan_dist.distributed.stop_request import STOP_SIGNALS, StopRequest, signals_to_handle
from tests.conftest import ROOT


@pytest.mark.parametrize("by_launcher", [False, True])
@pytest.mark.parametrize(
    ("signals", "codes"),
    [
        ([(0, "SIGUSR2")], (0, 0)),
        ([(0, "SIGUSR2"), (60, "SIGUSR2"), (119, "SIGCONT"), (120, "SIGTERM")], (0, 0)),  # warning, then the time limit
        ([(0, "SIGTERM"), (1, "SIGTERM"), (2, "SIGINT")], (0, 0)),  # one event, by a terminal and a launcher
        ([(0, "SIGCONT"), (0, "SIGTERM"), (30, "SIGCONT"), (30, "SIGTERM")], (143, 0)),  # preemption, end of its grace
        ([(0, "SIGUSR2"), (60, "SIGTERM"), (90, "SIGTERM")], (143, 0)),
        ([(0, "SIGHUP"), (10, "SIGHUP"), (20, "SIGTERM")], (0, 0)),  # a closed window, then the end of the session
        ([(0, "SIGINT"), (10, "SIGINT")], (130, 130)),  # a person who wants it to end
        ([(0, "SIGTERM"), (10, "SIGINT")], (130, 130)),
    ],
)
def test_row_22_the_second_signal(signals, codes, by_launcher, monkeypatch, no_nohup):
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


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_each_signal_is_a_request_and_its_handler_is_restored(number, no_nohup):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop
        signal.raise_signal(number)
        assert stop
    assert signal.getsignal(number) == before


def test_a_hangup_that_is_ignored_stays_ignored():
    """Under nohup, whoever goes away has said that the run goes on."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop and signal.SIGHUP not in signals_to_handle()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_batch_scripts_pass_on_every_signal():
    """slurm/common.sh, where Slurm signals the task and not what runs inside it."""
    text = (ROOT / "slurm/common.sh").read_text()
    passed_on = set(re.findall(r'^trap "(?:kill|warn) .*" (\w+)$', text, re.MULTILINE))
    assert passed_on == {number.name.removeprefix("SIG") for number in STOP_SIGNALS}


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
