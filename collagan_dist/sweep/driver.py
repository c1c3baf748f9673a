"""A whole sweep: what it is checked, begun or continued, done on a Ray cluster, and told. The same call continues."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from collagan_dist import config as configuration
from collagan_dist import files
from collagan_dist.config import Config
from collagan_dist.contract import World
from collagan_dist.data import order, places
from collagan_dist.data.check import quick_check
from collagan_dist.data.manifest import Manifest, read_manifest
from collagan_dist.errors import ClusterError, CollaganError, ConfigError, DataError, Interrupted
from collagan_dist.runtime.preempt import StopRequest
from collagan_dist.runtime.tensorboard import write_hparams
from collagan_dist.runtime.world import job, this_start
from collagan_dist.sweep import record, results, schedule, search
from collagan_dist.sweep.leg import Work
from collagan_dist.sweep.ray_cluster import connected
from collagan_dist.sweep.record import Trial
from collagan_dist.sweep.schedule import DONE, WAIT, Leg, Plan
from collagan_dist.sweep.space import Space, Tree, read_space
from collagan_dist.sweep.tuner import Takes, check_resources, execute

_MAY_GROW = ("none", "asha")  # schedulers that do not need to know from the beginning how many trials there are


@dataclass(frozen=True)
class Options:
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
    takes: Takes = field(default_factory=Takes)


@dataclass(frozen=True)
class Prepared:
    """A sweep that can begin: checked configuration, data set and plan."""

    options: Options
    base: Config
    manifest: Manifest
    plan: Plan

    @property
    def identity(self) -> dict[str, Any]:
        """What may not change when a sweep is continued: trials would not be comparable."""
        tree = configuration.identity(self.base, self.manifest.hash, self.base.model.gfc.parser)
        evaluation = configuration.dump(self.base)["evaluate"]
        return {
            "config": tree,
            "total": self.plan.total,
            "evaluate": evaluation,
            "space": self.plan.space.tree.model_dump(mode="json"),
        }


def prepare(options: Options) -> Prepared:
    """Raises what is wrong with the command, the space or the data, before anything is written or started."""
    base = configuration.load_config(options.config, options.model, options.sets, options.data)
    if base.model.name == "sii":
        raise ConfigError(
            f"{options.config}: SII completes by a search at test, which no sweep could pay for; take another model"
        )
    space = read_space(options.space, base)
    manifest = read_manifest(places.find(options.data, base.data.cache))
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
    plan = Plan(space, trials, total, _rungs(space.tree, total), base.seed, options.seeds)
    for values in ({}, *space.grid()) if space.tree.search == "grid" else ({},):
        batch = space.config(values).schedule.batch
        order.check_batch(samples, batch, World(size=options.takes.workers), base.runtime.accumulate)
    return Prepared(options, base, manifest, plan)


def sweep(options: Options, stop: StopRequest, show: Callable[[Sweep], None] = lambda sweep: None) -> int:
    """Do what is left of a sweep; the exit code. `show` is called several times a second. Raises Interrupted."""
    prepared = prepare(options)
    with files.at_work(options.out, "collagan sweep"):
        _check_owner(options.out)
        fixed = _continued(prepared)
        with connected(options.ray) as ray:
            takes = options.takes.on(ray)
            check_resources(ray, takes)
            current = Sweep(prepared, fixed, takes, stop, show)
            try:
                execute(current, ray, takes, current.out)
            except Exception as error:
                current.close("interrupted")
                raise _in_our_words(error, ray) from error
        return current.conclude()


class Sweep:
    """The trials of a sweep while it runs. Its methods are called by Tune's loop, one at a time (tuner.Source)."""

    def __init__(
        self, prepared: Prepared, fixed: dict[str, Any], takes: Takes, stop: StopRequest, show: Callable[[Sweep], None]
    ) -> None:
        self.prepared, self.fixed, self.takes, self.stop, self._show = prepared, fixed, takes, stop, show
        self.out = prepared.options.out.absolute()
        self.plan = prepared.plan
        self.trials = [record.retried(trial) for trial in record.read(self.out)]
        self.began, self.before = time.monotonic(), float(fixed.get("seconds") or 0.0)
        self.samples_before = self.samples()
        self.log: list[str] = []
        self._mark = self.out / f".stop-{secrets.token_hex(4)}"
        for old in self.out.glob(".stop-*"):
            old.unlink(missing_ok=True)
        for name in ("requeue", "failed"):
            (self.out / name).unlink(missing_ok=True)
        self._write("running")

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def samples(self) -> int:
        """Trained and saved, over all trials."""
        return sum(record.saved_steps(record.folder(self.out, trial)) * trial.batch for trial in self.trials)

    def next(self) -> tuple[int, Work] | str:
        for exchange in schedule.exchanges(self.plan, self.trials):
            self._exchange(exchange)
        leg = schedule.next_leg(self.plan, self.trials)
        if leg in (WAIT, DONE):
            return str(leg)
        assert isinstance(leg, Leg)
        if leg.number == len(self.trials):
            self.trials.append(begun(self.plan, self.trials))
        self._put(replace(self.trials[leg.number], until=leg.samples, running=True))
        return leg.number, self._work(self.trials[leg.number])

    def ended(self, number: int, outcome: dict[str, Any]) -> None:
        trial = replace(record.refreshed(self.out, self.trials[number]), running=False)
        if outcome.get("failed"):
            code, reason = outcome["failed"]
            trial = replace(trial, failure=(int(code), str(reason)))
        elif not outcome.get("interrupted") and not trial.has(trial.until):
            trial = replace(trial, failure=(CollaganError.exit_code, f"trained to {trial.until} samples, but no evaluation of that step is in its "
                                            "metrics.jsonl; remove its checkpoints to train it again"))  # fmt: skip
        elif not outcome.get("interrupted") and self.plan.metric not in (trial.at(trial.until) or {}):
            trial = replace(trial, failure=(6, f"its {self.plan.metric} is no number after {trial.until} samples"))
        self._settle(trial)

    def lost(self, number: int, reason: str) -> None:
        trial = replace(record.refreshed(self.out, self.trials[number]), running=False)
        self._settle(
            replace(
                trial, failure=(ClusterError.exit_code, f"{reason}; given up for now, the same command tries it again")
            )
        )

    def restarted(self, number: int, reason: str) -> None:
        trial = self.trials[number]
        self.say(f"trial {number} starts again from its newest checkpoint: {reason}")
        self._put(replace(trial, restarts=trial.restarts + 1))

    def tick(self) -> bool:
        if self.stop and not self._mark.exists():
            self.say("asked to stop: running trials save and end")
            self._mark.touch()
        self._show(self)
        return bool(self.stop)

    def say(self, text: str) -> None:
        """A line for people, which `show` brings out."""
        self.log.append(text)

    def close(self, state: str) -> None:
        self.trials = [replace(trial, running=False) for trial in self.trials]
        self._write(state)
        self._mark.unlink(missing_ok=True)

    def conclude(self) -> int:
        """Write what the sweep came to; the exit code. Raises Interrupted."""
        over = schedule.next_leg(self.plan, [replace(trial, running=False) for trial in self.trials]) == DONE
        self.close("done" if over else "interrupted")
        self._show(self)
        self._tell_tensorboard()
        _report(self.out)
        if not over:
            if job():
                files.write_text(self.out / "requeue", f"{this_start()}\n")
            raise Interrupted(
                f"stopped; what was trained is kept in {self.prepared.options.out}, and the same command continues"
            )
        failed = [trial for trial in self.trials if trial.failure]
        if failed and len(failed) == len(self.trials):
            assert failed[0].failure
            return failed[0].failure[0]
        return 0

    def _tell_tensorboard(self) -> None:
        """Each trial's values beside its last metrics, for TensorBoard's page of hyperparameters."""
        for trial in self.trials:
            place = record.folder(self.out, trial)
            if trial.reached and (place / "tensorboard").is_dir():
                with suppress(CollaganError, OSError):  # pictures of what is written elsewhere too
                    write_hparams(place, trial.values, trial.results[trial.reached])

    def _work(self, trial: Trial) -> Work:
        config = trial_config(self.prepared, trial, self.takes)
        place = record.folder(self.out, trial)
        return Work(
            name=f"{self.out.name}/{trial.name}", run=str(place), config=configuration.dump(config), until=trial.steps(trial.until),
            workers=self.takes.workers, allow_change=bool(trial.lineage), stop=str(self._mark),
        )  # fmt: skip

    def _exchange(self, exchange: schedule.Exchange) -> None:
        member, donor = self.trials[exchange.number], self.trials[exchange.donor]
        step = member.steps(exchange.at)
        adopt(record.folder(self.out, member), record.folder(self.out, donor), step)
        entry = {"at": exchange.at, "from": exchange.donor, "values": member.values}
        self._put(replace(member, values=exchange.values, lineage=(*member.lineage, entry)))
        self.say(f"trial {exchange.number} takes the networks of trial {exchange.donor} at {exchange.at:,} samples")

    def _settle(self, trial: Trial) -> None:
        self._put(trial)
        self._write("running")
        if trial.failure:
            self.say(f"trial {trial.number} failed: {trial.failure[1]}")
        elif (scores := trial.at(trial.until)) is not None:
            told = ", ".join(f"{name} {scores[name]:.4g}" for name in self.plan.space.metrics if name in scores)
            self.say(f"trial {trial.number}: {told} after {trial.until:,} samples")

    def _put(self, trial: Trial) -> None:
        self.trials[trial.number] = trial
        record.write(self.out, trial)

    def _write(self, state: str) -> None:
        results.write_csv(self.out, self.plan, self.trials, over=state == "done")
        results.write_summary(self.out, self.plan, self.trials, self.fixed, state, self.seconds)
        results.write_best(self.out, self.plan, self.trials)


def begun(plan: Plan, trials: Sequence[Trial]) -> Trial:
    """The next new trial: the paper's λ and the base configuration first, then what the search proposes, at last those that confirm.

    What a sweep grew by comes after those that confirmed what it had found before.
    """
    starts, searched = plan.space.starts(), sum(trial.role != "confirm" for trial in trials)
    seed = plan.seed
    notes: dict[str, Any] = {}
    if searched >= plan.trials:
        again = schedule.unconfirmed(plan, trials)
        assert again
        role, (values, seed) = "confirm", again
    elif searched < len(starts):
        role, values = starts[searched]
    else:
        role, number = "search", searched - len(starts)
        values, notes = search.propose(plan.space, plan.seed, number, plan.trials, results.told(plan, trials))
    return Trial(len(trials), role, values, seed, plan.space.config(values).schedule.batch, notes)


def trial_config(prepared: Prepared, trial: Trial, takes: Takes) -> Config:
    """What a trial trains: the base configuration with its values, as long as every other one, evaluated where it ends."""
    base = prepared.base
    threads = max(1, int(takes.cpus))
    steps = trial.steps(prepared.plan.total)
    more: dict[str, Any] = {"seed": trial.seed, "schedule.steps": steps, "evaluate.every": base.evaluate.every or steps}
    if find_spec("tensorboardX"):
        more["log.sinks"] = list(dict.fromkeys([*base.log.sinks, "tensorboard"]))
    more |= {f"{part}.threads": threads for part in ("runtime", "data") if not getattr(base, part).threads}
    return prepared.plan.space.config(trial.values, **more)


def adopt(member: Path, donor: Path, step: int) -> None:
    """Give a run another's checkpoint of a step in place of its own: links where the file system has them."""
    name = f"step-{step:08d}"
    target = member / "checkpoints" / name
    beside, own = target.with_name(f".{name}.adopted"), target.with_name(f".{name}.own")
    for old in (beside, own):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(donor / "checkpoints" / name, beside, copy_function=_link)
    if target.exists():
        target.rename(own)
    beside.rename(target)
    files.sync_folder(target.parent)
    shutil.rmtree(own, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _trials(options: Options, space: Space) -> int:
    """How many trials there are, those of the paper and of the base configuration among them."""
    fixed = len(space.starts())
    if space.tree.search == "grid":
        whole = fixed + len(space.grid())
        if options.trials is not None and options.trials > whole:
            raise ConfigError(
                f"--trials {options.trials}: the grid has {whole - fixed} points, and {fixed} more are tried before them"
            )
        return options.trials or whole
    trials = options.trials or 16
    least = max(fixed, 4 if space.tree.scheduler == "pbt" else 1)
    if trials < least:
        raise ConfigError(
            f"--trials {trials}: too few; {fixed} are the paper's λ and the base configuration's, give at least {least}"
        )
    return trials


def _rungs(tree: Tree, total: int) -> tuple[int, ...]:
    """Lengths at which trials are compared, in samples; the last is a whole run."""
    if tree.scheduler == "none":
        return (total,)
    if tree.scheduler == "pbt":
        every = tree.pbt.every or -(-total // 10)
        if every >= total:
            raise ConfigError(f"pbt.every: {every} samples are no less than a whole run's {total}")
        return (*range(every, total, every), total)
    first, factor = tree.rungs.first or max(1, total // tree.rungs.factor**2), tree.rungs.factor
    if first >= total:
        raise ConfigError(f"rungs.first: {first} samples are no less than a whole run's {total}")
    rungs = [first]
    while rungs[-1] * factor < 0.9 * total:  # not one just before the end
        rungs.append(rungs[-1] * factor)
    return (*rungs, total)


def _continued(prepared: Prepared) -> dict[str, Any]:
    """What sweep.json keeps over starts. Raises ConfigError where the folder holds another sweep."""
    out, plan = prepared.options.out, prepared.plan
    known: dict[str, Any] = {}
    if (out / "sweep.json").exists():
        try:
            known = json.loads((out / "sweep.json").read_bytes())
            then, trials = known["identity"], int(known["trials"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{out / 'sweep.json'}: is none of a sweep ({error!r}); restore it, or give another --out"
            ) from None
        if changed := configuration.differences(then, prepared.identity):
            lines = "\n  ".join(changed)
            raise ConfigError(
                f"{out} holds another sweep:\n  {lines}\ngive another --out, or the command that began this one"
            )
        if trials != plan.trials and (plan.space.tree.scheduler not in _MAY_GROW or trials > plan.trials):
            raise ConfigError(
                f"--trials {plan.trials}: {out} was begun with {trials}; " + ("more can be added, not taken away" if trials > plan.trials else
                f"{plan.space.tree.scheduler} compares all of them from the beginning. Give another --out")
            )  # fmt: skip
    elif (out / "trials").exists() and any((out / "trials").iterdir()):
        raise ConfigError(f"{out}: has trials, but no sweep.json; restore it, or give another --out")
    keys = {key: facts for dimension in plan.space.dimensions for key, facts in dimension.facts().items()}
    metrics = [{"name": name, "mode": mode} for name, mode in zip(plan.space.metrics, plan.space.modes, strict=True)]
    return {
        "version": 1, "about": _about(prepared), "metrics": metrics, "scheduler": plan.space.tree.scheduler, "search": plan.space.tree.search,
        "trials": plan.trials, "seed": plan.seed, "rungs": list(plan.rungs), "keys": keys, "identity": prepared.identity,
        "seconds": known.get("seconds", 0.0),
    }  # fmt: skip


def _about(prepared: Prepared) -> str:
    base, manifest = prepared.base, prepared.manifest
    size, steps = base.data.image_size, prepared.plan.total // base.schedule.batch
    scored = min(base.evaluate.samples or manifest.samples(base.evaluate.split), manifest.samples(base.evaluate.split))
    return (
        f"{Path(prepared.options.config).stem}, {configuration.model_label(base.model)}, {size}x{size} pixels: {steps:,} steps of "
        f"{base.schedule.batch}, "
        f"trained on {manifest.samples(base.data.split):,} and compared on {scored:,} samples ({base.evaluate.split}) of "
        f"{Path(prepared.options.data).name} ({manifest.dataset})"
    )


def _check_owner(out: Path) -> None:
    """A sweep runs what its folder says on every node of a cluster: nobody else's folder is continued."""
    for path in (out, out / "trials"):
        if path.exists() and path.stat().st_uid != os.geteuid():
            raise ConfigError(
                f"{path}: belongs to another user (id {path.stat().st_uid}); copy it, or give another --out"
            )


def _report(out: Path) -> None:
    from collagan_dist.report import write_report

    try:
        write_report([out])
    except CollaganError as error:
        print(f"warning: {error}", file=sys.stderr, flush=True)


def _in_our_words(error: Exception, ray: Any) -> Exception:
    """What Ray says when the cluster is gone, as an error for people."""
    if isinstance(error, CollaganError):
        return error
    if isinstance(error, ray.exceptions.RayError | ConnectionError):
        return ClusterError(
            f"the Ray cluster is gone ({(str(error).splitlines() or [''])[0]}); the same command continues"
        )
    return error
