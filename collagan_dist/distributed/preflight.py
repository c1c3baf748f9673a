"""Preflight check: ranks compare code, libraries, configuration, data set and devices before anything is built.

A difference then gives a table at the start instead of a hang, or other weights, later.
"""

from __future__ import annotations

import hashlib
import json
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from collagan_dist.config.load import config_to_dict, leaves
from collagan_dist.config.tree import Config
from collagan_dist.distributed import versions
from collagan_dist.distributed.group import Group
from collagan_dist.errors import ClusterError, mark_on_all_ranks

logger = logging.getLogger(__name__)

# They say how one node works, not what is trained, so nodes may differ in them. One that ends in a dot is a section.
NODE_LOCAL_KEYS = ("data.shards", "data.cache.", "data.threads", "runtime.threads")
# A difference in these only gives a warning: mixed GPUs train correctly, at the speed of the slowest.
_WARN_ONLY = ("device name",)
_MAX_ROWS, _MAX_COLUMNS, _MAX_CELL_CHARS = 20, 6, 28


@dataclass(frozen=True)
class RankFacts:
    """Where a rank is, and the facts that must be equal on all ranks, by name."""

    rank: int
    host: str
    ranks_on_node: int
    gpu: str | None
    facts: dict[str, str]


def preflight(group: Group, config: Config, manifest_hash: str) -> None:
    """Refuse ranks that do not belong together. Collective; raises ClusterError with a table on all ranks."""
    if group.world.size == 1:
        return
    settings = _shared_settings(config_to_dict(config))
    ranks = [
        RankFacts(**facts) for facts in group.all_gather(vars(_rank_facts(group, config, settings, manifest_hash)))
    ]
    first = ranks[0].facts
    differing = {key for rank in ranks for key in first.keys() | rank.facts if rank.facts.get(key) != first.get(key)}
    # Each rank computes the same table from the same facts, so no rank has to tell the others.
    if _devices_follow_ranks(ranks):
        differing.discard("devices")
    columns = [rank.facts for rank in ranks]
    rows = [key for key in first if key in differing and key != "configuration"]
    if "configuration" in differing:
        # Only hashes were compared so far; configurations are sent only when they are needed for the table.
        all_settings = group.all_gather(settings)
        columns = [facts | own for facts, own in zip(columns, all_settings, strict=True)]
        base = all_settings[0]
        rows += sorted({key for own in all_settings for key in base.keys() | own if own.get(key) != base.get(key)})
    if differing - {*_WARN_ONLY}:
        table = f"{_table(ranks, columns, rows)}\n{_advice(differing)}"
        raise mark_on_all_ranks(ClusterError(f"the ranks of this run do not agree, so nothing was started:\n{table}"))
    if differing and group.world.is_rank0:
        logger.warning(f"warning: devices differ, the slowest sets the pace:\n{_table(ranks, columns, rows)}")
    if group.world.is_rank0 and (shared := _shared_gpus(ranks)):
        logger.warning(f"warning: {shared}")


def _rank_facts(group: Group, config: Config, settings: Mapping[str, str], manifest_hash: str) -> RankFacts:
    device, gpu, name = group.device, None, "CPU"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        # The uuid, since CUDA_VISIBLE_DEVICES may number one GPU differently for each rank.
        gpu, name = str(getattr(properties, "uuid", device)), properties.name
    # The order is that of the table's lines.
    facts = {
        "collagan_dist": versions.code_version(),
        "python": versions.python_version(),
        "torch": torch.__version__,
        "numpy": versions.library_version("numpy") or "none",
        "dali": versions.library_version("dali") or "none",
        "device": device.type,
        "devices": str(torch.cuda.device_count()),
        "device name": name,
        "world size": str(group.world.size),
        "data set": manifest_hash[:12],
        "configuration": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12],
    }
    if config.runtime.engine == "deepspeed":
        facts["deepspeed"] = versions.library_version("deepspeed") or "none"
    return RankFacts(group.world.rank, socket.gethostname(), group.world.local_size, gpu, facts)


def _shared_settings(tree: Mapping[str, Any]) -> dict[str, str]:
    """Return every value of a configuration as JSON by its dotted key, without NODE_LOCAL_KEYS."""
    return {key: json.dumps(value) for key, value in leaves(tree).items() if not key.startswith(NODE_LOCAL_KEYS)}


def _devices_follow_ranks(ranks: list[RankFacts]) -> bool:
    # Nodes with fewer GPUs that run fewer ranks were configured so on purpose; equal ranks on fewer GPUs are an accident.
    counts: dict[int, set[str]] = {}
    for rank in ranks:
        counts.setdefault(rank.ranks_on_node, set()).add(rank.facts["devices"])
    return all(len(found) == 1 for found in counts.values())


def _shared_gpus(ranks: list[RankFacts]) -> str | None:
    """Return a warning about two ranks on one GPU, or None."""
    owners: dict[tuple[str, str], int] = {}
    for rank in ranks:
        if rank.gpu is not None and (first := owners.setdefault((rank.host, rank.gpu), rank.rank)) != rank.rank:
            return (
                f"ranks {first} and {rank.rank} on {rank.host} share a GPU, which NCCL refuses: all ranks use gloo, which is slow; "
                f"{rank.host} has {rank.facts['devices']} for {rank.ranks_on_node} ranks"
            )
    return None


def _table(ranks: list[RankFacts], columns: list[dict[str, str]], rows: list[str]) -> str:
    """Return a table: a line per differing fact, a column per group of ranks that agree, the largest group first."""
    # By what is shown: values that look equal after shortening share a column.
    groups: dict[tuple[str, ...], list[RankFacts]] = {}
    for rank, values in zip(ranks, columns, strict=True):
        groups.setdefault(tuple(_shorten(values.get(key, "-")) for key in rows), []).append(rank)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    # A thousand ranks that all differ must still fit a terminal.
    shown = ordered[:_MAX_COLUMNS]
    cells = [["", *(_shorten(_members(members, ranks)) for _, members in shown)]]
    cells += [[key, *(values[i] for values, _ in shown)] for i, key in enumerate(rows[:_MAX_ROWS])]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    ]
    more = [f"  ... and {len(rows) - _MAX_ROWS} more"] if len(rows) > _MAX_ROWS else []
    more += [f"  ... and {len(ordered) - len(shown)} more groups of ranks"] if len(ordered) > len(shown) else []
    return "\n".join(lines + more)


def _members(members: list[RankFacts], ranks: list[RankFacts]) -> str:
    """Return the hosts of a group, with its ranks if a host's ranks differ among themselves."""
    hosts = list(dict.fromkeys(rank.host for rank in members))
    numbers = {rank.rank for rank in members}
    if any(rank.host in hosts and rank.rank not in numbers for rank in ranks):
        plural = "s" if len(members) > 1 else ""
        return f"rank{plural} {','.join(str(rank.rank) for rank in members)} ({', '.join(hosts)})"
    return ", ".join(hosts)


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_CELL_CHARS else f"{text[: _MAX_CELL_CHARS - 1]}…"


def _advice(differing: set[str]) -> str:
    # One piece of advice, for what has to be mended first.
    if differing & {"device", "devices"}:
        return "leave out the nodes whose GPUs are missing (`nvidia-smi` there), or hide them everywhere: CUDA_VISIBLE_DEVICES="
    if "configuration" in differing:
        return "start all ranks with the same configuration file and options"
    if "data set" in differing:
        return "give all ranks the same data set: copy its folder anew where it differs"
    return "give all nodes the same environment and the same checkout (`make setup`), or leave out those that differ"
