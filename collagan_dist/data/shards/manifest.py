"""manifest.json: what a folder of shards holds, with the hash of every file. A folder without it is no data set."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from collagan_dist import files
from collagan_dist.data.shards.remote import RemoteFolder, open_location
from collagan_dist.errors import DataError
from collagan_dist.types import CLASSES, LANDMARKS

VERSION = 1


@dataclass(frozen=True)
class Shard:
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
    """The manifest of `folder`. `hash` is the sha256 of the file itself: the name of this data set's content."""

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
    """The last file of a packing, written atomically."""
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


def read_manifest(place: str | Path | RemoteFolder) -> Manifest:
    """The manifest of a folder of shards, or of its URL. Raises DataError, or ConfigError for a URL that is not read."""
    folder = place if isinstance(place, RemoteFolder) else open_location(place)
    path, content = folder / "manifest.json", _content(folder)
    try:
        data = json.loads(content)
        if data["version"] != VERSION:
            raise DataError(
                f"{path}: is of format {data['version']}, this program reads format {VERSION}; pack the data set again"
            )
        if data["classes"] != list(CLASSES) or data["landmarks"] != list(LANDMARKS):
            raise DataError(f"{path}: has other label classes or landmarks than this program; pack the data set again")
        splits = {name: tuple(_shard(shard) for shard in part["shards"]) for name, part in data["splits"].items()}
        names = [shard.name for shards in splits.values() for shard in shards]
        counts = {name: sum(shard.samples for shard in shards) for name, shards in splits.items()}
        if not names or len(set(names)) < len(names) or counts != {n: p["samples"] for n, p in data["splits"].items()}:
            raise ValueError("its splits are empty, name a shard twice, or do not add up")
        return Manifest(
            folder,
            data["dataset"],
            data["recipe"],
            splits,
            data["quarantined"],
            hashlib.sha256(content).hexdigest(),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is not a manifest ({error!r}); pack the data set again") from None


def _content(folder: Path | RemoteFolder) -> bytes:
    if isinstance(folder, RemoteFolder):
        return folder.read("manifest.json")
    try:
        return (folder / "manifest.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{folder}: no manifest.json, so this is no finished data set; make one with `collagan pack RECIPE --out {folder}`"
        ) from None
    except OSError as error:
        raise DataError(f"{folder / 'manifest.json'}: cannot be read ({error.strerror})") from None


def _shard(data: Mapping[str, Any]) -> Shard:
    """A shard whose names are safe to make paths of: manifests come from elsewhere, too. Raises ValueError."""
    shard = Shard(**data)
    hashes = (shard.sha256, shard.idx_sha256)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*\.tar", shard.name) or not all(_is_hash(h) for h in hashes):
        raise ValueError(f"no shard of this format: {shard.name!r}")
    if not all(type(number) is int and number > 0 for number in (shard.bytes, shard.samples)):
        raise ValueError(f"{shard.name}: bytes and samples must be counts")
    return shard


def _is_hash(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None
