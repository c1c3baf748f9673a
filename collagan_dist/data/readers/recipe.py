"""The recipe of a data set: which pictures become which shards. One YAML of `shards/` each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from collagan_dist.config import strict_yaml
from collagan_dist.config.strict_yaml import Section, validate
from collagan_dist.errors import ConfigError


class Recipe(Section):
    """See shards/README.md for the contract of what comes out."""

    dataset: Literal["celeba", "celeba_aligned", "celebamask_hq", "folder"]
    """Reader: CelebA's layout in the wild (`Img/img_celeba`) or aligned (`Img/img_align_celeba`), that of CelebAMask-HQ,
    or any folder of pictures."""
    root: str
    """Folder of the data set. Relative paths are those of the current folder."""
    labels: str | None = None
    """Folder of 8-bit PNG label maps, below root or absolute, or null."""
    landmarks: str | None = None
    """CSV of landmarks, below root or absolute, or null. Only for `folder`: the others' annotation has its place."""
    out: str
    """Folder of the shards."""
    splits: tuple[Literal["train", "valid", "test"], ...] = ("train", "valid", "test")
    samples_per_shard: Annotated[int, Field(ge=1)] = 2048
    store: Literal["crop", "original"] = "crop"
    """`crop`: the margin square around the face, re-encoded. `original`: the JPEG's own bytes where they are sound."""
    store_size: Annotated[int, Field(ge=32, le=1024)] = 176
    """Side of the stored crop in pixels: 1.375 x the picture size to train at."""

    @field_validator("splits")
    @classmethod
    def _distinct(cls, splits: tuple[str, ...]) -> tuple[str, ...]:
        if not splits or len(set(splits)) != len(splits):
            raise ValueError("needs at least one split, each at most once")
        return splits

    @field_validator("labels", "landmarks")
    @classmethod
    def _has_a_meaning(cls, value: str | None, info: ValidationInfo) -> str | None:
        dataset = info.data.get("dataset")
        if value is not None and info.field_name == "labels" and dataset == "celebamask_hq":
            raise ValueError("celebamask_hq has label maps of its own; leave this key out")
        if value is not None and info.field_name == "landmarks" and dataset in ("celeba", "celeba_aligned"):
            raise ValueError(f"{dataset} has landmarks of its own (Anno/); leave this key out, or use dataset: folder")
        if value is not None and info.field_name == "landmarks" and dataset == "celebamask_hq":
            raise ValueError("celebamask_hq has no landmarks; leave this key out, or use dataset: folder")
        return value


def load_recipe(path: str, root: str | None = None, out: str | None = None, sets: Iterable[str] = ()) -> Recipe:
    """The recipe of a YAML file with the command line's changes. Raises ConfigError with file, line and key."""
    text = strict_yaml.read_text(path, "recipe", "the ones that exist lie in shards/")
    tree, lines = strict_yaml.load(text, path)
    for item in sets:
        key, value = strict_yaml.parse_assignment(item)
        tree[".".join(key)] = value
    tree |= {name: value for name, value in (("root", root), ("out", out)) if value is not None}
    for name in ("root", "out"):
        if "://" in str(tree.get(name)):
            raise ConfigError(f"{name}: {tree[name]} is a URL; pack from and to a folder, then upload OUT as it is")
    for name in ("root", "out", "labels", "landmarks"):
        if isinstance(tree.get(name), str):
            tree[name] = str(Path(tree[name]).expanduser())
    return validate(Recipe, tree, path, lines)
