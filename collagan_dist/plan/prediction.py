"""A configuration on a cluster: the prediction for it, and for 1 to 1,024 ranks."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from collagan_dist.config.tree import Config
from collagan_dist.data.loading.order import check_batch, planned_steps
from collagan_dist.models.registry import count_parameters, estimate_checkpoint_bytes
from collagan_dist.plan.cost_model import Assumptions, Cluster, Compute, StepTime, predict
from collagan_dist.plan.goodput import Failures, best_interval, goodput
from collagan_dist.plan.work import StepWork, count_step
from collagan_dist.types import World

SIZES = tuple(2**power for power in range(11))
EFFICIENT = 0.95
_LEAST_GOODPUT = 1e-6  # a run with less never ends
_LARGEST_SHARE = 4096  # samples of a rank that are tried for EFFICIENT
# Of benchmarks/checkpoint.json: a copy into the host's memory, and what a thread hashes and writes beside training; bytes/s.
_COPY, _WRITE = 602e6 / 0.064, 602e6 / 2.11


@dataclass(frozen=True)
class Rate:
    """How long a rank computes, where that is from, and the bytes of its device's memory where they are known.

    `measured_share` are the samples a rank that were measured, None where nothing was.
    """

    compute: Compute
    origin: str
    device: str
    memory: float | None = None
    measured_share: int | None = None


@dataclass(frozen=True)
class Losses:
    """Seconds between two failures of a node, and from a failure to the first new step; price of a GPU for an hour, in any currency."""

    node_mtbf: float
    restart: float
    price: float | None = None


class Planner:
    """Predictions of one configuration."""

    def __init__(self, config: Config, rate: Rate, assumed: Assumptions, work: StepWork | None = None) -> None:
        self.config, self.rate, self.assumed = config, rate, assumed
        self.work = work or count_step(config)

    def step(self, cluster: Cluster, share: int) -> StepTime:
        """Return the step of ranks with `share` samples each."""
        return predict(self.work, share, self.rate.compute, cluster, self.assumed, self.config.runtime.sync_bn)

    def efficiency(self, cluster: Cluster, share: int) -> float:
        """Return how much of the rate of one rank with as many samples each rank keeps."""
        return self.rate.compute(share) / self.step(cluster, share).seconds

    def efficient_share(self, cluster: Cluster) -> int | None:
        """Return the least samples a rank with EFFICIENT, doubled from the fewest allowed; None where none fits."""
        share = 2 * self.config.runtime.accumulate  # batch normalization needs two at a time
        while share <= _LARGEST_SHARE and self.fits(cluster, share):
            if self.efficiency(cluster, share) >= EFFICIENT:
                return share
            share *= 2
        return None

    def memory(self, cluster: Cluster, share: int) -> dict[str, int]:
        """Return the bytes of a rank by what they are for; "peak" is the most at a time."""
        config, parameters = self.config, count_parameters(self.config)
        own, stage = 4 * sum(parameters.values()), config.runtime.zero_stage
        average = 4 * parameters["generator"] * bool(config.optim.ema)
        adam, gradients = 2 * own, own
        saved = round(adam * (stage >= 1) * (1 - 1 / cluster.size) + gradients * (stage >= 2) * (1 - 1 / cluster.size))
        peak = round(self.work.peak_bytes.at(share))
        found = {
            "parameters": own,
            "gradients": gradients,
            "Adam": adam,
            "moving average": average,
            "activations": max(0, peak - own - gradients - adam - average),
        }
        return {name: size for name, size in found.items() if size} | {"peak": peak - saved}

    def fits(self, cluster: Cluster, share: int) -> bool:
        return self.rate.memory is None or self.memory(cluster, share)["peak"] <= self.rate.memory

    def scaling(self, cluster: Cluster, share: int) -> list[dict[str, Any]]:
        """Return a row for each of SIZES: the configured batch shared by all ranks, and `share` samples for each.

        None where the ranks cannot share the batch, or where it is too much for their memory, which "no memory" lists. Efficiency is
        against the first row that has a rate: what no device holds is no measure.
        """
        rows: list[dict[str, Any]] = []
        for size in SIZES:
            there = cluster.of_size(size)
            shares = {"configured batch": self._share(size), "same share": share}
            fits = {key: own is not None and self.fits(there, own) for key, own in shares.items()}
            rates = {key: self._rates(there, own) if own and fits[key] else None for key, own in shares.items()}
            rows.append({
                "ranks": size, "nodes": there.nodes, **rates,
                "no memory": [key for key, own in shares.items() if own and not fits[key]],
                "share for 95 %": self.efficient_share(there),
            })  # fmt: skip
        for key in ("configured batch", "same share"):
            found = [row for row in rows if row[key]]
            for row in found:
                first = found[0][key]["images_per_s"] / found[0]["ranks"]
                row[key]["efficiency"] = row[key]["images_per_s"] / row["ranks"] / first
        return rows

    def _share(self, size: int) -> int | None:
        """Return the samples of a rank of the configured batch; None where so many ranks cannot share it."""
        share, rest = divmod(self.config.schedule.batch, size * self.config.runtime.accumulate)
        return None if rest or share < 2 else share * self.config.runtime.accumulate

    def _rates(self, cluster: Cluster, share: int) -> dict[str, float]:
        """Return rates of ranks of `share` samples."""
        seconds, batch = self.step(cluster, share).seconds, share * cluster.size
        return {"share": share, "batch": batch, "step seconds": seconds, "images_per_s": batch / seconds}

    def plan(self, cluster: Cluster, samples: int, losses: Losses) -> dict[str, Any]:
        """Return the whole prediction as plain data. Raises ConfigError and DataError for a batch that the ranks cannot share."""
        config, size = self.config, cluster.size
        check_batch(samples, config.schedule.batch, World(size=size), config.runtime.accumulate)
        share, steps = config.schedule.batch // size, planned_steps(config.schedule, samples)
        step = self.step(cluster, share)
        useful = steps * step.seconds
        saving = self._saving(cluster, step, steps, losses)
        elapsed = useful / saving["goodput"] if saving["goodput"] > _LEAST_GOODPUT else None
        hours = None if elapsed is None else elapsed / 3600 * size
        return {
            "ranks": size, "nodes": cluster.nodes, "batch": config.schedule.batch, "share": share,
            "samples": samples, "steps": steps,
            "rate": self.rate.origin, "device": self.rate.device, "measured share": self.rate.measured_share,
            "gflops a sample": round(self.work.flops.at(share) / share / 1e9, 2),
            "step": {"seconds": step.seconds, **asdict(step)},
            "images_per_s": config.schedule.batch / step.seconds,
            "efficiency": self.efficiency(cluster, share),
            "memory": self.memory(cluster, share), "device memory": self.rate.memory,
            "epoch seconds": samples / config.schedule.batch * step.seconds,
            "training seconds": useful, "run seconds": elapsed,
            "checkpoint": saving,
            "gpu hours": hours, "cost": None if hours is None or losses.price is None else hours * losses.price,
            "assumptions": asdict(self.assumed) | asdict(losses),
            "scaling": self.scaling(cluster, share),
        }  # fmt: skip

    def _saving(self, cluster: Cluster, step: StepTime, steps: int, losses: Losses) -> dict[str, Any]:
        """Return what checkpoints and failures cost."""
        # The last step always has a checkpoint.
        size, every = estimate_checkpoint_bytes(self.config), min(self.config.checkpoint.every, steps)
        failures = Failures(losses.node_mtbf / cluster.nodes, losses.restart, size / _COPY, size / _WRITE)
        best = min(steps, math.ceil(best_interval(failures) / step.seconds))
        return {
            "bytes": size, "blocked seconds": failures.blocked, "written seconds": failures.written,
            "waited seconds": max(0.0, failures.written - every * step.seconds),
            "job mtbf seconds": failures.mtbf,
            "every": every, "goodput": goodput(every * step.seconds, failures),
            "best every": best, "best goodput": goodput(best * step.seconds, failures),
        }  # fmt: skip
