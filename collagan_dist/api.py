"""The Python interface: `import collagan_dist as cd`. Its functions call what the commands call (docs/python.md).

Errors are those of collagan_dist.errors; a message says what is wrong, where and what to do.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collagan_dist.config.load import assignments, load_config
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError
from collagan_dist.types import World

if TYPE_CHECKING:
    import optuna
    import pandas

    from collagan_dist.inference.model import Model as Model

Location = str | Path
Settings = Mapping[str, Any]

__all__ = ["Model", "draw", "evaluate", "report", "runs", "sweep_results", "sweep_study", "train", "webdataset"]


def __getattr__(name: str) -> Any:
    if name == "Model":  # it imports torch, which drawing and reports do not need
        from collagan_dist.inference.model import Model

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def train(
    config: Location | Config,
    run: Location,
    data: Location | None = None,
    model: str | None = None,
    settings: Settings | None = None,
    allow_config_change: bool = False,
) -> dict[str, Any]:
    """Train into the folder `run`, in this process, as one rank; return its row of `runs`: step, last metrics, settings.

    `config` is a preset, a YAML file or a Config. `data` is a folder of shards or its URL, in place of `data.shards`, `model` a
    name of the paper, as M*_isd. `settings` change keys: {"schedule.steps": 100}. The same call continues a run.
    Raises ConfigError, DataError, ClusterError (the run is alive elsewhere), CheckpointError, NumericError; and Interrupted,
    with all saved, after Ctrl-C.
    """
    from collagan_dist.distributed.stop_request import StopRequest
    from collagan_dist.report.run_table import run_row
    from collagan_dist.training import loop

    source = config if isinstance(config, Config) else str(config)
    resolved = load_config(source, model, assignments(settings), None if data is None else str(data))
    folder = Path(run)
    with StopRequest() as stop:
        options = loop.StartOptions(stop, f"collagan_dist.train(…, {str(run)!r})", allow_config_change)
        loop.train(resolved, folder, World(), options)
    return run_row(folder)


def evaluate(
    model: Location,
    data: Location | None = None,
    split: str = "test",
    hole: str | None = None,
    blend: str = "none",
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Evaluate a run folder or an exported one, in this process; return the metrics (docs/run-folder.md lists them).

    `data`: other shards than the run's own. `hole`: block, pattern, noise, none or O1 to O6; None is that of training.
    `settings` change keys of `evaluate` and `runtime`. Results are also written to `model`/evaluation.
    Raises ConfigError, DataError, CheckpointError.
    """
    from collagan_dist.inference.score import ScoreRequest, score

    request = ScoreRequest(split, () if hole is None else (hole,), (blend,))
    ((metrics, _),) = score(Path(model), World(), request, None if data is None else str(data), assignments(settings))
    return metrics


def report(paths: Location | Sequence[Location], out: Location | None = None) -> Path:
    """Write one page about runs, a sweep or a reproduction, and return its path. Raises DataError.

    Without `out` it is report.html in the run folder, or in the folder that several runs share.
    """
    from collagan_dist.report.page import write_report

    several = [paths] if isinstance(paths, str | Path) else paths
    return write_report([Path(path) for path in several], None if out is None else Path(out))


def draw(out: Location, count: int = 1000, seed: int = 0, coupling: float = 1.0, workers: int = 1) -> Path:
    """Draw procedural faces with exact landmarks and label maps in CelebA's layout into `out`, and return it.

    `coupling` (0 to 1): how far parts of a face determine one another. `workers`: processes, 0 for one a core. More than one
    import the calling script again, so that its own lines must stand under `if __name__ == "__main__":`.
    Raises ConfigError.
    """
    from collagan_dist.faces.layout import draw_faces

    draw_faces(Path(out), count, seed, workers, coupling=coupling)
    return Path(out)


def runs(folder: Location) -> list[dict[str, Any]]:
    """Return a row for each run in a folder, up to three levels deep; pandas.DataFrame takes the list as it is.

    A row has name, path, model, preset, step, steps, the last metrics, and the settings that differ from the preset.
    Raises DataError where there is no run, or one of its files is damaged.
    """
    from collagan_dist.report.run_table import run_table

    return run_table(Path(folder))


def sweep_results(out: Location) -> pandas.DataFrame:
    """Return the trials of a sweep's folder as a pandas DataFrame, a row each; also while the sweep runs.

    Columns: trial, configuration, status, steps, samples, the metrics of the trial's last evaluation (after `samples` samples),
    config/KEY for each searched key, and role, seed, restarts, breaks, reason, path. Trials of one `configuration` differ in their seed
    alone. Raises DataError, and ConfigError without pandas.
    """
    pandas = _sweep_library("pandas")
    from collagan_dist.sweep import sweep_table

    rows = sweep_table.table(Path(out))
    return pandas.DataFrame(rows, columns=sweep_table.columns(rows))


def sweep_study(out: Location) -> optuna.Study:
    """Return the configurations of a sweep's folder as an Optuna study, for its plots and importances. It continues no search.

    One of several seeds has their means. One that was stopped at a rung is pruned; its results are intermediate values by samples.
    `user_attrs` have what `sweep_results` has of its first trial, with the means.
    Raises DataError, and ConfigError without Optuna.
    """
    _sweep_library("optuna")
    from collagan_dist.sweep import sweep_table

    return sweep_table.study(Path(out))


def _sweep_library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(f"this needs {name}, which is not installed: pip install 'collagan_dist[sweep]'") from None


def webdataset(shards: Location, split: str = "train") -> Any:
    """Return the samples of a split as a webdataset pipeline, in the order of the shards: for a loop of one's own.

    A sample has `jpg` (H, W, 3) uint8 RGB, `seg.png` (H, W) uint8 classes where the data set has them, and `json`, a dict with
    the landmarks. The pipeline takes webdataset's methods, as .shuffle(1000) or .map(function). Raises DataError.
    """
    from collagan_dist.data.shards.pipeline import open_pipeline

    return open_pipeline(shards, split)
