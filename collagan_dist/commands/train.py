"""`collagan train`: one training, on one process or on all ranks of a launcher."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from collagan_dist import files, shell
from collagan_dist.commands.arguments import positive_int
from collagan_dist.distributed.world import job_id, start_label
from collagan_dist.errors import ClusterError, CollaganError, ConfigError, Interrupted

if TYPE_CHECKING:
    from collagan_dist.config.tree import Config
    from collagan_dist.data.shards.manifest import Manifest
    from collagan_dist.types import World

logger = logging.getLogger(__name__)

HELP = "train alone, under torchrun, srun or in a Ray trial; the same command continues"
EXAMPLE = """collagan train stable --data packed/celeba --set schedule.batch=128
         torchrun --nproc-per-node 8 -m collagan_dist train stable --data packed/celeba --out runs/first"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="preset name or YAML file")
    parser.add_argument(
        "--model", metavar="NAME", help="the paper's model: M_i M_s M_d M_id M_is M_isd M*_isd; or its peer: CE SII GFC"
    )
    parser.add_argument(
        "--data", metavar="SHARDS", help="folder made by `collagan pack` or `collagan adopt`, or its URL"
    )
    parser.add_argument(
        "--out",
        "--run",
        dest="run",
        metavar="DIR",
        help="run folder (default: runs/<config>-<model>-<hash of the identity keys>)",
    )
    parser.add_argument(
        "--init",
        metavar="MODEL",
        help="start from the weights of another run or exported model: what fits is taken and named",
    )
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="change a key of the configuration")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved configuration and the plan, and stop"
    )
    parser.add_argument(
        "--allow-config-change",
        action="store_true",
        help="continue although identity keys differ from the checkpoint's",
    )
    parser.add_argument(
        "--stop-at", type=positive_int, metavar="STEP", help="end at this step, saved and evaluated like the last one"
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse a damaged newest checkpoint instead of taking the one before it"
    )


def run(args: argparse.Namespace) -> None:
    from collagan_dist.distributed.stop_request import StopRequest
    from collagan_dist.distributed.world import detect_world

    world = detect_world()
    # Signals are handled before the imports, which take seconds. Under a launcher a run need not end itself: what does
    # not stop is killed.
    with StopRequest(by_launcher=world.launcher != "alone") as stop:
        from collagan_dist.config.effects import warnings_of
        from collagan_dist.config.load import changed_keys, load_config
        from collagan_dist.data.shards.quick_check import open_shards
        from collagan_dist.runs.own_folder import check_own_run

        if args.init is not None:
            args.set.append(f"model.init={json.dumps(args.init)}")
        config = load_config(args.config, args.model, args.set, args.data)
        folder = Path(args.run) if args.run else _default_run(args.config, config)
        check_own_run(folder)  # at once: slurm/train.sh writes there after a dry run
        if args.dry_run:
            _dry_run(args, config, folder, world)
            return
        _check_stop_at(args.stop_at, folder)
        command = _continue_command(world.launcher, world.local_size)
        with _record_failure(folder, world):
            # Before torch is imported: what is wrong with the data set, and the first word.
            manifest = open_shards(config)
            plan, steps = _plan(config, manifest, world, folder)
            if world.is_rank0:
                logger.info(plan)
                for warning in warnings_of(config, steps, changed_keys(args.set)):
                    logger.warning(f"warning: {warning}")
            # Imports make objects that stay: looking for garbage among them, now and later, would cost a tenth of a start.
            gc.disable()
            from collagan_dist.training.loop import StartOptions, train

            gc.freeze()
            gc.enable()
            options = StartOptions(stop, command, args.allow_config_change, args.strict, args.stop_at)
            done = train(config, folder, world, options, manifest)
    if world.is_rank0:
        print(
            f"{folder}: {done} steps done; next: {shell.collagan('evaluate', folder)} && {shell.collagan('report', folder)}"
        )


def _check_stop_at(step: int | None, folder: Path) -> None:
    """Raise ConfigError where a run is beyond the step at which it is to end."""
    from collagan_dist.runs.layout import RunPaths

    if step is not None and (newest := RunPaths(folder).newest_step()) > step:
        raise ConfigError(
            f"--stop-at {step}: {folder} is at step {newest} already; give a later step, or another --out"
        )


@contextmanager
def _record_failure(folder: Path, world: World) -> Iterator[None]:
    """Write RUN/failed for an error that a restart does not fix, on any rank; the batch script then does not requeue."""
    try:
        yield
    except (ClusterError, Interrupted):
        # A failure of other ranks or of the cluster (exit code 4): a restart may well succeed.
        raise
    except CollaganError as error:
        from collagan_dist.runs.layout import RunPaths
        from collagan_dist.runs.lease import held_by_other_job

        # Another job may train in this folder by now: then it is not this one's to mark.
        if folder.is_dir() and not held_by_other_job(folder, start_label() if job_id() else ""):
            facts = {
                "exit_code": error.exit_code,
                "start": start_label(),
                "message": str(error),
                "rank": world.rank,
                "host": socket.gethostname(),
            }
            with suppress(OSError, CollaganError):  # the disk itself may have failed
                files.write_json(RunPaths(folder).failed, {**facts, "time": time.strftime("%Y-%m-%d %H:%M:%S %z")})
        raise


def _default_run(source: str, config: Config) -> Path:
    """Return runs/<config>-<model>-<hash of the identity keys>, so that the same command finds its run again."""
    from collagan_dist.config.load import identity_hash, model_label
    from collagan_dist.data.shards.manifest import read_manifest

    manifest = read_manifest(config.data.shards).hash if config.data.shards else None
    return Path("runs") / f"{Path(source).stem}-{model_label(config.model)}-{identity_hash(config, manifest)}"


def _plan(config: Config, manifest: Manifest, world: World, folder: Path) -> tuple[str, int]:
    """Return what a start would do, in a line, and the steps of the whole run. Raises ConfigError, DataError."""
    from collagan_dist.config.load import model_label
    from collagan_dist.data.loading.order import check_batch, planned_steps
    from collagan_dist.runs.layout import RunPaths, checkpoint_steps

    if config.evaluate.every:
        manifest.shards(config.evaluate.split)
    samples = manifest.samples(config.data.split)
    check_batch(samples, config.schedule.batch, world, config.runtime.accumulate)
    steps = planned_steps(config.schedule, samples)
    line = f"{model_label(config.model)}: {steps} steps of {config.schedule.batch} over {samples} samples, {world.size} rank(s), into {folder}"
    if manifest.elsewhere is not None:  # a manifest from others may name any place
        line += f", tars from {manifest.elsewhere}"
    saved = checkpoint_steps(RunPaths(folder).checkpoints)
    return f"{line}, from step {saved[-1]} on" if saved else line, steps


def _dry_run(args: argparse.Namespace, config: Config, folder: Path, world: World) -> None:
    """Print the configuration, and as comments what a start would do and take."""
    from collagan_dist.config.effects import warnings_of
    from collagan_dist.config.load import changed_keys, to_yaml
    from collagan_dist.data.shards.quick_check import open_shards
    from collagan_dist.models.initial_weights import read_initial_weights
    from collagan_dist.models.registry import (
        count_parameters,
        estimate_checkpoint_bytes,
        networks_without_memory,
        state_bytes,
    )
    from collagan_dist.runs.disk_need import need_of_run
    from collagan_dist.runs.layout import RunPaths
    from collagan_dist.units import format_bytes, format_count

    manifest = open_shards(config)
    plan, steps = _plan(config, manifest, world, folder)
    _check_annotations(config, manifest)
    begins_from = None
    # With copies a run may go on where the model is gone.
    if config.model.init is not None and config.checkpoint.copy_to is None and not RunPaths(folder).newest_step():
        begins_from = read_initial_weights(config, *networks_without_memory(config))
    print(to_yaml(config), end="")
    for line in _changes(args.config, config):
        print(f"# {line}")
    print(f"# {plan}")
    print(f"# {_expected_time(config, folder, steps)}")
    if begins_from is not None:
        print(f"# model.init: {begins_from}")
    parameters = count_parameters(config)
    print(f"# parameters: {', '.join(f'{name} {format_count(count)}' for name, count in parameters.items())}")
    print(
        f"# memory: {format_bytes(state_bytes(config, parameters))} a rank for parameters, gradients"
        f"{', moving average' * bool(config.optim.ema)} and Adam; activations come on top"
    )
    print(f"# {need_of_run(RunPaths(folder), config.checkpoint, estimate_checkpoint_bytes(config), steps)}")
    for warning in warnings_of(config, steps, changed_keys(args.set)):
        print(f"# warning: {warning}")
    # Read by slurm/train.sh.
    print(f"# splits: {' '.join(manifest.splits)}")
    print(f"# run: {files.one_line(folder)}")


def _check_annotations(config: Config, manifest: Manifest) -> None:
    """Raise DataError where a task needs what samples do not have. Behind a URL it is looked at when training has a shard."""
    from collagan_dist.data.loading.loader import check_annotations
    from collagan_dist.data.shards.remote import RemoteFolder
    from collagan_dist.data.shards.shard_reader import SplitReader
    from collagan_dist.tasks import build_tasks, needed_annotations

    if not isinstance(manifest.tars, RemoteFolder):
        needed = needed_annotations(build_tasks(config).values())
        check_annotations(SplitReader(manifest, config.data.split), *needed)


def _changes(source: str, config: Config) -> list[str]:
    """Return what of a configuration is not as its preset or file says, but for the data set."""
    from collagan_dist.config.load import config_to_dict, differences, load_config

    try:
        alone = load_config(source, shards=config.data.shards)
    except ConfigError:  # what --set and --model complete
        return [f"{source} alone is no valid configuration, so nothing is compared with it"]
    found = differences(config_to_dict(alone), config_to_dict(config))
    return [f"differs from {source}:", *(f"  {line}" for line in found)] if found else [f"all as in {source}"]


def _expected_time(config: Config, folder: Path, steps: int) -> str:
    """Return the time of the steps that are left, by the rate in the run's metrics.jsonl."""
    from collagan_dist.runs.layout import RunPaths, checkpoint_steps
    from collagan_dist.runs.metrics_log import median_rate
    from collagan_dist.units import format_duration

    rate, saved = median_rate(folder), checkpoint_steps(RunPaths(folder).checkpoints)
    if rate is None:
        return "time: unknown, as this run has logged no rate yet"
    left = max(0, steps - (saved[-1] if saved else 0))
    seconds = left * config.schedule.batch / rate
    return f"time: {format_duration(seconds)} for {left:,} more steps, at the {rate:.3g} images/s of its metrics.jsonl"


def _continue_command(launcher: str, local_size: int) -> str:
    """Return the command that continues this run, as a person would type it."""
    # deepspeed adds an argument to each rank's.
    words = [word for word in sys.argv[1:] if not word.startswith(("--local_rank=", "--local-rank="))]
    return shell.relaunch(*words, launcher=launcher, ranks_here=local_size)
