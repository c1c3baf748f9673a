"""Random faults: how much of the elapsed time was useful.

    python -m benchmarks.chaos [--mtbf SECONDS] [--faults N] [--steps N] [--every N] [--blocks N]

Trains M*_isd of the preset `demo` on drawn faces under torchrun --max-restarts. Faults come after times drawn from an exponential
distribution, in turns of `FAULTS`: a rank is killed, the whole job (agent and ranks, as a lost machine does), a rank is killed
after a byte of the newest checkpoint was flipped, the job is asked to end (as by a preemption), a rank stops without an end. Where
the job has ended the same command starts it again. The same run without faults takes turns with it, in `--blocks` stretches that
end by --stop-at: the machine may be faster at one time than at another. Told at the end:

    goodput         seconds in which the undisturbed run takes its steps / seconds in which the other one takes as many; starts of
                    blocks apart, ends too
    lost steps      steps done again after each fault; the checkpoint before is taken where the newest was being written or is damaged
    time to resume  seconds from a fault to the first step beyond the checkpoint, of all faults and of each kind

and whether the final weights are those of the undisturbed run, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import save
from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.faces.layout import draw_faces
from collagan_dist.files import sha256

_POLL = 0.02  # seconds
_TIMEOUT = 5  # seconds after which a rank that stopped counts as hanging (runtime.timeout)
_EXACT = ["runtime.precision=fp32", "runtime.threads=1", "log.every=1", "log.grid_every=100000", f"runtime.timeout={_TIMEOUT}"]  # fmt: skip
FAULTS = ("rank", "job", "rank", "rank", "checkpoint", "rank", "preemption", "rank", "job", "hang")


@dataclass
class Fault:
    """One fault: when, at which step, in which start, what; then where the run went on and when it was beyond that."""

    at: float
    step: int
    generation: int
    what: str
    resumed: int = -1
    moving: float = 0.0

    @property
    def seconds(self) -> float:
        return round(self.moving - self.at, 1)


@dataclass
class Block:
    """A stretch of one of the two runs: seconds until its first new step, and from there to its last; the faults meanwhile."""

    start: float
    steps: float
    faults: list[Fault] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mtbf", type=float, default=60.0, help="mean seconds between failures")
    parser.add_argument("--steps", type=int, default=7000, help="at most")
    parser.add_argument("--faults", type=int, default=20, help="ends with the block in which so many have been")
    parser.add_argument("--every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument(
        "--blocks", type=int, default=14, help="in which the undisturbed run and the one with faults take turns"
    )
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    calm: list[Block] = []
    stormy: list[Block] = []
    with tempfile.TemporaryDirectory() as folder:
        command = _command(_shards(Path(folder)), args)
        runs = Path(folder) / "calm", Path(folder) / "stormy"
        for number in range(args.blocks):
            until = args.steps * (number + 1) // args.blocks
            faults = sum(len(block.faults) for block in stormy)
            for run, blocks in zip(runs, (calm, stormy), strict=True):
                words = [*command, "--run", str(run), "--stop-at", str(until)]
                blocks.append(_train(words, run, until, args.mtbf if run == runs[1] else math.inf, draw, faults))
                print(
                    f"{run.name} to step {until}: {blocks[-1].steps:.0f} s, {blocks[-1].start:.1f} s before", flush=True
                )
            if faults + len(stormy[-1].faults) >= args.faults:
                args.steps = until
                break
        final = f"checkpoints/step-{args.steps:08d}/generator.safetensors"
        same = sha256(runs[0] / final) == sha256(runs[1] / final)
    save(__file__, {"arguments": vars(args), **_summary(calm, stormy, args.steps), "same weights as undisturbed": same})


def _summary(calm: list[Block], stormy: list[Block], steps: int) -> dict[str, Any]:
    faults = [fault for block in stormy for fault in block.faults]
    useful, elapsed = (sum(block.steps for block in blocks) for blocks in (calm, stormy))
    return {
        "faults": dict(Counter(fault.what for fault in faults)),
        "elapsed seconds": round(elapsed + stormy[0].start, 1),
        "undisturbed seconds": {"steps alone": round(useful, 1), "with start": round(useful + calm[0].start, 1)},
        "goodput": round(useful / (elapsed + stormy[0].start), 3),
        "goodput without the first start": round(useful / elapsed, 3),
        "goodput of each block": [round(a.steps / b.steps, 3) for a, b in zip(calm, stormy, strict=True)],
        "useful steps per second": round(steps / elapsed, 2),
        "lost steps": _spread([fault.step - fault.resumed for fault in faults]),
        "seconds to resume": _spread([fault.seconds for fault in faults]),
        "median seconds to resume by fault": {
            what: statistics.median(fault.seconds for fault in faults if fault.what == what)
            for what in sorted({fault.what for fault in faults})
        },
    }


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


def _train(command: list[str], run: Path, until: int, mtbf: float, draw: random.Random, caused: int) -> Block:
    """Train to a step under random faults, of which `caused` came before."""
    faults: list[Fault] = []
    before, began = newest_step(run), time.perf_counter()
    job = _start(command)
    while newest_step(run) <= before:
        _check(job)
        time.sleep(_POLL)
    first = time.perf_counter()
    due = first + mtbf * draw.expovariate(1)
    while (step := newest_step(run)) < until:
        now = time.perf_counter()
        pending = faults[-1] if faults and not faults[-1].moving else None
        if pending is not None:
            pending.resumed = resumed(run, pending.generation)
            if pending.resumed >= 0 and step > pending.resumed:
                pending.moving = now
                print(f"{pending.what} at step {pending.step}: from {pending.resumed}, {pending.seconds} s", flush=True)
                due = now + mtbf * draw.expovariate(1)
        elif now >= due and before < step < until - 1 and _checkpoints(run):
            faults.append(Fault(now, step, generation(run), FAULTS[(caused + len(faults)) % len(FAULTS)]))
            _cause(faults[-1].what, job, run, draw)
        if job.poll() is not None and newest_step(run) < until:
            job = _start(command)
        time.sleep(_POLL)
    last = time.perf_counter()
    job.wait()
    _check(job)
    return Block(first - began, last - first, [fault for fault in faults if fault.moving])


def _check(job: subprocess.Popen[bytes]) -> None:
    if job.poll():
        raise SystemExit(f"the run ended with code {job.returncode}")


def _cause(what: str, job: subprocess.Popen[bytes], run: Path, draw: random.Random) -> None:
    rank = draw.choice(rank_pids(run))
    if what == "job":
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        for pid in rank_pids(run):
            _send(pid, signal.SIGKILL)
        job.wait()
    elif what == "preemption":
        job.terminate()  # torchrun passes it on
    elif what == "hang":
        _send(rank, signal.SIGSTOP)
    else:
        if what == "checkpoint":
            _flip_byte(_checkpoints(run)[-1] / "generator.safetensors")
        _send(rank, signal.SIGKILL)


def _checkpoints(run: Path) -> list[Path]:
    return sorted(run.glob("checkpoints/step-*"))


def _flip_byte(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        byte = file.read(1)
        file.seek(-100, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=env
    )


def rank_pids(run: Path) -> list[int]:
    return [rank["pid"] for rank in json.loads((run / "world.json").read_text())["ranks"]]


def _send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a rank of ours alone: its number may have been given to another process since."""
    with suppress(OSError):
        if b"collagan_dist" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, number)


def _last_lines(run: Path, kind: str, size: int) -> Iterator[dict[str, Any]]:
    """Lines of a kind among the last `size` bytes of the log, the newest first: it is read many times a second, beside the ranks."""
    with suppress(OSError), (run / "metrics.jsonl").open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size))
        for line in reversed(file.read().split(b"\n")):
            if line.startswith(b'{"kind": "%b"' % kind.encode()):
                with suppress(ValueError):  # a line that is being written
                    yield json.loads(line)


def newest_step(run: Path) -> int:
    return next((int(line["step"]) for line in _last_lines(run, "train", 4096)), 0)


def resumed(run: Path, before: int) -> int:
    """The step from which a start after generation `before` went on, -1 where there is none yet."""
    starts = (line for line in _last_lines(run, "event", 1 << 16) if line["event"] in ("start", "resume"))
    return next((line["step"] for line in starts if line["generation"] > before), -1)


def generation(run: Path) -> int:
    return int(json.loads((run / "world.json").read_text())["generation"])


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "largest": max(values)} if values else {}


if __name__ == "__main__":
    main()
