import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from collagan_dist.errors import DataError
from collagan_dist.runs.metrics_log import MetricsWriter, last_train_step, read_eval_lines, read_metrics_log
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
    assert read_metrics_log(tmp_path).train == [] and list(read_eval_lines(tmp_path)) == []
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
    assert [row["step"] for row in log.train] == [10, 20] and log.train[-1]["lr"] == 0.5
    assert [(row["step"], row["hole"], row.get("psnr")) for row in log.evals] == [(20, "block", 3.0), (20, "O1", None)]


def test_only_the_last_line_may_be_damaged(tmp_path):
    write_log(tmp_path, train_row(10), {"kind": "profile"}, '{"kind": "train", "step": 20, "lr": NaN}\n', '{"kind"')
    log = read_metrics_log(tmp_path)
    assert [row["step"] for row in log.train] == [10, 20] and log.train[-1]["lr"] is None
    assert len(log.notes) == 3
    assert "Line 4, the last of metrics.jsonl, is cut short" in log.notes[0]
    for damaged in ('{"kind"\n', "[1]\n", '{"kind": "eval", "step": "3"}\n', '{"kind": "train", "step": true}\n'):
        write_log(tmp_path, train_row(10), damaged, train_row(20))
        with pytest.raises(DataError, match=r"metrics.jsonl, line 2: .* run this again"):
            read_metrics_log(tmp_path)


def test_the_report_reads_run_folders_without_torch():
    """Not even indirectly: a laptop that only draws pages need not have it, and importing it takes seconds."""
    code = (
        "import importlib, pkgutil, sys; import collagan_dist.report as report\n"
        "for module in pkgutil.iter_modules(report.__path__): importlib.import_module(f'{report.__name__}.{module.name}')\n"
        "print('collagan_dist.runs.metrics_log' in sys.modules, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "True False\n"
