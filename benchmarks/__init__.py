"""What benchmarks share: A and B alternating in one process, medians, and where and on what it ran."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def alternate(methods: dict[str, Callable[[], int]], rounds: int = 7) -> dict[str, float]:
    """Median items per CPU-second of each method; every round runs all of them, and the first round warms up."""
    rates: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(rounds + 1):
        for name, method in methods.items():
            began = time.process_time()
            items = method()
            if number:
                rates[name].append(items / (time.process_time() - began))
    return {name: round(statistics.median(values), 1) for name, values in rates.items()}


def where() -> dict[str, str]:
    """Commit and hardware."""
    commit = _git("rev-parse", "--short", "HEAD")
    # Results themselves are no change.
    if _git("status", "--porcelain", "--untracked-files=no", "--", ":!*.json"):
        commit += " with changes"
    with Path("/proc/cpuinfo").open() as file:
        cpu = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return {"commit": commit, "cpu": f"{os.cpu_count()} x {cpu}"}


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()


def save(script: str, result: dict[str, Any]) -> None:
    """The result beside the script, with command, commit and hardware; and on the terminal."""
    record = {"command": f"python -m benchmarks.{Path(script).stem}", **where(), **result}
    path = Path(script).with_suffix(".json")
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def collagan(*words: object, quiet: bool = False) -> None:
    """The command as a user gives it."""
    out = subprocess.DEVNULL if quiet else None
    subprocess.run([sys.executable, "-m", "collagan_dist", *map(str, words)], check=True, stdout=out, stderr=out)


def drawn_shards(root: Path, count: int, seed: int, *options: object) -> Path:
    """Drawn faces below `root`, packed with options of `collagan pack`."""
    collagan("draw", root / "faces", "--count", count, "--seed", seed, quiet=True)
    collagan("pack", "shards/drawn.yaml", "--root", root / "faces", "--out", root / "drawn", *options, quiet=True)
    return root / "drawn"
