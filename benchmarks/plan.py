"""`collagan plan` against real runs: a batch predicted from half of it, two ranks from one, and goodput under kills.

    python -m benchmarks.plan [--rounds N] [--steps N]

Rounds alternate five measurements, one thread a rank: one rank alone with half of its samples, and with all; two runs of one rank side by
side, which have nothing in common but the machine; two DDP ranks; and all-reduces of two ranks by themselves. The third gives the one
factor that the model cannot know, `contention`: how much ranks of one machine slow each other down in cores and memory. Predicted from
the first: the second. From the second, with that factor and the measured all-reduce: the fourth. Four ranks on the same cores are
shown, not judged. Medians of rounds. Beside each measurement: the load average, and the share of the cores that other processes took meanwhile.

Goodput is predicted for the run of chaos.json by its own figures: interval, mean time between failures, time to resume.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import drawn_shards, save
from collagan_dist.config.load import load_config
from collagan_dist.distributed import network_benchmark
from collagan_dist.distributed.group import Group
from collagan_dist.distributed.world import detect_world
from collagan_dist.plan.cost_model import Assumptions, Cluster, StepTime
from collagan_dist.plan.goodput import Failures, goodput
from collagan_dist.plan.hardware import REACHED_LINK, Link
from collagan_dist.plan.prediction import Planner
from collagan_dist.plan.rates import rate_of_run, read_run
from collagan_dist.plan.work import StepWork, count_step
from collagan_dist.reproduce.child_process import collagan_command
from collagan_dist.runs.metrics_log import median_rate, read_metrics_log

HERE = Path(__file__).parent
# Work of a rank: samples of a step, and keys.
WORKS = {
    "narrow": (16, ["model.widths.generator=16", "model.widths.discriminator=16", "data.image_size=64"]),
    "wide": (8, ["model.widths.generator=32", "model.widths.discriminator=32", "data.image_size=64"]),
}
KEYS = ["runtime.threads=1", "data.threads=1", "runtime.precision=fp32", "runtime.channels_last=false", "schedule.adv_from=0",
        "checkpoint.every=100000", "log.grid_every=100000", "log.every=1", "evaluate.every=0"]  # fmt: skip
HALF = "1: half of the samples"
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--works", nargs="+", default=list(WORKS), choices=list(WORKS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shards = drawn_shards(Path(folder), 400, 3, "--set", "store_size=88")
        found = {name: Comparison(name, Path(folder), shards, args.steps).run(args.rounds) for name in args.works}
    save(__file__, {"arguments": vars(args), "of each work": found, "goodput": against_chaos()})


class Comparison:
    """One work: its measurements by name, one a round, and what is predicted from them."""

    def __init__(self, name: str, folder: Path, shards: Path, steps: int) -> None:
        self.name, self.folder, self.shards, self.steps = name, folder, shards, steps
        self.share, self.keys = WORKS[name]
        self.work: StepWork | None = None
        # By measurement, one a round.
        self.seconds: dict[str, list[float]] = {}
        self.folders: dict[str, list[list[Path]]] = {}
        self.links: list[dict[int, float]] = []
        self.around: list[dict[str, Any]] = []

    def run(self, rounds: int) -> dict[str, Any]:
        for number in range(rounds):
            self._measure(HALF, number, 1, 1, self.share // 2)
            for ranks in (2, 4) if number == 0 else (2,):
                for name, of_each, runs in (("alone", 1, 1), ("side by side", 1, ranks), ("ranks", ranks, 1)):
                    self._measure(f"{ranks}: {name}", number, of_each, runs, self.share)
            self.links.append(self._all_reduce())
        return self._compare()

    def _measure(self, name: str, number: int, ranks: int, runs: int, share: int) -> None:
        around = Surroundings()
        folders = [
            self.folder / f"{self.name} {name} {number} {run}".replace(" ", "-").replace(":", "") for run in range(runs)
        ]
        self.seconds.setdefault(name, []).append(self._train(folders, ranks, share))
        self.folders.setdefault(name, []).append(folders)
        self.around.append({"of": name, **around.seen()})
        print(
            f"{self.name}, {name}: {self.seconds[name][-1]:.3f} s a step, {self.around[-1]}",
            file=sys.stderr,
            flush=True,
        )

    def _train(self, folders: list[Path], ranks: int, share: int) -> float:
        """Median seconds of a step of runs of `ranks` ranks with `share` samples each, one for each folder, at the same time."""
        keys = [*KEYS, *self.keys, f"schedule.batch={share * ranks}", f"schedule.steps={self.steps}"]
        jobs = [
            subprocess.Popen(
                [*collagan_command(ranks), "train", "stable", "--data", self.shards, "--run", one, *(w for k in keys for w in ("--set", k))],
                env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for one in folders
        ]  # fmt: skip
        if any(job.wait() for job in jobs):
            raise SystemExit(f"a run failed: {folders}")
        rates = [median_rate(one) or 0.0 for one in folders]
        return share * ranks / statistics.median(rates)

    def _all_reduce(self) -> dict[int, float]:
        out = self.folder / "links.json"
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            "-m",
            "--",
            "benchmarks.plan",
        ]
        subprocess.run([*command, "link", str(out)], env=ENV, check=True, stderr=subprocess.DEVNULL)
        return {int(size): seconds for size, seconds in json.loads(out.read_text()).items()}

    def _compare(self) -> dict[str, Any]:
        sizes = {size: statistics.median(one[size] for one in self.links) for size in self.links[0]}
        link = fitted(sizes)
        found: dict[str, Any] = {
            "work of a rank": f"{self.share} samples, {', '.join(self.keys)}",
            "all-reduce of two": {"seconds by bytes": sizes, "GB/s": round(link.bytes_per_s * REACHED_LINK / 1e9, 2)},
        }
        found["1 rank"] = _medians([self._one_rank(number, link) for number in range(len(self.links))])
        for ranks in (2, 4):
            rounds = range(len(self.seconds[f"{ranks}: ranks"]))
            found[f"{ranks} ranks"] = _medians([self._several_ranks(ranks, number, link) for number in rounds])
        return {**found, "machine meanwhile": self.around}

    def _one_rank(self, number: int, link: Link) -> dict[str, float]:
        """What a round has measured on one rank, and what is predicted from half of its samples."""
        predicted = self._predicted(HALF, number, Cluster(1, 1, link, link), Assumptions(overlap=0.0))
        half, real = self.seconds[HALF][number], self.seconds["2: alone"][number]
        return {
            "seconds of half the samples": half, "predicted seconds": predicted.seconds, "measured seconds": real,
            "error": predicted.seconds / real - 1,
        }  # fmt: skip

    def _predicted(self, measured: str, number: int, cluster: Cluster, assumed: Assumptions) -> StepTime:
        """A step of ranks with all samples of the work, by the model, from a measurement of one rank."""
        config = load_config("stable", sets=[*KEYS, *self.keys, f"schedule.batch={self.share}"])
        self.work = self.work or count_step(config)
        alone = read_run(self.folders[measured][number][0])
        rate = rate_of_run(alone, config, self.work, cluster, assumed)
        return Planner(config, rate, assumed, self.work).step(cluster, self.share)

    def _several_ranks(self, ranks: int, number: int, link: Link) -> dict[str, float]:
        """What a round has measured, and what is predicted from its run of one rank: rounds are compared within themselves."""
        alone, beside, real = (self.seconds[f"{ranks}: {name}"][number] for name in ("alone", "side by side", "ranks"))
        jitter = statistics.median(map(_jitter, self.folders[f"{ranks}: side by side"][number]))
        # On a CPU gloo's threads take the cores of the backward pass: nothing is hidden.
        assumed = Assumptions(overlap=0.0, jitter=jitter, contention=beside / alone)
        step = self._predicted(f"{ranks}: alone", number, Cluster(1, ranks, link, link), assumed)
        return {
            "seconds alone": alone, "seconds side by side": beside, "contention": beside / alone, "jitter": jitter,
            "all-reduce seconds": step.all_reduce, "predicted seconds": step.seconds, "measured seconds": real,
            "error": step.seconds / real - 1,
        }  # fmt: skip


def _medians(rounds: list[dict[str, float]]) -> dict[str, Any]:
    found = {key: round(statistics.median(one[key] for one in rounds), 4) for key in rounds[0]}
    return {**found, "error of each round": [round(one["error"], 3) for one in rounds]}


def _jitter(run: Path) -> float:
    """How much steps vary: the spread of their quartiles as a normal distribution has it, over the median."""
    rates = read_metrics_log(run).train.samples["images_per_s"][1:]
    low, middle, high = statistics.quantiles([1 / rate for rate in rates], n=4)
    return (high - low) / 1.349 / middle


class Surroundings:
    """What else the machine did during a measurement."""

    def __init__(self) -> None:
        self.load, self.began = os.getloadavg()[0], time.perf_counter()
        self.busy, self.own = _busy_seconds(), _own_seconds()

    def seen(self) -> dict[str, float]:
        wall = (time.perf_counter() - self.began) * (os.cpu_count() or 1)
        others = _busy_seconds() - self.busy - (_own_seconds() - self.own)
        return {"load before": round(self.load, 1), "cores of others": round(max(0.0, others / wall), 2)}


def _busy_seconds() -> float:
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def fitted(sizes: dict[int, float]) -> Link:
    """A link whose all-reduce between two ranks takes as long for the smallest and the largest size."""
    small, large = min(sizes), max(sizes)
    return Link(
        "measured", (large - small) / (sizes[large] - sizes[small]) / REACHED_LINK, sizes[small] / 2, "measured"
    )


def measure_link(out: str) -> None:
    """One rank of the all-reduce by itself."""
    torch.set_num_threads(1)
    with Group(detect_world(), torch.device("cpu")) as group:
        found = network_benchmark.all_reduce_seconds(group, group.device)
        if group.world.is_rank0:
            Path(out).write_text(json.dumps(found))


def against_chaos() -> dict[str, Any]:
    """Goodput by the model for the run of benchmarks/chaos.json, the first start aside, and the measured one."""
    chaos = json.loads((HERE / "chaos.json").read_text())
    asked, calm = chaos["arguments"], chaos["undisturbed seconds"]["steps alone"]
    # Its rate has the time of checkpoints in it; the next failure is drawn when a restart has ended.
    failures = Failures(asked["mtbf"], chaos["seconds to resume"]["median"], blocked=0.0)
    predicted = goodput(asked["every"] * calm / asked["steps"], failures)
    measured = chaos["goodput without the first start"]
    return {
        "predicted": round(predicted, 3),
        "measured": measured,
        "error": round(predicted / measured - 1, 3),
        "faults": sum(chaos["faults"].values()),
    }


if __name__ == "__main__":
    measure_link(sys.argv[2]) if sys.argv[1:2] == ["link"] else main()
