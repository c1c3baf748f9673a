"""Sweeps small enough for tests, by the command as a user gives it, and what they left."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collagan_dist.config import strict_yaml
from collagan_dist.config.load import to_yaml
from tests.training.small import small

STEPS, BATCH = 54, 4
FIRST, SECOND = STEPS // 9, STEPS // 3  # steps of the rungs
HALVING: dict[str, Any] = {
    "metric": "psnr_hole",
    "scheduler": "sync_halving",
    "space": {"loss.weights.*.adv": {"simplex": 1.0}, "optim.generator.lr": {"loguniform": [1e-3, 1e-1]}},
}
GRID: dict[str, Any] = {
    "metric": "psnr_hole",
    "search": "grid",
    "space": {"optim.generator.lr": {"choice": [1e-3, 1e37]}, "model.widths.generator": {"choice": [4, 10_000_000]}},
}  # the second values: NaN, and memory that no machine has


def write(folder: Path, shards: object, space: dict[str, Any], **changes: Any) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"schedule__steps": STEPS, "schedule__batch": BATCH, "checkpoint__every": 2, "evaluate__samples": 4}
    config, file = folder / "small.yaml", folder / "space.yaml"
    config.write_text(to_yaml(small(shards, **(settings | changes))))
    file.write_text(strict_yaml.dump(space))
    return config, file


class Sweep:
    """`collagan sweep` over `space` into `folder`/out, however often it is started."""

    def __init__(self, folder: Path, shards: object, space: dict[str, Any], *options: object, **changes: Any) -> None:
        config, file = write(folder, shards, space, **changes)
        self.out, self.log = folder / "out", folder / "log.txt"
        command = [sys.executable, "-m", "collagan_dist", "sweep", config]
        self.words = [*command, "--space", file, "--data", shards, "--out", self.out, *options]

    @contextmanager
    def started(self, **env: str) -> Iterator[subprocess.Popen]:
        """The running command; ended whatever the test does."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*map(str, self.words)], stdout=log, stderr=log, env={**os.environ, **env}, process_group=0,
            )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def run(self, code: int = 0) -> str:
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.started() as process:
            ended = process.wait(600)
        printed = self.log.read_bytes()[before:].decode()
        assert ended == code and "Traceback" not in printed, printed
        return printed

    def until(self, process: subprocess.Popen, there: Callable[[], bool], timeout: float = 400) -> None:
        last = time.monotonic() + timeout
        while not there():
            assert process.poll() is None, f"it ended before:\n{self.log.read_text()}"
            assert time.monotonic() < last, self.log.read_text()
            time.sleep(0.05)

    def trial(self, number: int) -> Path:
        return self.out / "trials" / f"t{number:03d}"

    def saved(self, number: int) -> int:
        return max((int(path.name[5:]) for path in (self.trial(number) / "checkpoints").glob("step-*")), default=0)

    def rows(self) -> list[dict[str, str]]:
        with (self.out / "trials.csv").open() as file:
            return list(csv.DictReader(file))

    def lines(self, number: int, kind: str) -> list[dict[str, Any]]:
        """Lines of a kind of a trial's metrics.jsonl."""
        lines = map(json.loads, (self.trial(number) / "metrics.jsonl").read_text().splitlines())
        return [line for line in lines if line["kind"] == kind]

    def starts(self, number: int) -> list[tuple[str, int]]:
        """(start or resume, the step from which) of each start of a trial."""
        events = [(line["event"], line["step"]) for line in self.lines(number, "event")]
        return [event for event in events if event[0] in ("start", "resume")]


LR_SPACE: dict[str, Any] = {"metric": "psnr_hole", "space": {"optim.generator.lr": {"loguniform": [1e-3, 1e-1]}}}
