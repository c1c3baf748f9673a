"""Predictions of counted work that is made up, and of a real run."""

import json
from itertools import pairwise
from statistics import median

import pytest

from collagan_dist.plan.chart import write_chart
from collagan_dist.plan.cost_model import Assumptions, Cluster
from collagan_dist.plan.hardware import LINKS
from collagan_dist.plan.prediction import SIZES, Losses, Planner, Rate
from collagan_dist.plan.rates import rate_of_run, read_run
from collagan_dist.plan.work import count_step
from collagan_dist.training.loop import train
from tests.models.peers import WORLD
from tests.plan.test_cost_model import FAST, SLOW, WORK
from tests.training.small import small, weights


def planner(memory: float | None, batch: int = 64) -> Planner:
    """One megabyte a sample, a hundred samples a second."""
    return Planner(
        small("shards", schedule__batch=batch),
        Rate(lambda samples: samples / 100, "measured by hand", "a GPU", memory),
        Assumptions(),
        WORK,
    )


def test_what_does_not_fit_has_no_rate_and_is_no_measure(tmp_path):
    """64 samples need 64 MB: two GPUs of 40 MB hold them, one does not."""
    cluster = Cluster(1, 4, FAST, SLOW)
    rows = planner(40e6).scaling(cluster, 16)
    whole = planner(None).scaling(cluster, 16)
    assert rows[0]["configured batch"] is None and rows[0]["no memory"] == ["configured batch"]
    assert not any(row["no memory"] for row in [*rows[1:], *whole])
    assert rows[1]["configured batch"]["efficiency"] == whole[0]["configured batch"]["efficiency"] == 1
    assert rows[1]["configured batch"]["images_per_s"] == whole[1]["configured batch"]["images_per_s"]
    kept = [row["configured batch"]["efficiency"] for row in rows[1:4]]
    assert kept == sorted(kept, reverse=True) and kept[2] < 1
    # 64 samples are two for each of 32 ranks.
    assert [row["ranks"] for row in rows if row["configured batch"]] == [2, 4, 8, 16, 32]
    plan = planner(40e6).plan(cluster, 1000, Losses(1e6, 60))
    write_chart(plan, tmp_path / "plan.svg")
    assert plan["scaling"] == rows


def test_a_share_that_no_gpu_holds_has_no_rate_at_any_size(tmp_path):
    plan = planner(1e6).plan(Cluster(1, 4, FAST, SLOW), 1000, Losses(1e6, 60))
    assert [row["same share"] for row in plan["scaling"]] == [None] * len(SIZES)
    assert [row["configured batch"] for row in plan["scaling"]] == [None] * len(SIZES)
    write_chart(plan, tmp_path / "plan.svg")


def test_efficiency_is_of_one_gpu_where_it_holds_the_batch():
    row = planner(None).scaling(Cluster(2, 4, FAST, SLOW), 16)[3]
    assert row["ranks"] == 8 and row["nodes"] == 2
    assert row["same share"]["efficiency"] == pytest.approx(row["same share"]["images_per_s"] / 800)
    assert row["configured batch"]["share"] == 8 and row["same share"]["batch"] == 128


def test_a_run_that_gains_nothing_between_failures_never_ends():
    plan = planner(None).plan(Cluster(1, 4, FAST, SLOW), 1000, Losses(10, 1e9, price=1.0))
    assert 0 < plan["checkpoint"]["goodput"] < 1e-6 and plan["run seconds"] is plan["gpu hours"] is plan["cost"] is None


def test_a_real_run_and_its_prediction(shards, tmp_path):
    """What holds however fast the machine is: rate, steps and state of the run itself, and what others cost more."""
    run = tmp_path / "run"
    config = small(shards.folder, schedule__steps=None, schedule__epochs=1, schedule__batch=8, log__every=1)
    steps = train(config, run, WORLD)
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    rates = [row["images_per_s"] for row in rows if row["kind"] == "train"]
    assumed, work, loopback = Assumptions.parse([], "cpu"), count_step(config), LINKS["loopback"]
    alone, samples = Cluster(1, 1, loopback, loopback), shards.samples("train")
    planned = Planner(config, rate_of_run(read_run(run), config, work, alone, assumed), assumed, work)

    plan = planned.plan(alone, samples, Losses(1e6, 60))
    assert plan["images_per_s"] == pytest.approx(median(rates[1:])) and plan["steps"] == steps == len(rates)
    # The state that is saved is that of which the plan counts memory and checkpoint.
    saved = sum(tensor.nbytes for tensor in weights(run, steps).values())
    kept = sum(plan["memory"][name] for name in ("parameters", "Adam", "moving average"))
    assert kept <= saved <= 1.1 * kept
    # Ranks that share the batch wait for each other: the more, the less each keeps.
    for fewer, more in pairwise([row for row in plan["scaling"] if row["same share"]]):
        assert more["same share"]["efficiency"] < fewer["same share"]["efficiency"]
    two = planned.step(Cluster(1, 2, loopback, loopback), 8)
    assert two.compute == plan["step"]["compute"] and two.waiting > 0 and two.small > 0
    assert two.exposed == two.all_reduce > 0  # a CPU hides none of it
    # Twice the samples cost more, but weights and Adam once.
    compute = planned.rate.compute
    assert compute(8) < compute(16) < 2 * compute(8)
    assert planned.memory(alone, 8)["peak"] < planned.memory(alone, 16)["peak"]
