"""What tests of packing share: recipes of data sets that they write, changes of files, and the bytes of a folder."""

from collections.abc import Callable
from pathlib import Path

from collagan_dist.data.readers.recipe import Recipe


def recipe(root: Path, out: Path, **changes: object) -> Recipe:
    """Of faces in CelebA's layout."""
    celeba = {"dataset": "celeba", "labels": "Label/img_celeba", "samples_per_shard": 20, "store_size": 88}
    return Recipe.model_validate({**celeba, "root": str(root), "out": str(out), **changes}, strict=False)


def folder_recipe(root: Path, out: Path, **changes: object) -> Recipe:
    known = {"dataset": "folder", "labels": None, "samples_per_shard": 2048}
    return recipe(root, out, **{**known, **changes})


def replace_line(file: str, number: int, line: str) -> Callable[[Path], object]:
    """A change of a file below a folder, for tables of damages."""

    def change(root: Path) -> None:
        lines = (root / file).read_text().splitlines()
        lines[number - 1] = line
        (root / file).write_text("\n".join(lines))

    return change


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}
