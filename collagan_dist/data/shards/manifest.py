"""manifest.json: the shards of a data set, with their sizes and the hashes of their files.

Packing writes it last, so a folder without it is not a complete data set.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from collagan_dist import files, shell, structured
from collagan_dist.config.tree import Cache
from collagan_dist.data.shards.remote import RemoteFolder, open_location
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.types import CLASSES, LANDMARKS

VERSION = 1
ADOPTED = "adopted"  # the recipe's `dataset` of tars that were not packed here
READOPT = "remove manifest.json and run `collagan adopt` again"
# 2 million shards, 260 bytes each: a billion samples in shards of the usual size are a quarter of it.
MAX_BYTES = 1 << 29
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=1 << 62)]
# Below a folder: no name of a folder above, none that begins with a dot. An adopted tar may have any such name.
_PART = r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*"
FILE_NAME = re.compile(rf"^(?:{_PART}/)*{_PART}$")
FileName = Annotated[str, Field(pattern=FILE_NAME.pattern, max_length=1000)]
_PACKED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}\.tar")


@dataclass(frozen=True, slots=True)  # without a dictionary each: there may be 500,000
class Shard:
    """One shard as the manifest lists it: a tar, its index, and how many samples they hold.

    Of an adopted tar it is the samples of one split: `index` names their file (sample_index.py), of `index_bytes` bytes.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    # Manifests are downloaded, too, and paths and URLs are made of these names.
    name: FileName
    bytes: Count
    sha256: Sha256
    idx_sha256: Sha256
    samples: Count
    index: FileName | None = None
    index_bytes: Count | None = None

    @property
    def index_name(self) -> str:
        return self.index or self.name.removesuffix(".tar") + ".idx"

    @property
    def mend(self) -> str:
        """How to make a wrong index again, for messages."""
        return READOPT if self.index else "pack this data set again"


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
    """The keys of a recipe that training reads. Adopted tars hold originals of any size."""

    model_config = ConfigDict(extra="allow")

    dataset: str = ""
    store: Literal["crop", "original"]
    store_size: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    samples_per_shard: Annotated[int, Field(ge=1, lt=1 << 31)]

    @model_validator(mode="after")
    def _check_size(self) -> _Packing:
        if (self.store_size is None) != (self.dataset == ADOPTED) or (self.dataset == ADOPTED and self.store == "crop"):
            raise ValueError("store_size is missing, or is one of adopted tars, which have none")
        return self


class _ManifestFile(structured.Record):
    """The content of manifest.json."""

    version: Literal[1]
    dataset: Annotated[str, Field(max_length=1000)]
    classes: tuple[str, ...]
    landmarks: tuple[str, ...]
    recipe: _Packing
    splits: dict[Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,100}$")], _Split]
    quarantined: Count
    tars: Annotated[str, Field(min_length=1, max_length=4000)] | None = None

    @model_validator(mode="after")
    def _check_shards(self) -> _ManifestFile:
        shards = [shard for split in self.splits.values() for shard in split.shards]
        # Samples of an adopted tar may be of several splits, each with an index of its own.
        if not shards or len({shard.index_name for shard in shards}) < len(shards):
            raise ValueError("its splits are empty, or name a shard twice")
        adopted = self.recipe.dataset == ADOPTED
        if not all(adopted if shard.index else _PACKED_NAME.fullmatch(shard.name) for shard in shards):
            raise ValueError("the name of a shard is not one that packing gives")
        if self.tars is not None and not adopted:
            raise ValueError("tars elsewhere than their manifest must be adopted ones")
        # Label maps and landmarks are stored as numbers: with other lists they would mean other classes and points.
        if (self.classes, self.landmarks) != (CLASSES, LANDMARKS):
            raise ValueError("it has other label classes or landmarks than this program")
        return self


@dataclass(frozen=True)
class Manifest:
    """The manifest of the data set in `folder`. `hash` is the sha256 of the file, which identifies all of its content.

    `elsewhere` is the folder or URL of adopted tars that do not lie beside their manifest.
    """

    folder: Path | RemoteFolder
    dataset: str
    recipe: dict[str, Any]
    splits: Mapping[str, tuple[Shard, ...]]
    quarantined: int
    hash: str = ""
    elsewhere: Path | RemoteFolder | None = None

    @property
    def is_adopted(self) -> bool:
        return self.recipe.get("dataset") == ADOPTED

    @property
    def tars(self) -> Path | RemoteFolder:
        """The folder that shard names are below."""
        return self.elsewhere or self.folder

    def samples(self, split: str) -> int:
        return sum(shard.samples for shard in self.shards(split))

    def shards(self, split: str) -> tuple[Shard, ...]:
        if split not in self.splits:
            raise DataError(
                f"{self.folder}: there is no split {split!r}; this data set has {', '.join(self.splits)}: give one of these (evaluate: --split; "
                "data.split, evaluate.split), or pack or adopt a data set that has it"
            )
        return self.splits[split]

    def __iter__(self) -> Iterator[Shard]:
        return (shard for shards in self.splits.values() for shard in shards)


def write_manifest(manifest: Manifest) -> None:
    """Write manifest.json atomically."""
    assert isinstance(manifest.folder, Path)
    splits = {
        name: {"samples": sum(s.samples for s in shards), "shards": list(map(_without_none, map(asdict, shards)))}
        for name, shards in manifest.splits.items()
    }
    elsewhere = {} if manifest.elsewhere is None else {"tars": str(manifest.elsewhere)}
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
            **elsewhere,
        },
    )


def _without_none(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if value is not None}


def read_manifest(location: str | Path | RemoteFolder, cache: Cache | None = None) -> Manifest:
    """Read the manifest of a folder or URL; `cache` is that of adopted tars behind a URL.

    Raises DataError, or ConfigError for a URL of an unsupported kind.
    """
    folder = location if isinstance(location, RemoteFolder) else open_location(location)
    path, content = folder / "manifest.json", _read_bytes(folder)
    try:
        found = structured.parse(content, _ManifestFile, str(path), MAX_BYTES)
    except structured.Malformed as error:
        raise DataError(
            f"{error}: is not a manifest of this format ({VERSION}); pack or adopt the data set again"
        ) from None
    splits = {name: split.shards for name, split in found.splits.items()}
    identity = hashlib.sha256(content).hexdigest()
    elsewhere = None if found.tars is None else _open_tars(folder, found.tars, cache)
    recipe = found.recipe.model_dump(exclude_unset=True)
    return Manifest(folder, found.dataset, recipe, splits, found.quarantined, identity, elsewhere)


def _open_tars(folder: Path | RemoteFolder, tars: str, cache: Cache | None) -> Path | RemoteFolder:
    """Return where adopted tars lie. Raises DataError for a place that a manifest may not name."""
    try:
        found = open_location(tars, cache)
    except ConfigError as error:
        raise DataError(f"{folder / 'manifest.json'}: tars: {error}") from None
    if isinstance(found, Path) and (isinstance(folder, RemoteFolder) or not found.is_absolute()):
        raise DataError(
            f"{folder / 'manifest.json'}: tars: {tars} is no URL and no absolute path of this machine; adopt the tars again"
        )
    # One cache for all files of a data set.
    if isinstance(found, RemoteFolder) and isinstance(folder, RemoteFolder):
        return RemoteFolder(found.url, folder.cache)
    return found


def _read_bytes(folder: Path | RemoteFolder) -> bytes:
    if isinstance(folder, RemoteFolder):
        return folder.read("manifest.json")
    try:
        return files.read_regular(folder / "manifest.json", MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        # Tars without a manifest are mostly another program's; `adopt` finds those of subfolders, too.
        is_tars = any(any(folder.glob(pattern)) for pattern in ("*.tar", "*/*.tar"))
        how = ("adopt", folder) if is_tars else ("pack", "RECIPE", "--out", folder)
        raise DataError(
            f"{folder}: no manifest.json, so this is not a complete data set; make one with `{shell.collagan(*how)}`"
        ) from None
    except OSError as error:
        raise DataError(f"{folder / 'manifest.json'}: cannot be read ({error.strerror})") from None
