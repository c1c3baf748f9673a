"""How many trials at a time a Ray cluster is asked for, and why some have no place."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from collagan_dist.errors import ClusterError
from collagan_dist.sweep.growth import Growth, read_growth
from collagan_dist.sweep.nodes import MAX_LOSSES, Node, NodeLosses, living_nodes
from collagan_dist.sweep.resources import TrialResources

MOST_ON_GROWING = 16  # trials at a time on a cluster that grows, unless --concurrent says otherwise
_POLL_SECONDS = 2.0  # between looks at the cluster
_PENDING_SECONDS = 15.0  # that segments wait before it is said


class Room:
    """The room of a cluster for trials: of its nodes, and of those that its autoscaler may start.

    `concurrent` is the most trials at a time, None: as many as fit, on a cluster that grows up to MOST_ON_GROWING.
    """

    def __init__(
        self, ray: Any, resources: TrialResources, growth: Growth | None = None, concurrent: int | None = None
    ) -> None:
        self.ray, self.growth, self.concurrent = ray, growth, concurrent
        self.nodes = living_nodes(ray)
        # Of all types: which nodes come first is known once it is decided whether a trial takes GPUs.
        types = [] if growth is None else growth.resources
        self.resources = resources.resolved([node.resources for node in self.nodes] + types)
        self.left_out: dict[str, str] = {}  # by the id of a node, a sentence that says why
        self.waits_since = self._polled_at = time.monotonic()  # the last time that no segment waited
        self._losses, self._waits = NodeLosses(), False

    @property
    def fits(self) -> int:
        """How many trials the nodes that are alive hold, without those that are left out."""
        return self.resources.capacity(self._usable(self.nodes))

    @property
    def slots(self) -> int:
        """How many segments may be handed out, running ones included."""
        self._poll()
        # No more than there is room for: a segment that is chosen later is chosen with more results. An autoscaler starts
        # nodes for what waits alone.
        wanted = self.concurrent or (self.fits if self.growth is None else max(self.fits, MOST_ON_GROWING))
        return min(wanted, max(self.fits, self._grown()))

    def check(self) -> None:
        """Raise ClusterError, with all the numbers, if the cluster can never place a trial."""
        # Ray would wait for ever for a node that never comes.
        if self.fits or self._grown():
            return
        has = [
            f"{node.name}: {node.resources.get('CPU', 0):g} CPUs, {node.resources.get('GPU', 0):g} GPUs"
            for node in self.nodes
        ]
        if self.growth is not None:
            has += ["and of the types that it starts:", *map(str, self.growth.types)]
        lines = "\n  ".join(has)
        more = "start more nodes" if self.growth is None else "give the cluster a larger node type"
        raise ClusterError(
            f"a trial takes {self.resources}, and this Ray cluster can never place it; its nodes:\n  {lines}\n"
            f"give less by --workers, --cpus or --gpus, or {more}"
        )

    def worked(self, nodes: Sequence[str]) -> None:
        """Note that a segment ended well on nodes (ids)."""
        self._losses.worked(nodes)

    def failed(self, nodes: Sequence[str], configuration: int, reason: str) -> str | None:
        """Note that a segment of a configuration failed on nodes (ids); return a sentence on each node that is left out now, or used again."""
        self.nodes = living_nodes(self.ray)
        alive = {node.id for node in self.nodes}
        found = self._losses.failed(nodes, configuration, alive)
        said = [self._use_again(node) for node in self._losses.explained() if node in alive and node in self.left_out]
        if found is not None and found not in self.left_out:
            said.append(self._leave_out(found, reason))
        return "; ".join(said) or None

    def _leave_out(self, node: str, reason: str) -> str:
        why = f"{MAX_LOSSES} segments in a row failed there, the last one because {reason}"
        self.left_out[node] = f"node {self._name(node)} is left out: {why}"
        if self.fits or self._grown():
            return self.left_out[node]
        del self.left_out[node]
        self._losses.worked([node])  # counted anew
        return f"node {self._name(node)} is used all the same, since no other has room for a trial: {why}"

    def _use_again(self, node: str) -> str:
        del self.left_out[node]
        self._losses.worked([node])
        return f"node {self._name(node)} is used again: what failed there fails on another node, too"

    def _name(self, node: str) -> str:
        return next(one.name for one in self.nodes if one.id == node)

    def waiting_reason(self) -> str | None:
        """Return why segments that are due have no place, None if that is no wonder."""
        self._poll()
        if not self.fits and self.growth is None:
            return "no node of the cluster that lives has what a trial takes"
        if not self._waits:
            return None
        if self.growth is None or not self._may_start():
            return "others use what the cluster has"
        starts = (
            "the cluster starts nodes"
            if self.growth.is_known
            else "the cluster has to start nodes, if it has a type that is large enough"
        )
        return f"{starts} (`ray status` says how far it is)"

    def _poll(self) -> None:
        now = time.monotonic()
        if now - self._polled_at >= _POLL_SECONDS:
            self._polled_at, self.nodes = now, living_nodes(self.ray)
            self._waits = now - self.waits_since > _PENDING_SECONDS and _placement_is_pending(self.ray)

    def _usable(self, nodes: Sequence[Node]) -> list[dict[str, float]]:
        return [node.resources for node in nodes if node.id not in self.left_out]

    def _grown(self) -> int:
        """Return how many trials the cluster holds when it has grown as far as it may (no limit if that is unknown), 0 if it does not grow."""
        if self.growth is None:
            return 0
        if not self.growth.is_known and self._may_start():
            return sys.maxsize
        return self.resources.capacity(
            self._usable(self.nodes) + self.growth.nodes(self.resources.capacity, self._grown_nodes())
        )

    def _grown_nodes(self) -> list[dict[str, float]]:
        """Return the nodes that take places of the autoscaler already."""
        # A node that is left out lives on and keeps its place. One too small for a worker is ended once it idles.
        worker = replace(self.resources, workers=1)
        return [node.resources for node in self.nodes if not node.is_head and worker.capacity([node.resources])]

    def _may_start(self) -> bool:
        """Whether the autoscaler may start one more node that holds a worker, as far as its types are known."""
        assert self.growth is not None
        living = self._grown_nodes()
        if not self.growth.is_known:
            return len(living) < self.growth.most
        worker = replace(self.resources, workers=1)
        return worker.capacity(self.growth.nodes(worker.capacity, living)) > 0


def open_room(ray: Any, resources: TrialResources, concurrent: int | None, own: bool) -> Room:
    """Return the room of a connected cluster; one of our `own` does not grow. Raises ClusterError if no trial ever fits."""
    room = Room(ray, resources, None if own else read_growth(ray), concurrent)
    room.check()
    return room


def _placement_is_pending(ray: Any) -> bool:
    """Whether a placement group waits for resources."""
    # A group that is placed and still starts its workers is CREATED: a slow start is not a lack of resources.
    return any(group["state"] == "PENDING" for group in ray.util.placement_group_table().values())
