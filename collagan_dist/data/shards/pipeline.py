"""The samples of a split as a webdataset pipeline, decoded: for loops other than ours."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from collagan_dist import structured
from collagan_dist.data.shards.label_png import decode_label_map
from collagan_dist.data.shards.manifest import Manifest, Shard, read_manifest
from collagan_dist.data.shards.quick_check import quick_check
from collagan_dist.data.shards.remote import RemoteFolder
from collagan_dist.data.shards.sample_check import WrongSample, check_picture, decode_picture, parse_meta
from collagan_dist.data.shards.shard_files import open_tar, read_index, tar_content
from collagan_dist.errors import DataError


def open_pipeline(location: str | Path, split: str = "train") -> Any:
    """Return a webdataset pipeline of the samples of a split, in the order of the shards.

    Ranks and workers of a torch DataLoader share the shards. A sample is a dict: `__key__`; `jpg` (H, W, 3) uint8 RGB;
    `seg.png` (H, W) uint8 classes, where the data set has label maps; `json`, the dict of its annotation.
    Raises DataError for a data set, a split or a sample that cannot be used.
    """
    from webdataset import split_by_node, split_by_worker
    from webdataset.compat import FluidWrapper
    from webdataset.tariterators import group_by_keys, tar_file_expander

    manifest = read_manifest(location)
    quick_check(manifest)
    shards = list(manifest.shards(split))
    # Our own opener, not webdataset's, which takes names for URLs and some URLs for commands. It also goes through the cache.
    read = (partial(_open_tars, manifest.folder), tar_file_expander, group_by_keys)
    counts = {str(manifest.folder / shard.name): shard.samples for shard in shards}
    stages = (partial(_indexed_samples, manifest),) if manifest.is_adopted else (*read, partial(_whole_shards, counts))
    return FluidWrapper(shards).compose(split_by_node, split_by_worker, *stages, partial(map, _decode))


def _indexed_samples(manifest: Manifest, shards: Iterable[Shard]) -> Iterator[dict[str, Any]]:
    """Yield the samples of adopted tars by their indexes: a tar may hold other splits too, and its json is not ours."""
    for shard in shards:
        index, tar = read_index(manifest.folder, shard), open_tar(manifest.tars, shard)
        for row in range(len(index)):
            entry = index[row]
            found = {name: bytes(part) for name, part in entry.read(tar.pread).items()}
            yield {"__key__": entry.key, "__url__": str(manifest.tars / shard.name), **found, "json": entry.meta}


def _open_tars(folder: Path | RemoteFolder, shards: Iterable[Shard]) -> Iterator[dict[str, Any]]:
    for shard in shards:
        try:
            if isinstance(folder, RemoteFolder):
                handle = folder.open(shard.name, tar_content(shard))
            else:
                handle = os.open(folder / shard.name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"{folder / shard.name}: cannot be opened ({error.strerror})") from None
        with os.fdopen(handle, "rb") as stream:
            yield {"url": str(folder / shard.name), "stream": stream}


def _whole_shards(counts: Mapping[str, int], samples: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the samples. Raises DataError for a shard that has another number than `counts` says, by its name."""
    # A tar ends, for those who read it, at a header that is damaged.
    for name, of_shard in groupby(_whole_tars(samples), lambda sample: sample["__url__"]):
        count = 0
        for sample in of_shard:
            count += 1
            yield sample
        if count != counts[name]:
            raise DataError(f"{name}: is damaged after {count} of {counts[name]} samples; copy it again")


def _whole_tars(samples: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        yield from samples
    except tarfile.TarError as error:
        raise DataError(
            f"a shard is damaged ({error}); find it by `collagan verify --deep`, and copy it again"
        ) from None


def _decode(sample: dict[str, Any]) -> dict[str, Any]:
    name = f"{sample['__url__']}: sample {sample['__key__']}"
    try:
        meta, _ = parse_meta(sample["json"])
        check_picture(sample["jpg"], meta.width, meta.height)
        decoded = {
            **sample,
            "jpg": decode_picture(sample["jpg"]),
            "json": structured.parse_json(sample["json"], name),
        }
        if "seg.png" in sample:
            decoded["seg.png"] = decode_label_map(sample["seg.png"], meta.width, meta.height)
    except KeyError as error:
        raise DataError(f"{name} has no {error.args[0]}; pack the data set again") from None
    except (WrongSample, ValueError) as error:
        raise DataError(f"{name} cannot be used: {error}; pack the data set again") from None
    return decoded
