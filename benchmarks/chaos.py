"""Random kills: how much of the elapsed time was useful.

    python -m benchmarks.chaos [--mtbf SECONDS] [--steps N] [--every N] [--ranks N]

Trains M*_isd of the preset `demo` on drawn faces under torchrun --max-restarts, and kills -9 one rank at random after a time drawn from
an exponential distribution, again and again; every third kill takes the whole job, agent and ranks, as a lost machine
does, and the same command starts it again. Told at the end:

    goodput         time that the steps of the run take undisturbed / elapsed time (starts, lost steps and restarts are the rest)
    lost work       steps done again after each kill; never more than a checkpoint's interval and what was being written
    time to resume  seconds from a kill to the first step beyond the checkpoint

and whether the final weights are those of the undisturbed run, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import save
from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.faces.layout import draw_faces
from collagan_dist.files import sha256

_POLL = 0.02  # seconds
_EXACT = ["runtime.precision=fp32", "runtime.threads=1", "log.every=1", "log.grid_every=100000"]


@dataclass
class Kill:
    """One kill: when, at which step, what was killed; then where the run went on and when it was beyond that."""

    at: float
    step: int
    what: str
    resumed: int = -1
    moving: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mtbf", type=float, default=60.0, help="mean seconds between failures")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--every", type=int, default=20, help="steps between checkpoints")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("the undisturbed run ...", flush=True)
        shards = _shards(Path(folder))
        command = _command(shards, args)
        calm = Path(folder) / "calm"
        began = time.perf_counter()
        subprocess.run([*command, "--run", calm], check=True, capture_output=True)
        whole = time.perf_counter() - began
        seconds = args.steps / _rate(calm, args)
        print(f"... {args.steps} steps in {seconds:.0f} s, {whole:.0f} s with its start; now with kills", flush=True)
        stormy = Path(folder) / "stormy"
        elapsed, kills = _storm([*command, "--run", str(stormy)], stormy, args)
        final = f"checkpoints/step-{args.steps:08d}/generator.safetensors"
        save(
            __file__,
            {
                "arguments": vars(args),
                "kills": len(kills),
                "elapsed seconds": round(elapsed, 1),
                "undisturbed seconds": {"steps alone": round(seconds, 1), "with start": round(whole, 1)},
                "goodput": round(seconds / elapsed, 3),
                "goodput without the first start": round(seconds / (elapsed - (whole - seconds)), 3),
                "useful steps per second": round(args.steps / elapsed, 2),
                "lost steps": _spread([k.step - k.resumed for k in kills]),
                "seconds to resume": _spread([round(k.moving - k.at, 1) for k in kills]),
                "same weights as undisturbed": sha256(calm / final) == sha256(stormy / final),
            },
        )


def _shards(folder: Path) -> Path:
    draw_faces(folder / "faces", count=400, seed=1, workers=2)
    recipe = Recipe(
        dataset="celeba",
        root=str(folder / "faces"),
        labels="Label/img_celeba",
        out=str(folder / "shards"),
        store_size=88,
    )
    pack(recipe, workers=2)
    return folder / "shards"


def _command(shards: Path, args: argparse.Namespace) -> list[str]:
    keys = [*_EXACT, f"schedule.steps={args.steps}", f"checkpoint.every={args.every}", "schedule.adv_from=0"]
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(args.ranks), "--max-restarts", "1000",
        "-m", "--", "collagan_dist", "train", "demo", "--data", str(shards), *(word for key in keys for word in ("--set", key)),
    ]  # fmt: skip


def _rate(run: Path, args: argparse.Namespace) -> float:
    """Steps per second of an undisturbed run, checkpoints included: the median over stretches of 50 steps."""
    rates = [line["images_per_s"] for line in _lines(run) if line["kind"] == "train"]
    stretches = [statistics.harmonic_mean(rates[i : i + 50]) for i in range(0, len(rates) - 49, 50)]
    return statistics.median(stretches) / 32


def _storm(command: list[str], run: Path, args: argparse.Namespace) -> tuple[float, list[Kill]]:
    """Train to the end under random kills; elapsed seconds, and what each kill did."""
    draw, kills = random.Random(args.seed), []
    began = time.perf_counter()
    job = _start(command)
    due = began + draw.expovariate(1 / args.mtbf)
    while (step := _step(run)) < args.steps or job.poll() is None:
        now = time.perf_counter()
        pending = kills[-1] if kills and not kills[-1].moving else None
        if pending is not None:
            pending.resumed = _resumed(run, len(kills))
            if pending.resumed >= 0 and step > pending.resumed:
                pending.moving = now
                due = now + draw.expovariate(1 / args.mtbf)
        elif now >= due and 0 < step < args.steps - 1:
            everything = len(kills) % 3 == 2
            kills.append(Kill(now, step, "job" if everything else "rank"))
            if everything:
                with suppress(ProcessLookupError):
                    os.killpg(job.pid, signal.SIGKILL)
                for pid in _ranks(run):
                    _kill(pid)
                job.wait()
            else:
                _kill(draw.choice(_ranks(run)))
        if job.poll() is not None and _step(run) < args.steps:
            job = _start(command)
        time.sleep(_POLL)
    if job.wait():
        raise SystemExit(f"the run ended with code {job.returncode}")
    return time.perf_counter() - began, [kill for kill in kills if kill.moving]


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=env
    )


def _ranks(run: Path) -> list[int]:
    return [rank["pid"] for rank in json.loads((run / "world.json").read_text())["ranks"]]


def _kill(pid: int) -> None:
    """Only a rank of ours: its number may have been given to another process since."""
    with suppress(OSError):
        if b"collagan_dist" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def _lines(run: Path) -> Iterator[dict[str, Any]]:
    path = run / "metrics.jsonl"
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else []:
        with suppress(ValueError):
            yield json.loads(line)


def _step(run: Path) -> int:
    """The newest step of the log."""
    with suppress(OSError), (run / "metrics.jsonl").open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        for line in reversed(file.read().split(b"\n")):
            if line.startswith(b'{"kind": "train"') and line.endswith(b"}"):
                return int(json.loads(line)["step"])
    return 0


def _resumed(run: Path, times: int) -> int:
    """Where the run went on for the so manieth time; -1 when it has not yet."""
    starts = [line["step"] for line in _lines(run) if line.get("event") in ("start", "resume")]
    return starts[times] if len(starts) > times else -1


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "largest": max(values)} if values else {}


if __name__ == "__main__":
    main()
