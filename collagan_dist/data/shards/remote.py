"""The location of a data set: a local folder, or a URL whose files are downloaded into a cache and read there.

fsspec does the transfers. Credentials and proxies come from the environment, as fsspec's drivers find them.
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
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote, unquote

from collagan_dist import files
from collagan_dist.config.tree import Cache as CacheSettings
from collagan_dist.data.shards.cache import CacheItem, ShardCache
from collagan_dist.errors import CollaganError, ConfigError, DataError
from collagan_dist.urls import HINT, has_secret, redact_value

T = TypeVar("T")

# Scheme: the extra of this package that installs its driver; http comes with fsspec[http].
SCHEMES = {"http": "", "https": "", "s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az"}

_RETRY_SECONDS = (0.5, 2.0)  # before the second and the third try
_CONNECT_SECONDS, _READ_SECONDS = 15, 60  # HTTP: without a connection, without a byte
_PERMANENT = (400, 401, 403, 404, 405, 410)  # HTTP answers that another try does not change


def open_location(location: str | Path, settings: CacheSettings | None = None) -> Path | RemoteFolder:
    """Return a folder or the folder behind a URL. Raises ConfigError for a URL of an unsupported kind."""
    if isinstance(location, Path) or not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", location):
        return Path(location)
    # Configurations come here too, not only arguments.
    if has_secret(location):
        raise ConfigError(f"{redact_value(location)}: {HINT}")
    # Only these schemes reach fsspec, which also has drivers for archives, local files and much else.
    scheme, _, rest = location.partition("://")
    if scheme == "file" and rest.startswith("/"):
        return Path(unquote(rest))
    if scheme not in SCHEMES or not rest.strip("/"):
        kinds = ", ".join(f"{s}://" for s in ("file", *SCHEMES))
        raise ConfigError(
            f"{location}: shards are read from a folder or from {kinds} (a folder of that name is written ./{location})"
        )
    settings = settings or CacheSettings()
    return RemoteFolder(location.rstrip("/"), ShardCache(_cache_folder(settings), int(settings.gigabytes * 1e9)))


def _cache_folder(settings: CacheSettings) -> Path:
    if settings.folder is not None:
        return Path(settings.folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "collagan_dist" / "shards"


@dataclass(frozen=True)
class RemoteFolder:
    """A folder behind a URL. Its methods raise DataError after three tries, ConfigError for a missing driver."""

    url: str
    cache: ShardCache = field(compare=False, repr=False)

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> str:
        return f"{self.url}/{name}"

    def resolve(self) -> RemoteFolder:
        return self  # as Path.resolve: a location that any working directory may use

    def read(self, name: str) -> bytes:
        """Return a small file as it is there now, past the cache."""
        content: bytes = self._retry(name, lambda: self._filesystem().cat_file(self._path(name)))
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

        def attempt() -> None:
            self._transfer(name, to, item)
            size = to.stat().st_size
            if (found := files.sha256(to)) != item.sha256:
                raise _WrongContent(f"expected {_expected(item)}, found {size} bytes with sha256 {found[:12]}…")

        self._retry(name, attempt)

    def sizes(self, names: list[str], ask_each: bool) -> dict[str, int | None] | None:
        """Return the sizes of files: None for one that is missing, -1 where the server does not say.

        A file system that lists folders needs one request. HTTP has none: None, or with `ask_each` a request per file.
        """
        if not self.url.startswith("http"):
            found: dict[str, int] = {}
            for below in {name.rpartition("/")[0] for name in names}:  # adopted tars may lie in several folders
                found |= self._listed(f"{below}/" if below else "")
            return {name: found.get(name) for name in names}
        return {name: self._retry(name, partial(self._size, name)) for name in names} if ask_each else None

    def _listed(self, below: str) -> dict[str, int]:
        """Return names and sizes of the files in a folder, by a request."""
        listed = self._retry("", lambda: self._filesystem().ls(self._path(below.rstrip("/")), detail=True))
        return {below + entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in listed}

    def list_files(self) -> list[str]:
        """Return the names of the files in this folder. Raises DataError for HTTP, which has no lists."""
        if self.url.startswith("http"):
            raise DataError(
                f"{self.url}: a web server does not list its files; name the tars, as {self.url}/{{000..099}}.tar"
            )
        return sorted(self._listed(""))

    def read_through(self, name: str, use: Callable[[BinaryIO], T]) -> T:
        """Return what `use` makes of a file that it reads from start to end. It is called again after a transfer that failed."""
        # A web server may not know ranges: a block size of 0 asks for the whole file once.
        whole = {"block_size": 0} if self.url.startswith("http") else {}

        def attempt() -> T:
            with self._filesystem().open(self._path(name), "rb", **whole) as stream:
                return use(stream)

        return self._retry(name, attempt)

    def _size(self, name: str) -> int | None:
        try:
            size = self._filesystem().info(self._path(name))["size"]
        except FileNotFoundError:
            return None
        return -1 if size is None else size

    def _transfer(self, name: str, to: Path, item: CacheItem) -> None:
        from fsspec.callbacks import Callback

        def limit(size: int | None, value: int, **_: Any) -> None:
            if value > item.max_bytes:  # the cache made room for no more
                raise _WrongContent(f"expected {_expected(item)}, found more than {item.max_bytes} bytes")

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

            # aiohttp ends a transfer after 300 s in all, too soon for a large shard; its proxies and netrc are off.
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
            options |= {"client_kwargs": {"timeout": timeout, "trust_env": True}}
        return driver(**options)

    def _path(self, name: str) -> str:
        """Return the driver's name of a file; an empty name stands for the folder."""
        import fsspec

        driver = fsspec.get_filesystem_class(self.url.partition("://")[0])
        if self.url.startswith("http"):
            name = quote(name)  # an adopted tar may have any name
        return driver._strip_protocol(self / name if name else self.url)

    def _retry(self, name: str, attempt: Callable[[], T]) -> T:
        """Return the result of an attempt, made again after a pause where that can help."""
        for tries, pause in enumerate((*_RETRY_SECONDS, None), 1):
            try:
                return attempt()
            except CollaganError:
                raise
            except Exception as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise  # our own disk is full
                if pause is None or _is_permanent(error):
                    where = self / name if name else self.url
                    times = f", {tries} times" if tries > 1 else ""
                    raise DataError(f"{where}: {_describe(error)}{times}") from error
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")


class _WrongContent(Exception):
    """A download is not what the manifest says."""


def _expected(item: CacheItem) -> str:
    # The manifest has no size of an index, only a bound.
    size = "at most" if item.suffix == ".idx" else "exactly"
    return f"{size} {item.max_bytes} bytes with sha256 {item.sha256[:12]}…"


def _is_permanent(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError | PermissionError) or getattr(error, "status", None) in _PERMANENT


def _describe(error: Exception) -> str:
    """Return a driver's error in one line."""
    if isinstance(error, _WrongContent):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "there is no such file there"
    if (status := getattr(error, "status", None)) is not None:
        return f"cannot be fetched (the server answers {status} {getattr(error, 'message', '')})"
    return f"cannot be fetched ({(str(error).splitlines() or [''])[0] or type(error).__name__})"
