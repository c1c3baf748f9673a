"""The nodes of a Ray cluster that are alive, and on which of them segments failed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

MAX_LOSSES = 3  # in a row on one node, before it is left out


@dataclass(frozen=True)
class Node:
    """A node that is alive. `name` is for people; `resources` are all it has, whoever uses them."""

    id: str
    name: str
    resources: dict[str, float]

    @property
    def is_head(self) -> bool:
        return "node:__internal_head__" in self.resources


def living_nodes(ray: Any) -> list[Node]:
    return [
        Node(node["NodeID"], f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][-6:]})", node["Resources"])
        for node in ray.nodes() if node["Alive"]
    ]  # fmt: skip


class NodeLosses:
    """Counts by node how many segments in a row failed there.

    A segment on several nodes tells nothing: any of them may be the cause. Nor does one whose node is gone: that is a loss like others.
    """

    def __init__(self) -> None:
        self._in_a_row: dict[str, int] = {}

    def worked(self, nodes: Sequence[str]) -> None:
        for node in nodes:
            self._in_a_row.pop(node, None)

    def failed(self, nodes: Sequence[str], alive: Collection[str]) -> str | None:
        """Count a failed segment; return its node if it is the last of MAX_LOSSES in a row there."""
        if len(nodes) != 1 or nodes[0] not in alive:
            return None
        count = self._in_a_row[nodes[0]] = self._in_a_row.get(nodes[0], 0) + 1
        return nodes[0] if count % MAX_LOSSES == 0 else None
