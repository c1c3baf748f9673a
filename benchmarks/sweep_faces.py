"""A search for λ on drawn faces: the best found against the paper's, each trained again with three other seeds.

The budget: 32 trials by ASHA of up to 540 steps of 16 pictures of 64x64, width 16, adversarial throughout; TPE; hole PSNR on 128
pictures that are not trained on. Then 6 whole runs that the search has not seen. The sweep's trials are kept in benchmarks/sweep/trials.csv.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks import collagan, drawn_shards, save

HERE = Path(__file__).parent / "sweep"
TRIALS, SEEDS, STEPS = 32, 3, 540
SETS = (f"schedule.steps={STEPS}", "schedule.batch=16", "schedule.adv_from=0", "model.widths.generator=16", "evaluate.samples=128",
        "checkpoint.every=60", "loss.inpainting_over=all")  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        root = Path(folder)
        drawn_shards(root, 2600, 11, "--set", "store_size=88")
        began, out = time.monotonic(), root / "lambda"
        sets = [word for item in SETS for word in ("--set", item)]
        collagan(
            "sweep",
            "demo",
            "--space",
            HERE / "space.yaml",
            "--data",
            root / "drawn",
            "--out",
            out,
            "--trials",
            TRIALS,
            "--seeds",
            SEEDS,
            *sets,
        )
        seconds = time.monotonic() - began
        found = json.loads((out / "sweep.json").read_bytes())
        shutil.copy(out / "trials.csv", HERE / "trials.csv")
    rows = [line.split(",") for line in (HERE / "trials.csv").read_text().splitlines()]
    statuses = [row[1] for row in rows[1:]]
    save(
        __file__,
        {
            "data": found["about"],
            "budget": f"{TRIALS} trials by ASHA and TPE, rungs at {found['rungs']} samples, and {2 * SEEDS} whole runs to confirm",
            "seconds": round(seconds),
            "load": round(os.getloadavg()[0], 1),
            "samples trained": found["samples_trained"],
            "trials": {status: statuses.count(status) for status in sorted(set(statuses))},
            "best": found["best"],
            "hole PSNR over seeds the search has not seen": found["confirmed"],
            "importance": found["importance"],
        },
    )


if __name__ == "__main__":
    main()
