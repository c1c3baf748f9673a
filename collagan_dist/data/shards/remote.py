"""The location of a data set: a local folder, or a URL whose files are downloaded into a cache and read there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from collagan_dist import files
from collagan_dist.config.tree import Cache as CacheSettings
from collagan_dist.data.shards.cache import CacheItem, ShardCache
from collagan_dist.errors import DataError
from collagan_dist.places import SCHEMES, Place, open_place


def open_location(location: str | Path, settings: CacheSettings | None = None) -> Path | RemoteFolder:
    """Return a folder or the folder behind a URL. Raises ConfigError for a URL of an unsupported kind."""
    place = location if isinstance(location, Path) else open_place(location, tuple(SCHEMES), "shards are read from")
    if isinstance(place, Path):
        return place
    settings = settings or CacheSettings()
    return RemoteFolder(place.url, ShardCache(_cache_folder(settings), int(settings.gigabytes * 1e9)))


def _cache_folder(settings: CacheSettings) -> Path:
    if settings.folder is not None:
        return Path(settings.folder).expanduser()
    return files.user_cache() / "shards"


@dataclass(frozen=True)
class RemoteFolder(Place):
    """A folder of shards behind a URL, read through a cache."""

    cache: ShardCache = field(compare=False, repr=False)

    def resolve(self) -> RemoteFolder:
        return self  # as Path.resolve: a location that any working directory may use

    def read(self, name: str, limit: int | None = None) -> bytes:
        """Return a small file as it is there now, past the cache."""
        content = super().read(name, limit)
        if content[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html")):
            raise DataError(
                f"{self / name}: what comes is a web page, as a login or a proxy sends it, and not this file; open the URL in a browser; "
                "credentials belong in the environment (or in ~/.netrc)"
            )
        return content

    def open(self, name: str, item: CacheItem) -> int:
        """Return a file descriptor of the cached copy, downloaded if need be; the caller closes it."""
        return self.cache.open(item, lambda path: self.fetch(name, path, item))

    def fetch(self, name: str, to: Path, item: CacheItem) -> None:
        """Download a file of the given content to a path. Raises DataError, or OSError for a full disk."""
        # The manifest has no size of an index, only a bound.
        size = "at most" if item.suffix == ".idx" else "exactly"
        said = f"{size} {item.max_bytes} bytes with sha256 {item.sha256[:12]}…"
        self.get(name, to, item.max_bytes, item.sha256, said)
