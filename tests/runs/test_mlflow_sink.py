"""The sink of MLflow with the real library and a local store."""

import json

import pytest

from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.runs.run_folders import lines
from tests.training.small import small

pytest.importorskip("mlflow", reason="the extra mlflow is not installed")


def test_a_continued_run_is_one_run(shards, tmp_path, monkeypatch):
    """Every number of metrics.jsonl at its step, the configuration, and the grids, in one run of both starts."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    from mlflow.tracking import MlflowClient

    run = tmp_path / "run"
    for steps in (4, 6):
        changes = {"schedule__steps": steps, "log": {"every": 2, "grid_every": 4, "sinks": ["mlflow"]}}
        train(small(shards.folder, **changes), run, World())
    client = MlflowClient(f"sqlite:///{run}/mlflow/mlflow.db")
    (found,) = client.search_runs([client.get_experiment_by_name("collagan_dist").experiment_id])
    assert json.loads((run / "mlflow/run.json").read_text()) == {"id": found.info.run_id, "server": ""}
    assert found.info.status == "FINISHED" and found.info.run_name == "run"
    assert found.data.params["schedule.batch"] == "4" and found.data.params["optim.ema"] == "0.9"
    written = lines(run, "train")
    assert {"loss/total", "lr", "images_per_s"} <= found.data.metrics.keys() and len(written) == 3
    for key in found.data.metrics:
        shown = {metric.step: metric.value for metric in client.get_metric_history(found.info.run_id, key)}
        assert shown == {line["step"]: line[key] for line in written if key in line}
    grids = {path.path for path in client.list_artifacts(found.info.run_id, "grids")}
    assert grids == {"grids/step-00000004.png", "grids/step-00000006.png"}
    for name in grids:
        assert (run / "mlflow/artifacts" / found.info.run_id / "artifacts" / name).read_bytes() == (
            run / name
        ).read_bytes()


def test_another_server_has_a_run_of_its_own(tmp_path, monkeypatch):
    from collagan_dist.runs.metrics_log import MetricsWriter

    ids = []
    for store in ("one", "one", "two"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/{store}.db")
        writer = MetricsWriter(tmp_path, 0, ["mlflow"])
        writer.write("train", 1, {"lr": 1.0})
        writer.close()
        ids.append(json.loads((tmp_path / "mlflow/run.json").read_text())["id"])
    assert ids[0] == ids[1] != ids[2] and not (tmp_path / "mlflow/mlflow.db").exists()
