"""The sink of MLflow: a store in RUN/mlflow, unless MLFLOW_TRACKING_URI names a server."""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar

from collagan_dist import files
from collagan_dist.config.load import leaves
from collagan_dist.runs.layout import step_name
from collagan_dist.runs.tracker import TrackedRun, TrackerSink
from collagan_dist.urls import redact

_EXPERIMENT = "collagan_dist"
# MLflow's own limits of a call and of a parameter.
_MAX_METRICS, _MAX_PARAMS, _MAX_CHARACTERS = 1000, 100, 6000


class MlflowSink(TrackerSink):
    """All starts of a run are one run of MLflow. Steps that a continued run trains again are written again."""

    name: ClassVar[str] = "mlflow"
    # The local store is SQLite: MLflow no longer maintains its store of files.
    needs: ClassVar[tuple[str, ...]] = ("mlflow", "sqlalchemy", "alembic")
    _client: Any
    _id: str

    def _open(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # it prints among our lines
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        given = os.environ.get("MLFLOW_TRACKING_URI")
        self.folder.mkdir(exist_ok=True)
        self._client = MlflowClient(given or f"sqlite:///{self.folder.resolve() / 'mlflow.db'}")
        tracked, server = self._tracked(), redact(given or "")
        if tracked is not None and tracked.server == server:
            self._id = tracked.id
            self._client.update_run(self._id, status="RUNNING")
            return
        name = self.run.resolve().name
        self._id = self._client.create_run(self._experiment(local=not given), run_name=name).info.run_id
        self._note(TrackedRun(id=self._id, server=server))
        # Once: MLflow lets no parameter change.
        params = [Param(key, str(value)[:_MAX_CHARACTERS]) for key, value in leaves(self._settings()).items()]
        for start in range(0, len(params), _MAX_PARAMS):
            self._client.log_batch(self._id, params=params[start : start + _MAX_PARAMS])

    def _experiment(self, local: bool) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        pictures = (self.folder.resolve() / "artifacts").as_uri() if local else None
        return self._client.create_experiment(name, artifact_location=pictures)

    def _send(self, step: int, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, step) for key, value in values.items()]
        for start in range(0, len(metrics), _MAX_METRICS):
            self._client.log_batch(self._id, metrics=metrics[start : start + _MAX_METRICS])

    def _send_grid(self, step: int, png: bytes) -> None:
        with files.temporary_folder("collagan-mlflow-") as folder:
            path = folder / f"{step_name(step)}.png"
            path.write_bytes(png)
            self._client.log_artifact(self._id, str(path), "grids")

    def _finish(self) -> None:
        self._client.set_terminated(self._id)
