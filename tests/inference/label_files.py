"""Label maps on disk, and a parser that records its input."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from collagan_dist.inference.parsers import RunParser


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("*.png")}


class Recorded:
    """A real parser that records its batches."""

    def __init__(self, parser: RunParser) -> None:
        self._parser, self.batches = parser, list[np.ndarray]()
        self.identity, self.size, self.views = parser.identity, parser.size, parser.views

    def __call__(self, pixels_BHW3: np.ndarray) -> np.ndarray:
        self.batches.append(pixels_BHW3.copy())
        return self._parser(pixels_BHW3)
