"""How soon `collagan train` speaks and steps: CPU-seconds of the process until its lines appear, medians of several starts.

The preset `demo` on drawn faces: the first line, the device's line, the first steps. And how soon a wrong option and a missing data set
are refused. CPU-seconds and not seconds: other work on the machine hardly moves them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import drawn_shards, save

STARTS = 5
LINES = {"first line": " steps of ", "device and parameters": "device: ", "first two steps": "first steps: "}
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shards = drawn_shards(root, 400, 1, "--set", "store_size=88")
        found: dict[str, list[float]] = {}
        for number in range(STARTS + 1):  # the first one warms the file cache
            run = ["train", "demo", "--data", shards, "--run", root / f"run{number}", "--set", "schedule.steps=3"]
            seconds = cpu_seconds(run, LINES)
            seconds |= cpu_seconds(["train", "demo", "--sets", "a=b"], {"a wrong option": "unrecognized"})
            seconds |= cpu_seconds(
                ["train", "demo", "--data", root / "none"], {"a missing data set": "no manifest.json"}
            )
            for name, value in seconds.items() if number else ():
                found.setdefault(name, []).append(value)
    medians = {name: round(statistics.median(values), 2) for name, values in found.items()}
    save(__file__, {"starts": STARTS, "cpu_seconds": medians})


def cpu_seconds(command: list[object], lines: dict[str, str]) -> dict[str, float]:
    """The CPU-seconds that the command had used when each of the lines appeared on stderr."""
    words = [sys.executable, "-m", "collagan_dist", *map(str, command)]
    found: dict[str, float] = {}
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            for name, text in lines.items():
                if text in line and name not in found:
                    # utime and stime; a process that has ended keeps them until it is waited for.
                    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
                    found[name] = (int(fields[11]) + int(fields[12])) / _TICKS
    missing = lines.keys() - found.keys()
    if missing:
        raise SystemExit(f"benchmarks.start: {' '.join(words)} printed no line for: {', '.join(sorted(missing))}")
    return found


if __name__ == "__main__":
    main()
