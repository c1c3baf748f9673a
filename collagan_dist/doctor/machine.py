"""Checks of one machine: libraries, devices, decoding, shared memory, limits, stale locks."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from collagan_dist.data.loading.decode import Decoder
from collagan_dist.data.shards.shard_reader import StoredSample
from collagan_dist.distributed import versions
from collagan_dist.doctor import jit_locks
from collagan_dist.doctor.finding import Finding, failed, ok, warning

# Library: (below this it is known to be bad, why).
_LEAST = {
    "torch": ((2, 10), "loading a checkpoint may run code of its author"),
    "ray": ((2, 52), "its ports take orders from anybody"),
}
_NEEDED = ("torch", "dali", "numpy")
_GB = 1 << 30
_FILES, _SHM = 4096, _GB // 4
_SIDE, _CHROMA = 64, 12  # of the test picture; how far a decoded colour may be from the drawn one


def libraries() -> Iterator[Finding]:
    found = {name: versions.library_version(name) for name in versions.LIBRARIES}
    wrong = [(name, why) for name, (least, why) in _LEAST.items() if (v := found[name]) and _numbers(v) < least]
    missing = [name for name in _NEEDED if found[name] is None]
    text = ", ".join(f"{name} {version or 'not installed'}" for name, version in found.items())
    text = f"collagan_dist {versions.code_version()}, python {versions.python_version()}, {text}"
    if missing:
        yield failed("libraries", f"{', '.join(missing)} not installed; {text}", "run `make setup`")
    elif wrong:
        bad = "; ".join(f"{name} below {'.'.join(map(str, _LEAST[name][0]))}: {why}" for name, why in wrong)
        yield failed("libraries", f"{bad}; {text}", "install newer ones: `make setup` takes those of constraints.txt")
    else:
        yield ok("libraries", text)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())


def devices() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    if not torch.cuda.is_available():
        if Path("/dev/nvidia0").exists():
            yield warning("devices", f"a GPU is here, but torch {torch.__version__} cannot use it; {cores} CPU cores",
                          "compare `nvidia-smi` with torch.version.cuda; CUDA_VISIBLE_DEVICES may hide it")  # fmt: skip
        else:
            yield ok("devices", f"no GPU, {cores} CPU cores")
        return
    gpus = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        gpus.append(f"{torch.cuda.get_device_name(number)} ({free / _GB:.0f} of {total / _GB:.0f} GB free)")
        values = torch.arange(1000, device=f"cuda:{number}").sum().item()
        if values != 499500:
            yield failed(
                "devices", f"GPU {number} adds 0 to 999 up to {values}", "leave this node out and have it looked at"
            )
            return
    yield ok("devices", f"{', '.join(gpus)}, driver {_driver()}, CUDA {torch.version.cuda}, {cores} CPU cores")


def _driver() -> str:
    path = Path("/proc/driver/nvidia/version")
    words = path.read_text().split() if path.exists() else []
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")


def decoding() -> Iterator[Finding]:
    """A JPEG made on the spot, through DALI as in training, on the CPU and on the GPU."""
    import simplejpeg

    picture = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    picture[:, : _SIDE // 2], picture[:, _SIDE // 2 :] = (200, 60, 30), (20, 90, 220)
    jpg = np.frombuffer(simplejpeg.encode_jpeg(picture, quality=95), np.uint8)
    done = []
    for device in [torch.device("cpu")] + [torch.device("cuda")] * torch.cuda.is_available():
        decoder = Decoder(1, _SIDE, labels=False, resize=False, threads=1, device=device)
        sample = StoredSample("doctor", 0, jpg, None, None, _SIDE, _SIDE)
        image, _ = decoder([sample], np.zeros((1, 4), np.float32))
        away = int(np.abs(image[0].cpu().numpy().astype(int) - picture).mean())
        if away > _CHROMA:
            yield failed(
                "decoding", f"DALI on {device.type} decodes a picture {away} grey levels away from what was drawn"
            )
            return
        done.append(device.type)
    yield ok("decoding", f"DALI decodes a JPEG on {' and '.join(done)}")


def shared_memory() -> Iterator[Finding]:
    shm = Path("/dev/shm")
    if not shm.is_dir():
        yield warning("/dev/shm", "is not there", "mount a tmpfs on it")
        return
    total, _, free = shutil.disk_usage(shm)
    text = f"{free / _GB:.1f} of {total / _GB:.1f} GB free"
    if free < _SHM:
        yield warning(
            "/dev/shm",
            f"only {text}; ranks of a node exchange data there",
            "in a container: --shm-size=8g or --ipc=host",
        )
    else:
        yield ok("/dev/shm", text)


def limits() -> Iterator[Finding]:
    files, locked = resource.getrlimit(resource.RLIMIT_NOFILE)[0], resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    text = f"{_limit(files)} open files, {_limit(locked, 1 << 20)} MB of locked memory"
    if files != resource.RLIM_INFINITY and files < _FILES:
        yield warning("limits", f"{text}: large data sets and many ranks need more files", f"ulimit -n {_FILES}")
    elif locked != resource.RLIM_INFINITY and any(Path("/sys/class/infiniband").glob("*")):
        yield warning(
            "limits",
            f"{text}: InfiniBand needs to lock all it wants",
            "ulimit -l unlimited (limits.conf, slurmd's unit)",
        )
    else:
        yield ok("limits", text)


def _limit(value: int, unit: int = 1) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value // unit)


def locks() -> Iterator[Finding]:
    """Locks of torch extensions: a later compilation waits for them without a word."""
    folder = jit_locks.extensions_folder()
    found = jit_locks.abandoned()
    if not found:
        yield ok("locks", f"none in {folder}")
        return
    text = ", ".join(f"{lock.path} ({lock.age:.0f} s old)" for lock in found)
    yield warning("locks", f"left by a killed compilation: {text}", "remove it when no other node compiles there")
