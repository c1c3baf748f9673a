"""Which device and how many threads a rank uses."""

from __future__ import annotations

import ctypes
import os

import torch

from collagan_dist.types import World

# Options of glibc's mallopt and their values in bytes: from which size each allocation is a mapping of its own, and how much free
# memory is kept.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = (-3, 1 << 30), (-1, 1 << 28)


def pick_device(world: World) -> torch.device:
    """Return the rank's GPU, or the CPU on a machine without GPUs."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # With more ranks than GPUs, and where the launcher shows each rank its own GPU only, the numbers wrap.
    device = torch.device("cuda", world.local_rank % torch.cuda.device_count())
    # Collectives of objects use the current device.
    torch.cuda.set_device(device)
    return device


def has_bf16(device: torch.device) -> bool:
    """Return whether a device has fast kernels for bfloat16. On a CPU without AVX-512 or AMX they take several times as long as for float32."""
    # oneDNN decides by the processor; the operator is all that torch tells of it.
    return device.type != "cpu" or (
        torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def thread_count(world: World, wanted: int = 0) -> int:
    """Return `wanted`, or if it is 0 an equal share of the cores that this process may use."""
    # Not os.cpu_count(): Slurm and containers restrict processes to some of the machine's cores.
    return wanted or max(1, len(os.sched_getaffinity(0)) // world.local_size)


def configure_torch(threads: int, deterministic: bool) -> None:
    torch.set_num_threads(threads)
    _keep_freed_memory()
    # fp32 is float32: torch lets cuDNN round to TF32, 10 bits of mantissa. bf16 is what is fast.
    torch.backends.cudnn.allow_tf32 = False
    # Shapes never change within a run, so cuDNN may measure its algorithms once.
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        # cuBLAS reads it when its first handle is created; without it torch refuses deterministic algorithms.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def _keep_freed_memory() -> None:
    """Let the C library use a tensor's memory again instead of giving it back."""
    # On a CPU large tensors are mapped, and the kernel clears each page of each of them: a tenth of an evaluation's time.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not every C library has it
    if mallopt is not None:
        mallopt(*_M_MMAP_THRESHOLD)
        mallopt(*_M_TRIM_THRESHOLD)
