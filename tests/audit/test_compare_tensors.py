import pytest
import torch

from collagan_dist.audit.compare_tensors import Neighbours, differing, within


def tensors(value: float, **files: dict) -> dict:
    """A network of one layer whose weights are all `value`."""
    layer = {
        "layer.weight": torch.full((100,), value),
        "norm.running_mean": torch.zeros(4),
        "norm.num_batches_tracked": torch.tensor(3),
    }
    return {"generator": layer, **files}


def neighbours(noise: float) -> Neighbours:
    """The weights went from 0 to 1, and the twin is `noise` beside them."""
    return Neighbours(tensors(0.0), tensors(1.0), [tensors(1.0), tensors(1.0 + noise)])


def test_bits_are_compared_not_values():
    one, other = tensors(0.0), tensors(-0.0)
    assert differing(one, one) == [] and differing(one, other) == ["generator.safetensors: layer.weight"]
    assert differing(one, tensors(0.0, ema={"x": torch.zeros(1)})) == ["ema.safetensors: x"]


def test_bounds_are_five_times_the_twin_and_at_least_a_twentieth_of_the_way():
    for noise, distance, beyond in ((0.0, 0.04, False), (0.0, 0.06, True), (0.05, 0.2, False), (0.05, 0.3, True)):
        found = within(tensors(1.0 + distance), tensors(1.0), neighbours(noise), True)
        assert bool(found.beyond) == beyond and found.tells
        assert abs(found.share - distance) < 1e-6 and abs(found.bound - max(5 * noise, 0.05)) < 1e-6
    # A bound of more than the way confirms nothing, but what is within the least share needs none.
    assert not within(tensors(1.1), tensors(1.0), neighbours(0.25), True).tells
    assert within(tensors(1.04), tensors(1.0), neighbours(0.25), True).tells


def test_one_element_is_found():
    recorded = tensors(1.0)
    recorded["generator"]["layer.weight"][7] += 2.5
    found = within(recorded, tensors(1.0), neighbours(0.1), True)
    assert found.beyond == ("generator.safetensors: layer.weight, 2.5 in one element, where the largest change is 1",)


def test_statistics_and_counts():
    recorded = tensors(1.0)
    recorded["generator"]["norm.running_mean"] += 1.0
    recorded["generator"]["norm.num_batches_tracked"] += 1
    assert within(recorded, tensors(1.0), neighbours(0.0), False).beyond == ()
    assert "norm.running_mean" in " ".join(within(recorded, tensors(1.0), neighbours(0.0), True).beyond)
    del recorded["generator"]["layer.weight"]
    assert within(recorded, tensors(1.0), neighbours(0.0), False).beyond == ("generator.safetensors: layer.weight",)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_within_no_bound(value):
    recorded = tensors(1.0)
    recorded["generator"]["layer.weight"][7] = value
    for one in (recorded, tensors(value)):
        found = within(one, tensors(1.0), neighbours(0.1), True)
        assert found.beyond == ("generator.safetensors: layer.weight",) and found.share == 0.0


@pytest.mark.parametrize("fp16", [False, True])
def test_steps_of_adam_are_counted_unless_overflows_skip_them(fp16):
    def adam(step: float) -> dict:
        scale = {"generator/loss_scale": torch.tensor([1024.0, 3.0], dtype=torch.float64)} if fp16 else {}
        return {"generator/layer.weight/step": torch.tensor(step), **scale}

    def of(value: float, step: float) -> dict:
        return tensors(value, optimizer=adam(step))

    around = Neighbours(of(0.0, 0.0), of(1.0, 100.0), [of(1.0, 100.0)])
    found = within(of(1.0, 101.0), of(1.0, 100.0), around, True)
    assert found.beyond == (() if fp16 else ("optimizer.safetensors: generator/layer.weight/step",))
