"""`collagan report` on what is far larger than usual: seconds, memory and bytes of the page.

A log of 500 MB, one of 8,000 evaluations, a sweep of 5,000 trials. Each page is drawn by a
process of its own, on one core. `python -m benchmarks.report before=CHECKOUT` measures another version instead of this one
and keeps what the result file has of others.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import save

MEGABYTES, EVALUATIONS, TRIALS = 500, 8_000, 5_000
LIMIT_SECONDS = 900
TASKS = ("inpainting", "segmentation", "landmarks")
CLASSES = ("face", "hair", "nose", "left_eye", "right_eye", "upper_lip", "lower_lip", "inner_mouth")
# What a process says of itself: it ends before anybody could ask the kernel.
MEASURE = (
    "import json, resource, sys, time; from pathlib import Path; began = time.monotonic()\n"
    "from collagan_dist.report.page import write_report\n"
    "page = write_report([Path(sys.argv[1])], Path(sys.argv[2])); used = resource.getrusage(resource.RUSAGE_SELF)\n"
    "print(json.dumps({'seconds': round(time.monotonic() - began, 1), 'cpu seconds': round(used.ru_utime + used.ru_stime, 1),"
    " 'megabytes': used.ru_maxrss // 1024, 'page bytes': page.stat().st_size}))"
)


def main() -> None:
    checkouts = {"now": Path.cwd()}
    if sys.argv[1:]:
        checkouts = {name: Path(place) for name, _, place in (word.partition("=") for word in sys.argv[1:])}
    file = Path(__file__).with_suffix(".json")
    former = json.loads(file.read_text()) if file.is_file() else {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        root = Path(folder)
        inputs = {
            f"{MEGABYTES} MB of metrics.jsonl": run_folder(root / "long", train_lines(MEGABYTES << 20)),
            f"{EVALUATIONS} evaluations": run_folder(root / "evaluated", eval_lines(EVALUATIONS)),
            f"{TRIALS} trials": sweep_folder(root / "sweep", TRIALS),
        }
        result = {
            name: former.get(name, {})
            | {version: measure(place, path, root / "page.html") for version, place in checkouts.items()}
            for name, path in inputs.items()
        }
    save(__file__, result)


def measure(checkout: Path, path: Path, page: Path) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    words = [sys.executable, "-c", MEASURE, path, page]
    try:
        done = subprocess.run(
            words, cwd=checkout, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return {"seconds": f"over {LIMIT_SECONDS}"}
    return json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr.splitlines()[-1]}


def run_folder(path: Path, lines: Iterator[dict[str, Any]]) -> Path:
    path.mkdir()
    settings = (
        "model: {name: collagan, tasks: [inpainting, segmentation, landmarks]}\nschedule: {steps: 10, batch: 16}\n"
    )
    (path / "config.yaml").write_text(settings)
    with (path / "metrics.jsonl").open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return path


def train_lines(size: int) -> Iterator[dict[str, Any]]:
    """Lines as a run of three tasks writes them, with an evaluation every 1000 of them."""
    draw, step, written = random.Random(0).random, 0, 0
    while written < size:
        step += 1
        row = {"kind": "train", "step": step, "epoch": step // 1000, "samples": step * 16}
        row |= {f"loss/{task}/{part}": draw() for task in TASKS for part in ("rec", "adv", "disc")}
        row |= {f"weighted/{task}/{part}": draw() for task in TASKS for part in ("rec", "adv")}
        row |= {f"accuracy/{task}": draw() for task in TASKS}
        row |= {"loss/total": draw(), "images_per_s": 100 + draw(), "data_wait_share": draw(), "lr": 2e-4}
        yield row
        written += len(json.dumps(row)) + 1
        if step % 1000 == 0:
            yield evaluation(step)


def eval_lines(count: int) -> Iterator[dict[str, Any]]:
    return (evaluation(step) for step in range(1, count + 1))


def evaluation(step: int) -> dict[str, Any]:
    draw = random.Random(step).random
    names = ("psnr", "psnr_hole", "ssim", "ssim_hole")
    classes = {name: draw() for name in (*CLASSES, "mean")}
    metrics: dict[str, Any] = {**{name: draw() for name in names}, "dice": classes, "dice_hole": classes}
    what = {"split": "valid", "hole": "block", "blend": "none", "samples": 256}
    return {"kind": "eval", "step": step, **what, **metrics, "se": {name: draw() for name in names}}


def sweep_folder(out: Path, count: int) -> Path:
    """A sweep of three λ and a choice: a third of its trials are full-length runs, every fortieth failed."""
    keys: dict[str, Any] = {f"loss.weights.{task}.rec": {"kind": "loguniform", "low": 1, "high": 300} for task in TASKS}
    keys |= {"optim.generator.lr": {"kind": "loguniform", "low": 1e-4, "high": 1e-2}}
    keys |= {"model.discriminators": {"kind": "choice", "values": ["per_task", "shared"]}}
    rungs = (1600, 4800, 14400)
    draw, rows = random.Random(0).random, []
    for number in range(count):
        failed, length = number % 40 == 39, 3 if number % 3 == 0 else 1 + number % 2
        values = [*(10 ** (2.5 * draw()) for _ in TASKS), 10 ** (2 * draw() - 4), draw() < 0.5]
        values[-1] = "shared" if values[-1] else "per_task"
        status, role = ("failed" if failed else "done" if length == 3 else "stopped"), "search" if number else "paper"
        evals = [
            {**evaluation(rung // 16), "psnr_hole": 15 + draw() + index} for index, rung in enumerate(rungs[:length])
        ]
        scores = [evals[-1]["psnr_hole"], draw(), draw()]
        rows.append(
            [
                number,
                status,
                rungs[length - 1] // 16,
                *values,
                *scores,
                role,
                number,
                rungs[length - 1],
                0,
                "NaN" * failed,
            ]
        )
        folder = out / f"trials/t{number:03d}"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text(
            f"model: {{tasks: [inpainting]}}\nschedule: {{steps: 900, batch: 16}}\n{SETTINGS}"
        )
        (folder / "trial.json").write_text(json.dumps({"number": number, "batch": 16}))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in evals))
    header = [
        "trial",
        "status",
        "steps",
        *keys,
        "psnr_hole",
        "dice",
        "ssim",
        "role",
        "seed",
        "samples",
        "restarts",
        "reason",
    ]
    (out / "trials.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in [header, *rows]))
    best = max(rows, key=lambda row: row[8] if row[1] == "done" else 0)[0]
    summary = {
        "version": 1, "status": "done", "scheduler": "asha", "search": "tpe", "trials": count, "seed": 1, "keys": keys,
        "metrics": [{"name": "psnr_hole", "mode": "max"}, {"name": "dice", "mode": "max"}], "rungs": rungs, "best": best,
        "front": [best, 0, 3, 6], "paper": dict.fromkeys(list(keys)[:3], 100), "samples_trained": 10**7, "seconds": 10**5,
    }  # fmt: skip
    (out / "sweep.json").write_text(json.dumps(summary))
    return out


# As long as the configuration of a real trial.
SETTINGS = "".join(f"section_{i}: {{first: 0.5, second: [1, 2, 3], third: text, fourth: true}}\n" for i in range(30))

if __name__ == "__main__":
    main()
