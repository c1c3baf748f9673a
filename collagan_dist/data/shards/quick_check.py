"""Opens a data set, after a quick check of file sizes and indexes, without reading the tars."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from collagan_dist.config.tree import Config
from collagan_dist.data.shards.manifest import Manifest, Shard, read_manifest
from collagan_dist.data.shards.remote import RemoteFolder, open_location
from collagan_dist.data.shards.shard_files import read_index
from collagan_dist.errors import ConfigError, DataError

# Shards that a start looks at. All ranks of 1,024 looking at all of 500,000 would be a billion requests to one file system.
MOST_AT_START = 4096


def open_shards(config: Config) -> Manifest:
    """Return the data set of a configuration after a quick check. Raises ConfigError without one, DataError if it is damaged."""
    if config.data.shards is None:
        raise ConfigError("data.shards is not set: give the folder of shards by --data (make one with `collagan pack`)")
    manifest = read_manifest(open_location(config.data.shards, config.data.cache))
    quick_check(manifest, most=MOST_AT_START)
    return manifest


def quick_check(manifest: Manifest, ask_each: bool = False, repair: bool = True, most: int | None = None) -> None:
    """Check the sizes of all shards and, in a local folder, the indexes. Wrong indexes are rebuilt, or without `repair` problems.

    In a local folder of more than `most` shards, `most` of them are looked at, evenly spread; the others when they are first read.

    Behind a URL, sizes are checked if one request lists them; `ask_each` allows a request per file.
    Raises DataError naming all problems.
    """
    # Every rank checks everything: all reach the same result before they wait for each other at the rendezvous. One
    # that checked for the others would leave them waiting there. It costs a stat and some 0.2 ms per shard.
    folder = manifest.folder
    if isinstance(folder, RemoteFolder):
        # Sizes only: a file's hash is checked when it is fetched.
        problems = list(_remote_problems(folder, manifest, ask_each))
    else:
        shards = list(manifest)
        every = -(-len(shards) // most) if most else 1
        problems = [problem for shard in shards[::every] for problem in _local_problems(folder, shard, repair)]
    if problems:
        raise DataError("\n".join([*problems, how_to_repair(folder)]))


def how_to_repair(folder: Path | RemoteFolder) -> str:
    if isinstance(folder, RemoteFolder):
        return "copy these shards there again"
    return f"copy these shards again, or remove {folder} and run `collagan pack` again"


def _local_problems(folder: Path, shard: Shard, repair: bool) -> Iterator[str]:
    tar = folder / shard.name
    if not tar.is_file():
        yield f"{tar}: is missing"
    elif (size := tar.stat().st_size) != shard.bytes:
        yield f"{tar}: has {size} bytes, the manifest says {shard.bytes}"
    else:
        try:
            read_index(folder, shard, repair)
        except DataError as error:
            yield str(error)


def _remote_problems(folder: RemoteFolder, manifest: Manifest, ask_each: bool) -> Iterator[str]:
    names = [name for shard in manifest for name in (shard.name, shard.index_name)]
    sizes = folder.sizes(names, ask_each)
    if sizes is None:
        return
    for shard in manifest:
        size = sizes[shard.name]
        if size is not None and size not in (shard.bytes, -1):  # -1: the server does not say
            yield f"{folder / shard.name}: has {size} bytes, the manifest says {shard.bytes}"
        yield from (f"{folder / n}: is missing" for n in (shard.name, shard.index_name) if sizes[n] is None)
