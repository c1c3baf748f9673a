"""GPUs and links by name: figures of their data sheets, and how much of them programs get. None of GPUs was measured by this project."""

from __future__ import annotations

import math
from dataclasses import dataclass

from collagan_dist.errors import ConfigError

GIGABYTE = 1e9
# Of a link that is given: GB/s and microseconds. Far beyond those that there are, and so that times stay finite numbers above 0.
_SPEEDS, _LATENCIES = (0.001, 100_000.0), (0.0, 1_000_000.0)


@dataclass(frozen=True)
class GPU:
    """Dense FLOP/s by precision, bytes/s and bytes of its memory; `inside` and `between` name its usual links."""

    name: str
    flops: dict[str, float]
    bytes_per_s: float
    memory: float
    inside: str
    source: str
    between: str = "ib-ndr"


@dataclass(frozen=True)
class Link:
    """What one GPU (inside a node) or one node's network card (between nodes) sends a second in one direction, and seconds of a message."""

    name: str
    bytes_per_s: float
    latency: float
    source: str
    card_per_gpu: bool = True  # each GPU of a node has a network card of its own


# Shares of a data sheet's figures that are reached: assumed, for all GPUs. 790 of 989 TFLOP/s by a bf16 matrix product and 4.3 of
# 4.8 TB/s by a copy are what an H200 was seen to reach; no result of that is kept here.
REACHED_FLOPS, REACHED_BANDWIDTH = 790 / 989, 4.3 / 4.8
_H100 = {"bf16": 989e12, "fp16": 989e12, "fp32": 67e12}  # fp32 is float32, not TF32 (distributed/devices.py)
GPUS = {
    one.name: one
    for one in (
        GPU("h100", _H100, 3.35e12, 80e9, "nvlink4", "NVIDIA's data sheet, H100 SXM"),
        GPU("h200", _H100, 4.8e12, 141e9, "nvlink4", "NVIDIA's data sheet, H200 SXM"),
        GPU("a100", {"bf16": 312e12, "fp16": 312e12, "fp32": 19.5e12}, 2.039e12, 80e9, "nvlink3",
            "NVIDIA's data sheet, A100 80GB SXM", "ib-hdr"),
    )
}  # fmt: skip
REACHED_LINK = 0.8  # share of a link's figure that an all-reduce reaches: assumed
_ASSUMED = "latency assumed"
LINKS = {
    one.name: one
    for one in (
        Link("nvlink4", 450e9, 3e-6, f"18 links of 25 GB/s; {_ASSUMED}"),
        Link("nvlink3", 300e9, 3e-6, f"12 links of 25 GB/s; {_ASSUMED}"),
        Link("pcie4", 32e9, 5e-6, f"16 lanes; {_ASSUMED}"),
        Link("ib-ndr", 50e9, 5e-6, f"400 Gb/s, a card for each GPU; {_ASSUMED}"),
        Link("ib-hdr", 25e9, 5e-6, f"200 Gb/s, a card for each GPU; {_ASSUMED}"),
        Link("100gbe", 12.5e9, 30e-6, f"100 Gb/s, one card a node; {_ASSUMED}", False),
        Link("25gbe", 3.125e9, 30e-6, f"25 Gb/s, one card a node; {_ASSUMED}", False),
        Link("loopback", 1.34e9 / REACHED_LINK, 217e-6, "gloo, two processes of one machine: benchmarks/plan.json, mean of two", False),
    )
}  # fmt: skip


def find_gpu(name: str) -> GPU:
    if name not in GPUS:
        raise ConfigError(f"--gpu: there is no {name!r}; known are {', '.join(GPUS)}; or give --measured RUN")
    return GPUS[name]


def find_links(text: str) -> tuple[Link, Link]:
    """Return the links inside a node and between nodes, of INSIDE,BETWEEN. Raises ConfigError."""
    # Both, for a single node too: the table for 1 to 1,024 GPUs has several nodes.
    inside, _, between = text.partition(",")
    if not between:
        raise ConfigError(f"--link {text}: give both, inside a node and between nodes, like nvlink4,ib-ndr")
    return find_link(inside), find_link(between)


def find_link(text: str) -> Link:
    """Return a link by its name, or of GB/S:MICROSECONDS or GB/S:MICROSECONDS/node. Raises ConfigError."""
    if text in LINKS:
        return LINKS[text]
    numbers, slash, owner = text.partition("/")
    speed, _, latency = numbers.partition(":")
    try:
        rate, micro = float(speed), float(latency)
    except ValueError:
        rate = micro = math.nan
    if math.isnan(rate) or math.isnan(micro) or (slash and owner != "node"):
        raise ConfigError(
            f"--link: {text!r} is no link; known are {', '.join(LINKS)}; or GB/S:MICROSECONDS, like 40:10, of a GPU, or 40:10/node of a "
            "node's one card (docs/scaling.md: from `collagan doctor`)"
        )
    for value, (least, most), unit in ((rate, _SPEEDS, "GB/s"), (micro, _LATENCIES, "microseconds")):
        if not least <= value <= most:
            raise ConfigError(
                f"--link: {text!r} has {value:g} {unit}; give a number from {least:,.10g} to {most:,.10g}"
            )
    return Link(
        text, rate * GIGABYTE / REACHED_LINK, micro * 1e-6, "given, one card a node" if slash else "given", not slash
    )
