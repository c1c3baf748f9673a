"""A task is the unit of change: one class, one entry in TASKS and one weight make a fourth one train, score and show."""

import json
from typing import Any

import torch

from collagan_dist import tasks
from collagan_dist.config.models import TASK_WEIGHTS
from collagan_dist.config.tree import Config
from collagan_dist.inference.score import score
from collagan_dist.report.page import write_report
from collagan_dist.tasks.base import SampleValues, Task, mean_and_error
from collagan_dist.training.loop import train
from collagan_dist.types import Batch, World
from tests.training.small import small, weights


class Brightness(Task):
    """Where the original is light: one channel."""

    name = "brightness"
    channels = 1

    def __init__(self, config: Config) -> None:
        pass

    def target(self, batch: Batch) -> torch.Tensor:
        return batch.image_B3HW.mean(dim=1, keepdim=True)

    def measure(self, output: torch.Tensor, batch: Batch) -> SampleValues:
        return {"brightness_error": (output - self.target(batch)).abs().mean((1, 2, 3)).double().cpu().numpy()}

    def summarize(self, rows: SampleValues) -> tuple[dict[str, Any], dict[str, Any]]:
        mean, error = mean_and_error(rows["brightness_error"])
        return {"brightness_error": mean}, {"brightness_error": error}

    def picture(self, output: torch.Tensor, batch: Batch) -> tuple[str, torch.Tensor]:
        return "brightness", output.expand(-1, 3, -1, -1)


def test_a_fourth_task(shards, tmp_path, monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "brightness", Brightness)
    monkeypatch.setitem(TASK_WEIGHTS, "brightness", ((1.0, 100.0),))
    four = ["inpainting", "segmentation", "landmarks", "brightness"]
    train(small(shards.folder, model__tasks=four, log__grid_every=7), tmp_path, World())
    saved = weights(tmp_path, 7)
    assert saved["generator/output.weight"].shape[1] == 3 + 11 + 5 + 1
    assert any(name.startswith("discriminators/of.brightness.") for name in saved)
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"loss/brightness/rec", "loss/brightness/adv", "loss/brightness/disc"} <= line.keys()
    ((metrics, _),) = score(tmp_path, World())
    assert metrics["brightness_error"] > 0 and metrics["se"]["brightness_error"] > 0
    assert {"brightness", "true brightness"} <= set(json.loads((tmp_path / "grids/columns.json").read_text()))
    assert "brightness" in write_report([tmp_path]).read_text()
