"""Any folder of pictures, with label maps and a table of landmarks where there are some."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath

from collagan_dist.data.readers.archives import PICTURE_SUFFIXES, FolderOrArchive, open_folder_or_archive
from collagan_dist.data.readers.landmark_csv import LandmarkRow, read_landmark_csv
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.types import MAX_KEY_BYTES, File, Sample

_SPLITS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}
_PLAIN_KEY = re.compile(r"[!-~]+")  # ASCII that is seen: an index separates words by blanks


def read_folder(recipe: Recipe) -> list[Sample]:
    """A sample for each picture below root, which may be an archive."""
    root = Path(recipe.root)
    tree = open_folder_or_archive(root)
    if tree is None:
        raise DataError(
            f"{root}: no such folder, and no {root.name}.zip or .tar there; give the folder of pictures (--root)"
        )
    labels = _below(root, recipe.labels)
    names = _pictures(tree, labels, recipe.labels)
    rows = _rows(root, tree, recipe.landmarks, names)
    splits = _splits(names, rows)
    samples = [
        Sample(
            key=key(name),
            source=name,
            path=tree.file(name),
            split=splits[name],
            landmarks=rows[name].landmarks if rows is not None else None,
            labels=_inside(root, tree, recipe.labels, f"{PurePosixPath(name).with_suffix('.png')}"),
            identity=rows[name].identity if rows is not None else None,
        )
        for name in names
        if splits[name] in recipe.splits
    ]
    if not samples:
        raise DataError(f"{tree.place}: no picture belongs to the splits {', '.join(recipe.splits)}")
    return samples


def key(name: str) -> str:
    """A sample's name from its picture's: any name becomes one, and plain ones stay as they are."""
    stem = str(PurePosixPath(name).with_suffix(""))
    plain = stem.replace("/", "__")
    if _PLAIN_KEY.fullmatch(plain) and "." not in plain and len(plain) <= MAX_KEY_BYTES:
        return plain
    mark = hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', plain)[: MAX_KEY_BYTES - 9]}-{mark}"


def _below(root: Path, path: str | None) -> str | None:
    """The name below root of a path that is relative to it or absolute; None when it lies elsewhere."""
    if path is None:
        return None
    name = os.path.relpath(Path(root, path).resolve(), root.resolve()).replace(os.sep, "/")
    return None if name.split("/")[0] == ".." else name


def _inside(root: Path, tree: FolderOrArchive, folder: str | None, name: str) -> File | None:
    """Where a file of the folder `folder`, below root or elsewhere, is read from."""
    if folder is None:
        return None
    below = _below(root, folder)
    return str(Path(root, folder, name)) if below is None else tree.file(f"{below}/{name}" if name else below)


def _pictures(tree: FolderOrArchive, labels: str | None, given: str | None) -> list[str]:
    if labels == ".":
        raise ConfigError(
            f"labels: {given}: is the folder of the pictures; put the label maps into a folder of their own"
        )
    names = [
        name
        for name in tree.listed()
        if name.lower().endswith(PICTURE_SUFFIXES) and not (labels is not None and name.startswith(f"{labels}/"))
    ]
    if not names:
        raise DataError(f"{tree.place}: holds no picture ({', '.join(PICTURE_SUFFIXES)})")
    return names


def _rows(root: Path, tree: FolderOrArchive, table: str | None, names: list[str]) -> dict[str, LandmarkRow] | None:
    """The table's row of every picture."""
    if table is None:
        return None
    file = _inside(root, tree, table, "")
    assert file is not None
    rows = read_landmark_csv(file)
    known = set(names)
    for name, row in rows.items():
        if name not in known:
            raise DataError(f"{file}:{row.line}: {name} is no picture below {tree.place}; add it, or remove the line")
    if lacking := [name for name in names if name not in rows]:
        raise DataError(
            f"{file}: has no row for {lacking[0]} of {tree.place} ({len(lacking)} such pictures); add it, or move the picture away"
        )
    return rows


def _splits(names: list[str], rows: dict[str, LandmarkRow] | None) -> dict[str, str]:
    """From the table, else from the top folders, else 80 / 10 / 10 by a hash of the name, which later pictures do not change."""
    if rows is not None and all(row.split is not None for row in rows.values()):
        return {name: row.split or "" for name, row in rows.items()}
    tops = {name: name.split("/")[0] if "/" in name else "" for name in names}
    if all(top in _SPLITS for top in tops.values()):
        return {name: _SPLITS[top] for name, top in tops.items()}
    return {name: _drawn(name) for name in names}


def _drawn(name: str) -> str:
    share = int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:4]) / 2**32
    return "train" if share < 0.8 else "valid" if share < 0.9 else "test"
