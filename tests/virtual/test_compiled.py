"""`runtime.compile: step` at full width: how much of a step is in its graphs, and what the rest and they ask of a GPU."""

import pytest

from tests.virtual.compiled import count_compiled_step

# Ceilings at batch 256 in bf16: they only fall. benchmarks/virtual.json has the figures.
OPERATIONS, GIGABYTES = 58, 41.5


@pytest.mark.full  # two minutes; that the graphs learn the same is tests/models/test_compiled_step.py
def test_a_compiled_step_leaves_little_outside_its_graphs():
    counts, moved = count_compiled_step(256)
    assert len(counts.graphs) == 6  # forward and backward of G, of D's loss, of G's loss
    assert counts.outside.operations.total() <= OPERATIONS
    assert (moved["fused"] + moved["convolutions"] + moved["outside"]) / 1e9 <= GIGABYTES
