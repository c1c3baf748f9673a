"""What tests of packing share: a recipe of drawn faces, and the bytes of a folder."""

from __future__ import annotations

from pathlib import Path

from collagan_dist.data.readers.recipe import Recipe


def recipe(root: Path, out: Path, **changes: object) -> Recipe:
    known = {
        "dataset": "celeba",
        "root": str(root),
        "labels": "Label/img_celeba",
        "out": str(out),
        "samples_per_shard": 20,
        "store_size": 88,
    }
    return Recipe.model_validate({**known, **changes}, strict=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}
