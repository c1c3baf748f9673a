"""What a checkpoint costs training: saved beside it, saved while it waits, and not at all, alternating in one process.

The paper's model M*_isd at full width, its own step and Adam, a checkpoint every EVERY steps to a real disk with fsync. Wall seconds
of those steps, up to the last one's end; the write that is then still under way is waited for outside the clock, as the next steps
of a run would go on. The share is what EVERY steps take longer than without a checkpoint.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks import save
from benchmarks.faces import aligned_set
from collagan_dist.config.load import validate_config
from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.shards.quick_check import open_shards
from collagan_dist.models.registry import build_networks, build_step
from collagan_dist.runs import checkpoint
from collagan_dist.runs.async_checkpoint import HostCopy
from collagan_dist.runs.layout import checkpoint_dir, checkpoint_steps
from collagan_dist.setup import build_setup, training_order
from collagan_dist.types import World

GPU = torch.cuda.is_available()
BATCH, EVERY, ROUNDS = (64, 100, 5) if GPU else (4, 8, 3)


class Training:
    """Steps on one batch, kept: reading is not what is measured."""

    def __init__(self, root: Path) -> None:
        recipe = Recipe(
            dataset="celeba_aligned", root=str(root), labels="Label/img_align_celeba", out=str(root / "out")
        )
        pack(recipe)
        tree: dict[str, Any] = {"data": {"shards": recipe.out}, "schedule": {"batch": BATCH, "steps": 10**6}}
        config = validate_config(tree, "benchmark")
        self.setup = build_setup(config, World(), open_shards(config))
        self.networks = build_networks(config, self.setup.engine, self.setup.tasks)
        self.step = build_step(config, self.setup.engine, self.setup.tasks, self.networks, 10**6)
        loader = self.setup.loader("train", self.setup.view(training=True), BATCH)
        self.batch = next(loader.batches(iter([training_order(config, self.setup.manifest).step(0, World())])))
        self.folder, self.number = root / "checkpoints", 0
        self.host_copy, self.executor = HostCopy(), ThreadPoolExecutor(1)
        self.write: Future[float] | None = None
        self.waited: dict[str, list[float]] = {}
        self.wrote: dict[str, list[float]] = {}

    def steps(self, how: str) -> float:
        """Seconds of EVERY steps with one checkpoint after the first, saved in this way."""
        self._finish()
        began = time.perf_counter()
        for number in range(EVERY):
            self.step(self.batch, self.number)
            self.number += 1
            if number == 0 and how != "none":
                self._finish()
                since = time.perf_counter()
                self._save(how)
                self.waited.setdefault(how, []).append(time.perf_counter() - since)
        self._finish()
        seconds = time.perf_counter() - began
        if self.write is not None:
            self.wrote.setdefault(how, []).append(self.write.result())
            self.write = None
        return seconds

    def _save(self, how: str) -> None:
        copies, step = self.host_copy.copy(self.networks.tensors()), self.number

        def write() -> float:
            began = time.perf_counter()
            checkpoint.save(self.folder, step, copies, {"step": step}, 1)
            return time.perf_counter() - began

        self.write = self.executor.submit(write)
        if how == "synchronous":
            self.write.result()

    def _finish(self) -> None:
        if GPU:
            torch.cuda.synchronize()


def main() -> None:
    scratch = Path(tempfile.mkdtemp(dir=os.environ.get("TMPDIR", "/var/tmp")))
    root, what = aligned_set(max(BATCH, 64))
    training = Training(root)
    training.folder = scratch / "checkpoints"
    seconds: dict[str, list[float]] = {"none": [], "asynchronous": [], "synchronous": []}
    training.steps("synchronous"), training.steps("none")  # warm
    training.waited.clear(), training.wrote.clear()
    for _ in range(ROUNDS):
        for how, found in seconds.items():
            found.append(training.steps(how))
    median = {how: statistics.median(found) for how, found in seconds.items()}
    newest = checkpoint_dir(training.folder, checkpoint_steps(training.folder)[-1])
    step = median["none"] / EVERY
    save(
        __file__,
        {
            "model": f"M*_isd, full width, batch {BATCH} of 128x128, fp32, {torch.cuda.get_device_name() if GPU else 'CPU'}; {what}",
            "checkpoint_megabytes": round(sum(file.stat().st_size for file in newest.iterdir()) / 1e6, 1),
            "step_seconds": round(step, 4),
            "checkpoint_every": EVERY,
            "load_average_at_end": os.getloadavg()[0],
            "training_waits_seconds": {
                how: round(statistics.median(found), 3) for how, found in training.waited.items()
            },
            "a_write_takes_seconds": {how: round(statistics.median(found), 3) for how, found in training.wrote.items()},
            "costs_seconds": {how: round(median[how] - median["none"], 3) for how in ("asynchronous", "synchronous")},
            "waits_share_at_1000_steps": {
                how: round(statistics.median(found) / (1000 * step), 6) for how, found in training.waited.items()
            },
            "seconds": {how: [round(value, 2) for value in found] for how, found in seconds.items()},
        },
    )
    shutil.rmtree(scratch)
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
