"""Checks of one machine: libraries, devices, JPEG decoding, shared memory, limits, abandoned locks."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from collagan_dist.data.face_square import square_from_size
from collagan_dist.data.loading.decode import Decoder
from collagan_dist.data.shards.shard_reader import StoredSample
from collagan_dist.distributed import versions
from collagan_dist.doctor import jit_locks
from collagan_dist.doctor.finding import Finding, failed, ok, warning

# What is wrong with versions below the bound, beyond that nobody has tested them.
_OLDER = {
    "torch": "loading a checkpoint may run code of its author",
    "ray": "its ports run code for anybody who reaches them",
    "opencv-python-headless": "it fills polygons otherwise, so drawn faces differ",
    "numpy": "its integers overflow and round otherwise",
}
_OLDEST_DRIVER = {"nvidia-dali-cuda130": 580, "nvidia-dali-cuda120": 525}
# DALI exists for Linux alone; DeepSpeed and Ray are optional.
_REQUIRED = ("torch", "numpy", *["dali"] * (sys.platform == "linux"))
_GB = 1 << 30
_MIN_OPEN_FILES = 4096
_MIN_SHARED_MEMORY_BYTES = _GB // 4
_PICTURE_SIDE = 64  # pixels
_MAX_DECODING_ERROR = 12  # grey levels: JPEG is lossy, and decoders round differently


def check_libraries() -> Iterator[Finding]:
    found = {name: versions.library_version(name) for name in versions.LIBRARIES}
    missing = [name for name in _REQUIRED if found[name] is None]
    text = ", ".join(f"{name} {version or 'not installed'}" for name, version in found.items())
    text = f"collagan_dist {versions.code_version()}, python {versions.python_version()}, {text}"
    if missing:
        yield failed("libraries", f"{', '.join(missing)} not installed; {text}", "run `make setup`")
    else:
        yield ok("libraries", text)
    for library in versions.outside_bounds(extras=True):
        why = f" ({_OLDER[library.name]})" if library.name in _OLDER else ""
        yield failed(library.name, f"{library}{why}", library.mend)


def check_devices() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))  # those that this process may use
    if not torch.cuda.is_available():
        if Path("/dev/nvidia0").exists():
            # A driver older than torch's CUDA makes a training fall back to the CPU, without a message.
            text = f"there is a GPU, but torch {torch.__version__} cannot use it; {cores} CPU cores"
            mend = "compare `nvidia-smi` with torch.version.cuda; CUDA_VISIBLE_DEVICES may hide it"
            yield warning("devices", text, mend)
        else:
            yield ok("devices", f"no GPU, {cores} CPU cores")
        return
    gpus = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        gpus.append(f"{torch.cuda.get_device_name(number)} ({free / _GB:.0f} of {total / _GB:.0f} GB free)")
        # A broken GPU may answer all queries and still compute wrong numbers.
        total_sum = torch.arange(1000, device=f"cuda:{number}").sum().item()
        if total_sum != 499500:
            mend = "leave this node out and have it checked"
            yield failed("devices", f"GPU {number} adds 0 to 999 up to {total_sum}", mend)
            return
    driver = _driver()
    yield ok("devices", f"{', '.join(gpus)}, driver {driver}, CUDA {torch.version.cuda}, {cores} CPU cores")
    yield from check_driver(driver, versions.dali_wheel())


def check_driver(driver: str, wheel: str | None) -> Iterator[Finding]:
    """Compare the GPU's driver with what DALI's wheel was built for: with an older one it does not decode on the GPU."""
    major = driver.partition(".")[0]
    least = _OLDEST_DRIVER.get(wheel or "")
    if least is None or not major.isdigit() or int(major) >= least:
        return
    others = [name for name, oldest in _OLDEST_DRIVER.items() if oldest <= int(major)]
    mend = f"pip uninstall {wheel}; pip install {others[0]}" if others else "update the driver"
    yield failed("driver", f"{driver} is older than {least}, which {wheel} needs", mend)


def _driver() -> str:
    path = Path("/proc/driver/nvidia/version")
    words = path.read_text().split() if path.exists() else []
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")


def check_decoding() -> Iterator[Finding]:
    """Decode a generated JPEG as in training, on the CPU and on the GPU."""
    import simplejpeg  # only here: the other checks must run without it

    picture = np.zeros((_PICTURE_SIDE, _PICTURE_SIDE, 3), np.uint8)
    half = _PICTURE_SIDE // 2
    picture[:, :half], picture[:, half:] = (200, 60, 30), (20, 90, 220)
    jpg = np.frombuffer(simplejpeg.encode_jpeg(picture, quality=95), np.uint8)
    decoded = []
    for device in [torch.device("cpu")] + [torch.device("cuda")] * torch.cuda.is_available():
        decoder = Decoder(1, _PICTURE_SIDE, labels=False, resize=False, threads=1, device=device)
        size = _PICTURE_SIDE, _PICTURE_SIDE
        sample = StoredSample("doctor", 0, jpg, None, None, *size, square_from_size(*size))
        image, _ = decoder([sample], np.zeros((1, 4), np.float32))
        difference = int(np.abs(image[0].cpu().numpy().astype(int) - picture).mean())
        if difference > _MAX_DECODING_ERROR:
            text = (
                f"{decoder.library} on {device.type} decodes a picture {difference} grey levels away from the original"
            )
            yield failed("decoding", text)
            return
        decoded.append(device.type)
    yield ok("decoding", f"{decoder.library} decodes a JPEG on {' and '.join(decoded)}")


def check_shared_memory() -> Iterator[Finding]:
    # NCCL exchanges data between ranks of one node there; containers often give it only 64 MB.
    shm = Path("/dev/shm")
    if not shm.is_dir():
        yield warning("/dev/shm", "does not exist", "mount a tmpfs on it")
        return
    total, _, free = shutil.disk_usage(shm)
    text = f"{free / _GB:.1f} of {total / _GB:.1f} GB free"
    if free < _MIN_SHARED_MEMORY_BYTES:
        mend = "in a container: --shm-size=8g or --ipc=host"
        yield warning("/dev/shm", f"only {text}; ranks of a node exchange data there", mend)
    else:
        yield ok("/dev/shm", text)


def check_limits() -> Iterator[Finding]:
    files, locked = resource.getrlimit(resource.RLIMIT_NOFILE)[0], resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    text = f"{_limit(files)} open files, {_limit(locked, 1 << 20)} MB of locked memory"
    if files != resource.RLIM_INFINITY and files < _MIN_OPEN_FILES:
        text += ": large data sets and many ranks need more files"
        yield warning("limits", text, f"ulimit -n {_MIN_OPEN_FILES}")
    elif locked != resource.RLIM_INFINITY and any(Path("/sys/class/infiniband").glob("*")):
        text += ": InfiniBand must lock all memory that it sends from"
        yield warning("limits", text, "ulimit -l unlimited (limits.conf, slurmd's unit)")
    else:
        yield ok("limits", text)


def _limit(value: int, unit: int = 1) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value // unit)


def check_locks() -> Iterator[Finding]:
    """Check for locks of torch extensions, for which a later compilation waits without a message."""
    folder = jit_locks.extensions_folder()
    found = jit_locks.find_abandoned_locks()
    if not found:
        yield ok("locks", f"none in {folder}")
        return
    text = ", ".join(f"{lock.path} ({lock.age:.0f} s old)" for lock in found)
    yield warning("locks", f"left by a killed compilation: {text}", "remove it when no other node compiles there")
