"""What `collagan plan` prints, of counted work that is made up."""

import pytest

from collagan_dist.commands.plan_screen import show_plan
from collagan_dist.plan.cost_model import Assumptions, Cluster
from collagan_dist.plan.prediction import Losses, Planner, Rate
from tests.plan.test_cost_model import FAST, SLOW, WORK
from tests.training.small import small


def printed(
    capsys: pytest.CaptureFixture[str], batch: int = 64, measured: int | None = None, memory: float | None = None
) -> str:
    """The words of a plan for one node of two GPUs, each once after a space."""
    config = small("shards", schedule__batch=batch)
    rate = Rate(lambda samples: samples / 100, "measured by hand", "a GPU", memory, measured)
    plan = Planner(config, rate, Assumptions(), WORK).plan(Cluster(1, 2, FAST, SLOW), 1000, Losses(1e6, 60))
    show_plan({"configuration": "small", "model": "M*", "links": ["fast", "slow"], **plan})
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    return " ".join(out.split())


def test_shares_far_below_the_measured_one_are_said(capsys):
    said = "steps of fewer than 8 samples a GPU are far from those measured, of 32"
    assert said in printed(capsys, measured=32) and "far from" not in printed(capsys, measured=8)


def test_rows_of_too_much_memory_say_so(capsys):
    assert "1 1 – no memory – 32" in printed(capsys, memory=40e6) and "no memory" not in printed(capsys)
