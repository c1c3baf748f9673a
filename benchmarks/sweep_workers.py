"""Seconds that a trial of two workers costs beside its training: our ranks in the trial's placement group, or Ray Train inside the trial.

Workers do nothing but report three times, one trial at a time, on a Ray cluster of this machine alone; both alternate. Needs Ray's
extra `train`.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import save
from collagan_dist.sweep.ray_cluster import open_cluster

TRIALS, ROUNDS, WORKERS = 3, 3, 2


def main() -> None:
    os.environ.update(RAY_TRAIN_V2_ENABLED="1", RAY_CHDIR_TO_TRIAL_DIR="0", TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1")
    seconds: dict[str, list[float]] = {"ranks in the trial's placement group": [], "Ray Train inside the trial": []}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, open_cluster(None):
        from ray import tune

        bundles = tune.PlacementGroupFactory([{"CPU": 0.5}] * WORKERS)
        for _ in range(ROUNDS):
            for name, function, takes in zip(seconds, (in_group, in_ray_train), (bundles, {"cpu": 0.5}), strict=True):
                began = time.perf_counter()
                tune.Tuner(
                    tune.with_resources(function, takes),
                    param_space={"folder": folder, "number": tune.grid_search(list(range(TRIALS)))},
                    tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=1),
                    run_config=tune.RunConfig(name=f"{began}", storage_path=folder, verbose=0),
                ).fit()
                seconds[name].append((time.perf_counter() - began) / TRIALS)
    save(
        __file__,
        {
            "data": f"{TRIALS} trials of {WORKERS} workers that only report, one at a time; {ROUNDS} rounds",
            "load": round(os.getloadavg()[0], 1),
            "seconds a trial": {name: round(statistics.median(values), 2) for name, values in seconds.items()},
        },
    )


def in_group(config: dict[str, Any]) -> None:
    import ray
    from ray import tune
    from ray.util import get_current_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    class Rank:
        def work(self) -> int:
            return os.getpid()

    group: Any = get_current_placement_group()
    make: Any = ray.remote(Rank)
    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=1)
    actor = make.options(num_cpus=0.5, scheduling_strategy=place).remote()
    ray.get(actor.work.remote())
    for number in range(3):
        tune.report({"number": number})
    ray.kill(actor)


def in_ray_train(config: dict[str, Any]) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    def work() -> None:
        import ray.train

        for number in range(3):
            ray.train.report({"number": number})

    DataParallelTrainer(
        work,
        scaling_config=ScalingConfig(num_workers=WORKERS, resources_per_worker={"CPU": 0.5}),
        run_config=RunConfig(
            name=f"{time.time()}", storage_path=str(Path(config["folder"], "train")), callbacks=[TuneReportCallback()]
        ),
    ).fit()


if __name__ == "__main__":
    main()
