"""What tests of remote shards share: reading a split from a URL, in this process or in another one."""

import os
import subprocess
import sys
from pathlib import Path

from collagan_dist.config.tree import Cache
from collagan_dist.data.shards import remote
from collagan_dist.data.shards.manifest import Manifest, read_manifest
from collagan_dist.data.shards.shard_reader import StoredSample

READ_ALL = """
import sys, random
from collagan_dist.config.tree import Cache
from collagan_dist.data.shards import remote
from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.data.shards.shard_reader import SplitReader
url, folder, gigabytes, seed, times = sys.argv[1:]
split = SplitReader(read_manifest(remote.open_location(url, Cache(folder=folder, gigabytes=float(gigabytes)))), "train")
numbers = list(range(len(split))) * int(times)
random.Random(int(seed)).shuffle(numbers)
for number in numbers:
    sample = split.read(number)
    print(number, sample.key, hash((sample.jpg.tobytes(), sample.labels.tobytes())), flush=True)
"""


def remote_manifest(url: str, folder: Path, gigabytes: float = 1.0) -> Manifest:
    return read_manifest(remote.open_location(url, Cache(folder=str(folder), gigabytes=gigabytes)))


def content(sample: StoredSample) -> tuple:
    return sample.key, sample.jpg.tobytes(), sample.labels.tobytes(), sample.landmarks


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def reading(url: str, folder: Path, gigabytes: float = 1.0, seed: int = 0, times: int = 3) -> subprocess.Popen[str]:
    """A process that reads every sample of the train split some times in some order, and prints what it got."""
    arguments = [url, str(folder), str(gigabytes), str(seed), str(times)]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", READ_ALL, *arguments], **pipes, text=True, env=environment)


def output_lines(process: subprocess.Popen[str]) -> list[str]:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return sorted(output.splitlines())
