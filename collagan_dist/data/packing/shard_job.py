"""A job is the work of one shard: fixed samples in fixed order, so its bytes do not depend on who builds it, where or when.

A finished job leaves a note in OUT/.parts: what its shard holds and what was quarantined. Whoever continues or merges
believes the notes whose plan is theirs and whose files still lie there whole.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from collagan_dist import __version__, files, rng
from collagan_dist.data.packing.encode_sample import encode_sample
from collagan_dist.data.readers.picture import UnusablePicture
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.shards import wire_format
from collagan_dist.data.shards.manifest import Shard
from collagan_dist.errors import ClusterError, DataError
from collagan_dist.types import Sample

SHUFFLE_SEED = 20191
_TOOLS = ("numpy", "opencv-python-headless", "pillow", "simplejpeg", "webdataset")  # whose versions may change bytes


@dataclass(frozen=True)
class ShardJob:
    """The work of one shard. `plan` is a hash of all that determines its bytes but the pictures themselves.

    `tools` are the versions of the libraries behind those bytes: a node with others must not build it.
    """

    folder: str
    name: str
    store: str
    store_size: int
    samples: tuple[Sample, ...]
    tools: str
    plan: str

    @property
    def note(self) -> Path:
        return Path(self.folder, ".parts", self.name.removesuffix(".tar") + ".json")


@dataclass(frozen=True)
class ShardResult:
    """A finished job: its shard (of 0 samples when all were quarantined) and what was quarantined, as (key, reason)."""

    plan: str
    shard: Shard
    quarantine: tuple[tuple[str, str], ...]


@cache
def library_versions() -> str:
    return ", ".join([f"collagan_dist {__version__}", *(f"{name} {version(name)}" for name in _TOOLS)])


def plan_jobs(recipe: Recipe, samples: list[Sample]) -> Iterator[ShardJob]:
    """Lots in order of split and number. Raises DataError when two samples would have one key."""
    _check_keys(samples)
    for split in recipe.splits:
        mine = sorted((s for s in samples if s.split == split), key=lambda s: s.key)
        order = np.argsort(rng.key64(SHUFFLE_SEED, split, np.arange(len(mine))), kind="stable")
        for number, start in enumerate(range(0, len(mine), recipe.samples_per_shard)):
            chosen = tuple(mine[i] for i in order[start : start + recipe.samples_per_shard])
            content = json.dumps(
                [library_versions(), recipe.store, recipe.store_size, [list(vars(s).values()) for s in chosen]],
                default=vars,
            )
            yield ShardJob(
                recipe.out,
                f"{split}-{number:06d}.tar",
                recipe.store,
                recipe.store_size,
                chosen,
                library_versions(),
                hashlib.sha256(content.encode()).hexdigest(),
            )


def build_shard(job: ShardJob) -> ShardResult:
    """Write one shard and its index, then the note that says so. Raises DataError, or ClusterError on a node with other tools."""
    if job.tools != library_versions():
        raise ClusterError(
            f"node {socket.gethostname()} has {library_versions()}, this packing uses {job.tools}; install the same versions on all nodes"
        )
    folder = Path(job.folder)
    quarantine: list[tuple[str, str]] = []
    tar_path = folder / job.name
    done = 0
    try:
        with files.atomic_write(tar_path) as file:
            shard_file = wire_format.ShardWriter(file)
            for sample in job.samples:
                done += 1
                try:
                    shard_file.add(sample.key, encode_sample(sample, job.store, job.store_size))
                except UnusablePicture as error:
                    quarantine.append((sample.key, str(error)))
            shard_file.finish()
    except files.DiskFull as error:
        whole = error.bytes_written * len(job.samples) // max(done, 1)
        raise DataError(f"{error}, the shard needs about {whole}; the same command then continues") from None
    index = shard_file.index()
    shard = Shard(
        job.name,
        tar_path.stat().st_size,
        files.sha256(tar_path),
        hashlib.sha256(index).hexdigest(),
        len(shard_file.rows),
    )
    if shard.samples:
        files.write_bytes(folder / shard.index_name, index)
    else:
        tar_path.unlink()
    part = ShardResult(job.plan, shard, tuple(quarantine))
    files.write_json(job.note, {"plan": part.plan, "shard": asdict(shard), "quarantine": part.quarantine})
    return part


def load_finished(job: ShardJob) -> ShardResult | None:
    """The part of a job that somebody finished and that still lies there whole; None where there is work to do."""
    folder = Path(job.folder)
    try:
        data = json.loads(job.note.read_bytes())
        part = ShardResult(
            data["plan"], Shard(**data["shard"]), tuple((key, reason) for key, reason in data["quarantine"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    tar, index = folder / part.shard.name, folder / part.shard.index_name
    there = part.shard.samples == 0 or (
        tar.exists()
        and tar.stat().st_size == part.shard.bytes
        and index.exists()
        and files.sha256(index) == part.shard.idx_sha256
    )
    return part if there and part.plan == job.plan and not _quarantine_changed(job, part) else None


def _quarantine_changed(job: ShardJob, part: ShardResult) -> bool:
    """Whether a quarantined picture of the part is another one by now."""
    reasons = dict(part.quarantine)
    for sample in job.samples:
        if sample.key in reasons:
            try:
                encode_sample(sample, job.store, job.store_size)
            except UnusablePicture as error:
                if str(error) == reasons[sample.key]:
                    continue
            return True
    return False


def _check_keys(samples: list[Sample]) -> None:
    seen: dict[str, str] = {}
    for sample in samples:
        if sample.key in seen:
            raise DataError(
                f"{sample.source} and {seen[sample.key]} would both be sample {sample.key!r}; rename one of them"
            )
        seen[sample.key] = sample.source
