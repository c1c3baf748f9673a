"""Pictures inside the zip or tar archive that a data set is published as, read in place: nothing is ever unpacked.

An archive is judged whole before its first byte is used, and opened once a process. Reading is positioned (`pread`), so
workers may share what their parent opened.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from collagan_dist.errors import DataError
from collagan_dist.types import ArchiveMember, File

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MAX_BYTES = 1 << 28  # of one file in an archive: a size that is a lie must not fill the memory

_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_TAR_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)


@dataclass(frozen=True)
class FolderOrArchive:
    """A folder, or the archive that stands for it. `names` are None for a folder, whose files are not listed in advance."""

    place: str
    base: str = ""
    names: tuple[str, ...] | None = None

    def file(self, name: str) -> File:
        """Where the file `name` (with "/") below this tree is read from; it need not exist."""
        return str(Path(self.place, name)) if self.names is None else ArchiveMember(self.place, self.base + name)

    def listed(self) -> list[str]:
        """Names of all files below, sorted, none of whose parts begins with a dot."""
        names = _walk(Path(self.place)) if self.names is None else iter(self.names)
        return sorted(n for n in names if not any(part.startswith(".") for part in n.split("/")))


def open_folder_or_archive(folder: Path) -> FolderOrArchive | None:
    """The folder, or FOLDER.zip or FOLDER.tar beside it; None where there is neither.

    Members of an archive are named from its top folder, where that has the archive's name and holds all its pictures.
    Raises DataError for an archive that is damaged, encrypted or holds what no data set needs.
    """
    if folder.is_dir():
        return FolderOrArchive(str(folder))
    path = next((p for s in (".zip", ".tar") if (p := folder.with_name(folder.name + s)).is_file()), None)
    if path is None:
        return None
    names = open_archive(str(path)).names
    top = f"{folder.name}/"
    inside = all(
        n.startswith(top) for n in names if n.lower().endswith(PICTURE_SUFFIXES) and not n.startswith("__MACOSX/")
    )
    base = top if inside and any(n.startswith(top) for n in names) else ""
    return FolderOrArchive(str(path), base, tuple(n.removeprefix(base) for n in names if n.startswith(base)))


def read(file: File) -> bytes:
    """All bytes of a file. Raises OSError, whatever is wrong with it, and DataError for an unsound archive."""
    if isinstance(file, str):
        return Path(file).read_bytes()
    return open_archive(file.archive).read(file.name)


def open_archive(path: str) -> Archive:
    """The archive, judged and indexed; the same object as long as the file does not change. Raises DataError."""
    try:
        status = Path(path).stat()
        return _open_archive(path, status.st_mtime_ns, status.st_size)
    except (
        OSError,
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        EOFError,
        ValueError,
        NotImplementedError,
    ) as error:
        raise DataError(
            f"{path}: is damaged, or no plain {Path(path).suffix[1:]} archive ({error}); download it anew"
        ) from None


@lru_cache(8)
def _open_archive(path: str, modified: int, size: int) -> Archive:
    return ZipArchive(path) if path.endswith(".zip") else TarArchive(path)


def _walk(folder: Path) -> Iterator[str]:
    """Names of all files below a folder, through links to folders too, none of them twice."""
    seen = set()

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror})")

    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        folders.sort()
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below = Path(place).relative_to(folder)
        yield from ((below / name).as_posix() for name in names)


class _Positioned(io.RawIOBase):
    """A file whose position is this object's own, and not shared with the processes that inherit its handle."""

    def __init__(self, path: str) -> None:
        self.handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._at = 0
        self._size = os.fstat(self.handle).st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if at < 0:
            raise OSError(errno.EINVAL, "a place before its first byte")
        self._at = at
        return at

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        count = os.preadv(self.handle, [view], self._at)
        self._at += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self.handle)
        super().close()


class Archive(ABC):
    """The plain files of an archive by name."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._raw = _Positioned(path)
        self._file = io.BufferedReader(self._raw)

    @property
    @abstractmethod
    def names(self) -> list[str]: ...

    @abstractmethod
    def read(self, name: str) -> bytes: ...

    def _refuse(self, member: str, why: str) -> DataError:
        return DataError(
            f"{self.path}: refused for its member {member!r}, which {why}: no archive of pictures needs that; "
            "download it anew from a source you trust"
        )

    def _judge(self, name: str, mode: int, known: Container[str]) -> str:
        """The name as files are asked for ("/", no dots). Raises DataError for a name or mode that is none of a picture."""
        parts = re.split(r"[/\\]", name)
        if "\0" in name or not name:
            raise self._refuse(name, "has no proper name")
        if parts[0] == "" or re.match(r"[A-Za-z]:[/\\]", name):
            raise self._refuse(name, "has an absolute path")
        if ".." in parts:
            raise self._refuse(name, "points out of the archive (..)")
        if mode & (stat.S_ISUID | stat.S_ISGID):
            raise self._refuse(name, "is setuid or setgid")
        plain = "/".join(p for p in name.split("/") if p not in ("", "."))
        if plain in known:
            raise self._refuse(name, "is there twice")
        return plain


class ZipArchive(Archive):
    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._zip = zipfile.ZipFile(self._file)
        for info in self._zip.infolist():
            mode = info.external_attr >> 16
            # `filename` ends at a NUL, the name as it is written does not.
            name = self._judge(info.orig_filename, mode, self._members)
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise self._refuse(info.filename, "is a link" if stat.S_ISLNK(mode) else "is a device or the like")
            if info.flag_bits & 1:
                raise DataError(f"{path}: is encrypted ({info.filename}); make one without a password")
            if info.compress_type not in _COMPRESSIONS:
                raise DataError(f"{path}: {info.filename} is compressed by method {info.compress_type}; use deflate")
            if not info.is_dir():
                self._members[name] = info

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def read(self, name: str) -> bytes:
        info = self._members.get(name)
        if info is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.path}/{name}")
        if info.file_size > MAX_BYTES:
            raise OSError(errno.EFBIG, f"has {info.file_size} bytes, more than {MAX_BYTES}")
        try:
            return self._zip.read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
            raise OSError(errno.EIO, f"damaged in its archive ({error})") from None


class TarArchive(Archive):
    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._members: dict[str, tuple[int, int]] = {}  # offset, size
        end = 0
        with tarfile.open(fileobj=self._file, mode="r:") as tar:
            for member in tar:
                name = self._judge(member.name, member.mode, self._members)
                if member.issym() or member.islnk():
                    raise self._refuse(member.name, "is a link")
                if member.issparse() or member.type not in (*_TAR_FILES, tarfile.DIRTYPE):
                    raise self._refuse(member.name, "is a device or the like")
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if not member.isdir():
                    self._members[name] = (member.offset_data, member.size)
        # tarfile stops without a word at a damaged header; a sound archive ends in zeros.
        if os.pread(self._raw.handle, tarfile.BLOCKSIZE, end) != bytes(tarfile.BLOCKSIZE):
            raise DataError(f"{path}: is damaged or cut short behind {len(self._members)} files; download it anew")

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def read(self, name: str) -> bytes:
        place = self._members.get(name)
        if place is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.path}/{name}")
        offset, size = place
        if size > MAX_BYTES:
            raise OSError(errno.EFBIG, f"has {size} bytes, more than {MAX_BYTES}")
        content = os.pread(self._raw.handle, size, offset)
        if len(content) < size:
            raise OSError(errno.EIO, "cut short in its archive")
        return content
