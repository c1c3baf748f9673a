"""manifest.json: the shards of a data set, with their sizes and the hashes of their files.

Packing writes it last, so a folder without it is not a complete data set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from collagan_dist import files, shell, structured
from collagan_dist.data.shards.remote import RemoteFolder, open_location
from collagan_dist.errors import DataError
from collagan_dist.types import CLASSES, LANDMARKS

VERSION = 1
MAX_BYTES = (
    1 << 29
)  # 2 million shards, 260 bytes each: a billion samples in shards of the usual size are a quarter of it
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=1 << 62)]


@dataclass(frozen=True, slots=True)  # without a dictionary each: there may be 500,000
class Shard:
    """One shard as the manifest lists it: a tar, its index, and how many samples they hold."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    # Manifests are downloaded, too, and paths and URLs are made of these names.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,199}\.tar$")]
    bytes: Count
    sha256: Sha256
    idx_sha256: Sha256
    samples: Count

    @property
    def index_name(self) -> str:
        return self.name.removesuffix(".tar") + ".idx"


class _Split(structured.Record):
    samples: Count
    shards: tuple[Shard, ...]

    @model_validator(mode="after")
    def _check_sum(self) -> _Split:
        # Training computes its order from these counts; wrong ones would fail in the middle of an epoch.
        if self.samples != sum(shard.samples for shard in self.shards) or not all(s.samples for s in self.shards):
            raise ValueError("its samples do not add up, or a shard has none")
        return self


class _Packing(structured.Record):
    """The keys of a recipe that training reads."""

    model_config = ConfigDict(extra="allow")

    store: Literal["crop", "original"]
    store_size: Annotated[int, Field(ge=1, le=1 << 16)]
    samples_per_shard: Annotated[int, Field(ge=1, lt=1 << 31)]


class _ManifestFile(structured.Record):
    """The content of manifest.json."""

    version: Literal[1]
    dataset: Annotated[str, Field(max_length=1000)]
    classes: tuple[str, ...]
    landmarks: tuple[str, ...]
    recipe: _Packing
    splits: dict[Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,100}$")], _Split]
    quarantined: Count

    @model_validator(mode="after")
    def _check_shards(self) -> _ManifestFile:
        names = [shard.name for split in self.splits.values() for shard in split.shards]
        if not names or len(set(names)) < len(names):
            raise ValueError("its splits are empty, or name a shard twice")
        # Label maps and landmarks are stored as numbers: with other lists they would mean other classes and points.
        if (self.classes, self.landmarks) != (CLASSES, LANDMARKS):
            raise ValueError("it has other label classes or landmarks than this program")
        return self


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
    try:
        found = structured.parse(content, _ManifestFile, str(path), MAX_BYTES)
    except structured.Malformed as error:
        raise DataError(f"{error}: is not a manifest of this format ({VERSION}); pack the data set again") from None
    splits = {name: split.shards for name, split in found.splits.items()}
    identity = hashlib.sha256(content).hexdigest()
    return Manifest(folder, found.dataset, found.recipe.model_dump(), splits, found.quarantined, identity)


def _read_bytes(folder: Path | RemoteFolder) -> bytes:
    if isinstance(folder, RemoteFolder):
        return folder.read("manifest.json")
    try:
        return files.read_regular(folder / "manifest.json", MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{folder}: no manifest.json, so this is not a complete data set; make one with `{shell.collagan('pack', 'RECIPE', '--out', folder)}`"
        ) from None
    except OSError as error:
        raise DataError(f"{folder / 'manifest.json'}: cannot be read ({error.strerror})") from None
