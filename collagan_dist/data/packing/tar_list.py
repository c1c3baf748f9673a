"""Which tars `collagan adopt` is given, in folders or behind URLs, and what splits their names say."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from collagan_dist.data.readers.folder import SPLIT_OF_FOLDER
from collagan_dist.data.shards.manifest import FILE_NAME
from collagan_dist.data.shards.remote import RemoteFolder, open_location
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.types import SPLITS

SplitBy = Literal["auto", "names", "hash"]
_BRACES = re.compile(r"\{([^{}]*)\}")
_WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAX_TARS = 1_000_000
# File systems have names of up to 255 bytes; the longest of ours is .STEM.train.samples.01234567.partial.
_MAX_STEM_BYTES, _MAX_PART_BYTES = 223, 255


@dataclass(frozen=True)
class TarList:
    """Tars by their sorted names below one folder or URL."""

    folder: Path | RemoteFolder
    names: tuple[str, ...]

    def place(self, name: str) -> str:
        return str(self.folder / name)


def find_tars(words: Sequence[str]) -> TarList:
    """Return the tars that paths, folders or URLs name; {000..099} and {a,b} stand for several.

    Raises DataError where there is none, or one has a name that a manifest cannot hold; ConfigError for a URL of another kind.
    """
    given = [one for word in words for one in ([word] if Path(word).exists() else expand_braces(word))]
    remote = [isinstance(open_location(word), RemoteFolder) for word in given]
    if any(remote) and not all(remote):
        raise ConfigError("the tars of one data set lie in folders or behind a URL, not both; give one kind")
    found = _remote_tars(given) if any(remote) else _local_tars(given)
    if not found.names:
        raise DataError(f"{' '.join(words)}: there is no tar; give tars, folders that hold *.tar, or URLs of tars")
    for name in found.names:
        if not FILE_NAME.fullmatch(name) or len(name) > 950 or not _is_utf8(name):
            raise DataError(
                f"{found.place(name)}: has a name that a manifest cannot hold (control characters, a backslash, a dot in front, "
                "over 950 letters, or no UTF-8); rename it"
            )
        if not _has_room(name):
            raise DataError(
                f"{found.place(name)}: has a name over {_MAX_STEM_BYTES} bytes, too long for the names of its indexes; rename it"
            )
    # Indexes are called by these.
    stems = {name.lower().removesuffix(".tar"): name for name in found.names}
    if twice := [name for name in found.names if stems[name.lower().removesuffix(".tar")] != name]:
        raise DataError(
            f"{found.place(twice[0])}: differs from another tar by its suffix or by capitals alone; rename it"
        )
    return found


def _has_room(name: str) -> bool:
    *folders, last = name.encode().split(b"/")
    stem = last[:-4] if last.lower().endswith(b".tar") else last
    return len(stem) <= _MAX_STEM_BYTES and all(len(folder) <= _MAX_PART_BYTES for folder in folders)


def _is_utf8(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def expand_braces(word: str) -> Iterator[str]:
    """Yield the words that {000..099} and {a,b} stand for, as shells do. Raises ConfigError for too many."""
    if (found := _BRACES.search(word)) is None:
        yield word
        return
    if (ends := _RANGE.fullmatch(found[1])) is not None:
        first, last = int(ends[1]), int(ends[2])
        if abs(last - first) >= _MAX_TARS:
            raise ConfigError(f"{found[0]}: stands for more than {_MAX_TARS} tars")
        numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
        options = [f"{number:0{len(ends[1])}d}" for number in numbers]
    else:
        options = found[1].split(",")
    for option in options:
        yield from expand_braces(word[: found.start()] + option + word[found.end() :])


def _local_tars(given: Sequence[str]) -> TarList:
    places: set[Path] = set()
    paths = [absolute(Path(str(open_location(word)))) for word in given]
    for path in paths:
        if path.is_dir():
            places |= set(_tars_below(path))
        elif path.exists():
            places.add(path)
        else:
            raise DataError(f"{path}: no such file; give tars, or folders that hold *.tar")
    if not places:
        return TarList(Path(), ())
    one_folder = len(paths) == 1 and paths[0].is_dir()
    top = paths[0] if one_folder else Path(posixpath.commonpath([str(path.parent) for path in places]))
    return TarList(top, tuple(sorted(path.relative_to(top).as_posix() for path in places)))


def absolute(path: Path) -> Path:
    """Return the absolute path of a tar or folder; links are not followed: a folder of links to tars is a data set of its own."""
    path = path.absolute()
    if ".." in path.parts:  # what lies above the end of a link, only the system knows
        return path.resolve() if path.is_dir() else path.parent.resolve() / path.name
    return path


def _tars_below(folder: Path) -> Iterator[Path]:
    """Yield the tars at any depth, but for names with a dot in front. Raises DataError for a folder or a tar that cannot be read."""

    def refuse(error: OSError) -> None:
        raise DataError(
            f"{error.filename}: cannot be read ({error.strerror}), so tars may be missed; mend that, or name the tars"
        )

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if _is_tar(name):
                path = Path(place, name)
                if not path.is_file():  # is_file follows links
                    raise DataError(f"{path}: is no file, or a link to none; remove it, or name the tars")
                yield path


def _is_tar(name: str) -> bool:
    """Return whether a file below a folder is a tar to take, by its name there."""
    return name.lower().endswith(".tar") and not any(part.startswith(".") for part in name.split("/"))


def _remote_tars(given: Sequence[str]) -> TarList:
    urls: set[str] = set()
    for word in given:
        if word.lower().endswith(".tar"):
            urls.add(word)
        else:
            folder = open_location(word)
            assert isinstance(folder, RemoteFolder)
            urls |= {str(folder / name) for name in folder.list_files() if _is_tar(name)}
    if not urls:
        return TarList(Path(), ())
    scheme, _, _ = next(iter(urls)).partition("://")
    if {url.partition("://")[0] for url in urls} != {scheme}:
        raise ConfigError("the tars of one data set have URLs of one kind; give one")
    paths = [url.partition("://")[2] for url in urls]
    top = posixpath.commonpath([posixpath.dirname(path) for path in paths])
    if not top:
        raise ConfigError("the tars of one data set lie on one server; give those of one")
    folder = open_location(f"{scheme}://{top}")
    assert isinstance(folder, RemoteFolder)
    # As the server's files are called: a URL of the web quotes what is no plain letter.
    plain = unquote if scheme.startswith("http") else str
    # Quoted or not, it is one tar.
    return TarList(folder, tuple(sorted({plain(path.removeprefix(f"{top}/")) for path in paths})))


def splits_of_tars(tars: TarList, split_by: SplitBy) -> dict[str, str] | None:
    """Return the split of each tar by its name or its folders; None where samples are split by a hash.

    One tar alone that is not named after the training is split by the hash, unless `names` is asked for: nothing could be trained.
    Raises DataError where names say it of some tars only.
    """
    if split_by == "hash":
        return None
    if split_by == "auto" and len(tars.names) == 1 and splits_named(tars.names[0]) != {"train"}:
        return None
    found = {name: splits_named(name) for name in tars.names}
    if not any(found.values()) and split_by == "auto":
        return None
    if unclear := [name for name, splits in found.items() if len(splits) != 1]:
        raise DataError(
            f"{tars.folder}: {len(found) - len(unclear)} of {len(found)} tars have a split in their name or folder "
            f"({', '.join(SPLIT_OF_FOLDER)}), {unclear[0]} has not one ({len(unclear)} such tars); rename these, or say "
            "--split-by hash, which draws the split of each sample"
        )
    return {name: next(iter(splits)) for name, splits in found.items()}


def splits_named(name: str) -> set[str]:
    """Return the splits that the words of a tar's name and its folders are names of."""
    # myTrain.tar, testset-0.tar; case tells words apart.
    words = [word.lower().removesuffix("set") for word in _WORD.findall(re.sub(r"(?i)\.tar$", "", name))]
    named = {SPLIT_OF_FOLDER[word] for word in words if word in SPLIT_OF_FOLDER}
    assert named <= set(SPLITS)
    return named
