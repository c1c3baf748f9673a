"""Reader of any folder of pictures, with label maps and a CSV of landmarks where the recipe names them."""

from __future__ import annotations

import hashlib
import logging
import os
import posixpath
import re
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from collagan_dist.data.readers.archives import FolderOrArchive, open_folder_or_archive, read_head
from collagan_dist.data.readers.landmark_csv import LandmarkTable, read_landmark_csv
from collagan_dist.data.readers.picture import UnusablePicture, read_picture
from collagan_dist.data.readers.picture_format import (
    FORMATS,
    SIGNATURE_BYTES,
    is_grey_png,
    picture_format,
    split_masks,
    split_suffix,
)
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.readers.samples import Samples
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.types import MAX_KEY_BYTES, SPLITS, File

logger = logging.getLogger(__name__)

# Names of folders, in lower case, that people give to splits.
SPLIT_OF_FOLDER = {
    "train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test", "testing": "test",
}  # fmt: skip
_NAME_AND_WORD = re.compile(r"(.+?)([_.-][A-Za-z]\w*)?", re.DOTALL)  # 00001_skin: 00001 and _skin
_LABEL_COLOURS = 64  # a label map painted in colours, or a mask, has no more; a photograph has thousands
# Printable ASCII without dots and blanks: the index of a shard separates fields by blanks.
_PLAIN_KEY = re.compile(r"[!-\-/-~]+")


def read_folder(recipe: Recipe) -> Samples:
    """Return a sample for each picture below root, which may be an archive."""
    root = Path(recipe.root)
    if (source := open_folder_or_archive(root)) is None:
        raise DataError(
            f"{root}: no such folder, and no {root.name}.zip or .tar there; give the folder of pictures (--root)"
        )
    below = _name_below(root, recipe.labels)
    names = _list_pictures(source, below, recipe.labels)
    table = _read_table(root, source, recipe.landmarks, names)
    splits, landmarks, identities = table.columns(names) if table is not None else (None, None, None)
    # What lies below root is in the archive when root is one; anything else is on disk.
    labels = source.folder(below) if below is not None else FolderOrArchive(str(root / (recipe.labels or "")))
    samples = Samples(
        partial(_files_of, source.folder(), labels if recipe.labels is not None else None),
        np.array(list(map(key, names)), object),
        np.array(names, object),
        _assign_splits(source.path, names, splits, recipe.split_by),
        landmarks,
        identities,
    ).of_splits(recipe.splits)
    if not len(samples):
        raise DataError(f"{source.path}: no picture belongs to the splits {', '.join(recipe.splits)}")
    return samples


def _files_of(
    pictures: FolderOrArchive, labels: FolderOrArchive | None, key: str, name: str
) -> tuple[File, File | None]:
    return pictures.file(name), labels.file(f"{split_suffix(name)[0]}.png") if labels is not None else None


def key(name: str) -> str:
    """Return the sample key of a picture's name: plain names stay as they are, others end in a hash."""
    stem = split_suffix(name)[0]
    plain = stem.replace("/", "__")
    # A dot would end the key in a tar of webdataset.
    if _PLAIN_KEY.fullmatch(plain) and len(plain) <= MAX_KEY_BYTES:
        return plain
    digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', plain)[: MAX_KEY_BYTES - 9]}-{digest}"


def _name_below(root: Path, path: str | None) -> str | None:
    """Return the name below root of a relative or absolute path; None where it is elsewhere."""
    if path is None:
        return None
    name = os.path.relpath(Path(root, path).resolve(), root.resolve()).replace(os.sep, "/")
    return None if name.split("/")[0] == ".." else name


def _list_pictures(source: FolderOrArchive, labels: str | None, labels_in_recipe: str | None) -> list[str]:
    if labels == ".":
        raise ConfigError(
            f"labels: {labels_in_recipe}: is the folder of the pictures; put the label maps into a folder of their own"
        )
    # Label maps are PNGs too: those below root are not pictures.
    names = [name for name in source.list_pictures() if not (labels is not None and name.startswith(f"{labels}/"))]
    names, masks = split_masks(names)
    if masks:
        logger.info(
            "%s: %d masks beside pictures, such as %s, are not packed; `collagan complete --hole` takes them",
            source.path, len(masks), masks[0],
        )  # fmt: skip
    if not names:
        raise DataError(f"{source.path}: holds no picture ({', '.join(FORMATS)})")
    _refuse_label_maps(source, names)
    return names


def _refuse_label_maps(source: FolderOrArchive, names: list[str]) -> None:
    """Raise DataError for label maps or masks of other pictures, which would be packed as photographs.

    They have the names of their pictures in a folder of their own, or such a name and a word: 1_seg.png, 00001_skin.png.
    """
    if len({posixpath.dirname(name) for name in names}) < 2 and not any(word for _, _, word in map(_parts, names)):
        return  # most sets: what follows takes memory
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for name, (folder, base, word) in zip(names, map(_parts, names), strict=True):
        # Zeros in front do not count: CelebAMask-HQ has masks 00001_skin.png of picture 1.jpg.
        groups.setdefault((folder, ""), {})[(base + word).lstrip("0")] = name
        if word:
            groups.setdefault((folder, word), {})[base.lstrip("0")] = name
    folders = Counter(stem for (_, word), files in groups.items() if not word for stem in files)
    for (folder, word), files in groups.items():
        # Three of them are looked at: what looks so by chance does not so three times.
        others = all(folders[stem] > (not word) for stem in files)
        if others and all(_is_label_like(source, name) for name in list(files.values())[:3]):
            here = f"the files NAME{word}.png of {folder}/" if word else f"the other files of {folder}/"
            raise DataError(
                f"{source.path}: {next(iter(files.values()))} and {here} look like label maps or masks of pictures of the same names; "
                + (
                    "put label maps into a folder of their own, with their pictures' names, and name it in the recipe as `labels`; "
                    "masks of parts, as CelebAMask-HQ has them: `dataset: celebamask_hq`; or move them away"
                    if word
                    else f"say `labels: {folder}` in the recipe (--set labels={folder}), or move them away"
                )
            )


def _is_label_like(source: FolderOrArchive, name: str) -> bool:
    """Return whether a file is a PNG of few colours, or grey and nearly all of few levels, as label maps and masks are."""
    head = read_head(source.file(name), SIGNATURE_BYTES)
    if picture_format(head) != "PNG":
        return False
    try:
        pixels = read_picture(source.file(name)).unconverted_HW3
    except UnusablePicture:  # named when it is packed
        return False
    if is_grey_png(head):
        levels = np.sort(np.bincount(pixels[..., 0].ravel(), minlength=256))[::-1]
        # Borders of masks are often soft; a grey photograph spreads over all levels.
        return bool(levels[_LABEL_COLOURS:].sum() == 0 or levels[:8].sum() > 0.9 * levels.sum())
    colours: set[bytes] = set()
    for row in pixels:  # a photograph is known by its first ones
        colours.update(map(bytes, np.unique(row, axis=0)))
        if len(colours) > _LABEL_COLOURS:
            return False
    return len(colours) > 1


def _parts(name: str) -> tuple[str, str, str]:
    """Return folder, base and word of a name: 00001 and _skin of 00001_skin.png."""
    folder, file = posixpath.split(name)
    match = _NAME_AND_WORD.fullmatch(split_suffix(file)[0])
    assert match is not None  # it matches every name
    return folder or ".", match[1], match[2] or ""


def _read_table(root: Path, source: FolderOrArchive, table: str | None, names: list[str]) -> LandmarkTable | None:
    """Return the table of landmarks, None without one. Raises DataError unless it lists the same pictures."""
    if table is None:
        return None
    below = _name_below(root, table)
    file = source.file(below) if below is not None else str(root / table)
    # Both ways: a picture without a row would train without landmarks, a row without a picture is mostly a wrong name.
    found = read_landmark_csv(file)
    if found.rows.keys() == (known := set(names)):
        return found
    if unknown := next((name for name in found.rows if name not in known), None):
        line = found.lines[found.rows[unknown]]
        raise DataError(f"{file}:{line}: {unknown} is no picture below {source.path}; add it, or remove the line")
    missing = [name for name in names if name not in found.rows]
    raise DataError(
        f"{file}: has no row for {missing[0]} of {source.path} ({len(missing)} such pictures); add it, or move the picture away"
    )


def _assign_splits(where: str, names: list[str], splits: np.ndarray | None, split_by: str) -> np.ndarray:
    """Return the number in SPLITS of each picture: from the table, else from its folders, else 80 / 10 / 10 by a hash.

    Raises DataError where folders say it of some pictures only.
    """
    if splits is not None:
        return splits
    by_folder = {name: _splits_named(name) for name in names} if split_by != "hash" else {}
    if any(by_folder.values()) or split_by == "folders":
        if unclear := [name for name, found in by_folder.items() if len(found) != 1]:
            raise DataError(
                f"{where}: {len(names) - len(unclear)} of {len(names)} pictures lie in folders of splits "
                f"({', '.join(sorted({f for found in by_folder.values() for f in found})) or 'none'}), {unclear[0]} does not lie in one of them "
                f"({len(unclear)} such pictures); move these, give the CSV a column `split`, or say `split_by: hash` in the recipe "
                "(--set split_by=hash), which ignores folders"
            )
        return np.array([SPLITS.index(next(iter(found))) for found in by_folder.values()], np.uint8)
    drawn = np.array([split_by_hash(name) for name in names], np.uint8)
    counts = zip(np.bincount(drawn, minlength=len(SPLITS)), SPLITS, strict=True)
    logger.info("splits drawn by a hash of the name: %s", ", ".join(f"{count} {split}" for count, split in counts))
    return drawn


def _splits_named(name: str) -> set[str]:
    """Return the splits that the folders of a picture name."""
    return {SPLIT_OF_FOLDER[part.lower()] for part in name.split("/")[:-1] if part.lower() in SPLIT_OF_FOLDER}


def split_by_hash(name: str) -> int:
    """Return the number in SPLITS of a name: 80 / 10 / 10."""
    # Of the name alone, so that a picture keeps its split when others are added.
    share = int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:4]) / 2**32
    return 0 if share < 0.8 else 1 if share < 0.9 else 2
