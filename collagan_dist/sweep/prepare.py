"""What a sweep is to do, checked before anything is written or started; and whether its folder holds the same one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from collagan_dist.config.load import config_to_dict, differences, identity_keys, load_config, model_label
from collagan_dist.config.tree import Config
from collagan_dist.data.loading import order
from collagan_dist.data.shards import remote
from collagan_dist.data.shards.manifest import Manifest, read_manifest
from collagan_dist.data.shards.quick_check import quick_check
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.sweep.schedule import Plan
from collagan_dist.sweep.space import Space, SpaceSpec, read_space
from collagan_dist.sweep.trial import Trial, read_trials
from collagan_dist.sweep.tuner import TrialResources
from collagan_dist.types import World

_MAY_GROW = ("none", "asha")  # schedulers that do not need to know from the beginning how many trials there are


@dataclass(frozen=True)
class SweepOptions:
    """What the command line says."""

    config: str
    space: str
    data: str
    out: Path
    trials: int | None = None
    seeds: int = 0
    model: str | None = None
    sets: tuple[str, ...] = ()
    ray: str | None = None
    resources: TrialResources = field(default_factory=TrialResources)


@dataclass(frozen=True)
class PreparedSweep:
    """A sweep that can begin: checked configuration, data set and plan."""

    options: SweepOptions
    base: Config
    manifest: Manifest
    plan: Plan

    @property
    def identity(self) -> dict[str, Any]:
        """What may not change when a sweep is continued: trials would not be comparable."""
        tree = identity_keys(self.base, self.manifest.hash, self.base.model.gfc.parser)
        evaluation = config_to_dict(self.base)["evaluate"]
        return {
            "config": tree,
            "total": self.plan.total,
            "evaluate": evaluation,
            "space": self.plan.space.spec.model_dump(mode="json", exclude_none=True),
        }


def prepare(options: SweepOptions) -> PreparedSweep:
    """Raises what is wrong with the command, the space or the data, before anything is written or started."""
    if lacking := [name for name in ("ray", "optuna", "pandas", "pyarrow") if find_spec(name) is None]:
        raise ConfigError(f"a sweep needs {', '.join(lacking)}, not installed here: pip install 'collagan_dist[sweep]'")
    data = options.data if "://" in options.data else str(Path(options.data).absolute())  # trials run in other folders
    base = load_config(options.config, options.model, options.sets, data)
    if base.model.name == "sii":
        raise ConfigError(
            f"{options.config}: SII completes by a search at test, which no sweep could pay for; take another model"
        )
    space = read_space(options.space, base)
    manifest = read_manifest(remote.open_location(options.data, base.data.cache))
    quick_check(manifest)
    for split in (base.data.split, base.evaluate.split):
        if split not in manifest.splits or not manifest.samples(split):
            raise DataError(
                f"{options.data}: needs the split {split!r}, to train on and to compare by; pack it, or set evaluate.split"
            )
    samples = manifest.samples(base.data.split)
    steps = base.schedule.steps or order.total_steps(samples, base.schedule.batch, base.schedule.epochs)
    total = steps * base.schedule.batch
    trials = _trials(options, space)
    if options.seeds and not any(role == "paper" for role, _ in space.starts()):
        raise ConfigError(
            f"--seeds {options.seeds}: trains the paper's λ and the best found with other seeds, and this sweep has none of the paper's: "
            "leave it out, or search loss.weights of one of the paper's models"
        )
    batches = {space.config(values).schedule.batch for values in ({}, *space.corners())}
    for batch in sorted(batches):
        order.check_batch(samples, batch, World(size=options.resources.workers), base.runtime.accumulate)
    plan = Plan(space, trials, total, _rungs(space.spec, total, max(batches)), base.seed, options.seeds)
    return PreparedSweep(options, base, manifest, plan)


def _trials(options: SweepOptions, space: Space) -> int:
    """How many trials there are, those of the paper and of the base configuration among them."""
    fixed = len(space.starts())
    if space.spec.search == "grid":
        whole = fixed + len(space.grid())
        if options.trials is not None and options.trials > whole:
            raise ConfigError(
                f"--trials {options.trials}: the grid has {whole - fixed} points, and {fixed} more are tried before them"
            )
        return options.trials or whole
    trials = options.trials or 16
    least = max(fixed, 4 if space.spec.scheduler == "pbt" else 1)
    if trials < least:
        raise ConfigError(
            f"--trials {trials}: too few; {fixed} are the paper's λ and the base configuration's, give at least {least}"
        )
    return trials


def _rungs(tree: SpaceSpec, total: int, batch: int) -> tuple[int, ...]:
    """Lengths at which trials are compared, in samples, all of different steps of a batch; the last is a whole run."""
    if tree.scheduler == "none":
        return (total,)
    end = total - batch + 1  # what follows the last rung is a step, too
    if tree.scheduler == "pbt":
        every = _first("pbt.every", tree.pbt.every, -(-total // 10), total, batch)
        return (*range(every, end, every), total)
    factor = tree.rungs.factor
    rungs = [_first("rungs.first", tree.rungs.first, total // factor**2, total, batch)]
    while rungs[-1] * factor < min(end, 0.9 * total):  # not one just before the end
        rungs.append(rungs[-1] * factor)
    return (*rungs, total)


def _first(key: str, given: int | None, usual: int, total: int, batch: int) -> int:
    """The first length at which trials are compared."""
    first = given or max(batch, usual)
    if first < batch:
        raise ConfigError(f"{key}: {first} samples are less than a batch of {batch}")
    if first + batch > total:
        raise ConfigError(
            f"{key}: {first} samples are no less than a whole run's {total}, by a batch of {batch} at least; train for longer, or take "
            "scheduler: none"
        )
    return first


def continued(prepared: PreparedSweep) -> dict[str, Any]:
    """What sweep.json keeps over starts. Raises ConfigError where the folder holds another sweep."""
    out, plan = prepared.options.out, prepared.plan
    known: dict[str, Any] = {}
    if (out / "sweep.json").exists():
        try:
            known = json.loads((out / "sweep.json").read_bytes())
            then, trials = known["identity"], int(known["trials"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{out / 'sweep.json'}: is none of a sweep ({error!r}); restore it, or remove it: it is written anew from the trials"
            ) from None
        if changed := differences(then, prepared.identity):
            lines = "\n  ".join(changed)
            raise ConfigError(
                f"{out} holds another sweep:\n  {lines}\ngive another --out, or the command that began this one"
            )
        if trials != plan.trials and (plan.space.spec.scheduler not in _MAY_GROW or trials > plan.trials):
            raise ConfigError(
                f"--trials {plan.trials}: {out} was begun with {trials}; " + ("more can be added, not taken away" if trials > plan.trials else
                f"{plan.space.spec.scheduler} compares all of them from the beginning. Give another --out")
            )  # fmt: skip
    elif (trials_there := read_trials(out)) and not _are_of(plan, trials_there):
        raise ConfigError(f"{out}: has trials of another sweep, and no sweep.json; restore it, or give another --out")
    keys = {key: facts for dimension in plan.space.dimensions for key, facts in dimension.facts().items()}
    metrics = [{"name": name, "mode": mode} for name, mode in zip(plan.space.metrics, plan.space.modes, strict=True)]
    return {
        "version": 1, "about": _about(prepared), "metrics": metrics, "scheduler": plan.space.spec.scheduler, "search": plan.space.spec.search,
        "trials": plan.trials, "seed": plan.seed, "rungs": list(plan.rungs), "keys": keys, "identity": prepared.identity,
        "seconds": known.get("seconds", 0.0),
    }  # fmt: skip


def _are_of(plan: Plan, trials: Sequence[Trial]) -> bool:
    """Whether trials can be those of a plan, where nothing else tells. (A run refuses another configuration by itself.)"""
    starts = [values for _, values in plan.space.starts()]
    return all(tuple(trial.values) == plan.space.keys for trial in trials) and all(
        trial.values == values for trial, values in zip(trials, starts, strict=False)
    )


def _about(prepared: PreparedSweep) -> str:
    base, manifest = prepared.base, prepared.manifest
    size, steps = base.data.image_size, prepared.plan.total // base.schedule.batch
    scored = min(base.evaluate.samples or manifest.samples(base.evaluate.split), manifest.samples(base.evaluate.split))
    return (
        f"{Path(prepared.options.config).stem}, {model_label(base.model)}, {size}x{size} pixels: {steps:,} steps of "
        f"{base.schedule.batch}, "
        f"trained on {manifest.samples(base.data.split):,} and compared on {scored:,} samples ({base.evaluate.split}) of "
        f"{Path(prepared.options.data).name} ({manifest.dataset})"
    )


def check_owner(out: Path) -> None:
    """A sweep runs what its folder says on every node of a cluster: nobody else's folder is continued."""
    for path in (out, out / "trials"):
        if path.exists() and path.stat().st_uid != os.geteuid():
            raise ConfigError(
                f"{path}: belongs to another user (id {path.stat().st_uid}); copy it, or give another --out"
            )
