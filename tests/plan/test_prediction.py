"""Predictions of counted work that is made up."""

import pytest

from collagan_dist.plan.chart import write_chart
from collagan_dist.plan.cost_model import Assumptions, Cluster
from collagan_dist.plan.prediction import SIZES, Losses, Planner, Rate
from tests.plan.test_cost_model import FAST, SLOW, WORK
from tests.training.small import small


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
