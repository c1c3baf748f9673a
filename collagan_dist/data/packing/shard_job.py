"""Build one shard: the unit of work of packing, in any process on any node, with the same bytes.

A built shard leaves a result file in OUT/.parts. Later runs of `collagan pack` trust a result if its plan and its files match.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from collagan_dist import __version__, files, rng, structured
from collagan_dist.data.packing.encode_sample import encode_sample
from collagan_dist.data.readers.picture import UnusablePicture
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.readers.samples import Samples
from collagan_dist.data.shards import wire_format
from collagan_dist.data.shards.manifest import Shard
from collagan_dist.errors import ClusterError, DataError
from collagan_dist.types import SPLITS

SHUFFLE_SEED = 20191  # fixed, so that equal data sets have equal shards
# Libraries whose versions may change bytes.
_LIBRARIES = ("numpy", "opencv-python-headless", "pillow", "simplejpeg", "webdataset")


@dataclass(frozen=True)
class ShardJob:
    """What to build one shard from: its samples in their order, how to store them, and the library versions to use.

    `plan` is a hash of everything that determines the shard's bytes except the pictures.
    """

    folder: str
    name: str
    store: str
    store_size: int
    samples: Samples
    versions: str
    plan: str

    @property
    def result_path(self) -> Path:
        return Path(self.folder, ".parts", self.name.removesuffix(".tar") + ".json")


class ShardResult(structured.Record):
    """A built shard (of 0 samples if all were quarantined) and its quarantine as (key, reason)."""

    plan: str
    shard: Shard
    quarantine: tuple[tuple[str, str], ...]


@cache
def library_versions() -> str:
    return ", ".join([f"collagan_dist {__version__}", *(f"{name} {version(name)}" for name in _LIBRARIES)])


def source_folders(recipe: Recipe) -> dict[str, str | None]:
    """Return where pictures and label maps are, whatever way a user spells that."""
    labels = os.path.realpath(Path(recipe.root, recipe.labels)) if recipe.labels else None
    return {"root": os.path.realpath(recipe.root), "labels": labels}


def plan_jobs(recipe: Recipe, samples: Samples) -> Iterator[ShardJob]:
    """Yield the jobs in order of split and shard number. Raises DataError if two samples have the same key."""
    # Sorted before the shuffle, so that the order in which a reader lists samples does not matter.
    by_key = _sorted_by_key(samples)
    for split in recipe.splits:
        rows = by_key[samples.splits[by_key] == SPLITS.index(split)]
        order = np.argsort(rng.key64(SHUFFLE_SEED, split, np.arange(len(rows))), kind="stable")
        for number, start in enumerate(range(0, len(rows), recipe.samples_per_shard)):
            chosen = samples.take(rows[order[start : start + recipe.samples_per_shard]])
            # Without OUT: bytes do not depend on where they are written.
            how = [library_versions(), recipe.store, recipe.store_size, source_folders(recipe)]
            content = json.dumps([*how, chosen.annotations()])
            plan = hashlib.sha256(content.encode()).hexdigest()
            name = f"{split}-{number:06d}.tar"
            yield ShardJob(recipe.out, name, recipe.store, recipe.store_size, chosen, library_versions(), plan)


def build_shard(job: ShardJob) -> ShardResult:
    """Write one shard, its index and its result file.

    Raises DataError, or ClusterError on a node with other library versions.
    """
    # A node of a cluster may have other libraries than the one that planned the jobs, and then other bytes.
    if job.versions != library_versions():
        raise ClusterError(
            f"node {socket.gethostname()} has {library_versions()}, this packing uses {job.versions}; install the same versions on all nodes"
        )
    quarantine: list[tuple[str, str]] = []
    tar_path = Path(job.folder, job.name)
    done = 0
    try:
        with files.atomic_write(tar_path) as file:
            writer = wire_format.ShardWriter(file)
            for sample in job.samples:
                done += 1
                try:
                    writer.add(sample.key, encode_sample(sample, job.store, job.store_size))
                except UnusablePicture as error:
                    quarantine.append((sample.key, str(error)))
            writer.finish()
    except files.DiskFull as error:
        needed = error.bytes_written * len(job.samples) // max(done, 1)
        raise DataError(f"{error}, the shard needs about {needed}; the same command then continues") from None
    index = writer.index()
    hashes = writer.sha256(), hashlib.sha256(index).hexdigest()
    shard = Shard(job.name, tar_path.stat().st_size, *hashes, len(writer.rows))
    # A shard without samples is left out of the data set; its result file still says that it is done.
    if shard.samples:
        files.write_bytes(tar_path.with_name(shard.index_name), index)
    else:
        tar_path.unlink()
    result = ShardResult(plan=job.plan, shard=shard, quarantine=tuple(quarantine))
    files.write_json(job.result_path, result.model_dump())
    return result


def load_finished(job: ShardJob) -> ShardResult | None:
    """Return the result of a job whose shard is built and complete; None if the shard must be built."""
    folder = Path(job.folder)
    result = structured.find(job.result_path, ShardResult)
    if result is None:
        return None
    tar, index = folder / result.shard.name, folder / result.shard.index_name
    # The tar by its size alone: a hash would read the data set again with every start; `collagan verify --deep` does.
    complete = result.shard.samples == 0 or (
        tar.exists()
        and tar.stat().st_size == result.shard.bytes
        and index.exists()
        and files.sha256(index) == result.shard.idx_sha256
    )
    return result if complete and result.plan == job.plan and not _quarantine_changed(job, result) else None


def _quarantine_changed(job: ShardJob, result: ShardResult) -> bool:
    """Return whether a picture that was quarantined has been replaced, or is unusable for another reason."""
    # Only these pictures are looked at again: all others are trusted, so that continuing is quick.
    reasons = dict(result.quarantine)
    for sample in job.samples:
        if sample.key in reasons:
            try:
                encode_sample(sample, job.store, job.store_size)
            except UnusablePicture as error:
                if str(error) == reasons[sample.key]:
                    continue
            return True
    return False


def _sorted_by_key(samples: Samples) -> np.ndarray:
    """Return the row numbers in order of the keys. Raises DataError if two samples have the same key."""
    order = np.argsort(samples.keys, kind="stable")
    keys = samples.keys[order]
    # Two samples of one key would be one sample to every reader of tars.
    for at in np.flatnonzero(keys[1:] == keys[:-1])[:1]:
        one, other = samples.sources[order[at : at + 2]]
        raise DataError(f"{other} and {one} would both be sample {keys[at]!r}; rename one of them")
    return order
