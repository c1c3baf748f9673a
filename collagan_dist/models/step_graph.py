"""A training step as one CUDA graph (`runtime.cuda_graph`): captured once, then replayed, so that the host launches one operation for hundreds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError
from collagan_dist.types import Batch, World

# Steps before a capture. In them libraries choose their algorithms, torch.compile compiles, and Adam makes its moments.
_WARM_UP = 3


@dataclass(frozen=True)
class StepOutcome:
    """What a step leaves on the device: the scalars to log by name, and the flags of its updates (updates, 3) by `sides`."""

    values: dict[str, torch.Tensor]
    sides: tuple[str, ...]
    flags: torch.Tensor


class StepGraph:
    """Called like `run`, with a batch and its stage: a pure function of tensors that stay in their place, such as parameters."""

    def __init__(self, run: Callable[[Batch, int], StepOutcome]) -> None:
        self._run = run
        self._stage, self._steps = 0, 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch, stage: int) -> StepOutcome:
        """Run a step: the first ones of a stage one operation after the other, then the graph."""
        if stage != self._stage:  # it has other losses
            self._stage, self._steps, self._graph = stage, 0, None
        self._steps += 1
        if self._steps <= _WARM_UP:
            return self._run(batch, stage)
        if self._graph is None:
            self._capture(batch)
        else:
            for mine, theirs in zip(self._batch.tensors(), batch.tensors(), strict=True):
                mine.copy_(theirs)
        assert self._graph is not None
        self._graph.replay()
        # Copies: the next replay writes to the same places before anyone has read them.
        values = torch.stack(list(self._outcome.values.values())).unbind()
        return replace(
            self._outcome,
            values=dict(zip(self._outcome.values, values, strict=True)),
            flags=self._outcome.flags.clone(),
        )

    def _capture(self, batch: Batch) -> None:
        self._batch = batch.clone()
        graph = torch.cuda.CUDAGraph()
        # Other threads use the device meanwhile: they decode batches and save checkpoints.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._outcome = self._run(self._batch, self._stage)
        self._graph = graph


def check_cuda_graph(config: Config, world: World, device: torch.device) -> None:
    """Raise ConfigError if a step cannot be captured here."""
    reason = ""
    if device.type != "cuda":
        reason = f"a CUDA graph needs a CUDA device, and this run is on {device.type}"
    elif world.size > 1:
        reason = f"the {world.size} ranks of this run average gradients within a step, which a graph would hide from the watch over hanging ranks"
    elif config.runtime.engine == "deepspeed":
        reason = "DeepSpeed's step waits for the host"
    if reason:
        raise ConfigError(f"runtime.cuda_graph: {reason}; set it to false")
