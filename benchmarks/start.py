"""How soon `collagan train` speaks and steps: CPU-seconds of the process until its lines appear, medians of several starts.

The preset `demo` on drawn faces: the first line, the device's line, the first steps. And how soon a wrong option and a missing data set
are refused. CPU-seconds and not seconds: other work on the machine hardly moves them.

And how soon two ranks under torchrun take a new step after one of them was killed, in seconds: until the first step beyond the
checkpoint, so without the steps that are lost, which depend on `checkpoint.every`. `--against CHECKOUT` compares that with an older
checkout's, in turns, since it depends on the machine as much as on the code.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import drawn_shards, save
from benchmarks.chaos import generation, newest_step, rank_pids, resumed

ROOT = Path(__file__).parent.parent
STARTS = 5
KILLS = 10
ROUNDS, ROUND_KILLS = 3, 5  # of --against
STEPS_BETWEEN = 12  # at least one checkpoint more
LINES = {"first line": " steps of ", "device and parameters": "device: ", "first two steps": "first steps: "}
_POLL = 0.02  # seconds
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--against", metavar="CHECKOUT", type=Path, help="time restarts of this older checkout, too, in turns"
    )
    against = parser.parse_args().against
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shards = drawn_shards(root, 400, 1, "--set", "store_size=88")
        if against is not None:
            compare(shards, root, against.resolve())
            return
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
        restarts = restart_seconds(shards, root / "killed")
    medians = {name: round(statistics.median(values), 2) for name, values in found.items()}
    after_kill = {"kills": KILLS, "median": round(statistics.median(restarts), 2), "largest": round(max(restarts), 2)}
    save(
        __file__,
        {"starts": STARTS, "cpu_seconds": medians, "seconds to a new step after a rank was killed": after_kill},
    )


def compare(shards: Path, root: Path, against: Path) -> None:
    """Save the seconds of `ROUNDS` rounds of restarts by each of two checkouts, in turns."""
    found: dict[str, list[float]] = {"before": [], "now": []}
    for number in range(ROUNDS):
        for name, checkout in (("before", against), ("now", ROOT)):
            found[name] += restart_seconds(shards, root / f"{name}{number}", checkout, ROUND_KILLS)
    medians = {name: round(statistics.median(values), 2) for name, values in found.items()}
    commit = subprocess.check_output(["git", "-C", against, "rev-parse", "--short", "HEAD"], text=True).strip()
    save(
        str(Path(__file__).with_name("start_against.py")),
        {
            "command": "python -m benchmarks.start --against CHECKOUT", "before": commit,
            "kills of each": ROUNDS * ROUND_KILLS, "median seconds to a new step": medians,
            "largest": {name: round(max(values), 2) for name, values in found.items()},
            "ratio of medians": round(medians["now"] / medians["before"], 2),
        },
    )  # fmt: skip


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


def restart_seconds(shards: Path, run: Path, checkout: Path = ROOT, kills: int = KILLS) -> list[float]:
    """Seconds from each of `kills` killed ranks to the first new step, by the code of a checkout."""
    keys = ["precision=fp32", "threads=1", "engine=ddp"]
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", str(kills), "-m", "--",
             "collagan_dist", "train", "demo", "--data", shards, "--run", run, *(f"--set=runtime.{key}" for key in keys),
             "--set=log.every=1", "--set=checkpoint.every=10", "--set=schedule.adv_from=0"]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    found: list[float] = []
    with subprocess.Popen(
        [sys.executable, *map(str, words)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=env, cwd=checkout
    ) as job:
        while len(found) < kills:
            begun = newest_step(run)
            while newest_step(run) < begun + STEPS_BETWEEN:
                time.sleep(_POLL)
            start, before = time.perf_counter(), generation(run)
            os.kill(rank_pids(run)[len(found) % 2], signal.SIGKILL)
            while (step := resumed(run, before)) < 0 or newest_step(run) <= step:
                time.sleep(_POLL)
            found.append(time.perf_counter() - start)
        job.terminate()
    return found


if __name__ == "__main__":
    main()
