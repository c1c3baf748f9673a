"""A folder in a store that fsspec knows (S3, GCS, Azure, the Hugging Face hub, HTTP), or on this machine, with bounded retries.

Credentials, endpoints and proxies come from the environment, as fsspec's drivers find them.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote, unquote

from collagan_dist import files
from collagan_dist.errors import CollaganError, ConfigError, DataError
from collagan_dist.urls import HINT, has_secret, redact_value

T = TypeVar("T")

LOCAL = "file"
# Scheme: the extra of this package that installs its driver; http comes with fsspec[http].
SCHEMES = {"http": "", "https": "", "s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "hf": "hf"}
# Others cannot be written by plain requests, or make a commit of every file (hf).
WRITABLE = ("s3", "gs", "gcs", "az", "abfs", LOCAL)
# What to do where a store does not know this user, by extra.
_ACCESS = {
    "": "credentials belong in ~/.netrc",
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in the environment (FSSPEC_S3_ANON=true for a public bucket)",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS in the environment",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY in the environment",
    "hf": "set HF_TOKEN in the environment, of an account that may read it",
}

_RETRY_SECONDS = (0.5, 2.0)  # before the second and the third try
_CONNECT_SECONDS, _READ_SECONDS = 15, 60  # without a connection, without a byte
_GONE = (404, 410)
_PERMANENT = (400, 401, 403, 404, 405, 410)  # HTTP answers that another try does not change
# What drivers raise where they find no credentials. Names, so that no driver is imported.
_NO_CREDENTIALS = (
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError", "ProfileNotFound",
    "DefaultCredentialsError", "RefreshError", "ClientAuthenticationError", "LocalTokenNotFoundError",
)  # fmt: skip
# Answers of a file system that another try, or a later start, hears again.
_UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
_UNUSABLE_TO_WRITE = (*_UNUSABLE, errno.ENOENT, errno.EEXIST)  # missing folders are made
_PIECE_BYTES = 1 << 24  # of a file that is read back


class WrongContent(Exception):
    """What came is not what was asked for; another try may bring it."""


class DamagedThere(DataError):
    """A file is missing there, or its content is another one."""


class Unusable(DataError):
    """A folder of this machine that this user cannot read or write, or no folder. It stays so until somebody changes it."""


class Unreachable(DataError):
    """No answer, or none that says anything: nobody knows what is there. A later start may have more luck."""


def scheme_of(location: str) -> str:
    """Return the scheme of a URL, or "" for a path."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", location)
    return found[1] if found else ""


def open_place(location: str, schemes: tuple[str, ...], use: str) -> Path | Place:
    """Return a local folder, or the place behind a URL of one of `schemes`. Raises ConfigError; `use` begins the sentence that says which are."""
    if not (scheme := scheme_of(location)):
        return Path(location)
    # Configurations come here too, not only arguments.
    if has_secret(location):
        raise ConfigError(f"{redact_value(location)}: {HINT}")
    # Only these schemes reach fsspec, which also has drivers for archives, local files and much else.
    rest = location[len(scheme) :].removeprefix("://")
    if scheme == LOCAL and rest.startswith("/"):
        return Path(unquote(rest))
    # file://name/x names a host, not a folder.
    if scheme == LOCAL or scheme not in schemes or not location.startswith(f"{scheme}://") or not rest.strip("/"):
        kinds = ", ".join(("file:///", *(f"{s}://" for s in schemes if s != LOCAL)))
        raise ConfigError(
            f"{location}: {use} a folder or {use.split()[-1]} {kinds} (a folder of that name is written ./{location})"
        )
    return Place(location.rstrip("/"))


@dataclass(frozen=True)
class Place:
    """A folder behind a URL, or a path.

    Methods raise DataError (DamagedThere, Unusable, Unreachable) after three tries where those may help, ConfigError for a missing driver.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> str:
        return f"{self.url}/{name}"

    def below(self, name: str) -> Place:
        return Place(self / name)

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0] if "://" in self.url else LOCAL

    def read(self, name: str, limit: int | None = None) -> bytes:
        """Return a file as it is there now, or its first `limit` bytes."""
        return self.retry(name, lambda: self._beginning(name, limit))

    def find_file(self, name: str, limit: int) -> bytes | None:
        """Return the first `limit` bytes of a small file, or None where there is none."""

        def attempt() -> bytes | None:
            with suppress(FileNotFoundError):
                return self._beginning(name, limit)
            return None

        return self.retry(name, attempt)

    def _beginning(self, name: str, limit: int | None) -> bytes:
        try:
            return bytes(self._driver().cat_file(self._path(name), end=limit))
        except Exception as error:
            # No store has a range of an empty object; s3fs says EINVAL of this and of other requests.
            unknown = _status(error) == 416 or getattr(error, "errno", None) == errno.EINVAL
            if limit is None or not unknown or self.size(name) != 0:
                raise
            return b""

    def get(self, name: str, to: Path, max_bytes: int, sha256: str, said: str) -> None:
        """Download a file of the given content; `said` is what is expected, in words. Raises OSError for a full disk."""

        def attempt() -> None:
            self._transfer(name, to, max_bytes, said)
            size = to.stat().st_size
            if (found := files.sha256(to)) != sha256:
                raise WrongContent(f"expected {said}, found {size} bytes with sha256 {found[:12]}…")
            files.fsync(to)

        self.retry(name, attempt)

    def find_to(self, name: str, to: Path) -> bool:
        """Download a file as it is there now, of any size; return False where there is none. Raises OSError for a full disk."""

        def attempt() -> bool:
            try:
                self._transfer(name, to)
            except FileNotFoundError:
                return False
            files.fsync(to)
            return True

        return self.retry(name, attempt)

    def _transfer(self, name: str, to: Path, max_bytes: float = math.inf, said: str = "") -> None:
        from fsspec.callbacks import DEFAULT_CALLBACK, Callback

        def limit(size: int | None, value: int, **_: Any) -> None:
            if value > max_bytes:  # there may be no room for more
                raise WrongContent(f"expected {said}, found more than {max_bytes} bytes")

        if self.scheme == LOCAL:
            with files.open_regular(self / name) as source, to.open("wb") as target:
                while piece := source.read(_PIECE_BYTES):
                    target.write(piece)
                    limit(None, target.tell())
            return
        driver, path = self._driver(), self._path(name)
        # With a callback of ours hf would ask for pieces of 5 MB; it takes no more than the size that it says.
        if self.scheme == "hf":
            limit(None, driver.info(path)["size"])
            driver.get_file(path, str(to), callback=DEFAULT_CALLBACK)
        else:
            driver.get_file(path, str(to), callback=Callback(hooks={"limit": limit}))

    def put(self, local: Path, name: str) -> None:
        """Upload a file. FileNotFoundError means that `local` is gone."""

        def attempt() -> None:
            if self.scheme != LOCAL:
                self._driver().put_file(str(local), self._path(name))
                return
            with files.open_regular(local) as source, files.atomic_write(self._made(name)) as target:
                shutil.copyfileobj(source, target, _PIECE_BYTES)

        try:
            self.retry(name, attempt, "written")
        except DataError:
            local.stat()  # drivers say the same of a file that is gone here
            raise

    def write(self, name: str, content: bytes, check: Callable[[], None] = lambda: None) -> None:
        """Write a small file, whole or not at all. `check` raises where it may not be written, before each try."""

        def attempt() -> None:
            check()
            if self.scheme != LOCAL:  # stores show an object when it is whole
                self._driver().pipe_file(self._path(name), content)
                return
            files.write_bytes(self._made(name), content)

        self.retry(name, attempt, "written")

    def sha256(self, name: str, size: int) -> str:
        """Return the hash of a file as it is read back, in pieces."""
        digest = hashlib.sha256()
        for start in range(0, size, _PIECE_BYTES):
            end = min(start + _PIECE_BYTES, size)

            def attempt(start: int = start, end: int = end) -> bytes:
                return bytes(self._driver().cat_file(self._path(name), start=start, end=end))

            digest.update(self.retry(name, attempt))
        return digest.hexdigest()

    def files_below(self, folder: str) -> list[str]:
        """Return the names of all files in a folder and its folders, relative to it; [] where there is no such folder."""
        root = self.below(folder)

        def attempt() -> list[str]:
            if self.scheme == LOCAL:
                return _files_below(Path(root.url))
            prefix = f"{root._path('').rstrip('/')}/"
            return [
                name.removeprefix(prefix) for name in self._driver().find(root._path("")) if name.startswith(prefix)
            ]

        return self.retry(folder, attempt)

    def remove(self, *names: str) -> None:
        """Remove files or folders; one that is gone already is no error."""
        for name in names:

            def attempt(name: str = name) -> None:
                with suppress(FileNotFoundError):
                    self._driver().rm(self._path(name), recursive=True)

            self.retry(name, attempt, "removed")

    def sizes(self, names: list[str], ask_each: bool) -> dict[str, int | None] | None:
        """Return the sizes of files: None for one that is missing, -1 where the server does not say.

        A file system that lists folders needs one request. HTTP has none: None, or with `ask_each` a request per file.
        """
        if not self.scheme.startswith("http"):
            found: dict[str, int] = {}
            for below in {name.rpartition("/")[0] for name in names}:  # adopted tars may lie in several folders
                found |= self._listed(below)
            return {name: found.get(name) for name in names}
        return {name: self.size(name) for name in names} if ask_each else None

    def size(self, name: str) -> int | None:
        """Return the size of a file, by a request for it alone: None for one that is missing, -1 where the server does not say."""

        def attempt() -> int | None:
            try:
                size: int | None = self._driver().info(self._path(name))["size"]
            except FileNotFoundError as error:
                if _reason(error) is error:
                    return None
                raise
            return -1 if size is None else size

        return self.retry(name, attempt)

    def _listed(self, below: str = "") -> dict[str, int]:
        """Return names and sizes of the files in a folder, by a request."""
        listed = self.retry(below, lambda: self._driver().ls(self._path(below), detail=True))
        prefix = f"{below}/" if below else ""
        return {prefix + entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in listed}

    def list_files(self) -> list[str]:
        """Return the names of the files below this folder, at any depth. Raises DataError for HTTP, which has no lists."""
        if self.scheme.startswith("http"):
            raise DataError(
                f"{self.url}: a web server does not list its files; name the tars, as {self.url}/{{000..099}}.tar"
            )
        return sorted(self.files_below(""))

    def read_through(self, name: str, use: Callable[[BinaryIO], T]) -> T:
        """Return what `use` makes of a file that it reads from start to end. It is called again after a transfer that failed."""
        # A web server may not know ranges: a block size of 0 asks for the whole file once.
        whole = {"block_size": 0} if self.scheme.startswith("http") else {}

        def attempt() -> T:
            with self._driver().open(self._path(name), "rb", **whole) as stream:
                return use(stream)

        return self.retry(name, attempt)

    def _made(self, name: str) -> Path:
        """Return the path of a file on this machine, whose folder exists."""
        path = Path(self / name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _driver(self) -> Any:
        import fsspec

        try:
            driver = fsspec.get_filesystem_class(self.scheme)
        except ImportError as error:
            extra = SCHEMES[self.scheme]
            raise ConfigError(
                f"{self.url}: {self.scheme}:// needs a package that is not installed; pip install 'collagan_dist[{extra}]' ({error})"
            ) from None
        options = driver._get_kwargs_from_urls(self.url)
        found = driver(**options | _options_of(self.scheme))
        if self.scheme == "s3":
            found.retries = 1  # of its own, around those of botocore (AWS_MAX_ATTEMPTS) and inside ours
        return found

    def _path(self, name: str) -> str:
        """Return the driver's name of a file; an empty name stands for the folder."""
        import fsspec

        driver = fsspec.get_filesystem_class(self.scheme)
        if self.scheme.startswith("http"):
            name = quote(name)  # an adopted tar may have any name
        return str(driver._strip_protocol(self / name if name else self.url))

    def retry(self, name: str, attempt: Callable[[], T], done: str = "fetched") -> T:
        """Return the result of an attempt, made again after a pause where that can help."""
        for tries, pause in enumerate((*_RETRY_SECONDS, None), 1):
            try:
                return attempt()
            except CollaganError:
                raise
            except Exception as raised:
                error = _reason(raised)
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise  # a disk of this machine is full
                where = self / name if name else self.url
                if self.scheme == LOCAL and isinstance(error, OSError) and _is_unusable(error, done):
                    problem = f"cannot be {done} ({error.strerror}); give a folder that this user can read and write"
                    raise Unusable(f"{error.filename or where}: {problem}") from error
                if pause is None or _is_permanent(error):
                    times = f", {tries} times" if tries > 1 else ""
                    raise _kind_of(error)(f"{where}: {self._describe(error, done)}{times}") from error
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _describe(self, error: Exception, done: str) -> str:
        """Return a driver's error in one line, with what mends it where that is known."""
        if isinstance(error, WrongContent):
            return str(error)
        access = _ACCESS[SCHEMES.get(self.scheme, "")]
        said = (str(error).splitlines() or [""])[0]
        if type(error).__name__ in _NO_CREDENTIALS:
            return f"there are no credentials for it ({said}); {access}"
        status = _status(error)
        if isinstance(error, FileNotFoundError):
            if "bucket does not exist" in said or "epository not found" in said:
                return f"there is no such bucket or repository ({said})"
            return "there is no such file there"
        if isinstance(error, PermissionError) or status in (401, 403):
            answer = f"the server answers {status} {getattr(error, 'message', '')}" if status else said
            return f"access is denied ({answer.strip()}); {access}"
        if status is not None:
            return f"cannot be {done} (the server answers {status} {getattr(error, 'message', '')})"
        return f"cannot be {done} ({said or type(error).__name__})"


def _files_below(root: Path) -> list[str]:
    """Return the names of all files below a folder of this machine. Raises OSError where a folder cannot be listed."""

    # fsspec takes a folder that cannot be read for one that is not there, and a file for none (isfile).
    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # removed meanwhile, or never there
            raise error

    found = os.walk(root, onerror=refuse)
    return sorted(str(Path(folder, name).relative_to(root)) for folder, _, names in found for name in names)


def _options_of(scheme: str) -> dict[str, Any]:
    """Return the options of a driver: its timeouts, and that it asks again what is there."""
    if scheme.startswith("http"):
        import aiohttp

        # aiohttp ends a transfer after 300 s in all, too soon for a large shard; its proxies and netrc are off.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
        return {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    if scheme == "s3":
        seconds = {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS}
        return {"config_kwargs": seconds, "use_listings_cache": False}
    return {} if scheme in ("hf", LOCAL) else {"use_listings_cache": False}


def _status(error: Exception) -> int | None:
    """Return the HTTP status of an answer that a driver made an error of."""
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _reason(error: Exception) -> Exception:
    """Return what is behind an error: fsspec's driver of the web calls a file missing whenever it cannot ask for its size."""
    cause = error.__cause__
    of_web = isinstance(cause, TimeoutError) or type(cause).__module__.startswith("aiohttp.")
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) and of_web and _status(cause) not in _GONE:
        return cause
    return error


def _kind_of(error: Exception) -> type[DataError]:
    if isinstance(error, WrongContent | FileNotFoundError):
        return DamagedThere
    return DataError if _is_permanent(error) else Unreachable


def _is_unusable(error: OSError, done: str) -> bool:
    return error.errno in (_UNUSABLE_TO_WRITE if done == "written" else _UNUSABLE)


def _is_permanent(error: Exception) -> bool:
    kinds = isinstance(error, FileNotFoundError | PermissionError) or type(error).__name__ in _NO_CREDENTIALS
    return kinds or _status(error) in _PERMANENT
