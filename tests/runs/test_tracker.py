import logging
import sys
import threading
import time

import pytest

from collagan_dist.errors import ConfigError
from collagan_dist.runs import tracker
from collagan_dist.runs.tracker import TrackedRun, TrackerSink


class Recorder(TrackerSink):
    """A tracker that keeps what it gets, and fails or waits when it is told to."""

    name, needs = "recorder", ("json",)

    def _open(self):
        self.got = []
        self.free = threading.Event()
        self.free.set()
        self._note(self._tracked() or TrackedRun(id="first"))

    def _send(self, step, values):
        self.free.wait()
        if values.get("lr") == 13:
            raise RuntimeError("refused: https://user:secret@host/path\nmore")
        self.got.append((step, values))

    def _send_grid(self, step, png):
        self.got.append((step, png))

    def _finish(self):
        self.got.append("end")


def test_lines_and_grids_in_order(tmp_path):
    sink = Recorder(tmp_path, 0)
    sink.write("train", 1, {"lr": 0.5, "text": "x", "bad": float("nan")})
    sink.write("event", 1, {"event": "resume", "generation": 2})
    sink.add_grid(1, b"png")
    sink.write("eval", 2, {"dice": {"mean": 0.25}, "hole": "block"})
    sink.close()
    assert sink.got == [(1, {"lr": 0.5}), (1, b"png"), (2, {"eval/dice/mean": 0.25}), "end"]
    assert (tmp_path / "recorder/run.json").is_file() and sink._tracked() == TrackedRun(id="first")


def test_an_error_is_said_once_and_costs_no_training(tmp_path, capsys):
    sink = Recorder(tmp_path, 0)
    for step, lr in ((1, 1), (2, 13), (3, 13), (4, 1)):
        sink.write("train", step, {"lr": lr})
    sink.close()
    assert sink.got == [(1, {"lr": 1})]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path}: recorder does not take numbers (refused: ")
    assert "secret" not in line and "more" not in line


def test_training_never_waits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tracker, "_CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(tracker, "_MAX_WAITING_GRIDS", 2)
    sink = Recorder(tmp_path, 0)
    sink.write("train", 1, {"lr": 1})
    while not hasattr(sink, "free"):
        time.sleep(0.01)
    sink.free.clear()
    began = time.monotonic()
    for step in range(2, 100):
        sink.write("train", step, {"lr": 1})
        sink.add_grid(step, b"png")
    sink.close()
    assert time.monotonic() - began < 5 and "not all was sent to recorder within a minute" in capsys.readouterr().err
    sink.free.set()
    sink._thread.join(10)
    assert len([one for one in sink.got if one != "end" and isinstance(one[1], bytes)]) <= 2
    assert [one[0] for one in sink.got if one != "end" and isinstance(one[1], dict)] == list(range(1, 100))


def test_nothing_is_sent_once_another_start_owns_the_run(tmp_path):
    current = [True]
    sink = Recorder(tmp_path, 0, lambda: bool(current))
    sink.write("train", 1, {"lr": 1})
    while getattr(sink, "got", []) == []:
        time.sleep(0.01)
    current.clear()
    sink.write("train", 2, {"lr": 1})
    sink.close()
    assert sink.got == [(1, {"lr": 1})]  # nor is the run ended, with which the other start goes on


def test_settings_have_no_credentials(tmp_path):
    (tmp_path / "config.yaml").write_text("data: {shards: 'https://user:secret@host/shards'}\nseed: 3\n")
    sink = Recorder(tmp_path, 0)
    sink.close()
    assert sink._settings()["seed"] == 3 and "secret" not in str(sink._settings())


@pytest.mark.parametrize("folder", [True, False])
def test_a_missing_package_is_named(monkeypatch, tmp_path, folder):
    """Also where a folder of its name lies in the current one."""
    monkeypatch.setattr(Recorder, "needs", ("json", "no_such_tracker"))
    if folder:
        (tmp_path / "no_such_tracker").mkdir()
        monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"needs the package no_such_tracker, which is missing; pip install 'collagan_dist\[recorder\]'",
    ):
        Recorder.check_installed()
    monkeypatch.setattr(Recorder, "needs", ("json",))
    Recorder.check_installed()
    assert "no_such_tracker" not in sys.modules and logging.getLogger("collagan_dist")
