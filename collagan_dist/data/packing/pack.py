"""Pack a data set into shards, in parallel, in parts, and after interruptions, always with the same bytes.

Samples of a split are shuffled once by a fixed seed and cut into groups of `samples_per_shard`; each group becomes one
shard, without what is quarantined. Shards are independent jobs for processes of this machine, tasks of a Ray cluster,
or the jobs of a Slurm array (`pack_part`, then `merge`). The same command continues after an interruption.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from collagan_dist import files, structured
from collagan_dist.data.packing.shard_job import (
    ShardJob,
    ShardResult,
    build_shard,
    load_finished,
    plan_jobs,
    source_folders,
)
from collagan_dist.data.readers.picture import MAX_BAD, check_bad_count
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.readers.registry import READERS
from collagan_dist.data.readers.samples import Samples, join_samples
from collagan_dist.data.shards.manifest import Manifest, Shard, read_manifest, write_manifest
from collagan_dist.errors import ClusterError, ConfigError, DataError
from collagan_dist.types import SPLITS

_SOURCE_FILE = ".source.json"  # of OUT: where it was packed from, and a hash of its samples
_SHARD = re.compile(rf"(?:{'|'.join(SPLITS)})-\d+\.(?:tar|idx)")
# What is being written, as .train-000000.tar.0123abcd.partial
_PARTIAL = re.compile(rf"\.(?:{_SHARD.pattern}|manifest\.json|quarantine\.jsonl|\.source\.json)\.\w+\.partial")
_LOCK_SECONDS = 5.0  # to wait for a lock: workers of a killed `collagan pack` need a moment to end

Job = TypeVar("Job")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]  # samples done, samples in total
# Runs jobs somewhere and yields them in any order.
Builder = Callable[[list[ShardJob]], Iterator[tuple[ShardJob, ShardResult]]]


def pack(
    recipe: Recipe,
    workers: int = 0,
    max_bad: float = MAX_BAD,
    progress: Progress = lambda done, total: None,
    builder: Builder | None = None,
) -> Manifest:
    """Build the shards of a data set that are missing, with `builder` or processes of this machine, and the manifest.

    Raises DataError for wrong annotations, for an OUT that holds something else, or if more than `max_bad` of the
    pictures (and more than MAX_BAD_COUNT) are unusable. Built shards stay, so the same command continues.
    """
    with _locked_jobs(recipe) as jobs:
        if jobs is None:
            return read_manifest(recipe.out)
        _remove_stale(Path(recipe.out), jobs)
        results = _build_missing(jobs, builder or processes(workers, build_shard), progress)
        return _finish(recipe, jobs, results, max_bad)


def pack_part(
    recipe: Recipe, index: int, count: int, workers: int = 0, progress: Progress = lambda done, total: None
) -> list[ShardResult] | None:
    """Build every `count`-th shard from number `index` on, without a manifest; None if the data set is complete.

    Parts may run at the same time, on any nodes that share OUT.
    """
    with _locked_jobs(recipe, part=f"{index % count}-{count}") as jobs:
        return (
            _build_missing(jobs[index % count :: count], processes(workers, build_shard), progress)
            if jobs is not None
            else None
        )


def merge(recipe: Recipe, max_bad: float = MAX_BAD) -> Manifest:
    """Write the manifest of what the parts have built. Raises DataError naming missing shards, and as `pack` does."""
    with _locked_jobs(recipe) as jobs:
        if jobs is None:
            return read_manifest(recipe.out)
        results = [load_finished(job) for job in jobs]
        missing = [job.name for job, result in zip(jobs, results, strict=True) if result is None]
        if missing:
            names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise DataError(
                f"{recipe.out}: {len(missing)} of {len(jobs)} shards are missing or were made by another recipe or other library "
                f"versions ({names}); run their parts again, or `collagan pack` without --merge, which builds what is missing"
            )
        _remove_stale(Path(recipe.out), jobs)
        return _finish(recipe, jobs, [result for result in results if result is not None], max_bad)


def processes(workers: int, build: Callable[[Job], Result]) -> Callable[[list[Job]], Iterator[tuple[Job, Result]]]:
    """Return a builder with `workers` processes of this machine, 0 for one per core."""

    def build_all(jobs: list[Job]) -> Iterator[tuple[Job, Result]]:
        count = min(workers or os.cpu_count() or 1, max(1, len(jobs)))
        with ProcessPoolExecutor(count, initializer=_die_with_parent) as pool:
            # Workers are forks. What they inherit they must not finalize: a pipeline of DALI would wait for threads that a fork lacks.
            gc.freeze()
            try:
                futures = {pool.submit(build, job): job for job in jobs}
            finally:
                gc.unfreeze()
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except KeyboardInterrupt:
                for process in list((pool._processes or {}).values()):
                    process.kill()  # partial files have dotted names, and the next start removes them
                raise
            except BrokenProcessPool:
                raise ClusterError(
                    "a worker process was killed by the system (out of memory?); the same command continues, with fewer --workers if need be"
                ) from None
            except BaseException:
                pool.shutdown(cancel_futures=True)  # running jobs end, or remove their partial files
                raise

    return build_all


def _die_with_parent() -> None:
    # A worker whose parent was killed would wait for work for ever; Linux can end it instead. Ctrl-C is the parent's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _build_missing(jobs: list[ShardJob], builder: Builder, progress: Progress) -> list[ShardResult]:
    """Return the results of all jobs in their order, after building those that have none."""
    # In order of the jobs, not of completion: the manifest must not depend on which worker was faster.
    results = {job.name: result for job in jobs if (result := load_finished(job)) is not None}
    total = sum(len(job.samples) for job in jobs)
    done = sum(len(job.samples) for job in jobs if job.name in results)
    progress(done, total)
    for job, result in builder([job for job in jobs if job.name not in results]):
        results[job.name] = result
        done += len(job.samples)
        progress(done, total)
    return [results[job.name] for job in jobs]


@contextmanager
def _locked_jobs(recipe: Recipe, part: str = "") -> Iterator[list[ShardJob] | None]:
    """Yield the jobs of OUT under a lock, None if OUT is complete.

    The lock admits one process, or with `part` one process per part. It ends with its process, however that ends.
    """
    folder = Path(recipe.out, ".parts")
    if _is_packed(recipe) and not folder.exists():
        _check_source(recipe)
        yield None
        return
    jobs = list(plan_jobs(recipe, READERS[recipe.dataset](recipe)))
    held = [_lock(folder / "lock", fcntl.LOCK_SH if part else fcntl.LOCK_EX)]
    try:
        if part:
            held.append(_lock(folder / f"{part}.lock", fcntl.LOCK_EX))
        # Left over from a process that was killed between writing the manifest and removing .parts.
        if Path(recipe.out, "manifest.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
        yield None if _is_packed(recipe) else jobs
    finally:
        for handle in held:
            os.close(handle)


def _lock(path: Path, kind: int) -> int:
    last = time.monotonic() + _LOCK_SECONDS
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # removed meanwhile by a process that completed the data set
            handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
            if files.try_lock(handle, kind) and os.fstat(handle).st_nlink:
                return handle
            os.close(handle)
        if time.monotonic() > last:
            raise DataError(
                f"{path.parent.parent}: another `collagan pack` is at work there; wait for its end, or give another --out"
            )
        time.sleep(0.05)


def _is_packed(recipe: Recipe) -> bool:
    """Return whether OUT is complete. Raises DataError if it holds something else."""
    out = Path(recipe.out)
    if not out.exists():
        return False
    if not out.is_dir():
        raise DataError(f"{out}: is a file, not a folder for shards; give another --out")
    if (out / "manifest.json").exists():
        if read_manifest(out).recipe == _portable_recipe(recipe):
            return True
        raise DataError(f"{out}: holds shards of another recipe; give another --out, or remove that folder")
    if any(not p.name.startswith(".") for p in out.iterdir()) and not (out / ".parts").is_dir():
        raise DataError(f"{out}: is not empty and no folder of shards; give another --out")
    return False


def _portable_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe for the manifest, without paths of this machine."""
    # So that equal data sets have equal manifests wherever they are packed.
    portable = recipe.model_dump(mode="json", exclude={"root", "out"})
    for key in ("labels", "landmarks"):
        if portable[key] is not None and Path(portable[key]).is_absolute():
            portable[key] = Path(portable[key]).name
    # Manifests of programs that did not know the key stay equal.
    if portable["split_by"] == "auto":
        del portable["split_by"]
    return portable


class _Source(structured.Record):
    root: str
    labels: str | None = None
    digest: str


def _check_source(recipe: Recipe) -> None:
    """Raise ConfigError if OUT was packed from other samples than the recipe names now: from another root, or other annotations."""
    path = Path(recipe.out, _SOURCE_FILE)
    found = structured.find(path, _Source)
    if found is None:  # packed by an older program, or copied without dotted files
        return
    now = structured.validate(_describe_source(recipe, READERS[recipe.dataset](recipe)), _Source, str(path))
    if found != now:
        what = f"{found.root}, not {now.root}" if found.root != now.root else "other annotations or pictures than now"
        raise ConfigError(
            f"{recipe.out}: is packed already, from {what}; give another --out, or remove that folder to pack again"
        )


def _describe_source(recipe: Recipe, samples: Samples) -> dict[str, str | None]:
    return {**source_folders(recipe), "digest": samples.digest()}


def _remove_stale(out: Path, jobs: list[ShardJob]) -> None:
    """Remove partial files of a killed process, and shards that are not part of this plan; files of others stay."""
    names = {job.name.removesuffix(".tar") for job in jobs}
    for path in out.iterdir():
        if _PARTIAL.fullmatch(path.name) or (_SHARD.fullmatch(path.name) and path.stem not in names):
            path.unlink()


def _finish(recipe: Recipe, jobs: list[ShardJob], results: list[ShardResult], max_bad: float) -> Manifest:
    out = Path(recipe.out)
    quarantine = [entry for result in results for entry in result.quarantine]
    lines = [json.dumps({"key": key, "reason": reason}) for key, reason in sorted(quarantine)]
    files.write_text(out / "quarantine.jsonl", "".join(f"{line}\n" for line in lines))
    total = sum(len(job.samples) for job in jobs)
    check_bad_count(len(quarantine), total, max_bad, f"see {out / 'quarantine.jsonl'}")
    splits: dict[str, tuple[Shard, ...]] = {
        split: tuple(r.shard for r in results if r.shard.name.startswith(f"{split}-") and r.shard.samples)
        for split in recipe.splits
    }
    if not any(splits.values()):
        raise DataError(f"{recipe.root}: not one usable picture; see {out / 'quarantine.jsonl'}")
    files.write_json(out / _SOURCE_FILE, _describe_source(recipe, join_samples([job.samples for job in jobs])))
    # Last: the manifest makes OUT a complete data set.
    write_manifest(Manifest(out, recipe.dataset, _portable_recipe(recipe), splits, len(quarantine)))
    shutil.rmtree(out / ".parts")
    return read_manifest(out)
