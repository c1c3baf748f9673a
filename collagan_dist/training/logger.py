"""What a training logs: mean losses, evaluations and events into metrics.jsonl, picture grids, and progress for people."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from collagan_dist import files
from collagan_dist.data.loading.fallback_reader import DamageRecord, check_damage_limit
from collagan_dist.distributed.stragglers import StragglerDetector
from collagan_dist.distributed.update import Verdict
from collagan_dist.errors import ClusterError, mark_on_all_ranks
from collagan_dist.inference.evaluate import evaluate
from collagan_dist.inference.grids import write_grid
from collagan_dist.models.networks import Networks
from collagan_dist.models.predictor import Predictor
from collagan_dist.models.registry import build_predictor
from collagan_dist.models.step import Scalars
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.lease import Lease
from collagan_dist.runs.metrics_log import MetricsWriter
from collagan_dist.setup import Setup
from collagan_dist.training.progress_bar import ProgressBar
from collagan_dist.types import Batch

logger = logging.getLogger(__name__)

_GRID_ROWS = 8
# A discriminator this good, for this many lines in a row, gives the generator hardly any gradient.
_WON_ACCURACY, _WON_LINES = 0.99, 5


class TrainingLogger:
    """Sums each step's values on the device, and averages over ranks only when a line is due. Rank 0 writes and shows."""

    def __init__(
        self,
        setup: Setup,
        run: Path,
        start: int,
        stop_at: int,
        loss_weights: dict[str, float],
        lease: Lease | None = None,
    ) -> None:
        self.setup, self.run, self.loss_weights, self.lease = setup, run, loss_weights, lease
        # Sums and counts by the names of a step's values: adversarial losses may start within a line's steps.
        self._sums: dict[tuple[str, ...], torch.Tensor] = {}
        self._counts: dict[tuple[str, ...], int] = {}
        self._line_began, self._idle_before, self._blocked_before = time.perf_counter(), 0.0, 0.0
        self._metrics: MetricsWriter | None = None
        self._bar: ProgressBar | None = None
        if setup.world.is_rank0:
            # Opening the file cuts off lines of steps that come again, so no other start may be writing.
            with lease.held() if lease else nullcontext():
                is_current = lease.is_current if lease else lambda: True
                self._metrics = MetricsWriter(run, start, setup.config.log.sinks, is_current)
            self._bar = ProgressBar(start, stop_at, setup.config.schedule.batch)
        self._grid_batch: Batch | None = None
        self.damaged = 0  # samples that the loaders of all ranks had found at the last call of `quarantine`
        self._quarantined: set[int] = set()
        self._samples = setup.manifest.samples(setup.config.data.split)  # once: it adds up all shards
        self._stragglers = StragglerDetector(setup.group, setup.config.runtime.straggler)
        self._won_lines: dict[str, int] = {}  # by task: lines in a row with a discriminator that is nearly always right

    def event(self, step: int, name: str, **facts: Any) -> None:
        """Write an event line."""
        if self._metrics is not None:
            self._metrics.write("event", step, {"event": name, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **facts})

    def add(self, values: Scalars) -> None:
        """Add the values of a step to the next train line."""
        names = tuple(sorted(values))  # all ranks must add the same value at the same place
        stacked = torch.stack([values[name] for name in names])
        self._sums[names] = self._sums[names] + stacked if names in self._sums else stacked
        self._counts[names] = self._counts.get(names, 0) + 1
        if self._bar is not None:
            self._bar.advance()

    def skip(self, step: int, verdict: Verdict) -> None:
        """Log a step that was not done."""
        # An overflow of fp16 is normal while the scale finds its size: an event, but no warning.
        self.event(step, "skip", phase=verdict.side, overflow=verdict.overflow, ranks=list(verdict.ranks))
        if self._metrics is not None and not verdict.overflow:
            ranks = f" on rank {', '.join(map(str, verdict.ranks))}" if verdict.ranks else ""
            logger.warning("warning: step %d: the %s met NaN or Inf%s; skipped", step, verdict.side, ranks)

    def quarantine(self, step: int, records: list[DamageRecord]) -> None:
        """Log the damaged samples that ranks have met; `records` are this rank's. Collective.

        Raises DataError, on all ranks, when there are more than data.max_damaged.
        """
        said = self.setup.group.all_gather([vars(record) for record in records])
        by_rank = [[DamageRecord(**record) for record in of_rank] for of_rank in said]
        self.damaged = sum(map(len, by_rank))
        for record in {record.number: record for of_rank in by_rank for record in of_rank}.values():
            if record.number not in self._quarantined:
                self._quarantined.add(record.number)
                self.event(step, "quarantine", sample=record.number, reason=record.reason)
                if self.setup.world.is_rank0:
                    logger.warning("warning: %s; another sample takes its place", record.reason)
        check_damage_limit(self.setup.manifest.folder, len(self._quarantined), self.setup.config.data.max_damaged)

    def train_line(self, step: int, lr: float, idle_seconds: float, blocked_seconds: float = 0.0) -> None:
        """Write a train line with means over ranks and over the steps since the last line. Collective.

        Training waited `idle_seconds` for data and `blocked_seconds` for checkpoints since this start began.
        """
        steps = sum(self._counts.values())
        if not steps:  # all were skipped: there is no loss to average
            return
        losses = self._mean_values()
        now = time.perf_counter()
        seconds = max(now - self._line_began, 1e-9)
        batch = self.setup.config.schedule.batch
        record = {
            "epoch": step * batch / self._samples,
            "samples": step * batch,
            **losses,
            **self._weighted(losses),
            "images_per_s": steps * batch / seconds,
            "data_wait_share": (idle_seconds - self._idle_before) / seconds,
            "checkpoint_wait_share": (blocked_seconds - self._blocked_before) / seconds,
            "lr": lr,
        }
        self._sums, self._counts, self._line_began = {}, {}, now
        self._idle_before, self._blocked_before = idle_seconds, blocked_seconds
        if self._metrics is not None and self._bar is not None:
            self._metrics.write("train", step, record)
            self._bar.show(step, record)
        self._warn_of_won_discriminators(step, losses)
        self._warn_of_stragglers(step)

    def _mean_values(self) -> dict[str, float]:
        """Return the means over ranks and over the steps that had the value. Collective."""
        order = sorted(self._sums)
        sums = self.setup.group.all_reduce_mean(torch.cat([self._sums[names] for names in order])).tolist()
        totals: dict[str, float] = {}
        counts: dict[str, int] = {}
        for names in order:
            for name in names:
                totals[name] = totals.get(name, 0.0) + sums.pop(0)
                counts[name] = counts.get(name, 0) + self._counts[names]
        return {name: totals[name] / counts[name] for name in sorted(totals)}

    def _weighted(self, losses: dict[str, float]) -> dict[str, float]:
        """Return what each loss adds to the total loss."""
        return {
            name.replace("loss/", "weighted/", 1): self.loss_weights[name] * value
            for name, value in losses.items()
            if name in self.loss_weights
        }

    def _warn_of_stragglers(self, step: int) -> None:
        """Log the ranks that keep the others waiting. Collective.

        Raises ClusterError, on all ranks, if runtime.fail_on_straggler is set.
        """
        for straggler in self._stragglers.check():
            self.event(step, "straggler", **vars(straggler))
            if self.setup.config.runtime.fail_on_straggler:
                hint = "start again without that machine, or set runtime.fail_on_straggler to false"
                raise mark_on_all_ranks(ClusterError(f"step {step}: {straggler}; {hint}"))
            if self._metrics is not None:
                logger.warning("warning: step %d: %s", step, straggler)

    def _warn_of_won_discriminators(self, step: int, losses: dict[str, float]) -> None:
        """Log, once in a row of lines, that a discriminator is nearly always right."""
        for name, accuracy in losses.items():
            if not name.startswith("accuracy/"):
                continue
            task = name.removeprefix("accuracy/")
            self._won_lines[task] = self._won_lines.get(task, 0) + 1 if accuracy >= _WON_ACCURACY else 0
            if self._won_lines[task] != _WON_LINES:
                continue
            self.event(step, "discriminator_won", task=task, accuracy=accuracy)
            if self._metrics is not None:
                logger.warning(
                    f"warning: step {step}: the discriminator of {task} tells {accuracy:.1%} of real and completed patches apart; the generator "
                    "learns little from it now. Lower optim.discriminators.lr or loss.weights, or start it later (schedule.adv_from)"
                )

    def evaluation(self, step: int, networks: Networks) -> dict[str, Any]:
        """Evaluate, write an eval line, and return the metrics. Collective."""
        predictor = self._predictor(networks)
        config = self.setup.config.evaluate
        # Each rank has its own running statistics; those of rank 0 are the model's.
        self.setup.group.broadcast_tensors(networks.buffers())
        hole = config.hole or self.setup.config.hole.kind
        (result,) = evaluate(self.setup, predictor, config.split, hole, baselines=0)
        if self._metrics is not None:
            self._metrics.write("eval", step, result.metrics)
        return result.metrics

    def grid(self, step: int, networks: Networks) -> None:
        """Write a picture grid of some samples that are not trained on; the run goes on if the disk is full."""
        if not self.setup.world.is_rank0 or (self.lease is not None and not self.lease.is_current(recheck=True)):
            return
        # Decoded once: all grids of a run show the same samples.
        if self._grid_batch is None:
            self._grid_batch = _grid_batch(self.setup)
        paths = RunPaths(self.run)
        path = paths.grid(step)
        try:
            titles = write_grid(path, self.setup, self._predictor(networks), self._grid_batch)
            files.write_json(paths.grid_columns, titles)
            if self._metrics is not None:
                self._metrics.add_grid(step, path)
        except (OSError, files.DiskFull) as error:
            logger.warning("warning: %s; the run goes on without this grid", error)

    def _predictor(self, networks: Networks) -> Predictor:
        return build_predictor(self.setup.config, self.setup.engine, self.setup.tasks, networks)

    def close(self) -> None:
        """Write what is left."""
        if self._metrics is not None:
            self._metrics.close()
        if self._bar is not None:
            self._bar.close()


def _grid_batch(setup: Setup) -> Batch:
    splits = setup.manifest.splits
    split = next((s for s in ("valid", "test") if splits.get(s)), setup.config.data.split)
    config = setup.config
    hole = config.evaluate.hole if config.hole.kind == "none" else None  # SII learns whole faces and completes
    return setup.first_batch(split, setup.view(training=False, hole=hole), _GRID_ROWS)
