"""The virtual device for tests: its library, and a process of pytest that has it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.virtual.library import compile_hooks, missing_compiler

# What a real device alone can show: NCCL, DeepSpeed's and Triton's kernels, other processes, nvJPEG.
REAL = "not nccl and not deepspeed and not two_ranks and not two_trials and not compile"


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    if torch.cuda.is_available():
        pytest.skip("a real CUDA device is here: tests/gpu runs on it")
    if reason := missing_compiler():
        pytest.skip(reason)
    return compile_hooks(tmp_path_factory.mktemp("virtual"))


def run_on_virtual_device(library: Path, tests: str, which: str) -> None:
    """Run the tests of a path whose names fit `which` (pytest's -k), each of which must pass."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.virtual.plugin", "-k", f"{REAL} and {which}", "-rs", tests]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    variables |= {"COLLAGAN_VIRTUAL_CUDA": str(library), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=550)
    # A process without its device would skip them all.
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout[-8000:] + done.stderr[-2000:]
