"""The recipe of a data set, a YAML file of shards/: which pictures are packed, and how."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from collagan_dist.config import project_files, strict_yaml
from collagan_dist.config.strict_yaml import Section, validate
from collagan_dist.errors import ConfigError


class Recipe(Section):
    """The keys of a recipe. shards/README.md describes the shards that come out."""

    dataset: Literal["celeba", "celeba_aligned", "celebamask_hq", "folder"]
    """Reader: CelebA in the wild (`Img/img_celeba`) or aligned (`Img/img_align_celeba`), CelebAMask-HQ, or any folder of
    pictures."""
    root: str
    """Folder of the data set; relative paths start at the current folder."""
    labels: str | None = None
    """Folder of 8-bit PNG label maps, below root or absolute, or null."""
    landmarks: str | None = None
    """CSV of landmarks, below root or absolute, or null. Only for `folder`; the other readers know their annotation."""
    out: str
    """Folder of the shards."""
    splits: tuple[Literal["train", "valid", "test"], ...] = ("train", "valid", "test")
    split_by: Literal["auto", "folders", "hash"] = "auto"
    """Only for `folder`, without a column `split`: by the folders train, valid and test (or val, validation ...) of any
    case at any depth, by a hash of the name, or by folders if there are any, else by the hash."""
    samples_per_shard: Annotated[int, Field(ge=1)] = 2048
    store: Literal["crop", "original"] = "crop"
    """`crop`: the margin square around the face, re-encoded. `original`: the JPEG's own bytes where it is undamaged."""
    store_size: Annotated[int, Field(ge=32, le=1024)] = 176
    """Side of the stored crop in pixels: 1.375 x the picture size to train at."""

    @field_validator("splits")
    @classmethod
    def _check_splits(cls, splits: tuple[str, ...]) -> tuple[str, ...]:
        # A split given twice would be packed twice under the same names.
        if not splits or len(set(splits)) != len(splits):
            raise ValueError("needs at least one split, each at most once")
        return splits

    @field_validator("split_by")
    @classmethod
    def _check_split_by(cls, value: str, info: ValidationInfo) -> str:
        if value != "auto" and info.data.get("dataset") != "folder":
            raise ValueError(f"{info.data.get('dataset')} has splits of its own; leave this key out")
        return value

    @field_validator("labels", "landmarks")
    @classmethod
    def _check_annotation(cls, value: str | None, info: ValidationInfo) -> str | None:
        # A key that its reader ignores would let people believe that their file was used.
        key, dataset = info.field_name, info.data.get("dataset")
        if value is None:
            return value
        if key == "labels" and dataset == "celebamask_hq":
            raise ValueError("celebamask_hq has label maps of its own; leave this key out")
        if key == "landmarks" and dataset in ("celeba", "celeba_aligned"):
            raise ValueError(f"{dataset} has landmarks of its own (Anno/); leave this key out, or use dataset: folder")
        if key == "landmarks" and dataset == "celebamask_hq":
            raise ValueError("celebamask_hq has no landmarks; leave this key out, or use dataset: folder")
        return value


def load_recipe(source: str, root: str | None = None, out: str | None = None, sets: Iterable[str] = ()) -> Recipe:
    """Read a YAML file, given by path or known name, and apply the command line's changes.

    Raises ConfigError with file, line and key.
    """
    text, where = project_files.read_named(source, "recipe", project_files.recipes())
    tree, lines = strict_yaml.load(text, where)
    for item in sets:
        key, value = strict_yaml.parse_assignment(item)
        tree[".".join(key)] = value
    tree |= {name: value for name, value in (("root", root), ("out", out)) if value is not None}
    # Training reads from URLs (shards/remote.py); packing reads and writes folders only.
    for name in ("root", "out"):
        if "://" in str(tree.get(name)):
            raise ConfigError(f"{name}: {tree[name]} is a URL; pack from and to a folder, then upload OUT as it is")
    for name in ("root", "out", "labels", "landmarks"):  # no shell expands ~ in a YAML file
        if isinstance(tree.get(name), str):
            tree[name] = str(Path(tree[name]).expanduser())
    # Folders may have names of any bytes, which JSON, and so the validation, cannot hold.
    folders = {name: tree[name] for name in ("root", "out") if _is_no_utf8(tree.get(name))}
    return validate(Recipe, {**tree, **dict.fromkeys(folders, "folder")}, where, lines).model_copy(update=folders)


def _is_no_utf8(value: object) -> bool:
    return isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value)
