"""What tests of packing share: recipes of data sets that they write, changes of files, what is stored of a sample."""

from collections.abc import Callable
from pathlib import Path

from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.shards import wire_format
from collagan_dist.data.shards.manifest import Manifest


def recipe(root: Path, out: Path, **changes: object) -> Recipe:
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


def stored(manifest: Manifest, split: str, number: int) -> tuple[Path, wire_format.IndexEntry]:
    """The tar of a sample and where it is in there. Shards hold 20 samples."""
    shard = manifest.shards(split)[number // 20]
    index = wire_format.Index((manifest.folder / shard.index_name).read_bytes(), shard.bytes)
    return manifest.folder / shard.name, index[number % 20]


def damage_sample(manifest: Manifest, split: str, number: int, part: str = "jpg") -> str:
    """Fill a file of a sample with zeros, in place (zeros behind an undamaged JPEG header may well decode); its key."""
    tar, entry = stored(manifest, split, number)
    offset, size = entry.parts[part]
    overwrite(tar, entry.start + offset, bytes(size))
    return entry.key


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".source.json"
    }  # that names this machine's folder
