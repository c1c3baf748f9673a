"""The training loop: `train` is one start of a run, alone, under torchrun or srun, or as a trial of a sweep."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from collagan_dist.config.tree import Config
from collagan_dist.data.loading.order import check_batch, planned_steps
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.data.shards.quick_check import open_shards
from collagan_dist.distributed.devices import has_bf16
from collagan_dist.distributed.stop_request import StopRequest
from collagan_dist.errors import CheckpointError, CollaganError, Interrupted, mark_on_all_ranks
from collagan_dist.inference.perception import measured_tasks
from collagan_dist.models.initial_weights import InitialWeights, read_initial_weights
from collagan_dist.models.networks import Networks
from collagan_dist.models.registry import build_networks, build_step
from collagan_dist.models.step import Step, StepResult
from collagan_dist.runs.layout import checkpoint_steps
from collagan_dist.runs.metrics_log import check_sinks
from collagan_dist.runs.run_folder import Progress, RunFolder
from collagan_dist.runs.thinning import Row
from collagan_dist.setup import Setup, build_setup, target_means, training_order
from collagan_dist.training.guard import Diverged, Guard
from collagan_dist.training.kept_canvases import open_canvas_store
from collagan_dist.training.logger import TrainingLogger
from collagan_dist.types import MAX_WORKERS, Batch, World
from collagan_dist.units import format_count

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StartOptions:
    """How one start of a run behaves; nothing here changes what is learned.

    Once `stop` is true the start saves and ends; `command` is what the user is told to run then. `stop_at` is the step at which
    the start ends, logged, evaluated and saved like the last one. `strict` refuses a damaged newest checkpoint instead of
    taking the one before it. `report` gets step and metrics of each evaluation, on rank 0, once the checkpoint of that step is
    complete; when it returns False, the start ends.
    """

    stop: StopRequest = field(default_factory=StopRequest)
    command: str = ""
    allow_config_change: bool = False
    strict: bool = False
    stop_at: int | None = None
    report: Callable[[int, Row], bool] | None = None


def train(
    config: Config, run: Path, world: World, options: StartOptions | None = None, manifest: Manifest | None = None
) -> int:
    """Train into a run folder, from its newest checkpoint on; return the number of steps done in all.

    `manifest` is the data set where the caller has opened it. Raises Interrupted, with everything saved, once `options.stop` is true.
    """
    check_sinks(config.log.sinks)
    manifest = manifest or open_shards(config)
    check_batch(manifest.samples(config.data.split), config.schedule.batch, world, config.runtime.accumulate)
    setup = build_setup(config, world, manifest)
    with setup.group:
        trainer = Trainer(setup, run, options or StartOptions())
        try:
            return trainer.run()
        finally:
            trainer.folder.release()


class Trainer:
    """One start of a run on one rank: what the loop needs, and the loop itself."""

    def __init__(self, setup: Setup, run: Path, options: StartOptions) -> None:
        config = setup.config
        self.setup, self.config, self.group, self.options = setup, config, setup.group, options
        self.total_steps = planned_steps(config.schedule, setup.manifest.samples(config.data.split))
        self.stop_at = min(self.total_steps, options.stop_at or self.total_steps)
        if config.evaluate.every:
            # A missing split or a wrong network of evaluate.features is an error now, not hours later.
            setup.split(config.evaluate.split)
            measured_tasks(setup)
        # Before the run folder is touched: a data set that lacks what the tasks need leaves nothing behind.
        rank_batch = config.schedule.batch // setup.world.size
        self.loader = setup.loader(config.data.split, setup.view(training=True), rank_batch)
        if setup.world.is_rank0 and self.loader.upsamples:
            logger.warning(
                f"warning: {setup.manifest.folder}: crops of {setup.manifest.recipe['store_size']} pixels are enlarged to "
                f"{self.loader.canvas}; pack with store_size={self.loader.canvas} for pictures of {config.data.image_size}"
            )
        if setup.world.is_rank0 and config.runtime.precision == "bf16" and not has_bf16(setup.device):
            logger.warning(
                "warning: this processor has no fast bf16: runtime.precision=fp32 trains several times as many images a second"
            )
        if config.data.keep != "none":
            self.loader.keep(open_canvas_store(setup, self.loader.canvas))
        self.folder = RunFolder(run, config, setup.manifest, setup.group)
        self.guard = Guard(setup.group)

    def run(self) -> int:
        """Train until `stop_at`, with rollbacks; return the number of steps done in all."""
        while True:
            networks = build_networks(self.config, self.setup.engine, self.setup.tasks)
            is_rollback = self.guard.rollbacks > 0
            if not is_rollback:
                # As early as all other errors of the configuration: they leave the run folder alone.
                initial = None if self.folder.copies else self._initial_weights(networks)
                if self.setup.world.is_rank0:
                    logger.info(_describe(self.setup, networks))
                self.folder.check_room(networks.checkpoint_bytes, self.stop_at)
                # Not before the networks are built: a wrong configuration should not touch the folder.
                self.folder.acquire()
                self.group.status.log_dir = self.folder.paths.logs
            progress = self.folder.resume(networks, self.options.allow_config_change, self.options.strict)
            self._keep_threads(progress)
            if not is_rollback:
                self.folder.record_start(self.options.command)
                self._warn_of_machine(progress)
            if not progress.loaded:
                if self.folder.copies and initial is None:  # only now: where copies are taken up, it may be gone
                    initial = self._initial_weights(networks)
                initialize(self.setup, networks, initial)
                if initial is not None and self.setup.world.is_rank0 and not is_rollback:
                    logger.info(f"model.init: {initial}")
            try:
                return self._train(networks, self.guard.resume(progress))
            except Diverged as error:
                self.guard.roll_back(error)
                del networks  # frees their memory before the next ones are built

    def _keep_threads(self, progress: Progress) -> None:
        """Take the number of threads that computed the checkpoint, if the run is to be deterministic."""
        threads = str(progress.machine.get("threads", ""))
        if not self.config.deterministic or not threads.isdigit() or int(threads) == torch.get_num_threads():
            return
        if int(threads) > MAX_WORKERS:  # a checkpoint is data; so many would end this process
            return
        if self.setup.world.is_rank0:
            logger.info(
                f"deterministic: {threads} thread(s) from here on, not {torch.get_num_threads()}, as in the checkpoint of step {progress.step}"
            )
        torch.set_num_threads(int(threads))  # sums of another number have other last bits

    def _warn_of_machine(self, progress: Progress) -> None:
        if (changes := self.folder.machine_changes(progress)) and self.setup.world.is_rank0:
            logger.warning(
                f"warning: from step {progress.step} on the run need not equal an uninterrupted one bit for bit: {'; '.join(changes)}"
            )

    def _initial_weights(self, networks: Networks) -> InitialWeights | None:
        """Return the weights that this run begins with, or None where it has checkpoints or model.init is null. Collective.

        Raises ConfigError or CheckpointError for a model that cannot be taken, CheckpointError where ranks do not read the same.
        """
        if self.config.model.init is None or checkpoint_steps(self.folder.paths.checkpoints):
            return None
        read: InitialWeights | CollaganError
        try:
            read = read_initial_weights(self.config, networks.generator, networks.discriminators)
            said = f"step {read.step}, sha256 {read.sha256}"
        except CollaganError as error:
            read, said = error, str(error)
        found = self.group.all_gather(said)
        if len(set(found)) > 1:
            # Another checkpoint may have been written meanwhile, and not every node need see the same folder.
            text = "; ".join(f"rank {rank}: {one}" for rank, one in enumerate(found))
            hint = "give an exported model (`collagan export`), on storage that all nodes share"
            raise mark_on_all_ranks(CheckpointError(f"model.init: ranks do not read the same weights: {text}; {hint}"))
        if isinstance(read, CollaganError):
            raise mark_on_all_ranks(read)
        self.folder.init_sha256, self.folder.init_taken = read.sha256, str(read)
        return read

    def _train(self, networks: Networks, progress: Progress) -> int:
        """Train from `progress` on. Raises Diverged, on all ranks, when the run has to roll back."""
        train_step = build_step(self.config, self.setup.engine, self.setup.tasks, networks, self.total_steps)
        batches = self._batches(progress)
        self.folder.check_lease()  # reading a checkpoint may have taken long
        self.reports = self.group.broadcast(self.options.report is not None)  # only rank 0 is told to whom
        log = TrainingLogger(
            self.setup, self.folder.path, progress.step, self.stop_at, train_step.loss_weights(), self.folder.lease
        )
        name = "rollback" if self.guard.rollbacks else "resume" if progress.step else "start"
        log.event(progress.step, name, **self.folder.start_facts(progress))
        try:
            self._loop(networks, progress, train_step, batches, log)
            log.quarantine(self.stop_at, self.loader.damaged)
            self.folder.wait_for_checkpoint(log.event)
            self.folder.wait_for_copies(log.event)
        except Diverged:
            # The checkpoint being written is the one to go back to, unless it fails: then the one before it.
            self.folder.wait_for_checkpoint(log.event, required=False)
            raise
        finally:
            batches.close()  # ends the loader's thread, also after an error
            log.close()
        return self.stop_at

    def _batches(self, progress: Progress) -> Generator[Batch]:
        """Return this rank's batches of all steps to come, but for those that a rollback left out."""
        order = training_order(self.config, self.setup.manifest)
        steps, left_out = range(progress.step, self.stop_at), set(progress.left_out)
        ids = zip(steps, order.steps(steps.start, steps.stop, self.setup.world), strict=True)
        wanted = (ids_of_step for step, ids_of_step in ids if step not in left_out)
        # A full shuffle touches all shards all the time, so there is nothing to fetch early.
        return self.loader.batches(wanted, prefetch=not order.fully_shuffled)

    def _loop(
        self, networks: Networks, progress: Progress, train_step: Step, batches: Generator[Batch], log: TrainingLogger
    ) -> None:
        config, folder, loader, left_out = self.config, self.folder, self.loader, set(progress.left_out)
        pending: deque[tuple[int, StepResult]] = deque()  # steps whose verdicts have not been read
        for step in range(progress.step, self.stop_at):
            steps_done = step + 1
            self.group.status.step = steps_done  # a hang is reported with it
            if step in left_out:
                log.event(steps_done, "left_out")
            else:
                with self.group.stopwatch:  # waiting for data counts as a rank's own time
                    result = train_step(next(batches), step)
                pending.append((step, result))
            everys = (config.log.every, config.evaluate.every, config.log.grid_every, config.checkpoint.every)
            # A verdict is read when the next step has been queued, so the host does not wait for the device. It waits before
            # anything is logged or saved, and after the first step, from whose end on the rate is measured.
            waits = step == progress.step or any(self._is_due(every, steps_done) for every in everys)
            self._read_verdicts(pending, log, but=0 if waits else 1)
            if self._is_due(config.log.every, steps_done):
                blocked_seconds = folder.checkpointer.blocked_seconds
                log.train_line(steps_done, train_step.learning_rate(step), loader.idle_seconds, blocked_seconds)
            due = self._is_due(config.evaluate.every, steps_done)
            metrics = log.evaluation(steps_done, networks) if due else None
            if self._is_due(config.log.grid_every, steps_done):
                log.grid(steps_done, networks)
            # What ranks have to decide together. The sums are one step old: nobody waits for them.
            stops, damaged, lost = self.group.all_reduce_sum_deferred(
                bool(self.options.stop), len(loader.damaged), folder.lease_lost
            )
            if lost:
                folder.check_lease()
            if damaged > log.damaged:
                log.quarantine(steps_done, loader.damaged)
            stopping = bool(stops) and steps_done < self.stop_at
            if stopping:
                self._read_verdicts(pending, log)
            reporting = self.reports and metrics is not None
            if self._is_due(config.checkpoint.every, steps_done) or stopping or reporting:
                self.guard.check_parameters(networks, step)
                folder.save(networks, progress.at(steps_done, self.guard.bad_row), log.event)
            if stopping or (reporting and self._report(steps_done, metrics, log)):
                self._interrupt(steps_done, log)
        self._read_verdicts(pending, log)

    def _read_verdicts(self, pending: deque[tuple[int, StepResult]], log: TrainingLogger, but: int = 0) -> None:
        """Log and count the oldest of the pending steps, `but` not the newest ones. Raises Diverged. Collective."""
        while len(pending) > but:
            step, result = pending.popleft()
            verdict = result.verdict.read()
            if verdict.finite:
                log.add(result.values)
                self.guard.count_finite()
            else:
                log.skip(step + 1, verdict)
                self.guard.count_nonfinite(step, verdict)

    def _is_due(self, every: int, steps_done: int) -> bool:
        """Whether something periodic happens now: every `every` steps and at the end; never for 0."""
        return every > 0 and (steps_done % every == 0 or steps_done == self.stop_at)

    def _report(self, steps_done: int, metrics: Row | None, log: TrainingLogger) -> bool:
        """Report an evaluation whose checkpoint is being written; return whether to end before the last step. Collective."""
        self.folder.wait_for_checkpoint(log.event)
        report = self.options.report
        goes_on = self.group.on_rank0_for_long(lambda: report is None or metrics is None or report(steps_done, metrics))
        return not goes_on and steps_done < self.stop_at

    def _interrupt(self, steps_done: int, log: TrainingLogger) -> None:
        """End this start after a stop request. Raises Interrupted."""
        self.folder.wait_for_checkpoint(log.event)
        log.event(steps_done, "interrupted")
        self.folder.request_requeue()  # before the wait, which a kill may end
        self.folder.wait_for_copies(log.event, interrupted=True)
        raise Interrupted(
            f"stopped at step {steps_done} of {self.total_steps}, saved in {self.folder.path}; this continues:\n  {self.options.command}"
        )


def _describe(setup: Setup, networks: Networks) -> str:
    """Return the device and the size of the networks, in a line."""
    sizes = [
        sum(p.numel() for p in n.parameters() if p.requires_grad) for n in (networks.generator, networks.discriminators)
    ]
    threads = f" with {torch.get_num_threads()} thread(s)" if setup.device.type == "cpu" else ""
    return (
        f"device: {setup.device}{threads}, {setup.config.runtime.precision}; parameters: generator {format_count(sizes[0])}, "
        f"discriminators {format_count(sizes[1])}"
    )


def initialize(setup: Setup, networks: Networks, initial: InitialWeights | None) -> None:
    """Give networks the values before the first step: the output layer begins at the mean of its targets, if model.output_bias
    says so, and then what `initial` has replaces their own.
    """
    if setup.config.model.output_bias == "mean":
        means = target_means(setup).to(setup.device)
        for generator in (networks.generator, networks.ema):
            if generator is not None:
                generator.initialize_output(means)  # type: ignore[operator]
        networks.set_parameters()
    if initial is not None:
        initial.load_into(networks)
