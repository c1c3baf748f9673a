"""The rate of a run by its log, with counted work that is made up."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collagan_dist.config.load import to_yaml
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.plan.cost_model import Assumptions, Cluster
from collagan_dist.plan.hardware import REACHED_LINK, Link
from collagan_dist.plan.prediction import Rate
from collagan_dist.plan.rates import rate_of_run, read_run
from collagan_dist.plan.work import Linear
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


def test_other_numbers_of_samples_go_by_the_bytes_of_a_step(tmp_path):
    """By hand: 300 bytes of the weights and 10 a sample are 940 at 64 samples, where a step took 0.94 s, and 460 at 16."""
    work = replace(WORK, heavy_bytes=Linear(100, 4), light_bytes=Linear(200, 6))
    run = a_run(tmp_path, config := small(tmp_path, schedule__batch=64), 1, [START, line(2, 64 / 0.94)], "cpu")
    found = rate_of_run(read_run(run), config, work, Cluster(1, 1, FREE, FREE), STEADY)
    assert [found.compute(samples) for samples in (16, 64, 128)] == pytest.approx([0.46, 0.94, 1.58])


def test_lines_of_former_starts_do_not_count(tmp_path):
    """Eight ranks trained, then one goes on: its own lines are its rate."""
    config = small(tmp_path, schedule__batch=64)
    rows = [START, *(line(step, 800.0) for step in range(2, 40, 2)), START | {"event": "resume", "step": 38}]
    run = a_run(tmp_path, config, 1, [*rows, line(40, 1.0), line(42, 100.0), line(44, 102.0), line(46, 90.0)])
    assert rate_of(run, config).compute(64) == pytest.approx(64 / 100)
    with pytest.raises(DataError, match="no rate of steps with all losses since its newest start"):
        rate_of(a_run(tmp_path, config, 1, rows), config)


def test_lines_before_the_adversarial_losses_do_not_count(tmp_path):
    config = small(tmp_path, schedule__batch=64, schedule__adv_from=5)
    early = [START, *({k: v for k, v in line(step, 500.0).items() if k != "loss/inpainting/adv"} for step in (2, 4))]
    mixed = [*early, line(6, 300.0)]
    run = a_run(tmp_path, config, 1, [*mixed, line(8, 100.0), line(10, 100.0)])
    assert rate_of(run, config).compute(64) == pytest.approx(64 / 100)
    # A line of one step has no other step in it.
    assert rate_of(a_run(tmp_path, config, 1, [*early, line(5, 50.0)]), config).compute(64) == pytest.approx(64 / 50)
    for rows in (early, mixed):
        with pytest.raises(DataError, match="after its adversarial losses have begun"):
            rate_of(a_run(tmp_path, config, 1, rows), config)


@pytest.mark.parametrize("rate", [1e-308, 1e15])
def test_a_rate_that_no_run_has_is_refused(tmp_path, rate):
    """A plan of it would have infinite numbers, or 0."""
    run = a_run(tmp_path, config := small(tmp_path), 1, [START, line(2, rate)])
    with pytest.raises(DataError, match="images/s, which no run has"):
        rate_of(run, config)


def test_links_that_take_longer_than_the_step_are_refused(tmp_path):
    config = small(tmp_path, schedule__batch=64)
    run = a_run(tmp_path, config, 2, [START, line(2, 64 / 0.5)])
    with pytest.raises(ConfigError, match=r"a step took 500 ms, and by these links .* give the links of the cluster"):
        rate_of(run, config, link=Link("slow", 1e8 / REACHED_LINK, 0.0, ""))
    assert rate_of(run, config, link=Link("fast", 1e11 / REACHED_LINK, 0.0, "")).compute(32) < 0.5


def peer(name: str, **own: Any) -> dict[str, Any]:
    """The section of a peer of Table 1 with keys of its own."""
    bare = {"tasks": ["inpainting"], "concentrated": False, "output_bias": "zero"}
    return {"model": {"name": name, **bare, name: own}}


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ({}, {"optim__ema": 0.99}, None),
        ({}, {"optim": {}}, "optim.ema: True -> False"),
        (peer("sii"), peer("sii", generator_updates=1), "generator_updates: 2 -> 1"),
        (peer("ce"), peer("ce", bottleneck=100), "bottleneck: 4000 -> 100"),
        (peer("gfc"), peer("gfc", parsing=0.0), "parsing: True -> False"),
    ],
    ids=["another decay", "no average", "sii", "ce", "gfc"],
)
def test_what_makes_another_step(tmp_path, then, now, said):
    measured, planned = small(tmp_path, **then), small(tmp_path, **now)
    run = a_run(tmp_path, measured, 1, [START, line(2, 64.0)])
    if said is None:
        rate_of(run, planned)
    else:
        with pytest.raises(ConfigError, match=said):
            rate_of(run, planned)
