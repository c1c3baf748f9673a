"""`collagan sweep`: hyperparameter search on a Ray cluster. The only package that imports ray.

`trainable` is the way into a `tune.Tuner` of one's own (docs/tune.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collagan_dist.sweep.tune_trainable import trainable as trainable

__all__ = ["trainable"]


def __getattr__(name: str) -> Any:
    if name == "trainable":  # when it is used: workers and commands import other parts of this package
        from collagan_dist.sweep.tune_trainable import trainable

        return trainable
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
