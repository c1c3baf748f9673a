"""The resources of a trial (workers, CPUs, GPUs) and how many trials nodes hold at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from numbers import Integral, Real
from typing import Any

from collagan_dist.errors import ConfigError


@dataclass(frozen=True)
class TrialResources:
    """Resources of one trial: `workers` ranks, each with CPUs and GPUs, spread over nodes or packed onto few.

    `gpus` None: one for each worker where the cluster has any. Raises ConfigError for numbers that no trial can have.
    """

    workers: int = 1
    cpus: float = 1
    gpus: float | None = None
    spread: bool = False

    def __post_init__(self) -> None:
        gpus = self.gpus if self.gpus is not None else 1.0
        rules = {
            "workers": (isinstance(self.workers, Integral) and self.workers >= 1, "a whole number above 0"),
            "cpus": (isinstance(self.cpus, Real) and 0 < self.cpus < inf, "a number above 0"),
            # Ray shares one GPU between processes, but gives no process one GPU and a half.
            "gpus": (
                isinstance(gpus, Real) and 0 <= gpus < 1000 and (gpus <= 1 or gpus % 1 == 0),
                "a number of GPUs: a whole one, or a fraction of one",
            ),
        }
        for name, (is_kept, rule) in rules.items():
            if not is_kept:
                raise ConfigError(f"{name}={getattr(self, name)!r} is not {rule}")

    def resolved(self, nodes: Sequence[Mapping[str, float]]) -> TrialResources:
        """Return the same with the number of GPUs decided, for the resources of nodes."""
        if self.gpus is not None:
            return self
        return replace(self, gpus=1.0 if any(node.get("GPU") for node in nodes) else 0.0)

    def bundle(self) -> dict[str, float]:
        """Return the placement group bundle of one worker."""
        return {"CPU": float(self.cpus), **({"GPU": float(self.gpus)} if self.gpus else {})}

    def placement(self, left_out: Sequence[str] = ()) -> Any:
        """Return what Tune reserves for a trial: a bundle for each worker, all of them or none, on no node whose id is `left_out`."""
        from ray import tune

        options: dict[str, Any] = {"strategy": "SPREAD" if self.spread else "PACK"}
        if left_out:
            options["bundle_label_selector"] = [{"ray.io/node-id": f"!in({','.join(left_out)})"}] * self.workers
        return tune.PlacementGroupFactory([self.bundle()] * self.workers, **options)

    def __str__(self) -> str:
        each = f"{self.cpus:g} CPU{'s' * (self.cpus != 1)}" + (
            f" and {self.gpus:g} GPU{'s' * (self.gpus != 1)}" if self.gpus else ""
        )
        return f"{self.workers} workers of {each} each" if self.workers > 1 else f"one worker of {each}"

    def capacity(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """Return how many trials nodes with such resources hold at a time."""
        return sum(self._workers_on(node) for node in nodes) // self.workers

    def _workers_on(self, node: Mapping[str, float]) -> int:
        # 1e-9: 1 / 0.1 must be 10 workers, not 9, after rounding.
        count = int(node.get("CPU", 0) / self.cpus + 1e-9)
        gpus = self.gpus or 0
        if gpus >= 1:
            count = min(count, int(node.get("GPU", 0) // gpus))
        elif gpus:
            # A fraction is a fraction of one GPU: Ray never splits a worker's 0.6 GPUs over two devices.
            count = min(count, int(node.get("GPU", 0)) * int(1 / gpus + 1e-9))
        return count
