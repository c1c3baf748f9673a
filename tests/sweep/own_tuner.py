"""What a user of Ray Tune would write, as a program of its own: `python -m tests.sweep.own_tuner FOLDER SHARDS SCENARIO...`

Each scenario leaves what it saw in FOLDER/SCENARIO.json. Ray starts once.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from collagan_dist import sweep
from collagan_dist.errors import ConfigError
from tests.training.small import small

LR = "optim.generator.lr"


def callback(file: Path, interrupt_at: int = 0) -> Any:
    """A callback of the user's: it writes down each result, and presses Ctrl-C at one of them."""
    from ray import tune

    class Seen(tune.Callback):
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict, **info: Any) -> None:
            row = [trial.config[LR], result["steps"], result["samples"], result["psnr_hole"]]
            with file.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            if len(file.read_text().splitlines()) == interrupt_at:
                os.kill(os.getpid(), signal.SIGINT)

    return Seen()


class Program:
    def __init__(self, folder: Path, shards: str) -> None:
        self.folder, self.shards = folder, shards

    def tuner(self, name: str, trainable: Any, space: dict[str, Any], interrupt_at: int = 0, **options: Any) -> Any:
        from ray import tune

        seen = callback(self.folder / f"{name}.seen", interrupt_at)
        return tune.Tuner(
            trainable, param_space=space,
            tune_config=tune.TuneConfig(metric="psnr_hole", mode="max", reuse_actors=True, **options),
            run_config=tune.RunConfig(name=name, storage_path=str(self.folder / "tune"), callbacks=[seen], verbose=0),
        )  # fmt: skip

    def trainable(self, **resources: int) -> Any:
        settings = {"schedule__steps": 9, "evaluate__every": 3, "evaluate__samples": 4, "checkpoint__every": 2}
        return sweep.trainable(small(self.shards, **settings), **resources)

    def write(self, name: str, results: Any) -> None:
        trials = [
            {"lr": one.config[LR], "path": one.path, "metrics": one.metrics, "checkpoint": one.checkpoint.path}
            for one in results
        ]
        (self.folder / f"{name}.json").write_text(json.dumps(trials))

    def asha(self) -> None:
        """Ctrl-C at the second result, and `Tuner.restore`; the second trial is stopped at the first rung."""
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler

        scheduler = ASHAScheduler(time_attr="samples", grace_period=12, max_t=36, reduction_factor=3)
        space = {LR: tune.grid_search([1e-3, 1e-1])}
        options = {"scheduler": scheduler, "max_concurrent_trials": 1}
        self.tuner("asha", self.trainable(), space, interrupt_at=2, **options).fit()
        self.write("asha", tune.Tuner.restore(str(self.folder / "tune/asha"), self.trainable()).fit())

    def wrong(self) -> None:
        try:
            self.tuner("wrong", self.trainable(), {"optim.generator.rl": 1e-3}).fit()
        except ConfigError as error:
            (self.folder / "wrong.json").write_text(json.dumps(str(error)))

    def pbt(self) -> None:
        """Two members; the worse one takes over the better one's networks after each result."""
        from ray import tune
        from ray.tune.schedulers import PopulationBasedTraining

        scheduler = PopulationBasedTraining(
            time_attr="steps", perturbation_interval=3, quantile_fraction=0.5, resample_probability=0.0,
            hyperparam_mutations={LR: [1e-3, 2e-3, 4e-3]}, synch=True,
        )  # fmt: skip
        space = {LR: tune.grid_search([1e-3, 4e-3])}
        self.write("pbt", self.tuner("pbt", self.trainable(), space, scheduler=scheduler).fit())

    def ranks(self) -> None:
        self.write("ranks", self.tuner("ranks", self.trainable(workers=2), {LR: 1e-2}).fit())


if __name__ == "__main__":
    import ray

    folder, shards, *scenarios = sys.argv[1:]
    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False,
        _node_ip_address="127.0.0.1", _temp_dir=os.environ["RAY_FOLDER"],
    )  # fmt: skip
    for scenario in scenarios:
        getattr(Program(Path(folder), shards), scenario)()
