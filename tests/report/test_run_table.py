import json
import shutil

import pytest

from collagan_dist.config.load import load_config, to_yaml
from collagan_dist.errors import DataError
from collagan_dist.report.run_table import run_row, run_table


def write_run(folder, preset="stable", model=None, sets=(), lines=(), metrics=None):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(load_config(preset, model, sets, "/data/packed")))
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    if metrics:
        (folder / "metrics.json").write_text(json.dumps(metrics))


LINE = {"kind": "train", "step": 50, "epoch": 0.5, "samples": 400, "loss/total": 2.5, "weighted/total": 2.5, "lr": 2e-4}
METRICS = {"split": "test", "hole": "block", "blend": "none", "samples": 10, "step": 50, "psnr_hole": 21.5,
           "dice": {"nose": 0.5, "mean": 0.25}, "se": {"psnr_hole": 0.1}}  # fmt: skip


def test_a_row_says_what_the_run_is(tmp_path):
    sets = ("schedule.batch=8", "schedule.steps=100", "optim.generator.lr=1e-3")
    write_run(tmp_path / "run", "stable", "M_id", sets, [LINE], METRICS)
    assert run_row(tmp_path / "run") == {
        "name": "run", "path": str(tmp_path / "run"), "model": "M_id", "preset": "stable", "step": 50, "steps": 100,
        "split": "test", "hole": "block", "blend": "none", "samples": 10, "psnr_hole": 21.5, "dice/nose": 0.5, "dice/mean": 0.25,
        "loss/total": 2.5, "lr": 2e-4,
        "schedule.batch": 8, "schedule.steps": 100, "optim.generator.lr": 1e-3,
    }  # fmt: skip


def test_runs_at_all_levels_and_nothing_else(tmp_path):
    for name in ("a", "sweep/trials/0001", "sweep/trials/0000", ".hidden", "sweep/too/deep/run"):
        write_run(tmp_path / name, "demo")
    write_run(tmp_path / "exported")
    (tmp_path / "exported/metrics.jsonl").unlink()
    rows = run_table(tmp_path)
    assert [row["path"] for row in rows] == [str(tmp_path / n) for n in ("a", "sweep/trials/0000", "sweep/trials/0001")]
    assert {(row["preset"], row["model"], row["step"], row["steps"]) for row in rows} == {("demo", "M*_isd", 0, 1600)}
    assert run_table(tmp_path / "a") == [run_row(tmp_path / "a")]
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(DataError, match="there is no run in it"):
        run_table(tmp_path / "exported")


def test_a_run_of_another_version_has_a_row(tmp_path):
    write_run(tmp_path / "run", lines=[LINE])
    (tmp_path / "run/config.yaml").write_text("model: {name: collagan, tasks: [inpainting]}\nfuture: 1\n")
    row = run_row(tmp_path / "run")
    assert row["preset"] is None and row["model"] == "M_i" and row["loss/total"] == 2.5
