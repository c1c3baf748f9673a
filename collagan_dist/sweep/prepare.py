"""The preparation of a sweep: validates command, space, data and output folder before anything is written or started."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from collagan_dist import structured
from collagan_dist.config.load import config_to_dict, differences, identity_keys, load_config, model_label
from collagan_dist.config.tree import Config
from collagan_dist.data.loading import order
from collagan_dist.data.shards import remote
from collagan_dist.data.shards.manifest import Manifest, read_manifest
from collagan_dist.data.shards.quick_check import quick_check, shards_of
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.runs.disk_need import DiskNeed
from collagan_dist.runs.feature_weights import weights_hash
from collagan_dist.runs.layout import RunPaths, checkpoint_steps
from collagan_dist.runs.own_folder import check_own_out, is_run
from collagan_dist.runs.thinning import is_number
from collagan_dist.sweep.configurations import members
from collagan_dist.sweep.dimensions import Choice
from collagan_dist.sweep.ray_cluster import check_dashboard
from collagan_dist.sweep.resources import TrialResources
from collagan_dist.sweep.results import plan_facts
from collagan_dist.sweep.schedule import Goal, SweepPlan
from collagan_dist.sweep.space import Space, read_space
from collagan_dist.sweep.space_spec import SpaceSpec
from collagan_dist.sweep.trial import Trial, read_trials, trial_dir
from collagan_dist.types import World
from collagan_dist.units import format_bytes

# Schedulers whose decisions do not depend on the number of trials, so that `--trials` may grow.
_GROWING_SCHEDULERS = ("none", "asha")
_DEFAULT_TRIALS = 16
_MIN_POPULATION = 4  # of PBT


@dataclass(frozen=True)
class SweepOptions:
    """The options of `collagan sweep`; `time_budget` is in seconds, of each start. `data` is None where the configuration says it."""

    config: str
    space: str
    data: str | None
    out: Path
    trials: int | None = None
    seeds: int = 0
    model: str | None = None
    sets: tuple[str, ...] = ()
    ray: str | None = None
    resources: TrialResources = field(default_factory=TrialResources)
    dashboard: bool = False
    concurrent: int | None = None
    time_budget: float | None = None
    stop_at: str | None = None


@dataclass(frozen=True)
class PreparedSweep:
    """A sweep that can start: validated configuration, data set and plan."""

    options: SweepOptions
    base: Config
    manifest: Manifest
    plan: SweepPlan

    @property
    def identity(self) -> dict[str, Any]:
        """What may not change when a sweep is resumed: its trials would not be comparable."""
        evaluate, spec = config_to_dict(self.base)["evaluate"], self.plan.space.spec
        if evaluate["features"] is not None:  # a path says nothing of the weights behind it
            evaluate["features"] = weights_hash(evaluate["features"])
        return {
            "config": identity_keys(self.base, self.manifest.hash, self.base.model.gfc.parser, self.base.model.init),
            "total": self.plan.total,
            "evaluate": evaluate,
            # A single seed is left out: sweeps that were begun before there were several go on.
            "space": spec.model_dump(
                mode="json", exclude_none=True, exclude={"repeats"} if spec.repeats == 1 else None
            ),
        }


def prepare(options: SweepOptions) -> PreparedSweep:
    """Validate everything that can be validated without writing. Raises ConfigError or DataError."""
    if missing := [name for name in ("ray", "optuna", "pandas", "pyarrow") if find_spec(name) is None]:
        raise ConfigError(f"a sweep needs {', '.join(missing)}, not installed here: pip install 'collagan_dist[sweep]'")
    if options.dashboard:
        check_dashboard(options.ray)
    check_own_out(options.out, _is_own, "sweep")
    base = load_config(options.config, options.model, options.sets, options.data)
    data = shards_of(base)
    # Absolute, since trials run in other folders, on other nodes.
    base = load_config(base, shards=data if "://" in data else str(Path(data).absolute()))
    if base.model.name == "sii":
        why = "completes by a search at test time, too slow to evaluate trials with; take another model"
        raise ConfigError(f"{options.config}: SII {why}")
    if base.checkpoint.copy_to is not None:
        # A trial may be set back to an earlier checkpoint, which its copies would undo.
        raise ConfigError(
            "checkpoint.copy_to: the trials of a sweep are not copied; leave it null, and copy the sweep's folder"
        )
    space = read_space(options.space, base)
    manifest = _read_manifest(base)
    samples = manifest.samples(base.data.split)
    steps = order.planned_steps(base.schedule, samples)
    total = steps * base.schedule.batch
    if options.seeds and not any(role == "paper" for role, _ in space.initial_points()):
        raise ConfigError(
            f"--seeds {options.seeds}: trains the paper's λ and the best found with other seeds, and this sweep has none of the paper's: "
            "leave it out, or search loss.weights of one of the paper's models"
        )
    largest = _largest_batch(space, samples, options.resources.workers, base.runtime.accumulate)
    trials, rungs = _trial_count(options, space), _rungs(space.spec, total, largest)
    plan = SweepPlan(space, trials, total, rungs, base.seed, options.seeds, _goal(options.stop_at, space))
    return PreparedSweep(options, base, manifest, plan)


def _largest_batch(space: Space, samples: int, ranks: int, accumulate: int) -> int:
    """Return the largest batch that a trial may have: it decides how close rungs can be. Raises ConfigError or DataError."""
    shares = ranks * accumulate
    if shares > 1 and any(one.keys == ("schedule.batch",) and not isinstance(one, Choice) for one in space.dimensions):
        raise ConfigError(
            f"{space.where}: schedule.batch: a range has batches that {shares} shares (--workers x runtime.accumulate) do not divide; "
            "give it as choice"
        )
    batches = sorted({space.config(values).schedule.batch for values in ({}, *space.corners())})
    for batch in batches:
        order.check_batch(samples, batch, World(size=ranks), accumulate)
    return batches[-1]


def _goal(text: str | None, space: Space) -> Goal | None:
    """Return the goal of --stop-at, like psnr_hole>=24. Raises ConfigError."""
    if text is None:
        return None
    modes = dict(zip(space.metrics, space.modes, strict=True))
    right = ", ".join(f"{name}{'>=' if mode == 'max' else '<='}VALUE" for name, mode in modes.items())
    found = re.fullmatch(r"(\w+)\s*([<>]=)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)", text.strip(), re.ASCII)
    if found is None or found[1] not in modes:
        raise ConfigError(f"--stop-at {text}: a metric of this sweep and the value to reach: {right}")
    if (found[2] == ">=") != (modes[found[1]] == "max"):
        better = "more" if modes[found[1]] == "max" else "less"
        raise ConfigError(f"--stop-at {text}: of {found[1]} {better} is better; give {right}")
    return Goal(found[1], float(found[3]))


class _Begun(structured.Record):
    identity: dict[str, Any]


def _is_own(out: Path) -> bool:
    return structured.find(out / "sweep.json", _Begun) is not None or any(map(is_run, out.glob("trials/t*")))


def _read_manifest(base: Config) -> Manifest:
    manifest = read_manifest(remote.open_location(shards_of(base), base.data.cache))
    quick_check(manifest)
    for split in (base.data.split, base.evaluate.split):
        if split not in manifest.splits or not manifest.samples(split):
            raise DataError(
                f"{base.data.shards}: needs the split {split!r}, to train on and to compare by; pack it, or set evaluate.split"
            )
    return manifest


def _trial_count(options: SweepOptions, space: Space) -> int:
    """Return the number of trials, including those of the paper and of the base configuration."""
    initial = len(space.initial_points())
    if space.spec.search == "grid":
        points = len(space.grid())
        if options.trials is not None and options.trials > initial + points:
            raise ConfigError(
                f"--trials {options.trials}: the grid has {points} points, and {initial} more are tried before them"
            )
        return options.trials or initial + points
    trials = options.trials or _DEFAULT_TRIALS
    least = max(initial, _MIN_POPULATION if space.spec.scheduler == "pbt" else 1)
    if trials < least:
        raise ConfigError(
            f"--trials {trials}: too few; {initial} are the paper's λ, the base configuration's and those of `start`, give at least {least}"
        )
    return trials


def _rungs(spec: SpaceSpec, total: int, batch: int) -> tuple[int, ...]:
    """Return the lengths in samples at which trials are compared; the last is a full run."""
    if spec.scheduler == "none":
        return (total,)
    # Rungs are at least a batch apart: no two of them may fall on the same step of a trial.
    end = total - batch + 1
    if spec.scheduler == "pbt":
        every = _first_rung("pbt.every", spec.pbt.every, -(-total // 10), total, batch)
        return (*range(every, end, every), total)
    factor = spec.rungs.factor
    rungs = [_first_rung("rungs.first", spec.rungs.first, total // factor**2, total, batch)]
    # A rung in the last tenth of a run would stop trials that have cost almost everything.
    while rungs[-1] * factor < min(end, 0.9 * total):
        rungs.append(rungs[-1] * factor)
    return (*rungs, total)


def _first_rung(key: str, given: int | None, default: int, total: int, batch: int) -> int:
    first = given or max(batch, default)
    if first < batch:
        raise ConfigError(f"{key}: {first} samples are less than a batch of {batch}")
    # A comparison at the end of a run would stop nothing.
    if first + batch > total:
        raise ConfigError(
            f"{key}: {first} samples must be less than a full run's {total}, by a batch of {batch} at least; train for longer, or take "
            "scheduler: none"
        )
    return first


class _BegunWithTrials(_Begun):
    """What a sweep that goes on reads of sweep.json."""

    trials: Annotated[int, Field(ge=0)]
    seconds: Annotated[float, Field(ge=0)] = 0.0


def constant_summary(prepared: PreparedSweep) -> dict[str, Any]:
    """Return the part of sweep.json that stays constant. Raises ConfigError if the folder holds another sweep."""
    out, plan = prepared.options.out, prepared.plan
    seconds, trials = 0.0, read_trials(out)
    if known := (out / "sweep.json").exists():
        seconds = _check_same_sweep(prepared)
    if wrong := [trial for trial in trials if not _fits(plan.space, trial.values)]:
        path = RunPaths(trial_dir(out, wrong[0])).trial
        raise DataError(f"{path}: its values are not of this space; restore it, or give another --out")
    # Without sweep.json, which can be written anew, the trials themselves tell.
    if not known and not _may_belong_to(plan, trials):
        raise ConfigError(
            f"{out}: has trials of another sweep, or more than --trials {plan.trials}, and no sweep.json; restore it, or give another --out"
        )
    return {
        "version": 1, "about": _describe(prepared), **plan_facts(plan), "identity": prepared.identity, "seconds": seconds,
    }  # fmt: skip


def _check_same_sweep(prepared: PreparedSweep) -> float:
    """Compare a sweep with the sweep.json of its folder; return the seconds that it has run so far."""
    out, plan = prepared.options.out, prepared.plan
    mend = "restore it, or remove it: it is written anew from the trials"
    known = structured.read(out / "sweep.json", _BegunWithTrials, DataError, mend)
    if changed := differences(known.identity, prepared.identity):
        lines = "\n  ".join(changed)
        raise ConfigError(f"{out} holds another sweep:\n  {lines}\ngive another --out, or the command that began it")
    begun = f"--trials {plan.trials}: {out} was begun with {known.trials};"
    if known.trials > plan.trials:
        raise ConfigError(f"{begun} more can be added, not taken away")
    if known.trials < plan.trials and plan.scheduler not in _GROWING_SCHEDULERS:
        raise ConfigError(f"{begun} {plan.scheduler} compares all of them from the beginning. Give another --out")
    return known.seconds


def _may_belong_to(plan: SweepPlan, trials: Sequence[Trial]) -> bool:
    """Whether trials can be those of a plan, by first values, number and repeats; there is no sweep.json to tell."""
    # A run folder refuses another configuration by itself, so this only has to catch another space.
    initial = [values for _, values in plan.space.initial_points()]
    groups = list(members(trials).values())
    same = all(group[0].values == values for group, values in zip(groups, initial, strict=False))
    return same and len(groups) <= plan.trials and all(len(group) <= plan.repeats for group in groups)


def _fits(space: Space, values: dict[str, Any]) -> bool:
    numbers = [key for one in space.dimensions if not isinstance(one, Choice) for key in one.keys]
    return values.keys() == set(space.keys) and all(is_number(values[key]) for key in numbers)


def _describe(prepared: PreparedSweep) -> str:
    """Return the line under the report's title."""
    base, manifest = prepared.base, prepared.manifest
    size, steps = base.data.image_size, prepared.plan.total // base.schedule.batch
    # evaluate.samples may ask for more than the split has.
    scored = min(base.evaluate.samples or manifest.samples(base.evaluate.split), manifest.samples(base.evaluate.split))
    return (
        f"{Path(prepared.options.config).stem}, {model_label(base.model)}, {size}x{size} pixels: {steps:,} steps of "
        f"{base.schedule.batch}, "
        f"trained on {manifest.samples(base.data.split):,} and compared on {scored:,} samples ({base.evaluate.split}) of "
        f"{Path(shards_of(base)).name} ({manifest.dataset})"
        f"{f', until a trial reaches {prepared.plan.goal}' if prepared.plan.goal else ''}"
    )


def need_of_sweep(prepared: PreparedSweep, running: int) -> DiskNeed:
    """Return what checkpoints a sweep will add, with as many trials that run at a time. A stopped trial keeps one."""
    # Here: it imports torch, which the driver does not need otherwise.
    from collagan_dist.models.registry import estimate_checkpoint_bytes

    plan, out, keep = prepared.plan, prepared.options.out, prepared.base.checkpoint.keep
    trials = plan.trials * plan.repeats + 2 * plan.confirm
    kept = sum(bool(checkpoint_steps(folder)) for folder in out.glob("trials/t*/checkpoints"))
    least, running = max(0, trials - kept), min(running, trials)
    size = estimate_checkpoint_bytes(prepared.base)
    what = f"{least} more trials with a checkpoint of {format_bytes(size)} each, and {keep} more of each of {running} that run"
    return DiskNeed(out, size, least, least + keep * running, what)


def check_owner(out: Path) -> None:
    """Raise ConfigError if the folder belongs to another user."""
    # The folder decides what runs on every node of a cluster, as the user who resumes it.
    for path in (out, out / "trials"):
        if path.exists() and path.stat().st_uid != os.geteuid():
            raise ConfigError(
                f"{path}: belongs to another user (id {path.stat().st_uid}); copy it, or give another --out"
            )
