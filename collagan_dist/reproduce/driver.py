"""The whole reproduction: runs, evaluations, tables, claims, figures, report. The same call continues."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collagan_dist import files
from collagan_dist.config import strict_yaml
from collagan_dist.config.load import load_config, to_yaml
from collagan_dist.data.loading.order import check_batch
from collagan_dist.data.shards import remote
from collagan_dist.data.shards.manifest import Manifest, read_manifest
from collagan_dist.errors import CheckpointError, ClusterError, ConfigError, DataError, Interrupted
from collagan_dist.reproduce import claims, plan, run_status, tables
from collagan_dist.reproduce.plan import PlannedRun, ReproduceOptions
from collagan_dist.reproduce.results import Results
from collagan_dist.reproduce.run_jobs import Job, Outcome, do_chain
from collagan_dist.types import World

logger = logging.getLogger(__name__)


def prepare(options: ReproduceOptions) -> tuple[list[PlannedRun], Manifest]:
    """The plan of a reproduction and its data set. Raises what is wrong with either, before anything is written."""
    plan.check(options)
    about_data = [item for item in options.sets if strict_yaml.parse_assignment(item)[0][0] == "data"]
    first = load_config(options.config, sets=about_data, shards=options.data)
    manifest = read_manifest(remote.open_location(options.data, first.data.cache))
    samples = manifest.samples(first.data.split) if first.data.split in manifest.splits else 0
    if not samples or not manifest.splits.get("test"):
        raise DataError(f"{options.data}: needs the splits {first.data.split!r} and 'test'; pack both")
    if first.model.name != "collagan":
        raise ConfigError(
            f"{options.config}: is a configuration of {first.model.name}; reproduce sets the peers up itself"
        )
    runs = plan.make_plan(options, samples)
    if not runs:
        raise ConfigError("--tables and --figures: name at least one")
    for run in runs:
        check_batch(samples, run.config.schedule.batch, World(size=options.ranks or 1))
    for run in runs:
        run_status.check(run, manifest.hash)
    for item, names in plan.not_applied(options, runs).items():
        logger.info(f"--set {item}: not for {', '.join(names)} (another task's, or the published settings of a peer)")
    return runs, manifest


def reproduce(options: ReproduceOptions, stop: Any, ray: str | None = None) -> int:
    """Train what is missing, score it, write tables and figures of what there is; the exit code. Raises Interrupted."""
    with files.command_lock(options.out, "collagan reproduce") as lock:
        runs, manifest = prepare(options)
        write_configs(runs)
        try:
            outcomes = _work(options, runs, manifest, stop, lock, ray)
        except Interrupted as error:
            raise Interrupted(
                f"{error}; what is done is kept in {options.out}, and the same command continues"
            ) from None
        failed = [one for one in outcomes if one.reason is not None]
        results = Results(runs, manifest.hash)
        missing = write_tables(options, results, about(options, runs, manifest))
        failed += _figures(options, runs, stop)
        _report(options)
    for one in failed:
        logger.error(f"collagan reproduce: {one.name} failed: {one.reason}")
    if missing:
        logger.error(f"collagan reproduce: {missing} numbers of the tables are missing; the same command continues")
    return failed[0].code if failed else ClusterError.exit_code if missing else 0


def write_configs(runs: list[PlannedRun]) -> None:
    for run in runs:
        run.config_file.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(run.config_file, to_yaml(run.config))


def is_done(run: PlannedRun, manifest: str) -> bool:
    return run_status.is_trained(run) and not run_status.unscored(run, manifest)


def default_ranks() -> int:
    """Processes of a training: one a GPU of this machine, else one."""
    import torch

    return max(1, torch.cuda.device_count())


def _work(
    options: ReproduceOptions, runs: list[PlannedRun], manifest: Manifest, stop: Any, lock: int, ray: str | None
) -> list[Outcome]:
    missing = [run for run in runs if not is_done(run, manifest.hash)]
    for run in runs:
        if run not in missing:
            logger.info(f"{run.name}: done already")
    if ray is not None:
        return _on_ray(options, missing, manifest, ray)
    ranks = options.ranks or default_ranks()
    outcomes: list[Outcome] = []
    chains = plan.chains(missing)
    for chain in chains:
        for run in chain:
            logger.info(
                f"{run.name}: {run.steps - run_status.steps_done(run)} of {run.steps} steps to go, on {ranks} process(es); log: {run.log}"
            )
        jobs = [Job(run, options.data, manifest.hash, ranks, lock) for run in chain]
        outcomes += do_chain(jobs, stop, logger.info)
        if stop:
            raise Interrupted("stopped")
    return outcomes


def _on_ray(options: ReproduceOptions, missing: list[PlannedRun], manifest: Manifest, address: str) -> list[Outcome]:
    """Chains of runs as tasks of a Ray cluster, each on one GPU where the cluster has any."""
    from collagan_dist.sweep.ray_cluster import ray_map

    items = [
        [Job(_absolute(run), _shared(options.data), manifest.hash, options.ranks or 1) for run in chain]
        for chain in plan.chains(missing)
    ]
    outcomes: list[Outcome] = []
    with _signals_interrupt():
        for jobs, done in ray_map(address, do_chain, items, gpus=options.ranks or 1):
            logger.info(
                f"{', '.join(job.run.name for job in jobs)}: {'done' if all(o.reason is None for o in done) else 'failed'}"
            )
            outcomes += done
    return outcomes


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Waiting for a cluster ends at once: what runs there saves by itself."""
    former = {s: signal.signal(s, signal.default_int_handler) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _absolute(run: PlannedRun) -> PlannedRun:
    from dataclasses import replace

    return replace(run, out=run.out.absolute())


def _shared(data: str) -> str:
    return data if "://" in data else str(Path(data).absolute())


def about(options: ReproduceOptions, runs: list[PlannedRun], manifest: Manifest) -> str:
    """What was trained and on what was scored: a rehearsal is to be seen as one."""
    config, test = runs[0].config, manifest.samples("test")
    steps = " or ".join(f"{n:,}" for n in sorted({run.steps for run in runs}))
    scored = f"{min(config.evaluate.samples or test, test):,}"
    return (
        f"{Path(options.config).stem} at scale {options.scale:g}: {steps} steps of {config.schedule.batch}, "
        f"{config.data.image_size}x{config.data.image_size} pixels, "
        f"trained on {manifest.samples(config.data.split):,} and scored on {scored} samples "
        f"of {Path(options.data).name} ({manifest.dataset}). The paper trains 20 epochs of 162,770 pictures of 128x128."
    )


def write_tables(options: ReproduceOptions, results: Results, about: str) -> int:
    """tableN.json, tableN.md, claims.json and claims.md of what is scored; how many numbers wait for a run or an evaluation."""
    missing = 0
    for number in options.tables:
        table = {"about": about, **tables.make_table(number, results)}
        missing += tables.missing(number, results)
        files.write_json(options.out / f"table{number}.json", table)
        files.write_text(options.out / f"table{number}.md", tables.markdown(number, table))
    found = claims.evaluate_claims(results, options.tables)
    note = f"{about} {claims.seeds_note(results, options.tables)}"
    files.write_json(options.out / "claims.json", {"note": note, "claims": found})
    files.write_text(options.out / "claims.md", tables.claims_markdown(found, note))
    return missing


def _figures(options: ReproduceOptions, runs: list[PlannedRun], stop: Any) -> list[Outcome]:
    from collagan_dist.reproduce.figures import draw_figure

    outcomes = []
    for number in options.figures:
        if stop:
            raise Interrupted(f"stopped; what is done is kept in {options.out}, and the same command continues")
        reason = draw_figure(number, {run.name: run for run in runs}, options.data, options.out)
        if reason is not None:
            outcomes.append(Outcome(f"figure {number}", reason, CheckpointError.exit_code))
    return outcomes


def _report(options: ReproduceOptions) -> None:
    from collagan_dist.report.page import write_report

    write_report([options.out])
