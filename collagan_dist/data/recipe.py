"""The recipe of a data set: which pictures become which shards. One YAML of `shards/` each."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from collagan_dist import yaml_strict
from collagan_dist.errors import ConfigError


class Recipe(BaseModel):
    """See shards/README.md for the contract of what comes out."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    dataset: Literal["celeba", "celeba_aligned"]
    """Reader: CelebA's layout in the wild (`Img/img_celeba`) or aligned (`Img/img_align_celeba`)."""
    root: str
    """Folder of the data set. Relative paths are those of the current folder."""
    labels: str | None = None
    """Folder of 8-bit PNG label maps below root, or null."""
    out: str
    """Folder of the shards."""
    splits: tuple[Literal["train", "valid", "test"], ...] = ("train", "valid", "test")
    samples_per_shard: Annotated[int, Field(ge=1)] = 2048
    store: Literal["crop", "original"] = "crop"
    """`crop`: the margin square around the face, re-encoded. `original`: the JPEG's own bytes where they are sound."""
    store_size: Annotated[int, Field(ge=32, le=1024)] = 176
    """Side of the stored crop in pixels: 1.375 x the picture size to train at."""


def load_recipe(path: str, root: str | None = None, out: str | None = None, sets: Iterable[str] = ()) -> Recipe:
    """The recipe of a YAML file with the command line's changes. Raises ConfigError with file, line and key."""
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot read the recipe ({error.strerror}); the ones that exist lie in shards/"
        ) from None
    tree, lines = yaml_strict.load(text, path)
    for item in sets:
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"--set {item}: must read key=value, as in --set samples_per_shard=512")
        tree[key], _ = yaml_strict.load(value, f"--set {item}", scalar=True)
    tree |= {name: value for name, value in (("root", root), ("out", out)) if value is not None}
    try:
        return Recipe.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(e, path, lines) for e in error.errors())) from None


def _explain(error: Any, where: str, lines: yaml_strict.Lines) -> str:
    key = str(error["loc"][0]) if error["loc"] else ""
    line = lines.get((key,))
    place = f"{where}:{line}" if line else where
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, Recipe.model_fields, 1)
        return f"{place}: unknown key {key}; " + (
            f"did you mean {near[0]}?" if near else f"valid: {', '.join(Recipe.model_fields)}"
        )
    return (
        f"{place}: {key}: {error['msg']} (given: {error['input']!r})"
        if error["type"] != "missing"
        else f"{place}: {key} is missing"
    )
