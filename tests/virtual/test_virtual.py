"""The CUDA code on a machine without a GPU: tests/gpu and cases.py in a process whose CUDA device is the virtual one of device.py."""

import pytest
import torch

from tests.virtual.conftest import run_on_virtual_device


@pytest.mark.parametrize(
    ("tests", "which"),
    [
        ("tests/virtual/cases.py", "not captured and not peers and not canvases and not full_width"),
        ("tests/virtual/cases.py", "full_width"),
        pytest.param("tests/virtual/cases.py", "peers or canvases", marks=pytest.mark.full),
        ("tests/gpu", "not compile"),
    ],
    ids=["cases", "full width", "peers", "gpu"],
)
def test_on_the_virtual_device(library, tests, which):
    # The virtual device computes on the CPU; without oneDNN's bf16 such a step takes minutes.
    if which == "full_width" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no bf16 (AVX-512 or AMX)")
    run_on_virtual_device(library, tests, which)  # captured steps: test_captured.py
