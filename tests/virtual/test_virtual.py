"""The CUDA code on a machine without a GPU: tests/gpu and cases.py in a process whose CUDA device is the virtual one of device.py."""

import pytest

from tests.virtual.conftest import run_on_virtual_device


@pytest.mark.parametrize(
    ("tests", "which"),
    [
        ("tests/virtual/cases.py", "not captured and not peers and not canvases"),
        pytest.param("tests/virtual/cases.py", "peers or canvases", marks=pytest.mark.full),
        ("tests/gpu", "not compile"),
    ],
    ids=["cases", "peers", "gpu"],
)
def test_on_the_virtual_device(library, tests, which):
    run_on_virtual_device(library, tests, which)  # captured steps: test_captured.py
