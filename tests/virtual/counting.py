"""What a training step at full width asks of a GPU, counted on the virtual device: waits of the host, operations, bytes."""

from collections import Counter
from dataclasses import dataclass

from tests.virtual import device
from tests.virtual.full_width import SMALL, bytes_at, step_at_full_width
from tests.virtual.kernels import Kernels


@dataclass
class Counts:
    """By name of the operation; `bytes` at the wanted batch. `waits` are those of the host."""

    operations: Counter[str]
    bytes: dict[str, float]
    waits: int


def count_step(batch: int, *sets: str) -> Counts:
    """Count the step of step_at_full_width at any batch."""
    found: dict[int, Kernels] = {}
    waits = 0
    for size in SMALL:
        step = step_at_full_width(device.DEVICE, size, *sets)
        step()  # what is made once
        device.RECORD.clear()
        step()
        found[size], waits = device.RECORD.kernels, sum(lines.total() for lines in device.RECORD.waits.values())
        device.RECORD.clear()
    moved = bytes_at(batch, {size: kernels.bytes for size, kernels in found.items()})
    return Counts(found[SMALL[0]].operations, moved, waits)
