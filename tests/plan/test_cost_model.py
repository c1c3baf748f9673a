import json
import math
from statistics import mean

import pytest

from collagan_dist.errors import ConfigError
from collagan_dist.plan.cost_model import Assumptions, Cluster, all_reduce_seconds, expected_maximum, predict
from collagan_dist.plan.hardware import GPUS, LINKS, REACHED_LINK, Link, find_gpu, find_link, find_links
from collagan_dist.plan.work import Linear, StepWork, UpdateWork
from tests.conftest import ROOT

FAST, SLOW = Link("fast", 100e9 / REACHED_LINK, 1e-6, ""), Link("slow", 10e9 / REACHED_LINK, 1e-5, "")
WORK = StepWork(
    Linear(0, 1e9), Linear(0, 1e6), Linear(0, 1e6), 100, Linear(0, 1e6),
    (UpdateWork("discriminators", 50 << 20, Linear(0, 3e8)), UpdateWork("generator", 200 << 20, Linear(0, 3e8))), ((16, 64), (8, 64)),
)  # fmt: skip


def second_for_100(samples: int) -> float:
    return samples / 100


def test_a_ring_inside_a_node():
    """2 (n - 1) messages of a share of 1 / n."""
    assert all_reduce_seconds(8e9, Cluster(1, 8, FAST, SLOW)) == pytest.approx(14 * (1e9 / 100e9 + 1e-6))


def test_between_nodes_each_rank_carries_its_share():
    two = all_reduce_seconds(8e9, Cluster(2, 8, FAST, SLOW)) - all_reduce_seconds(8e9, Cluster(1, 8, FAST, SLOW))
    assert two == pytest.approx(2 * (0.5e9 / 10e9 + 1e-5))
    one_card = Link("one card", SLOW.bytes_per_s, SLOW.latency, "", card_per_gpu=False)
    shared = all_reduce_seconds(8e9, Cluster(2, 8, FAST, one_card)) - all_reduce_seconds(8e9, Cluster(1, 8, FAST, SLOW))
    assert shared == pytest.approx(2 * (8 * 0.5e9 / 10e9 + 1e-5))


def test_small_messages_between_many_nodes_go_by_a_tree():
    assert all_reduce_seconds(8, Cluster(1024, 1, FAST, SLOW)) == pytest.approx(20 * SLOW.latency, rel=0.01)


def test_nothing_is_exchanged_alone():
    step = predict(WORK, 50, second_for_100, Cluster(1, 1, FAST, SLOW), Assumptions(), sync_bn=True)
    assert step.seconds == step.compute == 0.5


@pytest.mark.parametrize("nodes", [1, 2, 16, 128])
def test_what_is_hidden(nodes):
    """Never the last bucket, and never more than the share of the backward passes that `overlap` says."""
    cluster = Cluster(nodes, 8, FAST, SLOW)
    steps = [predict(WORK, 50, second_for_100, cluster, Assumptions(overlap=share)) for share in (0.0, 0.05, 1.0)]
    assert steps[0].exposed == steps[0].all_reduce > steps[1].exposed > 0
    last = 2 * all_reduce_seconds(25 << 20, cluster)
    assert steps[2].exposed == pytest.approx(last)
    assert steps[0].exposed - steps[1].exposed == pytest.approx(min(0.05 * 0.3, steps[0].all_reduce - last), rel=0.5)


def test_synchronous_normalization_costs_a_collective_a_layer():
    cluster = Cluster(4, 8, FAST, SLOW)
    without, with_it = (predict(WORK, 50, second_for_100, cluster, Assumptions(), sync) for sync in (False, True))
    assert with_it.small - without.small == pytest.approx(
        sum(all_reduce_seconds(each * 64, cluster) for each in (16, 8))
    )


@pytest.mark.parametrize(("count", "exact"), [(1, 0.0), (2, 1 / math.sqrt(math.pi)), (100, 2.508), (1024, 3.24)])
def test_the_largest_of_normal_numbers(count, exact):
    assert expected_maximum(count) == pytest.approx(exact, rel=0.05)


def test_a_cluster_of_another_size_fills_nodes():
    whole = Cluster(128, 8, FAST, SLOW)
    # 8 ranks where a node has room for 6 are 4 on each of two nodes, not 12.
    assert [(c.nodes, c.ranks_per_node, c.size) for c in map(Cluster(4, 6, FAST, SLOW).of_size, (4, 8, 16, 24))] == [
        (1, 4, 4), (2, 4, 8), (4, 4, 16), (4, 6, 24),
    ]  # fmt: skip
    assert [(c.nodes, c.ranks_per_node) for c in map(whole.of_size, (1, 4, 16, 1024))] == [
        (1, 1),
        (1, 4),
        (2, 8),
        (128, 8),
    ]


def test_names_and_numbers():
    assert (
        find_link("40:10").bytes_per_s * REACHED_LINK == pytest.approx(40e9) and find_link("ib-ndr") is LINKS["ib-ndr"]
    )
    assert all(
        gpu.inside in LINKS and gpu.between in LINKS and {"fp32", "bf16", "fp16"} <= set(gpu.flops)
        for gpu in GPUS.values()
    )
    assert find_link("40:10").card_per_gpu and not find_link("40:10/node").card_per_gpu
    for text in ("wire", "40", "nan:1", "40:10/", "40:10/gpu"):
        with pytest.raises(ConfigError, match="is no link; known are nvlink4"):
            find_link(text)
    for text in ("1e-310:0", "-1:2", "1e300:0", "inf:1"):
        with pytest.raises(ConfigError, match=r"GB/s; give a number from 0\.001 to 100,000"):
            find_link(text)
    for text in ("1:1e9", "1:-1"):
        with pytest.raises(ConfigError, match="microseconds; give a number from 0 to 1,000,000"):
            find_link(text)
    with pytest.raises(ConfigError, match="known are h100"):
        find_gpu("v100")


def test_loopback_is_what_the_benchmark_measured():
    found = json.loads((ROOT / "benchmarks/plan.json").read_text())["of each work"].values()
    measured = [one["all-reduce of two"] for one in found]
    assert LINKS["loopback"].bytes_per_s * REACHED_LINK / 1e9 == pytest.approx(mean(one["GB/s"] for one in measured))
    # Two messages of few bytes, one after the other.
    seconds = mean(one["seconds by bytes"]["4096"] / 2 for one in measured)
    assert LINKS["loopback"].latency == pytest.approx(seconds, abs=1e-6)


def test_the_table_of_the_documentation_is_the_benchmark():
    text = (ROOT / "docs/scaling.md").read_text()
    for work, found in json.loads((ROOT / "benchmarks/plan.json").read_text())["of each work"].items():
        one = found["1 rank"]
        half, predicted, measured = (
            1000 * one[name] for name in ("seconds of half the samples", "predicted seconds", "measured seconds")
        )
        assert abs(one["error"]) <= 0.15 and abs(found["2 ranks"]["error"]) <= 0.15  # what the page promises
        errors = f"{_error(predicted / measured - 1)} | {_error(one['error'])}"
        assert f"| {work} | {half:.1f} | {predicted:.1f} | {measured:.1f} | {errors} |" in text
        for ranks in (2, 4):
            one = found[f"{ranks} ranks"]
            names = ("seconds side by side", "predicted seconds", "measured seconds")
            beside, predicted, measured = (1000 * one[name] for name in names)
            more, cost = predicted - beside, measured - beside
            (row,) = (line for line in text.splitlines() if line.startswith(f"| {work}, {ranks} ranks"))
            cells = [cell.strip() for cell in row.strip("|").split("|")][1:]
            assert cells == [
                f"{beside:.1f}", f"{predicted:.1f}", f"{measured:.1f}", _error(predicted / measured - 1), _error(one["error"]),
                f"{more:.1f} of {cost:.1f} ({more / cost:.0%})".replace("%", " %"),
            ]  # fmt: skip


def _error(error: float) -> str:
    return f"{abs(error):.0%} too {'short' if error < 0 else 'long'}".replace("%", " %")


def test_links_are_given_inside_a_node_and_between_nodes():
    assert find_links("nvlink4,100gbe") == (LINKS["nvlink4"], LINKS["100gbe"])
    for text in ("nvlink4", "nvlink4,"):
        with pytest.raises(ConfigError, match="give both, inside a node and between nodes"):
            find_links(text)


def test_assumptions_are_named():
    assert Assumptions.parse(["overlap=0.5", "jitter=0"]) == Assumptions(overlap=0.5, jitter=0.0)
    assert Assumptions.parse([], "cpu") == Assumptions(overlap=0.0) and Assumptions.parse([], "cuda:3") == Assumptions()
    assert Assumptions.parse(["overlap=0.5"], "cpu").overlap == 0.5
    for text in (
        "overlap",
        "overlap=x",
        "overlap=-1",
        "overlap=1.1",
        "launch=1e308",
        "jitter=1e308",
        "jitter=nan",
        "convolution=0",
        "contention=0.9",
        "other=1",
    ):
        with pytest.raises(ConfigError, match=r"--assume .*(needs a number from|known are)"):
            Assumptions.parse([text])
