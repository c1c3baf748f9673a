"""Captured steps on the virtual device: a file of its own, which another worker takes, since they take as long as all other cases."""

from tests.virtual.conftest import run_on_virtual_device


def test_captured_steps(library):
    run_on_virtual_device(library, "tests/virtual/cases.py", "captured")
