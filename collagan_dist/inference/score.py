"""`collagan evaluate`: a model's newest generator, scored into RUN/evaluation/."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from collagan_dist import files
from collagan_dist.config.load import config_to_dict
from collagan_dist.config.tree import Config
from collagan_dist.inference.evaluate import BLENDS, Evaluation, evaluate
from collagan_dist.inference.grids import write_grid
from collagan_dist.models.predictor import Predictor
from collagan_dist.models.registry import load_predictor
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.metrics_log import finite
from collagan_dist.runs.model_folder import read_config
from collagan_dist.setup import Setup, build_setup, open_shards
from collagan_dist.types import World

_SHEET_ROWS = 12
_SEARCHED_ROWS = 4  # of a model that searches at test, while the other ranks wait
# Keys of `evaluate` that change numbers; a result says which it was made with.
RESULT_SETTINGS = ("positions", "fixed", "samples", "noise", "batch_norm", "readout", "ssim", "size", "search")


def score(
    run: Path,
    world: World,
    shards: str | None = None,
    split: str = "test",
    holes: Sequence[str] = (),
    blends: Sequence[str] = ("none",),
    sets: Sequence[str] = (),
) -> list[tuple[dict[str, Any], Path]]:
    """(metrics, the file they were written to) for every kind of hole (none: the run's own) and blend. Collective; rank 0 writes.

    With the split `test`, the run's own kind of hole and no `sets` they are also RUN/metrics.json.
    """
    config = read_config(run, shards, sets)
    manifest = open_shards(config)
    own = config.evaluate.hole or config.hole.kind
    setup = build_setup(config, world, manifest)
    with setup.group:
        predictor, step = load_predictor(run, config, setup.engine, setup.tasks)
        about = {"settings": evaluation_settings(config), "step": step, "manifest": manifest.hash}
        results = []
        for hole in holes or (own,):
            for result in evaluate(setup, predictor, split, hole, config.evaluate.baselines, blends):
                blend = result.metrics["blend"]
                path = RunPaths(run).evaluation(split, hole, blend, config.evaluate.positions)
                metrics = finite(result.metrics) | about
                headline = split == "test" and hole == own and blend == "none" and not (shards or sets)
                setup.group.on_rank0(
                    lambda p=path, m=metrics, r=result, h=headline: _write(run, p, m, r, setup, predictor, h)  # type: ignore[misc]
                )
                results.append((metrics, path))
        return results


def evaluation_settings(config: Config) -> dict[str, Any]:
    """How a model is looked at: what of the configuration changes a result, without what is learned."""
    tree = config_to_dict(config)["evaluate"]
    return {key: tree[key] for key in RESULT_SETTINGS}


def _write(
    run: Path, path: Path, metrics: dict[str, Any], result: Evaluation, setup: Setup, predictor: Predictor, head: bool
) -> None:
    path.parent.mkdir(exist_ok=True)
    samples = io.BytesIO()
    np.savez_compressed(samples, **result.samples)  # type: ignore[arg-type]
    files.write_bytes(path.with_suffix(".npz"), samples.getvalue())
    view = setup.view(training=False, hole=metrics["hole"])
    rows = _SEARCHED_ROWS if predictor.needs_discriminators else _SHEET_ROWS
    batch = setup.first_batch(metrics["split"], view, rows)
    write_grid(path.with_suffix(".png"), setup, predictor, batch, BLENDS[metrics["blend"]])
    if head:
        files.write_json(RunPaths(run).headline_metrics, metrics)
    files.write_json(path, metrics)  # last: who finds it finds the others too
