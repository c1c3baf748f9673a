"""What a sweep costs beside training: seconds of a trial that are not steps, against the same runs started by hand, in one run.

Trials one at a time (each takes all CPUs), so that both do the same work on the same machine. A: `collagan sweep` of six trials. B:
`collagan train` on each trial's config.yaml, one after the other. Alternating, two rounds; seconds of steps are those that a run's
own train lines tell of. Apart: the start of the command and of Ray, before the sweep begins, and their end with the report, after its
last segment (the rest of the command's time beside `seconds` of sweep.json).
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import collagan, drawn_shards, save
from collagan_dist.config.load import load_config

TRIALS, ROUNDS = 6, 2
SPACE = "{metric: psnr_hole, scheduler: %s, space: {loss.weights.inpainting.rec: {loguniform: [30, 300]}}}"
SETS = (
    "schedule.steps=90",
    "schedule.batch=16",
    "model.widths.generator=8",
    "evaluate.samples=32",
    "log.every=10",
    "log.grid_every=90",
)


def main() -> None:
    cpus = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        root = Path(folder)
        drawn_shards(root, 400, 11, "--set", "store_size=88")
        sets = [word for item in SETS for word in ("--set", item)]
        found: dict[str, list[dict[str, float]]] = {"sweep": [], "by hand": [], "sweep in three segments": []}
        for number in range(ROUNDS):
            for name, scheduler in (("sweep", "none"), ("sweep in three segments", "asha")):
                (root / "space.yaml").write_text(SPACE % scheduler)
                out = root / f"{scheduler}-{number}"
                words = (
                    "--space",
                    root / "space.yaml",
                    "--data",
                    root / "drawn",
                    "--out",
                    out,
                    "--trials",
                    TRIALS,
                    "--cpus",
                    cpus,
                    *sets,
                )
                seconds = timed("sweep", "demo", *words)
                within = json.loads((out / "sweep.json").read_text())["seconds"]
                found[name].append(account(seconds, sorted((out / "trials").glob("t*")), within))
            runs = [root / f"hand-{number}" / f"{trial}" for trial in range(TRIALS)]
            seconds = sum(
                timed("train", root / f"none-{number}/trials/t{trial:03d}/config.yaml", "--run", run)
                for trial, run in enumerate(runs)
            )
            found["by hand"].append(account(seconds, runs))
    medians = {
        name: {key: round(statistics.median(r[key] for r in rounds), 2) for key in rounds[0]}
        for name, rounds in found.items()
    }
    save(
        __file__,
        {
            "data": f"{TRIALS} trials of 90 steps of 16 pictures of 64x64, width 8, all {cpus} CPUs each; {ROUNDS} rounds",
            "load": round(os.getloadavg()[0], 1),
            "medians": medians,
            "seconds a trial that are not steps, to those by hand": round(
                medians["sweep"]["others a run"] / medians["by hand"]["others a run"], 2
            ),
        },
    )


def account(seconds: float, runs: list[Path], within: float | None = None) -> dict[str, float]:
    """Of `seconds` in all, those `within` a sweep are its trials' (None: all)."""
    steps = sum(map(in_steps, runs))
    within = seconds if within is None else within
    return {
        "wall": seconds,
        "in steps": steps,
        "others a run": (within - steps) / len(runs),
        "start and end": seconds - within,
    }


def in_steps(run: Path) -> float:
    """Seconds of a run's steps: the samples between its train lines at the speed that these tell."""
    batch = load_config(str(run / "config.yaml")).schedule.batch
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    before, seconds = 0, 0.0
    for line in lines:
        if line["kind"] == "train":
            seconds += (line["step"] - before) * batch / line["images_per_s"]
            before = line["step"]
    return seconds


def timed(*words: object) -> float:
    began = time.monotonic()
    collagan(*words, quiet=True)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
