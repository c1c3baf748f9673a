"""Run folders as training leaves them, built by code for the tests of the report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

TASKS = ("inpainting", "segmentation", "landmarks")
PARTS = ("face", "left_eyebrow", "right_eyebrow", "left_eye", "right_eye", "nose", "upper_lip", "teeth", "lower_lip")
POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
Row = dict[str, Any]


def config(tasks: tuple[str, ...] = TASKS, steps: int | None = 2000, lr: float = 2e-4) -> Row:
    return {
        "model": {
            "name": "collagan",
            "tasks": list(tasks),
            "concentrated": True,
            "widths": {"encoder": [64, 128, 256]},
        },
        "loss": {"adv": "ns", "weights": {task: {"adv": 1.0, "rec": 100.0} for task in tasks}},
        "hole": {"kind": "block"},
        "data": {"shards": "demo/shards", "image_size": 64, "augment": {"mirror": True, "shift": 0.05}},
        "optim": {"generator": {"lr": lr, "betas": [0.5, 0.999]}},
        "schedule": {"epochs": 20, "steps": steps, "batch": 64},
        "runtime": {"engine": "ddp", "precision": "bf16"},
        "checkpoint": {"every": 500, "keep": 3},
        "evaluate": {"every": 500, "split": "valid"},
        "log": {"every": 10, "sinks": ["jsonl"]},
        "seed": 0,
        "deterministic": False,
    }


def train_row(step: int, tasks: tuple[str, ...] = TASKS, shift: float = 0.0) -> Row:
    rng = np.random.default_rng(step)
    row: Row = {"kind": "train", "step": step, "epoch": step // 100, "samples": step * 64, "lr": 2e-4}
    for index, task in enumerate(tasks):
        decay = math.exp(-step / (300 + 150 * index))
        row[f"loss/{task}/rec"] = (0.05 + shift + 0.4 * decay) * float(rng.lognormal(0, 0.12)) / 4**index
        row[f"loss/{task}/adv"] = 0.9 + 0.4 * index - 0.3 * decay + float(rng.normal(0, 0.12))
        row[f"loss/{task}/disc"] = 0.68 - 0.12 * index * (1 - decay) + float(rng.normal(0, 0.04))
    row["loss/total"] = 100 * sum(row[f"loss/{task}/rec"] for task in tasks)
    row["images_per_s"] = 412.0 + float(rng.normal(0, 9))
    row["data_wait_share"] = 0.02 + abs(float(rng.normal(0, 0.01)))
    row["grad_norm/generator"] = 1.5 + float(rng.lognormal(0, 0.3))
    return row


def evaluation(gain: float = 0.0, hole: str = "block") -> Row:
    """The content of metrics.json; `gain` moves every number to the better."""
    dice = {part: round(0.931 - 0.037 * index + gain / 50, 4) for index, part in enumerate(PARTS)}
    error = {point: round(2.113 + 0.171 * index - gain / 10, 4) for index, point in enumerate(POINTS)}
    means = {point: round(5.417 + 0.3 * index, 4) for index, point in enumerate(POINTS)}
    return {
        "split": "test", "hole": hole, "blend": None, "samples": 1934,
        "psnr": 27.318 + gain, "psnr_hole": 21.467 + gain,
        "ssim": 0.9123 + gain / 100, "ssim_hole": 0.7032 + gain / 100,
        "dice": _with_mean(dice), "dice_per_image": _with_mean({k: v - 0.021 for k, v in dice.items()}),
        "dice_hole": _with_mean({k: v - 0.11 for k, v in dice.items()}),
        "landmark_error": _with_mean(error), "landmark_error_hole": _with_mean({k: v + 0.83 for k, v in error.items()}),
        "se": {
            "psnr": 0.061, "psnr_hole": 0.083, "ssim": 0.0011, "ssim_hole": 0.0024,
            "dice": dict.fromkeys([*PARTS, "mean"], 0.0031), "landmark_error": dict.fromkeys([*POINTS, "mean"], 0.047),
        },
        "baselines": {
            "mean_colour": {"psnr": 22.874, "psnr_hole": 15.236, "ssim": 0.8534, "ssim_hole": 0.4711},
            "biharmonic": {"psnr": 25.102, "psnr_hole": 18.991, "ssim": 0.8876, "ssim_hole": 0.5937},
            "mean_landmarks": {"landmark_error": _with_mean(means)},
        },
    }  # fmt: skip


def _with_mean(values: dict[str, float]) -> dict[str, float]:
    return values | {"mean": sum(values.values()) / len(values)}


def grid(path: Path, columns: int = 6, rows: int = 4, tile: int = 64, seed: int = 0) -> None:
    """A grid of smooth coloured tiles."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:tile, 0:tile] / tile
    tiles = []
    for _ in range(columns * rows):
        a, b, c = rng.uniform(0, 1, (3, 3))
        tiles.append(255 * (a * x[..., None] + b * y[..., None] + c * (1 - x[..., None])).clip(0, 2) / 2)
    cells = np.array(tiles).reshape(rows, columns, tile, tile, 3).transpose(0, 2, 1, 3, 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(cells.reshape(rows * tile, columns * tile, 3).astype(np.uint8)).save(path)


def write_log(path: Path, rows: list[Row], tail: str = "") -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail, encoding="utf-8")


def bare_run(path: Path, settings: Row | None = None) -> Path:
    """A run that has not taken a step."""
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(settings or config(), sort_keys=False))
    return path


def full_run(path: Path, steps: int = 2000, gain: float = 0.0, tasks: tuple[str, ...] = TASKS, every: int = 10) -> Path:
    """A run that ended, with a resume on its way, and all a run folder can hold."""
    bare_run(path, config(tasks, lr=2e-4 * (1 + gain)))
    digest = "9f2c" * 16
    splits = {"train": 8000, "valid": 1000, "test": 1934}
    (path / "data.json").write_text(json.dumps({"shards": "demo/shards", "manifest": digest, "splits": splits}))
    world = {"size": 2, "hosts": ["node-a", "node-b"], "versions": {"torch": "2.13.0", "python": "3.11.9"}}
    (path / "world.json").write_text(json.dumps(world | {"command": "collagan train demo --run demo/run"}))
    rows: list[Row] = [{"kind": "event", "event": "quarantine", "step": 310, "key": "000517", "reason": "damaged"}]
    for step in range(every, steps + 1, every):
        rows.append(train_row(step, tasks, -0.01 * gain))
        if step % (steps // 8) == 0:
            share = 4 * math.exp(-3 * step / steps)
            rows.append({"kind": "eval", "step": step} | evaluation(gain - share))
        if step == steps // 2:
            rows.append({"kind": "event", "event": "resume", "step": step, "world_size": 2})
    write_log(path / "metrics.jsonl", rows)
    (path / "evaluation").mkdir()
    (path / "evaluation" / "test-block.json").write_text(json.dumps(evaluation(gain)))
    (path / "evaluation" / "test-pattern.json").write_text(json.dumps(evaluation(gain + 1.5, "pattern")))
    (path / "metrics.json").write_text(json.dumps(evaluation(gain)))
    grid(path / "evaluation" / "test-block.png", 3, 2, seed=99)
    for step in range(steps // 8, steps + 1, steps // 8):
        grid(path / "grids" / f"step-{step:08d}.png", seed=step)
    names = ["input", "completed", "truth", "segmentation", "true labels", "landmarks"]
    (path / "grids" / "columns.json").write_text(json.dumps(names))
    for step in (steps // 2, steps):
        folder = path / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "generator.safetensors").write_bytes(bytes(123_456))
        (folder / "manifest.json").write_text("{}")
    return path
