"""A data set becomes shards: the same bytes for any number of workers, nodes and parts, and after any interruption.

Samples of a split are shuffled once by a fixed seed and cut into fixed lots of `samples_per_shard`; a lot becomes one
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
from collagan_dist.data.packing.shard_job import Lot, Part, build, finished, plan
from collagan_dist.data.readers import READERS
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.shards.manifest import Manifest, Shard, read_manifest, write_manifest
from collagan_dist.errors import ClusterError, DataError

MAX_BAD_COUNT = 10  # so many quarantined pictures are always accepted, beside the share `max_bad`
_LOCK_WAIT = 5.0  # seconds: workers of a killed packing need a moment to die

Progress = Callable[[int, int], None]  # samples done, samples in all
Builder = Callable[[list[Lot]], Iterator[tuple[Lot, Part]]]  # builds lots somewhere, in any order


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
    with _at_work(recipe) as lots:
        if lots is None:
            return read_manifest(recipe.out)
        _sweep_out(Path(recipe.out), lots)
        parts = _build_missing(lots, builder or processes(workers), progress)
        return _finish(recipe, lots, parts, max_bad)


def pack_part(
    recipe: Recipe, index: int, count: int, workers: int = 0, progress: Progress = lambda done, total: None
) -> list[Part] | None:
    """Every `count`-th shard, from number `index` on, without a manifest; None when the data set is already whole.

    Parts may run at the same time, on any nodes that share OUT.
    """
    with _at_work(recipe, part=f"{index % count}-{count}") as lots:
        return _build_missing(lots[index % count :: count], processes(workers), progress) if lots is not None else None


def merge(recipe: Recipe, max_bad: float = 0.001) -> Manifest:
    """The manifest over what the parts have built. Raises DataError naming what is missing, as `pack` does otherwise."""
    with _at_work(recipe) as lots:
        if lots is None:
            return read_manifest(recipe.out)
        parts = [finished(lot) for lot in lots]
        missing = [lot.name for lot, part in zip(lots, parts, strict=True) if part is None]
        if missing:
            names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise DataError(
                f"{recipe.out}: {len(missing)} of {len(lots)} shards are missing or were made by another recipe or other library "
                f"versions ({names}); run their parts again, or `collagan pack` without --merge, which builds what is missing"
            )
        _sweep_out(Path(recipe.out), lots)
        return _finish(recipe, lots, [part for part in parts if part is not None], max_bad)


def processes(workers: int) -> Builder:
    """Builds lots in `workers` processes of this machine, 0 for one a core."""

    def builder(lots: list[Lot]) -> Iterator[tuple[Lot, Part]]:
        with ProcessPoolExecutor(
            min(workers or os.cpu_count() or 1, max(1, len(lots))), initializer=_die_with_parent
        ) as pool:
            futures = {pool.submit(build, lot): lot for lot in lots}
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
                pool.shutdown(cancel_futures=True)  # lots under way end well or clean up
                raise

    return builder


def _die_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever; Linux can end it instead."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _build_missing(lots: list[Lot], builder: Builder, progress: Progress) -> list[Part]:
    """The parts of all lots, in their order; only those that nobody finished are built."""
    parts = {lot.name: part for lot in lots if (part := finished(lot)) is not None}
    total = sum(len(lot.samples) for lot in lots)
    done = sum(len(lot.samples) for lot in lots if lot.name in parts)
    progress(done, total)
    for lot, part in builder([lot for lot in lots if lot.name not in parts]):
        parts[lot.name] = part
        done += len(lot.samples)
        progress(done, total)
    return [parts[lot.name] for lot in lots]


@contextmanager
def _at_work(recipe: Recipe, part: str = "") -> Iterator[list[Lot] | None]:
    """The lots of OUT, on which only one packing works at a time, or only one a part; None where OUT is finished.

    The locks end with their process, however it ends. What a packing left that was killed at its very end goes under them.
    """
    folder = Path(recipe.out, ".parts")
    if _is_packed(recipe) and not folder.exists():
        yield None
        return
    lots = list(plan(recipe, READERS[recipe.dataset](recipe)))
    held = [_lock(folder / "lock", fcntl.LOCK_SH if part else fcntl.LOCK_EX)]
    try:
        if part:
            held.append(_lock(folder / f"{part}.lock", fcntl.LOCK_EX))
        if Path(recipe.out, "manifest.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
        yield None if _is_packed(recipe) else lots
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


def _sweep_out(out: Path, lots: list[Lot]) -> None:
    """Remove what a killed run left under dotted names, and shards that are no part of this plan."""
    names = {lot.name.removesuffix(".tar") for lot in lots}
    for path in out.iterdir():
        stale = path.suffix in (".tar", ".idx") and path.stem not in names
        if path.is_file() and (path.name.endswith(".partial") or stale):
            path.unlink()


def _finish(recipe: Recipe, lots: list[Lot], parts: list[Part], max_bad: float) -> Manifest:
    out = Path(recipe.out)
    quarantine = [entry for part in parts for entry in part.quarantine]
    lines = [json.dumps({"key": key, "reason": reason}) for key, reason in sorted(quarantine)]
    files.write_text(out / "quarantine.jsonl", "".join(f"{line}\n" for line in lines))
    total = sum(len(lot.samples) for lot in lots)
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
