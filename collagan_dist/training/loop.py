"""Training: the same function for a process alone, torchrun, srun and a trial of a sweep; it continues what it finds."""

from __future__ import annotations

import sys
from pathlib import Path

from collagan_dist.config.tree import Config
from collagan_dist.data.loading.loader import Loader
from collagan_dist.data.loading.order import check_batch
from collagan_dist.distributed.engine import NotFinite
from collagan_dist.distributed.stop_request import StopRequest
from collagan_dist.errors import Interrupted
from collagan_dist.models.networks import Networks
from collagan_dist.models.registry import build_networks, build_step
from collagan_dist.runs.metrics_log import check_sinks
from collagan_dist.runs.run_folder import Progress, RunFolder
from collagan_dist.setup import Setup, build_setup, open_shards, planned_steps, target_means, training_order
from collagan_dist.training.guard import Diverged, Guard
from collagan_dist.training.logger import TrainingLogger
from collagan_dist.types import World


def train(
    config: Config,
    run: Path,
    world: World,
    stop: StopRequest | None = None,
    command: str = "",
    allow_config_change: bool = False,
    strict: bool = False,
    until: int | None = None,
) -> int:
    """Train into a run folder, from its newest whole checkpoint on (`strict`: the newest must be whole); the number of steps done in all.

    `until` is the step at which to end for now, logged, evaluated and saved like the last one: a later start goes on to the
    weights of a run that never paused. Raises Interrupted, with everything saved, when `stop` becomes true. `command` is what
    the user is told to run then.
    """
    check_sinks(config.log.sinks)
    manifest = open_shards(config)
    samples = manifest.samples(config.data.split)
    check_batch(samples, config.schedule.batch, world, config.runtime.accumulate)
    setup = build_setup(config, world, manifest)
    with setup.group:
        return _train(
            setup,
            run,
            planned_steps(config, samples),
            stop if stop is not None else StopRequest(),
            command,
            allow_config_change,
            strict,
            until,
        )


def _train(
    setup: Setup, run: Path, total: int, stop: StopRequest, command: str, allow_change: bool, strict: bool,
    until: int | None,
) -> int:  # fmt: skip
    config = setup.config
    if config.evaluate.every:
        setup.split(config.evaluate.split)  # a missing one is an error now, not hours later
    # Before the run folder is touched: a data set that lacks what the tasks need leaves nothing behind.
    share = config.schedule.batch // setup.world.size
    loader = setup.loader(config.data.split, setup.view(training=True), share)
    if setup.world.is_rank0 and loader.upsamples:
        print(
            f"warning: {setup.manifest.folder}: crops of {setup.manifest.recipe['store_size']} pixels are enlarged to {loader.canvas}; "
            f"pack with store_size={loader.canvas} for pictures of {config.data.image_size}", file=sys.stderr, flush=True,
        )  # fmt: skip
    folder = RunFolder(run, config, setup.manifest, setup.group)
    guard = Guard(setup.group)
    try:
        while True:
            networks = build_networks(config, setup.engine, setup.tasks)
            if not guard.rollbacks:
                folder.acquire()
                setup.group.status.log_dir = folder.paths.logs
            progress = folder.resume(networks, allow_change, strict)
            if not guard.rollbacks:
                folder.record_start(command)
            if progress.step == 0:
                _begin(setup, networks)
            try:
                end = min(total, until or total)
                return _steps(
                    setup, folder, loader, networks, guard.with_skipped(progress), guard, total, end, stop, command
                )
            except Diverged as error:
                guard.roll_back(error)
                del networks  # before the next ones are made
    finally:
        folder.release()


def _steps(
    setup: Setup, folder: RunFolder, loader: Loader, networks: Networks, progress: Progress, guard: Guard, total: int,
    end: int, stop: StopRequest, command: str,
) -> int:  # fmt: skip
    """Steps from where the run stands to `end`, of `total`. Raises Diverged, on all ranks, when it is to go back to its checkpoint."""
    config, start, left_out = setup.config, progress.step, set(progress.skipped)
    step = build_step(config, setup.engine, setup.tasks, networks, total)
    order = training_order(config, setup.manifest)
    plans = zip(range(start, end), order.steps(start, end, setup.world), strict=True)
    batches = loader.batches(
        (plan for number, plan in plans if number not in left_out), prefetch=not order.fully_shuffled
    )
    folder.check_lease()
    journal = TrainingLogger(setup, folder.path, start, end, step.loss_weights(), folder.lease)
    name = "rollback" if guard.rollbacks else "resume" if start else "start"
    journal.event(start, name, **folder.start_facts(progress))
    try:
        for number in range(start, end):
            done = number + 1
            setup.group.status.step = done
            if number in left_out:
                journal.event(done, "left_out")
            else:
                try:
                    with setup.group.stopwatch:  # waiting for data is a rank's own time
                        values = step(next(batches), number)
                    journal.add(values)
                    guard.finite_step()
                except NotFinite as bad:
                    journal.skip(done, bad)
                    guard.nonfinite_step(number, bad)
            if due(done, config.log.every, end):
                journal.log(done, step.learning_rate(number), loader.idle_seconds, folder.checkpointer.blocked_seconds)
            if config.evaluate.every and due(done, config.evaluate.every, end):
                journal.evaluation(done, networks)
            if due(done, config.log.grid_every, end):
                journal.grid(done, networks)
            stops, damaged, lost = setup.group.all_reduce_sum_deferred(
                bool(stop), len(loader.damaged), folder.lease_lost
            )
            if lost:
                folder.check_lease()
            stopping = bool(stops) and done < end
            if damaged > journal.damaged:
                journal.quarantine(done, loader.damaged)
            if due(done, config.checkpoint.every, end) or stopping:
                guard.check(networks, number)
                folder.save(networks, progress.at(done), journal.event)
            if stopping:
                folder.wait_for_checkpoint(journal.event)
                journal.event(done, "interrupted")
                folder.request_requeue()
                raise Interrupted(
                    f"stopped at step {done} of {total}, saved in {folder.path}; this continues:\n  {command}"
                )
        journal.quarantine(end, loader.damaged)
        folder.wait_for_checkpoint(journal.event)
    except Diverged:
        folder.wait_for_checkpoint(journal.event, required=False)
        raise
    finally:
        batches.close()
        journal.close()
    return end


def due(done: int, every: int, total: int) -> bool:
    """Whether something periodic happens after `done` steps: each `every` steps and at the end."""
    return done % every == 0 or done == total


def _begin(setup: Setup, networks: Networks) -> None:
    if setup.config.model.output_bias == "mean":
        means = target_means(setup).to(setup.device)
        for generator in (networks.generator, networks.ema):
            if generator is not None:
                generator.start_at(means)  # type: ignore[operator]
        networks.set_parameters()
