"""`collagan evaluate`: score the newest generator of a run and write the results to RUN/evaluation/."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from collagan_dist import __version__, files
from collagan_dist.config.tree import Config
from collagan_dist.data.shards.quick_check import open_shards
from collagan_dist.distributed.group import Group
from collagan_dist.errors import ClusterError, ConfigError, mark_on_all_ranks
from collagan_dist.inference.evaluate import BLENDS, Evaluation, Predict, evaluate
from collagan_dist.inference.grids import write_grid
from collagan_dist.inference.score_target import Target
from collagan_dist.models.predictor import Predictor, TaskTensors
from collagan_dist.models.registry import predictor_of
from collagan_dist.runs.checkpoint import tensor_pieces
from collagan_dist.runs.evaluation_name import evaluation_settings, evaluation_variant
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.machine import code_commit, machine_state, rank_facts
from collagan_dist.runs.metrics_log import without_nonfinite
from collagan_dist.runs.model_folder import InferenceParameters, read_config, read_inference_parameters
from collagan_dist.setup import Setup, build_setup
from collagan_dist.types import Batch, EvaluationHole, World

_GRID_ROWS = 12
# For a model that searches at test: the other ranks wait meanwhile.
_SEARCHED_GRID_ROWS = 4


@dataclass(frozen=True)
class ScoreRequest:
    """What to score: a split, kinds of holes (none: the run's own) and blends (BLENDS).

    `out` is the folder of the results, for a model whose own folder is another user's; None stands for the model's.
    """

    split: str = "test"
    holes: Sequence[str] = ()
    blends: Sequence[str] = ("none",)
    out: Path | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for a hole or a blend that does not exist."""
        for what, given, known in (("hole", self.holes, get_args(EvaluationHole)), ("blend", self.blends, BLENDS)):
            for name in given:
                if name not in known:
                    raise ConfigError(f"{name!r} is not a kind of {what}; choose from {', '.join(known)}")


def score(
    run: Path,
    world: World,
    request: ScoreRequest = ScoreRequest(),
    shards: str | None = None,
    sets: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[dict[str, Any], Path]]:
    """Score a model; return (metrics, their file) for every kind of hole and blend. Collective; rank 0 writes.

    `shards` and `sets` replace the run's own shards and keys of `evaluate`. The run's headline result, also written to
    RUN/metrics.json, is that of the split `test` with the run's own kind of hole and neither of them. Raises ConfigError,
    before anything is scored, where the results cannot be written.
    `progress` is told how many samples are done of how many, those of all holes and ranks.
    """
    config = read_config(run, shards, sets)
    manifest = open_shards(config)
    own_hole = config.evaluate.hole or config.hole.kind
    setup = build_setup(config, world, manifest)
    with setup.group:
        weights = _same_weights(run, setup.group)
        predictor = predictor_of(weights, config, setup.engine, setup.tasks)
        variant = evaluation_variant(run, evaluation_settings(config), manifest.hash)
        target = Target(run, request.out, config.evaluate.positions, manifest.hash, variant)
        holes = request.holes or (own_hole,)
        paths = [target.path(request.split, hole, blend) for hole in holes for blend in request.blends]
        setup.group.on_rank0(partial(target.check, paths))
        about = _about(config, weights.step, setup.group) | {"manifest": manifest.hash} | target.about()
        results = []
        total = len(holes) * min(manifest.samples(request.split), config.evaluate.samples or sys.maxsize)
        predict = _counted(predictor, total, world.size, progress)
        for hole in holes:
            for result in evaluate(setup, predict, request.split, hole, config.evaluate.baselines, request.blends):
                blend = result.metrics["blend"]
                path = target.path(request.split, hole, blend)
                # JSON has no NaN: metrics without a value are left out.
                found = replace(result, metrics=without_nonfinite(result.metrics) | about)
                # Other shards or settings would make headlines of different runs incomparable.
                own = (request.split, hole, blend) == ("test", own_hole, "none") and not (shards or sets or request.out)
                headline = RunPaths(run).headline_metrics if own else None
                setup.group.on_rank0(partial(_write, path, found, setup, predictor, headline))
                results.append((found.metrics, path))
        return results


def _about(config: Config, step: int, group: Group) -> dict[str, Any]:
    """Return with what an evaluation is computed. Collective."""
    machine = machine_state(group.all_gather(rank_facts(group)), code_commit() if group.world.is_rank0 else None)
    return {
        "settings": evaluation_settings(config), "precision": config.runtime.precision, "step": step,
        "machine": machine, "version": __version__,
    }  # fmt: skip


def _same_weights(run: Path, group: Group) -> InferenceParameters:
    """Return a model's weights. Collective. Raises ClusterError where ranks have read different ones."""
    weights = read_inference_parameters(run)
    digest = hashlib.sha256()
    for piece in tensor_pieces(weights.generator):  # the file may be removed by now: the run may be training
        digest.update(piece)
    found = group.all_gather(f"step {weights.step}, sha256 {digest.hexdigest()[:12]}…")
    if len(set(found)) > 1:
        text = "; ".join(f"rank {rank}: {said}" for rank, said in enumerate(found))
        problem = (
            "ranks do not read the same checkpoint; is it being trained? Give the command again, or an exported model"
        )
        raise mark_on_all_ranks(ClusterError(f"{run}: {problem} ({text})"))
    return weights


def _counted(predictor: Predictor, total: int, ranks: int, progress: Callable[[int, int], None]) -> Predict:
    """Return the predictor, which tells `progress` of the samples it has seen; other ranks are taken to be as far."""
    done = 0
    progress(done, total)

    def predict(batch: Batch) -> TaskTensors:
        nonlocal done
        outputs = predictor(batch)
        done = min(total, done + ranks * len(batch.ids_B))
        progress(done, total)
        return outputs

    return predict


def _write(path: Path, result: Evaluation, setup: Setup, predictor: Predictor, headline: Path | None) -> None:
    """Write a result: values per sample (.npz), a grid of pictures (.png), metrics (.json and `headline`)."""
    path.parent.mkdir(exist_ok=True)
    # First gone, then written last: a reader that finds the metrics finds the files of the same evaluation.
    path.unlink(missing_ok=True)
    samples = io.BytesIO()
    np.savez_compressed(samples, **result.samples)  # type: ignore[arg-type]
    files.write_bytes(path.with_suffix(".npz"), samples.getvalue())
    metrics = result.metrics
    view = setup.view(training=False, hole=metrics["hole"])
    rows = _SEARCHED_GRID_ROWS if predictor.needs_discriminators else _GRID_ROWS
    batch = setup.first_batch(metrics["split"], view, rows)
    write_grid(path.with_suffix(".png"), setup, predictor, batch, BLENDS[metrics["blend"]])
    files.write_json(path, metrics)
    if headline is not None:
        files.write_json(headline, metrics)
