"""Sweep folders as `collagan sweep` leaves them, built by code for the tests of the report."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import make_run_folders as make
import numpy as np
import yaml

Row = dict[str, Any]
BATCH = 32
RUNGS = (2304, 6912, 20480)
METRICS = ("psnr", "psnr_hole", "ssim", "ssim_hole", "dice", "dice_hole", "landmark_error", "landmark_error_hole")
REC, ADV, LR, KIND = (
    "loss.weights.inpainting.rec", "loss.weights.inpainting.adv", "optim.generator.lr", "model.discriminators",
)  # fmt: skip
KEYS: Row = {
    REC: {"kind": "loguniform", "low": 30, "high": 300},
    ADV: {"kind": "simplex"},
    LR: {"kind": "loguniform", "low": 1e-4, "high": 1e-2},
    KIND: {"kind": "choice", "values": ["per_task", "shared"]},
}
PAPER: Row = {REC: 100, ADV: 0.8, KIND: "per_task"}


@dataclass
class Trial:
    number: int
    values: Row
    scores: Row = field(default_factory=dict)
    status: str = "done"
    role: str = "search"
    seed: int = 0
    samples: int | None = RUNGS[-1]
    restarts: int = 0
    reason: str = ""


def quality(values: Row, samples: float = RUNGS[-1], noise: float = 0.0) -> Row:
    """Metrics with a flat top in λ_rec between 60 and 150, worse on both sides, and an optimum in the learning rate."""
    beyond = max(0.0, abs(_decades(values.get(REC), 95)) - 0.2)
    off = 9 * beyond**1.5 + 0.7 * _decades(values.get(LR), 2e-3) ** 2
    off += 0.25 * (values.get(KIND) == "shared") + 0.3 * abs(values.get(ADV, 0.6) - 0.6)
    reached = 4.2 * math.exp(-samples / 6000)
    psnr = 18.9 - off - reached + noise
    return {
        "psnr": psnr + 6.2, "psnr_hole": psnr, "ssim": 0.86 + psnr / 200, "ssim_hole": 0.40 + psnr / 60,
        "dice": 0.90 - 0.01 * reached - 0.25 * values.get(ADV, 0.6) ** 2 / 4 + noise / 90, "dice_hole": 0.80 - 0.01 * reached,
        "landmark_error": 2.0 + 0.5 * reached - noise / 5, "landmark_error_hole": 2.6 + 0.5 * reached,
    }  # fmt: skip


def _decades(value: object, of: float) -> float:
    return math.log10(value / of) if isinstance(value, float) and value > 0 else 0.0


def sample(rng: np.random.Generator) -> Row:
    return {
        REC: float(10 ** rng.uniform(np.log10(30), np.log10(300))),
        ADV: float(rng.dirichlet((2, 1, 1))[0]),
        LR: float(10 ** rng.uniform(-4, -2)),
        KIND: str(rng.choice(["per_task", "shared"])),
    }


def trials(count: int = 40, seed: int = 0) -> list[Trial]:
    """The paper's λ, then `count` − 1 samples of the space under successive halving by thirds; two fail."""
    rng = np.random.default_rng(seed)
    found = [Trial(0, {**PAPER, LR: 6e-3}, role="paper")]
    found += [Trial(number, sample(rng)) for number in range(1, count)]
    noises = {trial.number: float(rng.normal(0, 0.12)) for trial in found} | {0: -0.15}
    for trial in found[5::17]:
        trial.status, trial.samples, trial.restarts = "failed", None, 2
        trial.reason = f"NumericError: the loss is NaN at step {40 + trial.number}, after 3 rollbacks"
    alive = [trial for trial in found if trial.status == "done"]
    for rung in RUNGS[:-1]:
        at = {trial.number: quality(trial.values, rung, noises[trial.number])["psnr_hole"] for trial in alive}
        ranked = sorted(alive, key=lambda trial: -at[trial.number])
        keep = {trial.number for trial in ranked[: math.ceil(len(ranked) / 1.6)]} | {0}
        for trial in alive:
            if trial.number not in keep:
                trial.status, trial.samples = "stopped", rung
        alive = [trial for trial in alive if trial.number in keep]
    for trial in found:
        if trial.samples is not None:
            trial.scores = quality(trial.values, trial.samples, noises[trial.number])
    return found


def write(path: Path, rows: list[Trial], keys: Row | None = None, folders: bool = True, **changes: Any) -> Path:
    """The folder; `changes` lie over sweep.json, None among them too."""
    keys = KEYS if keys is None else keys
    path.mkdir(parents=True)
    whole = [
        trial for trial in rows if trial.status == "done" and trial.role != "confirm" and "psnr_hole" in trial.scores
    ]
    best = max(whole, key=lambda trial: trial.scores["psnr_hole"]).number if whole else None
    about = {
        "version": 1,
        "about": "demo, 640 steps of 32, M*_isd, 64x64 pixels, trained on 2,400 and scored on 300 valid samples of packed/drawn",
        "status": "done", "metrics": [{"name": "psnr_hole", "mode": "max"}], "scheduler": "asha", "search": "tpe",
        "trials": len(rows), "seed": 0, "rungs": list(RUNGS), "keys": keys,
        "paper": {key: value for key, value in PAPER.items() if key in keys}, "best": best, "front": [], "importance": {},
        "samples_trained": sum(trial.samples or 0 for trial in rows), "seconds": 812.5, "confirmed": None,
    }  # fmt: skip
    (path / "sweep.json").write_text(json.dumps({**about, **changes}))
    write_csv(path / "trials.csv", rows, keys)
    for trial in rows if folders else []:
        if trial.scores:
            run_folder(path / "trials" / f"t{trial.number:03d}", trial)
    return path


def write_csv(path: Path, rows: list[Trial], keys: Row) -> None:
    header = ["trial", "status", "steps", *keys, *METRICS, "role", "seed", "samples", "restarts", "reason"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for trial in rows:
            cells = {
                "trial": trial.number, "status": trial.status, "role": trial.role, "seed": trial.seed,
                "steps": "" if trial.samples is None else trial.samples // BATCH, "samples": trial.samples,
                "restarts": trial.restarts, "reason": trial.reason, **trial.values, **trial.scores,
            }  # fmt: skip
            writer.writerow(["" if cells.get(name) is None else cells[name] for name in header])


def run_folder(path: Path, trial: Trial) -> None:
    """config.yaml and the evaluations at the rungs it reached, the last with the trial's own scores."""
    path.mkdir(parents=True)
    settings = make.config()
    settings["schedule"] |= {"batch": BATCH}
    (path / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    reached = [rung for rung in RUNGS if rung <= (trial.samples or 0)]
    now = quality(trial.values, reached[-1]) if reached else {}
    rows = []
    for rung in reached:
        then = quality(trial.values, rung)
        scores = {name: value + then[name] - now[name] for name, value in trial.scores.items() if name in then}
        nested = {
            name: {"mean": value} if name.startswith(("dice", "landmark")) else value for name, value in scores.items()
        }
        rows.append(
            {"kind": "eval", "step": rung // BATCH, "split": "valid", "hole": "block", "samples": 300, **nested}
        )
    make.write_log(path / "metrics.jsonl", rows)
