"""Check that a data set is what its manifest says (`collagan verify`)."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from collagan_dist import files
from collagan_dist.data.shards import wire_format
from collagan_dist.data.shards.cache import CacheItem
from collagan_dist.data.shards.label_png import decode_label_map
from collagan_dist.data.shards.manifest import Manifest, Shard, read_manifest
from collagan_dist.data.shards.quick_check import how_to_repair, quick_check
from collagan_dist.data.shards.remote import RemoteFolder
from collagan_dist.data.shards.sample_check import WrongSample, check_picture, decode_picture, parse_meta
from collagan_dist.data.shards.sample_index import SampleIndex, SampleLine, split_name
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
        # An adopted tar may have samples of several splits.
        tars = groupby(sorted(manifest, key=lambda shard: shard.name), lambda shard: shard.name)
        total = len({shard.name for shard in manifest})
        problems = []  # of all tars: people want to know how much to copy again
        for number, (_, shards) in enumerate(tars, 1):
            problems += list(_deep_problems(manifest, list(shards)))
            progress(number, total)
        if problems:
            raise DataError("\n".join([*problems, how_to_repair(manifest)]))
    return manifest


def _deep_problems(manifest: Manifest, shards: list[Shard]) -> Iterator[str]:
    """Yield what is wrong with the tar that these shards share, and with their indexes."""
    with ExitStack() as stack:
        try:
            tar = _local_file(manifest.tars, shards[0].name, tar_content(shards[0]), stack)
            indexes = [_local_file(manifest.folder, s.index_name, index_content(s), stack) for s in shards]
        except DataError as error:
            yield str(error)
            return
        name = str(manifest.tars / shards[0].name)
        if files.sha256(tar) != shards[0].sha256:
            yield f"{name}: its sha256 differs from the manifest's"
            return
        try:
            if manifest.is_adopted:
                found = [
                    SampleIndex(path.read_bytes(), shard.bytes) for path, shard in zip(indexes, shards, strict=True)
                ]
                yield from _adopted_problems(tar, name, found)
            else:
                yield from _tar_problems(tar, name, shards[0])
        except (tarfile.TarError, ValueError) as error:
            yield f"{name}: is no tar of samples ({error})"


def _local_file(folder: Path | RemoteFolder, name: str, item: CacheItem, stack: ExitStack) -> Path:
    """Return the path of a file; of one behind a URL that of a copy, which is gone with `stack`."""
    if not isinstance(folder, RemoteFolder):
        return folder / name
    # Past the cache, because what is to be checked is the files at the URL.
    temporary = stack.enter_context(files.temporary_folder("collagan-verify-"))
    with files.naming_full_disk(temporary):
        folder.fetch(name, temporary / "copy", item)
    return temporary / "copy"


def _tar_problems(tar: Path, name: str, shard: Shard) -> Iterator[str]:
    """Yield what is wrong with a packed tar; `name` is its name in messages."""
    count = 0
    if hashlib.sha256(wire_format.index_from_tar(tar)).hexdigest() != shard.idx_sha256:
        yield f"{name}: its index is that of another tar"
    for sample in _samples(tar):
        count += 1
        wrong = wire_format.member_problem([k for k in sample if not k.startswith("__")])
        if (problem := wrong or _sample_problem(sample)) is not None:
            yield f"{name}: sample {sample['__key__']} {problem}"
    if count != shard.samples:
        yield f"{name}: holds {count} samples, the manifest says {shard.samples}"


def _adopted_problems(tar: Path, name: str, indexes: list[SampleIndex]) -> Iterator[str]:
    """Yield what is wrong with the samples of an adopted tar that its indexes list."""
    # By the member, not by the key, which may differ from webdataset's. Lines are parsed again: all at once would fill the memory.
    expected: dict[str, tuple[SampleIndex, int]] = {}
    members: set[str] = set()
    for index in indexes:
        for row in range(len(index)):
            line = index.line(row)
            expected[line.picture[2]] = index, row
            members |= {part[2] for part in (line.picture, line.labels) if part}
    seen, listed = set(), {split_name(member)[0]: member for member in expected}
    with tar.open("rb") as file:
        for sample in _samples(tar, members.__contains__):
            if (member := listed.get(sample["__key__"])) is None:
                yield f"{name}: sample {sample['__key__']} has no picture that its indexes name"
                continue
            index, row = expected[member]
            line = index.line(row)
            seen.add(line.key)
            yield from (f"{name}: sample {line.key} {p}" for p in _line_problems(line, index[row], sample, file))
    count = sum(map(len, indexes))
    if len(seen) != count:
        yield f"{name}: holds {len(seen)} samples, its indexes say {count}"


def _line_problems(line: SampleLine, entry: wire_format.IndexEntry, sample: dict, file: BinaryIO) -> Iterator[str]:
    """Yield what is wrong with a sample as webdataset has read it, beside its line and where that says it lies."""
    for (_, _, member), part in ((line.picture, "jpg"), (line.labels or line.picture, "seg.png")):
        if part in entry.parts:
            offset, size = entry.parts[part]
            file.seek(entry.start + offset)
            if sample.pop(split_name(member)[1], None) != (content := file.read(size)):
                yield f"does not lie in its tar as its index says ({member})"
            sample[part] = content
    if (problem := _sample_problem(sample | {"json": entry.meta})) is not None:
        yield problem


def _samples(tar: Path, select: Callable[[str], bool] | None = None) -> Iterator[dict]:
    """Yield the samples as plain webdataset does, undecoded; of an adopted tar the members that `select` takes."""
    import webdataset
    from webdataset.tariterators import group_by_keys, tar_file_expander

    # By webdataset, not by our own index, because shards promise that other programs can read them. It gets an open
    # file: webdataset would take the name of a folder for a URL, and run one that begins with `pipe:` as a command.
    webdataset.utils.enforce_security = True
    with tar.open("rb") as stream:
        yield from group_by_keys(tar_file_expander([{"url": str(tar), "stream": stream}], select_files=select))


def _sample_problem(sample: dict) -> str | None:
    labels = sample.get("seg.png")
    try:
        meta, _ = parse_meta(sample["json"])
        check_picture(sample["jpg"], meta.width, meta.height)
        decode_picture(sample["jpg"])
        if labels is not None:
            decode_label_map(labels, meta.width, meta.height)
    except WrongSample as error:
        return f"cannot be used: {error}"
    except ValueError as error:
        return f"does not decode: {error}"
    return None
