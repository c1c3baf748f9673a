import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from collagan_dist.runs import metrics_log
from collagan_dist.runs.metrics_log import (
    MAX_EVALS,
    MAX_EVENTS,
    MAX_LINE_BYTES,
    MAX_MARKS,
    MAX_SUBJECTS,
    MetricsWriter,
    last_train_step,
    median_rate,
    read_eval_lines,
    read_metrics_log,
)
from collagan_dist.runs.thinning import MAX_CURVES, MAX_POINTS, Curve
from tests.conftest import ROOT
from tests.runs.run_folders import lines


def write_log(run: Path, *rows: dict[str, Any] | str) -> None:
    text = [row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows]
    (run / "metrics.jsonl").write_text("".join(text))


def train_row(step: int, **values: float) -> dict[str, Any]:
    return {"kind": "train", "step": step, "loss/total": 1.0, **values}


def eval_row(step: int, **values: Any) -> dict[str, Any]:
    return {"kind": "eval", "step": step, "split": "test", "hole": "block", "blend": "none", **values}


def test_a_continued_run_has_every_step_once(tmp_path):
    """Lines beyond the checkpoint are dropped, and a last line that a kill cut short; events stay."""
    event = {"kind": "event", "step": 6, "event": "straggler"}
    write_log(tmp_path, train_row(2), eval_row(3), train_row(4), train_row(6), event, '{"kind": "train", "st')
    writer = MetricsWriter(tmp_path, 4)
    writer.write("train", 6, {"loss/total": 2.0, "lr": math.nan, "dice": {"nose": math.inf, "mean": 0.5}})
    writer.close()
    assert [(line["step"], line["loss/total"]) for line in lines(tmp_path, "train")] == [(2, 1.0), (4, 1.0), (6, 2.0)]
    assert lines(tmp_path, "eval") == [eval_row(3)] and lines(tmp_path, "event") == [event]
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text and "lr" not in text and '"dice": {"mean": 0.5}' in text


def test_readers_forgive_a_missing_file(tmp_path):
    assert read_metrics_log(tmp_path).train.count == 0 and list(read_eval_lines(tmp_path)) == []
    assert last_train_step(tmp_path) == 0


def test_evaluations_are_found_among_damaged_lines(tmp_path):
    """Lines of other kinds, lines cut by a crash and written on; a last line that does not end is not believed."""
    write_log(
        tmp_path, train_row(1, eval=3.0), eval_row(2), '{"kind": "eval", "st{"kind": "eval", "step": 3}\n', '["eval"]\n',
        eval_row(4), json.dumps(eval_row(5)),
    )  # fmt: skip
    assert [row["step"] for row in read_eval_lines(tmp_path)] == [2, 4]


def test_the_last_step_is_found_at_the_end_of_a_long_file(tmp_path):
    """Only the end is read, so the first line found there is cut."""
    rows = [train_row(step, **{f"loss/{number}": 0.123456789 for number in range(40)}) for step in range(1, 200)]
    write_log(tmp_path, *rows, '{"kind": "train", "st')
    assert (tmp_path / "metrics.jsonl").stat().st_size > 1 << 17 and last_train_step(tmp_path) == 199


def test_what_a_resumed_run_gave_up_is_gone(tmp_path):
    """A log of an older program, which did not drop those lines itself. Of two evaluations of a step the later one counts."""
    write_log(
        tmp_path, train_row(10), train_row(20), eval_row(20, psnr=1.0), train_row(30), eval_row(30, psnr=2.0),
        eval_row(20, psnr=3.0), train_row(20, lr=0.5), eval_row(20, hole="O1"),
    )  # fmt: skip
    log = read_metrics_log(tmp_path)
    assert log.train.curves["loss/total"].steps == (10, 20) and log.train.last_step == 20
    assert log.train.curves["lr"] == Curve((20,), (0.5,), 20, 0.5)
    assert [(row["step"], row["hole"], row.get("psnr")) for row in log.evals] == [(20, "block", 3.0), (20, "O1", None)]


def test_what_cannot_be_used_is_counted_and_said(tmp_path):
    write_log(tmp_path, train_row(10), {"kind": "profile"}, '{"kind": "train", "step": 20, "lr": NaN}\n', '{"kind"')
    log = read_metrics_log(tmp_path)
    assert log.train.count == 2 and log.train.last_step == 20 and "lr" not in log.train.curves
    assert [note.split(":")[0] for note in log.notes] == [
        "Line 4, the last of metrics.jsonl, is cut short (the writer was killed); left out.",
        "1 number(s) of metrics.jsonl are not finite or beyond ±1e+100; they were left out.",
        "1 line(s) of metrics.jsonl are of an unknown kind and were left out.",
    ]


DAMAGED = {
    "cut": '{"kind"\n', "no object": "[1]\n", "no kind": '{"step": 3}\n', "a kind of a wrong type": '{"kind": [], "step": 3}\n',
    "a step that is text": '{"kind": "eval", "step": "3"}\n', "a step that is a boolean": '{"kind": "train", "step": true}\n',
    "a step without end": '{"kind": "train", "step": 1e999}\n', "a negative step": '{"kind": "train", "step": -1}\n',
    "a step of 5,000 digits": f'{{"kind": "train", "step": {"9" * 5000}}}\n', "deep": "[" * 20_000 + "\n",
    "deep inside": f'{{"kind": "eval", "step": 3, "psnr": {"[" * 900}{"]" * 900}}}\n', "zeros": "\0" * 4096 + "\n",
    "no UTF-8": b'{"kind": "event", "event": "\xff"}\n'.decode(errors="surrogateescape"),
    "a line of megabytes": f'{{"kind": "event", "event": "{"x" * 3 * MAX_LINE_BYTES}"}}\n',
}  # fmt: skip


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
def test_damaged_lines_are_counted_and_said(damaged, tmp_path):
    """By every reader, and a start writes the file without them."""
    text = json.dumps(train_row(10)) + "\n" + damaged + damaged + json.dumps(eval_row(20)) + "\n"
    (tmp_path / "metrics.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    log = read_metrics_log(tmp_path)
    assert log.train.last_step == 10 and [row["step"] for row in log.evals] == [20] and not log.events
    (note,) = log.notes
    assert note.startswith("2 line(s) of metrics.jsonl are damaged") and note.endswith(": 2, 3.")
    assert [row["step"] for row in read_eval_lines(tmp_path) if not isinstance(row.get("psnr"), list)] == [20]
    assert last_train_step(tmp_path) in (0, 10)


def test_the_end_of_a_line_of_megabytes_is_no_line(tmp_path):
    """Wherever the reader cuts it."""
    write_log(tmp_path, eval_row(1), "x" * MAX_LINE_BYTES + json.dumps(eval_row(2)) + "\n", eval_row(3))
    assert [row["step"] for row in read_eval_lines(tmp_path)] == [1, 3]
    assert [row["step"] for row in read_metrics_log(tmp_path).evals] == [1, 3]


def test_a_start_says_how_many_lines_were_damaged(tmp_path, caplog):
    long = json.dumps({"kind": "event", "event": "x" * MAX_LINE_BYTES}) + "\n"
    write_log(tmp_path, train_row(10), DAMAGED["a step that is text"], DAMAGED["cut"], long, train_row(20), '{"kind"')
    MetricsWriter(tmp_path, 20).close()
    assert [line["step"] for line in lines(tmp_path, "train")] == [10, 20]
    assert "metrics.jsonl: 3 damaged line(s) left out" in caplog.text


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    assert last_train_step(tmp_path) == 0
    with pytest.raises(OSError, match="is a FIFO"):
        next(read_eval_lines(tmp_path))


def test_numbers_that_cannot_be_drawn_are_counted(tmp_path):
    values = ["1e999", "-1e101", "NaN", "-Infinity", "9" * 400]
    rows = [f'{{"kind": "train", "step": {step}, "a": {value}, "b": 1e100}}\n' for step, value in enumerate(values)]
    write_log(tmp_path, *rows, f'{{"kind": "eval", "step": 5, "dice": {{"mean": {"9" * 400}, "hair": 0.5}}}}\n')
    log = read_metrics_log(tmp_path)
    assert log.notes == ["6 number(s) of metrics.jsonl are not finite or beyond ±1e+100; they were left out."]
    assert set(log.train.curves) == {"b"} and log.evals[0]["dice"] == {"mean": None, "hair": 0.5}


def test_a_long_log_is_thinned_out_while_it_is_read(tmp_path):
    """Points are means of neighbours, the last value and every count are exact, whatever the length."""
    rows = [train_row(step, odd=step % 2, images_per_s=step, lr=0.1) for step in range(1, 20_001)]
    events = [{"kind": "event", "event": "resume" if n % 2 else "skip", "step": n} for n in range(1, 1001)]
    evals = [eval_row(step, hole=hole, psnr=float(step)) for step in range(1, 2001) for hole in ("block", "O1")]
    write_log(tmp_path, *rows[:-1], *events, rows[-1], *evals)
    log = read_metrics_log(tmp_path)
    curve = log.train.curves["images_per_s"]
    assert log.train.count == 20_000 and not log.notes
    assert MAX_POINTS // 2 < len(curve.steps) <= MAX_POINTS and curve.steps == curve.values == tuple(
        sorted(curve.steps)
    )
    assert (curve.last_step, curve.last) == (20_000, 20_000.0)
    assert set(log.train.curves["lr"].values) == {0.1}  # equal values stay equal
    assert min(log.train.curves["odd"].values) > 0.4 and max(log.train.curves["odd"].values) < 0.6
    # Single lines, not means.
    assert (
        all(value.is_integer() for value in log.train.samples["images_per_s"]) and len(log.train.samples["odd"]) > 2000
    )
    assert (
        len(log.events) == MAX_EVENTS
        and log.events[-1]["step"] == 1000
        and log.event_counts == {"resume": 500, "skip": 500}
    )
    assert MAX_MARKS // 2 < len(log.marks) <= MAX_MARKS and log.marks == sorted(log.marks)
    for hole in ("block", "O1"):
        steps = [row["step"] for row in log.evals if row["hole"] == hole]
        assert MAX_EVALS // 2 < len(steps) <= MAX_EVALS and steps == sorted(steps) and steps[-1] == 2000


def test_a_log_of_many_names_and_subjects_is_bounded(tmp_path):
    rows = [train_row(step, **{f"name {step}-{n}": 1.0 for n in range(20)}) for step in range(1, 100)]
    write_log(tmp_path, *rows, *(eval_row(99, hole=f"hole {n}") for n in range(3 * MAX_SUBJECTS)), *(
        {"kind": "event", "event": f"event {n}"} for n in range(300)
    ))  # fmt: skip
    log = read_metrics_log(tmp_path)
    assert len(log.train.curves) <= MAX_CURVES and len(log.evals) == MAX_SUBJECTS and len(log.event_counts) == 100
    assert [note.split(" of ")[0] for note in log.notes] == [
        "1000 or more name(s)", f"{2 * MAX_SUBJECTS} evaluation(s)", "200 event(s)"
    ]  # fmt: skip


def test_lines_are_numbered_over_chunks_of_any_size(tmp_path, monkeypatch):
    write_log(
        tmp_path, *(train_row(step) for step in range(1, 50)), "damaged\n", *(train_row(step) for step in range(50, 90))
    )
    whole = read_metrics_log(tmp_path)
    assert whole.notes[0].endswith(": 50.")
    for size in (1, 7, 64, 1000):
        monkeypatch.setattr(metrics_log, "_CHUNK_BYTES", size)
        assert read_metrics_log(tmp_path) == whole


def test_the_report_reads_run_folders_without_torch():
    """Not even indirectly: a laptop that only draws pages need not have it, and importing it takes seconds."""
    code = (
        "import importlib, pkgutil, sys; import collagan_dist.report as report\n"
        "for module in pkgutil.iter_modules(report.__path__): importlib.import_module(f'{report.__name__}.{module.name}')\n"
        "print('collagan_dist.runs.metrics_log' in sys.modules, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "True False\n"


def test_the_rate_of_a_run(tmp_path):
    """Without its first line, which holds what happens once."""
    assert median_rate(tmp_path) is None
    write_log(tmp_path, train_row(2))
    assert median_rate(tmp_path) is None
    write_log(tmp_path, train_row(2, images_per_s=1.0))
    assert median_rate(tmp_path) == 1.0
    write_log(
        tmp_path, *(train_row(step, images_per_s=rate) for step, rate in ((2, 1.0), (4, 30.0), (6, 20.0), (8, 40.0)))
    )
    assert median_rate(tmp_path) == 30.0
