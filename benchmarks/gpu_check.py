"""`make gpu`: all GPU tests and benchmarks on whatever device there is, and one page, benchmarks/gpu_check.md.

Correctness first: after failed tests no figure is measured. Then every figure beside its goal and its limit (the limits are those of one
H200: 790 TFLOP/s in bf16 at 30.6 GFLOP an image), and the kernels in which a step's time goes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import where
from benchmarks.gpu_training import BATCH, WAYS, made_up, stepping
from collagan_dist.doctor import machine

HERE = Path(__file__).parent
PAGE = HERE / "gpu_check.md"
SCRIPTS = ("gpu_training", "gpu", "gpu_sweep")
# (what, script, path in its result, goal, limit).
FIGURES = (
    ("training step, batch 256, bf16", "gpu_training", ("images_per_s", "bf16, channels_last"), 13_000, 25_900),
    ("training step, batch 64, bf16", "gpu_training", ("images_per_s", "bf16, channels_last, batch 64"), None, 25_900),
    (
        "training step, batch 1024, bf16",
        "gpu_training",
        ("images_per_s", "bf16, channels_last, batch 1024"),
        None,
        25_900,
    ),
    (
        "training step, batch 256, compiled",
        "gpu_training",
        ("images_per_s", "bf16, channels_last, compiled"),
        13_000,
        25_900,
    ),
    ("decoding alone", "gpu", ("decode alone", "images_per_s"), 20_000, None),
    ("whole batches", "gpu", ("whole batches, block holes", "images_per_s"), 20_000, None),
)
KERNELS = 25


def main() -> None:
    if not torch.cuda.is_available():
        print("benchmarks.gpu_check: no CUDA device here")
        return
    lines = ["# GPU check", "", *about(), ""]
    passed, said = tests()
    lines += ["## Tests", "", "    " + said, ""]
    if passed:
        for script in SCRIPTS:
            subprocess.run([sys.executable, "-m", f"benchmarks.{script}"], check=True)
        lines += ["## Figures", "", *table(), "", "## Kernels of a step", "", "```", *kernels(), "```"]
    else:
        lines += ["Tests failed, so nothing was measured."]
    PAGE.write_text("\n".join(lines) + "\n")
    print(PAGE.read_text())
    sys.exit(0 if passed else 1)


def about() -> list[str]:
    """Device, driver and versions, as `collagan doctor` tells them; commit and processor."""
    findings = [*machine.check_devices(), *machine.check_libraries()]
    return [f"- {one.check}: {one.text}" for one in findings] + [
        f"- {name}: {value}" for name, value in where().items()
    ]


def tests() -> tuple[bool, str]:
    """Whether tests/gpu passed, and what pytest says at its end."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/gpu", "-rf"], capture_output=True, text=True, cwd=HERE.parent
    )
    print(done.stdout, done.stderr, sep="\n")
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return done.returncode == 0, "; ".join([*failed, (done.stdout.strip().splitlines() or ["nothing"])[-1]])


def table() -> list[str]:
    lines = ["| figure | images/s | goal | limit |", "|---|---|---|---|"]
    for what, script, path, goal, limit in FIGURES:
        value = read(script, path)
        shown = "not measured" if value is None else f"{value:,.0f}"
        if value is not None and goal is not None:
            shown += " (reached)" if value >= goal else f" ({value / goal:.0%} of the goal)"
        lines.append(f"| {what} | {shown} | {f'{goal:,}' if goal else '–'} | {f'{limit:,}' if limit else '–'} |")
    return lines


def read(script: str, path: tuple[str, ...]) -> float | None:
    file = HERE / f"{script}.json"
    value: Any = json.loads(file.read_text()) if file.exists() else None
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def kernels() -> list[str]:
    device = torch.device("cuda", 0)
    step = stepping(WAYS["bf16, channels_last"], made_up(device, BATCH), device)
    for _ in range(3):
        step()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        step()
        torch.cuda.synchronize()
    text = found.key_averages().table(sort_by="self_cuda_time_total", row_limit=KERNELS, max_name_column_width=70)
    return [line.rstrip() for line in text.splitlines()]


if __name__ == "__main__":
    main()
