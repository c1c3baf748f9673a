"""The rate of a run by its log, with counted work that is made up."""

import json
from pathlib import Path
from typing import Any

import pytest

from collagan_dist.config.load import to_yaml
from collagan_dist.config.tree import Config
from collagan_dist.plan.cost_model import Assumptions, Cluster
from collagan_dist.plan.hardware import REACHED_LINK, Link
from collagan_dist.plan.prediction import Rate
from collagan_dist.plan.rates import rate_of_run, read_run
from tests.plan.test_cost_model import WORK
from tests.training.small import small

FREE = Link("free", 1e15 / REACHED_LINK, 0.0, "")
STEADY = Assumptions(jitter=0.0)
START = {"kind": "event", "event": "start", "step": 0}


def line(step: int, rate: float, **more: Any) -> dict[str, Any]:
    return {"kind": "train", "step": step, "images_per_s": rate, "loss/inpainting/adv": 1.0, **more}


def a_run(folder: Path, config: Config, ranks: int, rows: list[dict[str, Any]], device: str = "cuda:0") -> Path:
    """A run folder with what is read of one."""
    (folder / "config.yaml").write_text(to_yaml(config))
    each = [{"host": "here", "device": device, "name": "a device"}] * ranks
    (folder / "world.json").write_text(json.dumps({"ranks": each}))
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def rate_of(run: Path, config: Config, assumed: Assumptions = STEADY, link: Link = FREE) -> Rate:
    return rate_of_run(read_run(run), config, WORK, Cluster(1, 1, link, link), assumed)


def test_few_samples_take_the_launches_of_a_gpu(tmp_path):
    """100 operations of 1 ms; no more than was measured, and none on a CPU or of a CUDA graph."""
    assumed = Assumptions(launch=1e-3)

    def seconds(samples: int, rate: float, device: str = "cuda:0", **switches: Any) -> float:
        config = small(tmp_path, schedule__batch=64, **switches)
        found = rate_of(a_run(tmp_path, config, 1, [START, line(2, rate)], device), config, assumed)
        assert found.measured_share == 64
        return found.compute(samples)

    assert seconds(64, 320) == pytest.approx(0.2) and seconds(48, 320) == pytest.approx(0.15)
    assert seconds(16, 320) == seconds(2, 320) == pytest.approx(0.1)
    assert seconds(64, 1280) == seconds(2, 1280) == pytest.approx(0.05)
    assert seconds(16, 320, "cpu") == seconds(16, 320, runtime__cuda_graph=True) == pytest.approx(0.05)
