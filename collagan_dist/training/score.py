"""`collagan evaluate`: a run folder's newest generator, scored into RUN/evaluation/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from collagan_dist import files
from collagan_dist.contract import World
from collagan_dist.runtime.metrics import finite
from collagan_dist.training.build import build, open_shards
from collagan_dist.training.evaluate import evaluate
from collagan_dist.training.grids import write_grid
from collagan_dist.training.networks import build_generator
from collagan_dist.training.run_folder import load_generator, read_config

_SHEET_ROWS = 12


def score(run: Path, world: World, shards: str | None, split: str, hole: str | None) -> tuple[dict[str, Any], Path]:
    """(metrics, the file they were written to). Collective; rank 0 writes.

    With the split `test` and the run's own kind of hole they are also RUN/metrics.json.
    """
    config = read_config(run, shards)
    manifest = open_shards(config)
    setup = build(config, world, manifest)
    try:
        generator = setup.engine.place(build_generator(config, setup.tasks))
        step = load_generator(run, generator)
        kind = hole or config.evaluate.hole or config.hole.kind
        metrics = finite(evaluate(setup, generator, split, kind, config.evaluate.baselines))
        metrics |= {"step": step, "manifest": manifest.hash}
        path = run / "evaluation" / f"{split}-{kind}.json"

        def write() -> None:
            path.parent.mkdir(exist_ok=True)
            files.write_json(path, metrics)
            if shards is None and split == "test" and kind == (config.evaluate.hole or config.hole.kind):
                files.write_json(run / "metrics.json", metrics)
            rows = setup.first_batch(split, setup.view(training=False, hole=kind), _SHEET_ROWS)
            write_grid(path.with_suffix(".png"), setup, generator, rows)

        setup.group.on_main(write)
        return metrics, path
    finally:
        setup.group.close()
