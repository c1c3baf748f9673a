"""`collagan verify`: is a folder of shards what its manifest says?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from collagan_dist import files
from collagan_dist.contract import CLASSES
from collagan_dist.data.manifest import Manifest, Shard, quick_check, read_manifest
from collagan_dist.errors import DataError


def verify(
    folder: str | Path, deep: bool = False, progress: Callable[[int, int], None] = lambda done, total: None
) -> Manifest:
    """Manifest, sizes and indexes; `deep`: sha256 of every file, every sample read through webdataset and decoded.

    Raises DataError that names every shard with something wrong.
    """
    manifest = read_manifest(folder)
    quick_check(manifest)
    if deep:
        shards = list(manifest)
        problems = []
        for number, shard in enumerate(shards, 1):
            problems += list(_deep(manifest.folder, shard))
            progress(number, len(shards))
        if problems:
            raise DataError("\n".join([*problems, "copy these shards anew, or remove the folder and pack again"]))
    return manifest


def _deep(folder: Path, shard: Shard) -> Iterator[str]:
    path = folder / shard.name
    if files.sha256(path) != shard.sha256:
        yield f"{path}: its sha256 differs from the manifest's"
        return
    count = 0
    for sample in _samples(path):
        count += 1
        if (problem := _problem(sample)) is not None:
            yield f"{path}: sample {sample['__key__']}: {problem}"
    if count != shard.samples:
        yield f"{path}: holds {count} samples, the manifest says {shard.samples}"


def _samples(path: Path) -> Iterator[dict]:
    """The samples as plain webdataset yields them, undecoded."""
    import webdataset

    return iter(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False))


def _problem(sample: dict) -> str | None:
    unknown = {k for k in sample if not k.startswith("__")} - {"jpg", "json", "seg.png"}
    if unknown or "jpg" not in sample or "json" not in sample:
        return f"has members {sorted(k for k in sample if not k.startswith('__'))}, needs jpg, json and at most seg.png"
    try:
        meta = json.loads(sample["json"])
        pixels = simplejpeg.decode_jpeg(sample["jpg"], "RGB", strict=True)
    except ValueError as error:
        return f"does not decode: {error}"
    if pixels.shape[:2] != (meta["height"], meta["width"]):
        return f"is {pixels.shape[1]}x{pixels.shape[0]}, its json says {meta['width']}x{meta['height']}"
    if "seg.png" in sample:
        labels = cv2.imdecode(np.frombuffer(sample["seg.png"], np.uint8), cv2.IMREAD_UNCHANGED)
        if labels is None or labels.shape != pixels.shape[:2] or labels.max() >= len(CLASSES):
            return "its label map does not decode to classes in the picture's size"
    return None
