"""Compares the tensors of two checkpoints: bit by bit, or within bounds that come from a training that was moved by roundings alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from collagan_dist.runs.contents import LOSS_SCALE, OPTIMIZER_FILE

Tensors = Mapping[str, Mapping[str, torch.Tensor]]  # by file and name

# In the order of a message: what is learned before what follows from it.
_FILES = ("generator", "discriminators", OPTIMIZER_FILE, "ema")
# No result depends on it, and ranks that share batches in other ways count in other ways.
_COUNTS = "num_batches_tracked"
_STEP = "/step"
_STATISTICS = ("running_mean", "running_var", _COUNTS)
# A group of tensors may be so many times as far from the recorded ones as the farthest twin is from the training here, or be this share of
# their change in the stretch: a rounding can turn the first step of Adam for a weight whose gradient is nearly 0, in the run and in no twin.
_FACTOR, _LEAST_SHARE = 5.0, 0.05
# Adam moves all weights about equally far in a step, so no single one can differ by much more than twice the largest change.
# Moments are of gradients, whose sizes jump.
_ELEMENT_FACTOR, _MOMENT_FACTOR = 2.0, 10.0
# A bound of the whole change would let everything pass. What is within the least share is confirmed without it.
_LARGEST_BOUND = 1.0
_TINY = 1e-300  # in place of a change of 0


@dataclass(frozen=True)
class Neighbours:
    """What a bound is made of: the first checkpoint, the trained stretch, and its twins, nudged by roundings at the beginning."""

    first: Tensors
    plain: Tensors
    nudged: Sequence[Tensors]


@dataclass(frozen=True)
class Distance:
    """How far the computed tensors are from the recorded ones, and how far they may be.

    Both are shares of the change of the weights in the stretch, of the network for which the first is the largest
    part of the second. `beyond` names what is too far. `tells` is false where only a bound as large as the change lets them pass.
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
    shares: list[tuple[float, float]] = []
    tells = True
    for file, kind, names in [] if beyond else _groups(recorded, statistics):
        group = _Group(file, names, recorded, found, neighbours)
        distance, change, *noises = map(_length, (group.distances, group.changes, *group.noises))
        noise = max(noises)
        bound = max(_FACTOR * noise, _LEAST_SHARE * change)
        beyond += group.single(_ELEMENT_FACTOR if file != OPTIMIZER_FILE else _MOMENT_FACTOR)
        if not distance <= bound:
            beyond.append(
                f"{file}.safetensors: {kind} as a whole, {distance / max(change, _TINY):.2g} of the change, at most {bound / max(change, _TINY):.2g}"
            )
        if kind == "weights" and change > 0:
            tells &= distance <= _LEAST_SHARE * change or _FACTOR * noise < _LARGEST_BOUND * change
            shares.append((distance / change, bound / change))
    share, bound = max(shares, key=lambda one: one[0] / one[1], default=(0.0, 0.0))
    return Distance(share, bound, tuple(beyond), tells)


@dataclass(frozen=True)
class _Group:
    """Tensors of one file that are measured together."""

    file: str
    names: list[str]
    recorded: Tensors
    found: Tensors
    neighbours: Neighbours

    @property
    def distances(self) -> list[torch.Tensor]:
        return [_difference(self.recorded, self.found, self.file, name) for name in self.names]

    @property
    def noises(self) -> list[list[torch.Tensor]]:
        twins = self.neighbours.nudged
        return [[_difference(self.neighbours.plain, twin, self.file, name) for name in self.names] for twin in twins]

    @property
    def changes(self) -> list[torch.Tensor]:
        """The change of each tensor in the stretch, by what was computed here: what was recorded may be forged."""
        return [_difference(self.neighbours.plain, self.neighbours.first, self.file, name) for name in self.names]

    def single(self, factor: float) -> Iterator[str]:
        """Yield the tensors that have an element too far by itself: one changed weight would vanish in the sum."""
        for name, distance, change, *noises in zip(
            self.names, *map(_largest, (self.distances, self.changes, *self.noises)), strict=True
        ):
            if not distance <= max(_FACTOR * max(noises), factor * change):
                yield f"{self.file}.safetensors: {name}, {distance:.2g} in one element, where the largest change is {change:.2g}"


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
    """Return whether both sides have the tensor, with finite values, and integers and Adam's steps with equal ones."""
    pair = _pair(recorded, found, file, name)
    if pair is None or not all(bool(one.isfinite().all()) for one in pair):
        return False  # no distance to NaN is larger than a bound
    if file == OPTIMIZER_FILE and name.endswith(_STEP):  # fp16 alone skips steps, where its gradients overflow
        return any(one.endswith(LOSS_SCALE) for one in recorded[file]) or torch.equal(*pair)
    return pair[0].is_floating_point() or name.endswith(_COUNTS) or torch.equal(*pair)


def _difference(one: Tensors, other: Tensors, file: str, name: str) -> torch.Tensor:
    """Return the difference of a tensor; the whole of it where one side has not begun to have it, as Adam's state in the first step."""
    tensors = [side.get(file, {}).get(name) for side in (one, other)]
    first, *second = [tensor.double() for tensor in tensors if tensor is not None]
    return first - second[0] if second else first


def _largest(parts: list[torch.Tensor]) -> list[float]:
    return [float(part.abs().max()) if part.numel() else 0.0 for part in parts]


def _length(parts: list[torch.Tensor]) -> float:
    return sum(float(part.norm()) ** 2 for part in parts) ** 0.5
