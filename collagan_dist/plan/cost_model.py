"""The model of a step's time: what a rank computes, what it must exchange, and how much of that is hidden.

    T_step = T_compute x (1 + straggling) + all-reduces that the backward passes do not hide + small collectives

Every assumption is a field of `Assumptions` or a figure of hardware.py; docs/scaling.md explains them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from statistics import NormalDist

from collagan_dist.errors import ConfigError
from collagan_dist.plan.hardware import GPU, REACHED_BANDWIDTH, REACHED_FLOPS, REACHED_LINK, Link
from collagan_dist.plan.work import StepWork

_BUCKET_BYTES = 25 << 20  # DDP's buckets; the last one starts when the backward pass has ended
# Least and most of each assumption. Far beyond what is seen, and so that times stay finite numbers above 0.
_RANGES = {
    "convolution": (0.01, 1.0),
    "launch": (0.0, 1.0),
    "overlap": (0.0, 1.0),
    "jitter": (0.0, 1.0),
    "contention": (1.0, 100.0),
}


@dataclass(frozen=True)
class Assumptions:
    """What is not known of a cluster.

    convolution   Share of the reached FLOP/s that convolutions have.
    launch        Seconds in which the host launches an operation.
    overlap       Share of a backward pass in which an all-reduce can run beside it; `parse` knows that of a CPU.
    jitter        Standard deviation of a rank's step as a share of it. Ranks wait for the slowest.
    contention    How many times longer a step takes where ranks of one node share memory and cores.
    """

    convolution: float = 0.5
    launch: float = 7.5e-6
    overlap: float = 0.8
    jitter: float = 0.01
    contention: float = 1.0

    @classmethod
    def parse(cls, texts: Sequence[str], device: str = "cuda") -> Assumptions:
        """Return the defaults for a type of device, but for texts NAME=X. Raises ConfigError."""
        # On a CPU gloo's threads take the cores of the backward pass.
        default = cls(overlap=0.0) if device == "cpu" else cls()
        names = [field.name for field in fields(cls)]
        changes: dict[str, float] = {}
        for text in texts:
            name, _, value = text.partition("=")
            if name not in names:
                raise ConfigError(f"--assume {text}: known are {', '.join(names)}")
            try:
                changes[name] = float(value)
            except ValueError:
                changes[name] = math.nan
            low, high = _RANGES[name]
            if not low <= changes[name] <= high:
                raise ConfigError(
                    f"--assume {text}: needs a number from {low:g} to {high:g}, as {name}={getattr(default, name):g}"
                )
        return replace(default, **changes)


@dataclass(frozen=True)
class Cluster:
    """Nodes of some ranks each, and the links inside and between them."""

    nodes: int
    ranks_per_node: int
    inside: Link
    between: Link

    @property
    def size(self) -> int:
        return self.nodes * self.ranks_per_node

    def of_size(self, size: int) -> Cluster:
        """Return a cluster of `size` ranks on few nodes, equally many on each."""
        local = max(ranks for ranks in range(1, min(size, self.ranks_per_node) + 1) if size % ranks == 0)
        return Cluster(size // local, local, self.inside, self.between)


@dataclass(frozen=True)
class StepTime:
    """A predicted step, in seconds. `exposed` is what of `all_reduce` nothing hides; `small`: verdicts, batch normalization."""

    compute: float
    waiting: float
    all_reduce: float
    exposed: float
    small: float

    @property
    def seconds(self) -> float:
        return self.compute + self.waiting + self.exposed + self.small


# Seconds in which a rank computes a step of some samples.
Compute = Callable[[int], float]


def computed_seconds(work: StepWork, gpu: GPU, precision: str, assumed: Assumptions) -> Compute:
    """Return the time of a step by the data sheet: a roofline of convolutions, the traffic of the rest, and launches."""
    flops = gpu.flops[precision] * REACHED_FLOPS * assumed.convolution
    bandwidth = gpu.bytes_per_s * REACHED_BANDWIDTH

    def seconds(samples: int) -> float:
        heavy = max(work.flops.at(samples) / flops, work.heavy_bytes.at(samples) / bandwidth)
        return max(heavy + work.light_bytes.at(samples) / bandwidth, work.operations * assumed.launch)

    return seconds


def all_reduce_seconds(size: float, cluster: Cluster) -> float:
    """Return the time of one all-reduce of `size` bytes: inside nodes a ring, between them the faster of ring and tree.

    Thakur 2005 has both costs. Inside a node gradients are scattered and gathered, so that each rank carries its share between nodes.
    """
    local, nodes = cluster.ranks_per_node, cluster.nodes
    inside, between = cluster.inside, cluster.between
    seconds = 0.0
    if local > 1:
        seconds += 2 * (local - 1) * (size / local / (inside.bytes_per_s * REACHED_LINK) + inside.latency)
    if nodes > 1:
        speed = between.bytes_per_s * REACHED_LINK / (1 if between.card_per_gpu else local)
        share = size / local
        ring = 2 * (nodes - 1) * (share / nodes / speed + between.latency)
        # A double binary tree, as NCCL's: every byte goes up and down once, in pieces.
        tree = 2 * (share / speed + math.ceil(math.log2(nodes)) * between.latency)
        seconds += min(ring, tree)
    return seconds


def predict(
    work: StepWork, samples: int, compute: Compute, cluster: Cluster, assumed: Assumptions, sync_bn: bool = False
) -> StepTime:
    """Return the step of ranks with `samples` each."""
    own = compute(samples) * (assumed.contention if cluster.ranks_per_node > 1 else 1.0)
    if cluster.size == 1:
        return StepTime(own, 0.0, 0.0, 0.0, 0.0)
    total, exposed = 0.0, 0.0
    for update in work.updates:
        sizes = _buckets(update.gradient_bytes)
        each = [all_reduce_seconds(size, cluster) for size in sizes]
        window = own * update.backward_flops.at(samples) / work.flops.at(samples)
        # The last bucket is full when the backward pass has ended, so nothing hides it.
        hidden = min(sum(each) - each[-1], assumed.overlap * window)
        total, exposed = total + sum(each), exposed + sum(each) - hidden
    small = len(work.updates) * all_reduce_seconds(8, cluster)  # is the update finite on all ranks?
    if sync_bn:
        # The float64 sums of the forward passes, the float32 gradients of the backward passes: two numbers a channel.
        small += sum(all_reduce_seconds(size * channels, cluster) for size, channels in work.norms)
    return StepTime(own, own * assumed.jitter * expected_maximum(cluster.size), total, exposed, small)


def _buckets(size: int) -> list[int]:
    """Return the sizes of DDP's buckets: full ones, and what is left."""
    full, rest = divmod(size, _BUCKET_BYTES)
    return [_BUCKET_BYTES] * full + [rest] * (rest > 0)


def expected_maximum(count: int) -> float:
    """Return about the mean of the largest of `count` standard normal numbers (Blom 1958)."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0
