"""What tests of packing share: recipes of data sets that they write, and the bytes of a folder."""

from pathlib import Path

from collagan_dist.data.readers.recipe import Recipe


def recipe(root: Path, out: Path, **changes: object) -> Recipe:
    """Of faces in CelebA's layout."""
    celeba = {"dataset": "celeba", "labels": "Label/img_celeba", "samples_per_shard": 20, "store_size": 88}
    return Recipe.model_validate({**celeba, "root": str(root), "out": str(out), **changes}, strict=False)


def folder_recipe(root: Path, out: Path, **changes: object) -> Recipe:
    known = {"dataset": "folder", "labels": None, "samples_per_shard": 2048}
    return recipe(root, out, **{**known, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}
