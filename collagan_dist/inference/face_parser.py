"""What every face parser of `collagan label` offers, and how to run one that takes batches of a fixed size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from collagan_dist.inference.face_views import Views


@dataclass(frozen=True)
class ParserIdentity:
    """What decides a label map besides the photograph: parsers of equal identity write equal maps."""

    name: str
    sha256: str
    settings: dict[str, Any]  # what else changes maps: views, the sha256 of a class map


class FaceParser(Protocol):
    """A network that segments the parts of a face. `size` is (height, width) of the pictures that it takes."""

    identity: ParserIdentity
    size: tuple[int, int]
    views: Views

    def __call__(self, pixels_BHW3: np.ndarray) -> np.ndarray:
        """(B, 11, h, w) float32 scores of our classes for uint8 RGB pictures of `size`; left is left in the picture."""


def run_in_batches(batch: int, pixels_BHW3: np.ndarray, network: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Run `network` on batches of exactly `batch` pictures; the last one is filled up with black pictures."""
    batches = [pixels_BHW3[i : i + batch] for i in range(0, len(pixels_BHW3), batch)]
    # Each output is cut to its batch, which drops those of the black pictures.
    outputs = [network(np.pad(p, ((0, batch - len(p)), (0, 0), (0, 0), (0, 0))))[: len(p)] for p in batches]
    return np.concatenate(outputs)
