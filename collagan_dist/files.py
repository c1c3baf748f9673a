"""Atomic writing of files, file hashes and locks.

A file is written under a dotted name, flushed to disk and renamed, so that it is complete or absent at every moment.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from collagan_dist.errors import ConfigError, DataError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# A training whose command was killed holds the lock until it has saved a checkpoint.
_LOCK_WAIT_SECONDS = 20.0
_POLL_SECONDS = 0.1
LEAST_TEMPORARY_BYTES = 1 << 24


class DiskFull(DataError):
    """A disk or a quota is full; `bytes_written` bytes of the file had been written."""

    def __init__(self, text: str, written: int) -> None:
        super().__init__(text, written)
        self.bytes_written = written

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file that appears as `path` when the block ends without an error. Raises DiskFull."""
    # A random name: on a shared file system, processes of several nodes may have the same pid.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        # Without it a power cut may undo the rename.
        fsync(path.parent)
    except BaseException as error:
        # Sizes first: they are gone after the unlink.
        problem = _disk_full(path, partial) if isinstance(error, OSError) and error.errno in _DISK_FULL else None
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.filename == str(partial):
            error.filename = str(path)  # the other name is ours, and gone
        if problem is not None:
            raise problem from None
        raise


def _disk_full(path: Path, partial: Path) -> DiskFull:
    written = partial.stat().st_size if partial.exists() else 0
    free = shutil.disk_usage(path.parent).free
    return DiskFull(f"{path}: no space left after {written} bytes of it, {free} are free there; make room", written)


@contextmanager
def naming_full_disk(folder: Path) -> Iterator[None]:
    """Raise DiskFull with the name of `folder` where a library finds the disk full that it writes `folder` to."""
    # Libraries name what they read, or nothing.
    try:
        yield
    except (DiskFull, OSError, RuntimeError) as error:
        texts = [os.strerror(code) for code in _DISK_FULL]  # of libraries in Rust and C++
        full = isinstance(error, DiskFull) or getattr(error, "errno", None) in _DISK_FULL
        if not full and not any(text in str(error) for text in texts):
            raise
        free = shutil.disk_usage(folder.parent).free
        raise DiskFull(f"{folder}: no space left for it, {free} bytes are free there; make room", 0) from None


def free_bytes(folder: Path) -> int | None:
    """Return the bytes that this user may still write there; None where the file system does not say."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return None
    # Some network file systems report zero blocks in all. The reserve of a file system is root's alone.
    return (room.f_bavail if os.geteuid() else room.f_bfree) * room.f_frsize if room.f_blocks else None


def is_disk_full(error: OSError) -> bool:
    return error.errno in _DISK_FULL


def write_bytes(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, data: Any) -> None:
    # NaN is not JSON: other programs could not read the file.
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def read_regular(path: Path | str, limit: int, start: int | None = None) -> bytes:
    """Return the bytes of a regular file, or its first `start` bytes. Raises OSError, also for a file of over `limit` bytes.

    A FIFO, a device or a folder is an error at once: nothing is waited for.
    """
    handle, size = _open_regular(path)
    try:
        if start is None and size > limit:
            raise OSError(errno.EFBIG, f"has {size} bytes, more than {limit}", str(path))
        # Python sets aside as many bytes as are asked for, so not the limit at once: only where a file has more than it says,
        # because it grows or its file system says 0.
        content = _read(handle, size + 1 if start is None else start)
        if start is None and len(content) > size:
            content += _read(handle, limit + 1 - len(content))
        if start is None and len(content) > limit:
            raise OSError(errno.EFBIG, f"has at least {len(content)} bytes, more than {limit}", str(path))
    finally:
        os.close(handle)
    return content


def _read(handle: int, count: int) -> bytes:
    """Return the next bytes of a file, fewer than `count` where it ends."""
    pieces = [os.read(handle, count)]
    while pieces[-1] and (count := count - len(pieces[-1])):
        pieces.append(os.read(handle, count))
    return b"".join(pieces)


def open_regular(path: Path | str) -> BinaryIO:
    """Open a regular file for reading. Raises OSError, at once also for a FIFO, a device or a folder."""
    return os.fdopen(_open_regular(path)[0], "rb")


def _open_regular(path: Path | str) -> tuple[int, int]:
    """Return the descriptor of a regular file, and its size."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "has a NUL in its name", str(path))
    # Opening a FIFO would wait for a writer without O_NONBLOCK; a regular file does not know the flag.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, f"is {describe_file_type(status.st_mode)}, no regular file", str(path))
    return handle, status.st_size


def describe_file_type(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISREG, "a file"),
    )
    return next((name for test, name in kinds if test(mode)), "a device")


def fsync(path: Path) -> None:
    """Flush a file to disk, or the entries of a folder, so that renames in it survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def try_lock(handle: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Take a lock (flock) on an open file; return False if another process holds it.

    Return True on a file system without locks: no command could run there otherwise.
    """
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError as error:
        # EACCES too: NFS emulates flock by fcntl, which may report it for a lock that is held.
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


def one_line(path: str | Path) -> str:
    r"""Return a path as one line that `printf %b` of bash turns back: newlines as `\n`, backslashes doubled."""
    return str(path).replace("\\", r"\\").replace("\n", r"\n")


def check_temporary(place: Path, user: str) -> None:
    """Raise DiskFull where a folder of temporary files has not the room that `user`, a library, takes there at least."""
    # Libraries that find such a folder full say so in pages of their own words, or only that they waited in vain.
    free = free_bytes(place)
    if free is not None and free < LEAST_TEMPORARY_BYTES:
        raise DiskFull(
            f"{place}: {user} needs {LEAST_TEMPORARY_BYTES >> 20} MB there, {free} bytes are free; make room", 0
        )


@contextmanager
def temporary_folder(prefix: str, parent: str | None = None) -> Iterator[Path]:
    """Yield a folder that is gone after the block, in `parent` or where TMPDIR says.

    Raises ConfigError where none can be made, DiskFull.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull(f"{parent or 'TMPDIR'}: no space left for a temporary folder; make room", 0) from None
        place, mend = (
            (parent, "mount a tmpfs there") if parent else ("TMPDIR", "set TMPDIR to a folder that can be written")
        )
        raise ConfigError(f"{place}: no temporary folder can be made there ({error.strerror}); {mend}") from None
    with folder as path:
        yield Path(path)


def user_cache() -> Path:
    """Return the folder of this user's downloads."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "collagan_dist"


@contextmanager
def usable_folder(out: Path, option: str = "--out") -> Iterator[None]:
    """Turn what goes wrong when a command makes its output folder, or its first file there, into ConfigError."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{out}: cannot be used as a folder ({error.strerror}); give another {option}") from None


def check_writable(folder: Path, option: str = "--out") -> None:
    """Make a folder and raise ConfigError where it takes no file: before the work whose result goes there."""
    with usable_folder(folder, option):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # what permissions say of network storage need not be true


def check_file_writable(path: Path, option: str = "--out") -> None:
    """Make the folder of a file and raise ConfigError where it cannot be written: before the work whose result it is."""
    check_writable(path.parent, option)
    try:
        mode = path.stat().st_mode if path.exists() else stat.S_IFREG
        # Of the length that atomic_write needs.
        tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".partial").close()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); give another {option}") from None
    if not stat.S_ISREG(mode):
        kind = describe_file_type(mode)
        raise ConfigError(f"{path}: is {kind}, which no file replaces; give {option} the name of a file")


@contextmanager
def command_lock(out: Path, command: str) -> Iterator[int]:
    """Hold the lock of a command's output folder. Yield the descriptor of the lock file, which child processes may inherit.

    Raises ConfigError when the folder cannot be used or another command keeps its lock.
    """
    with usable_folder(out):
        out.mkdir(parents=True, exist_ok=True)
        # flock, not a file that exists: the kernel releases it when the last process that holds it ends.
        handle = os.open(out / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        last = time.monotonic() + _LOCK_WAIT_SECONDS
        while not try_lock(handle):
            if time.monotonic() > last:
                text = f"{out}: another `{command}`, or a training it began, is running there; wait until it ends, or give another --out"
                raise ConfigError(text)
            time.sleep(_POLL_SECONDS)
        yield handle
    finally:
        os.close(handle)
