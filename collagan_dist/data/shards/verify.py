"""Check that a data set is what its manifest says (`collagan verify`)."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import simplejpeg

from collagan_dist import files
from collagan_dist.data.shards import wire_format
from collagan_dist.data.shards.label_png import decode_label_map
from collagan_dist.data.shards.manifest import Manifest, Shard, read_manifest
from collagan_dist.data.shards.quick_check import how_to_repair, quick_check
from collagan_dist.data.shards.remote import RemoteFolder
from collagan_dist.data.shards.sample_check import WrongSample, check_jpeg, parse_meta
from collagan_dist.data.shards.shard_files import index_content, tar_content
from collagan_dist.errors import DataError


def verify(
    location: str | Path,
    deep: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    repair: bool = True,
) -> Manifest:
    """Check manifest, sizes and indexes; with `deep` also every hash, and decode every sample.

    A damaged index of a local folder is rebuilt, or without `repair` an error.

    Raises DataError naming every damaged shard.
    """
    manifest = read_manifest(location)
    quick_check(manifest, ask_each=not deep, repair=repair)
    if deep:
        shards = list(manifest)
        problems = []  # of all shards: people want to know how much to copy again
        for number, shard in enumerate(shards, 1):
            problems += list(_deep_problems(manifest.folder, shard))
            progress(number, len(shards))
        if problems:
            raise DataError("\n".join([*problems, how_to_repair(manifest.folder)]))
    return manifest


def _deep_problems(folder: Path | RemoteFolder, shard: Shard) -> Iterator[str]:
    if not isinstance(folder, RemoteFolder):
        yield from _tar_problems(folder / shard.name, str(folder / shard.name), shard)
        return
    # Past the cache, because what is to be checked is the files at the URL.
    with files.temporary_folder("collagan-verify-") as temporary, files.naming_full_disk(temporary):
        tar = temporary / shard.name
        try:
            folder.fetch(shard.index_name, temporary / shard.index_name, index_content(shard))
            folder.fetch(shard.name, tar, tar_content(shard))
        except DataError as error:
            yield str(error)
            return
        yield from _tar_problems(tar, folder / shard.name, shard)


def _tar_problems(tar: Path, name: str, shard: Shard) -> Iterator[str]:
    """Yield what is wrong with a tar; `name` is its name in messages."""
    if files.sha256(tar) != shard.sha256:
        yield f"{name}: its sha256 differs from the manifest's"
        return
    count = 0
    try:
        if hashlib.sha256(wire_format.index_from_tar(tar)).hexdigest() != shard.idx_sha256:
            yield f"{name}: its index is that of another tar"
        for sample in _samples(tar):
            count += 1
            if (problem := _sample_problem(sample)) is not None:
                yield f"{name}: sample {sample['__key__']} {problem}"
    except (tarfile.TarError, ValueError) as error:
        yield f"{name}: is no tar of samples ({error})"
        return
    if count != shard.samples:
        yield f"{name}: holds {count} samples, the manifest says {shard.samples}"


def _samples(tar: Path) -> Iterator[dict]:
    """Yield the samples as plain webdataset does, undecoded."""
    import webdataset
    from webdataset.tariterators import group_by_keys, tar_file_expander

    # By webdataset, not by our own index, because shards promise that other programs can read them. It gets an open
    # file: webdataset would take the name of a folder for a URL, and run one that begins with `pipe:` as a command.
    webdataset.utils.enforce_security = True
    with tar.open("rb") as stream:
        yield from group_by_keys(tar_file_expander([{"url": str(tar), "stream": stream}]))


def _sample_problem(sample: dict) -> str | None:
    if (wrong := wire_format.member_problem([k for k in sample if not k.startswith("__")])) is not None:
        return wrong
    labels = sample.get("seg.png")
    try:
        meta, _ = parse_meta(sample["json"])
        check_jpeg(sample["jpg"], meta.width, meta.height)
        # `strict`: libjpeg only warns about data that is cut short.
        simplejpeg.decode_jpeg(sample["jpg"], "RGB", strict=True)
        if labels is not None:
            decode_label_map(labels, meta.width, meta.height)
    except WrongSample as error:
        return f"cannot be used: {error}"
    except ValueError as error:
        return f"does not decode: {error}"
    return None
