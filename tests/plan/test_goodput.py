import json
import random

import pytest

from collagan_dist.plan.goodput import Failures, best_interval, goodput
from tests.conftest import ROOT


def simulated(interval: float, failures: Failures, segments: int) -> float:
    """Segments one after the other; each failure begins its segment anew after a restart, in which nothing fails."""
    draw, elapsed = random.Random(1), 0.0
    segment = interval + failures.blocked
    due = draw.expovariate(1 / failures.mtbf)
    for _ in range(segments):
        while due < segment:
            elapsed += due + failures.restart
            due = draw.expovariate(1 / failures.mtbf)
        elapsed, due = elapsed + segment, due - segment
    return interval * segments / elapsed


@pytest.mark.parametrize(
    ("interval", "failures"),
    [(60, Failures(600, 100, 2)), (600, Failures(600, 30, 20)), (3, Failures(30, 5, 0)), (100, Failures(1e5, 200, 1))],
)
def test_it_is_the_mean_of_many_simulated_runs(interval, failures):
    assert goodput(interval, failures) == pytest.approx(simulated(interval, failures, 40_000), rel=0.02)


@pytest.mark.parametrize("failures", [Failures(600, 100, 2), Failures(3600, 60, 30), Failures(1e6, 100, 0.1)])
def test_the_best_interval_is_better_than_others(failures):
    best = best_interval(failures)
    at_best = goodput(best, failures)
    assert all(goodput(best * factor, failures) < at_best for factor in (0.5, 0.8, 1.25, 2))


def test_saving_that_takes_longer_than_a_node_lives_has_no_good():
    assert goodput(1e6, Failures(1, 1, 1)) == 0 and best_interval(Failures(10, 1, 30)) == 10


def test_what_is_being_written_is_lost_too():
    assert goodput(60, Failures(600, 100, 2, written=30)) < goodput(60, Failures(600, 100, 2))


def test_the_next_checkpoint_waits_until_the_one_before_is_written():
    """AsyncCheckpointer.save waits first, then copies."""
    never = Failures(mtbf=1e12, restart=100, blocked=2, written=30)
    assert goodput(10, never) == pytest.approx(10 / 32) and goodput(60, never) == pytest.approx(60 / 62)
    often = Failures(600, 30, 0.01, 30)
    assert best_interval(often) == 30 and best_interval(Failures(10, 1, 30, 40)) == 40
    assert goodput(30, often) > goodput(best_interval(Failures(600, 30, 0.01)), often)


def test_the_run_under_kills_of_benchmarks_chaos():
    chaos = json.loads((ROOT / "benchmarks/chaos.json").read_text())
    asked, steps = chaos["arguments"], chaos["undisturbed seconds"]["steps alone"]
    failures = Failures(asked["mtbf"], chaos["seconds to resume"]["median"], 0.0)
    predicted = goodput(asked["every"] * steps / asked["steps"], failures)
    # The number of kills alone strays by more than this.
    assert predicted == pytest.approx(chaos["goodput without the first start"], rel=0.15)


def test_what_the_pages_say_of_faults_was_measured():
    chaos = json.loads((ROOT / "benchmarks/chaos.json").read_text())
    kills = sum(chaos["faults"][kind] for kind in ("rank", "job", "checkpoint"))
    assert chaos["arguments"]["mtbf"] == 60 and kills >= 20 and len(chaos["faults"]) == 5
    assert chaos["goodput without the first start"] >= 0.92 and chaos["same weights as undisturbed"]
    restart = json.loads((ROOT / "benchmarks/start.json").read_text())["seconds to a new step after a rank was killed"]
    assert restart["kills"] >= 10 and restart["median"] <= 3
