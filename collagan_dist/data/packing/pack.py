"""A data set becomes shards: the same bytes for any number of workers, nodes and parts, and after any interruption.

Samples of a split are shuffled once by a fixed seed and cut into fixed jobs of `samples_per_shard`; a job becomes one
shard, less what is quarantined. Lots are independent: processes of this machine build them, tasks of a Ray cluster, or
the jobs of an array (`pack_part`, then `merge`). The same command continues behind what is finished. manifest.json
comes last.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from collagan_dist import files
from collagan_dist.data.packing.shard_job import ShardJob, ShardResult, build_shard, load_finished, plan_jobs
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.readers.registry import READERS
from collagan_dist.data.shards.manifest import Manifest, Shard, read_manifest, write_manifest
from collagan_dist.errors import ClusterError, DataError

MAX_BAD_COUNT = 10  # so many quarantined pictures are always accepted, beside the share `max_bad`
_LOCK_WAIT = 5.0  # seconds: workers of a killed packing need a moment to die

Progress = Callable[[int, int], None]  # samples done, samples in all
Builder = Callable[[list[ShardJob]], Iterator[tuple[ShardJob, ShardResult]]]  # builds jobs somewhere, in any order


def pack(
    recipe: Recipe,
    workers: int = 0,
    max_bad: float = 0.001,
    progress: Progress = lambda done, total: None,
    builder: Builder | None = None,
) -> Manifest:
    """Pack the recipe's data set, or what is left of it to pack, with processes of this machine or by `builder`.

    Raises DataError when annotations are unsound, when OUT holds something else, or when more than `max_bad` of the
    pictures (and more than MAX_BAD_COUNT) are unusable; the shards are kept then, without a manifest.
    """
    with _at_work(recipe) as jobs:
        if jobs is None:
            return read_manifest(recipe.out)
        _sweep_out(Path(recipe.out), jobs)
        parts = _build_missing(jobs, builder or processes(workers), progress)
        return _finish(recipe, jobs, parts, max_bad)


def pack_part(
    recipe: Recipe, index: int, count: int, workers: int = 0, progress: Progress = lambda done, total: None
) -> list[ShardResult] | None:
    """Every `count`-th shard, from number `index` on, without a manifest; None when the data set is already whole.

    Parts may run at the same time, on any nodes that share OUT.
    """
    with _at_work(recipe, part=f"{index % count}-{count}") as jobs:
        return _build_missing(jobs[index % count :: count], processes(workers), progress) if jobs is not None else None


def merge(recipe: Recipe, max_bad: float = 0.001) -> Manifest:
    """The manifest over what the parts have built. Raises DataError naming what is missing, as `pack` does otherwise."""
    with _at_work(recipe) as jobs:
        if jobs is None:
            return read_manifest(recipe.out)
        parts = [load_finished(job) for job in jobs]
        missing = [job.name for job, part in zip(jobs, parts, strict=True) if part is None]
        if missing:
            names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise DataError(
                f"{recipe.out}: {len(missing)} of {len(jobs)} shards are missing or were made by another recipe or other library "
                f"versions ({names}); run their parts again, or `collagan pack` without --merge, which builds what is missing"
            )
        _sweep_out(Path(recipe.out), jobs)
        return _finish(recipe, jobs, [part for part in parts if part is not None], max_bad)


def processes(workers: int) -> Builder:
    """Builds jobs in `workers` processes of this machine, 0 for one a core."""

    def builder(jobs: list[ShardJob]) -> Iterator[tuple[ShardJob, ShardResult]]:
        with ProcessPoolExecutor(
            min(workers or os.cpu_count() or 1, max(1, len(jobs))), initializer=_die_with_parent
        ) as pool:
            futures = {pool.submit(build_shard, job): job for job in jobs}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except KeyboardInterrupt:
                for process in list((pool._processes or {}).values()):
                    process.kill()  # what is half-written has a dotted name, and is swept by the next start
                raise
            except BrokenProcessPool:
                raise ClusterError(
                    "a worker process was killed from outside (out of memory?); the same command continues, with fewer --workers if need be"
                ) from None
            except BaseException:
                pool.shutdown(cancel_futures=True)  # jobs under way end well or clean up
                raise

    return builder


def _die_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever; Linux can end it instead."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _build_missing(jobs: list[ShardJob], builder: Builder, progress: Progress) -> list[ShardResult]:
    """The parts of all jobs, in their order; only those that nobody finished are built."""
    parts = {job.name: part for job in jobs if (part := load_finished(job)) is not None}
    total = sum(len(job.samples) for job in jobs)
    done = sum(len(job.samples) for job in jobs if job.name in parts)
    progress(done, total)
    for job, part in builder([job for job in jobs if job.name not in parts]):
        parts[job.name] = part
        done += len(job.samples)
        progress(done, total)
    return [parts[job.name] for job in jobs]


@contextmanager
def _at_work(recipe: Recipe, part: str = "") -> Iterator[list[ShardJob] | None]:
    """The jobs of OUT, on which only one packing works at a time, or only one a part; None where OUT is finished.

    The locks end with their process, however it ends. What a packing left that was killed at its very end goes under them.
    """
    folder = Path(recipe.out, ".parts")
    if _is_packed(recipe) and not folder.exists():
        yield None
        return
    jobs = list(plan_jobs(recipe, READERS[recipe.dataset](recipe)))
    held = [_lock(folder / "lock", fcntl.LOCK_SH if part else fcntl.LOCK_EX)]
    try:
        if part:
            held.append(_lock(folder / f"{part}.lock", fcntl.LOCK_EX))
        if Path(recipe.out, "manifest.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
        yield None if _is_packed(recipe) else jobs
    finally:
        for handle in held:
            os.close(handle)


def _lock(path: Path, kind: int) -> int:
    last = time.monotonic() + _LOCK_WAIT
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # removed meanwhile by a packing that finished
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
    """Whether OUT is finished. Raises DataError when it holds something else."""
    out = Path(recipe.out)
    if not out.exists():
        return False
    if not out.is_dir():
        raise DataError(f"{out}: is a file, not a folder for shards; give another --out")
    if (out / "manifest.json").exists():
        if read_manifest(out).recipe == _lasting(recipe):
            return True
        raise DataError(f"{out}: holds shards of another recipe; give another --out, or remove that folder")
    if any(not p.name.startswith(".") for p in out.iterdir()) and not (out / ".parts").is_dir():
        raise DataError(f"{out}: is not empty and no folder of shards; give another --out")
    return False


def _lasting(recipe: Recipe) -> dict[str, Any]:
    """The recipe without the places of this machine, so that equal data sets have equal manifests."""
    lasting = recipe.model_dump(mode="json", exclude={"root", "out"})
    for key in ("labels", "landmarks"):
        if lasting[key] is not None and Path(lasting[key]).is_absolute():
            lasting[key] = Path(lasting[key]).name
    return lasting


def _sweep_out(out: Path, jobs: list[ShardJob]) -> None:
    """Remove what a killed run left under dotted names, and shards that are no part of this plan."""
    names = {job.name.removesuffix(".tar") for job in jobs}
    for path in out.iterdir():
        stale = path.suffix in (".tar", ".idx") and path.stem not in names
        if path.is_file() and (path.name.endswith(".partial") or stale):
            path.unlink()


def _finish(recipe: Recipe, jobs: list[ShardJob], parts: list[ShardResult], max_bad: float) -> Manifest:
    out = Path(recipe.out)
    quarantine = [entry for part in parts for entry in part.quarantine]
    lines = [json.dumps({"key": key, "reason": reason}) for key, reason in sorted(quarantine)]
    files.write_text(out / "quarantine.jsonl", "".join(f"{line}\n" for line in lines))
    total = sum(len(job.samples) for job in jobs)
    if len(quarantine) > max(MAX_BAD_COUNT, max_bad * total):
        raise DataError(
            f"{len(quarantine)} of {total} pictures are unusable, more than --max-bad {max_bad:g} allows; "
            f"see {out / 'quarantine.jsonl'}, mend them or raise --max-bad, and run the same command"
        )
    splits: dict[str, tuple[Shard, ...]] = {
        split: tuple(p.shard for p in parts if p.shard.name.startswith(f"{split}-") and p.shard.samples)
        for split in recipe.splits
    }
    if not any(splits.values()):
        raise DataError(f"{recipe.root}: not one usable picture; see {out / 'quarantine.jsonl'}")
    write_manifest(Manifest(out, recipe.dataset, _lasting(recipe), splits, len(quarantine)))
    shutil.rmtree(out / ".parts")
    return read_manifest(out)
