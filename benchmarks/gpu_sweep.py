"""Images per second of four trials that share a GPU, against the same four one after the other, alternating in one run.

The networks of the paper at width 16 and at full width, 128x128: narrow ones leave most of a GPU idle.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import collagan, drawn_shards, save

TRIALS, ROUNDS, STEPS, BATCH = 4, 2, 400, 64
SPACE = "{metric: psnr_hole, space: {loss.weights.inpainting.rec: {loguniform: [30, 300]}}}"


def main() -> None:
    if not torch.cuda.is_available():
        print("benchmarks.gpu_sweep: no CUDA device")
        return
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        root = Path(folder)
        drawn_shards(root, 2000, 1)
        (root / "space.yaml").write_text(SPACE)
        for number in range(ROUNDS):
            for width in (16, 64):
                for gpus in (1, 1 / TRIALS):
                    sets = (f"schedule.steps={STEPS}", f"schedule.batch={BATCH}", f"model.widths.generator={width}", "runtime.precision=bf16",
                            "runtime.channels_last=true", "evaluate.samples=64")  # fmt: skip
                    words = [word for item in sets for word in ("--set", item)]
                    began = time.monotonic()
                    collagan("sweep", "stable", "--space", root / "space.yaml", "--data", root / "drawn", "--out", root / f"{number}-{width}-{gpus}",
                             "--trials", TRIALS, "--gpus", gpus, "--cpus", 2, *words)  # fmt: skip
                    how = "shared" if gpus < 1 else "one after the other"
                    seconds.setdefault(f"width {width}, {how}", []).append(time.monotonic() - began)
    images = {name: round(TRIALS * STEPS * BATCH / statistics.median(values)) for name, values in seconds.items()}
    save(__file__, {"gpu": torch.cuda.get_device_name(), "data": f"{TRIALS} trials of {STEPS} steps of {BATCH}, start and evaluation included",
                    "images per second in all": images})  # fmt: skip


if __name__ == "__main__":
    main()
