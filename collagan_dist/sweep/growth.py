"""How far a Ray cluster grows by itself: the node types that its autoscaler may start.

Ray tells a driver what nodes there are, not which there could be. A cluster configuration that was reported to the head node is
read from there. Ray's own autoscaler reports none (2.60), so its configuration file is read on the head node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from collagan_dist.config import strict_yaml
from collagan_dist.errors import CollaganError
from collagan_dist.structured import Record, validate
from collagan_dist.sweep.nodes import HEAD_RESOURCE, living_nodes

_ASK_SECONDS = 60.0  # for the head node to start a worker and answer
_MANY = 1000  # nodes; stands for "without limit"


@dataclass(frozen=True)
class NodeType:
    """A kind of machine that the autoscaler starts, and how many of it at most. `resources` None: not known before one runs."""

    name: str
    resources: dict[str, float] | None
    most: int

    def __str__(self) -> str:
        has = "unknown resources" if self.resources is None else (
            f"{self.resources.get('CPU', 0):g} CPUs, {self.resources.get('GPU', 0):g} GPUs"
        )  # fmt: skip
        return f"{self.name}: {has}, up to {self.most} of them"


@dataclass(frozen=True)
class Growth:
    """The node types of an autoscaler, and the most nodes beside the head node. No types: it tells none, or the head node did not answer."""

    types: tuple[NodeType, ...] = ()
    most: int = _MANY

    @property
    def is_known(self) -> bool:
        return bool(self.types) and all(kind.resources is not None for kind in self.types)

    @property
    def resources(self) -> list[dict[str, float]]:
        """The resources of a node of each type that is known."""
        return [kind.resources for kind in self.types if kind.resources is not None]

    def nodes(
        self, capacity: Callable[[list[dict[str, float]]], int], living: Sequence[dict[str, float]] = ()
    ) -> list[dict[str, float]]:
        """Return the resources of the nodes that may be started, those first of which one holds most by `capacity`.

        `living` are the resources of the nodes, beside the head node, that take places already.
        """
        known = [(kind.resources, kind.most) for kind in self.types if kind.resources is not None]
        known.sort(key=lambda kind: -capacity([kind[0]]))
        left = [most for _, most in known]
        for node in living:
            of_type = (at for at, (resources, _) in enumerate(known) if left[at] and _are_alike(resources, node))
            if (at := next(of_type, None)) is not None:
                left[at] -= 1
        places = [resources for (resources, _), count in zip(known, left, strict=True) for _ in range(count)]
        return places[: max(0, self.most - len(living))]


def _are_alike(one: dict[str, float], other: dict[str, float]) -> bool:
    # By what a trial takes: Ray adds memory and labels of its own to what a type declares.
    return all(one.get(kind, 0) == other.get(kind, 0) for kind in ("CPU", "GPU"))


def read_growth(ray: Any) -> Growth | None:
    """Return how far the connected cluster grows by itself, None if it does not."""
    from ray._private.state import state

    if reported := state.get_cluster_config():
        types = [
            NodeType(group.name, dict(group.resources), _MANY if group.max_count < 0 else group.max_count)
            for group in reported.node_group_configs
        ]
        return _growth(types, _MANY)
    try:
        found = _ask_head(ray)
    except ray.exceptions.GetTimeoutError:
        return Growth()  # nobody knows whether it grows, so no trial is refused
    except ray.exceptions.RayError:
        return None  # the head node runs no task of ours, so what it knows is out of reach
    if found is None:
        return Growth()  # an autoscaler beside Ray's processes, as on Kubernetes, keeps its node types to itself
    return parse_growth(*found) if found[0] else None


def _growth(types: Sequence[NodeType], most: int) -> Growth | None:
    able = tuple(kind for kind in types if kind.most)
    return Growth(able, min(most, _MANY)) if able and most else None


class _NodeType(Record):
    resources: dict[str, float] = {}
    min_workers: Annotated[int, Field(ge=0)] = 0
    max_workers: Annotated[int, Field(ge=0)] | None = None


class _Autoscaling(Record):
    """What is read of Ray's cluster configuration (`ray up`)."""

    available_node_types: dict[str, _NodeType] = {}
    head_node_type: str | None = None
    max_workers: Annotated[int, Field(ge=0)] = 2  # as Ray takes it when it is left out


def parse_growth(path: str, text: str) -> Growth | None:
    """Return the growth that a cluster configuration allows, None if all its nodes run from the beginning."""
    try:
        found = validate(strict_yaml.load(text, path)[0], _Autoscaling, path)
    except (CollaganError, ValueError):
        return Growth()
    types = []
    for name, kind in found.available_node_types.items():
        most = found.max_workers if kind.max_workers is None else kind.max_workers
        # Machines that the launcher keeps running at all times are no growth; those that it lost are started again.
        if name != found.head_node_type and (kind.resources or most > kind.min_workers):
            types.append(NodeType(name, kind.resources or None, min(most, _MANY)))
    return _growth(types, found.max_workers)


def _ask_head(ray: Any) -> tuple[str, str] | None:
    context = ray.get_runtime_context()
    head = next((node for node in living_nodes(ray) if node.is_head), None)
    addresses = [context.gcs_address]
    if head is not None:  # the driver may have been given a name in place of the address that Ray's processes were
        port = context.gcs_address.rpartition(":")[2]
        addresses.append(f"[{head.address}]:{port}" if ":" in head.address else f"{head.address}:{port}")
    if head is not None and head.id == context.get_node_id():
        return monitor_config(addresses)
    ask = ray.remote(num_cpus=0, resources={HEAD_RESOURCE: 0.001})(monitor_config)
    answer: tuple[str, str] | None = ray.get(ask.remote(addresses), timeout=_ASK_SECONDS)
    return answer


def monitor_config(gcs_addresses: Sequence[str]) -> tuple[str, str] | None:
    """Return path and text of the file that this machine's autoscaler was started with, ("", "") without one.

    None: no process here is the autoscaler of the cluster at one of the addresses.
    """
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_text(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        if not any(word.endswith("/monitor.py") for word in words):
            continue
        if any(f"--gcs-address={address}" in words for address in gcs_addresses):
            path = next((word.partition("=")[2] for word in words if word.startswith("--autoscaling-config=")), "")
            try:
                return path, strict_yaml.read_text(Path(path).expanduser(), "cluster configuration", "") if path else ""
            except CollaganError:
                return path, ""
    return None
