"""What a run tells: losses averaged over ranks when they are due, progress for people, grids, evaluations."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from collagan_dist import files
from collagan_dist.data.loading.fallback_reader import DamageRecord, check_damage_limit
from collagan_dist.distributed.engine import NotFinite
from collagan_dist.distributed.stragglers import StragglerDetector
from collagan_dist.errors import ClusterError, on_all_ranks
from collagan_dist.inference.evaluate import evaluate
from collagan_dist.inference.grids import write_grid
from collagan_dist.models.networks import Networks
from collagan_dist.models.predictor import Predictor
from collagan_dist.models.registry import build_predictor
from collagan_dist.models.step import Values
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.lease import Lease
from collagan_dist.runs.metrics_log import MetricsWriter, finite
from collagan_dist.setup import Setup
from collagan_dist.types import Batch

_GRID_ROWS = 8
# A discriminator that tells this share of patches right, for so many lines in a row, teaches the generator little more.
_WON_ACCURACY, _WON_LINES = 0.99, 5


class TrainingLogger:
    """Gathers each step's values on the device and reduces them only when a line is due. Rank 0 writes and shows."""

    def __init__(
        self, setup: Setup, run: Path, start: int, total: int, lambdas: dict[str, float], lease: Lease | None = None
    ) -> None:
        self.setup, self.run, self.total, self.lambdas, self.lease = setup, run, total, lambdas, lease
        self._sums: Values = {}
        self._times: dict[str, int] = {}  # the adversarial losses may begin within a line's steps
        self._count = 0
        self._since, self._waited, self._saving = time.perf_counter(), 0.0, 0.0
        self._metrics: MetricsWriter | None = None
        if setup.world.is_rank0:
            with lease.held() if lease else nullcontext():
                self._metrics = MetricsWriter(
                    run, start, setup.config.log.sinks, lease.is_current if lease else lambda: True
                )
        self._progress = _Progress(start, total) if setup.world.is_rank0 else None
        self._grid_batch: Batch | None = None
        self.damaged = 0  # what all ranks' loaders had found when quarantine was last called
        self._named: set[int] = set()
        self._stragglers = StragglerDetector(setup.group, setup.config.runtime.straggler)
        self._ahead: dict[str, int] = {}  # lines in a row in which a discriminator was nearly always right

    def event(self, step: int, name: str, **facts: Any) -> None:
        if self._metrics is not None:
            self._metrics.write("event", step, {"event": name, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **facts})

    def add(self, values: Values) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._times[name] = self._times.get(name, 0) + 1
        self._count += 1
        if self._progress is not None:
            self._progress.advance()

    def quarantine(self, step: int, found: list[DamageRecord]) -> None:
        """Name the damaged samples that ranks have met; `found` are this rank's. Collective.

        Raises DataError, on all ranks, when there are more than data.max_damaged.
        """
        parts = self.setup.group.all_gather(list(found))
        self.damaged = sum(map(len, parts))
        for one in {one.number: one for part in parts for one in part}.values():
            if one.number not in self._named:
                self._named.add(one.number)
                self.event(step, "quarantine", sample=one.number, reason=one.reason)
                if self.setup.world.is_rank0:
                    print(f"warning: {one.reason}; another sample takes its place", file=sys.stderr, flush=True)
        check_damage_limit(self.setup.manifest.folder, len(self._named), self.setup.config.data.max_damaged)

    def skip(self, step: int, bad: NotFinite) -> None:
        """A step was not taken."""
        self.event(step, "skip", phase=bad.side, overflow=bad.overflow, ranks=bad.ranks)
        if self._metrics is not None and not bad.overflow:
            whose = f" on rank {', '.join(map(str, bad.ranks))}" if bad.ranks else ""
            print(f"warning: step {step}: the {bad.side} met NaN or Inf{whose}; skipped", file=sys.stderr, flush=True)

    def log(self, step: int, lr: float, waited: float, saving: float = 0.0) -> None:
        """A train line: means over the steps since the last one and over ranks. Collective.

        `waited` and `saving` are the seconds, of the whole start, in which training stood still for data and for checkpoints.
        """
        if not self._count:  # all were skipped
            return
        names = sorted(self._sums)
        means = self.setup.group.all_reduce_mean(torch.stack([self._sums[n] for n in names])).tolist()
        losses = {name: value / self._times[name] for name, value in zip(names, means, strict=True)}
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        batch = self.setup.config.schedule.batch
        record = {
            "epoch": step * batch / self.setup.manifest.samples(self.setup.config.data.split),
            "samples": step * batch,
            **losses,
            **{  # what each term adds to the total
                name.replace("loss/", "weighted/", 1): self.lambdas[name] * value
                for name, value in losses.items()
                if name in self.lambdas
            },
            "images_per_s": self._count * batch / seconds,
            "data_wait_share": (waited - self._waited) / seconds,
            "checkpoint_wait_share": (saving - self._saving) / seconds,
            "lr": lr,
        }
        self._sums, self._times, self._count, self._since = {}, {}, 0, now
        self._waited, self._saving = waited, saving
        if self._metrics is not None and self._progress is not None:
            self._metrics.write("train", step, record)
            self._progress.show(step, record)
        self._watch(step, losses)
        self._name_stragglers(step)

    def _name_stragglers(self, step: int) -> None:
        """Raises ClusterError, on all ranks, where the configuration says so. Collective."""
        for one in self._stragglers.check():
            self.event(step, "straggler", **vars(one))
            if self.setup.config.runtime.fail_on_straggler:
                text = (
                    f"step {step}: {one}; start again without that machine, or set runtime.fail_on_straggler to false"
                )
                raise on_all_ranks(ClusterError(text))
            if self._metrics is not None:
                print(f"warning: step {step}: {one}", file=sys.stderr, flush=True)

    def _watch(self, step: int, losses: dict[str, float]) -> None:
        """Warn, once a spell, when a discriminator has won."""
        for name, value in losses.items():
            if name.startswith("accuracy/"):
                task = name.removeprefix("accuracy/")
                self._ahead[task] = self._ahead.get(task, 0) + 1 if value >= _WON_ACCURACY else 0
                if self._ahead[task] == _WON_LINES:
                    self.event(step, "discriminator_won", task=task, accuracy=value)
                    if self._metrics is not None:
                        print(
                            f"warning: step {step}: the discriminator of {task} tells {value:.1%} of real and completed patches apart; the generator "
                            "learns little from it now. Lower optim.discriminators.lr or loss.weights, or start it later (schedule.adv_from)",
                            file=sys.stderr, flush=True,
                        )  # fmt: skip

    def evaluation(self, step: int, networks: Networks) -> None:
        """An eval line. Collective."""
        predictor = self._predictor(networks)
        config = self.setup.config.evaluate
        self.setup.group.broadcast_tensors(networks.buffers())
        (result,) = evaluate(
            self.setup, predictor, config.split, config.hole or self.setup.config.hole.kind, baselines=0
        )
        if self._metrics is not None:
            self._metrics.write("eval", step, result.metrics)

    def grid(self, step: int, networks: Networks) -> None:
        """A picture grid of the first samples that are not trained on; without room for it, the run goes on."""
        if self.setup.world.is_rank0 and (self.lease is None or self.lease.is_current(recheck=True)):
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
                print(f"warning: {error}; the run goes on without this grid", file=sys.stderr, flush=True)

    def _predictor(self, networks: Networks) -> Predictor:
        return build_predictor(self.setup.config, self.setup.engine, self.setup.tasks, networks)

    def close(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
        if self._progress is not None:
            self._progress.close()


def _grid_batch(setup: Setup) -> Batch:
    splits = setup.manifest.splits
    split = next((s for s in ("valid", "test") if splits.get(s)), setup.config.data.split)
    config = setup.config
    hole = config.evaluate.hole if config.hole.kind == "none" else None  # SII learns whole faces and completes
    return setup.first_batch(split, setup.view(training=False, hole=hole), _GRID_ROWS)


class _Progress:
    """A bar on a terminal, a line now and then in a log."""

    def __init__(self, start: int, total: int) -> None:
        self.total = total
        self.console = Console(file=sys.stderr)
        self.bar: Progress | None = None
        if self.console.is_terminal:
            self.bar = Progress(
                SpinnerColumn(), TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("ETA"),
                TimeRemainingColumn(), TextColumn("{task.fields[text]}"), console=self.console,
            )  # fmt: skip
            self.task = self.bar.add_task("", total=total, completed=start, text="")
            self.bar.start()
        self.began, self.start = time.perf_counter(), start

    def advance(self) -> None:
        if self.bar is not None:
            self.bar.advance(self.task)

    def show(self, step: int, record: dict[str, Any]) -> None:
        record = finite(record)
        text = f"{record['images_per_s']:.0f} images/s  data wait {record['data_wait_share']:.0%}  loss {record['loss/total']:.3f}"
        if self.bar is not None:
            self.bar.update(self.task, text=text)
            return
        left = (time.perf_counter() - self.began) / max(1, step - self.start) * (self.total - step)
        self.console.print(f"step {step}/{self.total}  {text}  ETA {left:.0f} s", highlight=False)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
