"""An abandoned lock of a torch extension, for tests."""

import os
import time
from pathlib import Path


def plant_lock(folder: Path, age: float) -> Path:
    """Leave a lock of this age, in seconds, in the folder of an extension."""
    lock = folder / "py311_cpu/deepspeed_shm_comm/lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    os.utime(lock, (time.time() - age,) * 2)
    return lock
