"""What a training step asks of a GPU, counted without one: operations and bytes by kind, waits of the host; and an estimate of its time.

M*_isd of the preset `stable` at 128x128 and full widths, on the virtual device of tests/virtual. No time is measured. The estimate:

- bytes take 4.3 TB/s, which one H200 copied; convolutions the larger of their bytes and of 30.6 GFLOP an image at 790 TFLOP/s (full rate)
  or half of that;
- the host launches an operation in 6 to 9 microseconds, and nothing waits for it but the device: the larger of both is the step's time.

`compile: step` is counted by the rule of tests/virtual/compiled.py; its host launches the kernels of its graphs, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import save

BATCHES = (64, 256)
TERABYTES_PER_S, TFLOPS, GFLOP = 4.3, 790, 30.6
LAUNCH_US = (6, 9)
WAYS = {"eager": [], "eager, fp32": ["runtime.precision=fp32"]}
KINDS = {
    "convolution": ("convolution",), "batch normalization": ("native_batch_norm",), "optimizer, norms": ("_fused", "_foreach", "linalg"),
    "copies, casts, joins": ("_to_copy", "copy_", "clone", "cat", "stack", "copy to"),
}  # fmt: skip


def main() -> None:
    """Start again in a process whose CUDA device is the virtual one."""
    from tests.virtual.library import compile_hooks

    with tempfile.TemporaryDirectory() as folder:
        library = compile_hooks(Path(folder))
        variables = {**os.environ, "COLLAGAN_VIRTUAL_CUDA": str(library)}
        subprocess.run([sys.executable, "-m", "benchmarks.virtual", "count"], check=True, env=variables)


def count() -> None:
    from tests.virtual import plugin  # noqa: F401
    from tests.virtual.counting import count_step

    result = {}
    for way, sets in WAYS.items():
        for batch in BATCHES:
            found = count_step(batch, *sets)
            operations, gigabytes = found.operations.total(), sum(found.bytes.values()) / 1e9
            result[f"{way}, batch {batch}"] = {
                "waits": found.waits,
                "operations": operations,
                "gigabytes": round(gigabytes, 1),
                "by kind": by_kind(found.operations, found.bytes),
                "images/s, estimated": estimate(batch, operations, found.bytes),
            }
    for batch in BATCHES:
        result[f"compile: step, batch {batch}"] = compiled(batch)
    save(__file__, {"terabytes_per_s": TERABYTES_PER_S, "TFLOP/s": TFLOPS, "launch_us": LAUNCH_US, **result})


def compiled(batch: int) -> dict[str, object]:
    """In a process of its own: torch does not compile beside the virtual device."""
    code = f"import json, benchmarks.virtual as v; print(json.dumps(v.count_compiled({batch})))"
    variables = {name: value for name, value in os.environ.items() if name != "COLLAGAN_VIRTUAL_CUDA"}
    done = subprocess.run([sys.executable, "-c", code], check=True, env=variables, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def count_compiled(batch: int) -> dict[str, object]:
    from tests.virtual.compiled import count_compiled_step

    counts, moved = count_compiled_step(batch)
    kernels, outside = sum(graph.kernels for graph in counts.graphs), counts.outside.operations.total()
    by_kind = {"convolution": moved["convolutions"], "rest": moved["fused"] + moved["outside"]}
    return {
        "operations outside graphs": outside,
        "kernels in graphs": kernels,
        "gigabytes": round(sum(by_kind.values()) / 1e9, 1),
        "gigabytes, as inductor schedules it for a CPU": round((moved["scheduled"] + moved["outside"]) / 1e9, 1),
        "images/s, estimated": estimate(batch, outside + kernels, by_kind),
    }


def kind_of(name: str) -> str:
    return next((kind for kind, words in KINDS.items() if name.startswith(words)), "elementwise, reductions")


def by_kind(operations: dict[str, int], moved: dict[str, float]) -> dict[str, str]:
    kinds = {kind_of(name) for name in operations}
    number = {kind: sum(n for name, n in operations.items() if kind_of(name) == kind) for kind in kinds}
    size = {kind: sum(b for name, b in moved.items() if kind_of(name) == kind) / 1e9 for kind in kinds}
    return {kind: f"{number[kind]} operations, {size[kind]:.1f} GB" for kind in sorted(kinds)}


def estimate(batch: int, operations: int, moved: dict[str, float]) -> str:
    """Slow to fast: convolutions at half and at full rate, launches of 9 and of 6 microseconds."""
    convolution = sum(size for name, size in moved.items() if kind_of(name) == "convolution")
    rest = (sum(moved.values()) - convolution) / (TERABYTES_PER_S * 1e12)
    rates = []
    for share, launch in ((0.5, LAUNCH_US[1]), (1.0, LAUNCH_US[0])):
        computed = batch * GFLOP * 1e9 / (share * TFLOPS * 1e12)
        on_device = max(computed, convolution / (TERABYTES_PER_S * 1e12)) + rest
        rates.append(batch / max(on_device, operations * launch * 1e-6))
    return f"{rates[0]:.0f} to {rates[1]:.0f}"


if __name__ == "__main__":
    count() if sys.argv[1:] == ["count"] else main()
