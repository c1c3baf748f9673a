"""manifest.json: what a folder of shards holds, with the hash of every file. A folder without it is no data set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from collagan_dist import files
from collagan_dist.contract import CLASSES, LANDMARKS
from collagan_dist.errors import DataError

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

    folder: Path
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


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a folder of shards. Raises DataError."""
    path = Path(folder) / "manifest.json"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"{folder}: no manifest.json, so this is no finished data set; make one with `collagan pack RECIPE --out {folder}`"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        data = json.loads(content)
        if data["version"] != VERSION:
            raise DataError(
                f"{path}: is of format {data['version']}, this program reads format {VERSION}; pack the data set again"
            )
        if data["classes"] != list(CLASSES) or data["landmarks"] != list(LANDMARKS):
            raise DataError(f"{path}: has other label classes or landmarks than this program; pack the data set again")
        splits = {name: tuple(Shard(**shard) for shard in part["shards"]) for name, part in data["splits"].items()}
        return Manifest(
            Path(folder),
            data["dataset"],
            data["recipe"],
            splits,
            data["quarantined"],
            hashlib.sha256(content).hexdigest(),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is not a manifest ({error!r}); pack the data set again") from None


def quick_check(manifest: Manifest) -> None:
    """Sizes of all shards, and every index bound to its tar by hash. Raises DataError naming all that is wrong."""
    wrong = [problem for shard in manifest for problem in _problems(manifest.folder, shard)]
    if wrong:
        raise DataError(
            "\n".join([*wrong, f"pack the data set again: remove {manifest.folder} and run `collagan pack`"])
        )


def _problems(folder: Path, shard: Shard) -> Iterator[str]:
    tar, index = folder / shard.name, folder / shard.index_name
    if not tar.exists():
        yield f"{tar}: is missing"
    elif tar.stat().st_size != shard.bytes:
        yield f"{tar}: has {tar.stat().st_size} bytes, the manifest says {shard.bytes}"
    if not index.exists():
        yield f"{index}: is missing"
    elif files.sha256(index) != shard.idx_sha256:
        yield f"{index}: is not the index of {shard.name} (its hash differs from the manifest's)"
