"""Measure how much memory a statement takes in a process of its own."""

import subprocess
import sys
from pathlib import Path

from PIL import Image


def saved(tmp_path: Path, image: Image.Image, name: str, **options: object) -> Path:
    image.save(tmp_path / name, **options)
    return tmp_path / name


def grown(statement: str, error: str, path: Path) -> int:
    """MB by which the peak of a process's memory grows by a statement that ends in an error.

    Of the process itself: `ru_maxrss` would begin with the peak of the one that started it.
    """
    code = f"""
import sys
from collagan_dist.types import PartMasks
from collagan_dist.data.readers import hole_file, label_maps, picture
from collagan_dist.errors import DataError
def peak():
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
try:
    {statement}
except {error}:
    print(peak() - before)
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(path)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
