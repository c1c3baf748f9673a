"""Our training as a trainable of Ray Tune, for a `tune.Tuner` of one's own: any scheduler, searcher, callback and logger (docs/tune.md).

A trial reports each evaluation together with the checkpoint of the same step. Tune decides: a trial goes on from the checkpoint that
Tune gives it, be it its own, after `Tuner.restore`, or another trial's (PBT). Without one it begins anew.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from collagan_dist import files
from collagan_dist.config.load import assignments, config_to_dict, differences, identity_keys, load_config
from collagan_dist.config.tree import Config
from collagan_dist.errors import CheckpointError, ConfigError, Interrupted
from collagan_dist.runs.layout import MANIFEST_FILE, RunPaths
from collagan_dist.runs.metrics_log import read_eval_lines
from collagan_dist.sweep.growth import read_growth
from collagan_dist.sweep.nodes import living_nodes
from collagan_dist.sweep.rank_group import train_on_ranks
from collagan_dist.sweep.resources import TrialResources
from collagan_dist.sweep.segment import SegmentSpec, absolute_paths, worker_settings
from collagan_dist.sweep.space import CHANGEABLE_KEYS
from collagan_dist.sweep.trial import adopt_checkpoint, link_or_copy, searched_metrics
from collagan_dist.sweep.worker import free_memory

_RUN_FOLDER = "run"  # in the trial's folder of Tune


def trainable(
    config: str | Path | Config,
    data: str | Path | None = None,
    model: str | None = None,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    **resources: Any,
) -> Callable[[dict[str, Any]], None]:
    """Return a trainable for `tune.Tuner`, whose `param_space` has dotted keys of our configuration.

    `config`, `data`, `model` and `settings` are as for `collagan_dist.train`: what all trials have in common. `resources` are
    `workers` (ranks, 1), `cpus` (1) and `gpus` (of a rank; one where there are any) and `spread`. A trial is a run folder, `run` in the trial's
    folder of Tune, or `out`/TRIAL_ID. Relative paths, also those of `param_space`, are seen from the folder in which this is called.
    Raises ConfigError; a wrong key of `param_space` is one at `Tuner.fit`.
    """
    if missing := [name for name in ("ray", "pandas", "pyarrow") if find_spec(name) is None]:
        raise ConfigError(f"this needs {', '.join(missing)}, not installed here: pip install 'collagan_dist[sweep]'")
    from ray import tune

    try:
        wanted = TrialResources(**resources)
    except TypeError:
        raise ConfigError(f"{', '.join(resources)}: give workers, cpus, gpus or spread") from None
    source = config if isinstance(config, Config) else str(config)
    base = load_config(source, model, assignments(settings), None if data is None else str(data))
    if base.data.shards is None:
        raise ConfigError(
            "data.shards is not set: give data, a folder made by `collagan pack` or `collagan adopt`, or its URL"
        )
    base = load_config(base, sets=assignments(worker_settings(base, wanted.cpus)))
    folder = Path.cwd()
    trial_config(base, {}, folder)  # what is wrong for all trials
    runs = None if out is None else Path(out).absolute()

    def collagan(values: dict[str, Any]) -> None:
        run_trial(trial_config(base, values, folder), runs)

    return tune.with_resources(collagan, partial(_placement, base, wanted, folder))


def _placement(base: Config, wanted: TrialResources, folder: Path, values: dict[str, Any]) -> Any:
    """Return what Tune reserves for a trial with these values. Raises ConfigError where no configuration has them."""
    import ray

    # Tune asks the driver for it, before the trial exists: an error ends `fit` instead of one trial after the other.
    trial_config(base, values, folder)
    nodes = _nodes(ray.get_runtime_context().gcs_address) if wanted.gpus is None else ()
    return wanted.resolved(nodes).placement()


@cache
def _nodes(gcs_address: str) -> Sequence[Mapping[str, float]]:
    """Return the resources of the connected cluster's nodes, and of those that it may start; asked once for all trials."""
    import ray

    growth = read_growth(ray)
    return [node.resources for node in living_nodes(ray)] + ([] if growth is None else growth.resources)


def trial_config(base: Config, values: Mapping[str, Any], folder: Path) -> Config:
    """Return the configuration of a trial, which evaluates at each checkpoint where it says nothing else.

    Relative paths among the values are seen from a folder. Raises ConfigError.
    """
    try:
        found = load_config(base, sets=assignments(values))
        found = load_config(found, sets=assignments(absolute_paths(found, folder)))
    except ConfigError as error:
        raise ConfigError(f"param_space: {error}") from None
    if found.checkpoint.copy_to is not None:  # a trial is set back to what Tune gives, which copies would undo
        raise ConfigError(
            "checkpoint.copy_to: Tune copies a trial's checkpoints; leave it null, and give a storage_path"
        )
    return found if found.evaluate.every else load_config(found, sets=[f"evaluate.every={found.checkpoint.every}"])


def run_trial(config: Config, out: Path | None) -> None:
    """Train the trial that this process runs for Tune, to its end or until Tune stops it."""
    from ray import tune

    # For a stopped trial to leave its process, which Tune then gives to another one. Its two seconds are short on a busy machine.
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "60")
    context = tune.get_context()
    trial, bundles = context.get_trial_id(), context.get_trial_resources().bundles
    run = out / trial if out else _run_folder(context.get_storage())
    run.mkdir(parents=True, exist_ok=True)
    changed = False
    if (given := tune.get_checkpoint()) is not None:
        with given.as_directory() as folder:
            changed = check_continues(config, Path(folder))
            continue_from(run, Path(folder))
    else:
        continue_from(run, None)
    spec = SegmentSpec(
        name=f"{context.get_experiment_name()}/{trial}", run=str(run), config=config_to_dict(config), stop_at_step=None,
        workers=len(bundles), gpus=bool(bundles[0].get("GPU")), allow_change=changed, stop=str(run / ".stop"),
    )  # fmt: skip
    report = TuneReport(run, config.schedule.batch)
    try:
        train_on_ranks(spec, report)
    except Interrupted:
        if not report.stopped:
            raise
    finally:
        free_memory()
    if report.stopped:
        # As Tune's own `report` does: a function that returned would report once more, and wait for an answer for ever.
        raise SystemExit(0)


def _run_folder(storage: Any) -> Path:
    """Return the run folder of this trial: on Tune's storage where that is a file system, else on this node alone."""
    from pyarrow.fs import LocalFileSystem

    on_disk = isinstance(storage.storage_filesystem, LocalFileSystem)
    return Path(storage.trial_fs_path if on_disk else storage.trial_working_directory) / _RUN_FOLDER


class TuneReport:
    """Reports an evaluation and its checkpoint to Tune, and waits for the answer; `stopped` once that was to stop."""

    def __init__(self, run: Path, batch: int) -> None:
        self.run, self.batch, self.stopped = run, batch, False

    def __call__(self, step: int, metrics: dict[str, Any]) -> bool:
        from ray import tune

        # NaN too: without the metric by which it compares, Tune would end all trials.
        values = {name: float("nan" if one is None else one) for name, one in searched_metrics(metrics).items()}
        model = checkpoint_of_tune(self.run, step)
        try:
            checkpoint = tune.Checkpoint.from_directory(model)
            tune.report({**values, "steps": step, "samples": step * self.batch}, checkpoint=checkpoint)
        except SystemExit:
            self.stopped = True
        finally:
            shutil.rmtree(model, ignore_errors=True)
        return not self.stopped


def checkpoint_of_tune(run: Path, step: int) -> Path:
    """Return a folder that Tune copies to its storage: a run folder with this one checkpoint, so that it is a model by itself."""
    paths, folder = RunPaths(run), run / ".tune"
    shutil.rmtree(folder, ignore_errors=True)
    target = RunPaths(folder).checkpoint(step)
    # Links: the only copy is Tune's own, which a node that is lost or another trial may need.
    shutil.copytree(paths.checkpoint(step), target, copy_function=link_or_copy)
    for path in (paths.config, paths.data):
        link_or_copy(str(path), str(folder / path.name))
    files.write_text(paths.reported, (target / MANIFEST_FILE).read_text())
    return folder


def check_continues(config: Config, model: Path) -> bool:
    """Return whether a trial's values are others than those of its checkpoint, as after PBT's exploit.

    Raises ConfigError where a value has changed that cannot change in training.
    """
    from collagan_dist.runs import checkpoint_state

    path = RunPaths(model).checkpoint(RunPaths(model).newest_step())
    try:
        state = checkpoint_state.read_state(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); restore it, or begin anew") from None
    now = identity_keys(config, state["manifest"], state["parser"], state["init"])
    changes = differences(checkpoint_state.stored_identity(state, str(path)), now)
    if wrong := [line for line in changes if not line.startswith(CHANGEABLE_KEYS)]:
        keys = " and ".join(f"{prefix}*" for prefix in CHANGEABLE_KEYS)
        raise ConfigError(f"{'; '.join(wrong)}: cannot change while a trial is trained, as PBT does; only {keys} can")
    return bool(changes)


def continue_from(run: Path, given: Path | None) -> None:
    """Let a run folder's newest checkpoint be the one that Tune gives, or a later one of the same training; None: of the beginning.

    A later one counts up to the next evaluation, which Tune has not heard of, or it would have given that one.
    """
    from collagan_dist.runs import checkpoint  # imports torch, which the driver does not need

    paths, step, manifest = RunPaths(run), 0, ""
    if given is not None:
        step = RunPaths(given).newest_step()
        manifest = (RunPaths(given).checkpoint(step) / MANIFEST_FILE).read_text()
    known = given is None or (paths.reported.is_file() and paths.reported.read_text() == manifest)
    unheard = min((row["step"] for row in read_eval_lines(run) if row["step"] > step), default=None)
    kept = [one for one in paths.steps_saved() if known and step <= one and (unheard is None or one < unheard)]
    # Before the other one comes: after a kill in between, Tune's is taken again.
    checkpoint.remove_others(paths.checkpoints, kept)
    if given is not None and not kept:
        adopt_checkpoint(run, given, step)
        files.write_text(paths.reported, manifest)
