"""The sink of W&B with the real library, offline."""

import json
import struct

import pytest

from collagan_dist.runs.metrics_log import MetricsWriter
from collagan_dist.runs.wandb_sink import WandbSink
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.runs.run_folders import lines
from tests.training.small import small

wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


_BLOCK = 1 << 15


def records(path):
    """Yield the records of a .wandb file, a log of LevelDB's kind: blocks of pieces (check sum, length, type), a head of 7 bytes."""
    data, at, pending = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if _BLOCK - at % _BLOCK < 7:  # padding
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        pending += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield pending
            pending = b""


def history(run):
    """Return (id of the run, rows) of all offline files of a run folder."""
    from wandb.proto.wandb_internal_pb2 import Record

    ids, rows = set(), []
    for path in sorted((run / "wandb").glob("offline-run-*/run-*.wandb")):
        for record in map(Record.FromString, records(path)):
            if record.HasField("run"):
                ids.add(record.run.run_id)
            if record.HasField("history"):
                items = record.history.item
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return ids, rows


def test_a_continued_run_is_one_run(shards, tmp_path):
    """Every number of metrics.jsonl, grids as pictures, and the same id in both starts."""
    run = tmp_path / "run"
    for steps in (4, 6):
        changes = {"schedule__steps": steps, "log": {"every": 2, "grid_every": 4, "sinks": ["wandb"]}}
        train(small(shards.folder, **changes), run, World())
    ids, rows = history(run)
    assert ids == {json.loads((run / "wandb/run.json").read_text())["id"]}
    assert len(list((run / "wandb").glob("offline-run-*"))) == 2
    shown = [row for row in rows if "loss/total" in row]
    expected = [{k: v for k, v in line.items() if k != "kind"} for line in lines(run, "train")]
    assert [{k: row[k] for k in want} for row, want in zip(shown, expected, strict=True)] == expected
    assert [row["step"] for row in rows if any(key.startswith("grid") for key in row)] == [4, 6]
    assert len(list((run / "wandb").rglob("*.png"))) == 2


def test_what_fails_there_is_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(wandb, "init", lambda **_: 1 / 0)
    writer = MetricsWriter(tmp_path, 0, ["wandb"])
    writer.write("train", 1, {"lr": 1.0})
    writer.close()
    assert "wandb does not take numbers (division by zero)" in capsys.readouterr().err
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    WandbSink.check_installed()
