"""Decoded canvases that stay in memory after they were first shown (data.keep), so that later epochs decode nothing."""

from __future__ import annotations

import threading
from mmap import mmap

import numpy as np
import torch

# A lock that is taken and released is where processors keep the order of memory accesses. So another rank that sees a sample's epoch
# sees its pixels, too.
_ORDER = threading.Lock()


def needed_bytes(samples: int, canvas: int, labels: bool) -> int:
    """Return the bytes of a store: a picture, a label map and an int32 for each sample."""
    return samples * (canvas**2 * (3 + labels) + 4)


class CanvasStore:
    """The canvases of a split by sample number: in `memory` of the host, which the ranks of a node may share, or else on the device.

    A canvas serves from the epoch after the one in which it was stored.
    """

    def __init__(
        self, samples: int, canvas: int, labels: bool, device: torch.device, memory: mmap | None = None
    ) -> None:
        self.device, self._in_host = device, memory is not None
        picture, labels_size = samples * canvas**2 * 3, samples * canvas**2 * labels
        if memory is None:
            self._next_epoch = np.zeros(samples, np.int32)
            pixels = torch.empty(picture + labels_size, dtype=torch.uint8, device=device)
        else:
            self._next_epoch = np.frombuffer(memory, np.int32, samples)
            pixels = torch.frombuffer(memory, dtype=torch.uint8, offset=4 * samples)
        self._image = pixels[:picture].view(samples, canvas, canvas, 3)
        self._label = pixels[picture:].view(samples, canvas, canvas) if labels else None

    def holds(self, numbers: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        """Return which of the samples may be taken in their epochs."""
        stored = self._next_epoch[numbers]  # 0: not yet
        with _ORDER:
            pass
        return (stored > 0) & (stored <= epochs)

    def put(self, numbers: np.ndarray, epochs: np.ndarray, image: torch.Tensor, label: torch.Tensor | None) -> None:
        """Store canvases (B, C, C, 3) and label maps (B, C, C) that were decoded in these epochs."""
        new = np.flatnonzero(self._next_epoch[numbers] == 0)
        numbers = numbers[new]
        at, rows = torch.from_numpy(numbers), torch.from_numpy(new)
        for store, value in ((self._image, image), (self._label, label)):
            if store is not None and value is not None:
                store.index_copy_(0, at.to(store.device), value[rows.to(value.device)].to(store.device))
        with _ORDER:
            pass
        self._next_epoch[numbers] = epochs[new] + 1  # last, so that nobody takes what is not there

    def take(self, numbers: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return copies of canvases and label maps, on the device."""
        return self._rows(self._image, numbers), None if self._label is None else self._rows(self._label, numbers)

    def _rows(self, store: torch.Tensor, numbers: np.ndarray) -> torch.Tensor:
        at = torch.from_numpy(numbers)
        if not self._in_host or self.device.type == "cpu":
            return store.index_select(0, at.to(store.device))
        rows = torch.empty((len(numbers), *store.shape[1:]), dtype=torch.uint8, pin_memory=True)
        return torch.index_select(store, 0, at, out=rows).to(self.device, non_blocking=True)
