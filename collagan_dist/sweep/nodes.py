"""The nodes of a Ray cluster that are alive, and how often in a row segments were lost: on a node, and of a trial."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

HEAD_RESOURCE = "node:__internal_head__"  # that the head node alone has
MAX_LOSSES = 3  # in a row on one node, before it is left out


@dataclass(frozen=True)
class Node:
    """A node that is alive, with its IP address. `name` is for people; `resources` are all it has, whoever uses them."""

    id: str
    name: str
    resources: dict[str, float]
    address: str

    @property
    def is_head(self) -> bool:
        return HEAD_RESOURCE in self.resources


def living_nodes(ray: Any) -> list[Node]:
    return [
        Node(node["NodeID"], f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][-6:]})", node["Resources"],
             node["NodeManagerAddress"])
        for node in ray.nodes() if node["Alive"]
    ]  # fmt: skip


class NodeLosses:
    """Which segments in a row failed on each node, by the number of their configuration's first trial.

    A segment on several nodes tells nothing: any of them may be the cause. Nor does one whose node is gone: that is a loss like others.
    """

    def __init__(self) -> None:
        self._in_a_row: dict[str, list[int]] = {}
        self._failed_on: dict[int, set[str]] = {}

    def worked(self, nodes: Sequence[str]) -> None:
        for node in nodes:
            self._in_a_row.pop(node, None)

    def failed(self, nodes: Sequence[str], configuration: int, alive: Collection[str]) -> str | None:
        """Note a failed segment; return its node if MAX_LOSSES or more in a row failed there, and no one configuration explains it."""
        if len(nodes) != 1 or nodes[0] not in alive:
            return None
        (node,) = nodes
        self._in_a_row.setdefault(node, []).append(configuration)
        self._failed_on.setdefault(configuration, set()).add(node)
        return node if len(self._in_a_row[node]) >= MAX_LOSSES and node not in self.explained() else None

    def explained(self) -> list[str]:
        """Return the nodes where all in a row are of one configuration that has failed on another node, too."""
        # Before it has, nobody knows which of the two is the cause: to try it elsewhere is the way to find out.
        rows = self._in_a_row.items()
        return [node for node, row in rows if len(set(row)) == 1 and len(self._failed_on[row[0]]) > 1]


class TrialLosses:
    """Counts by trial how often in a row it was lost without a new checkpoint."""

    def __init__(self) -> None:
        self._in_a_row: dict[int, tuple[int, int]] = {}  # and the newest checkpoint at the last loss

    def ended(self, number: int) -> None:
        self._in_a_row.pop(number, None)

    def lost(self, number: int, saved: int) -> int:
        """Count a loss of a trial whose newest checkpoint is of step `saved`; return how many there were in a row."""
        # A trial that saves between losses makes progress, however often the machines of others are taken from it.
        count, before = self._in_a_row.get(number, (0, saved))
        self._in_a_row[number] = (1 if saved > before else count + 1), saved
        return self._in_a_row[number][0]
