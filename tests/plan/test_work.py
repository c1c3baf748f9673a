import json
from collections import Counter

import pytest

from collagan_dist.config.load import load_config
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError
from collagan_dist.models.registry import count_parameters, state_bytes
from collagan_dist.plan.cost_model import Assumptions, Cluster, computed_seconds, predict
from collagan_dist.plan.hardware import GPUS, LINKS
from collagan_dist.plan.work import StepWork, count_step
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def stable() -> Config:
    return load_config("stable")


@pytest.fixture(scope="module")
def work(stable: Config) -> StepWork:
    return count_step(stable)


def test_it_is_what_the_virtual_device_counts(work):
    """benchmarks/virtual.json counts real operations on small batches, by another program."""
    counted = json.loads((ROOT / "benchmarks/virtual.json").read_text())
    for batch in (64, 256):
        moved = work.heavy_bytes.at(batch) + work.light_bytes.at(batch)
        assert moved / 1e9 == pytest.approx(counted[f"eager, batch {batch}"]["gigabytes"], rel=0.01)
    assert work.operations == pytest.approx(counted["eager, batch 64"]["operations"], rel=0.15)
    assert (
        work.flops.at(100) / 100e9 == pytest.approx(30.56, rel=0.001)
        and abs(work.flops.constant) < 1e-3 * work.flops.each
    )


def test_what_the_page_says_of_a_step(work):
    """docs/scaling.md, Where it stops: operations, gradients, and how many samples hide all but the last buckets."""
    text = " ".join((ROOT / "docs/scaling.md").read_text().split())
    clusters = {nodes: Cluster(nodes, 8, LINKS["nvlink4"], LINKS["ib-ndr"]) for nodes in (1, 2, 128)}
    compute = computed_seconds(work, GPUS["h100"], "bf16", Assumptions())
    each = {nodes: predict(work, 1024, compute, there, Assumptions()) for nodes, there in clusters.items()}
    milliseconds = [f"{1000 * step.all_reduce:.1f}" for step in each.values()]
    assert f"the launches of its {work.operations} operations" in text
    assert f"{sum(one.gradient_bytes for one in work.updates) / 1e6:.0f} MB of gradients are reduced a step" in text
    assert "{} ms on one node of H100, {} ms on 2 nodes, {} ms on 128.".format(*milliseconds) in text
    hidden = {
        nodes: next(s for s in (32, 64, 128) if predict(work, s, compute, there, Assumptions()).exposed == pytest.approx(each[nodes].exposed))
        for nodes, there in clusters.items()
    }  # fmt: skip
    assert f"with {hidden[2]} samples a GPU on 2 nodes, with {hidden[128]} on 128." in text


def test_convolutions_by_hand(work, stable):
    """Five convolutions of each of three discriminators, on the picture beside what is judged: 4x4, stride 2."""
    channels = {"inpainting": 3, "segmentation": 11, "landmarks": 5}
    forward = 0
    for judged in channels.values():
        side, inside = stable.data.image_size, 3 + judged
        for outside in (64, 128, 256, 512, 1):
            side //= 2
            forward += 2 * 16 * inside * outside * side**2
            inside = outside
    # Real and generated pictures; each backward pass is two such passes, but for the inputs, which have no gradient.
    first = sum(2 * 16 * (3 + judged) * 64 * (stable.data.image_size // 2) ** 2 for judged in channels.values())
    assert work.updates[0].backward_flops.each == pytest.approx(2 * (2 * forward - first), rel=1e-6)


def test_gradients_are_those_of_all_parameters(work, stable):
    sizes = count_parameters(stable)
    generator = sizes.pop("generator")
    assert [one.side for one in work.updates] == ["discriminators", "generator"]
    assert [one.gradient_bytes for one in work.updates] == [4 * sum(sizes.values()), 4 * generator]


def test_gfc_has_both_discriminators():
    """Its last one starts in stage 3 of 3."""
    config = load_config("gfc", sets=["model.gfc.parsing=0", "data.image_size=32"])
    sizes = count_parameters(config)
    assert count_step(config).updates[0].gradient_bytes == 4 * (sum(sizes.values()) - sizes["generator"])


def test_memory_has_the_state_and_grows_with_what_is_computed_at_a_time(work, stable):
    assert work.peak_bytes.at(0) > state_bytes(stable, count_parameters(stable))
    halves = count_step(load_config("stable", sets=["runtime.accumulate=2"]))
    assert 0.4 < halves.peak_bytes.each / work.peak_bytes.each < 0.6
    averaged = count_step(load_config("stable", sets=["optim.ema=0.9"]))
    assert averaged.peak_bytes.at(0) - work.peak_bytes.at(0) == pytest.approx(
        4 * count_parameters(stable)["generator"], rel=0.01
    )


@pytest.mark.parametrize(
    "preset", ["sii", *(pytest.param(name, marks=pytest.mark.full) for name in ("demo", "ce", "parser"))]
)
def test_every_kind_of_model_is_counted(preset):
    found = count_step(load_config(preset))
    assert found.flops.each > 1e8 and found.peak_bytes.each > 1e5 and len(found.updates) in (2, 3)


def test_every_batch_normalization_is_summed_in_both_passes(work):
    """Of float64 forward, of float32 backward; passes whose output nobody differentiates have no second."""
    forward, backward = ([channels for each, channels in work.norms if each == size] for size in (16, 8))
    assert len(forward) + len(backward) == len(work.norms) and sum(backward) > 0
    assert not Counter(backward) - Counter(forward)


def test_a_network_that_needs_a_file_says_so():
    with pytest.raises(ConfigError, match=r"model.gfc.parser"):
        count_step(load_config("gfc"))
