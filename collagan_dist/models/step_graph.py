"""A training step as one CUDA graph (`runtime.cuda_graph`): captured once a stage, then replayed: one launch for hundreds of operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from collagan_dist.types import Batch

# Steps before a capture. In them libraries choose their algorithms, torch.compile compiles, and Adam makes its moments.
_WARM_UP = 3


@dataclass(frozen=True)
class StepOutcome:
    """What a step leaves on the device: the scalars to log by name, and the flags of its updates (updates, 3) by `sides`."""

    values: dict[str, torch.Tensor]
    sides: tuple[str, ...]
    flags: torch.Tensor


class StepGraph:
    """Runs a step, which reads and writes tensors that stay in their place, such as parameters."""

    def __init__(self) -> None:
        self._stage, self._steps = 0, 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, run: Callable[[Batch, int], StepOutcome], batch: Batch, stage: int) -> StepOutcome:
        """Do what `run` does with a batch and its stage: in the first steps of a stage by calling it, then by the graph."""
        if stage != self._stage:  # it has other losses
            self._stage, self._steps, self._graph = stage, 0, None
        self._steps += 1
        if self._steps <= _WARM_UP:
            return run(batch, stage)
        if self._graph is None:
            self._capture(run, batch)
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

    def _capture(self, run: Callable[[Batch, int], StepOutcome], batch: Batch) -> None:
        self._batch = batch.clone()
        graph = torch.cuda.CUDAGraph()
        # Other threads use the device meanwhile: they decode batches and save checkpoints.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._outcome = run(self._batch, self._stage)
        self._graph = graph
