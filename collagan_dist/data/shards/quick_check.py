"""Opens a data set, after a quick check of file sizes and indexes, without reading the tars."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from collagan_dist.config.tree import Config
from collagan_dist.data.shards.manifest import READOPT, Manifest, Shard, read_manifest
from collagan_dist.data.shards.remote import RemoteFolder, open_location
from collagan_dist.data.shards.shard_files import read_index
from collagan_dist.errors import ConfigError, DataError

# Shards that a start looks at. All ranks of 1,024 looking at all of 500,000 would be a billion requests to one file system.
MOST_AT_START = 4096


def open_shards(config: Config) -> Manifest:
    """Return the data set of a configuration after a quick check. Raises ConfigError without one, DataError if it is damaged."""
    manifest = read_manifest(open_location(shards_of(config), config.data.cache), config.data.cache)
    quick_check(manifest, most=MOST_AT_START)
    return manifest


def shards_of(config: Config) -> str:
    """Return where the data set of a configuration is. Raises ConfigError without one."""
    if config.data.shards is None:
        raise ConfigError(
            "data.shards is not set: give the folder of shards by --data (make one with `collagan pack`, or of tars with `collagan adopt`)"
        )
    return config.data.shards


def quick_check(manifest: Manifest, ask_each: bool = False, repair: bool = True, most: int | None = None) -> None:
    """Check the sizes of all shards and, in a local folder, the indexes. Wrong indexes are rebuilt, or without `repair` problems.

    Those of adopted tars are always problems: `collagan adopt` makes them again.
    In a local folder of more than `most` shards, `most` of them are looked at, evenly spread; the others when they are first read.

    Behind a URL, sizes are checked if one request lists them; `ask_each` allows a request per file.
    Raises DataError naming all problems.
    """
    # Every rank checks everything: all reach the same result before they wait for each other at the rendezvous. One
    # that checked for the others would leave them waiting there. It costs a stat and some 0.2 ms per shard.
    shards = list(manifest)
    if most and len(shards) > most:
        shards = [shards[number * len(shards) // most] for number in range(most)]
    problems = [
        *(problem for shard in shards if (problem := _local_problem(manifest, shard, repair)) is not None),
        *_remote_problems(manifest, ask_each),
    ]
    if problems:
        # A tar with samples of several splits is looked at for each of them.
        raise DataError("\n".join([*dict.fromkeys(problems), how_to_repair(manifest)]))


def how_to_repair(manifest: Manifest) -> str:
    if manifest.is_adopted:
        return f"copy these files again; to adopt tars as they are now, {READOPT}, which reads all of them"
    if isinstance(manifest.folder, RemoteFolder):
        return "copy these shards there again"
    return f"copy these shards again, or remove {manifest.folder} and run `collagan pack` again"


def _local_problem(manifest: Manifest, shard: Shard, repair: bool) -> str | None:
    """Return what is wrong with the files of a shard that lie in folders."""
    problem = local_tar_problem(manifest, shard)
    if problem is None and isinstance(manifest.folder, Path):
        return index_problem(manifest, shard, repair)
    return problem


def local_tar_problem(manifest: Manifest, shard: Shard) -> str | None:
    """Return what is wrong with the size of a tar that lies in a folder."""
    if not isinstance(manifest.tars, Path):
        return None
    tar = manifest.tars / shard.name
    if not tar.is_file():
        return f"{tar}: is missing"
    size = tar.stat().st_size
    return f"{tar}: has {size} bytes, the manifest says {shard.bytes}" if size != shard.bytes else None


def index_problem(manifest: Manifest, shard: Shard, repair: bool = False) -> str | None:
    """Return what is wrong with the index of a shard, unless it is rebuilt."""
    try:
        read_index(manifest.folder, shard, repair)
    except DataError as error:
        return str(error)
    return None


def _remote_problems(manifest: Manifest, ask_each: bool) -> Iterator[str]:
    """Yield what is wrong with the files behind a URL, by their sizes only: a file's hash is checked when it is fetched."""
    shards = list(manifest)
    # Of an adopted tar in several splits once.
    tars, indexes = {shard.name: shard.bytes for shard in shards}, {shard.index_name: -1 for shard in shards}
    for folder, expected in ((manifest.tars, tars), (manifest.folder, indexes)):
        found = folder.sizes(list(expected), ask_each) if isinstance(folder, RemoteFolder) else None
        for name, size in (found or {}).items():
            if size is None:
                yield f"{folder / name}: is missing"
            elif -1 not in (size, expected[name]) and size != expected[name]:  # -1: the server does not say
                yield f"{folder / name}: has {size} bytes, the manifest says {expected[name]}"
