"""Ranks compare what they are made of before anything is built: a difference is a table at the start, not a hang later."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from collagan_dist.config.load import config_to_dict
from collagan_dist.config.tree import Config
from collagan_dist.distributed import versions
from collagan_dist.distributed.group import Group
from collagan_dist.errors import ClusterError, on_all_ranks

# Keys that say how one node works, not what is done: nodes may differ in them.
NODE_LOCAL_KEYS = ("data.shards", "data.cache", "data.threads", "runtime.threads")
_MAX_ROWS, _MAX_COLUMNS, _WIDTH = 20, 6, 28
# In one of these nodes of one run may differ, and it is only said.
_MAY_DIFFER = ("device name",)


@dataclass(frozen=True)
class Facts:
    """One rank's: where it is, and what must be alike everywhere."""

    rank: int
    host: str
    ranks_here: int
    gpu: str | None
    alike: dict[str, str]


def preflight(group: Group, config: Config, manifest_hash: str) -> None:
    """Refuse ranks that do not belong together, with a table of what differs. Collective; raises ClusterError on all ranks."""
    if group.world.size == 1:
        return
    tree = _flat(config_to_dict(config))
    everybody = group.all_gather(_facts(group, config, tree, manifest_hash))
    differing = {
        key for facts in everybody for key, value in facts.alike.items() if value != everybody[0].alike.get(key)
    }
    differing |= {key for facts in everybody for key in everybody[0].alike if key not in facts.alike}
    if _counts_follow_ranks(everybody):
        differing.discard("devices")
    columns = [facts.alike for facts in everybody]
    rows = [key for key in everybody[0].alike if key in differing and key != "configuration"]
    if "configuration" in differing:
        trees = group.all_gather(tree)
        columns = [facts | keys for facts, keys in zip(columns, trees, strict=True)]
        rows += sorted({key for one in trees for key in {**trees[0], **one} if one.get(key) != trees[0].get(key)})
    if differing - {*_MAY_DIFFER}:
        raise on_all_ranks(  # all see the same table
            ClusterError(
                f"the ranks of this run do not agree, so nothing was started:\n{_table(everybody, columns, rows)}\n{_mend(differing)}"
            )
        )
    if differing and group.world.is_rank0:
        print(
            f"warning: devices differ, the slowest sets the pace:\n{_table(everybody, columns, rows)}",
            file=sys.stderr,
            flush=True,
        )
    if group.world.is_rank0 and (shared := _shared_gpus(everybody)):
        print(f"warning: {shared}", file=sys.stderr, flush=True)


def _facts(group: Group, config: Config, tree: Mapping[str, str], manifest_hash: str) -> Facts:
    device, gpu, name = group.device, None, "CPU"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        gpu, name = str(getattr(properties, "uuid", device)), properties.name
    alike = {
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
        "configuration": hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12],
    }
    if config.runtime.engine == "deepspeed":
        alike["deepspeed"] = versions.library_version("deepspeed") or "none"
    return Facts(group.world.rank, socket.gethostname(), group.world.local_size, gpu, alike)


def _flat(tree: Any, path: str = "") -> dict[str, str]:
    """Every leaf of a configuration by its key, as text."""
    if isinstance(tree, dict) and tree:
        return {k: v for key, value in tree.items() for k, v in _flat(value, f"{path}.{key}" if path else key).items()}
    return {} if path in NODE_LOCAL_KEYS else {path: json.dumps(tree)}


def _counts_follow_ranks(everybody: list[Facts]) -> bool:
    """Whether nodes with other numbers of devices run other numbers of ranks, as somebody meant them to."""
    counts: dict[int, set[str]] = {}
    for facts in everybody:
        counts.setdefault(facts.ranks_here, set()).add(facts.alike["devices"])
    return all(len(found) == 1 for found in counts.values())


def _shared_gpus(everybody: list[Facts]) -> str | None:
    """What to say of ranks that share a GPU."""
    owners: dict[tuple[str, str], int] = {}
    for facts in everybody:
        if facts.gpu is not None and (first := owners.setdefault((facts.host, facts.gpu), facts.rank)) != facts.rank:
            return (
                f"ranks {first} and {facts.rank} on {facts.host} share a GPU, which NCCL refuses: all ranks talk by gloo, which is slow; "
                f"{facts.host} has {facts.alike['devices']} for {facts.ranks_here} ranks"
            )
    return None


def _table(everybody: list[Facts], columns: list[dict[str, str]], rows: list[str]) -> str:
    """A line for each fact that differs, a column for each group of ranks that agree, the largest group first."""
    groups: dict[tuple[str, ...], list[Facts]] = {}
    for facts, values in zip(everybody, columns, strict=True):
        groups.setdefault(tuple(_short(values.get(key, "-")) for key in rows), []).append(facts)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    shown = ordered[:_MAX_COLUMNS]
    cells = [["", *(_short(_members(members, everybody)) for _, members in shown)]]
    cells += [[key, *(values[i] for values, _ in shown)] for i, key in enumerate(rows[:_MAX_ROWS])]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    ]
    more = [f"  ... and {len(rows) - _MAX_ROWS} more"] if len(rows) > _MAX_ROWS else []
    more += [f"  ... and {len(ordered) - len(shown)} more groups of ranks"] if len(ordered) > len(shown) else []
    return "\n".join(lines + more)


def _members(members: list[Facts], everybody: list[Facts]) -> str:
    """Hosts, or ranks where a host is not of one mind."""
    hosts = list(dict.fromkeys(facts.host for facts in members))
    ranks = {facts.rank for facts in members}
    if any(facts.host in hosts and facts.rank not in ranks for facts in everybody):
        return f"rank{'s' if len(members) > 1 else ''} {','.join(str(facts.rank) for facts in members)} ({', '.join(hosts)})"
    return ", ".join(hosts)


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def _mend(differing: set[str]) -> str:
    """What to do, by what differs."""
    if differing & {"device", "devices"}:
        return "leave out the nodes whose GPUs are missing (`nvidia-smi` there), or hide them everywhere: CUDA_VISIBLE_DEVICES="
    if "configuration" in differing:
        return "start all ranks with the same configuration file and options"
    if "data set" in differing:
        return "give all ranks the same data set: copy its folder anew where it differs"
    return "give all nodes the same environment and the same checkout (`make setup`), or leave out those that differ"
