from pathlib import Path
from typing import Any

import pytest

from collagan_dist.errors import ClusterError, ConfigError, DataError, Interrupted, NumericError
from collagan_dist.sweep import rank_group, worker
from collagan_dist.sweep.segment import SegmentSpec
from tests.sweep.small import GRID, Sweep


def outcome(monkeypatch: pytest.MonkeyPatch, run: Path, error: Exception | None) -> dict[str, Any]:
    """What is reported when training ends with an error."""

    def train_rank(*args: object) -> int:
        if error is not None:
            raise error
        return 7

    monkeypatch.setattr(rank_group, "train_rank", train_rank)
    monkeypatch.setattr(worker, "_worker_tainted", False)
    return worker.train_segment(SegmentSpec("out/t000", str(run), {}, 7, 1, False, False, str(run / "stop")))


def test_outcomes(monkeypatch, tmp_path):
    assert outcome(monkeypatch, tmp_path, None) == {"steps": 7}
    assert outcome(monkeypatch, tmp_path, Interrupted("stopped")) == {"interrupted": True}
    for error, code in ((DataError("bad"), 3), (NumericError("bad"), 6), (ConfigError("bad"), 2)):
        assert outcome(monkeypatch, tmp_path, error) == {"failed": [code, "bad"]}
    full = OSError(28, "No space left on device", "/data/x")
    assert outcome(monkeypatch, tmp_path, full) == {"failed": [3, "/data/x: No space left on device"]}
    with pytest.raises(ClusterError, match="gone"):
        outcome(monkeypatch, tmp_path, ClusterError("gone"))
    assert not worker._worker_tainted and not (tmp_path / "logs").exists()


def test_an_unexpected_error_taints_the_process(monkeypatch, tmp_path):
    """Its traceback is in the trial's log; the process takes no further trial. An error of CUDA may be the device's."""
    assert outcome(monkeypatch, tmp_path, RuntimeError("no memory\nmore")) == {"failed": [1, "RuntimeError: no memory"]}
    assert "RuntimeError: no memory" in (tmp_path / "logs/train.txt").read_text()
    with pytest.raises(ClusterError, match=worker.WORKER_TAINTED):
        worker.run_segment({})
    with pytest.raises(ClusterError, match="RuntimeError: CUDA error: illegal access"):
        outcome(monkeypatch, tmp_path, RuntimeError("CUDA error: illegal access"))


def test_row_32_trials_that_fail_are_named(shards, tmp_path):
    """NaN, and memory that no machine has: named with their reason, the others go on, and the same command tries none again."""
    sweep = Sweep(tmp_path, shards.folder, GRID)
    said = sweep.run()
    rows = sweep.rows()
    assert [row["status"] for row in rows] == ["done", "done", "failed", "failed", "failed"]
    assert "NaN or Inf" in rows[3]["reason"] and "memory" in rows[2]["reason"] and "memory" in rows[4]["reason"]
    assert all(f"trial {number} failed: " in said for number in (2, 3, 4))
    assert rows[3]["reason"].split(";")[0] in (sweep.out / "report.html").read_text()
    assert "failed: " not in sweep.run() and sweep.rows() == rows
