"""Saving beside training: tensors are copied while training waits, and written by a thread while it goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Tensors = Mapping[str, torch.Tensor]


class Snapshot:
    """A copy of tensors in CPU memory. The memory is kept for the next copy: fresh pages cost more time than the copying."""

    def __init__(self) -> None:
        self._kept: dict[str, torch.Tensor] = {}

    def take(self, tensors: Mapping[str, Tensors]) -> dict[str, dict[str, torch.Tensor]]:
        """Copies in plain layout, by file and name, good until the next call. Waits for the device once."""
        former, self._kept = self._kept, {}
        copies: dict[str, dict[str, torch.Tensor]] = {}
        devices: set[torch.device] = set()
        for file, content in tensors.items():
            copies[file] = {}
            for name, tensor in content.items():
                source = tensor.detach()
                target = self._place(former.pop(f"{file}/{name}", None), source)
                target.copy_(source, non_blocking=True)
                self._kept[f"{file}/{name}"] = copies[file][name] = target
                if source.is_cuda:
                    devices.add(source.device)
        for device in devices:
            torch.cuda.synchronize(device)
        return copies

    def _place(self, former: torch.Tensor | None, source: torch.Tensor) -> torch.Tensor:
        if former is not None and former.shape == source.shape and former.dtype == source.dtype:
            return former
        # Pinned: a GPU copies there by itself, all tensors at once.
        return torch.empty(source.shape, dtype=source.dtype, pin_memory=source.is_cuda)


@dataclass(frozen=True)
class Written:
    """How a write ended: its step, the seconds it took, and its error or None."""

    step: int
    seconds: float
    error: Exception | None


class Writer:
    """Does one piece of work at a time in a thread of its own. The program does not end before it has."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._written: Written | None = None

    def start(self, step: int, work: Callable[[], object], failed: Callable[[Exception], None]) -> None:
        """Begin to write; the former write must have been waited for. `failed` is told of an error, in the thread."""

        def run() -> None:
            began, problem = time.perf_counter(), None
            try:
                work()
            except Exception as error:  # the training's thread raises it
                problem = error
            self._written = Written(step, time.perf_counter() - began, problem)
            if problem is not None:
                failed(problem)

        assert self._thread is None
        self._thread = threading.Thread(target=run, name="checkpoint")
        self._thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether no write is under way, after waiting that long for it (None: till it ends)."""
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                return False
            self._thread = None
        return True

    def written(self) -> Written | None:
        """How the last write ended, told once."""
        written, self._written = self._written, None
        return written
