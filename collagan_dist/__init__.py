"""Distributed training of collaborative GANs: shards, one generator for several tasks, one discriminator per task.

`import collagan_dist as cd` offers the functions of collagan_dist.api (docs/python.md). They are imported when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collagan_dist import errors as errors
    from collagan_dist import sweep as sweep
    from collagan_dist.api import Model as Model
    from collagan_dist.api import draw as draw
    from collagan_dist.api import evaluate as evaluate
    from collagan_dist.api import report as report
    from collagan_dist.api import runs as runs
    from collagan_dist.api import sweep_results as sweep_results
    from collagan_dist.api import sweep_study as sweep_study
    from collagan_dist.api import train as train
    from collagan_dist.api import webdataset as webdataset

__version__ = "0.1.0"

_FROM_API = ("Model", "draw", "evaluate", "sweep_results", "sweep_study", "train", "webdataset")
# `report` and `runs` are packages too. Whoever imports them first, the name is the package, and the package can be called.
_MODULES = ("errors", "report", "runs", "sweep")
__all__ = ["__version__", *_FROM_API, *_MODULES]


def __getattr__(name: str) -> Any:
    # By name, not at the top: torch and pydantic take seconds, and `collagan --help` imports this module.
    if name in _FROM_API:
        return getattr(importlib.import_module("collagan_dist.api"), name)
    if name in _MODULES:
        return importlib.import_module(f"collagan_dist.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
