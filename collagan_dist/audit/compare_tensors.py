"""Compares the tensors of two checkpoints: bit by bit, or within bounds that come from a training that was moved by roundings alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from collagan_dist.runs.contents import OPTIMIZER_FILE

Tensors = Mapping[str, Mapping[str, torch.Tensor]]  # by file and name

# In the order of a message: what is learned before what follows from it.
_FILES = ("generator", "discriminators", OPTIMIZER_FILE, "ema")
_COUNTS = (
    "num_batches_tracked"  # which no result depends on, and ranks that share batches in other ways count in other ways
)
_STATISTICS = ("running_mean", "running_var", _COUNTS)
# How much further from the recorded tensors than the nudged training is from its twin: of all weights, statistics or moments of a file
# together, and of one tensor. docs/audit.md has the measured factors, at most 1.7 and 6.
_FACTOR, _TENSOR_FACTOR = 5.0, 30.0
# A bound of the whole distance that a stretch has moved would let everything pass.
_LARGEST_BOUND = 1.0


@dataclass(frozen=True)
class Neighbours:
    """What a bound is made of: the first checkpoint, the trained stretch, and the same one nudged by roundings at its beginning."""

    first: Tensors
    plain: Tensors
    nudged: Tensors


@dataclass(frozen=True)
class Distance:
    """How far the computed tensors are from the recorded ones, and how far they may be.

    Both are shares of the distance that the weights moved in the stretch, of the network for which the first is the largest
    part of the second. `beyond` names what is too far. `tells` is false where roundings alone move so much that nothing follows.
    """

    share: float
    bound: float
    beyond: tuple[str, ...]
    tells: bool


def differing(recorded: Tensors, found: Tensors) -> list[str]:
    """Return "file: tensor" of all tensors whose bits are not equal, those that only one side has included."""
    return [
        f"{file}.safetensors: {name}"
        for file, name in _names(recorded, found)
        if not _same(recorded, found, file, name)
    ]


def within(recorded: Tensors, found: Tensors, neighbours: Neighbours, statistics: bool) -> Distance:
    """Return how the distance to the recorded tensors compares with that between two trainings which differ by roundings.

    Without `statistics`, running statistics are left out.
    """
    beyond = [
        f"{file}.safetensors: {name}"
        for file, name in _names(recorded, found)
        if not _alike(recorded, found, file, name)
    ]
    shares: list[tuple[float, float, float]] = []
    tells = True
    for file, kind, names in [] if beyond else _groups(recorded, statistics):
        group = _Group(file, names)
        distance, noise = group.norm(recorded, found), group.norm(neighbours.plain, neighbours.nudged)
        if distance > _FACTOR * noise:
            beyond.append(f"{file}.safetensors: {kind} as a whole")
        beyond += group.too_far(recorded, found, neighbours, noise)
        if kind == "weights" and (moved := group.norm(recorded, neighbours.first)) > 0:
            tells &= _FACTOR * noise < _LARGEST_BOUND * moved
            shares.append((distance / noise if noise else distance, distance / moved, _FACTOR * noise / moved))
    _, share, bound = max(shares, default=(0.0, 0.0, 0.0))
    return Distance(share, bound, tuple(beyond), tells)


@dataclass(frozen=True)
class _Group:
    """Tensors of one file that are measured together."""

    file: str
    names: list[str]

    def norm(self, one: Tensors, other: Tensors) -> float:
        return sum(_norm(one, other, self.file, name) ** 2 for name in self.names) ** 0.5

    def too_far(self, recorded: Tensors, found: Tensors, neighbours: Neighbours, noise: float) -> Iterator[str]:
        """Yield the tensors that are too far by themselves: one changed weight would vanish in the sum."""
        elements = sum(recorded[self.file][name].numel() for name in self.names)
        for name in self.names:
            # A small tensor may by chance have been moved by nothing: it has at least its share of the file's.
            share = noise * (recorded[self.file][name].numel() / elements) ** 0.5
            least = max(_norm(neighbours.plain, neighbours.nudged, self.file, name), share)
            if _norm(recorded, found, self.file, name) > _TENSOR_FACTOR * least:
                yield f"{self.file}.safetensors: {name}"


def _groups(recorded: Tensors, statistics: bool) -> Iterator[tuple[str, str, list[str]]]:
    """Yield (file, kind, names) of the tensors that are measured together: weights, statistics, and each kind of Adam's state."""
    for file in (one for one in _FILES if one in recorded):
        kinds: dict[str, list[str]] = {}
        for name, tensor in recorded[file].items():
            kind = "statistics" if name.endswith(_STATISTICS) else "weights"
            kind = name.rpartition("/")[2] if file == OPTIMIZER_FILE else kind
            if tensor.is_floating_point() and (statistics or kind != "statistics"):
                kinds.setdefault(kind, []).append(name)
        yield from ((file, kind, names) for kind, names in kinds.items())


def _names(recorded: Tensors, found: Tensors) -> Iterator[tuple[str, str]]:
    for file in (one for one in _FILES if one in recorded or one in found):
        names = [*recorded.get(file, {}), *(name for name in found.get(file, {}) if name not in recorded.get(file, {}))]
        yield from ((file, name) for name in names)


def _pair(recorded: Tensors, found: Tensors, file: str, name: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    one, other = recorded.get(file, {}).get(name), found.get(file, {}).get(name)
    if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
        return None
    return one, other


def _same(recorded: Tensors, found: Tensors, file: str, name: str) -> bool:
    pair = _pair(recorded, found, file, name)
    # As bytes: -0.0 and 0.0 are not the same bits.
    return pair is not None and torch.equal(*(one.contiguous().reshape(-1).view(torch.uint8) for one in pair))


def _alike(recorded: Tensors, found: Tensors, file: str, name: str) -> bool:
    """Return whether both sides have the tensor, and an integer one has equal values."""
    pair = _pair(recorded, found, file, name)
    return pair is not None and (pair[0].is_floating_point() or name.endswith(_COUNTS) or torch.equal(*pair))


def _norm(one: Tensors, other: Tensors, file: str, name: str) -> float:
    """Return the L2 distance of a tensor; from 0 where one side has not begun to have it, as Adam's state in the first step."""
    tensors = [side.get(file, {}).get(name) for side in (one, other)]
    known = [tensor.double() for tensor in tensors if tensor is not None]
    return float((known[0] - known[1] if len(known) == 2 else sum(known, torch.zeros(()))).norm())
