"""The reproduction of the paper: train and evaluate its models, write tables, claims, figures and the report."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from collagan_dist import files, structured
from collagan_dist.config import strict_yaml
from collagan_dist.config.load import load_config, to_yaml
from collagan_dist.config.tree import Config
from collagan_dist.data.loading.order import check_batch
from collagan_dist.data.shards import remote
from collagan_dist.data.shards.manifest import Manifest, read_manifest
from collagan_dist.distributed.stop_request import signals_interrupt
from collagan_dist.errors import CheckpointError, ClusterError, CollaganError, ConfigError, DataError, Interrupted
from collagan_dist.reproduce import plan, run_status
from collagan_dist.reproduce.plan import PlannedRun, ReproduceOptions
from collagan_dist.reproduce.run_jobs import Outcome, RunJob, do_jobs
from collagan_dist.runs.own_folder import check_own_out, is_run
from collagan_dist.types import World

logger = logging.getLogger(__name__)


def prepare(options: ReproduceOptions) -> tuple[list[PlannedRun], Manifest]:
    """Return the plan and the data set. Raises an error for what is wrong with either, before anything is written."""
    plan.check_sets(options)
    # The manifest is read through the cache that the user asks for; other settings are for the runs.
    data_sets = [item for item in options.sets if strict_yaml.parse_assignment(item)[0][0] == "data"]
    config = load_config(options.config, sets=data_sets, shards=options.data)
    manifest = read_manifest(remote.open_location(options.data, config.data.cache))
    samples = manifest.samples(config.data.split) if config.data.split in manifest.splits else 0
    if not samples or not manifest.splits.get("test"):
        raise DataError(f"{options.data}: needs the splits {config.data.split!r} and 'test'; pack both")
    if config.model.name != "collagan":
        raise ConfigError(
            f"{options.config}: is a configuration of {config.model.name}; reproduce sets the peers up itself"
        )
    # Everything that can be wrong is found now, not after days of training the runs before it.
    runs = plan.make_plan(options, samples, manifest.samples("test"))
    if not runs:
        raise ConfigError("--tables and --figures: name at least one")
    for run in runs:
        check_batch(samples, run.config.schedule.batch, World(size=options.ranks or 1))
        run_status.check_same_training(run, manifest.hash)
    for item, names in plan.not_applied(options, runs).items():
        logger.info(f"--set {item}: not for {', '.join(names)} (another task's, or the published settings of a peer)")
    return runs, manifest


def reproduce(options: ReproduceOptions, stop: Any, ray: str | None = None) -> int:
    """Train and evaluate what is missing, write tables and figures of what there is, and return the exit code.

    The same call continues. Raises Interrupted.
    """
    with files.command_lock(options.out, "collagan reproduce") as lock:
        runs, manifest = prepare(options)
        # The trainings read their configuration from a file, so that a person can repeat one by hand.
        write_configs(runs)
        try:
            outcomes = _run_all(options, runs, manifest, stop, lock, ray)
        except Interrupted as error:
            raise Interrupted(f"{error}; {_continues(options)}") from None
        # Also when runs have failed: the tables show what there is.
        missing = _write_tables(options, runs, manifest)
        outcomes += _draw_figures(options, runs, stop)
        _write_report(options)
    failed = [outcome for outcome in outcomes if outcome.reason is not None]
    for outcome in failed:
        logger.error(f"collagan reproduce: {outcome.name} failed: {outcome.reason}")
    if missing:
        logger.error(f"collagan reproduce: {missing} numbers of the tables are missing; the same command continues")
    # The first failure is the likely cause of the others.
    return failed[0].code if failed else ClusterError.exit_code if missing else 0


def check_out(out: Path) -> None:
    """Raise ConfigError where a folder holds something that is no reproduction."""
    check_own_out(out, _is_own, "reproduction")


class _Claims(structured.Record):
    claims: list[Any]


def _is_own(out: Path) -> bool:
    # Its results, a run of it, or only the configurations of its runs.
    return (
        structured.find(out / "claims.json", _Claims) is not None
        or any(map(is_run, out.glob("runs/*")))
        or any(map(_is_configuration, out.glob("configs/*.yaml")))
    )


def _is_configuration(path: Path) -> bool:
    try:
        load_config(str(path))
    except CollaganError:
        return False
    return True


def write_configs(runs: list[PlannedRun]) -> None:
    for run in runs:
        run.config_file.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(run.config_file, to_yaml(run.config))


def default_ranks() -> int:
    """Return the number of processes of a training: one a GPU of this machine, else one."""
    import torch

    return max(1, torch.cuda.device_count())


def _run_all(
    options: ReproduceOptions, runs: list[PlannedRun], manifest: Manifest, stop: Any, lock: int, ray: str | None
) -> list[Outcome]:
    """Do the runs that are not done, here or on a Ray cluster."""
    missing = []
    for run in runs:
        if run_status.is_trained(run) and not run_status.not_evaluated(run, manifest.hash):
            logger.info(f"{run.name}: done already")
        else:
            missing.append(run)
    if ray is not None:
        return _run_on_ray(options, missing, manifest, ray)
    ranks = options.ranks or default_ranks()
    outcomes: list[Outcome] = []
    for chain in plan.chains(missing):
        for run in chain:
            left = f"{run.steps - run_status.steps_done(run)} of {run.steps} steps to go"
            logger.info(f"{run.name}: {left}, on {ranks} process(es); log: {run.log}")
        outcomes += do_jobs([RunJob(run, options.data, manifest.hash, ranks, lock) for run in chain], stop, logger.info)
        if stop:
            raise Interrupted("stopped")
    return outcomes


def _run_on_ray(
    options: ReproduceOptions, missing: list[PlannedRun], manifest: Manifest, address: str
) -> list[Outcome]:
    """Do chains of runs as tasks of a Ray cluster, each on one GPU if the cluster has any."""
    from collagan_dist.sweep.ray_cluster import ray_map

    # Ray's workers start in folders of their own, so paths must be absolute.
    data = options.data if "://" in options.data else str(Path(options.data).absolute())
    chains = [
        [RunJob(replace(run, out=run.out.absolute()), data, manifest.hash, options.ranks or 1) for run in chain]
        for chain in plan.chains(missing)
    ]
    # All others are evaluated in its features.
    first = [chain for chain in chains if chain[0].run.base == plan.FEATURES]
    outcomes: list[Outcome] = []
    with signals_interrupt():  # what runs on the cluster saves by itself
        for group in filter(None, (first, [chain for chain in chains if chain not in first])):
            # Its chains have nothing in common, so they run at the same time, in any order.
            for jobs, done in ray_map(address, do_jobs, group, gpus=options.ranks or 1):
                names = ", ".join(job.run.name for job in jobs)
                logger.info(f"{names}: {'failed' if any(one.reason for one in done) else 'done'}")
                outcomes += done
    return outcomes


def describe(options: ReproduceOptions, runs: list[PlannedRun], manifest: Manifest) -> str:
    """Return what was trained and on what it was evaluated, so that a rehearsal is recognized as one."""
    config, test = runs[0].config, manifest.samples("test")
    steps = " or ".join(f"{n:,}" for n in sorted({run.steps for run in runs}))
    scored = f"{min(config.evaluate.samples or test, test):,}"
    return (
        f"{Path(options.config).stem} at scale {options.scale:g}: {steps} steps of {config.schedule.batch}, "
        f"{config.data.image_size}x{config.data.image_size} pixels, "
        f"trained on {manifest.samples(config.data.split):,} and scored on {scored} samples "
        f"of {Path(options.data).name} ({manifest.dataset}). {_describe_views(config)}{_describe_features(runs)}"
        "The paper trains 20 epochs of 162,770 pictures of 128x128."
    )


def _describe_views(config: Config) -> str:
    """Return whether the crop at test gives the landmarks away (docs/paper.md)."""
    augment = config.data.augment
    if not config.evaluate.augment:
        return "Test views are plain (evaluate.augment: false). "
    if not (augment.shift or augment.rotate or augment.scale):
        return "Test views are plain, since data.augment has no shift, rotation or scale for evaluate.augment to use. "
    return "Test views are shifted, turned and scaled by the law of training (evaluate.augment). "


def _describe_features(runs: list[PlannedRun]) -> str:
    """Return in which network's features perceptual and Fréchet distances are measured."""
    found = {Path(path).name for run in runs if (path := run.config.evaluate.features) is not None}
    return f"Perceptual and Fréchet distances are in the features of {', '.join(sorted(found))}. " if found else ""


def _write_tables(options: ReproduceOptions, runs: list[PlannedRun], manifest: Manifest) -> int:
    """Write tableN, controls and claims, .json and .md; return how many numbers wait for a run or an evaluation."""
    # scipy and numpy's archives are needed only here; `--dry-run` answers without them.
    from collagan_dist.reproduce import claims, tables
    from collagan_dist.reproduce.results import Results

    results, about = Results(runs, manifest.hash, options.reading), describe(options, runs, manifest)
    missing = 0
    for number in options.tables:
        table = {"about": about, **tables.make_table(number, results)}
        missing += tables.missing(number, results, plan.chosen_models(number, options.models))
        files.write_json(options.out / f"table{number}.json", table)
        files.write_text(options.out / f"table{number}.md", tables.table_markdown(number, table))
    controls = {"about": about, **tables.make_controls(options.tables, results, options.models)}
    files.write_json(options.out / "controls.json", controls)
    files.write_text(options.out / "controls.md", tables.controls_markdown(controls))
    found = claims.evaluate_claims(results, options.tables, options.models)
    note = f"{about} {claims.seeds_note(results, options.tables)}"
    files.write_json(options.out / "claims.json", {"note": note, **found})
    files.write_text(options.out / "claims.md", tables.claims_markdown(found, note))
    return missing


def _draw_figures(options: ReproduceOptions, runs: list[PlannedRun], stop: Any) -> list[Outcome]:
    from collagan_dist.reproduce.figures import draw_figure

    outcomes = []
    for number in options.figures:
        # Figures take a while: SII searches a noise vector for every picture.
        if stop:
            raise Interrupted(f"stopped; {_continues(options)}")
        reason = draw_figure(number, {run.name: run for run in runs}, options.data, options.out)
        if reason is not None:
            outcomes.append(Outcome(f"figure {number}", reason, CheckpointError.exit_code))
    return outcomes


def _write_report(options: ReproduceOptions) -> None:
    from collagan_dist.report.page import write_report

    write_report([options.out])


def _continues(options: ReproduceOptions) -> str:
    return f"what is done is kept in {options.out}, and the same command continues"
