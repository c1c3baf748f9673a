"""A data set becomes shards: the same bytes for any number of workers, and after any interruption.

Samples of a split are shuffled once by a fixed seed and cut into fixed lots of `samples_per_shard`; a lot becomes one
shard, less what is quarantined. Lots are independent, so they are built in parallel; each finished one leaves a note in
OUT/.parts, and the same command continues behind the notes. manifest.json comes last.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from collagan_dist import counter, files
from collagan_dist.contract import Sample
from collagan_dist.data import wire
from collagan_dist.data.manifest import Manifest, Shard, read_manifest, write_manifest
from collagan_dist.data.members import members
from collagan_dist.data.picture import Unusable
from collagan_dist.data.readers import READERS
from collagan_dist.data.recipe import Recipe
from collagan_dist.errors import DataError

SHUFFLE_SEED = 20191
MAX_BAD_COUNT = 10  # so many quarantined pictures are always accepted, beside the share `max_bad`


@dataclass(frozen=True)
class Lot:
    """The work of one shard. `plan` is a hash of all that determines its bytes but the pictures themselves."""

    folder: str
    name: str
    store: str
    store_size: int
    samples: tuple[Sample, ...]
    plan: str


@dataclass(frozen=True)
class Part:
    """A finished lot: its shard (of 0 samples when all were quarantined) and what was quarantined, as (key, reason)."""

    plan: str
    shard: Shard
    quarantine: tuple[tuple[str, str], ...]


def pack(
    recipe: Recipe,
    workers: int = 0,
    max_bad: float = 0.001,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Pack the recipe's data set, or what is left of it to pack. `progress` gets samples done and in all.

    Raises DataError when annotations are unsound, when OUT holds something else, or when more than `max_bad` of the
    pictures (and more than MAX_BAD_COUNT) are unusable; the shards are kept then, without a manifest.
    """
    out = Path(recipe.out)
    if (done := _already_packed(out, recipe)) is not None:
        return done
    lots = list(plan(recipe, READERS[recipe.dataset](recipe)))
    (out / ".parts").mkdir(parents=True, exist_ok=True)
    _sweep_out(out, lots)
    parts = _build_all(lots, workers or os.cpu_count() or 1, progress)
    return _finish(recipe, lots, parts, max_bad)


def plan(recipe: Recipe, samples: list[Sample]) -> Iterator[Lot]:
    """Lots in order of split and number."""
    _check_keys(samples)
    for split in recipe.splits:
        mine = sorted((s for s in samples if s.split == split), key=lambda s: s.key)
        order = np.argsort(counter.key64(SHUFFLE_SEED, split, np.arange(len(mine))), kind="stable")
        for number, start in enumerate(range(0, len(mine), recipe.samples_per_shard)):
            chosen = tuple(mine[i] for i in order[start : start + recipe.samples_per_shard])
            content = json.dumps([recipe.store, recipe.store_size, [asdict(s) for s in chosen]])
            yield Lot(
                recipe.out,
                f"{split}-{number:06d}.tar",
                recipe.store,
                recipe.store_size,
                chosen,
                hashlib.sha256(content.encode()).hexdigest(),
            )


def build(lot: Lot) -> Part:
    """Write one shard and its index, then the note that says so."""
    folder = Path(lot.folder)
    quarantine: list[tuple[str, str]] = []
    tar_path = folder / lot.name
    with files.atomic(tar_path) as file:
        shard_file = wire.ShardFile(file)
        for sample in lot.samples:
            try:
                shard_file.add(sample.key, members(sample, lot.store, lot.store_size))
            except Unusable as error:
                quarantine.append((sample.key, str(error)))
        shard_file.finish()
    index = shard_file.index()
    shard = Shard(
        lot.name,
        tar_path.stat().st_size,
        files.sha256(tar_path),
        hashlib.sha256(index).hexdigest(),
        len(shard_file.rows),
    )
    if shard.samples:
        files.write_bytes(folder / shard.index_name, index)
    else:
        tar_path.unlink()
    part = Part(lot.plan, shard, tuple(quarantine))
    files.write_json(
        _note(folder, lot.name), {"plan": part.plan, "shard": asdict(shard), "quarantine": part.quarantine}
    )
    return part


def _check_keys(samples: list[Sample]) -> None:
    seen: dict[str, str] = {}
    for sample in samples:
        if sample.key in seen:
            raise DataError(
                f"{sample.source} and {seen[sample.key]} would both be sample {sample.key!r}; rename one of them"
            )
        seen[sample.key] = sample.source


def _already_packed(out: Path, recipe: Recipe) -> Manifest | None:
    if not out.exists():
        return None
    if not out.is_dir():
        raise DataError(f"{out}: is a file, not a folder for shards; give another --out")
    if (out / "manifest.json").exists():
        manifest = read_manifest(out)
        if manifest.recipe == _lasting(recipe):
            return manifest
        raise DataError(f"{out}: holds shards of another recipe; give another --out, or remove that folder")
    if any(not p.name.startswith(".") for p in out.iterdir()) and not (out / ".parts").is_dir():
        raise DataError(f"{out}: is not empty and no folder of shards; give another --out")
    return None


def _lasting(recipe: Recipe) -> dict[str, Any]:
    """The recipe without the places of this machine, so that equal data sets have equal manifests."""
    return recipe.model_dump(mode="json", exclude={"root", "out"})


def _note(folder: Path, name: str) -> Path:
    return folder / ".parts" / f"{name.removesuffix('.tar')}.json"


def _finished(lot: Lot) -> Part | None:
    """The part of a lot that an earlier run finished and that still lies there whole."""
    folder = Path(lot.folder)
    try:
        data = json.loads(_note(folder, lot.name).read_bytes())
    except (OSError, ValueError):
        return None
    if data["quarantine"]:
        return None  # its pictures may have been mended since
    shard = Shard(**data["shard"])
    tar, index = folder / shard.name, folder / shard.index_name
    there = shard.samples == 0 or (
        tar.exists()
        and tar.stat().st_size == shard.bytes
        and index.exists()
        and files.sha256(index) == shard.idx_sha256
    )
    return Part(data["plan"], shard, ()) if there and data["plan"] == lot.plan else None


def _sweep_out(out: Path, lots: list[Lot]) -> None:
    """Remove what a killed run left under dotted names, and shards that are no part of this plan."""
    names = {lot.name.removesuffix(".tar") for lot in lots}
    for path in out.iterdir():
        stale = path.suffix in (".tar", ".idx") and path.stem not in names
        if path.is_file() and (path.name.endswith(".partial") or stale):
            path.unlink()


def _build_all(lots: list[Lot], workers: int, progress: Callable[[int, int], None]) -> list[Part]:
    parts: dict[str, Part] = {}
    total = sum(len(lot.samples) for lot in lots)
    done = 0

    def take(lot: Lot, part: Part) -> None:
        nonlocal done
        parts[lot.name] = part
        done += len(lot.samples)
        progress(done, total)

    missing = []
    for lot in lots:
        if (part := _finished(lot)) is not None:
            take(lot, part)
        else:
            missing.append(lot)
    with ProcessPoolExecutor(min(workers, max(1, len(missing))), initializer=_die_with_parent) as pool:
        futures = {pool.submit(build, lot): lot for lot in missing}
        try:
            for future in as_completed(futures):
                take(futures[future], future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)  # lots under way end well or clean up
            raise
    return [parts[lot.name] for lot in lots]


def _die_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever; Linux can end it instead."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


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
