"""manifest.json: the shards of a data set, with their sizes and the hashes of their files.

Packing writes it last, so a folder without it is not a complete data set.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from collagan_dist import files, structured
from collagan_dist.data.shards.remote import RemoteFolder, open_location
from collagan_dist.errors import DataError
from collagan_dist.types import CLASSES, LANDMARKS

VERSION = 1


@dataclass(frozen=True)
class Shard:
    """One shard as the manifest lists it: a tar, its index, and how many samples they hold."""

    name: str
    bytes: int
    sha256: str
    idx_sha256: str
    samples: int

    @property
    def index_name(self) -> str:
        return self.name.removesuffix(".tar") + ".idx"


@dataclass(frozen=True)
class Manifest:
    """The manifest of the data set in `folder`. `hash` is the sha256 of the file, which identifies all of its content."""

    folder: Path | RemoteFolder
    dataset: str
    recipe: dict[str, Any]
    splits: Mapping[str, tuple[Shard, ...]]
    quarantined: int
    hash: str = ""

    def samples(self, split: str) -> int:
        return sum(shard.samples for shard in self.shards(split))

    def shards(self, split: str) -> tuple[Shard, ...]:
        if split not in self.splits:
            raise DataError(f"{self.folder}: there is no split {split!r}; this data set has {', '.join(self.splits)}")
        return self.splits[split]

    def __iter__(self) -> Iterator[Shard]:
        return (shard for shards in self.splits.values() for shard in shards)


def write_manifest(manifest: Manifest) -> None:
    """Write manifest.json atomically."""
    assert isinstance(manifest.folder, Path)
    splits = {
        name: {"samples": sum(s.samples for s in shards), "shards": [asdict(s) for s in shards]}
        for name, shards in manifest.splits.items()
    }
    files.write_json(
        manifest.folder / "manifest.json",
        {
            "version": VERSION,
            "dataset": manifest.dataset,
            "classes": list(CLASSES),
            "landmarks": list(LANDMARKS),
            "recipe": manifest.recipe,
            "splits": splits,
            "quarantined": manifest.quarantined,
        },
    )


def read_manifest(location: str | Path | RemoteFolder) -> Manifest:
    """Read the manifest of a folder or URL. Raises DataError, or ConfigError for a URL of an unsupported kind."""
    folder = location if isinstance(location, RemoteFolder) else open_location(location)
    path, content = folder / "manifest.json", _read_bytes(folder)
    try:  # whatever is wrong with a downloaded file is one error
        data = structured.parse_json(content, str(path))
        if data["version"] != VERSION:
            raise DataError(
                f"{path}: is of format {data['version']}, this program reads format {VERSION}; pack the data set again"
            )
        # Label maps and landmarks are stored as numbers: with other lists they would mean other classes and points.
        if data["classes"] != list(CLASSES) or data["landmarks"] != list(LANDMARKS):
            raise DataError(f"{path}: has other label classes or landmarks than this program; pack the data set again")
        splits = {name: tuple(_parse_shard(shard) for shard in part["shards"]) for name, part in data["splits"].items()}
        names = [shard.name for shards in splits.values() for shard in shards]
        counts = {name: sum(shard.samples for shard in shards) for name, shards in splits.items()}
        # Training computes its order from these counts; wrong ones would fail in the middle of an epoch.
        if not names or len(set(names)) < len(names) or counts != {n: p["samples"] for n, p in data["splits"].items()}:
            raise ValueError("its splits are empty, name a shard twice, or do not add up")
        identity = hashlib.sha256(content).hexdigest()
        return Manifest(folder, data["dataset"], data["recipe"], splits, data["quarantined"], identity)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is not a manifest ({error!r}); pack the data set again") from None


def _read_bytes(folder: Path | RemoteFolder) -> bytes:
    if isinstance(folder, RemoteFolder):
        return folder.read("manifest.json")
    try:
        return (folder / "manifest.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{folder}: no manifest.json, so this is not a complete data set; make one with `collagan pack RECIPE --out {quote(str(folder))}`"
        ) from None
    except OSError as error:
        raise DataError(f"{folder / 'manifest.json'}: cannot be read ({error.strerror})") from None


def _parse_shard(data: Mapping[str, Any]) -> Shard:
    """Raises ValueError for a shard that this format does not have."""
    shard = Shard(**data)
    # Manifests are downloaded, too, and paths and URLs are made of these names.
    name, hashes = r"[A-Za-z0-9][A-Za-z0-9_-]*\.tar", f"{shard.sha256} {shard.idx_sha256}"
    if not re.fullmatch(name, shard.name) or not re.fullmatch(r"[0-9a-f]{64} [0-9a-f]{64}", hashes):
        raise ValueError(f"no shard of this format: {shard.name!r}")
    # `type`, because True is an int to isinstance.
    if not all(type(count) is int and count > 0 for count in (shard.bytes, shard.samples)):
        raise ValueError(f"{shard.name}: bytes and samples must be counts")
    return shard
