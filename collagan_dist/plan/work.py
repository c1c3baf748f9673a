"""The work of one training step, counted: the configured networks and step run on fake tensors, which have shapes and no memory.

Nothing is computed, so any batch can be counted on any machine. Every count is a constant and a part for each sample.
"""

from __future__ import annotations

import re
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from collagan_dist.config.tree import Config
from collagan_dist.distributed.engine import Engine, Learner
from collagan_dist.distributed.group import Group
from collagan_dist.models.predictor import Tasks
from collagan_dist.models.registry import build_networks, build_step, count_parameters
from collagan_dist.models.step import Step
from collagan_dist.tasks import build_tasks
from collagan_dist.types import CLASSES, LANDMARKS, Batch, World

# Micro-batches that are counted. So large that no layer takes a CPU's way for few pixels (models/layers.py).
_SIZES = (4096, 8192)
LAST_STEP = (1 << 30) - 1  # the last of so long a run that the stages of every model come before its end
_NO_KERNEL = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "detach"}
_AVERAGE_TRAFFIC = 8  # times its bytes: a difference, a product and a sum, each read and written (models/networks.py)
_HEAVY = re.compile("convolution|mm|linear")  # operations that a GPU limits by its FLOP/s


@dataclass(frozen=True)
class Linear:
    """A count by samples of a rank's step: constant + each x samples."""

    constant: float
    each: float

    def at(self, samples: float) -> float:
        return self.constant + self.each * samples


@dataclass(frozen=True)
class UpdateWork:
    """One update of a step: bytes of the gradient that ranks average, and FLOPs of the backward pass in which they can do so."""

    side: str
    gradient_bytes: int
    backward_flops: Linear


@dataclass(frozen=True)
class StepWork:
    """What a rank does in a step, by its samples.

    flops         Of convolutions and matrix products, 2 for a multiplication and an addition.
    heavy_bytes   That these read and write. `light_bytes`: those of all other operations.
    operations    That have a kernel.
    peak_bytes    Most memory at a time, with parameters, gradients, Adam, average, activations and the batch.
    norms         What batch normalization over all ranks would sum: of each pass, bytes a channel and channels.
    """

    flops: Linear
    heavy_bytes: Linear
    light_bytes: Linear
    operations: int
    peak_bytes: Linear
    updates: tuple[UpdateWork, ...]
    norms: tuple[tuple[int, int], ...]


def count_step(config: Config) -> StepWork:
    """Count a step with all losses, in eager mode. Raises ConfigError where a network needs a file that is not there (GFC's parser)."""
    sizes = [size * config.runtime.accumulate for size in _SIZES]
    few, more = _count(config, sizes)

    def line(values: Sequence[float]) -> Linear:
        each = (values[1] - values[0]) / (sizes[1] - sizes[0])
        return Linear(values[0] - each * sizes[0], each)

    average = _average_bytes(config)
    updates = tuple(
        UpdateWork(a.side, a.gradient_bytes, line([a.flops, b.flops]))
        for a, b in zip(few.updates, more.updates, strict=True)
    )
    return StepWork(
        line([few.flops, more.flops]),
        line([one.bytes["heavy"] for one in (few, more)]),
        line([one.bytes["light"] + _AVERAGE_TRAFFIC * average for one in (few, more)]),
        few.operations,
        line([one.peak + average for one in (few, more)]),
        updates,
        tuple(few.norms),
    )


def _average_bytes(config: Config) -> int:
    return 4 * count_parameters(config)["generator"] if config.optim.ema else 0


def build_last_step(config: Config, engine: Engine, tasks: Tasks) -> Step:
    """Return a step of new networks, which has all losses of the model where it is called with LAST_STEP."""
    # A run may end before its adversarial losses begin; its plan has them all the same.
    config = config.model_copy(update={"schedule": config.schedule.model_copy(update={"adv_from": 0})})
    return build_step(config, engine, tasks, build_networks(config, engine, tasks), LAST_STEP + 1)


class _Pass:
    """The last backward pass of an update."""

    def __init__(self, side: str, gradient_bytes: int, flops: int) -> None:
        self.side, self.gradient_bytes, self.flops = side, gradient_bytes, flops


@dataclass
class _Counted:
    """What one step has asked for; `peak` begins with what is there before."""

    peak: int
    bytes: Counter[str] = field(default_factory=Counter)
    operations: int = 0
    flops: int = 0
    norms: list[tuple[int, int]] = field(default_factory=list)
    updates: list[_Pass] = field(default_factory=list)


class _Counts(TorchDispatchMode):
    """Counts what torch dispatches: bytes, operations, live memory, batch normalizations."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self._alive: dict[int, Any] = {}
        self.step = _Counted(0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        written = [x for x in tree_flatten(out)[0] if isinstance(x, torch.Tensor)]
        for tensor in written:
            self._follow(tensor.untyped_storage())
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if not is_view and name not in _NO_KERNEL and not name.startswith("prim::"):
            read = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
            self.step.operations += 1
            self.step.bytes["heavy" if _HEAVY.search(name) else "light"] += sum(t.nbytes for t in (*read, *written))
            if "batch_norm" in name:
                of_weight, each = (read[2], 8) if "backward" in name else (read[1], 16)  # distributed/sync_bn.py
                self.step.norms.append((each, of_weight.numel()))
        return out

    def _follow(self, storage: torch.UntypedStorage) -> None:
        """Count a storage's bytes until it is freed."""
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self.live += size
            self.step.peak = max(self.step.peak, self.live)
            self._alive[key] = weakref.ref(storage, lambda _: self._freed(key, size))

    def _freed(self, key: int, size: int) -> None:
        self._alive.pop(key, None)
        self.live -= size


class _CountingEngine(Engine):
    """The plain engine on fake tensors; it notes the FLOPs of backward passes."""

    def __init__(self, config: Config, counts: _Counts) -> None:
        super().__init__(config.runtime, Group(World(), torch.device("cpu")))
        self.counts, self.flop_counter = counts, FlopCounterMode(display=False)

    def prepare_module(self, module: nn.Module) -> nn.Module:
        # Not by `to`, which exchanges the contents of tensors: of fake ones torch cannot.
        for part in module.modules():
            for name, own in list(part.named_parameters(recurse=False)):
                layout = self.layout if own.dim() == 4 else torch.contiguous_format
                setattr(part, name, nn.Parameter(own.detach().contiguous(memory_format=layout), own.requires_grad))
        return module

    def backward(self, learners: Sequence[Learner], losses: Sequence[torch.Tensor]) -> None:
        before = self.flop_counter.get_total_flops()
        super().backward(learners, losses)
        flops = self.flop_counter.get_total_flops() - before
        size = sum(p.nbytes for learner in learners for p in learner.parameters)
        self.counts.step.updates.append(_Pass("", size, flops))


def _count(config: Config, sizes: Sequence[int]) -> list[_Counted]:
    """Count a step of each size, after one that makes Adam's state."""
    torch.manual_seed(0)
    config, found = _as_counted(config), []
    with FakeTensorMode(allow_non_fake_inputs=True), (counts := _Counts()):
        engine, tasks = _CountingEngine(config, counts), build_tasks(config)
        step = build_last_step(config, engine, tasks)
        for size in (sizes[0], *sizes):
            batch = made_up_batch(config.data.image_size, size)
            counts.step = _Counted(counts.live)
            with engine.flop_counter:
                result = step.run(batch, step.stage(LAST_STEP))
                counts.step.flops = engine.flop_counter.get_total_flops()
            _keep_last_passes(counts.step, result.sides, config.runtime.accumulate)
            found.append(counts.step)
            del batch, result
            counts.step = _Counted(0)  # the next batch is no part of this step
    return found[1:]


def _as_counted(config: Config) -> Config:
    """Return the configuration whose steps run in eager mode, by the plain engine."""
    # The average is a copy of a module, which torch cannot make of fake tensors; `count_step` adds it.
    changes = {
        "runtime": {"compile": False, "cuda_graph": False, "engine": "plain", "zero_stage": 0},
        "optim": {"ema": 0.0},
    }
    return config.model_copy(update={key: getattr(config, key).model_copy(update=new) for key, new in changes.items()})


def _keep_last_passes(counts: _Counted, sides: Sequence[str], parts: int) -> None:
    """Keep the backward pass of each update in which gradients are averaged: that of its last micro-batch."""
    counts.updates = counts.updates[parts - 1 :: parts]
    for one, side in zip(counts.updates, sides, strict=True):
        one.side = side


def made_up_batch(size: int, samples: int, device: torch.device | None = None) -> Batch:
    """Return a batch of random pictures with a block hole, label maps and landmarks."""
    device = device or torch.device("cpu")
    image = torch.rand(samples, 3, size, size, device=device) * 2 - 1
    hole = torch.zeros(samples, 1, size, size, dtype=torch.bool, device=device)
    hole[:, :, size // 4 : -size // 4, size // 4 : -size // 4] = True
    numbers = np.arange(samples)
    keys = torch.arange(2 * samples, dtype=torch.int32, device=device).view(samples, 2)
    label = torch.randint(0, len(CLASSES), (samples, size, size), dtype=torch.uint8, device=device)
    points = torch.rand(samples, len(LANDMARKS), 2, device=device) * size
    seen = torch.where(hole, 0.0, image)
    return Batch(image, seen, hole, label, points, numbers, np.zeros_like(numbers), keys)
