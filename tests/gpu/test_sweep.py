"""Trials of a sweep that share one GPU."""

import json
import time

import pytest

from tests.sweep.small import STEPS, Sweep

pytestmark = pytest.mark.gpu
SPACE = {"metric": "psnr_hole", "space": {"optim.generator.lr": {"loguniform": [1e-3, 1e-2]}}}


def test_two_trials_share_a_gpu(shards, tmp_path):
    """Half of it each, at the same time, on the device and not on the CPU."""
    pytest.importorskip("ray")
    sweep = Sweep(tmp_path, shards.folder, SPACE, "--trials", 2, "--gpus", 0.5, schedule__steps=20 * STEPS)
    sweep.run()
    ranks = [json.loads((sweep.trial(number) / "world.json").read_text())["ranks"][0] for number in range(2)]
    assert [rank["device"] for rank in ranks] == ["cuda:0"] * 2 and ranks[0]["pid"] != ranks[1]["pid"]
    begun = [sweep.lines(number, "event")[0]["time"] for number in range(2)]
    assert max(begun) < min(ended(sweep, number) for number in range(2))


def ended(sweep: Sweep, number: int) -> str:
    """When a trial's last checkpoint was there, as its events tell the time."""
    last = max((sweep.trial(number) / "checkpoints").glob("step-*"), key=lambda path: path.name)
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(last.stat().st_mtime))
