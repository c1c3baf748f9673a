"""How long a rank computes: by the log of a run, by a short measurement here, or by a data sheet."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from collagan_dist import structured
from collagan_dist.config.load import config_to_dict, differences
from collagan_dist.config.tree import Config
from collagan_dist.distributed import devices
from collagan_dist.distributed.engine import Engine
from collagan_dist.distributed.group import Group
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.plan.cost_model import Assumptions, Cluster, Compute, StepTime, computed_seconds, predict
from collagan_dist.plan.hardware import GPU
from collagan_dist.plan.prediction import Rate
from collagan_dist.plan.work import LAST_STEP, StepWork, build_last_step, made_up_batch
from collagan_dist.runs.layout import RankRecord, RanksRecord, RunPaths
from collagan_dist.runs.metrics_log import full_rates_of_newest_start
from collagan_dist.runs.model_folder import read_config
from collagan_dist.tasks import build_tasks
from collagan_dist.types import World

# Keys that change the time of a step with as many samples.
_SAME = {
    "model": ("name", "tasks", "concentrated", "widths", "discriminators", "patch", "normalize", "mask_channel"),
    "data": ("image_size",),
    "runtime": ("precision", "channels_last", "compile", "cuda_graph", "accumulate"),
}
_ROUNDS, _SECONDS = 5, 20.0  # of a measurement: at least so many steps, and no more once they have taken so long
_HALVINGS = 40
_LEAST_RATE, _MOST_RATE = 1e-6, 1e12  # images/s that a log may have: times stay finite numbers above 0


def stated_rate(config: Config, work: StepWork, gpu: GPU, assumed: Assumptions) -> Rate:
    """Return the rate that a GPU's data sheet gives."""
    compute = computed_seconds(work, gpu, config.runtime.precision, assumed)
    return Rate(compute, f"computed, not measured: {gpu.source}", gpu.name, gpu.memory)


@dataclass(frozen=True)
class MeasuredRun:
    """A run folder whose rate is taken, with its configuration and the ranks of its newest start."""

    folder: Path
    config: Config
    ranks: tuple[RankRecord, ...]


def read_run(folder: Path) -> MeasuredRun:
    """Return what a run folder says of itself. Raises ConfigError for another folder, DataError for ranks that share no batch."""
    config, world = read_config(folder), RunPaths(folder).world
    ranks = structured.read(world, RanksRecord, DataError, "give a run folder of `collagan train`").ranks
    if not ranks or config.schedule.batch % len(ranks):
        raise DataError(f"{world}: {len(ranks)} ranks do not share a batch of {config.schedule.batch}")
    return MeasuredRun(folder, config, ranks)


def rate_of_run(run: MeasuredRun, config: Config, work: StepWork, cluster: Cluster, assumed: Assumptions) -> Rate:
    """Return the rate in a run's log. A run of several ranks has waited for others, too: what the model says of that is taken off.

    Raises ConfigError for a run of another kind of step, DataError for one without a rate.
    """
    own, ranks = run.config, run.ranks
    if different := _differing(own, config):
        raise ConfigError(
            f"{run.folder}: its steps are others than this configuration's ({'; '.join(different)}), so its rate says nothing of them; "
            f"plan {run.folder}/config.yaml, or measure a run of this configuration"
        )
    if not (found := full_rates_of_newest_start(run.folder)):
        raise DataError(
            f"{run.folder}: its metrics.jsonl has no rate of steps with all losses since its newest start; let it log some train lines "
            "(log.every) after its adversarial losses have begun (schedule.adv_from, model.gfc.stages)"
        )
    if not _LEAST_RATE <= (rate := statistics.median(found)) <= _MOST_RATE:
        raise DataError(f"{run.folder}: its metrics.jsonl has {rate:g} images/s, which no run has; measure another run")
    nodes = len({one.host for one in ranks})
    there = Cluster(nodes, -(-len(ranks) // nodes), cluster.inside, cluster.between)
    share, seconds = own.schedule.batch // len(ranks), own.schedule.batch / rate
    alone = _without_others(
        seconds,
        partial(_by_bytes, work, share),
        lambda compute: predict(work, share, compute, there, assumed, own.runtime.sync_bn),
    )
    device = ranks[0].name or ranks[0].device
    origin = f"measured by {run.folder}: {rate:.4g} images/s on {len(ranks)} x {device}, {share} samples a rank"
    # The counted operations are launched one by one: few samples take no less than that. A CUDA graph launches them at once.
    launches = 0.0 if ranks[0].device == "cpu" or own.runtime.cuda_graph else work.operations * assumed.launch
    memory = min((one.memory_bytes for one in ranks if one.memory_bytes), default=None)
    return Rate(_by_bytes(work, share, alone, min(launches, alone)), origin, device, memory, share)


def _differing(run: Config, config: Config) -> list[str]:
    return differences(_step_keys(run), _step_keys(config))


def _step_keys(config: Config) -> dict[str, Any]:
    """Return what of a configuration changes the time of a step with as many samples."""
    tree = config_to_dict(config)
    found = {section: {key: tree[section][key] for key in keys} for section, keys in _SAME.items()}
    if config.model.name in ("ce", "sii"):
        found["model"][config.model.name] = tree["model"][config.model.name]
    # Of these it is enough whether they are on.
    found["optim"] = {"ema": config.optim.ema > 0}
    if config.model.name == "gfc":
        found["model"]["gfc"] = {"parsing": config.model.gfc.parsing > 0}
    return found


def _by_bytes(work: StepWork, share: int, seconds: float, least: float = 0.0) -> Compute:
    """Return a step that takes as much longer for more samples as it moves more bytes; those of weights and Adam are the same for any."""
    return lambda samples: max(seconds * _bytes(work, samples) / _bytes(work, share), least)


def _bytes(work: StepWork, samples: float) -> float:
    return work.heavy_bytes.at(samples) + work.light_bytes.at(samples)


def _without_others(
    seconds: float, compute: Callable[[float], Compute], step_of: Callable[[Compute], StepTime]
) -> float:
    """Return the part of a step of `seconds` that a rank computes, such that the model gives the whole; at least a hundredth.

    Raises ConfigError where the model has a longer step even so.
    """
    least, most = seconds / 100, seconds
    if (shortest := step_of(compute(least)).seconds) > seconds:
        raise ConfigError(
            f"--measured: a step took {1000 * seconds:.3g} ms, and by these links and assumptions its ranks would have waited for each other "
            f"for about {1000 * shortest:.3g} ms; give the links of the cluster that it ran on (--link INSIDE,BETWEEN), or other "
            "assumptions (--assume)"
        )
    # By halves: a step never takes less than it computes, and takes longer where it computes longer.
    for _ in range(_HALVINGS):
        own = (least + most) / 2
        least, most = (own, most) if step_of(compute(own)).seconds < seconds else (least, own)
    return (least + most) / 2


def measured_rate(config: Config, share: int) -> Rate:
    """Return the rate of steps on made-up batches on this machine's device; two sizes give a constant and a part for each sample."""
    alone = World()
    device = devices.pick_device(alone)
    devices.configure_torch(devices.thread_count(alone, config.runtime.threads), config.deterministic)
    half = max(2 * config.runtime.accumulate, share // 2 // config.runtime.accumulate * config.runtime.accumulate)
    step_seconds = {size: _seconds_of_step(config, size, device) for size in sorted({share, half})}
    each = (step_seconds[share] - step_seconds[half]) / (share - half) if share > half else step_seconds[share] / share
    # Noise must not make small batches free.
    each = min(max(each, step_seconds[share] / share / 2), step_seconds[share] / share)
    constant = step_seconds[share] - each * share
    threads = f" with {torch.get_num_threads()} thread(s)" if device.type == "cpu" else ""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU{threads}"
    memory = float(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else None
    origin = f"measured here: {share / step_seconds[share]:.4g} images/s, {share} samples a step without data loading"
    return Rate(lambda samples: constant + each * samples, origin, name, memory, share)


def _seconds_of_step(config: Config, samples: int, device: torch.device) -> float:
    """Return the median of some steps, after one that warms up."""
    step = build_last_step(config, engine := Engine(config.runtime, Group(World(), device)), build_tasks(config))
    batch = made_up_batch(config.data.image_size, samples, device)
    seconds: list[float] = []
    while len(seconds) <= _ROUNDS and sum(seconds) < _SECONDS:
        began = time.perf_counter()
        step(batch, LAST_STEP).verdict.read()
        engine.group.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:] or seconds)
