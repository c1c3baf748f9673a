"""Read files of a data set from a folder, or in place from the zip or tar archive that it was published as.

Nothing is ever unpacked. All members of an archive are checked before its first byte is used. An archive is indexed
once a process; forked workers inherit that index.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import stat
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from collagan_dist import files
from collagan_dist.data.readers.picture_format import (
    OTHER_SUFFIXES,
    PICTURE_SUFFIXES,
    SIGNATURE_BYTES,
    picture_format,
    split_suffix,
)
from collagan_dist.errors import DataError
from collagan_dist.types import ArchiveMember, File, FileInMemory

logger = logging.getLogger(__name__)

MAX_MEMBER_BYTES = 1 << 28  # a false size in an archive must not fill the memory

_ARCHIVES = (".zip", ".tar")
# Files and folders, in lower case, that systems and network storage leave beside pictures. So are all names with a dot in front.
_HELPERS = frozenset(
    ("__macosx", "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin", "lost+found",
     "system volume information", "network trash folder", "thumbs.db", "ehthumbs.db", "desktop.ini")
)  # fmt: skip

# What the two libraries raise for an archive that is damaged.
_DAMAGE_ERRORS = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError, NotImplementedError,
    OverflowError, RecursionError, MemoryError,  # sizes beyond all numbers, headers of headers without end
)  # fmt: skip
# Errors of the machine or its storage: trying again may mend them, another copy of the file does not.
_MACHINE_ERRORS = (errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT)


@dataclass(frozen=True)
class FolderOrArchive:
    """A folder, or an archive in its place. `names` is None for a folder, whose files are not listed in advance."""

    path: str
    prefix: str = ""
    names: tuple[str, ...] | None = None
    recursive: bool = True

    def file(self, name: str) -> File:
        """Return where to read the file `name` ("/" between folders); it need not exist."""
        if self.names is not None:
            return ArchiveMember(self.path, self.prefix + name)
        return name if self.path == "." else os.path.join(self.path, name)  # noqa: PTH118 (Path takes ten times as long)

    def folder(self, name: str = "") -> FolderOrArchive:
        """Return the place of a folder in it, or of itself, without a list of names."""
        if self.names is None:
            return FolderOrArchive(str(Path(self.path, name)))
        return FolderOrArchive(self.path, self.prefix + (f"{name}/" if name else ""), ())

    def list_files(self) -> list[str]:
        """Return the sorted names of all files, without those that systems and network storage leave."""
        return self._list()[0]

    def list_pictures(self) -> list[str]:
        """Return the sorted names of all pictures, by suffix, else by content; whether they can be read is seen later."""
        names, links = self._list()
        names = [name for name in names if self._is_picture(name)]
        if links := links.intersection(names):
            logger.info("%s: %d of %d pictures are links, which are followed", self.path, len(links), len(names))
        return names

    def _list(self) -> tuple[list[str], set[str]]:
        """Return the sorted names of all files, and those of them that are links."""
        if self.names is None:
            return _walk(Path(self.path), self.recursive)
        return sorted(name for name in self.names if not any(map(_is_helper, name.split("/")))), set()

    def _is_picture(self, name: str) -> bool:
        suffix = split_suffix(name)[1].lower()
        if suffix in PICTURE_SUFFIXES or suffix in OTHER_SUFFIXES:
            return suffix in PICTURE_SUFFIXES
        try:
            return picture_format(read_head(self.file(name), SIGNATURE_BYTES)) is not None
        except OSError:  # a FIFO, or a link to nothing
            return False


def open_folder_or_archive(folder: Path) -> FolderOrArchive | None:
    """Return the folder, the zip or tar archive itself, else FOLDER.zip or FOLDER.tar beside it, else None.

    Raises DataError for an archive that is damaged, encrypted or has a member that no data set needs.
    """
    # An unpacked folder comes first: it needs no index.
    if folder.is_dir():
        return FolderOrArchive(str(folder))
    if folder.suffix.lower() in _ARCHIVES and folder.is_file():
        path, folder = folder, folder.with_suffix("")
    elif beside := [p for s in _ARCHIVES if (p := folder.with_name(folder.name + s)).is_file()]:
        path = beside[0]
    else:
        return None
    names = list(open_archive(str(path)).members)
    # People archive a folder with or without the folder itself. macOS adds __MACOSX/ outside of it.
    top = f"{folder.name}/"
    inside = all(n.startswith(top) for n in names if n.lower().endswith(PICTURE_SUFFIXES) and n[:9] != "__MACOSX/")
    prefix = top if inside and any(n.startswith(top) for n in names) else ""
    return FolderOrArchive(str(path), prefix, tuple(n.removeprefix(prefix) for n in names if n.startswith(prefix)))


def _is_helper(part: str) -> bool:
    return part.startswith(".") or part.lower() in _HELPERS


def read_file(file: File) -> bytes:
    """Return all bytes of a file.

    Raises OSError where it cannot be read, DataError where its archive is refused or the storage fails.
    """
    if isinstance(file, str):
        try:
            return files.read_regular(file, MAX_MEMBER_BYTES)
        except OSError as error:
            # EIO of a file on disk is a failing disk; EIO of an archive's member is damage of that member.
            raise (_storage_fails(file, error) if error.errno in (*_MACHINE_ERRORS, errno.EIO) else error) from None
    if isinstance(file, FileInMemory):
        return file.content
    return open_archive(file.archive).read(file.name)


def read_head(file: File, count: int) -> bytes:
    """Return the first `count` bytes of a file. Raises like `read_file`."""
    if isinstance(file, str):
        return files.read_regular(file, MAX_MEMBER_BYTES, count)
    if isinstance(file, FileInMemory):
        return file.content[:count]
    return open_archive(file.archive).read(file.name, count)


def open_archive(path: str) -> Archive:
    """Return the checked archive; the same object until the file changes. Raises DataError."""
    try:
        status = Path(path).stat()
        return _open_archive(path, status.st_mtime_ns, status.st_size)
    except (OSError, *_DAMAGE_ERRORS) as error:
        if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
            raise _storage_fails(path, error) from None
        raise DataError(
            f"{path}: is damaged, or no plain {Path(path).suffix[1:]} archive ({error}); download it again"
        ) from None


def _storage_fails(path: str, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror}); the same command continues when it can")


# By time and size, so that an archive which was replaced is indexed again.
@lru_cache(8)
def _open_archive(path: str, modified: int, size: int) -> Archive:
    return ZipArchive(path) if path.lower().endswith(".zip") else TarArchive(path)


def _walk(folder: Path, recursive: bool) -> tuple[list[str], set[str]]:
    """Return the sorted names of all files in or below a folder, and those that are links; links to folders are followed once."""
    names, links, pending, seen = list[str](), set[str](), [""], set()
    while pending:
        below = pending.pop()
        try:
            status = Path(folder, below).stat()
            # A link to a folder above would be followed for ever.
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            inner = []
            with os.scandir(Path(folder, below)) as entries:
                for entry in entries:
                    name = f"{below}/{entry.name}" if below else entry.name
                    if _is_helper(entry.name):
                        continue
                    if entry.is_dir():
                        inner.append(name)
                        continue
                    names.append(name)
                    if entry.is_symlink():
                        links.add(name)
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be listed ({error.strerror})") from None
        pending += sorted(inner) if recursive else []
    names.sort()
    return names, links


class Archive(ABC):
    """An archive of plain files. `members` maps a file's name to what reading it needs."""

    backslashes = False  # between folders, too

    def __init__(self, path: str) -> None:
        self.path = path
        self.members: dict[str, Any] = {}

    @abstractmethod
    def read(self, name: str, count: int | None = None) -> bytes:
        """Return the bytes of a member, or its first `count`. Raises OSError."""

    def _find(self, name: str) -> Any:
        if name not in self.members:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.path}/{name}")
        return self.members[name]

    def _check_name(self, name: str, mode: int) -> str:
        """Return the name that files are asked for. Raises DataError where name or mode could harm who unpacks it.

        Pictures are never unpacked here, but an archive with such a member is not the published one.
        """
        parts = re.split(r"[/\\]", name)
        if "\0" in name or not name:
            raise self._refusal(name, "has no proper name")
        if parts[0] == "" or re.match(r"[A-Za-z]:[/\\]", name):
            raise self._refusal(name, "has an absolute path")
        if ".." in parts:
            raise self._refusal(name, "points out of the archive (..)")
        if mode & (stat.S_ISUID | stat.S_ISGID):
            raise self._refusal(name, "is setuid or setgid")
        # Some programs write backslashes between folders.
        plain = "/".join(p for p in (parts if self.backslashes else name.split("/")) if p not in ("", "."))
        if plain in self.members:
            raise self._refusal(name, "is there twice")
        return plain

    def _refusal(self, member: str, reason: str) -> DataError:
        return DataError(
            f"{self.path}: refused for its member {member!r}, which {reason}: no archive of pictures needs that; "
            "download it again from a source that you trust"
        )


class ZipArchive(Archive):
    """A zip archive, read by `zipfile`; `members` holds ZipInfo."""

    backslashes = True

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._zip, self._pid = zipfile.ZipFile(path), os.getpid()
        for info in self._zip.infolist():
            mode = info.external_attr >> 16
            # `filename` ends at a NUL; the name as it is written does not.
            name = self._check_name(info.orig_filename, mode)
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise self._refusal(info.filename, "is a link" if stat.S_ISLNK(mode) else "is a device or the like")
            if info.flag_bits & 1:
                raise DataError(f"{path}: is encrypted ({info.filename}); make one without a password")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(f"{path}: {info.filename} is compressed by method {info.compress_type}; use deflate")
            if not info.is_dir():
                self.members[name] = info

    def read(self, name: str, count: int | None = None) -> bytes:
        info = self._find(name)
        _check_size(info.file_size)
        if self._pid != os.getpid():
            # A forked worker shares the file position of its parent and siblings: reads would meet other pictures.
            self._zip.fp, self._pid = io.BufferedReader(io.FileIO(self.path)), os.getpid()
        try:
            # Bounded, whatever the archive says of the size: ZipFile.read inflates all there is.
            with self._zip.open(info) as member:
                return member.read(info.file_size if count is None else count)
        except (*_DAMAGE_ERRORS, RuntimeError) as error:
            raise OSError(errno.EIO, f"damaged in its archive ({error})") from None


class TarArchive(Archive):
    """A tar archive, indexed by `tarfile`; `members` holds (offset, bytes) and not TarInfo, which takes 1 kB each."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._file, end = os.open(path, os.O_RDONLY | os.O_CLOEXEC), 0
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = self._check_name(member.name, member.mode)
                if member.issym() or member.islnk():
                    raise self._refusal(member.name, "is a link")
                if member.issparse() or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
                    raise self._refusal(member.name, "is a device or the like")
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if not member.isdir():
                    self.members[name] = (member.offset_data, member.size)
        # tarfile stops at a damaged header without an error; an undamaged archive ends in zeros.
        if os.pread(self._file, tarfile.BLOCKSIZE, end) != bytes(tarfile.BLOCKSIZE):
            raise DataError(f"{path}: is damaged or cut short after {len(self.members)} files; download it again")

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def read(self, name: str, count: int | None = None) -> bytes:
        offset, size = self._find(name)
        _check_size(size)
        size = size if count is None else min(size, count)
        content = os.pread(self._file, size, offset)  # needs no file position, so forked workers may share the file
        if len(content) < size:
            raise OSError(errno.EIO, "cut short in its archive")
        return content


def _check_size(size: int) -> None:
    if size > MAX_MEMBER_BYTES:
        raise OSError(errno.EFBIG, f"has {size} bytes, more than {MAX_MEMBER_BYTES}")
