import io
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress

import pytest
from rich.console import Console

from collagan_dist.commands import progress


def test_a_log_has_a_line_now_and_then(monkeypatch, capsys):
    """What was done before the first call does not count in the rate."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.progress("packing", "pictures") as advance:
        advance(500, 1000)
        for second in range(10, 70, 10):
            now[0] = second
            advance(500 + second, 1000)
        now[0] = 1000
        advance(600, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "packing: 530 of 1000 pictures, 1/s, ETA 470 s",
        "packing: 560 of 1000 pictures, 1/s, ETA 440 s",
        "packing: 600 of 1000 pictures, 0.1/s, ETA 4000 s",
    ]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_all_numbers_fit_the_terminal(width, monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr("rich.console.Console", lambda file: console)
    with progress.progress("evaluating", "samples") as advance:
        advance(0, 19_962)
        advance(13_824, 19_962)
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).splitlines()[-1].rstrip()
    assert len(last) <= width and "…" not in last, last
    for words in ("evaluating", "13824/19962 samples", "/s", "ETA"):
        assert words in last, last


def test_work_of_unknown_length_is_shown_on_a_terminal_alone(capsys):
    code = "from collagan_dist.commands.progress import busy\nwith busy('exporting') as advance: advance(1, 2)"
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", code], stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        with suppress(OSError):  # the end of a terminal
            while piece := os.read(ours, 1000):
                seen += piece
        assert process.wait() == 0 and b"exporting 0:00:00" in re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", seen)
    os.close(ours)
    with progress.busy("exporting"):
        pass
    assert capsys.readouterr() == ("", "")
