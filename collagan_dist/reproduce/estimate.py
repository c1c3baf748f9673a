"""`--dry-run`: what a reproduction will take, measured and not guessed. Nothing is written into its folder."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from collagan_dist import files
from collagan_dist.config.load import config_to_dict, to_yaml, validate_config
from collagan_dist.config.tree import Config
from collagan_dist.reproduce import driver, run_status
from collagan_dist.reproduce.plan import PARSER, PlannedRun, ReproduceOptions
from collagan_dist.reproduce.run_jobs import reason, start, start_words

_SECONDS = 8.0  # of real steps behind a rate
_ENOUGH = 12  # steps
_PATIENCE = 180.0  # seconds for the first step


@dataclass(frozen=True)
class Rate:
    """Pictures a second, and bytes of a checkpoint, of a model on this machine."""

    images_per_s: float
    checkpoint: int


@dataclass(frozen=True)
class Line:
    """A run's row. `seconds` are those that are left, None where its rate could not be measured."""

    run: PlannedRun
    done: int
    scored: bool
    seconds: float | None
    bytes: int | None


def estimate(options: ReproduceOptions) -> list[Line]:
    """Every run with what it will take, by its own log or by a few real steps of its model."""
    runs, manifest = driver.prepare(options)
    ranks = options.ranks or driver.default_ranks()
    lines = []
    with tempfile.TemporaryDirectory(prefix="collagan-") as folder:
        rates: dict[str, Rate | None] = {}
        for run in sorted(runs, key=lambda run: run.name != PARSER):  # GFC's steps need a parser
            done = run_status.steps_done(run)
            rate = _rate(run.folder)
            if rate is None:
                kind = _kind(run)
                if kind not in rates:
                    rates[kind] = _timed(run, options.data, ranks, Path(folder))
                rate = rates[kind]
            left = (run.steps - done) * run.config.schedule.batch
            kept = min(run.config.checkpoint.keep, -(-run.steps // run.config.checkpoint.every))
            lines.append(
                Line(
                    run,
                    done,
                    not run_status.unscored(run, manifest.hash),
                    None if rate is None else left / rate.images_per_s,
                    None if rate is None else rate.checkpoint * kept,
                )
            )
    return lines


def _rate(folder: Path) -> Rate | None:
    """The rate of a run that has begun, by its metrics.jsonl and its checkpoints; None where it has not."""
    speeds = [line["images_per_s"] for line in _lines(folder / "metrics.jsonl") if line.get("kind") == "train"]
    sizes = [sum(f.stat().st_size for f in path.iterdir()) for path in (folder / "checkpoints").glob("step-*")]
    if not speeds or not sizes:
        return None
    # The first line holds what happens once: libraries that choose their kernels, readers that fill their queues.
    return Rate(median(speeds[1:] or speeds), max(sizes))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        for line in path.read_bytes().split(b"\n")[:-1]:
            yield json.loads(line)


def _kind(run: PlannedRun) -> str:
    """Runs of one kind take as long a step: those that differ in seed and holes only."""
    tree = config_to_dict(run.config)
    model = {key: value for key, value in tree["model"].items() if key not in ("concentrated", "gfc")}
    facts = [model, tree["data"]["image_size"], tree["schedule"]["batch"], tree["runtime"]]
    return json.dumps(facts, sort_keys=True)


def _timed(run: PlannedRun, data: str, ranks: int, folder: Path) -> Rate | None:
    """Some real steps of a run in a folder of their own, all losses on; None when they fail."""
    place = folder / "runs" / run.name
    if run.needs is not None:
        _lend(run.out / "runs" / run.needs, folder / "runs" / run.needs)
    config = folder / f"{run.name}.yaml"
    files.write_text(config, to_yaml(_endless(run, folder)))
    command = [*start_words(ranks), "train", str(config), "--data", data, "--run", str(place)]
    log = folder / f"{run.name}.log"
    with log.open("wb") as out:
        child = start(command, out)
        try:
            first, begin = 0.0, time.monotonic()
            while child.poll() is None:
                count = sum(line.get("kind") == "train" for line in _lines(place / "metrics.jsonl"))
                now = time.monotonic()
                first = first or (now if count else 0.0)
                if (first and (now - first > _SECONDS or count >= _ENOUGH)) or (not first and now - begin > _PATIENCE):
                    child.terminate()  # it saves, which tells its size
                    child.wait()
                time.sleep(0.1)
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
    rate = _rate(place)
    if rate is None:
        print(
            f"{run.name} could not be timed: {reason(log.read_text(errors='replace'), child.returncode, log)}",
            file=sys.stderr,
        )
    if run.name != PARSER:
        shutil.rmtree(place, ignore_errors=True)
    (place / "requeue").unlink(missing_ok=True)  # as if it were finished: GFC refuses a parser that is not
    return rate


def _lend(real: Path, place: Path) -> None:
    """The run that another needs, as far as it has come, in the place of the one that was timed; nothing where that is."""
    if place.exists() or not (real / "checkpoints").is_dir():
        return
    place.mkdir(parents=True)
    (place / "checkpoints").symlink_to((real / "checkpoints").absolute())
    for name in ("config.yaml", "data.json"):
        shutil.copy(real / name, place / name)


def _endless(run: PlannedRun, folder: Path) -> Config:
    tree = config_to_dict(run.config)
    tree["schedule"] |= {"steps": 10**7, "adv_from": 0}
    tree["log"] |= {"every": 1, "grid_every": 10**7}
    tree["checkpoint"]["every"] = 10**7
    tree["evaluate"]["every"] = 0
    if run.needs is not None:
        tree["model"]["gfc"] |= {"parser": str(folder / "runs" / PARSER)}
    if run.base == "GFC":
        tree["model"]["gfc"]["stages"] = [0.0, 0.0]
    return validate_config(tree, f"run {run.name}")
