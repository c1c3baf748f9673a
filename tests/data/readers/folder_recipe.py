"""The recipe that tests of `folder` data sets share."""

from __future__ import annotations

from pathlib import Path

from collagan_dist.data.readers.recipe import Recipe


def recipe(root: Path, out: Path, **changes: object) -> Recipe:
    known = {"dataset": "folder", "root": str(root), "out": str(out), "store_size": 88}
    return Recipe.model_validate({**known, **changes}, strict=False)
