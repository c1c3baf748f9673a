"""The resources of a trial (workers, CPUs, GPUs) and how many trials a Ray cluster can hold at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from collagan_dist.errors import ClusterError


@dataclass(frozen=True)
class TrialResources:
    """Resources of one trial: `workers` ranks, each with CPUs and GPUs, spread over nodes or packed onto few.

    `gpus` None: one for each worker where the cluster has any.
    """

    workers: int = 1
    cpus: float = 1
    gpus: float | None = None
    spread: bool = False

    def resolved(self, ray: Any) -> TrialResources:
        """Return the same with the number of GPUs decided for a cluster."""
        return self if self.gpus is not None else replace(self, gpus=1.0 if ray.cluster_resources().get("GPU") else 0.0)

    def bundle(self) -> dict[str, float]:
        """Return the placement group bundle of one worker."""
        return {"CPU": float(self.cpus), **({"GPU": float(self.gpus)} if self.gpus else {})}

    def placement(self, tune: Any) -> Any:
        """Return what Tune reserves for a trial: a bundle for each worker, all of them or none."""
        return tune.PlacementGroupFactory([self.bundle()] * self.workers, strategy="SPREAD" if self.spread else "PACK")

    def __str__(self) -> str:
        each = f"{self.cpus:g} CPU{'s' * (self.cpus != 1)}" + (
            f" and {self.gpus:g} GPU{'s' * (self.gpus != 1)}" if self.gpus else ""
        )
        return f"{self.workers} workers of {each} each" if self.workers > 1 else f"one worker of {each}"

    def capacity(self, nodes: list[dict[str, float]]) -> int:
        """Return how many trials nodes with such resources hold at a time."""
        return sum(self._workers_on(node) for node in nodes) // self.workers

    def _workers_on(self, node: dict[str, float]) -> int:
        # 1e-9: 1 / 0.1 must be 10 workers, not 9, after rounding.
        count = int(node.get("CPU", 0) / self.cpus + 1e-9) if self.cpus else 10**6
        gpus = self.gpus or 0
        if gpus >= 1:
            count = min(count, int(node.get("GPU", 0) // gpus))
        elif gpus:
            # A fraction is a fraction of one GPU: Ray never splits a worker's 0.6 GPUs over two devices.
            count = min(count, int(node.get("GPU", 0)) * int(1 / gpus + 1e-9))
        return count


def node_resources(ray: Any) -> dict[str, dict[str, float]]:
    """Return the resources of every node that is alive, by its name."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    return {
        f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:6]})": node["Resources"]
        for node in alive
    }


def placement_is_pending(ray: Any) -> bool:
    """Whether a placement group waits for resources that others use."""
    # A group that is placed and still starts its workers is CREATED: a slow start is not a lack of resources.
    return any(group["state"] == "PENDING" for group in ray.util.placement_group_table().values())


def check_resources(ray: Any, resources: TrialResources) -> None:
    """Raise ClusterError, with all the numbers, if the cluster can never place a trial."""
    nodes = node_resources(ray)
    if resources.capacity(list(nodes.values())):
        return
    # Ray would wait for ever for a node that never comes.
    has = "\n  ".join(f"{name}: {r.get('CPU', 0):g} CPUs, {r.get('GPU', 0):g} GPUs" for name, r in nodes.items())
    raise ClusterError(
        f"a trial takes {resources}, and this Ray cluster can never place it; its nodes:\n  {has}\n"
        "give less by --workers, --cpus or --gpus, or start more nodes"
    )
