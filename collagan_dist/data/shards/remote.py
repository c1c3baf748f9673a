"""Where a data set lies: a local folder, or a URL whose files are fetched into a cache (data/shards/cache.py) and read there.

fsspec does the transfers. Nothing it brings is read before its size and sha256 are those of the manifest. Credentials,
proxies and the like are taken from the environment, as fsspec's drivers do.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from collagan_dist import files
from collagan_dist.config.tree import Cache as CacheSettings
from collagan_dist.data.shards.cache import CacheItem, ShardCache
from collagan_dist.errors import CollaganError, ConfigError, DataError

T = TypeVar("T")

# Scheme: the extra of this package that installs its driver (none: comes with fsspec[http]).
SCHEMES = {"http": "", "https": "", "s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az"}

_PAUSES = (0.5, 2.0)  # seconds before the second and the third try
_CONNECT, _SILENCE = 15, 60  # seconds without a connection, without a byte (HTTP)
_LASTING = (400, 401, 403, 404, 405, 410)  # HTTP answers that another try does not change


def open_location(place: str | Path, settings: CacheSettings | None = None) -> Path | RemoteFolder:
    """The place that a text names. Raises ConfigError for a URL of a kind that is not read."""
    if isinstance(place, Path) or not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", place):
        return Path(place)
    scheme, _, rest = place.partition("://")
    if scheme == "file" and rest.startswith("/"):
        return Path(unquote(rest))
    if scheme not in SCHEMES or not rest.strip("/"):
        kinds = ", ".join(f"{s}://" for s in ("file", *SCHEMES))
        raise ConfigError(
            f"{place}: shards are read from a folder or from {kinds} (a folder of that name is written ./{place})"
        )
    parts = urlsplit(place)
    if parts.password is not None or parts.query or parts.fragment:
        raise ConfigError(
            f"{scheme}://{parts.hostname}{parts.path}: give the URL of the folder alone, without password, ? or #: run folders keep it; "
            "credentials belong in the environment (or in ~/.netrc)"
        )
    settings = settings or CacheSettings()
    return RemoteFolder(place.rstrip("/"), ShardCache(_folder(settings), int(settings.gigabytes * 1e9)))


def _folder(settings: CacheSettings) -> Path:
    if settings.folder is not None:
        return Path(settings.folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "collagan_dist" / "shards"


@dataclass(frozen=True)
class RemoteFolder:
    """A folder behind a URL. Its methods raise DataError after three tries, ConfigError where the driver is missing."""

    url: str
    cache: ShardCache = field(compare=False, repr=False)

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> str:
        return f"{self.url}/{name}"

    def resolve(self) -> RemoteFolder:
        """As of a path: the same place from any working directory."""
        return self

    def read(self, name: str) -> bytes:
        """A small file as it is there now, past the cache."""
        return self._tried(name, lambda: self._filesystem().cat_file(self._path(name)))

    def open(self, name: str, item: CacheItem) -> int:
        """A descriptor of the cached copy of a file, fetched if need be; the caller closes it."""
        return self.cache.open(item, lambda path: self.fetch(name, path, item))

    def fetch(self, name: str, to: Path, item: CacheItem) -> None:
        """A file of the given content written to a path, or DataError. A full disk is an OSError."""

        def attempt() -> None:
            self._transfer(name, to, item)
            size = to.stat().st_size
            if (found := files.sha256(to)) != item.sha256:
                raise _Unsound(f"expected {_expected(item)}, found {size} bytes with sha256 {found[:12]}…")

        self._tried(name, attempt)

    def sizes(self, names: list[str], ask_each: bool) -> dict[str, int | None] | None:
        """Bytes of files; None for one that is missing, -1 where the server does not say.

        One call for all where the file system lists folders; else None in place of all, or with `ask_each` a call a file.
        """
        if not self.url.startswith("http"):
            listed = self._tried("", lambda: self._filesystem().ls(self._path(""), detail=True))
            found = {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in listed}
            return {name: found.get(name) for name in names}
        return {name: self._tried(name, partial(self._size, name)) for name in names} if ask_each else None

    def _size(self, name: str) -> int | None:
        try:
            size = self._filesystem().info(self._path(name))["size"]
        except FileNotFoundError:
            return None
        return -1 if size is None else size

    def _transfer(self, name: str, to: Path, item: CacheItem) -> None:
        from fsspec.callbacks import Callback

        def limit(size: int | None, value: int, **_: Any) -> None:
            if value > item.most:  # more than was made room for
                raise _Unsound(f"expected {_expected(item)}, found more than {item.most} bytes")

        self._filesystem().get_file(self._path(name), str(to), callback=Callback(hooks={"limit": limit}))

    def _filesystem(self) -> Any:
        import fsspec

        scheme = self.url.partition("://")[0]
        try:
            driver = fsspec.get_filesystem_class(scheme)
        except ImportError as error:
            raise ConfigError(
                f"{self.url}: {scheme}:// needs a package that is not installed; pip install 'collagan_dist[{SCHEMES[scheme]}]' ({error})"
            ) from None
        options = driver._get_kwargs_from_urls(self.url)
        if scheme.startswith("http"):
            import aiohttp

            # aiohttp's own limit of 300 s for a whole transfer would end large shards; its proxies and netrc are off.
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENCE)
            options |= {"client_kwargs": {"timeout": timeout, "trust_env": True}}
        return driver(**options)

    def _path(self, name: str) -> str:
        """What the file system calls a file of this place; the place itself for an empty name."""
        import fsspec

        driver = fsspec.get_filesystem_class(self.url.partition("://")[0])
        return driver._strip_protocol(self / name if name else self.url)

    def _tried(self, name: str, attempt: Callable[[], T]) -> T:
        """The result of an attempt, made again after a pause where that can help."""
        for tries, pause in enumerate((*_PAUSES, None), 1):
            try:
                return attempt()
            except CollaganError:
                raise
            except Exception as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise  # of the disk written to
                if pause is None or _is_lasting(error):
                    where = self / name if name else self.url
                    raise DataError(f"{where}: {_said(error)}" + (f", {tries} times" if tries > 1 else "")) from error
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")


class _Unsound(Exception):
    """What arrived is not what the manifest says."""


def _expected(item: CacheItem) -> str:
    size = "at most" if item.suffix == ".idx" else "exactly"
    return f"{size} {item.most} bytes with sha256 {item.sha256[:12]}…"


def _is_lasting(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError | PermissionError) or getattr(error, "status", None) in _LASTING


def _said(error: Exception) -> str:
    """An error of a driver in one line."""
    if isinstance(error, _Unsound):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "there is no such file there"
    if (status := getattr(error, "status", None)) is not None:
        return f"cannot be fetched (the server answers {status} {getattr(error, 'message', '')})"
    return f"cannot be fetched ({(str(error).splitlines() or [''])[0] or type(error).__name__})"
