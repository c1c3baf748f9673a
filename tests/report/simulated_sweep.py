"""A sweep whose trainings are simulated: the real space, scheduler, search and writers, with metrics from a formula."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from collagan_dist import files
from collagan_dist.config import strict_yaml
from collagan_dist.config.load import to_yaml
from collagan_dist.runs.metrics_log import MetricsWriter
from collagan_dist.sweep import results, schedule
from collagan_dist.sweep.new_trial import new_trial, trial_config
from collagan_dist.sweep.prepare import SweepOptions, constant_summary, prepare
from collagan_dist.sweep.schedule import DONE
from collagan_dist.sweep.trial import Trial, trial_dir, with_results, write_trial
from tests.training.small import small

REC, ADV, LR = "loss.weights.inpainting.rec", "loss.weights.inpainting.adv", "optim.generator.lr"
CHOICE = "model.discriminators"
STEPS, BATCH = 54, 4
KEYS: dict[str, Any] = {
    REC: {"loguniform": [30, 300]},
    "loss.weights.*.adv": {"simplex": 1.0},
    LR: {"loguniform": [1e-4, 1e-2]},
    CHOICE: {"choice": ["per_task", "shared"]},
}
ASHA: dict[str, Any] = {"metric": "psnr_hole", "scheduler": "asha", "space": KEYS}
# Several metrics have a front instead of a best trial, and no trial is stopped by one of them.
NSGA2: dict[str, Any] = {"metric": ["psnr_hole", "dice", "landmark_error"], "scheduler": "none", "search": "nsga2", "space": KEYS}  # fmt: skip


def quality(trial: Trial, samples: int) -> dict[str, Any]:
    """Metrics with a flat top in λ_rec between 60 and 150, and the best learning rate at 0.002."""
    beyond = max(0.0, abs(math.log10(trial.values.get(REC, 95) / 95)) - 0.2)
    loss = 9 * beyond**1.5 + 0.7 * math.log10(trial.values.get(LR, 2e-3) / 2e-3) ** 2
    noise = math.sin(1000 * trial.number) / 10 - 0.3 * (trial.role == "paper")
    psnr = 18.9 - loss - 4.2 * math.exp(-3 * samples / (STEPS * BATCH)) + noise
    dice = 0.7 - trial.values.get(ADV, 0.6) ** 2 / 20 + psnr / 500
    return {
        "psnr": psnr + 6.2, "psnr_hole": psnr, "ssim": 0.86 + psnr / 200, "ssim_hole": 0.4 + psnr / 60,
        "dice": {"mean": dice}, "dice_hole": {"mean": dice - 0.1},
        "landmark_error": {"mean": 6 - psnr / 5 - noise}, "landmark_error_hole": {"mean": 7 - psnr / 5},
    }  # fmt: skip


class SimulatedSweep:
    """What `collagan sweep` writes below `out`. A trial in `failing` stops with a NumericError at its first rung."""

    def __init__(
        self, folder: Path, shards: Path, trials: int, space: dict[str, Any] = ASHA, seeds: int = 0, failing=()
    ) -> None:
        self.out, self.trials, self._failing = folder / "out", list[Trial](), failing
        folder.mkdir(parents=True)
        settings = {"schedule__steps": STEPS, "schedule__batch": BATCH, "evaluate__samples": 4}
        (folder / "small.yaml").write_text(to_yaml(small(shards, **settings)))
        (folder / "space.yaml").write_text(strict_yaml.dump(space))
        paths = str(folder / "small.yaml"), str(folder / "space.yaml"), str(shards)
        self.prepared = prepare(SweepOptions(*paths, self.out, trials, seeds))
        self.plan, self._constants = self.prepared.plan, constant_summary(self.prepared)

    def run(self, segments: int = 10_000) -> SimulatedSweep:
        """Do all segments, or only the first `segments` of them, and write the result files."""
        self.out.mkdir(exist_ok=True)
        over = False
        for _ in range(segments):
            segment = schedule.next_segment(self.plan, self.trials)
            if over := segment == DONE:
                break
            if segment.number == len(self.trials):
                self.trials.append(new_trial(self.plan, self.trials))
            self.trials[segment.number] = self._train(replace(self.trials[segment.number], until=segment.samples))
        results.write_csv(self.out, self.plan, self.trials, over)
        state = "done" if over else "interrupted"
        facts = {**self._constants, "status": state, "seconds": 812.5}
        results.write_summary(self.out, self.plan, self.trials, facts)
        return self

    def folder(self, number: int) -> Path:
        return trial_dir(self.out, self.trials[number])

    def _train(self, trial: Trial) -> Trial:
        run, step = trial_dir(self.out, trial), trial.steps(trial.until)
        write_trial(self.out, trial)
        config = trial_config(self.plan, trial, self.prepared.options.resources)
        files.write_text(run / "config.yaml", to_yaml(config))
        if trial.number in self._failing:
            trial = replace(trial, failure=(6, f"the loss is NaN at step {step}, after 3 rollbacks"), restarts=2)
        else:
            (run / f"checkpoints/step-{step:08d}").mkdir(parents=True)
            log = MetricsWriter(run, step)
            what = {"split": "valid", "hole": "block", "blend": "none", "samples": 4}
            log.write("eval", step, what | quality(trial, step * trial.batch))
            log.close()
        write_trial(self.out, trial)
        return with_results(self.out, trial)
